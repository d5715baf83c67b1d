//! Which ids the text holds already.

/// A set of ids of one vocabulary, one bit each: what the repetition penalty applies to.
///
/// The caller keeps it over a whole sequence, prompt included; an id counts once however often it occurs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    words: Vec<u64>,
    vocab_size: usize,
}

impl Seen {
    /// The empty set over ids below `vocab_size`.
    pub fn new(vocab_size: usize) -> Self {
        Self { words: vec![0; vocab_size.div_ceil(64)], vocab_size }
    }

    /// How many ids the vocabulary has.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Adds `id`. One beyond the vocabulary is left out: it has no logit to penalise.
    pub fn insert(&mut self, id: u32) {
        if (id as usize) < self.vocab_size {
            self.words[id as usize / 64] |= 1 << (id % 64);
        }
    }

    /// Whether `id` is in the set.
    pub fn contains(&self, id: u32) -> bool {
        self.words.get(id as usize / 64).is_some_and(|word| word >> (id % 64) & 1 == 1)
    }

    /// The bits, id 0 the lowest of the first word.
    #[cfg(feature = "cuda")]
    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    /// Removes all ids.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }

    /// The ids in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.words.iter().zip(0_u32..).flat_map(|(&word, index)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros())?;
                rest &= rest - 1;
                Some(index * 64 + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_a_set(vocab_size in 0_usize..300, ids in prop::collection::vec(0_u32..400, 0..80)) {
            let mut seen = Seen::new(vocab_size);
            let mut expected = BTreeSet::new();
            for id in ids {
                seen.insert(id);
                if (id as usize) < vocab_size {
                    expected.insert(id);
                }
            }
            prop_assert!(seen.iter().eq(expected.iter().copied()));
            prop_assert!((0..500).all(|id| seen.contains(id) == expected.contains(&id)));
            seen.clear();
            prop_assert_eq!(seen, Seen::new(vocab_size));
        }
    }
}
