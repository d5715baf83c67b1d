//! The tensors of a synthetic checkpoint: their names and sizes, their numbers, and the safetensors files.
//!
//! How the numbers are scaled. Embedding rows have a standard deviation of 3 / sqrt(hidden), so that their products
//! with a normalised hidden state spread by about 3; a factor per row, from 0.5 to 1.5, makes some tokens more
//! decided than others. Every layer's two outputs are scaled such that together they have a root mean square near
//! [`LAYERS_RMS`], which is above the embedding's: the hidden state at the end then holds only so much of the input
//! token that a tied head favours it by about one standard deviation.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use half::{bf16, f16};
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use super::{Spec, file};
use crate::checkpoint::Dtype;
use crate::error::{Error, Result};
use crate::rng::philox;

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
/// Numbers that are made in one go, to be written in one go.
const CHUNK: usize = 1 << 22;

/// One tensor, row-major; norms are one row.
struct Tensor {
    name: String,
    shape: Vec<usize>,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    /// Normal with this standard deviation.
    Linear { std: f32 },
    /// Likewise, times a factor from 0.5 to 1.5 for each row.
    Rows { std: f32 },
    /// Normal about this mean, with a standard deviation of a seventh of it: always positive.
    Norm { mean: f32 },
}

impl Tensor {
    fn bytes(&self, dtype: Dtype) -> u64 {
        (self.shape.iter().product::<usize>() * width(dtype)) as u64
    }
}

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
        file::write(dir, name, |out| {
            out.write_all(&header(tensors, spec.dtype))?;
            tensors.iter().try_for_each(|tensor| write_tensor(spec, tensor, out))
        })?;
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

fn tensors(spec: &Spec) -> Vec<Tensor> {
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
    for tensor in tensors(spec) {
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

/// The length of the JSON text, and the text, padded such that the tensors' bytes start at a multiple of 8.
fn header(tensors: &[Tensor], dtype: Dtype) -> Vec<u8> {
    let dtype_name = match dtype {
        Dtype::Bf16 => "BF16",
        Dtype::F16 => "F16",
        Dtype::F32 => "F32",
    };
    let mut entries = Map::new();
    entries.insert("__metadata__".into(), json!({ "format": "pt" }));
    let mut offset = 0;
    for tensor in tensors {
        let end = offset + tensor.bytes(dtype);
        let entry =
            json!({ "dtype": dtype_name, "shape": tensor.shape, "data_offsets": [offset, end] });
        entries.insert(tensor.name.clone(), entry);
        offset = end;
    }
    let mut text = Value::Object(entries).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.append(&mut text);
    header
}

fn write_tensor(spec: &Spec, tensor: &Tensor, out: &mut impl Write) -> io::Result<()> {
    let columns = tensor.shape.last().copied().unwrap_or(1);
    let rows = tensor.shape.iter().product::<usize>() / columns;
    let width = width(spec.dtype);
    let rows_per_chunk = (CHUNK / columns).max(1);
    let mut buffer = Vec::new();
    for first in (0..rows).step_by(rows_per_chunk) {
        let count = rows_per_chunk.min(rows - first);
        buffer.resize(count * columns * width, 0);
        let stream = stream(&tensor.name);
        buffer.par_chunks_mut(columns * width).enumerate().for_each(|(i, bytes)| {
            let row = Row { seed: spec.seed, stream, row: (first + i) as u64 };
            match spec.dtype {
                Dtype::Bf16 => row.fill(tensor.kind, bytes, |x| bf16::from_f32(x).to_le_bytes()),
                Dtype::F16 => row.fill(tensor.kind, bytes, |x| f16::from_f32(x).to_le_bytes()),
                Dtype::F32 => row.fill(tensor.kind, bytes, f32::to_le_bytes),
            }
        });
        out.write_all(&buffer)?;
    }
    Ok(())
}

fn width(dtype: Dtype) -> usize {
    match dtype {
        Dtype::Bf16 | Dtype::F16 => 2,
        Dtype::F32 => 4,
    }
}

/// FNV-1a of a tensor's name. Tensors draw from streams of their own, so that their numbers do not depend on which
/// others there are.
fn stream(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

/// One row of a tensor: the counters from 2^32 times its number on, in the tensor's stream.
struct Row {
    seed: u64,
    stream: u64,
    row: u64,
}

impl Row {
    fn words(&self, block: u64) -> [u32; 4] {
        philox(self.seed, u128::from(self.stream) << 64 | u128::from(self.row << 32 | block))
    }

    fn fill<const N: usize>(&self, kind: Kind, bytes: &mut [u8], store: impl Fn(f32) -> [u8; N]) {
        let (mean, std) = match kind {
            Kind::Linear { std } => (0.0, std),
            // The last counter of the row, which no number uses: a row is shorter.
            Kind::Rows { std } => (0.0, std * (0.5 + unit(self.words(u64::from(u32::MAX))[0]))),
            Kind::Norm { mean } => (mean, mean / 7.0),
        };
        let scale = std / BYTES_STD;
        for (block, bytes) in bytes.chunks_mut(4 * N).enumerate() {
            let words = self.words(block as u64);
            for (word, bytes) in words.into_iter().zip(bytes.chunks_exact_mut(N)) {
                bytes.copy_from_slice(&store(mean + centred(word) * scale));
            }
        }
    }
}

/// A number in [0, 1).
fn unit(word: u32) -> f32 {
    (word >> 8) as f32 / (1 << 24) as f32
}

/// The sum of a word's four bytes, less its mean: an integer, normal to the eye, within 3.45 standard deviations of
/// [`BYTES_STD`]. Nothing here rounds.
fn centred(word: u32) -> f32 {
    let sum: u32 = word.to_le_bytes().into_iter().map(u32::from).sum();
    sum as f32 - 510.0
}

/// sqrt(4 (256^2 - 1) / 12), the standard deviation of the sum of four uniform bytes.
const BYTES_STD: f32 = 147.800_54;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_look_normal() {
        let draws: Vec<f32> = (0..250_000u64)
            .flat_map(|block| Row { seed: 1, stream: stream("x"), row: 0 }.words(block))
            .map(|word| centred(word) / BYTES_STD)
            .collect();
        let moment = |power: i32| {
            draws.iter().map(|&x| f64::from(x).powi(power)).sum::<f64>() / draws.len() as f64
        };
        assert!(moment(1).abs() < 0.005, "{}", moment(1));
        assert!((moment(2) - 1.0).abs() < 0.005, "{}", moment(2));
        // A normal has 3; the sum of four uniforms has 3 - 6 / (5 * 4).
        assert!((moment(4) - 2.7).abs() < 0.03, "{}", moment(4));
    }

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
        assert_eq!(names, tensors(&spec).iter().map(|t| &t.name).collect::<Vec<_>>());
    }
}
