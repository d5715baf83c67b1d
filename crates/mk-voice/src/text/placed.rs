//! A text that knows where in the reply it comes from.

use super::origin::Origin;

/// A text, and for each of its bytes the byte of the reply that it stands for. Bytes of words that are not as written
/// stand for the first byte of what they say in other words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Placed {
    pub(super) text: String,
    at: Vec<usize>,
}

impl Placed {
    /// Adds a character that stands at `place`, as written.
    pub(super) fn push(&mut self, c: char, place: usize) {
        self.text.push(c);
        self.at.extend((0..c.len_utf8()).map(|byte| place + byte));
    }

    /// Adds words for what stands at `place`.
    pub(super) fn push_words(&mut self, words: &str, place: usize) {
        self.text.push_str(words);
        self.at.extend(words.bytes().map(|_| place));
    }

    /// Adds a character before the others, for what stands at `place`.
    pub(super) fn push_front(&mut self, c: char, place: usize) {
        self.text.insert(0, c);
        self.at.splice(0..0, (0..c.len_utf8()).map(|_| place));
    }

    /// Takes the last character away.
    pub(super) fn pop(&mut self) {
        self.text.pop();
        self.at.truncate(self.text.len());
    }

    /// The place of a byte; that of the last one for those beyond the end.
    pub(super) fn place(&self, byte: usize) -> usize {
        self.at.get(byte).or(self.at.last()).copied().unwrap_or(0)
    }

    /// Takes the first `bytes` away.
    pub(super) fn take(&mut self, bytes: usize) -> Self {
        let text = self.text.split_off(bytes);
        let at = self.at.split_off(bytes);
        std::mem::replace(self, Self { text, at })
    }

    /// Its place in the reply, of which it is bytes `start..end`.
    pub(super) fn origin(&self, start: usize, end: usize) -> Origin {
        Origin::new(start, end, &self.at)
    }
}
