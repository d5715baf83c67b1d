//! Rotary position embedding (Su et al., RoFormer, 2021) in the half-split form that Qwen3 uses.

/// Cosines and sines of a run of positions, feature-major: `[head_dim / 2][tokens]`.
pub(crate) struct Rotation {
    pub(crate) cos: Vec<f32>,
    pub(crate) sin: Vec<f32>,
    pub(crate) tokens: usize,
}

/// One over theta^(2i/d) for each pair i, in the steps and the precision in which transformers computes it: at long
/// positions a difference in the last bit of a frequency is one in the fourth digit of an angle.
pub(crate) fn inverse_frequencies(theta: f32, head_dim: usize) -> Vec<f32> {
    (0..head_dim / 2)
        .map(|i| {
            let exponent = (2 * i) as f32 / head_dim as f32;
            // Through f64 so that the power is correctly rounded on every machine.
            let power = f64::from(theta).powf(f64::from(exponent)) as f32;
            1.0 / power
        })
        .collect()
}

impl Rotation {
    /// For `tokens` positions from `first` on.
    pub(crate) fn new(inverse_frequencies: &[f32], first: usize, tokens: usize) -> Self {
        let mut rotation = Self { cos: Vec::new(), sin: Vec::new(), tokens };
        for frequency in inverse_frequencies {
            for position in first..first + tokens {
                let angle = f64::from(position as f32 * frequency);
                rotation.cos.push(angle.cos() as f32);
                rotation.sin.push(angle.sin() as f32);
            }
        }
        rotation
    }

    /// Rotates one head, `[head_dim][stride]`, in place.
    pub(crate) fn apply(&self, head: &mut [f32], stride: usize) {
        let (first, second) = head.split_at_mut(head.len() / 2);
        let pairs = first.chunks_exact_mut(stride).zip(second.chunks_exact_mut(stride));
        let angles = self.cos.chunks_exact(self.tokens).zip(self.sin.chunks_exact(self.tokens));
        for ((a, b), (cos, sin)) in pairs.zip(angles) {
            for (((a, b), cos), sin) in a.iter_mut().zip(b).zip(cos).zip(sin) {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }
}
