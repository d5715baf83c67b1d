//! The driver functions that run kernels, each looked up by name once.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

use cudarc::driver::sys::CUlaunchConfig;

use crate::driver::DriverError;
use crate::library::{Code, Library};

/// A context, a stream, a module or a function: what the driver hands out and takes back.
pub(crate) type Opaque = *mut c_void;

macro_rules! api {
    ($($field:ident = $name:literal: fn($($argument:ty),*);)*) => {
        /// Entry points of libcuda, by their names in the CUDA driver API.
        pub(crate) struct Api {
            $(pub(crate) $field: unsafe extern "C" fn($($argument),*) -> Code,)*
        }

        impl Api {
            fn open(library: &Library) -> Result<Self, DriverError> {
                Ok(Self {
                    // SAFETY: each type is the function's signature in the CUDA driver API, which is C and versioned by
                    // the name's suffix. The library is never unloaded, so the pointers stay valid.
                    $($field: unsafe { library.symbol($name) }?,)*
                })
            }
        }
    };
}

api! {
    primary_retain = "cuDevicePrimaryCtxRetain": fn(*mut Opaque, c_int);
    primary_release = "cuDevicePrimaryCtxRelease_v2": fn(c_int);
    set_current = "cuCtxSetCurrent": fn(Opaque);
    stream_create = "cuStreamCreate": fn(*mut Opaque, c_uint);
    stream_destroy = "cuStreamDestroy_v2": fn(Opaque);
    stream_synchronize = "cuStreamSynchronize": fn(Opaque);
    stream_query = "cuStreamQuery": fn(Opaque);
    mem_alloc = "cuMemAlloc_v2": fn(*mut u64, usize);
    mem_free = "cuMemFree_v2": fn(u64);
    mem_host_alloc = "cuMemHostAlloc": fn(*mut *mut c_void, usize, c_uint);
    mem_free_host = "cuMemFreeHost": fn(*mut c_void);
    memset = "cuMemsetD8Async": fn(u64, u8, usize, Opaque);
    copy_to_device = "cuMemcpyHtoDAsync_v2": fn(u64, *const c_void, usize, Opaque);
    copy_to_host = "cuMemcpyDtoHAsync_v2": fn(*mut c_void, u64, usize, Opaque);
    copy_on_device = "cuMemcpyDtoDAsync_v2": fn(u64, u64, usize, Opaque);
    module_load = "cuModuleLoadData": fn(*mut Opaque, *const c_void);
    module_unload = "cuModuleUnload": fn(Opaque);
    module_function = "cuModuleGetFunction": fn(*mut Opaque, Opaque, *const c_char);
    module_global = "cuModuleGetGlobal_v2": fn(*mut u64, *mut usize, Opaque, *const c_char);
    function_set_attribute = "cuFuncSetAttribute": fn(Opaque, c_int, c_int);
    occupancy = "cuOccupancyMaxActiveBlocksPerMultiprocessor": fn(*mut c_int, Opaque, c_int, usize);
    capture_begin = "cuStreamBeginCapture_v2": fn(Opaque, c_uint);
    capture_end = "cuStreamEndCapture": fn(Opaque, *mut Opaque);
    graph_instantiate = "cuGraphInstantiateWithFlags": fn(*mut Opaque, Opaque, u64);
    graph_launch = "cuGraphLaunch": fn(Opaque, Opaque);
    graph_destroy = "cuGraphDestroy": fn(Opaque);
    graph_exec_destroy = "cuGraphExecDestroy": fn(Opaque);
    launch = "cuLaunchKernel":
        fn(Opaque, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Opaque, *mut *mut c_void, *mut *mut c_void);
    launch_ex = "cuLaunchKernelEx": fn(*const CUlaunchConfig, Opaque, *mut *mut c_void, *mut *mut c_void);
    launch_cooperative = "cuLaunchCooperativeKernel":
        fn(Opaque, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Opaque, *mut *mut c_void);
}

impl Api {
    /// Looks the functions up, once per process.
    pub(crate) fn get() -> Result<&'static Self, DriverError> {
        static API: OnceLock<Result<Api, DriverError>> = OnceLock::new();
        API.get_or_init(|| Self::open(Library::get()?)).as_ref().map_err(Clone::clone)
    }
}
