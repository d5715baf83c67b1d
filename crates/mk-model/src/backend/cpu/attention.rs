//! Grouped-query attention over the blocked cache, with an online softmax (Milakov and Gimelshein, 2018).

use rayon::prelude::*;

use super::kv_cache::{BLOCK, KvCache};
use crate::config::Config;
use crate::raw::kernels::Kernels;

/// Tokens whose queries go through the cache together when there are several.
const TILE: usize = 16;
/// Blocks of the cache one task takes when there is a single token: fixed, so that results do not depend on the number
/// of threads.
const SPLIT: usize = 8;

/// Queries against one layer of the cache.
pub(super) struct Attention<'a> {
    pub(super) kernels: &'a Kernels,
    pub(super) config: &'a Config,
    pub(super) cache: &'a KvCache,
    pub(super) layer: usize,
    /// Rotated, scaled queries: feature-major `[q_size][stride]`.
    pub(super) queries: &'a [f32],
    pub(super) stride: usize,
    pub(super) tokens: usize,
    /// Position of the first token.
    pub(super) base: usize,
}

/// Attention of some rows over some blocks, not yet divided by the sum.
struct Partial {
    max: Vec<f32>,
    sum: Vec<f32>,
    /// `[rows][padded head_dim]`.
    out: Vec<f32>,
}

impl Attention<'_> {
    /// Where the result of feature `feature` of token `token` is in what [`Attention::run`] wrote: results lie
    /// `[kv head][token][features of its query heads]`, so that every task owns a slice of them.
    pub(super) fn place(config: &Config, tokens: usize, feature: usize, token: usize) -> usize {
        let width = config.group_size() * config.head_dim;
        (feature / width * tokens + token) * width + feature % width
    }

    /// Writes the attention of all tokens; `out` has `q_size * tokens` numbers.
    pub(super) fn run(&self, out: &mut [f32]) {
        let width = self.config.group_size() * self.config.head_dim;
        if self.tokens == 1 {
            self.run_one(out, width);
            return;
        }
        out.par_chunks_mut(self.tokens * width).enumerate().for_each(|(kv_head, out)| {
            out.par_chunks_mut(TILE * width).enumerate().for_each(|(tile, out)| {
                let first = tile * TILE;
                let count = out.len() / width;
                let blocks = 0..(self.base + first + count).div_ceil(BLOCK);
                let partial = self.attend(kv_head, first, count, blocks);
                self.finish(&partial, out);
            });
        });
    }

    /// A single token: the cache is split among tasks, and what they found is put together in order.
    fn run_one(&self, out: &mut [f32], width: usize) {
        let blocks = (self.base + 1).div_ceil(BLOCK);
        let splits = blocks.div_ceil(SPLIT);
        let partials: Vec<Partial> = (0..self.config.num_key_value_heads * splits)
            .into_par_iter()
            .map(|task| {
                let (kv_head, split) = (task / splits, task % splits);
                self.attend(kv_head, 0, 1, split * SPLIT..blocks.min((split + 1) * SPLIT))
            })
            .collect();
        for (parts, out) in partials.chunks(splits).zip(out.chunks_exact_mut(width)) {
            let merged = parts.iter().skip(1).fold(None, |merged: Option<Partial>, part| {
                Some(merged.as_ref().unwrap_or(&parts[0]).merge(part))
            });
            self.finish(merged.as_ref().unwrap_or(&parts[0]), out);
        }
    }

    fn finish(&self, partial: &Partial, out: &mut [f32]) {
        let (dim, padded) = (self.config.head_dim, self.cache.padded_dim());
        let rows = out.chunks_exact_mut(dim).zip(partial.out.chunks_exact(padded));
        for ((out, row), sum) in rows.zip(&partial.sum) {
            out.iter_mut().zip(row).for_each(|(out, x)| *out = x / sum);
        }
    }

    /// Rows are (token, query head of the group), heads innermost.
    fn attend(
        &self,
        kv_head: usize,
        first: usize,
        count: usize,
        blocks: std::ops::Range<usize>,
    ) -> Partial {
        let (dim, padded) = (self.config.head_dim, self.cache.padded_dim());
        let group = self.config.group_size();
        let rows = count * group;
        let queries = self.gather_queries(kv_head, first, count);
        let mut partial = Partial {
            max: vec![f32::NEG_INFINITY; rows],
            sum: vec![0.0; rows],
            out: vec![0.0; rows * padded],
        };
        let mut scores = vec![0.0; rows * BLOCK];
        for block in blocks {
            let (keys, values) = self.cache.block(self.layer, kv_head, block);
            let shape = (rows, dim, BLOCK);
            self.kernels.product((&queries, dim), keys, shape, &mut scores, false);
            for row in 0..rows {
                let position = self.base + first + row / group;
                let visible = (position + 1).saturating_sub(block * BLOCK).min(BLOCK);
                let scores = &mut scores[row * BLOCK..(row + 1) * BLOCK];
                partial.weigh(self.kernels, row, scores, visible, padded);
            }
            let last = self.base + first + count - 1;
            let visible = (last + 1 - block * BLOCK).min(BLOCK);
            let shape = (rows, visible, padded);
            self.kernels.product((&scores, BLOCK), values, shape, &mut partial.out, true);
        }
        partial
    }

    /// Queries of the group's heads, `[rows][head_dim]`.
    fn gather_queries(&self, kv_head: usize, first: usize, count: usize) -> Vec<f32> {
        let (dim, group) = (self.config.head_dim, self.config.group_size());
        let mut queries = vec![0.0; count * group * dim];
        for (feature, row) in self
            .queries
            .chunks_exact(self.stride)
            .skip(kv_head * group * dim)
            .take(group * dim)
            .enumerate()
        {
            for token in 0..count {
                queries[token * group * dim + feature] = row[first + token];
            }
        }
        queries
    }
}

impl Partial {
    /// Turns a row's scores of one block into weights, and scales down what came before where the maximum grew.
    fn weigh(
        &mut self,
        kernels: &Kernels,
        row: usize,
        scores: &mut [f32],
        visible: usize,
        padded: usize,
    ) {
        if visible == 0 {
            scores.fill(0.0);
            return;
        }
        scores[visible..].fill(f32::NEG_INFINITY);
        let before = self.max[row];
        let (max, sum) = kernels.softmax(scores, before);
        scores[visible..].fill(0.0);
        if max > before {
            let scale = (before - max).exp();
            self.sum[row] *= scale;
            self.out[row * padded..(row + 1) * padded].iter_mut().for_each(|x| *x *= scale);
        }
        self.max[row] = max;
        self.sum[row] += sum;
    }

    fn merge(&self, other: &Self) -> Self {
        let rows = self.max.len();
        let width = self.out.len() / rows;
        let max: Vec<f32> = self.max.iter().zip(&other.max).map(|(a, b)| a.max(*b)).collect();
        let scale = |part: &Self, row: usize| (part.max[row] - max[row]).exp();
        let mix = |a: &[f32], b: &[f32], width: usize| -> Vec<f32> {
            (0..rows * width)
                .map(|i| a[i] * scale(self, i / width) + b[i] * scale(other, i / width))
                .collect()
        };
        let (sum, out) = (mix(&self.sum, &other.sum, 1), mix(&self.out, &other.out, width));
        Self { max, sum, out }
    }
}
