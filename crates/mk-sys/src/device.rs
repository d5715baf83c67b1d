//! A device at work: its memory, its streams, and the kernels launched on them.
//!
//! Everything is freed when it is dropped. Work on a [`Stream`] is asynchronous and in order; functions that read
//! results wait for it.

mod graph;

use std::ffi::{CString, c_int, c_void};
use std::fmt;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

use crate::api::{Api, Opaque};
use crate::driver::{self, DriverError};
use crate::library::check;
pub use graph::Graph;

/// `CUDA_ERROR_NOT_READY`: there is work left on a stream.
const NOT_READY: c_int = 600;
/// `CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP`.
const MAPPED: u32 = 3;
/// `CU_STREAM_NON_BLOCKING`: no waiting for the default stream.
const NON_BLOCKING: u32 = 1;
/// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`.
const MAX_DYNAMIC_SHARED: c_int = 8;

/// A device with its primary context, shared by all that uses it.
#[derive(Clone)]
pub struct Device(Arc<Context>);

struct Context {
    api: &'static Api,
    ordinal: c_int,
    context: Opaque,
    info: driver::Device,
}

// SAFETY: a context may be used from any thread; each call makes it current first. The rest is plain data.
unsafe impl Send for Context {}
// SAFETY: as above; the driver API is thread-safe.
unsafe impl Sync for Context {}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained once in `Device::open`.
        unsafe { (self.api.primary_release)(self.ordinal) };
    }
}

impl Context {
    fn enter(&self) -> Result<&'static Api, DriverError> {
        // SAFETY: the context is retained as long as `self` lives.
        check("cuCtxSetCurrent", unsafe { (self.api.set_current)(self.context) })?;
        Ok(self.api)
    }
}

impl Device {
    /// Opens the device of this number.
    ///
    /// # Errors
    /// [`DriverError`] where there is no driver or no such device, or it does not start.
    pub fn open(ordinal: usize) -> Result<Self, DriverError> {
        let info = driver::probe()?.devices.get(ordinal).cloned().ok_or(DriverError::NoDevice)?;
        let (api, ordinal) = (Api::get()?, ordinal as c_int);
        let mut context = null_mut();
        // SAFETY: the driver counted the device; writes one pointer through a pointer to one.
        check("cuDevicePrimaryCtxRetain", unsafe { (api.primary_retain)(&mut context, ordinal) })?;
        Ok(Self(Arc::new(Context { api, ordinal, context, info })))
    }

    /// What the driver says of it.
    pub fn info(&self) -> &driver::Device {
        &self.0.info
    }

    /// A stream of its own.
    ///
    /// # Errors
    /// [`DriverError`].
    pub fn stream(&self) -> Result<Stream, DriverError> {
        let api = self.0.enter()?;
        let mut stream = null_mut();
        // SAFETY: writes one pointer through a pointer to one.
        check("cuStreamCreate", unsafe { (api.stream_create)(&mut stream, NON_BLOCKING) })?;
        Ok(Stream { device: self.clone(), stream })
    }

    /// Device memory, with anything in it.
    ///
    /// # Errors
    /// [`DriverError`], out of memory among them.
    pub fn memory(&self, bytes: usize) -> Result<Memory, DriverError> {
        let api = self.0.enter()?;
        let mut address = 0;
        // SAFETY: writes one address through a pointer to one; the size is not zero.
        check("cuMemAlloc", unsafe { (api.mem_alloc)(&mut address, bytes.max(1)) })?;
        Ok(Memory { device: self.clone(), address, bytes })
    }

    /// Host memory that the device reads and writes too, zeroed.
    ///
    /// # Errors
    /// [`DriverError`].
    pub fn host_memory(&self, bytes: usize) -> Result<HostMemory, DriverError> {
        let api = self.0.enter()?;
        let bytes = bytes.next_multiple_of(8).max(8);
        let mut pointer = null_mut();
        // SAFETY: writes one pointer through a pointer to one; the size is not zero.
        check("cuMemHostAlloc", unsafe { (api.mem_host_alloc)(&mut pointer, bytes, MAPPED) })?;
        // SAFETY: that many bytes were just allocated here.
        unsafe { pointer.cast::<u8>().write_bytes(0, bytes) };
        Ok(HostMemory { device: self.clone(), pointer, bytes })
    }

