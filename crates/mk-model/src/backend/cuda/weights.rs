//! A model's weights on the device, repacked for the decode kernel.

use mk_sys::device::{Device, Memory, Stream};
use rayon::prelude::*;

use super::kernels::Kernels;
use super::raw;
use crate::backend::rope::inverse_frequencies;
use crate::checkpoint::{Layout, Tensor, TensorFiles};
use crate::config::Config;
use crate::error::Result;
use crate::raw::kernels::to_bf16;

/// Everything that launches read and nothing writes once it is made.
pub(super) struct Weights {
    /// `[layers]`, packed.
    pub(super) layers: Memory,
    /// Packed, each `[vocab_size]`; one for a tied model.
    pub(super) heads: Vec<Memory>,
    /// bf16 `[vocab_size][hidden_size]`.
    pub(super) embedding: Option<Memory>,
    /// bf16: a layer's input norm, post-attention norm, q norm and k norm; after the layers the final norm.
    pub(super) norms: Memory,
    /// f32 `[max_position_embeddings][head_dim / 2][cos, sin]`.
    pub(super) rope: Memory,
}

/// Copies tensors to the device on a stream.
pub(super) struct Loader<'a> {
    pub(super) device: &'a Device,
    pub(super) stream: &'a Stream,
    pub(super) tensors: &'a TensorFiles,
}

impl Weights {
    /// Takes the tensors that the audit has found to be there and of the right shape.
    ///
    /// # Errors
    /// [`crate::Error::Device`], out of memory among them.
    pub(super) fn load(
        device: &Device,
        kernels: &Kernels,
        config: &Config,
        layout: &Layout,
        tensors: &TensorFiles,
    ) -> Result<Self> {
        let stream = &device.stream()?;
        let loader = Loader { device, stream, tensors };
        let embedding = layout.embedding.as_deref().map(|name| loader.matrix(name)).transpose()?;
        let weights = Self {
            layers: loader.layers(kernels, config, layout)?,
            heads: loader.heads(kernels, config, layout, embedding.as_ref())?,
            embedding,
            norms: loader.norms(config, layout)?,
            rope: loader.rope(config)?,
        };
        stream.synchronize()?;
        Ok(weights)
    }
}

impl Loader<'_> {
    fn tensor(&self, name: &str) -> &Tensor {
        self.tensors.get(name).expect("the audit found every tensor")
    }

    fn upload(&self, bytes: &[u8]) -> Result<Memory> {
        let memory = self.device.memory(bytes.len())?;
        self.stream.upload(&memory, 0, bytes)?;
        Ok(memory)
    }

    /// A matrix as bf16.
    pub(super) fn matrix(&self, name: &str) -> Result<Memory> {
        let tensor = self.tensor(name);
        let memory = self.device.memory(tensor.shape().iter().product::<usize>() * 2)?;
        self.copy_as_bf16(tensor, &memory, 0)?;
        Ok(memory)
    }

    /// Copies a tensor, rounded where it is not stored as bf16, and returns where it ends.
    fn copy_as_bf16(&self, tensor: &Tensor, memory: &Memory, offset: usize) -> Result<usize> {
        if let Some(bits) = tensor.mapped::<u16>() {
            self.stream.upload(memory, offset, bytemuck::cast_slice(bits))?;
        } else {
            let bits: Vec<u16> = tensor.to_f32().into_iter().map(to_bf16).collect();
            self.stream.upload(memory, offset, bytemuck::cast_slice(&bits))?;
        }
        Ok(offset + tensor.shape().iter().product::<usize>() * 2)
    }

    /// Copies a layer's matrices, one after the other, to `offset`; returns where in the memory begin: q, k and v; o; gate
    /// and up; down.
    pub(super) fn layer(
        &self,
        layout: &Layout,
        layer: usize,
        (memory, offset): (&Memory, usize),
    ) -> Result<[usize; 4]> {
        let mut starts = [offset; 8];
        let parts = [
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.o_proj",
            "mlp.gate_proj",
            "mlp.up_proj",
            "mlp.down_proj",
        ];
        for (i, part) in parts.into_iter().enumerate() {
            let tensor = self.tensor(&layout.layer_tensor(layer, part));
            starts[i + 1] = self.copy_as_bf16(tensor, memory, starts[i])?;
        }
        Ok([starts[0], starts[3], starts[4], starts[6]])
    }

    fn layers(&self, kernels: &Kernels, config: &Config, layout: &Layout) -> Result<Memory> {
        let bytes = kernels.shape.layer_bytes as usize;
        let packed = self.device.memory(config.num_hidden_layers * bytes)?;
        // One layer as the files have it.
        let plain = self.device.memory(bytes)?;
        for layer in 0..config.num_hidden_layers {
            let matrices = self.layer(layout, layer, (&plain, 0))?;
            raw::pack_layer(self.stream, kernels, (&plain, matrices), (&packed, layer))?;
        }
        self.stream.synchronize()?;
        Ok(packed)
    }

    fn heads(
        &self,
        kernels: &Kernels,
        config: &Config,
        layout: &Layout,
        embedding: Option<&Memory>,
    ) -> Result<Vec<Memory>> {
        let vocab = config.vocab_size;
        let bytes = vocab.div_ceil(8) * kernels.shape.head_tile_bytes as usize;
        let pack = |plain: &Memory| {
            let packed = self.device.memory(bytes)?;
            raw::pack_head(self.stream, kernels, plain, &packed, vocab)?;
            Ok(packed)
        };
        match embedding {
            Some(embedding) if layout.is_tied(config, self.tensors) => Ok(vec![pack(embedding)?]),
            _ => layout.heads.iter().map(|name| pack(&self.matrix(name)?)).collect(),
        }
    }

    /// All norms, as [`Weights::norms`] has them.
    pub(super) fn norms(&self, config: &Config, layout: &Layout) -> Result<Memory> {
        let mut bits = Vec::new();
        let mut add = |name: &str| bits.extend(self.tensor(name).to_f32().into_iter().map(to_bf16));
        for layer in 0..config.num_hidden_layers {
            for part in [
                "input_layernorm",
                "post_attention_layernorm",
                "self_attn.q_norm",
                "self_attn.k_norm",
            ] {
                add(&layout.layer_tensor(layer, part));
            }
        }
        add(&format!("{}norm.weight", layout.prefix));
        self.upload(bytemuck::cast_slice(&bits))
    }

    /// As [`Weights::rope`].
    pub(super) fn rope(&self, config: &Config) -> Result<Memory> {
        self.upload(bytemuck::cast_slice(&rope(config)))
    }
}

/// Cosines and sines of every position the model was made for, as the CPU backend computes them.
fn rope(config: &Config) -> Vec<[f32; 2]> {
    let frequencies = inverse_frequencies(config.rope_theta, config.head_dim);
    let row = |position: usize| {
        frequencies.iter().map(move |frequency| {
            let angle = f64::from(position as f32 * frequency);
            [angle.cos() as f32, angle.sin() as f32]
        })
    };
    let positions = 0..config.max_position_embeddings;
    positions.into_par_iter().flat_map_iter(row).collect()
}
