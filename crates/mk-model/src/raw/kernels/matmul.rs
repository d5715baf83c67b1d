//! Weights `[rows][k]` times activations, the weights read in place.

use super::panel::{Panel, PanelFormat, TILE_VECTORS};
use super::{Kernels, Simd};

/// Rows of a weight matrix, as stored.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Weights<'a> {
    /// bf16, as bits.
    Bf16(&'a [u16]),
    /// f32.
    F32(&'a [f32]),
}

impl Weights<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Bf16(w) => w.len(),
            Self::F32(w) => w.len(),
        }
    }
}

/// A product of weight rows with activations.
pub(super) struct Args<W, X, S> {
    /// `[rows][k]`.
    pub(super) w: *const W,
    /// One token: `split` of the panel for bf16 weights and f32 activations, else the features in their order. Several:
    /// one tile of the panel.
    pub(super) x: *const X,
    pub(super) shape: S,
}

/// The rest of a product with one token.
#[derive(Clone, Copy)]
pub(super) struct DotShape {
    pub(super) rows: usize,
    pub(super) k: usize,
    /// `[rows]`.
    pub(super) out: *mut f32,
    /// Add to `out` rather than overwrite it.
    pub(super) accumulate: bool,
}

/// The rest of a product with a tile of tokens.
#[derive(Clone, Copy)]
pub(super) struct TileShape {
    pub(super) rows: usize,
    pub(super) k: usize,
    /// Vectors of tokens in the tile: 1 to `TILE_VECTORS`.
    pub(super) vectors: usize,
    /// Row 0, first token of the tile; rows are `stride` apart.
    pub(super) out: *mut f32,
    pub(super) stride: usize,
    /// Add to `out` rather than overwrite it.
    pub(super) accumulate: bool,
}

pub(super) type DotArgs<W, X> = Args<W, X, DotShape>;
pub(super) type TileArgs<W, X> = Args<W, X, TileShape>;
pub(super) type DotFn<W, X> = unsafe fn(&DotArgs<W, X>);
pub(super) type TileFn<W, X> = unsafe fn(&TileArgs<W, X>);

impl Kernels {
    /// `out[row][token] (+)= sum over k of w[row][k] * x[k][token]`.
    ///
    /// `out` is `[rows][Kernels::stride(tokens)]`; columns past the last token receive zeros (or keep what they had,
    /// when accumulating).
    ///
    /// # Panics
    /// If the sizes of `w`, `x` and `out` do not agree, or f32 weights meet activations in bf16.
    pub(crate) fn matmul(&self, w: Weights<'_>, x: &Panel, out: &mut [f32], accumulate: bool) {
        let k = x.features;
        let stride = Self::stride(x.tokens);
        let rows = out.len() / stride;
        assert_eq!(rows * stride, out.len(), "output is not whole rows");
        assert_eq!(rows * k, w.len(), "weights are not rows x features");
        assert_eq!(self.lanes, x.lanes, "panel was packed for other kernels");
        let takes_bf16 = matches!(w, Weights::Bf16(_)) && self.bf16_dot.is_some();
        assert!(takes_bf16 || x.format != PanelFormat::Bf16, "these kernels need f32 activations");
        if x.tokens == 1 {
            let shape = DotShape { rows, k, out: out.as_mut_ptr(), accumulate };
            // SAFETY: `w` is rows x k and `out` is rows, as asserted.
            unsafe { self.dot(w, x, shape) };
            return;
        }
        let mut first = 0;
        while first < x.tokens {
            let width = x.tile_width(first);
            let vectors = width / self.lanes;
            let out = out[first..].as_mut_ptr();
            let shape = TileShape { rows, k, vectors, out, stride, accumulate };
            // SAFETY: `w` is rows x k, as asserted; `first + width <= stride`, since the stride is whole vectors of any
            // kernel and tiles begin at whole vectors, so every row that is written lies in `out`.
            unsafe { self.tile(w, x, first, shape) };
            first += width;
        }
    }

    /// # Safety
    /// `w` and `shape.out` are as long as `shape` says, and `x` is one token of `shape.k` features.
    unsafe fn dot(&self, w: Weights<'_>, x: &Panel, shape: DotShape) {
        // SAFETY: the panel holds k features, and the split form the pairs of k twice; the rest is this function's
        // contract. The instruction set is there, as for every `Kernels`.
        unsafe {
            match (w, x.format, self.bf16_dot) {
                (Weights::Bf16(w), PanelFormat::Bf16, Some((dot, _))) => {
                    dot(&Args { w: w.as_ptr(), x: x.bf16s.as_ptr(), shape })
                }
                (Weights::Bf16(w), _, _) => {
                    (self.dot_bf16)(&Args { w: w.as_ptr(), x: x.split.as_ptr(), shape })
                }
                (Weights::F32(w), _, _) => {
                    (self.dot_f32)(&Args { w: w.as_ptr(), x: x.f32s.as_ptr(), shape })
                }
            }
        }
    }

