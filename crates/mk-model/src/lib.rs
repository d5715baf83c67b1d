//! A Qwen3 decoder that a program can embed: on any CPU and, with the feature `cuda`, on an NVIDIA GPU that makes runs of
//! tokens by itself.
//!
//! The principal types, from the file to the token:
//!
//! - [`Checkpoint`] is a directory in the Hugging Face layout, opened: its configuration read, its weights mapped.
//!   [`checkpoint::hub::locate`] finds one by its name on the hub.
//! - [`Model`] is a checkpoint's weights on a device, checked and ready. It is shared: cloning it copies nothing.
//! - [`Sequence`] is one text in the making: a KV cache and what is in it. [`Sequence::set_prompt`] keeps what the cache
//!   already holds of a new prompt, [`Sequence::decode`] makes tokens, [`Sequence::extend`] reads logits and hidden
//!   states, and takes embedding rows in the place of tokens. A model may have any number of sequences at once.
//! - [`Sampling`] says how a token is chosen; the same seed gives the same tokens, on every backend.
//! - [`text::Tokenizer`] and [`text::ChatTemplate`] lead from text to ids and back; [`generate`](generate::generate)
//!   puts it all together.
//!
//! ```
//! use std::ops::ControlFlow;
//! use mk_model::generate::{TextOptions, generate};
//! use mk_model::synth::Spec;
//! use mk_model::text::Tokenizer;
//! use mk_model::{Checkpoint, DecodeOptions, Finish, Model, ModelOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A small random checkpoint stands in for a published one here; its text is noise.
//! let dir = tempfile::tempdir()?;
//! Spec::tiny().write(dir.path())?;
//!
//! let checkpoint = Checkpoint::open(dir.path())?;
//! let tokenizer = Tokenizer::from_dir(dir.path())?;
//! let model = Model::load(&checkpoint, &ModelOptions::default())?;
//!
//! let mut sequence = model.sequence()?;
//! sequence.set_prompt(&tokenizer.encode("The capital of France is")?)?;
//! let options = TextOptions {
//!     decode: DecodeOptions { max_tokens: 8, stop_ids: Some(vec![]), ..Default::default() },
//!     ..Default::default()
//! };
//! let made = generate(&mut sequence, &tokenizer, &options, |piece| {
//!     print!("{piece}");
//!     ControlFlow::Continue(())
//! })?;
//! assert_eq!(made.ids.len(), 8);
//! assert_eq!(made.finish, Finish::Length);
//! # Ok(())
//! # }
//! ```
//!
//! The library reads no environment variables and prints nothing. Errors are values of [`Error`], which name what they
//! are about; nothing a caller can pass makes it panic. `unsafe` is confined to modules named `raw`.

#![deny(unsafe_code)]

pub mod backend;
pub mod checkpoint;
pub mod config;
pub mod error;
pub mod generate;
pub mod generation_config;
pub mod linear;
pub mod model;
mod raw;
pub mod rng;
pub mod sampling;
pub mod sequence;
pub mod stop;
pub mod stream;
pub mod synth;
pub mod text;

pub use backend::cpu::CpuOptions;
pub use backend::{CudaFault, CudaOptions, Input, Output, Precision, Readout, Rows, Step};
pub use checkpoint::{Checkpoint, Dtype};
pub use config::Config;
pub use error::{Error, Problem, Result};
pub use generation_config::GenerationConfig;
pub use linear::Linear;
pub use model::{Device, Model, ModelOptions};
pub use raw::Isa;
pub use sampling::Sampling;
pub use sequence::{DecodeOptions, Finish, Sampled, Sequence};
pub use stream::TokenStream;

/// The README's code must compile.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
mod readme {}
