//! The compiled kernels.

/// The least that the kernels ask of a device: copies of 16 bytes that go on beside the arithmetic, and bf16 products.
const LEAST: (u32, u32) = (8, 0);

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
    /// The device is older than the kernels can do with.
    #[error(
        "the CUDA kernels need compute capability {}.{} or more, the device has {major}.{minor}",
        LEAST.0,
        LEAST.1
    )]
    TooOld {
        /// 7 of 7.5.
        major: u32,
        /// 5 of 7.5.
        minor: u32,
    },
}

/// The kernels for a device of this compute capability, as a fat binary for `cuModuleLoadData`: machine code for the
/// chips in [`crate::nvcc::CHIPS`], and PTX for the others.
///
/// # Errors
/// [`NoKernels`] where the crate was built without nvcc, or the device is too old.
pub fn image(capability: (u32, u32)) -> Result<&'static [u8], NoKernels> {
    #[cfg(mk_kernels)]
    let image: Option<&'static [u8]> = Some(include_bytes!(env!("MK_KERNELS")));
    #[cfg(not(mk_kernels))]
    let image: Option<&'static [u8]> = None;
    for_device(image, capability)
}

/// The PTX alone, which the driver compiles for whatever the device is.
///
/// # Errors
/// As for [`image`].
pub fn portable_image(capability: (u32, u32)) -> Result<&'static [u8], NoKernels> {
    #[cfg(mk_kernels)]
    let image: Option<&'static [u8]> = Some(include_bytes!(env!("MK_PORTABLE_KERNELS")));
    #[cfg(not(mk_kernels))]
    let image: Option<&'static [u8]> = None;
    for_device(image, capability)
}

fn for_device(
    image: Option<&'static [u8]>,
    (major, minor): (u32, u32),
) -> Result<&'static [u8], NoKernels> {
    let image = image.ok_or(NoKernels::NotBuilt)?;
    if (major, minor) < LEAST { Err(NoKernels::TooOld { major, minor }) } else { Ok(image) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_without_kernels_are_named() {
        let error = for_device(Some(&[1]), (7, 5)).unwrap_err().to_string();
        assert!(error.contains("8.0 or more, the device has 7.5"), "{error}");
        assert_eq!(for_device(None, (9, 0)), Err(NoKernels::NotBuilt));
        assert_eq!(for_device(Some(&[1]), (12, 1)), Ok(&[1][..]));
    }

    #[test]
    fn both_images_are_there_or_none() {
        let sizes =
            [image, portable_image].map(|image| image((9, 0)).map(<[u8]>::len).unwrap_or(0));
        println!("{} bytes, PTX alone {}", sizes[0], sizes[1]);
        assert!(sizes == [0, 0] || (0 < sizes[1] && sizes[1] < sizes[0]), "{sizes:?}");
    }
}
