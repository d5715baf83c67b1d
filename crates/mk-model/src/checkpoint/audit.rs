//! Holds a checkpoint's tensors against its config.

use rayon::prelude::*;

use super::{Dtype, Progress, Tensor, TensorFiles};
use crate::config::Config;
use crate::error::Problem;

/// Where a decoder's tensors are in a checkpoint: the same layers go by other prefixes in other models (the talker
/// of Qwen3-TTS, its code predictor), and have other heads.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// What the names of layers and of the final norm begin with; with the dot at its end.
    pub prefix: String,
    /// Full name of the embedding [vocab_size, hidden_size]; `None` for a model that is only fed rows.
    pub embedding: Option<String>,
    /// Full names of the output heads, each [vocab_size, hidden_size].
    pub heads: Vec<String>,
}

impl Layout {
    /// Qwen3ForCausalLM.
    pub fn qwen3() -> Self {
        Self {
            prefix: "model.".into(),
            embedding: Some("model.embed_tokens.weight".into()),
            heads: vec!["lm_head.weight".into()],
        }
    }

    /// Whether the head is the embedding: the config says so, or leaves it open and there is no head in the files.
    pub(crate) fn is_tied(&self, config: &Config, tensors: &TensorFiles) -> bool {
        let [head] = self.heads.as_slice() else { return false };
        self.embedding.is_some()
            && config.tie_word_embeddings.unwrap_or_else(|| tensors.get(head).is_none())
    }

    /// Name and shape of every tensor the config calls for, but for a tied head.
    fn expected(&self, config: &Config) -> Vec<(String, Vec<usize>)> {
        let (hidden, inter) = (config.hidden_size, config.intermediate_size);
        let (q, kv) = (config.q_size(), config.kv_size());
        let mut all = vec![(format!("{}norm.weight", self.prefix), vec![hidden])];
        if let Some(embedding) = &self.embedding {
            all.push((embedding.clone(), vec![config.vocab_size, hidden]));
        }
        for layer in 0..config.num_hidden_layers {
            let parts: [(&str, Vec<usize>); 11] = [
                ("input_layernorm", vec![hidden]),
                ("self_attn.q_proj", vec![q, hidden]),
                ("self_attn.k_proj", vec![kv, hidden]),
                ("self_attn.v_proj", vec![kv, hidden]),
                ("self_attn.o_proj", vec![hidden, q]),
                ("self_attn.q_norm", vec![config.head_dim]),
                ("self_attn.k_norm", vec![config.head_dim]),
                ("post_attention_layernorm", vec![hidden]),
                ("mlp.gate_proj", vec![inter, hidden]),
                ("mlp.up_proj", vec![inter, hidden]),
                ("mlp.down_proj", vec![hidden, inter]),
            ];
            all.extend(parts.map(|(part, shape)| (self.layer_tensor(layer, part), shape)));
        }
        all
    }

    /// Full name of a layer's weight, such as `model.layers.3.mlp.up_proj.weight` for (3, `mlp.up_proj`).
    pub(crate) fn layer_tensor(&self, layer: usize, part: &str) -> String {
        format!("{}layers.{layer}.{part}.weight", self.prefix)
    }
}

