//! The exponential of the softmax, and its fixed-point form, with every rounding stated.

/// One unit of [`quantise`] is 2<sup>-39</sup>: the finest grid on which the weights of 2<sup>24</sup> equally
/// likely ids still add up within 64 bits.
const UNIT_BITS: u32 = 39;
/// Below this, `exp(y)` is less than a unit.
const LOWEST: f32 = -28.0;
/// 1.5 · 2<sup>23</sup>: adding it rounds an f32 of small magnitude to a whole number, in its low bits.
const ROUNDER: f32 = 12_582_912.0;
/// ln 2 in two parts; the first is 355/512, of so few bits that its products with small whole numbers are exact (Cody
/// and Waite's reduction).
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
/// 1/n!, n from 7 down to 0.
const TAYLOR: [f32; 8] =
    [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];

/// `exp(y)` for `y ≤ 0`, minus infinity included, within 2 units in the last place; 0 below -28.
///
/// Written in f32 operations that are each rounded to nearest, in this order and without contraction, so that the
/// result has the same bits on every machine: `n = round(y · log2 e)`, `r = (y - n · hi) - n · lo`, the Taylor
/// polynomial of degree 7 in `r` by Horner's rule, times 2ⁿ (exact). It compiles to vector instructions, which a call
/// into the C library does not.
#[inline]
pub fn exp(y: f32) -> f32 {
    let clamped = if y > LOWEST { y } else { LOWEST };
    let rounded = clamped * std::f32::consts::LOG2_E + ROUNDER;
    let n = rounded - ROUNDER;
    let r = (clamped - n * LN_2[0]) - n * LN_2[1];
    let mut value = TAYLOR[0];
    for coefficient in &TAYLOR[1..] {
        value = value * r + coefficient;
    }
    // The low bits of `rounded` count from those of ROUNDER; n + 127 is the exponent field of 2ⁿ.
    let exponent = rounded.to_bits().wrapping_sub(ROUNDER.to_bits()).wrapping_add(127) << 23;
    if y >= LOWEST { value * f32::from_bits(exponent) } else { 0.0 }
}

/// A weight in [0, 1] as whole units of 2<sup>-39</sup>, the rest cut off.
#[inline]
pub fn quantise(weight: f32) -> u64 {
    (weight * (1_u64 << UNIT_BITS) as f32) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_ulps() {
        let mut worst = 0.0_f64;
        for step in 0..2_800_000 {
            let y = -(step as f32) * 1e-5;
            let expected = f64::from(y).exp();
            let ulp = f64::from((expected as f32).next_up() - expected as f32);
            worst = worst.max((f64::from(exp(y)) - expected).abs() / ulp);
        }
        assert!(worst < 2.0, "{worst} ulps");
    }

    #[test]
    fn exp_at_the_ends() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-0.0), 1.0);
        assert!(exp(-1e-30) <= 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::MIN), 0.0);
        assert_eq!(quantise(exp(LOWEST)), 0);
        assert_eq!(quantise(1.0), 1 << UNIT_BITS);
    }

    /// Bits that another implementation must reproduce.
    #[test]
    fn known_answers() {
        let bits: Vec<u32> =
            [-0.5, -1.0, -3.3, -10.0, -25.5].iter().map(|y| exp(*y).to_bits()).collect();
        assert_eq!(bits, [0x3f1b_4598, 0x3ebc_5ab2, 0x3d17_12ce, 0x383e_6bce, 0x2d14_2fe8]);
    }

    #[test]
    fn exp_never_grows_as_y_falls_by_a_visible_step() {
        let mut before = 1.0;
        for step in 0..28_000 {
            let now = exp(-(step as f32) * 1e-3);
            assert!(now <= before);
            before = now;
        }
    }
}
