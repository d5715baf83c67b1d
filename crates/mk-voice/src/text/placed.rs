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

    /// Adds bytes `from..to` of another text.
    pub(super) fn push_part(&mut self, other: &Self, from: usize, to: usize) {
        self.text.push_str(&other.text[from..to]);
        self.at.extend_from_slice(&other.at[from..to]);
    }

    /// The place of a byte; that of the last one for those beyond the end.
    pub(super) fn place(&self, byte: usize) -> usize {
        self.at.get(byte).or(self.at.last()).copied().unwrap_or(0)
    }

    /// Takes the first `bytes` away.
    pub(super) fn take(&mut self, bytes: usize) -> Self {
        let text = self.text[bytes..].to_owned();
        let at = self.at.split_off(bytes);
        let taken = Self { text: std::mem::replace(&mut self.text, text), at: std::mem::replace(&mut self.at, at) };
        Self { text: taken.text[..bytes].to_owned(), at: taken.at }
    }

    /// Its place in the reply, of which it is bytes `start..end`.
    pub(super) fn origin(&self, start: usize, end: usize) -> Origin {
        Origin::new(start, end, &self.at)
    }
}
