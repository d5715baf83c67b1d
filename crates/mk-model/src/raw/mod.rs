//! The one layer of this crate with `unsafe` in it: memory maps and SIMD kernels, behind safe functions.

#![allow(unsafe_code)]

pub(crate) mod kernels;
pub(crate) mod mmap;
mod simd;

pub use kernels::Isa;
