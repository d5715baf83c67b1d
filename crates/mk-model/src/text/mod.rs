//! Between text and token ids: the tokenizer, encoding and decoding as a text grows, and chat templates.

pub mod chat;
mod clock;
mod json;
pub mod live;
pub mod stream;
mod table;
pub mod tokenizer;
pub mod utf8;

pub use chat::{ChatTemplate, Message};
pub use live::{LiveEncoder, Piece};
pub use stream::StreamDecoder;
pub use tokenizer::Tokenizer;
pub use utf8::Utf8Decoder;

pub(crate) use table::byte_chars;