    /// Loads a fat binary.
    ///
    /// # Errors
    /// [`DriverError`] where it holds nothing for this device, or the driver is too old for it.
    pub fn load(&self, image: &'static [u8]) -> Result<Module, DriverError> {
        let api = self.0.enter()?;
        let mut module = null_mut();
        // SAFETY: an image made by nvcc, whose header holds its length; it is static.
        let code = unsafe { (api.module_load)(&mut module, image.as_ptr().cast()) };
        check("cuModuleLoadData", code)?;
        Ok(Module(Arc::new(Loaded { device: self.clone(), module })))
    }
}

/// A piece of device memory.
pub struct Memory {
    device: Device,
    address: u64,
    bytes: usize,
}

impl Memory {
    /// Its address on the device, for kernel parameters.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Its size in bytes.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether it is of no size.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The address of `offset`, from which `bytes` bytes are inside.
    fn place(&self, offset: usize, bytes: usize) -> u64 {
        assert!(
            offset.checked_add(bytes).is_some_and(|end| end <= self.bytes),
            "{bytes} bytes at {offset} of {}",
            self.bytes
        );
        self.address + offset as u64
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Ok(api) = self.device.0.enter() {
            // SAFETY: allocated in `Device::memory` and not freed before. The driver waits for work that uses it.
            unsafe { (api.mem_free)(self.address) };
        }
    }
}

/// Host memory that the device reads and writes while the host does; so all access is atomic.
pub struct HostMemory {
    device: Device,
    pointer: *mut c_void,
    bytes: usize,
}

// SAFETY: the memory is owned, and shared access to it is atomic.
unsafe impl Send for HostMemory {}
// SAFETY: as above.
unsafe impl Sync for HostMemory {}

impl HostMemory {
    /// Its address on the device, which with unified addressing is that on the host.
    pub fn address(&self) -> u64 {
        self.pointer as u64
    }

    /// All of it as words of 32 bits.
    pub fn words(&self) -> &[AtomicU32] {
        // SAFETY: allocated for `bytes` bytes, page-aligned, initialised, and only accessed atomically.
        unsafe { std::slice::from_raw_parts(self.pointer.cast(), self.bytes / 4) }
    }

    /// All of it as words of 64 bits.
    pub fn long_words(&self) -> &[AtomicU64] {
        // SAFETY: as `words`; the size is a multiple of 8.
        unsafe { std::slice::from_raw_parts(self.pointer.cast(), self.bytes / 8) }
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        if let Ok(api) = self.device.0.enter() {
            // SAFETY: allocated in `Device::host_memory` and not freed before. The driver waits for work that uses it.
            unsafe { (api.mem_free_host)(self.pointer) };
        }
    }
}

/// Kernels and constants, loaded on a device.
#[derive(Clone)]
pub struct Module(Arc<Loaded>);

struct Loaded {
    device: Device,
    module: Opaque,
}

// SAFETY: a module may be used from any thread of the process, and the driver API is thread-safe.
unsafe impl Send for Loaded {}
// SAFETY: as above.
unsafe impl Sync for Loaded {}

impl Drop for Loaded {
    fn drop(&mut self) {
        if let Ok(api) = self.device.0.enter() {
            // SAFETY: loaded in `Device::load`; kernels hold on to the module, so none of it is in use.
            unsafe { (api.module_unload)(self.module) };
        }
    }
}

impl Module {
    /// A kernel by its name.
    ///
    /// # Errors
    /// [`DriverError`] where the module has none of the name.
    pub fn kernel(&self, name: &str) -> Result<Kernel, DriverError> {
        let api = self.0.device.0.enter()?;
        let name = CString::new(name).unwrap_or_default();
        let mut function = null_mut();
        // SAFETY: writes one pointer through a pointer to one; the name ends in a zero.
        let code = unsafe { (api.module_function)(&mut function, self.0.module, name.as_ptr()) };
        check("cuModuleGetFunction", code)?;
        Ok(Kernel { module: self.clone(), function })
    }

