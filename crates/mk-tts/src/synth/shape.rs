//! The sizes of the parts.

use mk_model::error::Problem;

use super::{Spec, bad_field, tokenizer};

/// Sizes of a Qwen3 decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoder {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Positions it claims to have been made for.
    pub max_position_embeddings: usize,
}

/// Sizes of the speaker encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpeakerEncoder {
    /// Channels of every block; their concatenation has three times as many.
    pub channels: usize,
    /// Channels of the pooling's attention.
    pub attention_channels: usize,
    /// Channels of the squeeze and excitation.
    pub se_channels: usize,
}

/// Sizes of the codec's decoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodecDecoder {
    /// Width of the transformer's residual stream.
    pub hidden_size: usize,
    /// Width of its feed-forward.
    pub intermediate_size: usize,
    /// Channels around the transformer.
    pub latent_dim: usize,
    /// Channels after the quantizers; a codebook is half as wide.
    pub codebook_dim: usize,
    /// Channels of the first convolution, halved at every rate.
    pub decoder_dim: usize,
    /// Layers of the transformer.
    pub num_hidden_layers: usize,
    /// Its query heads.
    pub num_attention_heads: usize,
    /// Its key and value heads.
    pub num_key_value_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Positions a query sees, itself included.
    pub sliding_window: usize,
    /// Strides of the decoder's blocks.
    pub upsample_rates: Vec<usize>,
    /// Strides of the blocks before.
    pub upsampling_ratios: Vec<usize>,
}

/// Sizes of the codec's encoder. Its strides are those of the published one: 1920 samples a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodecEncoder {
    /// Width of the transformer's residual stream.
    pub hidden_size: usize,
    /// Width of its feed-forward.
    pub intermediate_size: usize,
    /// Channels of the first convolution, doubled at every rate.
    pub num_filters: usize,
    /// Layers of the transformer.
    pub num_hidden_layers: usize,
    /// Its heads.
    pub num_attention_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Width of a codebook.
    pub codebook_dim: usize,
    /// Codebooks in the file, of which as many are used as a frame has codes.
    pub num_quantizers: usize,
}

/// Everything about a spec that no config could describe.
pub(super) fn problems(spec: &Spec) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut require = |holds: bool, field: &str, reason: String| {
        if !holds {
            problems.push(bad_field(field, reason));
        }
    };
    let codec = &spec.codec_decoder;
    let heads = |layers: &Decoder| {
        let fits = layers.num_key_value_heads > 0
            && layers.num_attention_heads > 0
            && layers.num_attention_heads.is_multiple_of(layers.num_key_value_heads);
        (fits, format!("{} of {}", layers.num_key_value_heads, layers.num_attention_heads))
    };
    for (name, layers) in [("talker", &spec.talker), ("predictor", &spec.predictor)] {
        let (fits, found) = heads(layers);
        require(fits, &format!("{name}.num_key_value_heads"), format!("{found} heads"));
        let even = layers.head_dim > 0 && layers.head_dim.is_multiple_of(2);
        require(even, &format!("{name}.head_dim"), format!("{} is not even", layers.head_dim));
        let wide = layers.hidden_size > 0 && layers.intermediate_size > 0;
        require(wide, &format!("{name}.hidden_size"), "has no width".into());
    }
    let least = tokenizer::SMALLEST;
    require(
        spec.text_vocab_size >= least,
        "text_vocab_size",
        format!("{} is too small: bytes, words, added tokens and spare rows need {least}", {
            spec.text_vocab_size
        }),
    );
    require(spec.text_hidden_size > 0, "text_hidden_size", "is zero".into());
    require(spec.code_groups >= 2, "code_groups", format!("{} are too few", spec.code_groups));
    require(
        spec.codebook_size.is_power_of_two(),
        "codebook_size",
        format!("{} is not a power of two, as qwen_tts wants it", spec.codebook_size),
    );
    let channels = spec.speaker.channels;
    require(
        channels > 0 && channels.is_multiple_of(8),
        "speaker.channels",
        format!("{channels} cannot be split in 8"),
    );
    let halvings = 1usize.checked_shl(codec.upsample_rates.len() as u32).unwrap_or(0);
    require(
        halvings > 0 && codec.decoder_dim > 0 && codec.decoder_dim.is_multiple_of(halvings),
        "codec_decoder.decoder_dim",
        format!("{} cannot be halved {} times", codec.decoder_dim, codec.upsample_rates.len()),
    );
    require(
        codec.codebook_dim > 0 && codec.codebook_dim.is_multiple_of(2),
        "codec_decoder.codebook_dim",
        format!("{} cannot be halved", codec.codebook_dim),
    );
    require(
        spec.codec_encoder.num_filters > 0 && spec.codec_encoder.num_quantizers >= spec.code_groups,
        "codec_encoder.num_quantizers",
        format!("{} are too few", spec.codec_encoder.num_quantizers),
    );
    problems
}
