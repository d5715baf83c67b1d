//! Counter-based random numbers: the same (seed, counter) gives the same bits on every machine and every device.
//!
//! Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). There is
//! no state to carry: a sampler that resumes, or one that runs on a GPU, only needs the number of the draw.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const KEY_STEPS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// The four random words of one counter value.
pub fn philox(seed: u64, counter: u128) -> [u32; 4] {
    let mut key = [seed as u32, (seed >> 32) as u32];
    let mut x: [u32; 4] = std::array::from_fn(|i| (counter >> (32 * i)) as u32);
    for _ in 0..ROUNDS {
        let [a, b] = [
            u64::from(MULTIPLIERS[0]) * u64::from(x[0]),
            u64::from(MULTIPLIERS[1]) * u64::from(x[2]),
        ];
        x = [
            (b >> 32) as u32 ^ x[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ x[3] ^ key[1],
            a as u32,
        ];
        key = std::array::from_fn(|i| key[i].wrapping_add(KEY_STEPS[i]));
    }
    x
}

/// A number in [0, 1) with 24 random bits, as many as an f32 holds.
pub fn uniform(seed: u64, counter: u128) -> f32 {
    (philox(seed, counter)[0] >> 8) as f32 / (1 << 24) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known-answer vectors that Random123 ships (`kat_vectors`, philox4x32 10).
    #[test]
    fn known_answers() {
        assert_eq!(philox(0, 0), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox(u64::MAX, u128::MAX),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        let counter = 0x0370_7344_1319_8a2e_85a3_08d3_243f_6a88;
        assert_eq!(
            philox(0x299f_31d0_a409_3822, counter),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }
}
