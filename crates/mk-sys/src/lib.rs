//! What this workspace asks of the machine's CUDA driver, and the kernels it hands to it.
//!
//! [`driver::probe`] answers whether there is a driver, and which devices it drives. The library is looked for when the
//! question is asked, so a program that holds this crate starts on a machine without CUDA.
//!
//! [`abi`] has the structs that kernels are launched with, made from `kernels/abi.h`. With the feature `cuda`,
//! `kernels` holds what nvcc made of `kernels/`, and `device` has memory, streams and launches.

pub mod abi;
#[cfg(feature = "cuda")]
mod api;
#[cfg(feature = "cuda")]
pub mod device;
pub mod driver;
#[cfg(feature = "cuda")]
pub mod kernels;
mod library;
pub mod nvcc;

/// A hash of the header that bindings are made from (64-bit FNV-1a): an identity, not a protection.
pub fn header_hash(text: &[u8]) -> u64 {
    text.iter().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

#[cfg(test)]
mod tests {
    /// Whoever changes the header has to run `cargo xtask codegen`.
    #[test]
    fn bindings_are_of_the_header_that_is_there() {
        let header = super::header_hash(include_bytes!("../../../kernels/abi.h"));
        let bindings = include_str!("abi.rs");
        assert!(
            bindings.contains(&format!("// Header {header:016x}")),
            "run `cargo xtask codegen`"
        );
    }
}
