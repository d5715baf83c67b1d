//! The inner loops of the CPU backend: matrix products, the products inside attention, and exponentials.
//!
//! Each kernel is written once over [`Simd`] and compiled for every instruction set; a [`Kernels`] holds the set that
//! was chosen at run time. Activations are feature-major: `[features][stride]`, the tokens of one feature side by
//! side, so that tokens fill the vector lanes and weights are read as they lie in the file, with no repacking.

#![allow(
    clippy::needless_range_loop,
    reason = "the rows and vectors of a register tile index several arrays at once"
)]

mod attention;
#[cfg(target_arch = "x86_64")]
mod bf16_dot;
mod matmul;
mod panel;

use std::fmt;

use super::simd::Simd;
use matmul::{DotFn, TileFn};

pub(crate) use attention::Block;
pub(crate) use matmul::Weights;
pub(crate) use panel::{Panel, to_bf16};

/// Instruction sets there are kernels for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isa {
    /// x86-64 with AVX-512 F, BW and BF16 (dot products of bf16 pairs).
    Avx512Bf16,
    /// x86-64 with AVX-512 F and BW.
    Avx512,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// 64-bit Arm.
    Neon,
    /// Any machine.
    Plain,
}

impl Isa {
    /// Those this machine has, best first; `Plain` is always the last.
    pub fn available() -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let avx512 =
                is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
            if avx512 && is_x86_feature_detected!("avx512bf16") {
                all.push(Self::Avx512Bf16);
            }
            if avx512 {
                all.push(Self::Avx512);
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                all.push(Self::Avx2);
            }
        }
        #[cfg(target_arch = "aarch64")]
        all.push(Self::Neon);
        all.push(Self::Plain);
        all
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Avx512Bf16 => "AVX-512 BF16",
            Self::Avx512 => "AVX-512",
            Self::Avx2 => "AVX2",
            Self::Neon => "NEON",
            Self::Plain => "plain",
        })
    }
}

/// The kernels of one instruction set. Only [`Kernels::of`] makes one, and only if the machine has the set: that is
/// what makes calling the functions in it sound.
#[derive(Clone, Copy)]
pub(crate) struct Kernels {
    isa: Isa,
    lanes: usize,
    dot_bf16: DotFn<u16, f32>,
    dot_f32: DotFn<f32, f32>,
    tile_bf16: TileFn<u16, f32>,
    tile_f32: TileFn<f32, f32>,
    /// bf16 weights times bf16 activations, where the machine multiplies those directly.
    bf16_dot: Option<(DotFn<u16, u16>, TileFn<u16, u16>)>,
    product_bf16: attention::ProductFn<u16>,
    product_f32: attention::ProductFn<f32>,
    softmax: attention::SoftmaxFn,
    silu_mul: unsafe fn(*mut f32, *const f32, usize),
}

impl fmt::Debug for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kernels({})", self.isa)
    }
}

