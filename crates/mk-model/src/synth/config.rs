//! `config.json` and `generation_config.json` as transformers writes them for a `Qwen3ForCausalLM`.

use serde_json::{Value, json};

use super::{RopeLayout, Spec, tokenizer};
use crate::checkpoint::Dtype;

pub(super) fn config(spec: &Spec) -> Value {
    let ids = SpecialIds::of(spec);
    let mut config = json!({
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": false,
        "attention_dropout": 0.0,
        "bos_token_id": ids.endoftext,
        "eos_token_id": ids.im_end,
        "head_dim": spec.head_dim,
        "hidden_act": "silu",
        "hidden_size": spec.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": spec.intermediate_size,
        "max_position_embeddings": spec.max_position_embeddings,
        "max_window_layers": spec.num_hidden_layers,
        "model_type": "qwen3",
        "num_attention_heads": spec.num_attention_heads,
        "num_hidden_layers": spec.num_hidden_layers,
        "num_key_value_heads": spec.num_key_value_heads,
        "rms_norm_eps": decimal(spec.rms_norm_eps),
        "sliding_window": null,
        "tie_word_embeddings": spec.tied,
        "use_cache": true,
        "use_sliding_window": false,
        "vocab_size": spec.vocab_size,
    });
    let dtype = match spec.dtype {
        Dtype::Bf16 => "bfloat16",
        Dtype::F16 => "float16",
        Dtype::F32 => "float32",
    };
    let theta = decimal(spec.rope_theta);
    match spec.rope_layout {
        RopeLayout::TopLevel => {
            config["rope_scaling"] = Value::Null;
            config["rope_theta"] = theta;
            config["torch_dtype"] = dtype.into();
            config["transformers_version"] = "4.51.0".into();
        }
        RopeLayout::Parameters => {
            config["dtype"] = dtype.into();
            config["layer_types"] = vec!["full_attention"; spec.num_hidden_layers].into();
            config["pad_token_id"] = Value::Null;
            config["rope_parameters"] = json!({ "rope_theta": theta, "rope_type": "default" });
            config["transformers_version"] = "5.0.0".into();
        }
    }
    config
}

/// The sampling that Qwen3's makers recommend.
pub(super) fn generation_config(spec: &Spec) -> Value {
    let ids = SpecialIds::of(spec);
    json!({
        "bos_token_id": ids.endoftext,
        "do_sample": true,
        "eos_token_id": [ids.im_end, ids.endoftext],
        "pad_token_id": ids.endoftext,
        "temperature": 0.6,
        "top_k": 20,
        "top_p": 0.95,
        "transformers_version": "4.51.0",
    })
}

struct SpecialIds {
    endoftext: usize,
    im_end: usize,
}

impl SpecialIds {
    fn of(spec: &Spec) -> Self {
        // Saturating for the sake of specs too small for a tokenizer, which `Spec::write` then refuses.
        let first = spec.tokens().saturating_sub(tokenizer::ADDED.len());
        Self { endoftext: first, im_end: first + 2 }
    }
}

/// The f32 as the short decimal that means it: `1e-6` rather than the double next to it.
fn decimal(number: f32) -> Value {
    number.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}
