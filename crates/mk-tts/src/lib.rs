//! Qwen3-TTS on the decoder of [`mk_model`]: text to speech, streamed, on any machine.
//!
//! Every published 12 Hz model is read by its own configuration: the Base models, which clone voices, the CustomVoice
//! models, which have voices of their own, and VoiceDesign, which makes a voice to a description. The principal types:
//!
//! - [`Tts`] is a checkpoint, loaded: its talker and code predictor on a device, its codec on an engine. It is shared;
//!   any number of speeches run at once.
//! - [`Voice`] is who speaks: [`Tts::voice`], [`Tts::clone_voice`], [`Tts::design_voice`]. A cloned voice can be kept in
//!   a file.
//! - [`Speech`] is one utterance in the making, an iterator over [`Chunk`]s of samples: [`Tts::speak`] for a text,
//!   [`Tts::speak_live`] for one that is still being written. It can be cancelled from any thread ([`Canceller`]), and
//!   says how much of the text is spoken when so much has been played ([`SpokenText`]).
//!
//! ```
//! use mk_tts::config::ModelType;
//! use mk_tts::guard::GuardOptions;
//! use mk_tts::synth::Spec;
//! use mk_tts::{SpeakOptions, Tts, TtsOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A small random checkpoint stands in for a published one here; its speech is noise without an end.
//! let dir = tempfile::tempdir()?;
//! Spec::tiny(ModelType::CustomVoice).write(dir.path())?;
//!
//! let tts = Tts::load(dir.path(), &TtsOptions::default())?;
//! let voice = tts.voice("ryan")?;
//! let options = SpeakOptions {
//!     language: "english".into(),
//!     guard: GuardOptions { max_frames: Some(3), ..GuardOptions::default() },
//!     ..SpeakOptions::default()
//! };
//! let mut samples = Vec::new();
//! for chunk in tts.speak("Hello world", &voice, &options)? {
//!     samples.extend(chunk?.samples);
//! }
//! assert_eq!(samples.len(), 3 * tts.samples_per_frame());
//!
//! // A text as a language model writes it; usually from another thread.
//! let (mut writer, speech) = tts.speak_live(&voice, &options)?;
//! writer.push("Hello ")?;
//! writer.push("there")?;
//! writer.finish()?;
//! for chunk in speech {
//!     println!("{} samples", chunk?.samples.len());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! From the text to the sample: [`text`] cleans and tokenises, [`talker`] makes frames of codes, [`codec`] makes samples
//! of them; [`audio`] and [`speaker`] analyse recordings. The graphs of codec and encoders are written by us from the
//! checkpoint's tensors, and run by an engine of [`runtime`]: ONNX Runtime where it is found, rten everywhere.
//!
//! The library reads no environment variables and prints nothing. Errors are values of [`Error`]; nothing a caller can
//! pass makes it panic.

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
