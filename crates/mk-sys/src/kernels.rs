//! The compiled kernels.

use std::fmt;

/// Compute capabilities that the decode kernel is made for: it needs bulk copies, and 227 KB of shared memory a block.
const SUPPORTED: [(u32, u32); 2] = [(9, 0), (10, 0)];

/// Why there are no kernels to load.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoKernels {
    /// The crate was built where nvcc was not found.
    #[error(
        "this program was built without nvcc, so it has no CUDA kernels: `cargo xtask setup --cuda` installs it, then \
         build again"
    )]
    NotBuilt,
    /// The kernels do not run on such a device.
    #[error(
        "the CUDA kernels do not run on compute capability {major}.{minor} yet, only on {}",
        Capabilities
    )]
    NotSupported {
        /// 8 of 8.6.
        major: u32,
        /// 6 of 8.6.
        minor: u32,
    },
}

struct Capabilities;

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> =
            SUPPORTED.iter().map(|(major, minor)| format!("{major}.{minor}")).collect();
        f.write_str(&names.join(" and "))
    }
}

/// The kernels for a device of this compute capability, as a fat binary for `cuModuleLoadData`.
///
/// # Errors
/// [`NoKernels`] where the crate was built without nvcc, or the device is one they are not made for.
pub fn image(capability: (u32, u32)) -> Result<&'static [u8], NoKernels> {
    #[cfg(mk_kernels)]
    let image: Option<&'static [u8]> = Some(include_bytes!(env!("MK_KERNELS_IMAGE")));
    #[cfg(not(mk_kernels))]
    let image: Option<&'static [u8]> = None;
    let image = image.ok_or(NoKernels::NotBuilt)?;
    if SUPPORTED.contains(&capability) {
        Ok(image)
    } else {
        Err(NoKernels::NotSupported { major: capability.0, minor: capability.1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_without_kernels_are_named() {
        let error = image((8, 6)).unwrap_err();
        let text = error.to_string();
        match error {
            NoKernels::NotBuilt => assert!(text.contains("setup --cuda"), "{text}"),
            NoKernels::NotSupported { .. } => {
                assert!(text.contains("8.6 yet, only on 9.0 and 10.0"), "{text}");
                assert!(!image((9, 0)).unwrap().is_empty());
            }
        }
    }
}
