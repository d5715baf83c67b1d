//! The JSON files of a checkpoint, as the published ones have them.

use mk_model::Dtype;
use serde_json::{Map, Value, json};

use super::{Decoder, Spec, TextIds};
use crate::config::ModelType;

/// Languages and their ids in the published models.
const LANGUAGES: [(&str, usize); 10] = [
    ("chinese", 2055),
    ("english", 2050),
    ("german", 2053),
    ("italian", 2070),
    ("portuguese", 2071),
    ("spanish", 2054),
    ("japanese", 2058),
    ("korean", 2064),
    ("french", 2061),
    ("russian", 2069),
];
/// Dialects, which only models with voices of their own have.
const DIALECTS: [(&str, usize); 2] = [("beijing_dialect", 2074), ("sichuan_dialect", 2062)];
/// Voices, their ids, and the dialect that two of them speak.
const SPEAKERS: [(&str, usize, Option<&str>); 9] = [
    ("serena", 3066, None),
    ("vivian", 3065, None),
    ("uncle_fu", 3010, None),
    ("ryan", 3061, None),
    ("aiden", 2861, None),
    ("ono_anna", 2873, None),
    ("sohee", 2864, None),
    ("eric", 2875, Some("sichuan_dialect")),
    ("dylan", 2878, Some("beijing_dialect")),
];
/// The id that ends speech, in the published models.
pub(super) const EOS: usize = 2150;
/// What the published speaker encoder has, and its config leaves out.
const SPEAKER_CHANNELS: usize = 512;

/// `config.json`.
pub(super) fn talker(spec: &Spec, text: TextIds) -> Value {
    let mut config = json!({
        "architectures": ["Qwen3TTSForConditionalGeneration"],
        "assistant_token_id": text.assistant,
        "im_end_token_id": text.im_end,
        "im_start_token_id": text.im_start,
        "tts_bos_token_id": text.tts_bos,
        "tts_eos_token_id": text.tts_eos,
        "tts_pad_token_id": text.tts_pad,
        "model_type": "qwen3_tts",
        "tokenizer_type": "qwen3_tts_tokenizer_12hz",
        "tts_model_size": spec.model_size,
        "tts_model_type": spec.model_type.to_string(),
        "talker_config": talker_config(spec),
        "torch_dtype": match spec.dtype {
            Dtype::Bf16 => "bfloat16",
            Dtype::F16 => "float16",
            Dtype::F32 => "float32",
        },
        "transformers_version": "4.57.3",
    });
    if spec.model_type == ModelType::Base {
        config["speaker_encoder_config"] = speaker_encoder(spec);
    }
    config
}

fn talker_config(spec: &Spec) -> Value {
    let id = |published: usize| spec.control_id(published);
    let custom = spec.model_type == ModelType::CustomVoice;
    let dialects = DIALECTS.into_iter().filter(|_| custom);
    let languages: Map<String, Value> = LANGUAGES
        .into_iter()
        .chain(dialects)
        .map(|(name, published)| (name.into(), id(published).into()))
        .collect();
    let speakers = || SPEAKERS.into_iter().filter(|_| custom);
    let speaker_ids: Map<String, Value> =
        speakers().map(|(name, published, _)| (name.into(), id(published).into())).collect();
    let dialect_of: Map<String, Value> = speakers()
        .map(|(name, _, dialect)| (name.into(), dialect.map_or(false.into(), Value::from)))
        .collect();

    let mut config = decoder(&spec.talker);
    let mut predictor = decoder(&spec.predictor);
    let own = json!({
        "code_predictor_config": {},
        "codec_bos_id": id(2149),
        "codec_eos_token_id": id(EOS),
        "codec_language_id": languages,
        "codec_nothink_id": id(2155),
        "codec_pad_id": id(2148),
        "codec_think_bos_id": id(2156),
        "codec_think_eos_id": id(2157),
        "codec_think_id": id(2154),
        "model_type": "qwen3_tts_talker",
        "num_code_groups": spec.code_groups,
        "position_id_per_seconds": 13,
        "rope_scaling": {
            "interleaved": true,
            "mrope_section": mrope_section(spec.talker.head_dim),
            "rope_type": "default",
            "type": "default",
        },
        "spk_id": speaker_ids,
        "spk_is_dialect": dialect_of,
        "text_hidden_size": spec.text_hidden_size,
        "text_vocab_size": spec.text_vocab_size,
        "vocab_size": spec.codec_vocab_size(),
    });
    let predictors_own = json!({
        "model_type": "qwen3_tts_talker_code_predictor",
        "num_code_groups": spec.code_groups,
        "rope_scaling": null,
        "vocab_size": spec.codebook_size,
    });
    extend(&mut predictor, predictors_own);
    extend(&mut config, own);
    config["code_predictor_config"] = predictor;
    config
}

/// The fields that talker and predictor share.
fn decoder(shape: &Decoder) -> Value {
    json!({
        "attention_bias": false,
        "attention_dropout": 0,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": shape.intermediate_size,
        "max_position_embeddings": shape.max_position_embeddings,
        "num_attention_heads": shape.num_attention_heads,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_key_value_heads": shape.num_key_value_heads,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000,
        "sliding_window": null,
        "use_cache": true,
        "use_sliding_window": false,
    })
}

fn extend(object: &mut Value, more: Value) {
    if let (Value::Object(object), Value::Object(more)) = (object, more) {
        object.extend(more);
    }
}