    /// The bytes of a variable by its name.
    ///
    /// # Errors
    /// [`DriverError`] where the module has none of the name.
    pub fn variable(&self, name: &str) -> Result<Vec<u8>, DriverError> {
        let device = &self.0.device;
        let api = device.0.enter()?;
        let name = CString::new(name).unwrap_or_default();
        let (mut address, mut bytes) = (0, 0);
        // SAFETY: writes an address and a size through pointers to them; the name ends in a zero.
        let code =
            unsafe { (api.module_global)(&mut address, &mut bytes, self.0.module, name.as_ptr()) };
        check("cuModuleGetGlobal", code)?;
        let mut contents = vec![0; bytes];
        let stream = device.stream()?;
        // SAFETY: the driver gave address and size, and the copy is waited for.
        let code = unsafe {
            (api.copy_to_host)(contents.as_mut_ptr().cast(), address, bytes, stream.stream)
        };
        check("cuMemcpyDtoHAsync", code)?;
        stream.synchronize()?;
        Ok(contents)
    }
}

/// A kernel of a loaded module.
pub struct Kernel {
    module: Module,
    function: Opaque,
}

// SAFETY: a function may be used from any thread of the process, and the driver API is thread-safe.
unsafe impl Send for Kernel {}
// SAFETY: as above.
unsafe impl Sync for Kernel {}

impl Kernel {
    /// Lets it be launched with so much dynamic shared memory.
    ///
    /// # Errors
    /// [`DriverError`] where the device has less.
    pub fn allow_shared_memory(&self, bytes: u32) -> Result<(), DriverError> {
        let api = self.module.0.device.0.enter()?;
        // SAFETY: a function of a loaded module; a value that is too large is an error code.
        let code = unsafe {
            (api.function_set_attribute)(self.function, MAX_DYNAMIC_SHARED, bytes as c_int)
        };
        check("cuFuncSetAttribute", code)
    }

    /// How many of its blocks the whole device holds at a time.
    ///
    /// # Errors
    /// [`DriverError`].
    pub fn resident_blocks(&self, threads: u32, shared: u32) -> Result<u32, DriverError> {
        let device = &self.module.0.device;
        let api = device.0.enter()?;
        let mut blocks = 0;
        // SAFETY: writes one int through a pointer to one.
        let code = unsafe {
            (api.occupancy)(&mut blocks, self.function, threads as c_int, shared as usize)
        };
        check("cuOccupancyMaxActiveBlocksPerMultiprocessor", code)?;
        Ok(u32::try_from(blocks).unwrap_or(0) * device.info().multiprocessors)
    }
}

/// The dimensions of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Blocks, along x, y and z.
    pub blocks: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory of a block, in bytes.
    pub shared: u32,
    /// Whether all blocks must be on the device at once.
    pub cooperative: bool,
}

/// Work on a device, in order.
pub struct Stream {
    device: Device,
    stream: Opaque,
}

// SAFETY: a stream may be used from any thread of the process, and the driver API is thread-safe.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Ok(api) = self.device.0.enter() {
            // SAFETY: created in `Device::stream`; what is queued still runs.
            unsafe { (api.stream_destroy)(self.stream) };
        }
    }
}

impl Stream {
    /// Waits until all work is done.
    ///
    /// # Errors
    /// [`DriverError`], that of earlier work included.
    pub fn synchronize(&self) -> Result<(), DriverError> {
        let api = self.device.0.enter()?;
        // SAFETY: the stream lives as long as `self`.
        check("cuStreamSynchronize", unsafe { (api.stream_synchronize)(self.stream) })
    }

    /// Whether all work is done.
    ///
    /// # Errors
    /// [`DriverError`], that of earlier work included.
    pub fn is_done(&self) -> Result<bool, DriverError> {
        let api = self.device.0.enter()?;
        // SAFETY: the stream lives as long as `self`.
        match unsafe { (api.stream_query)(self.stream) } {
            NOT_READY => Ok(false),
            code => check("cuStreamQuery", code).map(|()| true),
        }
    }

