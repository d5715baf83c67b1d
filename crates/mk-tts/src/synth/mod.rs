//! Random Qwen3-TTS checkpoints in the published layout, from a seed: for tests, and for measuring speed without
//! downloading anything. What they say is noise.
//!
//! As in [`mk_model::synth`], a checkpoint is a function of its [`Spec`]: the same bytes on every machine. Names,
//! shapes and dtypes are those of the published repositories; the tests hold the sizes of the files against theirs.

mod codec;
mod config;
mod shape;
mod speaker;
mod talker;
mod tokenizer;

use std::path::Path;

use mk_model::Dtype;
use mk_model::error::Problem;
use mk_model::synth::file;
use mk_model::synth::tensors::{self, Tensor};

use crate::config::ModelType;
use crate::error::{Error, Result};

pub use shape::{CodecDecoder, CodecEncoder, Decoder, SpeakerEncoder};

/// Folder of the codec within a checkpoint.
const CODEC: &str = "speech_tokenizer";
/// Ids of the talker's vocabulary that are no codes: control, languages and speakers.
const CONTROL_IDS: usize = 1024;

/// What a synthetic checkpoint is to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Which kind.
    pub model_type: ModelType,
    /// `tts_model_size`: `0b6`, or `1b7`, which alone knows instructions for its own voices.
    pub model_size: &'static str,
    /// The decoder that makes the first code of every frame.
    pub talker: Decoder,
    /// The decoder that makes the others.
    pub predictor: Decoder,
    /// Width of the text embedding.
    pub text_hidden_size: usize,
    /// Rows of the text embedding. The tokenizer fills all but a few: see [`Spec::tokens`].
    pub text_vocab_size: usize,
    /// Codes of a frame.
    pub code_groups: usize,
    /// Values a code may have. The talker's vocabulary has 1024 ids more.
    pub codebook_size: usize,
    /// The speaker encoder, which only [`ModelType::Base`] has. Its output is as wide as the talker.
    pub speaker: SpeakerEncoder,
    /// From codes to samples.
    pub codec_decoder: CodecDecoder,
    /// From samples to codes.
    pub codec_encoder: CodecEncoder,
    /// How talker, predictor and speaker encoder are stored; the codec is always f32.
    pub dtype: Dtype,
    /// How much larger than the others the head's row of the end-of-speech id is: at 1, speech ends about as often as
    /// any one code is drawn; at 5, about one frame in four ends it.
    pub eos_gain: f32,
    /// What the weights are drawn from.
    pub seed: u64,
}

impl Spec {
    /// Names that [`Spec::preset`] knows.
    pub const PRESETS: [&str; 5] = ["tiny", "wide", "odd", "0.6b", "1.7b"];

    /// A small one: 9 MB. Codes, heads and rates as published; few text ids, so that the special ones are low.
    pub fn tiny(model_type: ModelType) -> Self {
        let decoder = Decoder {
            hidden_size: 32,
            intermediate_size: 96,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            num_key_value_heads: 1,
            head_dim: 128,
            max_position_embeddings: 2048,
        };
        Self {
            model_type,
            model_size: "0b6",
            talker: decoder,
            predictor: decoder,
            text_hidden_size: 48,
            text_vocab_size: 640,
            code_groups: 16,
            codebook_size: 2048,
            speaker: SpeakerEncoder { channels: 32, attention_channels: 16, se_channels: 16 },
            codec_decoder: CodecDecoder {
                hidden_size: 32,
                intermediate_size: 64,
                latent_dim: 64,
                codebook_dim: 16,
                decoder_dim: 96,
                num_hidden_layers: 3,
                num_attention_heads: 4,
                num_key_value_heads: 4,
                head_dim: 16,
                sliding_window: 72,
                upsample_rates: vec![8, 5, 4, 3],
                upsampling_ratios: vec![2, 2],
            },
            codec_encoder: CodecEncoder {
                hidden_size: 32,
                intermediate_size: 64,
                num_filters: 4,
                num_hidden_layers: 2,
                num_attention_heads: 2,
                head_dim: 16,
                codebook_dim: 8,
                num_quantizers: 20,
            },
            dtype: Dtype::Bf16,
            eos_gain: 1.0,
            seed: 0,
        }
    }

    /// [`Spec::tiny`] with the text ids of the published models: 23 MB.
    pub fn wide(model_type: ModelType) -> Self {
        Self { text_vocab_size: 151_936, ..Self::tiny(model_type) }
    }

    /// A small one that is odd in every way a config allows: other ids, other rates, fewer codes, and a predictor
    /// narrower than the talker, with a projection between them, as in 1.7B.
    pub fn odd(model_type: ModelType) -> Self {
        let tiny = Self::tiny(model_type);
        Self {
            model_size: "1b7",
            talker: Decoder {
                hidden_size: 56,
                intermediate_size: 120,
                num_hidden_layers: 3,
                num_attention_heads: 6,
                num_key_value_heads: 2,
                head_dim: 64,
                max_position_embeddings: 2048,
            },
            predictor: Decoder {
                hidden_size: 40,
                intermediate_size: 72,
                num_hidden_layers: 2,
                num_attention_heads: 3,
                num_key_value_heads: 3,
                head_dim: 32,
                max_position_embeddings: 512,
            },
            text_hidden_size: 24,
            text_vocab_size: 501,
            code_groups: 10,
            codebook_size: 256,
            speaker: SpeakerEncoder { channels: 24, attention_channels: 12, se_channels: 20 },
            codec_decoder: CodecDecoder {
                hidden_size: 24,
                intermediate_size: 40,
                latent_dim: 40,
                codebook_dim: 12,
                decoder_dim: 48,
                num_hidden_layers: 2,
                num_attention_heads: 2,
                num_key_value_heads: 2,
                head_dim: 20,
                sliding_window: 9,
                upsample_rates: vec![6, 5, 4, 2],
                upsampling_ratios: vec![4, 2],
            },
            codec_encoder: CodecEncoder {
                hidden_size: 24,
                intermediate_size: 40,
                num_filters: 3,
                num_hidden_layers: 1,
                num_attention_heads: 3,
                head_dim: 8,
                codebook_dim: 6,
                num_quantizers: 12,
            },
            seed: 1,
            ..tiny
        }
    }

