//! The silence before the first sound of an utterance, which a listener would wait through.

/// -50 dB of full scale: what is below is silent.
const SILENT: f32 = 0.003_162;
/// Milliseconds of silence that are taken away at most.
const MOST_MS: u64 = 300;
/// Milliseconds before the first sound that stay, so that it begins as it was spoken.
const LEAD_IN_MS: u64 = 5;

/// Takes the silence at the beginning away.
#[derive(Debug)]
pub(super) struct Trim {
    /// Silence that may still turn out to be the lead-in.
    held: Vec<f32>,
    lead_in: usize,
    /// Samples that may be taken away yet.
    left: usize,
    cut: usize,
    begun: bool,
}

impl Trim {
    /// Of sound at `sample_rate`; or of nothing, if it is not wanted.
    pub(super) fn new(sample_rate: u32, wanted: bool) -> Self {
        let samples = |ms: u64| (ms * u64::from(sample_rate) / 1000) as usize;
        Self {
            held: Vec::new(),
            lead_in: samples(LEAD_IN_MS),
            left: samples(MOST_MS),
            cut: 0,
            begun: !wanted,
        }
    }

    /// Takes the next samples and gives those that are to be heard.
    pub(super) fn push(&mut self, samples: Vec<f32>) -> Vec<f32> {
        if self.begun {
            return samples;
        }
        self.held.extend(samples);
        let loud = self.held.iter().position(|x| x.abs() >= SILENT);
        let silent = loud.unwrap_or(self.held.len());
        let cut = silent.saturating_sub(self.lead_in).min(self.left);
        self.held.drain(..cut);
        self.cut += cut;
        self.left -= cut;
        self.begun = loud.is_some() || self.left == 0;
        if self.begun { std::mem::take(&mut self.held) } else { Vec::new() }
    }

    /// Ends the sound. What was silent to the end is not heard at all.
    pub(super) fn finish(&mut self) {
        self.cut += self.held.len();
        self.held.clear();
    }

    /// Samples that were taken away.
    pub(super) fn cut(&self) -> usize {
        self.cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 1_000;

    /// What is left of a sound that comes in pieces, and how much was taken away.
    fn trim(samples: &[f32], piece: usize) -> (Vec<f32>, usize) {
        let mut trim = Trim::new(RATE, true);
        let mut heard = Vec::new();
        for piece in samples.chunks(piece) {
            heard.extend(trim.push(piece.to_vec()));
        }
        trim.finish();
        assert_eq!(heard.len() + trim.cut(), samples.len());
        (heard, trim.cut())
    }

    fn sound(silent: usize, loud: usize) -> Vec<f32> {
        let silence = (0..silent).map(|i| if i % 2 == 0 { 0.003 } else { -0.003 });
        silence.chain(std::iter::repeat_n(-0.1, loud)).collect()
    }

    #[test]
    fn silence_at_the_beginning_is_not_heard() {
        for piece in [1, 3, 80, 10_000] {
            for (silent, cut) in
                [(0, 0), (3, 0), (5, 0), (6, 1), (105, 100), (305, 300), (306, 300), (900, 300)]
            {
                let whole = sound(silent, 50);
                assert_eq!(
                    trim(&whole, piece),
                    (whole[cut..].to_vec(), cut),
                    "{silent} in {piece}s"
                );
            }
        }
    }

    #[test]
    fn silence_alone_is_nothing_and_long_silence_is_heard() {
        assert_eq!(trim(&sound(200, 0), 80), (vec![], 200));
        let (heard, cut) = trim(&sound(900, 0), 80);
        assert_eq!((heard.len(), cut), (600, 300));
        assert_eq!(trim(&[], 1), (vec![], 0));
    }

    #[test]
    fn nothing_is_taken_where_it_is_not_wanted() {
        let mut trim = Trim::new(RATE, false);
        assert_eq!(trim.push(vec![0.0; 100]).len(), 100);
        assert_eq!(trim.cut(), 0);
    }
}