    /// # Safety
    /// `w` and `shape.out` are as long as `shape` says, and a tile of `x` begins at token `first`.
    unsafe fn tile(&self, w: Weights<'_>, x: &Panel, first: usize, shape: TileShape) {
        let k = shape.k;
        // SAFETY: a tile begins at `first * k` (pairs count twice) and holds `k` times its width; the rest is this
        // function's contract. The instruction set is there, as for every `Kernels`.
        unsafe {
            match (w, x.format, self.bf16_dot) {
                (Weights::Bf16(w), PanelFormat::Bf16, Some((_, tile))) => {
                    let x = &x.bf16s[2 * k.div_ceil(2) * first..];
                    tile(&Args { w: w.as_ptr(), x: x.as_ptr(), shape })
                }
                (Weights::Bf16(w), _, _) => {
                    let x = &x.f32s[k * first..];
                    (self.tile_bf16)(&Args { w: w.as_ptr(), x: x.as_ptr(), shape })
                }
                (Weights::F32(w), _, _) => {
                    let x = &x.f32s[k * first..];
                    (self.tile_f32)(&Args { w: w.as_ptr(), x: x.as_ptr(), shape })
                }
            }
        }
    }
}

/// What differs between the types weights are stored in.
#[allow(clippy::missing_safety_doc, reason = "as for `Simd`")]
pub(super) trait Weight: Copy {
    fn widen(self) -> f32;
    /// Two neighbouring weights, each in every lane of a vector.
    unsafe fn splat_pair<S: Simd>(from: *const Self) -> (S::V, S::V);
    /// Dot products of `R` rows with one token. Asks for the rows that come next as it goes: the hardware's own
    /// prefetching stops at every page, and on its own left a fifth of a core's bandwidth unused.
    unsafe fn dot_rows<S: Simd, const R: usize>(
        w: *const Self,
        k: usize,
        x: *const f32,
    ) -> [f32; R];
}

impl Weight for u16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self) << 16)
    }
    #[inline(always)]
    unsafe fn splat_pair<S: Simd>(from: *const u16) -> (S::V, S::V) {
        // SAFETY: the caller's contract is the same.
        unsafe { S::splat_pair(from) }
    }
    /// Weights come in pairs (one at an even, one at an odd place), and so does `x`: no shuffles are needed.
    #[inline(always)]
    unsafe fn dot_rows<S: Simd, const R: usize>(
        w: *const u16,
        k: usize,
        x: *const f32,
    ) -> [f32; R] {
        // SAFETY: reads of w stay below R * k, reads of x below its 2 * ceil(k / 2).
        unsafe {
            let half = k.div_ceil(2);
            let mut acc = [[S::splat(0.0); 2]; R];
            let mut i = 0;
            while i + 2 * S::LANES <= k {
                let (even, odd) = (S::load(x.add(i / 2)), S::load(x.add(half + i / 2)));
                for r in 0..R {
                    let w = w.add(r * k + i);
                    S::prefetch(w.wrapping_add(R * k));
                    let (a, b) = S::load_pairs(w);
                    acc[r][0] = S::fma(a, even, acc[r][0]);
                    acc[r][1] = S::fma(b, odd, acc[r][1]);
                }
                i += 2 * S::LANES;
            }
            std::array::from_fn(|r| {
                let mut sum = S::sum(S::add(acc[r][0], acc[r][1]));
                for j in i..k {
                    sum += (*w.add(r * k + j)).widen() * *x.add(j / 2 + (j % 2) * half);
                }
                sum
            })
        }
    }
}

impl Weight for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    #[inline(always)]
    unsafe fn splat_pair<S: Simd>(from: *const f32) -> (S::V, S::V) {
        // SAFETY: the caller's contract: two numbers to read.
        unsafe { (S::splat(*from), S::splat(*from.add(1))) }
    }
    #[inline(always)]
    unsafe fn dot_rows<S: Simd, const R: usize>(
        w: *const f32,
        k: usize,
        x: *const f32,
    ) -> [f32; R] {
        // SAFETY: reads of w stay below R * k, reads of x below k.
        unsafe {
            let mut acc = [S::splat(0.0); R];
            let mut i = 0;
            while i + S::LANES <= k {
                let x = S::load(x.add(i));
                for r in 0..R {
                    let w = w.add(r * k + i);
                    S::prefetch(w.wrapping_add(R * k));
                    acc[r] = S::fma(S::load(w), x, acc[r]);
                }
                i += S::LANES;
            }
            std::array::from_fn(|r| {
                let mut sum = S::sum(acc[r]);
                for j in i..k {
                    sum += *w.add(r * k + j) * *x.add(j);
                }
                sum
            })
        }
    }
}

