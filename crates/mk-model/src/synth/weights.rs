//! The tensors of a synthetic checkpoint: their names and sizes, and into which files they go.
//!
//! How the numbers are scaled. Embedding rows have a standard deviation of 3 / sqrt(hidden), so that their products
//! with a normalised hidden state spread by about 3; a factor per row, from 0.5 to 1.5, makes some tokens more
//! decided than others. Every layer's two outputs are scaled such that together they have a root mean square near
//! [`LAYERS_RMS`], which is above the embedding's: the hidden state at the end then holds only so much of the input
//! token that a tied head favours it by about one standard deviation.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Map, json};

use super::tensors::{self, Kind, Tensor};
use super::{Spec, file};
use crate::error::{Error, Result};

/// Standard deviation of the logits, roughly.
const LOGIT_STD: f32 = 3.0;
/// Root mean square of all that the layers add to the residual stream, roughly.
const LAYERS_RMS: f32 = 4.0;
/// Attention averages values over positions, which shrinks them; this makes up for most of it.
const ATTENTION_GAIN: f32 = 1.5;
/// Inverse of the root mean square of silu(gate) * up for unit normal inputs.
const FEED_FORWARD_GAIN: f32 = 1.7;
/// Mean of the query and key norms' weights: attention is then decided, without looking at one position only.
const QK_NORM_MEAN: f32 = 1.3;

/// Writes `model.safetensors`, or the shards and their index.
pub(super) fn write(spec: &Spec, dir: &Path) -> Result<()> {
    let shards = shards(spec);
    let names: Vec<String> = match shards.len() {
        1 => vec!["model.safetensors".into()],
        n => (1..=n).map(|i| format!("model-{i:05}-of-{n:05}.safetensors")).collect(),
    };
    const INDEX: &str = "model.safetensors.index.json";
    let index = (shards.len() > 1).then_some(INDEX);
    refuse_leftovers(dir, names.iter().map(String::as_str).chain(index))?;

    let mut weight_map = Map::new();
    let mut total = 0;
    for (name, tensors) in names.iter().zip(&shards) {
        tensors::write(dir, name, tensors, spec.dtype, spec.seed)?;
        for tensor in tensors {
            weight_map.insert(tensor.name.clone(), name.as_str().into());
            total += tensor.bytes(spec.dtype);
        }
    }
    if index.is_some() {
        let index = json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
        file::write_json(dir, INDEX, &index)?;
    }
    Ok(())
}

/// Files that a loader would mix with ours must not be there.
fn refuse_leftovers<'a>(dir: &Path, ours: impl Iterator<Item = &'a str> + Clone) -> Result<()> {
    let failed = |source| Error::Io { path: dir.into(), source };
    for entry in fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let name = name.to_string_lossy();
        let is_weights =
            name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json");
        if is_weights && !ours.clone().any(|our| our == name) {
            let reason = "belongs to another checkpoint: remove it first";
            let source = io::Error::new(io::ErrorKind::AlreadyExists, reason);
            return Err(Error::Io { path: dir.join(&*name), source });
        }
    }
    Ok(())
}

fn all_tensors(spec: &Spec) -> Vec<Tensor> {
    let (hidden, inter) = (spec.hidden_size, spec.intermediate_size);
    let q = spec.num_attention_heads * spec.head_dim;
    let kv = spec.num_key_value_heads * spec.head_dim;
    // Square roots are exact by IEEE 754, so that these too are the same everywhere.
    let sqrt = |n: usize| (n as f32).sqrt();
    let share = LAYERS_RMS / sqrt(2 * spec.num_hidden_layers);
    let rows = Kind::Rows { std: LOGIT_STD / sqrt(hidden) };
    let norm = Kind::Norm { mean: 1.0 };
    let qk_norm = Kind::Norm { mean: QK_NORM_MEAN };
    let linear = |fan_in: usize, gain: f32| Kind::Linear { std: gain / sqrt(fan_in) };

    let mut all = Vec::new();
    let mut add = |name: String, shape: &[usize], kind: Kind| {
        all.push(Tensor { name, shape: shape.into(), kind });
    };
    if !spec.tied {
        add("lm_head.weight".into(), &[spec.vocab_size, hidden], rows);
    }
    add("model.embed_tokens.weight".into(), &[spec.vocab_size, hidden], rows);
    for layer in 0..spec.num_hidden_layers {
        let mut add = |name: &str, shape: &[usize], kind| {
            add(format!("model.layers.{layer}.{name}"), shape, kind)
        };
        add("input_layernorm.weight", &[hidden], norm);
        add("mlp.down_proj.weight", &[hidden, inter], linear(inter, share * FEED_FORWARD_GAIN));
        add("mlp.gate_proj.weight", &[inter, hidden], linear(hidden, 1.0));
        add("mlp.up_proj.weight", &[inter, hidden], linear(hidden, 1.0));
        add("post_attention_layernorm.weight", &[hidden], norm);
        add("self_attn.k_norm.weight", &[spec.head_dim], qk_norm);
        add("self_attn.k_proj.weight", &[kv, hidden], linear(hidden, 1.0));
        add("self_attn.o_proj.weight", &[hidden, q], linear(q, share * ATTENTION_GAIN));
        add("self_attn.q_norm.weight", &[spec.head_dim], qk_norm);
        add("self_attn.q_proj.weight", &[q, hidden], linear(hidden, 1.0));
        add("self_attn.v_proj.weight", &[kv, hidden], linear(hidden, 1.0));
    }
    add("model.norm.weight".into(), &[hidden], norm);
    all
}

/// Fills one file after the other, in order.
fn shards(spec: &Spec) -> Vec<Vec<Tensor>> {
    let limit = spec.max_shard_bytes.unwrap_or(u64::MAX);
    let mut shards = vec![Vec::new()];
    let mut used = 0;
    for tensor in all_tensors(spec) {
        let bytes = tensor.bytes(spec.dtype);
        if used > 0 && used + bytes > limit {
            shards.push(Vec::new());
            used = 0;
        }
        used += bytes;
        if let Some(last) = shards.last_mut() {
            last.push(tensor);
        }
    }
    shards
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_keep_the_order_and_the_limit() {
        let spec = Spec { max_shard_bytes: Some(30_000), ..Spec::tiny() };
        let shards = shards(&spec);
        assert!(shards.len() > 3);
        for shard in &shards {
            let bytes: u64 = shard.iter().map(|t| t.bytes(spec.dtype)).sum();
            assert!(bytes <= 30_000 || shard.len() == 1);
        }
        let names: Vec<_> = shards.iter().flatten().map(|t| &t.name).collect();
        assert_eq!(names, all_tensors(&spec).iter().map(|t| &t.name).collect::<Vec<_>>());
    }
}