/// The share of time, height and width in a head's frequencies: `[24, 20, 20]` at 128.
fn mrope_section(head_dim: usize) -> [usize; 3] {
    let half = head_dim / 2;
    let side = half * 20 / 64;
    [half - 2 * side, side, side]
}

/// The published models leave to the defaults what is not about their width.
fn speaker_encoder(spec: &Spec) -> Value {
    let mut config = json!({ "enc_dim": spec.talker.hidden_size, "sample_rate": 24_000 });
    let channels = spec.speaker.channels;
    if channels != SPEAKER_CHANNELS {
        let own = json!({
            "enc_attention_channels": spec.speaker.attention_channels,
            "enc_channels": [channels, channels, channels, channels, 3 * channels],
            "enc_se_channels": spec.speaker.se_channels,
        });
        extend(&mut config, own);
    }
    config
}

/// `generation_config.json`, the same in all published models.
pub(super) fn generation() -> Value {
    json!({
        "do_sample": true,
        "repetition_penalty": 1.05,
        "temperature": 0.9,
        "top_p": 1.0,
        "top_k": 50,
        "subtalker_dosample": true,
        "subtalker_temperature": 0.9,
        "subtalker_top_p": 1.0,
        "subtalker_top_k": 50,
        "max_new_tokens": 8192,
    })
}

/// `preprocessor_config.json`.
pub(super) fn processor() -> Value {
    json!({
        "padding_side": "left",
        "padding_value": 0.0,
        "processor_class": "Qwen3TTSProcessor",
        "return_attention_mask": true,
    })
}

/// `speech_tokenizer/preprocessor_config.json`.
pub(super) fn feature_extractor() -> Value {
    json!({
        "chunk_length_s": null,
        "feature_extractor_type": "EncodecFeatureExtractor",
        "feature_size": 1,
        "overlap": null,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": true,
        "sampling_rate": 24_000,
    })
}

/// `speech_tokenizer/configuration.json`, which only ModelScope reads.
pub(super) fn model_scope() -> Value {
    json!({ "framework": "pytorch", "task": "feature-extraction", "allow_remote": true })
}

/// `speech_tokenizer/config.json`.
pub(super) fn codec(spec: &Spec) -> Value {
    let rates = &spec.codec_decoder;
    let samples: usize = rates.upsample_rates.iter().chain(&rates.upsampling_ratios).product();
    json!({
        "architectures": ["Qwen3TTSTokenizerV2Model"],
        "decode_upsample_rate": samples,
        "decoder_config": codec_decoder(spec),
        "encode_downsample_rate": 1920,
        "encoder_config": codec_encoder(spec),
        "encoder_valid_num_quantizers": spec.code_groups,
        "input_sample_rate": 24_000,
        "model_type": "qwen3_tts_tokenizer_12hz",
        "output_sample_rate": 24_000,
        "torch_dtype": "float32",
        "transformers_version": "4.57.3",
    })
}

fn codec_decoder(spec: &Spec) -> Value {
    let shape = &spec.codec_decoder;
    json!({
        "attention_bias": false,
        "attention_dropout": 0.0,
        "codebook_dim": shape.codebook_dim,
        "codebook_size": spec.codebook_size,
        "decoder_dim": shape.decoder_dim,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "latent_dim": shape.latent_dim,
        "layer_scale_initial_scale": 0.01,
        "max_position_embeddings": 8000,
        "num_attention_heads": shape.num_attention_heads,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_key_value_heads": shape.num_key_value_heads,
        "num_quantizers": spec.code_groups,
        "num_semantic_quantizers": 1,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000,
        "semantic_codebook_size": 4096,
        "sliding_window": shape.sliding_window,
        "upsample_rates": shape.upsample_rates,
        "upsampling_ratios": shape.upsampling_ratios,
        "vector_quantization_hidden_dimension": shape.codebook_dim,
    })
}

fn codec_encoder(spec: &Spec) -> Value {
    let shape = &spec.codec_encoder;
    json!({
        "_frame_rate": 12.5,
        "attention_bias": false,
        "attention_dropout": 0.0,
        "audio_channels": 1,
        "codebook_dim": shape.codebook_dim,
        "codebook_size": spec.codebook_size,
        "compress": 2,
        "dilation_growth_rate": 2,
        "head_dim": shape.head_dim,
        "hidden_act": "gelu",
        "hidden_size": shape.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": shape.intermediate_size,
        "kernel_size": 7,
        "last_kernel_size": 3,
        "layer_scale_initial_scale": 0.01,
        "max_position_embeddings": 8000,
        "model_type": "mimi",
        "norm_eps": 1e-5,
        "num_attention_heads": shape.num_attention_heads,
        "num_filters": shape.num_filters,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_key_value_heads": shape.num_attention_heads,
        "num_quantizers": shape.num_quantizers,
        "num_residual_layers": 1,
        "num_semantic_quantizers": 1,
        "pad_mode": "constant",
        "residual_kernel_size": 3,
        "rope_theta": 10_000.0,
        "sampling_rate": 24_000,
        "sliding_window": 250,
        "trim_right_ratio": 1.0,
        "upsample_groups": shape.hidden_size,
        "upsampling_ratios": super::codec::ENCODER_RATIOS,
        "use_cache": false,
        "use_causal_conv": true,
        "use_conv_shortcut": false,
        "use_streaming": false,
        "vector_quantization_hidden_dimension": shape.codebook_dim,
    })
}
