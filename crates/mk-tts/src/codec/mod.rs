//! The codec: 12.5 frames of 16 codes a second to samples, and back.

mod config;
mod decoder;
mod decoder_graph;
mod encoder;
mod encoder_graph;
mod fold;

pub use config::{CodecConfig, DecoderConfig, EncoderConfig};
pub use decoder::{CodecDecoder, CodecStream};
pub use encoder::CodecEncoder;
