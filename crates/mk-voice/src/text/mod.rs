//! What a language model writes, on its way to the speech: cut into pieces that are spoken in one go, freed of what
//! only the eye wants, with places, so that it is known afterwards what was said.
//!
//! Everything here is pure: no clock, no threads, no I/O.

mod cut;
mod language;
mod origin;
mod speaker;

pub use cut::cut_at_word;
pub use language::{Language, UnknownLanguage};
pub use origin::Origin;
pub use speaker::{ChunkOptions, CodeBlocks, Piece, Speaker};
