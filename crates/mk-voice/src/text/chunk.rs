//! Where text that is being written is cut into pieces.

use unicode_segmentation::UnicodeSegmentation;

use super::language::Language;
use super::placed::Placed;
use super::sentence::{self, is_wide};

/// Bytes without a place to cut, after which the text is cut anywhere. It bounds what a broken writer can make us hold.
pub(super) const MAX_HELD: usize = 1024;

/// Text up to a place where it was cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) text: Placed,
    pub(super) end: End,
    /// Where in the reply it ends.
    pub(super) place: usize,
}

/// What ends with a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Nothing: the sentence goes on.
    Open,
    /// A sentence.
    Sentence,
    /// A block: a paragraph, an item, a heading, a row.
    Block,
    /// The reply.
    Reply,
}

/// Cuts text where it becomes certain that it may be cut.
#[derive(Debug, Clone)]
pub(super) struct Chunker {
    language: Language,
    first_chars: usize,
    later_chars: usize,
    /// Whether no piece has been made yet.
    first: bool,
    held: Placed,
    /// Where in the reply it ends.
    end: usize,
    /// How long the held text is, in characters of an alphabet.
    length: usize,
    /// Ends of the last clause and of the last word in the held text.
    clause: Option<usize>,
    word: Option<usize>,
    cuts: Vec<Cut>,
}

impl Chunker {
    pub(super) fn new(language: Language, first_chars: usize, later_chars: usize) -> Self {
        Self {
            language,
            first_chars,
            later_chars: later_chars.max(1),
            first: true,
            held: Placed::default(),
            end: 0,
            length: 0,
            clause: None,
            word: None,
            cuts: Vec::new(),
        }
    }

    /// The pieces since the last call.
    pub(super) fn take_cuts(&mut self) -> Vec<Cut> {
        std::mem::take(&mut self.cuts)
    }

    /// Takes the next character, which stands at a place of the reply.
    pub(super) fn push(&mut self, c: char, place: usize) {
        let after = place + c.len_utf8();
        let c = if c.is_whitespace() { ' ' } else { c };
        if c.is_control() {
            return;
        }
        let last = self.held.text.chars().next_back();
        if !c.is_whitespace() && last.is_some_and(char::is_whitespace) {
            self.word_begins(c);
        } else if is_wide(c)
            && c.is_alphanumeric()
            && last.is_some_and(|last| is_wide(last) && !is_run(last, c))
        {
            self.wide_word_begins();
        }
        self.held.push(c, place);
        self.end = after;
        self.length += width(c);
        let end = self.held.text.len();
        if sentence::ends_at_once(&self.held.text) {
            self.cut(end, End::Sentence);
        } else if sentence::is_clause_mark_at_once(c) && !sentence::is_markup_open(&self.held.text)
        {
            self.clause_ends(end);
        }
        self.shorten();
    }

    /// A line ends; whether the next one goes on with the sentence is not known yet.
    pub(super) fn line_ends(&mut self, place: usize) {
        if sentence::has_mark(&self.held.text) {
            self.cut_at(self.held.text.len(), End::Block, place);
        }
    }

    /// A block ends at a place of the reply.
    pub(super) fn block_ends(&mut self, place: usize) {
        self.cut_at(self.held.text.len(), End::Block, place);
        // Something is between this block and the next, also where nothing of it can be spoken.
        if !self.held.text.ends_with(' ') {
            self.held.push(' ', place);
            self.end = place;
            self.length += 1;
        }
        self.shorten();
    }

    /// A cell of a table ends, and another follows.
    pub(super) fn cell_ends(&mut self, place: usize) {
        while self.held.text.ends_with(' ') && self.held.text.contains(char::is_alphanumeric) {
            self.held.pop();
            self.length -= 1;
        }
        self.push(',', place);
        self.push(' ', place);
    }

