//! From the deltas of a language model to pieces that are spoken.

use super::language::Language;
use super::origin::Origin;

/// How a reply is cut into pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkOptions {
    /// The first piece ends with its first clause, or with the word that makes it this long, in characters of an
    /// alphabet (one of Chinese, Japanese or Korean counts for two). Default: 30.
    pub first_chars: usize,
    /// Later pieces are sentences; one that gets longer than this is cut after a clause, then after a word.
    /// Default: 200.
    pub later_chars: usize,
    /// What is said of a block of code. Default: nothing.
    pub code: CodeBlocks,
}

/// What is said of a block of code.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum CodeBlocks {
    /// Nothing.
    #[default]
    Skip,
    /// These words, "code omitted" say.
    Say(String),
    /// The code itself.
    Read,
}

impl Default for ChunkOptions {
    fn default() -> Self {
        Self { first_chars: 30, later_chars: 200, code: CodeBlocks::default() }
    }
}

/// Something to be spoken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The words. Those of all pieces, one after the other, are the whole of what is spoken of the reply, so a piece
    /// begins with a space where one is due.
    pub spoken: String,
    /// Where they are in the reply.
    pub origin: Origin,
    /// Whether a sentence ends with it.
    pub sentence_end: bool,
}

/// Turns the text of one reply, delta by delta, into pieces to be spoken.
///
/// What comes out does not depend on how the text is cut into deltas.
#[derive(Debug, Clone)]
pub struct Speaker {
    options: ChunkOptions,
    reply: String,
    /// Where the next piece begins.
    start: usize,
}

impl Speaker {
    /// A speaker of one reply in a language.
    pub fn new(language: Language, options: ChunkOptions) -> Self {
        let _ = language;
        Self { options, reply: String::new(), start: 0 }
    }

    /// Takes the next part of the reply, and returns the pieces that have become certain.
    pub fn push(&mut self, delta: &str) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for c in delta.chars() {
            let before = self.reply.chars().next_back();
            let limit =
                if self.start == 0 { self.options.first_chars } else { self.options.later_chars };
            let sentence = matches!(before, Some('.' | '!' | '?'));
            let clause = matches!(before, Some(',' | ';' | ':'));
            let long = self.reply.len() - self.start >= limit;
            if c.is_whitespace() && (sentence || long || clause && self.start == 0) {
                pieces.extend(self.cut(sentence));
            }
            self.reply.push(c);
        }
        pieces
    }

    /// Ends the reply, and returns the rest of its pieces.
    pub fn finish(&mut self) -> Vec<Piece> {
        self.cut(true).into_iter().collect()
    }

    /// All deltas so far, as written.
    pub fn reply(&self) -> &str {
        &self.reply
    }

    fn cut(&mut self, sentence_end: bool) -> Option<Piece> {
        let spoken = self.reply[self.start..].to_owned();
        if !spoken.contains(char::is_alphanumeric) {
            return None;
        }
        let mut origin = Origin::new(self.start);
        origin.add(0, self.start, spoken.len());
        origin.close(self.reply.len());
        self.start = self.reply.len();
        Some(Piece { spoken, origin, sentence_end })
    }
}
