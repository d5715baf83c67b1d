//! A Qwen3 decoder.

#![deny(unsafe_code)]

pub mod checkpoint;
pub mod config;
pub mod error;
pub mod generation_config;
pub mod rng;
pub mod synth;
pub mod text;

pub use checkpoint::Dtype;
pub use config::Config;
pub use error::{Error, Problem, Result};
pub use generation_config::GenerationConfig;
