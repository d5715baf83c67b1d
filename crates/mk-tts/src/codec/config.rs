//! `speech_tokenizer/config.json`: the dimensions of the codec.

use std::path::Path;

use mk_model::Problem;
use serde_json::{Map, Value};

use crate::error::Error;

/// The codec's dimensions, named as the file names them.
///
/// What each field means is in the reference's `modeling_qwen3_tts_tokenizer_v2.py` (package qwen-tts 0.1.1) and, for
/// the encoder, transformers' `models/mimi/modeling_mimi.py`.
#[derive(Debug, Clone, PartialEq)]
pub struct CodecConfig {
    /// From codes to samples.
    pub decoder: DecoderConfig,
    /// From samples to codes.
    pub encoder: EncoderConfig,
    /// Samples a second that the encoder takes.
    pub input_sample_rate: usize,
    /// Samples a second that the decoder gives.
    pub output_sample_rate: usize,
    /// Samples that a frame of codes becomes; the product of all of the decoder's factors.
    pub decode_upsample_rate: usize,
    /// Samples that become a frame of codes.
    pub encode_downsample_rate: usize,
    /// Codes of a frame that the encoder gives: its first ones.
    pub encoder_valid_num_quantizers: usize,
}

/// `decoder_config`.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderConfig {
    /// Codes of a frame. The first is semantic, the others are acoustic.
    pub num_quantizers: usize,
    /// Values that a code has.
    pub codebook_size: usize,
    /// Width of a frame's vector; entries of the codebooks are half as wide.
    pub codebook_dim: usize,
    /// Width between the transformer and the convolutions.
    pub latent_dim: usize,
    /// Width of the transformer's residual stream.
    pub hidden_size: usize,
    /// Width of its SwiGLU feed-forward.
    pub intermediate_size: usize,
    /// Its layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; divides `num_attention_heads`.
    pub num_key_value_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// How many positions a position sees, itself included.
    pub sliding_window: usize,
    /// Base of the rotary embedding's frequencies.
    pub rope_theta: f64,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f32,
    /// Factors of the upsampling before the convolutional decoder.
    pub upsampling_ratios: Vec<usize>,
    /// Channels at the beginning of the convolutional decoder; each block halves them.
    pub decoder_dim: usize,
    /// Factors of its blocks.
    pub upsample_rates: Vec<usize>,
}

/// `encoder_config`: the fields of Mimi's that its front half uses.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderConfig {
    /// Channels of the first convolution.
    pub num_filters: usize,
    /// Taps of the first convolution.
    pub kernel_size: usize,
    /// Taps of the last convolution.
    pub last_kernel_size: usize,
    /// Taps of the convolutions in residual blocks.
    pub residual_kernel_size: usize,
    /// Residual blocks before each strided convolution.
    pub num_residual_layers: usize,
    /// Base of the distances between the taps of residual blocks.
    pub dilation_growth_rate: usize,
    /// By how much residual blocks narrow their channels.
    pub compress: usize,
    /// Strides, last first.
    pub upsampling_ratios: Vec<usize>,
    /// Width of the transformer's residual stream.
    pub hidden_size: usize,
    /// Width of its feed-forward.
    pub intermediate_size: usize,
    /// Its layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; divides `num_attention_heads`.
    pub num_key_value_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// How many positions a position sees, itself included.
    pub sliding_window: usize,
    /// Base of the rotary embedding's frequencies.
    pub rope_theta: f64,
    /// Added to the variance in LayerNorm.
    pub norm_eps: f32,
    /// Books that are stored.
    pub num_quantizers: usize,
    /// How many of them are semantic.
    pub num_semantic_quantizers: usize,
    /// Values that a code has.
    pub codebook_size: usize,
    /// Width of the codebooks' entries.
    pub codebook_dim: usize,
    /// Frames of codes a second.
    pub frame_rate: f64,
    /// Samples a second.
    pub sampling_rate: usize,
}

/// More than any codec has, of layers, books, factors and taps; bounds the work that a broken file can ask for.
const MAX_COUNT: usize = 1024;
/// Likewise for every other dimension.
const MAX_DIM: usize = 1 << 20;

