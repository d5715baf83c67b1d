//! Audio that was heard: kept for a while, so that it can be sent again.

use std::collections::VecDeque;

/// The last samples of an endless input. A position is the number of a sample, counted from the beginning.
#[derive(Debug)]
pub(super) struct Kept {
    samples: VecDeque<i16>,
    /// Position of the first of them.
    first: u64,
    capacity: usize,
}

impl Kept {
    /// Keeps `capacity` samples.
    pub(super) fn new(capacity: usize) -> Self {
        Self { samples: VecDeque::new(), first: 0, capacity }
    }

    pub(super) fn push(&mut self, samples: &[i16]) {
        self.samples.extend(samples);
        let surplus = self.samples.len().saturating_sub(self.capacity);
        self.samples.drain(..surplus);
        self.first += surplus as u64;
    }

    /// Position of the oldest sample that is there.
    pub(super) fn start(&self) -> u64 {
        self.first
    }

    /// Position behind the newest.
    pub(super) fn end(&self) -> u64 {
        self.first + self.samples.len() as u64
    }

    /// The samples from `position` on, `count` at most, as bytes, little-endian. From what is not kept any more there
    /// are none.
    pub(super) fn bytes(&self, position: u64, count: usize) -> Vec<u8> {
        let from = position.checked_sub(self.first).and_then(|from| usize::try_from(from).ok());
        let from = from.unwrap_or(usize::MAX).min(self.samples.len());
        let to = from.saturating_add(count).min(self.samples.len());
        self.samples.range(from..to).flat_map(|sample| sample.to_le_bytes()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_under_their_numbers() {
        let mut kept = Kept::new(4);
        kept.push(&[0, 1, 2]);
        assert_eq!((kept.start(), kept.end()), (0, 3));
        kept.push(&[3, 4, 5]);
        assert_eq!((kept.start(), kept.end()), (2, 6));
        assert_eq!(kept.bytes(3, 2), [3, 0, 4, 0]);
        assert_eq!(kept.bytes(5, 9), [5, 0]);
        assert!(kept.bytes(0, 2).is_empty() && kept.bytes(6, 2).is_empty());
        kept.push(&[6; 10]);
        assert_eq!((kept.start(), kept.end()), (12, 16));
    }
}
