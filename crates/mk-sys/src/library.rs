//! The few driver functions that a probe needs, each looked up by name before it is called.
//!
//! cudarc's own wrappers are not used here: they panic where a symbol is missing, and they read a result code into an
//! enum, which a newer driver's unknown code must not reach.

use std::ffi::{c_char, c_int, c_uint};
use std::sync::OnceLock;

use cudarc::driver::sys;

use crate::driver::DriverError;

/// A `CUresult`; 0 is success.
pub(crate) type Code = c_int;

/// Entry points of libcuda, by their names in the CUDA driver API.
pub(crate) struct Library {
    init: unsafe extern "C" fn(c_uint) -> Code,
    driver_get_version: unsafe extern "C" fn(*mut c_int) -> Code,
    device_get_count: unsafe extern "C" fn(*mut c_int) -> Code,
    device_get: unsafe extern "C" fn(*mut c_int, c_int) -> Code,
    device_get_name: unsafe extern "C" fn(*mut c_char, c_int, c_int) -> Code,
    device_total_mem: unsafe extern "C" fn(*mut usize, c_int) -> Code,
    device_get_attribute: unsafe extern "C" fn(*mut c_int, c_uint, c_int) -> Code,
}

/// A device that the driver counted; only [`Library::device`] makes one.
#[derive(Clone, Copy)]
pub(crate) struct Handle(c_int);

impl Library {
    /// Opens libcuda and starts the driver, once per process.
    pub(crate) fn get() -> Result<&'static Self, DriverError> {
        static LIBRARY: OnceLock<Result<Library, DriverError>> = OnceLock::new();
        LIBRARY.get_or_init(Self::open).as_ref().map_err(Clone::clone)
    }

    fn open() -> Result<Self, DriverError> {
        // SAFETY: loading a library runs its initialisers. This one is found by the system's search path under the
        // driver's own name, so it is what any CUDA program on this machine would load and trust.
        if !unsafe { sys::is_culib_present() } {
            return Err(DriverError::NotFound);
        }
        macro_rules! symbol {
            ($name:literal) => {
                // SAFETY: the field's type is the function's signature in the CUDA driver API, which is C and has not
                // changed since CUDA 3.2.
                unsafe { find($name) }?
            };
        }
        let library = Self {
            init: symbol!("cuInit"),
            driver_get_version: symbol!("cuDriverGetVersion"),
            device_get_count: symbol!("cuDeviceGetCount"),
            device_get: symbol!("cuDeviceGet"),
            device_get_name: symbol!("cuDeviceGetName"),
            device_total_mem: symbol!("cuDeviceTotalMem_v2"),
            device_get_attribute: symbol!("cuDeviceGetAttribute"),
        };
        // SAFETY: cuInit may be called at any time and from any thread; 0 is the only flag it takes.
        check("cuInit", unsafe { (library.init)(0) })?;
        Ok(library)
    }

    /// Any function of the driver's.
    ///
    /// # Safety
    /// `F` must be a function pointer of the signature that the driver API gives the symbol. It stays valid: the library
    /// is never unloaded.
    #[cfg(feature = "cuda")]
    pub(crate) unsafe fn symbol<F: Copy>(&self, name: &'static str) -> Result<F, DriverError> {
        // SAFETY: there is a `Library`, so libcuda was loaded; the rest is the caller's word.
        unsafe { find(name) }
    }

    pub(crate) fn version(&self) -> Result<c_int, DriverError> {
        let mut version = 0;
        // SAFETY: writes one int through a pointer to one.
        check("cuDriverGetVersion", unsafe { (self.driver_get_version)(&mut version) })?;
        Ok(version)
    }

    pub(crate) fn count(&self) -> Result<c_int, DriverError> {
        let mut count = 0;
        // SAFETY: the driver is initialised; writes one int through a pointer to one.
        check("cuDeviceGetCount", unsafe { (self.device_get_count)(&mut count) })?;
        Ok(count)
    }

    pub(crate) fn device(&self, ordinal: c_int) -> Result<Handle, DriverError> {
        let mut handle = 0;
        // SAFETY: as in `count`; an ordinal out of range is an error code.
        check("cuDeviceGet", unsafe { (self.device_get)(&mut handle, ordinal) })?;
        Ok(Handle(handle))
    }

    pub(crate) fn name(&self, device: Handle) -> Result<String, DriverError> {
        let mut buffer = [0_u8; 256];
        let length = buffer.len() as c_int;
        // SAFETY: writes at most `length` bytes into a buffer of that many; `Handle` is a device of this driver.
        let code = unsafe { (self.device_get_name)(buffer.as_mut_ptr().cast(), length, device.0) };
        check("cuDeviceGetName", code)?;
        let name = buffer.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(String::from_utf8_lossy(name).into_owned())
    }

    pub(crate) fn memory(&self, device: Handle) -> Result<usize, DriverError> {
        let mut bytes = 0;
        // SAFETY: writes one size_t through a pointer to one; `Handle` is a device of this driver.
        check("cuDeviceTotalMem", unsafe { (self.device_total_mem)(&mut bytes, device.0) })?;
        Ok(bytes)
    }

    pub(crate) fn attribute(
        &self,
        device: Handle,
        attribute: sys::CUdevice_attribute,
    ) -> Result<u32, DriverError> {
        let mut value = 0;
        // SAFETY: writes one int through a pointer to one; `Handle` is a device of this driver, and an attribute that
        // it does not know is an error code.
        let code =
            unsafe { (self.device_get_attribute)(&mut value, attribute as c_uint, device.0) };
        check("cuDeviceGetAttribute", code)?;
        Ok(u32::try_from(value).unwrap_or(0))
    }
}

/// A function of libcuda by its name.
///
/// # Safety
/// libcuda can be loaded, and `F` is a function pointer of the signature that the driver API gives the name.
unsafe fn find<F: Copy>(name: &'static str) -> Result<F, DriverError> {
    // SAFETY: `culib` panics only where the library cannot be loaded, and the caller knows that it can.
    let library = unsafe { sys::culib() };
    // SAFETY: the caller's word. The library is never unloaded, so the pointer stays valid.
    let symbol = unsafe { library.get::<F>(name.as_bytes()) };
    symbol.map(|found| *found).map_err(|_| DriverError::Broken { symbol: name })
}

pub(crate) fn check(call: &'static str, code: Code) -> Result<(), DriverError> {
    match code {
        0 => Ok(()),
        // CUDA_ERROR_NO_DEVICE
        100 => Err(DriverError::NoDevice),
        code => Err(DriverError::Failed { call, code }),
    }
}
