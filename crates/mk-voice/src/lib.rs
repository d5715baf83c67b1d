//! The voice loop: speech to text, a language model, and the speech of [`mk_tts`], over websockets.
//!
//! Nothing of it is here yet.

pub use mk_tts;
