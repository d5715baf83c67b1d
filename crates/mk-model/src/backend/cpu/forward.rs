//! The decoder's forward pass over a batch of positions.
//!
//! The layer is that of transformers' `models/qwen3/modeling_qwen3.py`. Activations are feature-major,
//! `[features][stride]` (see [`crate::raw::kernels`]); a single token is the case of stride 1.

use std::ops::Range;

use rayon::prelude::*;

use super::CpuBackend;
use super::attention::Attention;
use super::kv_cache::{self, KvCache};
use super::machine::Machine;
use super::weights::Layer;
use crate::backend::rope::Rotation;
use crate::backend::{Input, Output, Readout, Rows};
use crate::error::{Error, Result};
use crate::raw::kernels::{Kernels, Panel};

/// Positions that go through the layers together: bounds the memory for activations.
const BATCH: usize = 512;
/// Positions whose logits are made together: they take `vocab_size` numbers each.
const LOGITS_BATCH: usize = 48;

/// One pass of a model.
pub(super) struct Forward<'a> {
    pub(super) model: &'a CpuBackend,
    pub(super) readout: Readout,
}

/// The residual stream of a batch.
struct Batch {
    /// `[hidden_size][stride]`.
    x: Vec<f32>,
    tokens: usize,
    stride: usize,
    /// Position of the first token.
    base: usize,
}

