//! The products inside attention: scores `Q·Kᵀ` and outputs `P·V`, and the softmax between them.
//!
//! Both products are `C[rows][n] (+)= A[rows][k] · B[k][n]` with B a block of the cache: keys are kept transposed, so
//! that positions (for scores) and features (for outputs) fill the lanes.

use super::matmul::Weight;
use super::{Kernels, Simd};

/// A block of the cache, `[k][n]`, as stored.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Block<'a> {
    /// bf16, as bits.
    Bf16(&'a [u16]),
    /// f32.
    F32(&'a [f32]),
}

pub(super) struct ProductArgs<B> {
    pub(super) rows: usize,
    pub(super) k: usize,
    /// A multiple of 16.
    pub(super) n: usize,
    /// `[rows]`, `lda` apart.
    pub(super) a: *const f32,
    pub(super) lda: usize,
    /// `[k][n]`.
    pub(super) b: *const B,
    /// `[rows][n]`.
    pub(super) c: *mut f32,
    pub(super) accumulate: bool,
}

/// Rows of B asked for before they are read: a long cache is read once a token, from memory.
const ROWS_AHEAD: usize = 16;
/// Bytes of a cache line.
const LINE: usize = 64;

pub(super) type ProductFn<B> = unsafe fn(&ProductArgs<B>);
pub(super) type SoftmaxFn = unsafe fn(*mut f32, usize, f32) -> (f32, f32);

impl Kernels {
    /// `c[rows][n] (+)= a[rows][k] · b[k][n]`, where row `i` of `a` begins at `i * lda`.
    ///
    /// # Panics
    /// If the sizes do not agree, or `n` is not a multiple of 16.
    pub(crate) fn product(
        &self,
        (a, lda): (&[f32], usize),
        b: Block<'_>,
        (rows, k, n): (usize, usize, usize),
        c: &mut [f32],
        accumulate: bool,
    ) {
        assert!(rows > 0 && lda >= k && a.len() >= (rows - 1) * lda + k, "a is too short");
        assert!(n.is_multiple_of(16) && c.len() >= rows * n, "c is too short");
        let (a, c) = (a.as_ptr(), c.as_mut_ptr());
        // SAFETY: the asserts bound every access; the instruction set is there, as for every `Kernels`.
        unsafe {
            match b {
                Block::Bf16(b) => {
                    assert!(b.len() >= k * n, "b is too short");
                    let b = b.as_ptr();
                    (self.product_bf16)(&ProductArgs { rows, k, n, a, lda, b, c, accumulate });
                }
                Block::F32(b) => {
                    assert!(b.len() >= k * n, "b is too short");
                    let b = b.as_ptr();
                    (self.product_f32)(&ProductArgs { rows, k, n, a, lda, b, c, accumulate });
                }
            }
        }
    }

    /// One step of an online softmax: with m the larger of `max` and the largest score, turns each score into
    /// exp(score - m) and returns m and the sum of the results.
    ///
    /// # Panics
    /// If the number of scores is not a multiple of 16.
    pub(crate) fn softmax(&self, scores: &mut [f32], max: f32) -> (f32, f32) {
        assert!(scores.len().is_multiple_of(16));
        // SAFETY: valid for its length; the instruction set is there, as for every `Kernels`.
        unsafe { (self.softmax)(scores.as_mut_ptr(), scores.len(), max) }
    }
}

/// # Safety
/// The machine has the instruction set of `S`; `scores` is valid for `n` numbers, a multiple of 16.
#[inline(always)]
pub(super) unsafe fn softmax<S: Simd>(scores: *mut f32, n: usize, max: f32) -> (f32, f32) {
    // SAFETY: every access is below `n`.
    unsafe {
        let mut largest = max;
        for i in 0..n {
            largest = largest.max(*scores.add(i));
        }
        let mut sum = S::splat(0.0);
        let mut i = 0;
        while i < n {
            let e = crate::raw::simd::exp::<S>(S::sub(S::load(scores.add(i)), S::splat(largest)));
            S::store(scores.add(i), e);
            sum = S::add(sum, e);
            i += S::LANES;
        }
        (largest, S::sum(sum))
    }
}

/// # Safety
/// The machine has the instruction set of `S`; the pointers of `args` are valid for the sizes it names.
#[inline(always)]
pub(super) unsafe fn product<S: Simd, B: CacheNumber, const R: usize, const T: usize>(
    args: &ProductArgs<B>,
) {
    // SAFETY: `row + R <= rows` and `column + T vectors <= n` in every call.
    unsafe {
        let mut row = 0;
        while row < args.rows {
            row += match args.rows - row {
                1 => register_rows::<S, B, 1, T>(args, row),
                left if left < R => register_rows::<S, B, 2, T>(args, row),
                _ => register_rows::<S, B, R, T>(args, row),
            };
        }
    }
}

/// `R` rows, all columns; returns `R`.
#[inline(always)]
unsafe fn register_rows<S: Simd, B: CacheNumber, const R: usize, const T: usize>(
    args: &ProductArgs<B>,
    row: usize,
) -> usize {
    // SAFETY: the caller keeps the rows inside; `column + T vectors <= n` in every call.
    unsafe {
        let mut column = 0;
        while column + T * S::LANES <= args.n {
            register_tile::<S, B, R, T>(args, row, column);
            column += T * S::LANES;
        }
        while column < args.n {
            register_tile::<S, B, R, 1>(args, row, column);
            column += S::LANES;
        }
    }
    R
}

#[inline(always)]
unsafe fn register_tile<S: Simd, B: CacheNumber, const R: usize, const T: usize>(
    args: &ProductArgs<B>,
    row: usize,
    column: usize,
) {
    // SAFETY: the caller keeps R rows and T vectors inside a, b and c.
    unsafe {
        let c = |r: usize, t: usize| args.c.add((row + r) * args.n + column + t * S::LANES);
        let mut acc: [[S::V; T]; R] = std::array::from_fn(|r| {
            std::array::from_fn(|t| if args.accumulate { S::load(c(r, t)) } else { S::splat(0.0) })
        });
        for i in 0..args.k {
            let b = args.b.add(i * args.n + column);
            let ahead = b.wrapping_add(ROWS_AHEAD * args.n);
            for line in (0..T * S::LANES).step_by(LINE / size_of::<B>()) {
                S::prefetch(ahead.wrapping_add(line));
            }
            let b: [S::V; T] = std::array::from_fn(|t| B::load::<S>(b.add(t * S::LANES)));
            for (r, acc) in acc.iter_mut().enumerate() {
                let a = S::splat(*args.a.add((row + r) * args.lda + i));
                for t in 0..T {
                    acc[t] = S::fma(a, b[t], acc[t]);
                }
            }
        }
        for (r, acc) in acc.iter().enumerate() {
            for (t, acc) in acc.iter().enumerate() {
                S::store(c(r, t), *acc);
            }
        }
    }
}

/// What differs between the types the cache is kept in.
#[allow(clippy::missing_safety_doc, reason = "as for `Simd`")]
pub(super) trait CacheNumber: Weight {
    unsafe fn load<S: Simd>(from: *const Self) -> S::V;
}

impl CacheNumber for u16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const u16) -> S::V {
        // SAFETY: the caller's contract is the same.
        unsafe { S::load_bf16(from) }
    }
}

impl CacheNumber for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const f32) -> S::V {
        // SAFETY: the caller's contract is the same.
        unsafe { S::load(from) }
    }
}
