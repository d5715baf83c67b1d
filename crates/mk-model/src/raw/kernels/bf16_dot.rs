//! The matrix kernels of machines with AVX-512 BF16, which multiply pairs of bf16 and add in f32.

use std::arch::x86_64::*;

use super::matmul::{DotArgs, TileArgs, write_sums};
use super::panel::TILE_VECTORS;

/// Weight rows in a register tile: 8 x 3 sums, 3 vectors of tokens and a weight fill 28 of the 32 registers.
const ROWS: usize = 8;
const LANES: usize = 16;

/// All rows of `args` with one token, four at a time.
///
/// # Safety
/// The machine has AVX-512 F, BW and BF16; the pointers of `args` are valid for the sizes it names.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn dots(args: &DotArgs<u16, u16>) {
    // SAFETY: `row + R <= rows` in every call.
    unsafe {
        let mut row = 0;
        while row + 4 <= args.shape.rows {
            write_sums(args, row, &dot_rows::<4>(args, row));
            row += 4;
        }
        while row < args.shape.rows {
            write_sums(args, row, &dot_rows::<1>(args, row));
            row += 1;
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn dot_rows<const R: usize>(args: &DotArgs<u16, u16>, row: usize) -> [f32; R] {
    // SAFETY: w is read below (row + R) * k and x below k; the last, partial vectors are masked.
    unsafe {
        let k = args.shape.k;
        let w = args.w.add(row * k);
        let mut acc = [_mm512_setzero_ps(); R];
        let mut i = 0;
        while i + 32 <= k {
            let x = _mm512_loadu_si512(args.x.add(i).cast());
            for r in 0..R {
                let w = w.add(r * k + i);
                // The rows that come next, as in `Weight::dot_rows`.
                _mm_prefetch::<_MM_HINT_T0>(w.wrapping_add(R * k).cast());
                acc[r] = dot_pairs(acc[r], _mm512_loadu_si512(w.cast()), x);
            }
            i += 32;
        }
        if i < k {
            let mask = u32::MAX >> (32 - (k - i));
            let x = _mm512_maskz_loadu_epi16(mask, args.x.add(i).cast());
            for r in 0..R {
                let w = _mm512_maskz_loadu_epi16(mask, w.add(r * k + i).cast());
                acc[r] = dot_pairs(acc[r], w, x);
            }
        }
        std::array::from_fn(|r| _mm512_reduce_add_ps(acc[r]))
    }
}

/// All rows of `args` with one tile of tokens.
///
/// # Safety
/// The machine has AVX-512 F, BW and BF16; the pointers of `args` are valid for the sizes it names.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn tile(args: &TileArgs<u16, u16>) {
    // SAFETY: `row + R <= rows` in every call, and T is the number of vectors.
    unsafe {
        let mut row = 0;
        while row + ROWS <= args.shape.rows {
            match args.shape.vectors {
                1 => register_tile::<ROWS, 1>(args, row),
                2 => register_tile::<ROWS, 2>(args, row),
                _ => register_tile::<ROWS, TILE_VECTORS>(args, row),
            }
            row += ROWS;
        }
        while row < args.shape.rows {
            match args.shape.vectors {
                1 => register_tile::<1, 1>(args, row),
                2 => register_tile::<1, 2>(args, row),
                _ => register_tile::<1, TILE_VECTORS>(args, row),
            }
            row += 1;
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn register_tile<const R: usize, const T: usize>(args: &TileArgs<u16, u16>, row: usize) {
    // SAFETY: w is read below (row + R) * k, x below ceil(k / 2) * T * 32, out at R rows of T vectors.
    unsafe {
        let k = args.shape.k;
        let w = args.w.add(row * k);
        let mut acc = [[_mm512_setzero_ps(); T]; R];
        let x = |pair: usize| -> [__m512i; T] {
            std::array::from_fn(|t| {
                _mm512_loadu_si512(args.x.add((pair * T + t) * 2 * LANES).cast())
            })
        };
        for pair in 0..k / 2 {
            let x = x(pair);
            for r in 0..R {
                let w = w.add(r * k + 2 * pair).cast::<i32>().read_unaligned();
                add_products(&mut acc[r], w, &x);
            }
        }
        if k % 2 == 1 {
            let x = x(k / 2);
            for r in 0..R {
                add_products(&mut acc[r], i32::from(*w.add(r * k + k - 1)), &x);
            }
        }
        for r in 0..R {
            for t in 0..T {
                let out = args.shape.out.add((row + r) * args.shape.stride + t * LANES);
                let before =
                    if args.shape.accumulate { _mm512_loadu_ps(out) } else { _mm512_setzero_ps() };
                _mm512_storeu_ps(out, _mm512_add_ps(before, acc[r][t]));
            }
        }
    }
}

/// Adds to each vector of tokens the products of one pair of weights with their pairs of activations.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn add_products<const T: usize>(acc: &mut [__m512; T], weights: i32, x: &[__m512i; T]) {
    let w = _mm512_set1_epi32(weights);
    for t in 0..T {
        acc[t] = dot_pairs(acc[t], w, x[t]);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn dot_pairs(acc: __m512, a: __m512i, b: __m512i) -> __m512 {
    // SAFETY: both types are 64 bytes in which every bit pattern is a value.
    let (a, b) = unsafe {
        (std::mem::transmute::<__m512i, __m512bh>(a), std::mem::transmute::<__m512i, __m512bh>(b))
    };
    _mm512_dpbf16_ps(acc, a, b)
}
