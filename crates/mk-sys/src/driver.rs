//! The CUDA driver of this machine and the devices it drives.

use std::fmt;

use cudarc::driver::sys::CUdevice_attribute as Attribute;

use crate::library::{Handle, Library};

/// A driver that answers, and its devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Driver {
    /// The newest CUDA that it serves.
    pub version: Version,
    /// In the driver's order, which `CUDA_VISIBLE_DEVICES` changes; at least one.
    pub devices: Vec<Device>,
}

/// A version of CUDA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 12 of 12.8.
    pub major: u32,
    /// 8 of 12.8.
    pub minor: u32,
}

/// What kernels and their launches depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The maker's name for it.
    pub name: String,
    /// (9, 0) for sm_90.
    pub compute_capability: (u32, u32),
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Device memory, in bytes.
    pub memory: usize,
    /// L2 cache, in bytes.
    pub l2_cache: u32,
    /// Most shared memory a block may opt in to, in bytes.
    pub shared_memory_per_block: u32,
    /// Highest clock of the multiprocessors, in kHz.
    pub clock_khz: u32,
    /// Highest clock of the memory, in kHz; two transfers a clock.
    pub memory_clock_khz: u32,
    /// Width of the memory's bus, in bits.
    pub memory_bus_bits: u32,
}

/// Why there is no device to use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DriverError {
    /// No libcuda, or one that does not load.
    #[error("no CUDA driver: libcuda is not on this machine, or does not load")]
    NotFound,
    /// A libcuda that lacks a function every CUDA driver has.
    #[error("the CUDA driver library is broken: it has no {symbol}")]
    Broken {
        /// The function.
        symbol: &'static str,
    },
    /// A driver without a device, or with all of them hidden by `CUDA_VISIBLE_DEVICES`.
    #[error("the CUDA driver has no device")]
    NoDevice,
    /// A call that failed in another way.
    #[error("the CUDA driver failed: {call} returned {code}")]
    Failed {
        /// The function of the driver API.
        call: &'static str,
        /// Its `CUresult`.
        code: i32,
    },
}

/// Asks the driver for itself and its devices. Makes no context, so it takes no device memory.
///
/// The library is opened once per process: one that is installed later is not found by the same process.
///
/// # Errors
/// [`DriverError`] where there is no driver, no device, or one of them does not work. It does not panic.
pub fn probe() -> Result<Driver, DriverError> {
    let library = Library::get()?;
    let version = library.version()?;
    let count = library.count()?;
    if count < 1 {
        return Err(DriverError::NoDevice);
    }
    let devices =
        (0..count).map(|i| library.device(i).and_then(|handle| Device::read(library, handle)));
    Ok(Driver { version: Version::from_code(version), devices: devices.collect::<Result<_, _>>()? })
}

impl Device {
    fn read(library: &Library, handle: Handle) -> Result<Self, DriverError> {
        let attribute = |attribute| library.attribute(handle, attribute);
        Ok(Self {
            name: library.name(handle)?,
            compute_capability: (
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            ),
            multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            memory: library.memory(handle)?,
            l2_cache: attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?,
            shared_memory_per_block: attribute(
                Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
            )?,
            clock_khz: attribute(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE)?,
            memory_clock_khz: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE)?,
            memory_bus_bits: attribute(Attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH)?,
        })
    }
}

impl Device {
    /// What the memory transfers at its peak, in bytes a second.
    pub fn memory_bandwidth(&self) -> u64 {
        2 * 1000 * u64::from(self.memory_clock_khz) * u64::from(self.memory_bus_bits) / 8
    }
}

impl Version {
    /// `cuDriverGetVersion` answers 1000 · major + 10 · minor.
    fn from_code(code: i32) -> Self {
        let code = u32::try_from(code).unwrap_or(0);
        Self { major: code / 1000, minor: code % 1000 / 10 }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(Version::from_code(12080).to_string(), "12.8");
        assert_eq!(Version::from_code(13000), Version { major: 13, minor: 0 });
        assert_eq!(Version::from_code(-1).to_string(), "0.0");
    }
}
