//! Qwen3-TTS on the decoder of [`mk_model`]: talker, code predictor and codec.

#![deny(unsafe_code)]

pub mod audio;
pub mod codec;
pub mod config;
pub mod error;
pub mod guard;
mod onnx;
pub mod runtime;
pub mod speaker;
pub mod synth;
pub mod talker;
pub mod text;
mod weights;

pub use error::{Error, Result};
pub use mk_model;
