//! The voice loop: speech to text, a language model, and the speech of [`mk_tts`], in realtime.
//!
//! - [`stt::Stt`], [`llm::Llm`] and [`tts::Tts`] are what a conversation is made of; each hands its results over in a
//!   bounded channel, and ends when its stream is dropped.
//! - [`server::Server`] has the page and carries conversations to it; [`metrics::Metrics`] counts what they do.
//! - [`protocol`] is what a client (a page, a microphone, a file) and the loop say to each other.

#![deny(unsafe_code)]

pub mod llm;
pub mod metrics;
pub mod protocol;
pub mod server;
pub mod session;
pub mod stt;
pub mod tts;

pub use mk_tts;