impl CodecConfig {
    /// Reads `config.json` in `dir`, a `speech_tokenizer` folder.
    ///
    /// # Errors
    /// A file that is missing, and whatever [`Self::from_json`] finds.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("config.json");
        let text = std::fs::read_to_string(&path).map_err(|source| Error::Io { path, source })?;
        Self::from_json(&text).map_err(|problems| {
            Error::Model(mk_model::Error::Checkpoint { path: dir.into(), problems })
        })
    }

    /// Reads the text of a `speech_tokenizer/config.json`.
    ///
    /// # Errors
    /// All problems at once: fields missing or out of range, fields that contradict each other, and features that are
    /// not supported.
    pub fn from_json(text: &str) -> Result<Self, Vec<Problem>> {
        let whole =
            |reason: String| vec![Problem::BadField { field: "config.json".into(), reason }];
        let fields: Value =
            serde_json::from_str(text).map_err(|error| whole(format!("not JSON: {error}")))?;
        let Value::Object(fields) = fields else { return Err(whole("not a JSON object".into())) };
        let mut problems = Vec::new();
        let config = {
            let mut top = Reader { fields: Some(&fields), prefix: "", problems: &mut problems };
            top.only("model_type", "\"qwen3_tts_tokenizer_12hz\"", |v| {
                v == "qwen3_tts_tokenizer_12hz"
            });
            Self {
                input_sample_rate: top.dim("input_sample_rate"),
                output_sample_rate: top.dim("output_sample_rate"),
                decode_upsample_rate: top.dim("decode_upsample_rate"),
                encode_downsample_rate: top.dim("encode_downsample_rate"),
                encoder_valid_num_quantizers: top.count("encoder_valid_num_quantizers"),
                decoder: DecoderConfig::read(&mut top.inner("decoder_config", "decoder_config.")),
                encoder: EncoderConfig::read(&mut top.inner("encoder_config", "encoder_config.")),
            }
        };
        if problems.is_empty() {
            config.check(&mut problems);
        }
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    /// What single fields cannot show.
    fn check(&self, problems: &mut Vec<Problem>) {
        let mut bad = |field: &str, reason: String| {
            problems.push(Problem::BadField { field: field.into(), reason });
        };
        let (decoder, encoder) = (&self.decoder, &self.encoder);
        let factors = decoder.upsampling_ratios.iter().chain(&decoder.upsample_rates);
        let product = factors.fold(1usize, |product, &n| product.saturating_mul(n));
        if product != self.decode_upsample_rate {
            let reason =
                format!("is {}, but the factors multiply to {product}", self.decode_upsample_rate);
            bad("decode_upsample_rate", reason);
        }
        if !decoder.codebook_dim.is_multiple_of(2) {
            let reason = format!("{} is odd: entries are half as wide", decoder.codebook_dim);
            bad("decoder_config.codebook_dim", reason);
        }
        let halvings = decoder.upsample_rates.len();
        if halvings >= 20 || !decoder.decoder_dim.is_multiple_of(1 << halvings) {
            let reason = format!("{} cannot be halved {halvings} times", decoder.decoder_dim);
            bad("decoder_config.decoder_dim", reason);
        }
        if decoder.num_quantizers < 2 {
            bad("decoder_config.num_quantizers", "1, but one is semantic and others follow".into());
        }
        for (part, heads, kv, head_dim) in [
            (
                "decoder_config",
                decoder.num_attention_heads,
                decoder.num_key_value_heads,
                decoder.head_dim,
            ),
            (
                "encoder_config",
                encoder.num_attention_heads,
                encoder.num_key_value_heads,
                encoder.head_dim,
            ),
        ] {
            if !heads.is_multiple_of(kv) {
                let reason = format!("{kv} does not divide the {heads} attention heads");
                bad(&format!("{part}.num_key_value_heads"), reason);
            }
            if !head_dim.is_multiple_of(2) {
                let reason = format!("{head_dim} is odd: rotary embedding needs pairs");
                bad(&format!("{part}.head_dim"), reason);
            }
        }
        if self.encoder_valid_num_quantizers > encoder.num_quantizers {
            let (valid, all) = (self.encoder_valid_num_quantizers, encoder.num_quantizers);
            bad("encoder_valid_num_quantizers", format!("{valid} of {all} books"));
        }
    }
}

impl DecoderConfig {
    fn read(reader: &mut Reader<'_>) -> Self {
        reader.only("hidden_act", "\"silu\"", |v| v == "silu");
        reader.only("attention_bias", "false", |v| v == false);
        reader.only("num_semantic_quantizers", "1", |v| v == 1);
        reader.only("rope_scaling", "null", |_| false);
        let (hidden_size, heads) = (reader.dim("hidden_size"), reader.count("num_attention_heads"));
        Self {
            num_quantizers: reader.count("num_quantizers"),
            codebook_size: reader.dim("codebook_size"),
            codebook_dim: reader.dim("codebook_dim"),
            latent_dim: reader.dim("latent_dim"),
            hidden_size,
            intermediate_size: reader.dim("intermediate_size"),
            num_hidden_layers: reader.count("num_hidden_layers"),
            num_attention_heads: heads,
            num_key_value_heads: reader.count("num_key_value_heads"),
            head_dim: reader.head_dim(hidden_size, heads),
            sliding_window: reader.count("sliding_window"),
            rope_theta: reader.number("rope_theta", 1.0, 1e18),
            rms_norm_eps: reader.number("rms_norm_eps", 1e-30, 1.0) as f32,
            upsampling_ratios: reader.list("upsampling_ratios"),
            decoder_dim: reader.dim("decoder_dim"),
            upsample_rates: reader.list("upsample_rates"),
        }
    }
}

