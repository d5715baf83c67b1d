//! Keys and values of a sequence, in blocks of 64 positions that are added as it grows.
//!
//! A block of one head is `[head_dim][64]` for keys and `[64][padded head_dim]` for values: what [`Kernels::product`]
//! reads. Growing moves nothing, and a sequence takes memory for what it holds, not for what it may hold.
//!
//! [`Kernels::product`]: crate::raw::kernels::Kernels::product

use rayon::prelude::*;

use crate::backend::Precision;
use crate::config::Config;
use crate::raw::kernels::{Block, to_bf16};

/// Positions in a block.
pub(super) const BLOCK: usize = 64;

#[derive(Clone)]
pub(super) struct KvCache {
    shape: Shape,
    layers: Vec<Blocks>,
    len: usize,
}

#[derive(Clone, Copy)]
struct Shape {
    heads: usize,
    head_dim: usize,
    /// `head_dim` rounded up to whole vectors of any kernel.
    padded_dim: usize,
}

impl Shape {
    fn keys(&self) -> usize {
        self.head_dim * BLOCK
    }

    /// Keys and values of one head.
    fn head(&self) -> usize {
        self.keys() + BLOCK * self.padded_dim
    }
}

/// The blocks of one layer.
#[derive(Clone)]
enum Blocks {
    Bf16(Vec<Vec<u16>>),
    F32(Vec<Vec<f32>>),
}

/// New keys or values, feature-major `[kv_size][stride]`.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) keys: &'a [f32],
    pub(super) values: &'a [f32],
    pub(super) tokens: usize,
    pub(super) stride: usize,
}

impl KvCache {
    pub(super) fn new(config: &Config, precision: Precision) -> Self {
        let blocks = || match precision {
            Precision::Bf16 => Blocks::Bf16(Vec::new()),
            Precision::F32 => Blocks::F32(Vec::new()),
        };
        Self {
            shape: Shape {
                heads: config.num_key_value_heads,
                head_dim: config.head_dim,
                padded_dim: config.head_dim.next_multiple_of(16),
            },
            layers: (0..config.num_hidden_layers).map(|_| blocks()).collect(),
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Width of a row of values.
    pub(super) fn padded_dim(&self) -> usize {
        self.shape.padded_dim
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        let blocks = self.len.div_ceil(BLOCK);
        for layer in &mut self.layers {
            match layer {
                Blocks::Bf16(all) => all.truncate(blocks),
                Blocks::F32(all) => all.truncate(blocks),
            }
        }
    }

    /// Counts `tokens` positions, whose rows every layer has written, as part of the sequence.
    pub(super) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }

    /// Writes the rows of the next positions into one layer.
    pub(super) fn write(&mut self, layer: usize, rows: Rows<'_>) {
        match &mut self.layers[layer] {
            Blocks::Bf16(blocks) => write(blocks, self.shape, self.len, rows, to_bf16),
            Blocks::F32(blocks) => write(blocks, self.shape, self.len, rows, |x| x),
        }
    }

    /// Keys `[head_dim][64]` and values `[64][padded_dim]` of one head in block `block`.
    pub(super) fn block(&self, layer: usize, head: usize, block: usize) -> (Block<'_>, Block<'_>) {
        let start = head * self.shape.head();
        let (keys, end) = (start + self.shape.keys(), start + self.shape.head());
        match &self.layers[layer] {
            Blocks::Bf16(all) => {
                (Block::Bf16(&all[block][start..keys]), Block::Bf16(&all[block][keys..end]))
            }
            Blocks::F32(all) => {
                (Block::F32(&all[block][start..keys]), Block::F32(&all[block][keys..end]))
            }
        }
    }
}

fn write<T: Copy + Default + Send + Sync>(
    blocks: &mut Vec<Vec<T>>,
    shape: Shape,
    base: usize,
    rows: Rows<'_>,
    convert: impl Fn(f32) -> T + Sync,
) {
    let end = base + rows.tokens;
    blocks.resize_with(end.div_ceil(BLOCK), || vec![T::default(); shape.heads * shape.head()]);
    let first_block = base / BLOCK;
    let write_block = |(i, block): (usize, &mut Vec<T>)| {
        let block_start = (first_block + i) * BLOCK;
        let positions = base.max(block_start)..end.min(block_start + BLOCK);
        for (head, block) in block.chunks_exact_mut(shape.head()).enumerate() {
            let (keys, values) = block.split_at_mut(shape.keys());
            for d in 0..shape.head_dim {
                let feature = (head * shape.head_dim + d) * rows.stride;
                for position in positions.clone() {
                    let from = feature + position - base;
                    keys[d * BLOCK + position - block_start] = convert(rows.keys[from]);
                    values[(position - block_start) * shape.padded_dim + d] =
                        convert(rows.values[from]);
                }
            }
        }
    };
    let touched = &mut blocks[first_block..];
    match touched {
        [one] => write_block((0, one)),
        many => many.par_iter_mut().enumerate().for_each(write_block),
    }
}
