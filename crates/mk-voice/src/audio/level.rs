//! How loud a sound is.

/// The level of silence, in dB of full scale: that of a single step of 16 bits, nearly.
pub const SILENCE_DB: f32 = -96.0;

/// Root mean square of a block in dB of full scale (a full square wave has 0); [`SILENCE_DB`] at least, also for no
/// samples at all.
pub fn rms_db(samples: &[i16]) -> f32 {
    let energy: f64 = samples.iter().map(|&sample| f64::from(sample).powi(2)).sum();
    let mean = energy / samples.len().max(1) as f64 / f64::from(i16::MIN).powi(2);
    (10.0 * mean.log10()).max(f64::from(SILENCE_DB)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_those_of_known_waves() {
        assert_eq!(rms_db(&[i16::MIN; 64]), 0.0);
        let sine: Vec<i16> = (0..1600)
            .map(|i| ((f64::from(i) * std::f64::consts::TAU / 16.0).sin() * 3276.8) as i16)
            .collect();
        assert!((rms_db(&sine) + 23.01).abs() < 0.02, "{}", rms_db(&sine));
        assert_eq!(rms_db(&[0; 64]), SILENCE_DB);
        assert_eq!(rms_db(&[]), SILENCE_DB);
    }
}
