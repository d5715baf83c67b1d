//! Qwen3-TTS on the decoder of [`mk_model`]: talker, code predictor and codec.
//!
//! Nothing of it is here yet. What it will stand on is: [`mk_model::Model::load_part`] loads a decoder that is part of
//! another checkpoint (the talker, the code predictor and its 15 heads), and [`mk_model::Sequence::step`] takes
//! embedding rows in and gives hidden states out.

pub use mk_model;