    /// Sets `bytes` bytes from `offset` on to `value`.
    ///
    /// # Errors
    /// [`DriverError`].
    ///
    /// # Panics
    /// Bytes outside the memory.
    pub fn fill(
        &self,
        memory: &Memory,
        offset: usize,
        bytes: usize,
        value: u8,
    ) -> Result<(), DriverError> {
        let (api, address) = (self.device.0.enter()?, memory.place(offset, bytes));
        // SAFETY: `place` has checked the bounds.
        check("cuMemsetD8Async", unsafe { (api.memset)(address, value, bytes, self.stream) })
    }

    /// Copies `source` to `offset`; the source may be dropped as soon as this returns.
    ///
    /// # Errors
    /// [`DriverError`].
    ///
    /// # Panics
    /// Bytes outside the memory.
    pub fn upload(&self, memory: &Memory, offset: usize, source: &[u8]) -> Result<(), DriverError> {
        let (api, address) = (self.device.0.enter()?, memory.place(offset, source.len()));
        // SAFETY: `place` has checked the bounds. The source is pageable, so the driver has copied it when it returns.
        let code = unsafe {
            (api.copy_to_device)(address, source.as_ptr().cast(), source.len(), self.stream)
        };
        check("cuMemcpyHtoDAsync", code)
    }

    /// Copies from `offset` on, when all work before it is done.
    ///
    /// # Errors
    /// [`DriverError`].
    ///
    /// # Panics
    /// Bytes outside the memory.
    pub fn download(
        &self,
        memory: &Memory,
        offset: usize,
        target: &mut [u8],
    ) -> Result<(), DriverError> {
        let (api, address) = (self.device.0.enter()?, memory.place(offset, target.len()));
        // SAFETY: `place` has checked the bounds, and the copy is waited for below.
        let code = unsafe {
            (api.copy_to_host)(target.as_mut_ptr().cast(), address, target.len(), self.stream)
        };
        let queued = check("cuMemcpyDtoHAsync", code);
        self.synchronize()?;
        queued
    }

    /// Copies `bytes` bytes from one place on the device to another.
    ///
    /// # Errors
    /// [`DriverError`].
    ///
    /// # Panics
    /// Bytes outside the memories.
    pub fn copy(
        &self,
        (source, from): (&Memory, usize),
        (target, to): (&Memory, usize),
        bytes: usize,
    ) -> Result<(), DriverError> {
        let api = self.device.0.enter()?;
        let (source, target) = (source.place(from, bytes), target.place(to, bytes));
        // SAFETY: `place` has checked the bounds.
        let code = unsafe { (api.copy_on_device)(target, source, bytes, self.stream) };
        check("cuMemcpyDtoDAsync", code)
    }

    /// Launches a kernel whose one parameter is a `P`.
    ///
    /// # Errors
    /// [`DriverError`]; among others where a cooperative grid does not fit the device.
    ///
    /// # Safety
    /// `P` is the kernel's parameter, and everything in it holds: pointers are to memory of at least the size that the
    /// kernel takes it for, which lives until the launch is over, and which nothing else uses in a way that conflicts.
    pub unsafe fn launch<P: Copy>(
        &self,
        kernel: &Kernel,
        grid: Grid,
        parameter: &P,
    ) -> Result<(), DriverError> {
        let api = self.device.0.enter()?;
        let mut parameters = [(&raw const *parameter).cast_mut().cast::<c_void>()];
        let ([x, y, z], function) = (grid.blocks, kernel.function);
        let (threads, shared) = (grid.threads, grid.shared);
        if grid.cooperative {
            // SAFETY: the parameter is copied before the call returns; the rest is the caller's word.
            let code = unsafe {
                let parameters = parameters.as_mut_ptr();
                (api.launch_cooperative)(
                    function,
                    x,
                    y,
                    z,
                    threads,
                    1,
                    1,
                    shared,
                    self.stream,
                    parameters,
                )
            };
            return check("cuLaunchCooperativeKernel", code);
        }
        // SAFETY: as above.
        let code = unsafe {
            let parameters = parameters.as_mut_ptr();
            (api.launch)(
                function,
                x,
                y,
                z,
                threads,
                1,
                1,
                shared,
                self.stream,
                parameters,
                null_mut(),
            )
        };
        check("cuLaunchKernel", code)
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Device").field(&self.0.info).finish()
    }
}
