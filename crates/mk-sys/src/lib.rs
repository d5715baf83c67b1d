//! What this workspace asks of the machine's CUDA driver.
//!
//! Today that is one question, [`driver::probe`]: is there a driver, and which devices does it drive. The library is
//! looked for when the question is asked, so a program that holds this crate starts on a machine without CUDA. All
//! `unsafe` code that CUDA calls for belongs in this crate.

pub mod driver;
mod library;