    /// The shape of a published model (`0.6b`, `1.7b`), or `tiny`, `wide` or `odd`; `None` for other names.
    pub fn preset(name: &str, model_type: ModelType) -> Option<Self> {
        let (model_size, hidden_size, intermediate_size) = match name {
            "tiny" => return Some(Self::tiny(model_type)),
            "wide" => return Some(Self::wide(model_type)),
            "odd" => return Some(Self::odd(model_type)),
            "0.6b" => ("0b6", 1024, 3072),
            "1.7b" => ("1b7", 2048, 6144),
            _ => return None,
        };
        let predictor = Decoder {
            hidden_size: 1024,
            intermediate_size: 3072,
            num_hidden_layers: 5,
            num_attention_heads: 16,
            num_key_value_heads: 8,
            head_dim: 128,
            max_position_embeddings: 65_536,
        };
        Some(Self {
            model_size,
            talker: Decoder {
                hidden_size,
                intermediate_size,
                num_hidden_layers: 28,
                max_position_embeddings: 32_768,
                ..predictor
            },
            predictor,
            text_hidden_size: 2048,
            text_vocab_size: 151_936,
            speaker: SpeakerEncoder { channels: 512, attention_channels: 128, se_channels: 128 },
            codec_decoder: CodecDecoder {
                hidden_size: 512,
                intermediate_size: 1024,
                latent_dim: 1024,
                codebook_dim: 512,
                decoder_dim: 1536,
                num_hidden_layers: 8,
                num_attention_heads: 16,
                num_key_value_heads: 16,
                head_dim: 64,
                sliding_window: 72,
                upsample_rates: vec![8, 5, 4, 3],
                upsampling_ratios: vec![2, 2],
            },
            codec_encoder: CodecEncoder {
                hidden_size: 512,
                intermediate_size: 2048,
                num_filters: 64,
                num_hidden_layers: 8,
                num_attention_heads: 8,
                head_dim: 64,
                codebook_dim: 256,
                num_quantizers: 32,
            },
            ..Self::tiny(model_type)
        })
    }

    /// Text tokens, added ones included: ids from here to `text_vocab_size` have rows but no text, as in the published
    /// models (260 of 151,936 there, the same share elsewhere, three at least).
    pub fn tokens(&self) -> usize {
        self.text_vocab_size.saturating_sub((self.text_vocab_size * 260 / 151_936).max(3))
    }

    /// Writes the checkpoint into `dir`, which is made where it does not exist, with the files of a published
    /// repository. Every file appears under its name only when it is whole, `config.json` last.
    ///
    /// # Errors
    /// A spec that no config could describe. Failures to write.
    pub fn write(&self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        let problems = shape::problems(self);
        if !problems.is_empty() {
            return Err(mk_model::Error::Checkpoint { path: dir.into(), problems }.into());
        }
        let codec = dir.join(CODEC);
        std::fs::create_dir_all(&codec)
            .map_err(|source| Error::Io { path: codec.clone(), source })?;
        let text = tokenizer::write(self, dir)?;
        let (talker_tensors, codec_tensors) = (self.talker_tensors(), codec::tensors(self));
        tensors::write(dir, WEIGHTS, &talker_tensors, self.dtype, self.seed)?;
        tensors::write(&codec, WEIGHTS, &codec_tensors, Dtype::F32, self.seed)?;
        file::write_json(&codec, PREPROCESSOR, &config::feature_extractor())?;
        file::write_json(&codec, "configuration.json", &config::model_scope())?;
        file::write_json(&codec, CONFIG, &config::codec(self))?;
        file::write_json(dir, PREPROCESSOR, &config::processor())?;
        file::write_json(dir, "generation_config.json", &config::generation())?;
        file::write_json(dir, CONFIG, &config::talker(self, text))?;
        Ok(())
    }

    /// Rows of the talker's codec embedding and of its head.
    fn codec_vocab_size(&self) -> usize {
        self.codebook_size + CONTROL_IDS
    }

    /// An id that is no code, from its value in the published models, whose codes end at 2048.
    fn control_id(&self, published: usize) -> usize {
        published - 2048 + self.codebook_size
    }

    /// What `model.safetensors` holds, in the order of the names.
    fn talker_tensors(&self) -> Vec<Tensor> {
        let mut all = talker::tensors(self);
        if self.model_type == ModelType::Base {
            all.extend(speaker::tensors(self));
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

const WEIGHTS: &str = "model.safetensors";
const CONFIG: &str = "config.json";
const PREPROCESSOR: &str = "preprocessor_config.json";

/// The ids of the text tokens that the config names.
#[derive(Debug, Clone, Copy)]
struct TextIds {
    im_start: usize,
    im_end: usize,
    tts_pad: usize,
    tts_bos: usize,
    tts_eos: usize,
    assistant: usize,
}

/// A field that cannot be.
fn bad_field(field: &str, reason: String) -> Problem {
    Problem::BadField { field: field.into(), reason }
}

#[cfg(test)]
mod tests;