impl Forward<'_> {
    /// Extends `cache` by `input`.
    pub(super) fn run(&self, cache: &mut KvCache, input: Input<'_>) -> Result<Output> {
        let positions = input.positions(self.model.config.hidden_size);
        let mut output = Output::default();
        let mut first = 0;
        while first < positions {
            let tokens = (positions - first).min(BATCH);
            let mut batch = self.embed(input, first..first + tokens, cache.len());
            self.layers(cache, &mut batch);
            self.read_out(&batch, first + tokens == positions, &mut output)?;
            cache.advance(tokens);
            first += tokens;
        }
        Ok(output)
    }

    fn embed(&self, input: Input<'_>, rows: Range<usize>, base: usize) -> Batch {
        let hidden = self.model.config.hidden_size;
        let tokens = rows.len();
        let stride = Kernels::stride(tokens);
        let mut x = vec![0.0; hidden * stride];
        for (token, row) in rows.enumerate() {
            let looked_up;
            let numbers = match input {
                Input::Tokens(ids) => {
                    let embedding = self.model.weights.embedding.as_ref();
                    looked_up = embedding.expect("checked by the sequence").row(ids[row] as usize);
                    &looked_up
                }
                Input::Embeddings(all) => &all[row * hidden..(row + 1) * hidden],
            };
            for (feature, number) in numbers.iter().enumerate() {
                x[feature * stride + token] = *number;
            }
        }
        Batch { x, tokens, stride, base }
    }

    fn layers(&self, cache: &mut KvCache, batch: &mut Batch) {
        let rotation = Rotation::new(&self.model.inverse_frequencies, batch.base, batch.tokens);
        for (i, layer) in self.model.weights.layers.iter().enumerate() {
            self.attention(cache, i, layer, &rotation, batch);
            self.feed_forward(layer, batch);
        }
    }

    fn attention(
        &self,
        cache: &mut KvCache,
        index: usize,
        layer: &Layer,
        rotation: &Rotation,
        batch: &mut Batch,
    ) {
        let config = &self.model.config;
        let (tokens, stride) = (batch.tokens, batch.stride);
        let input = self.normalised(&batch.x, &layer.input_norm, tokens, stride);
        let mut qkv = vec![0.0; (config.q_size() + 2 * config.kv_size()) * stride];
        self.machine().matmul(&[&layer.q, &layer.k, &layer.v], &input, &mut qkv, false);

        let (queries, kv) = qkv.split_at_mut(config.q_size() * stride);
        let (keys, values) = kv.split_at_mut(config.kv_size() * stride);
        let scale = (config.head_dim as f32).sqrt().recip();
        self.rotate(queries, &layer.q_norm, scale, rotation, stride);
        self.rotate(keys, &layer.k_norm, 1.0, rotation, stride);
        cache.write(index, kv_cache::Rows { keys, values, tokens, stride });

        let attention = Attention {
            kernels: &self.machine().kernels,
            config,
            cache,
            layer: index,
            queries,
            stride,
            tokens,
            base: batch.base,
        };
        let mut attended = vec![0.0; config.q_size() * tokens];
        attention.run(&mut attended);
        let attended = self.machine().pack(config.q_size(), tokens, |feature, token| {
            attended[Attention::place(config, tokens, feature, token)]
        });
        self.machine().matmul(&[&layer.o], &attended, &mut batch.x, true);
    }

    fn feed_forward(&self, layer: &Layer, batch: &mut Batch) {
        let (tokens, stride) = (batch.tokens, batch.stride);
        let input = self.normalised(&batch.x, &layer.post_norm, tokens, stride);
        let mut activated = vec![0.0; layer.gate.rows * stride];
        let rows = self.machine().task_rows(layer.gate.rows, tokens);
        activated.par_chunks_mut(rows * stride).enumerate().for_each(|(task, gate)| {
            let count = gate.len() / stride;
            let mut up = vec![0.0; gate.len()];
            let kernels = &self.machine().kernels;
            kernels.matmul(layer.gate.rows(task * rows, count), &input, gate, false);
            kernels.matmul(layer.up.rows(task * rows, count), &input, &mut up, false);
            kernels.silu_mul(gate, &up);
        });
        let activated =
            self.machine().pack(layer.gate.rows, tokens, |f, t| activated[f * stride + t]);
        self.machine().matmul(&[&layer.down], &activated, &mut batch.x, true);
    }

    /// RMSNorm of every head over its features, the rotation, and a factor.
    fn rotate(
        &self,
        heads: &mut [f32],
        weight: &[f32],
        factor: f32,
        rotation: &Rotation,
        stride: usize,
    ) {
        let eps = self.model.config.rms_norm_eps;
        let dim = weight.len();
        heads.par_chunks_mut(dim * stride).for_each(|head| {
            let scales = rms_scales(head, dim, stride, eps);
            for (row, weight) in head.chunks_exact_mut(stride).zip(weight) {
                row.iter_mut().zip(&scales).for_each(|(x, scale)| *x *= scale * weight * factor);
            }
            rotation.apply(head, stride);
        });
    }

    /// RMSNorm over the features, packed for a matrix product.
    fn normalised(&self, x: &[f32], weight: &[f32], tokens: usize, stride: usize) -> Panel {
        let scales = rms_scales(x, weight.len(), stride, self.model.config.rms_norm_eps);
        self.machine().pack(weight.len(), tokens, |f, t| x[f * stride + t] * scales[t] * weight[f])
    }

    fn read_out(&self, batch: &Batch, is_last: bool, output: &mut Output) -> Result<()> {
        let wanted = |rows: Rows| match rows {
            Rows::All => 0..batch.tokens,
            Rows::Last if is_last => batch.tokens - 1..batch.tokens,
            _ => batch.tokens..batch.tokens,
        };
        let (hidden, logits) = (wanted(self.readout.hidden), wanted(self.readout.logits));
        let first = hidden.start.min(logits.start);
        for start in (first..batch.tokens).step_by(LOGITS_BATCH) {
            let rows = start..batch.tokens.min(start + LOGITS_BATCH);
            let normed = self.final_norm(batch, &rows)?;
            let width = self.model.config.hidden_size;
            if hidden.start <= rows.start {
                output.hidden.extend_from_slice(&normed);
            } else if hidden.start < rows.end {
                output.hidden.extend_from_slice(&normed[(hidden.start - rows.start) * width..]);
            }
            if logits.start < rows.end {
                let skip = logits.start.saturating_sub(rows.start);
                self.logits(&normed[skip * width..], &mut output.logits);
            }
        }
        Ok(())
    }

    /// Hidden states `[rows][hidden_size]` after the final norm.
    fn final_norm(&self, batch: &Batch, rows: &Range<usize>) -> Result<Vec<f32>> {
        let weight = &self.model.weights.final_norm;
        let width = weight.len();
        let mut out = vec![0.0; rows.len() * width];
        for (token, out) in rows.clone().zip(out.chunks_exact_mut(width)) {
            let column = || batch.x[token..].iter().step_by(batch.stride);
            let squares: f32 = column().map(|x| x * x).sum();
            let scale = (squares / width as f32 + self.model.config.rms_norm_eps).sqrt().recip();
            for ((out, x), weight) in out.iter_mut().zip(column()).zip(weight) {
                *out = x * scale * weight;
            }
            if out.iter().any(|x| !x.is_finite()) {
                let position = batch.base + token;
                return Err(Error::NotFinite { what: "hidden states", position });
            }
        }
        Ok(out)
    }

    /// Appends the logits of hidden states `[rows][hidden_size]`.
    fn logits(&self, normed: &[f32], logits: &mut Vec<f32>) {
        let head = self.model.weights.head(self.readout.head);
        self.machine().product(head, normed, logits);
    }

    fn machine(&self) -> &Machine {
        &self.model.machine
    }
}

/// For every token, 1 / sqrt(mean square over the features + eps).
fn rms_scales(x: &[f32], features: usize, stride: usize, eps: f32) -> Vec<f32> {
    let mut sums = vec![0.0f32; stride];
    if stride == 1 {
        // Eight sums side by side, so that the compiler may vectorise.
        let mut lanes = [0.0f32; 8];
        for chunk in x.chunks(8) {
            chunk.iter().zip(&mut lanes).for_each(|(x, sum)| *sum += x * x);
        }
        sums[0] = lanes.iter().sum();
    } else {
        for row in x.chunks_exact(stride) {
            row.iter().zip(&mut sums).for_each(|(x, sum)| *sum += x * x);
        }
    }
    sums.iter().map(|sum| (sum / features as f32 + eps).sqrt().recip()).collect()
}
