//! Qwen3-TTS on the decoder of [`mk_model`]: talker, code predictor and codec.

#![deny(unsafe_code)]

pub mod audio;
pub mod codec;
pub mod config;
pub mod error;
mod fade;
pub mod guard;
mod onnx;
mod recent;
pub mod runtime;
pub mod speaker;
pub mod speech;
pub mod synth;
pub mod talker;
pub mod text;
pub mod tts;
pub mod voice;
mod weights;

pub use error::{Error, Result};
pub use mk_model;
pub use speech::{Canceller, Chunk, Finish, SpeakOptions, Speech, SpokenText};
pub use tts::{Tts, TtsOptions};
pub use voice::Voice;
