//! The activations of a matrix product, laid out for the kernels.

use rayon::prelude::*;

use super::Kernels;

/// How a panel holds its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PanelFormat {
    /// f32 as computed.
    F32,
    /// f32, rounded to bf16 first: what a bf16 model multiplies.
    Rounded,
    /// bf16, for machines that multiply them directly.
    Bf16,
}

/// Activations `[features][tokens]`, packed.
///
/// Several tokens are cut into tiles of up to three vectors of tokens; within a tile, all tokens of a feature lie side
/// by side (as f32), or those of two features interleaved (as bf16). A single token is kept as three arrays, each as
/// one kernel wants it.
pub(crate) struct Panel {
    pub(super) features: usize,
    pub(super) tokens: usize,
    pub(super) format: PanelFormat,
    pub(super) lanes: usize,
    /// Several tokens: tiles. One token: the features in their order.
    pub(super) f32s: Vec<f32>,
    /// One token: features at even places, then those at odd places; each half padded to whole pairs.
    pub(super) split: Vec<f32>,
    /// Several tokens: tiles of pairs. One token: the features in their order.
    pub(super) bf16s: Vec<u16>,
}

/// Vectors of tokens in a tile.
pub(super) const TILE_VECTORS: usize = 3;

impl Kernels {
    /// The best format for activations that are rounded to bf16 (`true`), or kept as f32.
    pub(crate) fn panel_format(&self, rounded: bool) -> PanelFormat {
        match (rounded, self.bf16_dot.is_some()) {
            (false, _) => PanelFormat::F32,
            (true, false) => PanelFormat::Rounded,
            (true, true) => PanelFormat::Bf16,
        }
    }

    /// Distance between the features of `tokens` tokens in feature-major buffers: whole vectors of every kernel, but
    /// for a single token.
    pub(crate) fn stride(tokens: usize) -> usize {
        if tokens == 1 { 1 } else { tokens.next_multiple_of(16) }
    }

    /// Packs `features` x `tokens` numbers that `value(feature, token)` gives, in parallel over tiles.
    pub(crate) fn pack(
        &self,
        format: PanelFormat,
        features: usize,
        tokens: usize,
        value: impl Fn(usize, usize) -> f32 + Sync,
    ) -> Panel {
        let mut panel = Panel {
            features,
            tokens,
            format,
            lanes: self.lanes,
            f32s: Vec::new(),
            split: Vec::new(),
            bf16s: Vec::new(),
        };
        match (tokens, format) {
            (1, _) => panel.pack_one(value),
            (_, PanelFormat::Bf16) => panel.pack_pairs(value),
            _ => panel.pack_tiles(value),
        }
        panel
    }
}

impl Panel {
    fn pack_one(&mut self, value: impl Fn(usize, usize) -> f32) {
        let column = (0..self.features).map(|f| value(f, 0));
        if self.format == PanelFormat::Bf16 {
            self.bf16s = column.map(to_bf16).collect();
            return;
        }
        self.f32s = match self.format {
            PanelFormat::Rounded => column.map(round_to_bf16).collect(),
            _ => column.collect(),
        };
        let half = self.features.div_ceil(2);
        self.split = vec![0.0; 2 * half];
        for (i, pair) in self.f32s.chunks(2).enumerate() {
            self.split[i] = pair[0];
            self.split[half + i] = pair.get(1).copied().unwrap_or(0.0);
        }
    }

    /// Tokens that a full tile covers.
    fn tile_tokens(&self) -> usize {
        TILE_VECTORS * self.lanes
    }

    /// Tokens of the tile that begins at token `first`, rounded up to whole vectors.
    pub(super) fn tile_width(&self, first: usize) -> usize {
        (self.tokens - first).min(self.tile_tokens()).next_multiple_of(self.lanes)
    }

    fn pack_tiles(&mut self, value: impl Fn(usize, usize) -> f32 + Sync) {
        let padded = self.tokens.next_multiple_of(self.lanes);
        let (features, tokens, format) = (self.features, self.tokens, self.format);
        let tile_tokens = self.tile_tokens();
        self.f32s = vec![0.0; features * padded];
        self.f32s.par_chunks_mut(features * tile_tokens).enumerate().for_each(|(tile, out)| {
            let first = tile * tile_tokens;
            let width = out.len() / features;
            let used = width.min(tokens - first);
            for (feature, row) in out.chunks_exact_mut(width).enumerate() {
                for (i, x) in row[..used].iter_mut().enumerate() {
                    *x = value(feature, first + i);
                }
                if format == PanelFormat::Rounded {
                    row.iter_mut().for_each(|x| *x = round_to_bf16(*x));
                }
            }
        });
    }

    fn pack_pairs(&mut self, value: impl Fn(usize, usize) -> f32 + Sync) {
        let padded = self.tokens.next_multiple_of(self.lanes);
        let (features, tokens) = (self.features, self.tokens);
        let tile_tokens = self.tile_tokens();
        let pairs = features.div_ceil(2);
        self.bf16s = vec![0; 2 * pairs * padded];
        self.bf16s.par_chunks_mut(2 * pairs * tile_tokens).enumerate().for_each(|(tile, out)| {
            let first = tile * tile_tokens;
            let width = out.len() / (2 * pairs);
            let used = width.min(tokens - first);
            for (pair, row) in out.chunks_exact_mut(2 * width).enumerate() {
                let (even, odd) = (2 * pair, 2 * pair + 1);
                for (i, xs) in row.as_chunks_mut::<2>().0[..used].iter_mut().enumerate() {
                    xs[0] = to_bf16(value(even, first + i));
                    xs[1] = if odd < features { to_bf16(value(odd, first + i)) } else { 0 };
                }
            }
        });
    }
}

/// The nearest bf16, ties to even, as its bits; NaN stays NaN. Without a branch, so that loops over it vectorise.
#[inline(always)]
pub(crate) fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16;
    if x.is_nan() { 0x7fc0 } else { rounded }
}

#[inline(always)]
fn round_to_bf16(x: f32) -> f32 {
    f32::from_bits(u32::from(to_bf16(x)) << 16)
}