    /// Words that are not written are said at a place.
    pub(super) fn say(&mut self, words: &str, place: usize) {
        if !words.is_empty() {
            self.held.push_words(words, place);
            self.length += words.chars().map(width).sum::<usize>();
            self.cut_at(self.held.text.len(), End::Block, place);
        }
    }

    /// Ends the reply.
    pub(super) fn finish(&mut self, place: usize) {
        self.cut_at(self.held.text.len(), End::Reply, place);
    }

    /// A word begins with `c` after whitespace.
    fn word_begins(&mut self, c: char) {
        let before = self.held.text.trim_end();
        let end = before.len();
        if end == 0 || sentence::is_markup_open(before) {
            return;
        }
        if sentence::ends(before, c, self.language) {
            self.cut(end, End::Sentence);
        } else if sentence::is_clause(before, c, self.language) {
            self.clause_ends(end);
        } else {
            // "$5 million", "5 km" and "May 5" are read as a whole.
            if !sentence::is_one_number(before, c) || self.length >= self.later_chars {
                self.word = Some(end);
                if self.first && self.length >= self.first_chars {
                    self.cut(end, End::Open);
                }
            }
        }
    }

    /// A character begins that is a word of its own, as in Chinese.
    fn wide_word_begins(&mut self) {
        let end = self.held.text.len();
        if sentence::is_markup_open(&self.held.text) {
            return;
        }
        self.word = Some(end);
        if self.first && self.length >= self.first_chars {
            self.cut(end, End::Open);
        }
    }

    fn clause_ends(&mut self, end: usize) {
        self.clause = Some(end);
        if self.first {
            self.cut(end, End::Open);
        }
    }

    /// Cuts a sentence that has become too long.
    fn shorten(&mut self) {
        while self.length > self.later_chars {
            let before = self.length;
            if let Some(end) = self.clause.take().or_else(|| self.word.take()) {
                self.cut(end, End::Open);
            } else if self.held.text.len() > MAX_HELD {
                let last = self.held.text.grapheme_indices(true).next_back();
                let end = last.map_or(0, |(at, _)| at);
                self.force(if end == 0 { self.held.text.len() } else { end });
            }
            if self.length == before {
                break;
            }
        }
    }

    /// Cuts after `end` bytes, unless there is nothing to be spoken in them.
    fn cut(&mut self, end: usize, kind: End) {
        let place = if end == self.held.text.len() { self.end } else { self.held.place(end) };
        self.cut_at(end, kind, place);
    }

    fn cut_at(&mut self, end: usize, kind: End, place: usize) {
        if !self.held.text[..end].contains(char::is_alphanumeric) {
            return;
        }
        let text = self.held.take(end);
        self.length = self.held.text.chars().map(width).sum();
        self.clause = self.clause.and_then(|at| at.checked_sub(end)).filter(|&at| at > 0);
        self.word = self.word.and_then(|at| at.checked_sub(end)).filter(|&at| at > 0);
        self.first = false;
        self.cuts.push(Cut { text, end: kind, place });
    }

    /// Cuts after `end` bytes, or drops them where there is nothing to be spoken in them.
    fn force(&mut self, end: usize) {
        self.cut(end, End::Open);
        if self.held.text.len() > MAX_HELD {
            self.held.take(end);
            self.length = self.held.text.chars().map(width).sum();
        }
    }
}

/// How long a character is to speak, next to one of an alphabet.
fn width(c: char) -> usize {
    if is_wide(c) { 2 } else { 1 }
}

/// Whether two characters are of one word in katakana or hangul, which both write words in a row.
fn is_run(a: char, b: char) -> bool {
    let katakana = |c| matches!(c, '\u{30a0}'..='\u{30ff}' | '\u{ff66}'..='\u{ff9f}');
    let hangul = |c| matches!(c, '\u{1100}'..='\u{11ff}' | '\u{ac00}'..='\u{d7a3}');
    katakana(a) && katakana(b) || hangul(a) && hangul(b)
}