/// Compiles every kernel for one `Simd` with the target features it needs; `tile` and `product` give the rows and
/// vectors of a register tile, as many as the registers hold.
macro_rules! kernels_for {
    ($name:ident, $simd:ty, $isa:expr, features($($feature:literal),*), tile($tr:literal), product($pr:literal, $pt:literal)) => {
        mod $name {
            use super::*;

            $(#[target_feature(enable = $feature)])*
            unsafe fn dot_bf16(args: &matmul::DotArgs<u16, f32>) {
                // SAFETY: the caller keeps the contract of `dots`, and this function has the features of the Simd.
                unsafe { matmul::dots::<$simd, u16>(args) }
            }
            $(#[target_feature(enable = $feature)])*
            unsafe fn dot_f32(args: &matmul::DotArgs<f32, f32>) {
                // SAFETY: as above.
                unsafe { matmul::dots::<$simd, f32>(args) }
            }
            $(#[target_feature(enable = $feature)])*
            unsafe fn tile_bf16(args: &matmul::TileArgs<u16, f32>) {
                // SAFETY: as above, for `tile`.
                unsafe { matmul::tile::<$simd, u16, $tr>(args) }
            }
            $(#[target_feature(enable = $feature)])*
            unsafe fn tile_f32(args: &matmul::TileArgs<f32, f32>) {
                // SAFETY: as above, for `tile`.
                unsafe { matmul::tile::<$simd, f32, $tr>(args) }
            }
            $(#[target_feature(enable = $feature)])*
            unsafe fn product_bf16(args: &attention::ProductArgs<u16>) {
                // SAFETY: as above, for `product`.
                unsafe { attention::product::<$simd, u16, $pr, $pt>(args) }
            }
            $(#[target_feature(enable = $feature)])*
            unsafe fn product_f32(args: &attention::ProductArgs<f32>) {
                // SAFETY: as above, for `product`.
                unsafe { attention::product::<$simd, f32, $pr, $pt>(args) }
            }
            $(#[target_feature(enable = $feature)])*
            unsafe fn softmax(scores: *mut f32, n: usize, max: f32) -> (f32, f32) {
                // SAFETY: as above, for `softmax`.
                unsafe { attention::softmax::<$simd>(scores, n, max) }
            }
            $(#[target_feature(enable = $feature)])*
            unsafe fn silu_mul(gate: *mut f32, up: *const f32, n: usize) {
                // SAFETY: as above, for `silu_mul`.
                unsafe { super::silu_mul::<$simd>(gate, up, n) }
            }

            pub(super) const KERNELS: Kernels = Kernels {
                isa: $isa,
                lanes: <$simd>::LANES,
                dot_bf16,
                dot_f32,
                tile_bf16,
                tile_f32,
                bf16_dot: None,
                product_bf16,
                product_f32,
                softmax,
                silu_mul,
            };
        }
    };
}

kernels_for!(plain, crate::raw::simd::plain::Plain, Isa::Plain, features(), tile(2), product(2, 2));
#[cfg(target_arch = "x86_64")]
kernels_for!(
    avx2,
    crate::raw::simd::avx2::Avx2,
    Isa::Avx2,
    features("avx2", "fma"),
    tile(2),
    product(4, 2)
);
#[cfg(target_arch = "x86_64")]
kernels_for!(
    avx512,
    crate::raw::simd::avx512::Avx512,
    Isa::Avx512,
    features("avx512f", "avx512bw"),
    tile(6),
    product(4, 4)
);
#[cfg(target_arch = "aarch64")]
kernels_for!(
    neon,
    crate::raw::simd::neon::Neon,
    Isa::Neon,
    features("neon"),
    tile(6),
    product(4, 4)
);

impl Kernels {
    /// The kernels of `isa`, or `None` if this machine does not have it.
    pub(crate) fn of(isa: Isa) -> Option<Self> {
        if !Isa::available().contains(&isa) {
            return None;
        }
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => Some(Self {
                isa,
                bf16_dot: Some((bf16_dot::dots, bf16_dot::tile)),
                ..avx512::KERNELS
            }),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Some(avx512::KERNELS),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Some(avx2::KERNELS),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => Some(neon::KERNELS),
            Isa::Plain => Some(plain::KERNELS),
            #[allow(unreachable_patterns, reason = "each architecture has its own subset")]
            _ => None,
        }
    }

    /// The instruction set.
    pub(crate) fn isa(&self) -> Isa {
        self.isa
    }

    /// `gate[i] = silu(gate[i]) * up[i]`.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub(crate) fn silu_mul(&self, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len());
        // SAFETY: both are valid for their length, and a `Kernels` exists only where its instruction set does.
        unsafe { (self.silu_mul)(gate.as_mut_ptr(), up.as_ptr(), gate.len()) }
    }
}

/// `gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i]` for `n` numbers.
///
/// # Safety
/// The machine has the instruction set of `S`; the pointers are valid for `n` numbers.
#[inline(always)]
unsafe fn silu_mul<S: Simd>(gate: *mut f32, up: *const f32, n: usize) {
    // SAFETY: every access is below `n`, or goes to the local arrays.
    unsafe {
        let whole = n - n % S::LANES;
        let mut i = 0;
        while i < whole {
            silu_mul_vector::<S>(gate.add(i), up.add(i));
            i += S::LANES;
        }
        if whole < n {
            let (mut g, mut u) = ([0.0f32; 16], [0.0f32; 16]);
            std::ptr::copy_nonoverlapping(gate.add(whole), g.as_mut_ptr(), n - whole);
            std::ptr::copy_nonoverlapping(up.add(whole), u.as_mut_ptr(), n - whole);
            silu_mul_vector::<S>(g.as_mut_ptr(), u.as_ptr());
            std::ptr::copy_nonoverlapping(g.as_ptr(), gate.add(whole), n - whole);
        }
    }
}

/// # Safety
/// The machine has the instruction set of `S`; the pointers are valid for a vector.
#[inline(always)]
unsafe fn silu_mul_vector<S: Simd>(gate: *mut f32, up: *const f32) {
    // SAFETY: by this function's contract.
    unsafe {
        let g = S::load(gate);
        let e = super::simd::exp::<S>(S::sub(S::splat(0.0), g));
        S::store(gate, S::mul(S::div(g, S::add(S::splat(1.0), e)), S::load(up)));
    }
}
