//! The tensors of talker and code predictor.
//!
//! Rows of the codec embeddings have a standard deviation of [`CODE_ROW_STD`]: sixteen of them, with a text row of
//! about the same size as their sum, are a frame's input. The layers together add about [`LAYERS_RMS`] to it. Heads
//! spread their logits by [`LOGIT_STD`], so that few frames have two codes that are nearly as likely.

use mk_model::synth::tensors::{Kind, Tensor};

use super::{Decoder, Spec, config};

const CODE_ROW_STD: f32 = 0.3;
const LAYERS_RMS: f32 = 2.0;
const LOGIT_STD: f32 = 3.0;
/// Attention averages values over positions, which shrinks them; this makes up for most of it.
const ATTENTION_GAIN: f32 = 1.5;
/// Inverse of the root mean square of silu(gate) * up for unit normal inputs.
const FEED_FORWARD_GAIN: f32 = 1.7;
/// Inverse of the root mean square of silu of unit normal inputs.
const SILU_GAIN: f32 = 1.7;
/// Mean of the query and key norms' weights: attention is then decided, without looking at one position only.
const QK_NORM_MEAN: f32 = 1.3;
const BIAS_STD: f32 = 0.05;

/// All tensors below `talker.`.
pub(super) fn tensors(spec: &Spec) -> Vec<Tensor> {
    let (hidden, narrow) = (spec.talker.hidden_size, spec.predictor.hidden_size);
    let (text, codes) = (spec.text_hidden_size, spec.codec_vocab_size());
    let row = Kind::Linear { std: CODE_ROW_STD };
    let bias = Kind::Linear { std: BIAS_STD };
    let mut all = Vec::new();
    let mut add = |name: &str, shape: &[usize], kind: Kind| {
        all.push(Tensor { name: format!("talker.{name}"), shape: shape.into(), kind });
    };
    let head = Kind::OneLarger {
        std: LOGIT_STD / sqrt(hidden),
        row: spec.control_id(config::EOS),
        gain: spec.eos_gain,
    };
    add("codec_head.weight", &[codes, hidden], head);
    add("model.codec_embedding.weight", &[codes, hidden], row);
    add("model.text_embedding.weight", &[spec.text_vocab_size, text], Kind::Linear { std: 1.0 });
    add("text_projection.linear_fc1.bias", &[text], bias);
    add("text_projection.linear_fc1.weight", &[text, text], linear(text, 1.0));
    add("text_projection.linear_fc2.bias", &[hidden], bias);
    add("text_projection.linear_fc2.weight", &[hidden, text], linear(text, SILU_GAIN));
    for group in 0..spec.code_groups - 1 {
        let name = format!("code_predictor.lm_head.{group}.weight");
        add(&name, &[spec.codebook_size, narrow], linear(narrow, LOGIT_STD));
        let name = format!("code_predictor.model.codec_embedding.{group}.weight");
        add(&name, &[spec.codebook_size, hidden], row);
    }
    if hidden != narrow {
        let name = "code_predictor.small_to_mtp_projection";
        add(&format!("{name}.bias"), &[narrow], bias);
        add(&format!("{name}.weight"), &[narrow, hidden], linear(hidden, 1.0));
    }
    decoder("talker.model", &spec.talker, &mut all);
    decoder("talker.code_predictor.model", &spec.predictor, &mut all);
    all
}

/// The layers of a Qwen3 decoder and its last norm.
fn decoder(prefix: &str, shape: &Decoder, all: &mut Vec<Tensor>) {
    let (hidden, inter) = (shape.hidden_size, shape.intermediate_size);
    let q = shape.num_attention_heads * shape.head_dim;
    let kv = shape.num_key_value_heads * shape.head_dim;
    let share = LAYERS_RMS / sqrt(2 * shape.num_hidden_layers);
    let norm = Kind::Norm { mean: 1.0 };
    let qk_norm = Kind::Norm { mean: QK_NORM_MEAN };
    let mut add = |name: String, shape: &[usize], kind: Kind| {
        all.push(Tensor { name: format!("{prefix}.{name}"), shape: shape.into(), kind });
    };
    for layer in 0..shape.num_hidden_layers {
        let mut add =
            |name: &str, shape: &[usize], kind| add(format!("layers.{layer}.{name}"), shape, kind);
        add("input_layernorm.weight", &[hidden], norm);
        add("mlp.down_proj.weight", &[hidden, inter], linear(inter, share * FEED_FORWARD_GAIN));
        add("mlp.gate_proj.weight", &[inter, hidden], linear(hidden, 1.0));
        add("mlp.up_proj.weight", &[inter, hidden], linear(hidden, 1.0));
        add("post_attention_layernorm.weight", &[hidden], norm);
        add("self_attn.k_norm.weight", &[shape.head_dim], qk_norm);
        add("self_attn.k_proj.weight", &[kv, hidden], linear(hidden, 1.0));
        add("self_attn.o_proj.weight", &[hidden, q], linear(q, share * ATTENTION_GAIN));
        add("self_attn.q_norm.weight", &[shape.head_dim], qk_norm);
        add("self_attn.q_proj.weight", &[q, hidden], linear(hidden, 1.0));
        add("self_attn.v_proj.weight", &[kv, hidden], linear(hidden, 1.0));
    }
    add("norm.weight".into(), &[hidden], norm);
}

/// Weights whose products with unit normal inputs have the standard deviation `gain`.
fn linear(fan_in: usize, gain: f32) -> Kind {
    Kind::Linear { std: gain / sqrt(fan_in) }
}

/// Exact by IEEE 754, so that it is the same everywhere.
fn sqrt(n: usize) -> f32 {
    (n as f32).sqrt()
}
