//! 64-bit Arm: 4 lanes.

use std::arch::aarch64::*;

use super::Simd;

pub(in crate::raw) struct Neon;

impl Simd for Neon {
    const LANES: usize = 4;
    type V = float32x4_t;

    #[inline(always)]
    unsafe fn splat(x: f32) -> float32x4_t {
        // SAFETY: NEON is there, by the trait's contract.
        unsafe { vdupq_n_f32(x) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> float32x4_t {
        // SAFETY: NEON, and 4 f32 to read, by the trait's contract.
        unsafe { vld1q_f32(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, v: float32x4_t) {
        // SAFETY: NEON, and 4 f32 to write, by the trait's contract.
        unsafe { vst1q_f32(to, v) }
    }
    #[inline(always)]
    unsafe fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: NEON is there, by the trait's contract.
        unsafe { vaddq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: NEON is there, by the trait's contract.
        unsafe { vsubq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: NEON is there, by the trait's contract.
        unsafe { vmulq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: NEON is there, by the trait's contract.
        unsafe { vdivq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn max(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: NEON is there, by the trait's contract.
        unsafe { vmaxq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn min(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: NEON is there, by the trait's contract.
        unsafe { vminq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        // SAFETY: NEON is there, by the trait's contract.
        unsafe { vfmaq_f32(c, a, b) }
    }
    #[inline(always)]
    unsafe fn sum(v: float32x4_t) -> f32 {
        // SAFETY: NEON is there, by the trait's contract.
        unsafe { vaddvq_f32(v) }
    }
    #[inline(always)]
    unsafe fn round(v: float32x4_t) -> float32x4_t {
        // SAFETY: NEON is there, by the trait's contract.
        unsafe { vrndnq_f32(v) }
    }
    #[inline(always)]
    unsafe fn exp2_whole(v: float32x4_t) -> float32x4_t {
        // SAFETY: NEON is there, by the trait's contract.
        unsafe {
            let biased = vaddq_s32(vcvtnq_s32_f32(v), vdupq_n_s32(127));
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased))
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> float32x4_t {
        // SAFETY: NEON, and 4 bf16 to read, by the trait's contract.
        unsafe { vreinterpretq_f32_u32(vshlq_n_u32::<16>(vmovl_u16(vld1_u16(from)))) }
    }
    #[inline(always)]
    unsafe fn load_pairs(from: *const u16) -> (float32x4_t, float32x4_t) {
        // SAFETY: NEON, and 8 bf16 to read, by the trait's contract.
        unsafe { split(vreinterpretq_u32_u16(vld1q_u16(from))) }
    }
    #[inline(always)]
    unsafe fn splat_pair(from: *const u16) -> (float32x4_t, float32x4_t) {
        // SAFETY: NEON, and two bf16 to read, by the trait's contract.
        unsafe { split(vdupq_n_u32(from.cast::<u32>().read_unaligned())) }
    }
}

/// The lower and the upper bf16 of each 32-bit lane.
#[inline(always)]
unsafe fn split(v: uint32x4_t) -> (float32x4_t, float32x4_t) {
    // SAFETY: NEON is there, by the callers' contract.
    unsafe {
        (
            vreinterpretq_f32_u32(vshlq_n_u32::<16>(v)),
            vreinterpretq_f32_u32(vandq_u32(v, vdupq_n_u32(0xffff_0000))),
        )
    }
}
