//! Between text and token ids.

mod table;
pub mod tokenizer;

pub(crate) use table::byte_chars;

pub use tokenizer::Tokenizer;
