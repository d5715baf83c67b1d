//! A Qwen3 decoder.

#![deny(unsafe_code)]

pub mod backend;
pub mod checkpoint;
pub mod config;
pub mod error;
pub mod generation_config;
pub mod model;
mod raw;
pub mod rng;
pub mod sampling;
pub mod sequence;
pub mod stop;
pub mod stream;

pub use backend::cpu::CpuOptions;
pub use backend::{Input, Output, Readout, Rows, Step};
pub use checkpoint::{Checkpoint, Dtype};
pub use config::Config;
pub use error::{Error, Problem, Result};
pub use generation_config::GenerationConfig;
pub use model::{Device, Model, ModelOptions, Precision};
pub use raw::Isa;
pub use sampling::Sampling;
pub use sequence::{DecodeOptions, Finish, Sampled, Sequence};
pub use stream::TokenStream;
