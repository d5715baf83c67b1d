//! What a language model writes, on its way to the speech: cut into pieces that are spoken in one go, freed of what
//! only the eye wants, with places, so that it is known afterwards what was said.
//!
//! A [`Speaker`] takes the deltas of a reply. Its parts, in the order the text runs through them: the blocks of
//! markdown (`lines`, `blocks`), the cuts (`sentence`, `chunk`), what is markup inside of a line
//! (`inline`), and what is said in other words than it is written (`normal`).
//!
//! Everything here is pure: no clock, no threads, no I/O.

mod blocks;
mod chunk;
mod cut;
mod inline;
mod language;
mod lines;
mod normal;
mod origin;
mod placed;
mod sentence;
mod speaker;

pub use cut::cut_at_word;
pub use language::{Language, UnknownLanguage};
pub use origin::Origin;
pub use speaker::{ChunkOptions, CodeBlocks, Piece, Speaker};
