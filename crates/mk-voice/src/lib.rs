//! The voice loop: speech to text, a language model, and the speech of [`mk_tts`], in realtime.
//!
//! - [`stt::Stt`], [`llm::Llm`] and [`tts::Tts`] are what a conversation is made of; each hands its results over in a
//!   bounded channel, and ends when its stream is dropped.
//! - [`protocol`] is what a client (a page, a microphone, a file) and the loop say to each other.

#![deny(unsafe_code)]

pub mod llm;
pub mod protocol;
mod secret;
pub mod session;
pub mod stt;
mod tls;
pub mod tts;

pub use mk_tts;
pub use secret::Secret;
