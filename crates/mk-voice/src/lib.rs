//! The voice loop: speech to text, a language model, and the speech of [`mk_tts`], in realtime.
//!
//! - [`Voice`] is everything that conversations are made of: who listens ([`stt::Stt`]), thinks ([`llm::Llm`], with
//!   [`llm::Tools`]) and speaks ([`tts::Tts`]). Each of these hands its results over in a bounded channel, and ends when its
//!   stream is dropped.
//! - [`Session`] is one conversation: what a client says goes in, what it is told comes out ([`protocol`]).
//! - [`server::Server`] carries conversations to the page; [`client`] has those that need no page.
//! - [`turn::Machine`] decides who may speak, what is asked and what counts as said; [`text`] makes what is spoken of what
//!   is written; [`audio`] hears; [`record`] keeps; [`metrics`] counts.
//!
//! ```
//! use std::sync::Arc;
//! use mk_voice::llm::{OpenAi, OpenAiOptions};
//! use mk_voice::stt::deepgram::{Deepgram, DeepgramOptions};
//! use mk_voice::tts::{Tones, TonesOptions};
//! use mk_voice::{Secret, Voice, VoiceOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let key = || Secret::new("key".to_owned());
//! let stt = Deepgram::flux(DeepgramOptions { key: key(), ..DeepgramOptions::default() })?;
//! let llm = OpenAi::new(OpenAiOptions { key: Some(key()), ..OpenAiOptions::default() })?;
//! let mut options = VoiceOptions::default();
//! options.turn.greeting = "Hello, how can I help?".into();
//! // `tts::QwenTts` in its place speaks with a checkpoint of Qwen3-TTS.
//! let tts = Tones::new(TonesOptions::default());
//! let voice = Voice::builder(Arc::new(stt), Arc::new(llm), Arc::new(tts)).options(options).build();
//! println!("{:?}", voice.providers());
//! # Ok(())
//! # }
//! ```
//!
//! The library reads no environment variables and prints nothing; it logs with `tracing`. Keys are [`Secret`]s, which are
//! in no log, no error and no recording.

#![deny(unsafe_code)]

pub mod audio;
pub mod client;
pub mod llm;
pub mod metrics;
pub mod protocol;
pub mod record;
mod secret;
pub mod server;
pub mod session;
pub mod stt;
pub mod text;
mod tls;
pub mod tts;
pub mod turn;

pub use mk_tts;
pub use secret::Secret;
pub use session::{Session, Voice, VoiceBuilder, VoiceOptions};
