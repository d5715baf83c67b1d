//! The last seconds of a stream of sound.

use std::collections::VecDeque;

/// Keeps the last samples of a stream, which are counted from its beginning: so that after a broken connection it can
/// go on from where the other side has stopped hearing.
#[derive(Debug, Clone)]
pub struct AudioRing {
    samples: VecDeque<i16>,
    capacity: usize,
    end: u64,
}

/// Samples from a position on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// Position of the first.
    pub start: u64,
    /// All there are up to the end.
    pub samples: Vec<i16>,
    /// How many were asked for that are kept no more.
    pub lost: u64,
}

impl AudioRing {
    /// A ring of at most so many samples. The memory is taken as samples come.
    pub fn new(capacity_samples: usize) -> Self {
        Self { samples: VecDeque::new(), capacity: capacity_samples, end: 0 }
    }

    /// Takes the next samples, and lets go of the oldest.
    pub fn push(&mut self, samples: &[i16]) {
        self.end += samples.len() as u64;
        let kept = &samples[samples.len().saturating_sub(self.capacity)..];
        let excess = (self.samples.len() + kept.len()).saturating_sub(self.capacity);
        self.samples.drain(..excess);
        self.samples.extend(kept);
    }

    /// The samples from a position on; from the oldest that is kept if that is later. None from the end on.
    pub fn from(&self, position: u64) -> Replay {
        let position = position.min(self.end);
        let start = position.max(self.start());
        let samples = self.samples.range((start - self.start()) as usize..).copied().collect();
        Replay { start, samples, lost: start - position }
    }

    /// The position of the oldest sample that is kept.
    pub fn start(&self) -> u64 {
        self.end - self.samples.len() as u64
    }

    /// The position after the last sample.
    pub fn end(&self) -> u64 {
        self.end
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_overwritten_is_counted() {
        let mut ring = AudioRing::new(4);
        ring.push(&[0, 1, 2]);
        assert_eq!(ring.from(1), Replay { start: 1, samples: vec![1, 2], lost: 0 });
        ring.push(&[3, 4, 5]);
        assert_eq!((ring.start(), ring.end()), (2, 6));
        assert_eq!(ring.from(1), Replay { start: 2, samples: vec![2, 3, 4, 5], lost: 1 });
        assert_eq!(ring.from(9), Replay { start: 6, samples: vec![], lost: 0 });
    }

    proptest! {
        #[test]
        fn a_replay_is_what_was_pushed(
            capacity in 0..50usize,
            lengths in prop::collection::vec(0..40usize, 0..20),
            position in 0..500u64,
        ) {
            let total: usize = lengths.iter().sum();
            let all: Vec<i16> = (0..total as i16).collect();
            let mut ring = AudioRing::new(capacity);
            let mut at = 0;
            for length in lengths {
                ring.push(&all[at..at + length]);
                at += length;
            }
            prop_assert_eq!(ring.end(), total as u64);
            let replay = ring.from(position);
            prop_assert_eq!(&replay.samples, &all[replay.start as usize..]);
            prop_assert_eq!(replay.samples.len() as u64 + replay.lost, ring.end() - position.min(ring.end()));
            prop_assert!(replay.samples.len() <= capacity);
            prop_assert!(replay.lost == 0 || replay.samples.len() == capacity);
        }
    }
}