impl EncoderConfig {
    fn read(reader: &mut Reader<'_>) -> Self {
        reader.only("hidden_act", "\"gelu\"", |v| v == "gelu");
        reader.only("attention_bias", "false", |v| v == false);
        reader.only("audio_channels", "1", |v| v == 1);
        reader.only("use_causal_conv", "true", |v| v == true);
        reader.only("use_conv_shortcut", "false", |v| v == false);
        reader.only("pad_mode", "\"constant\"", |v| v == "constant");
        let (hidden_size, heads) = (reader.dim("hidden_size"), reader.count("num_attention_heads"));
        Self {
            num_filters: reader.dim("num_filters"),
            kernel_size: reader.count("kernel_size"),
            last_kernel_size: reader.count("last_kernel_size"),
            residual_kernel_size: reader.count("residual_kernel_size"),
            num_residual_layers: reader.count("num_residual_layers"),
            dilation_growth_rate: reader.count("dilation_growth_rate"),
            compress: reader.count("compress"),
            upsampling_ratios: reader.list("upsampling_ratios"),
            hidden_size,
            intermediate_size: reader.dim("intermediate_size"),
            num_hidden_layers: reader.count("num_hidden_layers"),
            num_attention_heads: heads,
            num_key_value_heads: reader.count("num_key_value_heads"),
            head_dim: reader.head_dim(hidden_size, heads),
            sliding_window: reader.count("sliding_window"),
            rope_theta: reader.number("rope_theta", 1.0, 1e18),
            norm_eps: reader.number("norm_eps", 1e-30, 1.0) as f32,
            num_quantizers: reader.count("num_quantizers"),
            num_semantic_quantizers: reader.count("num_semantic_quantizers"),
            codebook_size: reader.dim("codebook_size"),
            codebook_dim: reader.dim("codebook_dim"),
            frame_rate: reader.number("_frame_rate", 1e-3, 1e6),
            sampling_rate: reader.dim("sampling_rate"),
        }
    }
}

/// Reads one JSON object, and remembers all that is wrong with it.
struct Reader<'a> {
    /// `None` where there is no object, which has been reported.
    fields: Option<&'a Map<String, Value>>,
    prefix: &'static str,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn get(&self, field: &str) -> Option<Value> {
        self.fields?.get(field).filter(|value| !value.is_null()).cloned()
    }

    fn bad(&mut self, field: &str, reason: String) {
        let field = format!("{}{field}", self.prefix);
        self.problems.push(Problem::BadField { field, reason });
    }

    fn inner(&mut self, field: &str, prefix: &'static str) -> Reader<'_> {
        let fields = self.fields.and_then(|fields| fields.get(field)).and_then(Value::as_object);
        if fields.is_none() {
            self.bad(field, "is missing, or not an object".into());
        }
        Reader { fields, prefix, problems: self.problems }
    }

    /// Reports `field` where it is present and `supported` says no to it.
    fn only(&mut self, field: &str, what: &str, supported: impl Fn(&Value) -> bool) {
        if let Some(value) = self.get(field).filter(|value| !supported(value)) {
            let field = format!("{}{field}", self.prefix);
            let (found, supported) = (value.to_string(), what.into());
            self.problems.push(Problem::Unsupported { field, found, supported });
        }
    }

    fn value<T>(
        &mut self,
        field: &str,
        expected: &str,
        stand_in: T,
        read: impl Fn(&Value) -> Option<T>,
    ) -> T {
        // A missing object is one problem, not one for each of its fields.
        if self.fields.is_none() {
            return stand_in;
        }
        let found = self.get(field);
        let value = found.as_ref().and_then(read);
        if value.is_none() {
            let found = found.map_or("is missing".into(), |found| format!("found {found}"));
            self.bad(field, format!("{found}; expected {expected}"));
        }
        value.unwrap_or(stand_in)
    }

    fn whole(&mut self, field: &str, max: usize) -> usize {
        let expected = format!("a whole number from 1 to {max}");
        self.value(field, &expected, 1, |value| in_range(value, max))
    }

    fn dim(&mut self, field: &str) -> usize {
        self.whole(field, MAX_DIM)
    }

    fn count(&mut self, field: &str) -> usize {
        self.whole(field, MAX_COUNT)
    }

    /// The reference takes the heads to share the width where the file says nothing.
    fn head_dim(&mut self, hidden_size: usize, heads: usize) -> usize {
        match self.get("head_dim") {
            Some(_) => self.dim("head_dim"),
            None => (hidden_size / heads).max(1),
        }
    }

    fn number(&mut self, field: &str, min: f64, max: f64) -> f64 {
        self.value(field, &format!("a number from {min} to {max}"), min, |value| {
            value.as_f64().filter(|number| (min..=max).contains(number))
        })
    }

    fn list(&mut self, field: &str) -> Vec<usize> {
        let expected = format!("a list of whole numbers from 1 to {MAX_COUNT}");
        self.value(field, &expected, Vec::new(), |value| {
            let list = value.as_array().filter(|list| !list.is_empty() && list.len() < 20)?;
            list.iter().map(|value| in_range(value, MAX_COUNT)).collect()
        })
    }
}

fn in_range(value: &Value, max: usize) -> Option<usize> {
    value.as_u64().map(|n| n as usize).filter(|n| (1..=max).contains(n))
}
