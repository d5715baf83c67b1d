//! A model's weights in main memory: mapped where they can be used as stored, copied where not.

use crate::backend::Precision;
use crate::checkpoint::{Dtype, Layout, Stored, Tensor, TensorFiles};
use crate::config::Config;
use crate::raw::kernels::{Weights, to_bf16};

/// A weight matrix `[rows][cols]`.
#[derive(Debug)]
pub(crate) struct Matrix {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    numbers: Numbers,
}

#[derive(Debug)]
enum Numbers {
    /// In the file, bf16.
    MappedBf16(Tensor),
    /// In the file, f32.
    MappedF32(Tensor),
    Bf16(Vec<u16>),
    F32(Vec<f32>),
}

impl Matrix {
    /// bf16 tensors are used in place at either precision (widening them is exact), f32 tensors at f32; anything else
    /// is converted once, into memory of its own.
    pub(crate) fn new(tensor: &Tensor, precision: Precision) -> Self {
        let numbers = match (tensor.dtype(), precision) {
            (Dtype::Bf16, _) if tensor.mapped::<u16>().is_some() => {
                Numbers::MappedBf16(tensor.clone())
            }
            (Dtype::F32, Precision::F32) if tensor.mapped::<f32>().is_some() => {
                Numbers::MappedF32(tensor.clone())
            }
            (Dtype::Bf16, _) | (_, Precision::Bf16) => {
                Numbers::Bf16(tensor.to_f32().into_iter().map(to_bf16).collect())
            }
            (_, Precision::F32) => Numbers::F32(tensor.to_f32()),
        };
        Self { rows: tensor.shape()[0], cols: tensor.shape()[1], numbers }
    }

    /// Rows `first..first + count`.
    pub(super) fn rows(&self, first: usize, count: usize) -> Weights<'_> {
        let range = first * self.cols..(first + count) * self.cols;
        match &self.numbers {
            Numbers::MappedBf16(tensor) => Weights::Bf16(&mapped(tensor)[range]),
            Numbers::MappedF32(tensor) => Weights::F32(&mapped(tensor)[range]),
            Numbers::Bf16(numbers) => Weights::Bf16(&numbers[range]),
            Numbers::F32(numbers) => Weights::F32(&numbers[range]),
        }
    }

    /// One row, widened.
    pub(super) fn row(&self, row: usize) -> Vec<f32> {
        match self.rows(row, 1) {
            Weights::Bf16(bits) => {
                bits.iter().map(|b| f32::from_bits(u32::from(*b) << 16)).collect()
            }
            Weights::F32(numbers) => numbers.to_vec(),
        }
    }
}

fn mapped<T: Stored>(tensor: &Tensor) -> &[T] {
    tensor.mapped().expect("checked when the matrix was made; maps do not move")
}

/// One decoder layer.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) input_norm: Vec<f32>,
    pub(super) q: Matrix,
    pub(super) k: Matrix,
    pub(super) v: Matrix,
    pub(super) o: Matrix,
    pub(super) q_norm: Vec<f32>,
    pub(super) k_norm: Vec<f32>,
    pub(super) post_norm: Vec<f32>,
    pub(super) gate: Matrix,
    pub(super) up: Matrix,
    pub(super) down: Matrix,
}

/// All weights of a model.
#[derive(Debug)]
pub(super) struct ModelWeights {
    pub(super) layers: Vec<Layer>,
    pub(super) final_norm: Vec<f32>,
    pub(super) embedding: Option<Matrix>,
    /// Empty where the embedding is the head.
    heads: Vec<Matrix>,
}

impl ModelWeights {
    /// Takes the tensors that [`crate::checkpoint::audit`] has found to be there and of the right shape.
    pub(super) fn new(
        config: &Config,
        layout: &Layout,
        tensors: &TensorFiles,
        precision: Precision,
    ) -> Self {
        let tensor = |name: &str| tensors.get(name).expect("the audit found every tensor");
        let matrix = |name: &str| Matrix::new(tensor(name), precision);
        let layers = (0..config.num_hidden_layers).map(|i| {
            let matrix = |part| matrix(&layout.layer_tensor(i, part));
            let vector = |part| tensor(&layout.layer_tensor(i, part)).to_f32();
            Layer {
                input_norm: vector("input_layernorm"),
                q: matrix("self_attn.q_proj"),
                k: matrix("self_attn.k_proj"),
                v: matrix("self_attn.v_proj"),
                o: matrix("self_attn.o_proj"),
                q_norm: vector("self_attn.q_norm"),
                k_norm: vector("self_attn.k_norm"),
                post_norm: vector("post_attention_layernorm"),
                gate: matrix("mlp.gate_proj"),
                up: matrix("mlp.up_proj"),
                down: matrix("mlp.down_proj"),
            }
        });
        let tied = layout.is_tied(config, tensors);
        Self {
            layers: layers.collect(),
            final_norm: tensor(&format!("{}norm.weight", layout.prefix)).to_f32(),
            embedding: layout.embedding.as_deref().map(matrix),
            heads: if tied {
                Vec::new()
            } else {
                layout.heads.iter().map(|name| matrix(name)).collect()
            },
        }
    }

    /// The output head of this number.
    pub(super) fn head(&self, head: usize) -> &Matrix {
        self.heads.get(head).or(self.embedding.as_ref()).expect("a model has a head or is tied")
    }
}
