//! One vector of f32 lanes, for each instruction set; the kernels are written once over it.
//!
//! Every function is `unsafe` for one reason: the caller must run on a machine with the instruction set. Functions
//! that take pointers also need them valid for the lanes they touch; no alignment is asked for.

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
#[cfg(target_arch = "aarch64")]
pub(super) mod neon;
pub(super) mod plain;

/// A vector of `LANES` f32.
#[allow(clippy::missing_safety_doc, reason = "the module says it once for all")]
pub(super) trait Simd {
    /// f32 in a vector; a power of two, at most 16.
    const LANES: usize;
    /// The vector.
    type V: Copy;

    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(from: *const f32) -> Self::V;
    unsafe fn store(to: *mut f32, v: Self::V);
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// a·b + c.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Sum over the lanes.
    unsafe fn sum(v: Self::V) -> f32;
    /// Each lane to the nearest whole number.
    unsafe fn round(v: Self::V) -> Self::V;
    /// 2 to the power of each lane; lanes are whole numbers from -126 to 127.
    unsafe fn exp2_whole(v: Self::V) -> Self::V;
    /// `LANES` bf16, widened in their order.
    unsafe fn load_bf16(from: *const u16) -> Self::V;
    /// 2·`LANES` bf16, those at even places and those at odd places.
    unsafe fn load_pairs(from: *const u16) -> (Self::V, Self::V);
    /// Two neighbouring bf16, each in every lane of a vector.
    unsafe fn splat_pair(from: *const u16) -> (Self::V, Self::V);

    /// Asks for the cache line at an address that will be read soon; any address will do.
    #[inline(always)]
    fn prefetch<T>(_address: *const T) {}
}

/// e to the power of each lane, within 2 ulp; 0 where the result would be below the smallest normal f32.
///
/// Range reduction to |r| <= ln2/2 and a polynomial of degree 6 (Cephes' `expf` coefficients).
#[inline(always)]
pub(super) unsafe fn exp<S: Simd>(x: S::V) -> S::V {
    // SAFETY: the caller vouches for the instruction set; no pointers.
    unsafe {
        let x = S::min(S::max(x, S::splat(-87.3)), S::splat(88.0));
        let n = S::round(S::mul(x, S::splat(std::f32::consts::LOG2_E)));
        let r = S::fma(n, S::splat(-0.693_359_4), x);
        let r = S::fma(n, S::splat(2.121_944_4e-4), r);
        let mut p = S::splat(1.987_569_1e-4);
        for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
            p = S::fma(p, r, S::splat(c));
        }
        let p = S::fma(S::mul(r, r), p, S::add(r, S::splat(1.0)));
        S::mul(p, S::exp2_whole(n))
    }
}