/// Everything about `tensors` that does not fit `config`. Reads every weight once; `progress` hears of it.
pub fn audit(
    config: &Config,
    layout: &Layout,
    tensors: &TensorFiles,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Vec<Problem> {
    let mut expected = layout.expected(config);
    let tied = layout.is_tied(config, tensors);
    let head_shape = vec![config.vocab_size, config.hidden_size];
    if tied {
        // Published files may hold a tied head all the same; it must then be the embedding.
        let present = layout.heads.iter().filter(|head| tensors.get(head).is_some());
        expected.extend(present.map(|head| (head.clone(), head_shape.clone())));
    } else {
        expected.extend(layout.heads.iter().map(|head| (head.clone(), head_shape.clone())));
    }

    let mut problems = shape_problems(&expected, tensors);
    problems.extend(extra_tensors(&expected, layout, tensors));
    if tied {
        problems.extend(untied_head(layout, tensors));
    }
    problems.extend(non_finite_weights(&expected, tensors, progress));
    problems
}

/// Tensors of `expected`, given by name and shape, that are missing or of another shape. Their values are not read.
pub fn shape_problems(expected: &[(String, Vec<usize>)], tensors: &TensorFiles) -> Vec<Problem> {
    let unreadable = |name: &str| {
        tensors
            .problems()
            .iter()
            .any(|p| matches!(p, Problem::WrongDtype { name: n, .. } if n == name))
    };
    expected
        .iter()
        .filter_map(|(name, shape)| match tensors.get(name) {
            None if unreadable(name) => None,
            None => Some(Problem::MissingTensor { name: name.clone(), expected: shape.clone() }),
            Some(tensor) if tensor.shape() != shape => Some(Problem::WrongShape {
                name: name.clone(),
                expected: shape.clone(),
                found: tensor.shape().to_vec(),
            }),
            Some(_) => None,
        })
        .collect()
}

/// Tensors under the layout's prefix (or, for a whole Qwen3, anywhere) that the config has no place for.
fn extra_tensors(
    expected: &[(String, Vec<usize>)],
    layout: &Layout,
    tensors: &TensorFiles,
) -> Vec<Problem> {
    let known: std::collections::HashSet<&str> = expected.iter().map(|(n, _)| n.as_str()).collect();
    let whole_file = *layout == Layout::qwen3();
    tensors
        .iter()
        .map(Tensor::name)
        .filter(|name| whole_file || name.starts_with(&format!("{}layers.", layout.prefix)))
        .filter(|name| !known.contains(name))
        // Buffers that old versions of transformers saved; they follow from the config.
        .filter(|name| !name.ends_with(".rotary_emb.inv_freq"))
        .map(|name| Problem::ExtraTensor { name: name.into() })
        .collect()
}

fn untied_head(layout: &Layout, tensors: &TensorFiles) -> Option<Problem> {
    let embedding = tensors.get(layout.embedding.as_deref()?)?;
    let head = tensors.get(layout.heads.first()?)?;
    if head.shape() != embedding.shape() {
        // One of the two is of the wrong shape, which is reported as such.
        return None;
    }
    let equal = if head.dtype() == embedding.dtype() {
        head.bytes() == embedding.bytes()
    } else {
        head.to_f32() == embedding.to_f32()
    };
    (!equal).then(|| Problem::UntiedHead { name: head.name().into() })
}

fn non_finite_weights(
    expected: &[(String, Vec<usize>)],
    tensors: &TensorFiles,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Vec<Problem> {
    let present: Vec<&Tensor> = expected.iter().filter_map(|(name, _)| tensors.get(name)).collect();
    let total = present.iter().map(|t| t.bytes().len() as u64).sum();
    let mut done = 0;
    let mut problems = Vec::new();
    for tensor in present {
        progress(Progress { what: tensor.name(), done, total });
        if let Some(index) = first_non_finite(tensor) {
            problems.push(Problem::NotFinite { name: tensor.name().into(), index });
        }
        done += tensor.bytes().len() as u64;
    }
    progress(Progress { what: "weights", done, total });
    problems
}

/// Row-major index of the first NaN or infinity.
fn first_non_finite(tensor: &Tensor) -> Option<usize> {
    /// Bytes a task, so that many cores share the work and the first find ends it early.
    const PIECE: usize = 1 << 20;
    let size = tensor.dtype().size();
    // A number is not finite when all bits of its exponent are set.
    let exponent: u32 = match tensor.dtype() {
        Dtype::Bf16 => 0x7f80,
        Dtype::F16 => 0x7c00,
        Dtype::F32 => 0x7f80_0000,
    };
    let bits = |number: &[u8]| match number {
        [a, b] => u32::from(u16::from_le_bytes([*a, *b])),
        [a, b, c, d] => u32::from_le_bytes([*a, *b, *c, *d]),
        _ => 0,
    };
    let clean = |piece: &[u8]| match size {
        // Counting rather than searching lets the compiler vectorise the common case.
        2 => {
            piece.as_chunks::<2>().0.iter().filter(|n| bits(*n) & exponent == exponent).count() == 0
        }
        _ => {
            piece.as_chunks::<4>().0.iter().filter(|n| bits(*n) & exponent == exponent).count() == 0
        }
    };
    tensor.bytes().par_chunks(PIECE).enumerate().find_map_first(|(i, piece)| {
        if clean(piece) {
            return None;
        }
        let at = piece.chunks_exact(size).position(|n| bits(n) & exponent == exponent)?;
        Some(i * (PIECE / size) + at)
    })
}
