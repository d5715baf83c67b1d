//! Any machine: arrays of eight, which the compiler vectorises as far as it can.

use super::Simd;

pub(in crate::raw) struct Plain;

type V = [f32; 8];

#[inline(always)]
fn map(a: V, b: V, f: impl Fn(f32, f32) -> f32) -> V {
    std::array::from_fn(|i| f(a[i], b[i]))
}

#[inline(always)]
fn widen(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

// SAFETY of the blocks below: the pointers are valid for the lanes read or written, as the trait demands.
impl Simd for Plain {
    const LANES: usize = 8;
    type V = V;

    #[inline(always)]
    unsafe fn splat(x: f32) -> V {
        [x; 8]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> V {
        // SAFETY: valid for eight f32 by the trait's contract.
        unsafe { from.cast::<V>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, v: V) {
        // SAFETY: valid for eight f32 by the trait's contract.
        unsafe { to.cast::<V>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn add(a: V, b: V) -> V {
        map(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: V, b: V) -> V {
        map(a, b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: V, b: V) -> V {
        map(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(a: V, b: V) -> V {
        map(a, b, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn max(a: V, b: V) -> V {
        map(a, b, f32::max)
    }
    #[inline(always)]
    unsafe fn min(a: V, b: V) -> V {
        map(a, b, f32::min)
    }
    #[inline(always)]
    unsafe fn fma(a: V, b: V, c: V) -> V {
        // Not `mul_add`: without an FMA instruction that is a call into libm for every lane.
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn sum(v: V) -> f32 {
        ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7]))
    }
    #[inline(always)]
    unsafe fn round(v: V) -> V {
        v.map(f32::round_ties_even)
    }
    #[inline(always)]
    unsafe fn exp2_whole(v: V) -> V {
        v.map(|n| f32::from_bits(((n as i32 + 127) << 23) as u32))
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> V {
        // SAFETY: valid for eight bf16 by the trait's contract.
        let bits = unsafe { from.cast::<[u16; 8]>().read_unaligned() };
        bits.map(widen)
    }
    #[inline(always)]
    unsafe fn load_pairs(from: *const u16) -> (V, V) {
        // SAFETY: valid for sixteen bf16 by the trait's contract.
        let bits = unsafe { from.cast::<[u16; 16]>().read_unaligned() };
        (
            std::array::from_fn(|i| widen(bits[2 * i])),
            std::array::from_fn(|i| widen(bits[2 * i + 1])),
        )
    }
    #[inline(always)]
    unsafe fn splat_pair(from: *const u16) -> (V, V) {
        // SAFETY: valid for two bf16 by the trait's contract.
        let [a, b] = unsafe { from.cast::<[u16; 2]>().read_unaligned() };
        ([widen(a); 8], [widen(b); 8])
    }
}