/// All rows of `args` with one token, four at a time.
///
/// # Safety
/// The machine has the instruction set of `S`; the pointers of `args` are valid for the sizes it names.
#[inline(always)]
pub(super) unsafe fn dots<S: Simd, W: Weight>(args: &DotArgs<W, f32>) {
    // SAFETY: `row + R <= rows` in every call.
    unsafe {
        let mut row = 0;
        while row + 4 <= args.shape.rows {
            let sums = W::dot_rows::<S, 4>(args.w.add(row * args.shape.k), args.shape.k, args.x);
            write_sums(args, row, &sums);
            row += 4;
        }
        while row < args.shape.rows {
            let sums = W::dot_rows::<S, 1>(args.w.add(row * args.shape.k), args.shape.k, args.x);
            write_sums(args, row, &sums);
            row += 1;
        }
    }
}

/// # Safety
/// `args.shape.out` is valid for `row + sums.len()` numbers.
#[inline(always)]
pub(super) unsafe fn write_sums<W, X>(args: &DotArgs<W, X>, row: usize, sums: &[f32]) {
    for (i, sum) in sums.iter().enumerate() {
        // SAFETY: by this function's contract.
        let out = unsafe { &mut *args.shape.out.add(row + i) };
        *out = if args.shape.accumulate { *out + sum } else { *sum };
    }
}

/// All rows of `args` with one tile of tokens, `R` at a time.
///
/// # Safety
/// The machine has the instruction set of `S`; the pointers of `args` are valid for the sizes it names.
#[inline(always)]
pub(super) unsafe fn tile<S: Simd, W: Weight, const R: usize>(args: &TileArgs<W, f32>) {
    // SAFETY: `row + R <= rows` in every call, and T is the number of vectors.
    unsafe {
        let mut row = 0;
        while row + R <= args.shape.rows {
            match args.shape.vectors {
                1 => register_tile::<S, W, R, 1>(args, row),
                2 => register_tile::<S, W, R, 2>(args, row),
                _ => register_tile::<S, W, R, TILE_VECTORS>(args, row),
            }
            row += R;
        }
        while row < args.shape.rows {
            match args.shape.vectors {
                1 => register_tile::<S, W, 1, 1>(args, row),
                2 => register_tile::<S, W, 1, 2>(args, row),
                _ => register_tile::<S, W, 1, TILE_VECTORS>(args, row),
            }
            row += 1;
        }
    }
}

#[inline(always)]
unsafe fn register_tile<S: Simd, W: Weight, const R: usize, const T: usize>(
    args: &TileArgs<W, f32>,
    row: usize,
) {
    // SAFETY: w is read below (row + R) * k, x below k * T * LANES, out at R rows of T vectors.
    unsafe {
        let k = args.shape.k;
        let w = args.w.add(row * k);
        let x = |feature: usize, t: usize| S::load(args.x.add((feature * T + t) * S::LANES));
        let mut acc = [[S::splat(0.0); T]; R];
        let mut i = 0;
        while i + 2 <= k {
            let even: [S::V; T] = std::array::from_fn(|t| x(i, t));
            let odd: [S::V; T] = std::array::from_fn(|t| x(i + 1, t));
            for r in 0..R {
                let (a, b) = W::splat_pair::<S>(w.add(r * k + i));
                for t in 0..T {
                    acc[r][t] = S::fma(b, odd[t], S::fma(a, even[t], acc[r][t]));
                }
            }
            i += 2;
        }
        if i < k {
            for r in 0..R {
                let a = S::splat((*w.add(r * k + i)).widen());
                for t in 0..T {
                    acc[r][t] = S::fma(a, x(i, t), acc[r][t]);
                }
            }
        }
        for r in 0..R {
            for t in 0..T {
                let out = args.shape.out.add((row + r) * args.shape.stride + t * S::LANES);
                let sum =
                    if args.shape.accumulate { S::add(S::load(out), acc[r][t]) } else { acc[r][t] };
                S::store(out, sum);
            }
        }
    }
}
