//! The voice loop: speech to text, a language model, and the speech of [`mk_tts`], over websockets.

pub mod audio;
pub mod record;
pub mod text;

pub use mk_tts;
