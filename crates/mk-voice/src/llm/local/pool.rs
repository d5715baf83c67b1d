//! Sequences of conversations, kept for their next turn.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mk_model::Sequence;

/// A sequence, and what is in it.
pub(super) struct Kept {
    pub(super) sequence: Sequence,
    ids: Vec<u32>,
}

impl Kept {
    /// An empty sequence.
    pub(super) fn new(sequence: Sequence) -> Self {
        Self { sequence, ids: Vec::new() }
    }

    /// Notes what is in the sequence: a prompt, and what was made after it, as far as it got.
    pub(super) fn hold(&mut self, prompt: Vec<u32>, made: &[u32]) {
        self.ids = prompt;
        self.ids.extend(made);
        self.ids.truncate(self.sequence.len());
    }

    fn shared(&self, ids: &[u32]) -> usize {
        self.ids.iter().zip(ids).take_while(|(a, b)| a == b).count()
    }
}

/// A number of sequences, the one that was used last in front.
pub(super) struct Pool {
    kept: Mutex<VecDeque<Kept>>,
    most: usize,
}

impl Pool {
    pub(super) fn new(most: usize) -> Self {
        Self { kept: Mutex::default(), most: most.max(1) }
    }

    /// The sequence that a prompt goes on with, if there is one: it shares most with it, and at least half of its own. A
    /// conversation that merely begins alike is left to itself.
    pub(super) fn take(&self, ids: &[u32]) -> Option<Kept> {
        let mut kept = self.lock();
        let shared = kept.iter().map(|kept| kept.shared(ids)).enumerate();
        // The first of several, being the last that was used.
        let (place, shared) = shared.rev().max_by_key(|(_, shared)| *shared)?;
        if shared == 0 || 2 * shared < kept[place].ids.len() {
            return None;
        }
        kept.remove(place)
    }

    /// Takes a sequence back; the one that was not used for longest may have to go.
    pub(super) fn put(&self, sequence: Kept) {
        let mut kept = self.lock();
        kept.truncate(self.most - 1);
        kept.push_front(sequence);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        // No code panics with the lock held.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use mk_model::synth::Spec;
    use mk_model::{Checkpoint, Model, ModelOptions};

    use super::*;

    fn kept(model: &Model, ids: &[u32]) -> Kept {
        let mut kept = Kept::new(model.sequence().expect("memory"));
        kept.sequence.set_prompt(ids).expect("ids of the model");
        kept.hold(ids.to_vec(), &[]);
        kept
    }

    #[test]
    fn a_conversation_finds_its_sequence_again() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Spec::tiny().write(dir.path()).expect("a valid spec");
        let checkpoint = Checkpoint::open(dir.path()).expect("a checkpoint");
        let model = Model::load(&checkpoint, &ModelOptions::default()).expect("a model");
        let pool = Pool::new(2);
        assert!(pool.take(&[1, 2]).is_none());
        pool.put(kept(&model, &[1, 2, 3, 4]));
        pool.put(kept(&model, &[1, 2, 5, 6]));
        let ids = |kept: Option<Kept>| kept.map(|kept| kept.ids);
        assert_eq!(ids(pool.take(&[9, 2, 3, 4])), None);
        assert_eq!(ids(pool.take(&[1, 9, 9, 9])), None, "too little in common");
        let found = pool.take(&[1, 2, 3, 9]).expect("the first");
        assert_eq!(found.ids, [1, 2, 3, 4]);
        assert_eq!(ids(pool.take(&[1, 2, 3, 9])), Some(vec![1, 2, 5, 6]), "the other is in use");
        pool.put(found);
        for last in [7, 8] {
            pool.put(kept(&model, &[last]));
        }
        assert_eq!(ids(pool.take(&[1, 2, 3, 4])), None, "the oldest had to go");
        assert_eq!(ids(pool.take(&[7, 1])), Some(vec![7]));
    }
}
