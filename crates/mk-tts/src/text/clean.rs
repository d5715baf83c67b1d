//! What a caller's text becomes before it is tokenised.
//!
//! Removed are: whitespace at both ends, control characters, byte order marks, and what reads like one of the
//! tokenizer's special tokens (`<|im_end|>`, `<tts_pad>`), which a model that writes texts may leave in them and nobody
//! wants to hear spelled out. The places of what is left are kept, so that a caller can be told which of his own
//! characters were spoken.

use std::ops::Range;
use std::sync::Arc;

use mk_model::text::Tokenizer;

use crate::error::{Error, Result};

/// Characters of whitespace that are kept in a row. More are not heard, and would have to be held back while a text is
/// being written.
const MAX_SPACES: usize = 64;

/// A text as it is spoken, and where it is in the caller's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CleanText {
    /// The text.
    pub text: String,
    /// Its places in the text it was made of.
    pub origin: Origin,
}

/// Places of a clean text in the original.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// In order, without gaps in the clean text.
    runs: Vec<Run>,
}

/// Bytes of the clean text and what they stand for. Where both have the same length they are the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    clean: Range<usize>,
    original: Range<usize>,
}

/// Cleans a text while it is being written. What it gives, all together, does not depend on how the text is cut.
///
/// Held back is what may yet turn out to be a special token, and the whitespace that may be the last.
#[derive(Debug, Clone)]
pub struct Cleaner {
    specials: Arc<[String]>,
    /// What may be the beginning of a special token, with the place of each character.
    held: String,
    places: Vec<usize>,
    /// Bytes taken so far.
    taken: usize,
    /// Whitespace since the last character that was given out.
    spaces: Vec<Character>,
    /// The special token last met, if only whitespace has come since.
    removed: Option<Range<usize>>,
    /// Bytes given out so far.
    given: usize,
    origin: Origin,
}

/// A character to be given out, and what of the original it stands for.
#[derive(Debug, Clone)]
struct Character {
    c: char,
    original: Range<usize>,
}

/// Cleans a text that is whole.
///
/// # Errors
/// [`Error::EmptyText`] where nothing is left.
pub fn clean(tokenizer: &Tokenizer, text: &str) -> Result<CleanText> {
    let mut cleaner = Cleaner::new(tokenizer);
    let mut clean = cleaner.push(text);
    clean += &cleaner.finish();
    if clean.is_empty() {
        return Err(Error::EmptyText);
    }
    Ok(CleanText { text: clean, origin: cleaner.origin })
}

impl Cleaner {
    /// A cleaner for one text.
    pub fn new(tokenizer: &Tokenizer) -> Self {
        let ids = 0..tokenizer.vocab_size() as u32;
        let specials = ids.filter(|&id| tokenizer.is_special(id));
        let specials = specials.filter_map(|id| tokenizer.token(id));
        Self {
            specials: specials.filter(|token| !token.is_empty()).collect(),
            held: String::new(),
            places: Vec::new(),
            taken: 0,
            spaces: Vec::new(),
            removed: None,
            given: 0,
            origin: Origin::default(),
        }
    }

    /// Takes the next part of the text, cut between any two characters, and returns what is final of the clean text.
    pub fn push(&mut self, text: &str) -> String {
        let mut clean = String::new();
        for c in text.chars() {
            let place = self.taken;
            self.taken += c.len_utf8();
            if is_heard(c) {
                self.held.push(c);
                self.places.push(place);
                self.settle(&mut clean, false);
            }
        }
        clean
    }

    /// Ends the text and returns the rest of the clean text.
    pub fn finish(&mut self) -> String {
        let mut clean = String::new();
        self.settle(&mut clean, true);
        self.spaces.clear();
        clean
    }

    /// The places of all that was given out so far.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Gives out, or removes, what cannot become (more of) a special token.
    fn settle(&mut self, clean: &mut String, last: bool) {
        while let Some(c) = self.held.chars().next() {
            let more =
                |token: &&String| token.len() > self.held.len() && token.starts_with(&self.held);
            if !last && self.specials.iter().any(|token| more(&token)) {
                return;
            }
            let found = self.specials.iter().filter(|token| self.held.starts_with(token.as_str()));
            let longest = found.map(String::len).max();
            let length = longest.unwrap_or(c.len_utf8());
            let characters = self.held[..length].chars().count();
            let last_length = self.held[..length].chars().next_back().map_or(0, char::len_utf8);
            let original = self.places[0]..self.places[characters - 1] + last_length;
            self.held.drain(..length);
            self.places.drain(..characters);
            match longest {
                Some(_) => self.removed = Some(original),
                None => self.give(Character { c, original }, clean),
            }
        }
    }

    /// Gives out a character, together with the whitespace before it. A special token leaves a space where there is
    /// none, so that what was before and after it does not become one word; and where there are spaces on both sides,
    /// only those before it stay.
    fn give(&mut self, character: Character, clean: &mut String) {
        if character.c.is_whitespace() {
            let doubled = self.removed.is_some() && !self.spaces.is_empty() && character.c == ' ';
            if self.given > 0 && self.spaces.len() < MAX_SPACES && !doubled {
                self.spaces.push(character);
            }
            return;
        }
        if let Some(original) = self.removed.take()
            && self.spaces.is_empty()
            && self.given > 0
        {
            self.spaces.push(Character { c: ' ', original });
        }
        for Character { c, original } in self.spaces.drain(..).chain([character]) {
            clean.push(c);
            self.origin.add(self.given..self.given + c.len_utf8(), original);
            self.given += c.len_utf8();
        }
    }
}

impl Origin {
    /// What of the original a range of the clean text stands for. Both are bytes; a range that is not within the clean
    /// text is clipped to it, and an empty one is where the text after it begins.
    pub fn of(&self, clean: Range<usize>) -> Range<usize> {
        let (start, end) = (self.start(clean.start), self.end(clean.end));
        if clean.is_empty() { start..start } else { start..end }
    }

    fn start(&self, at: usize) -> usize {
        let run = self.runs.partition_point(|run| run.clean.end <= at);
        match (self.runs.get(run), self.runs.last()) {
            (Some(run), _) if run.is_copy() => run.original.start + (at - run.clean.start),
            (Some(run), _) => run.original.start,
            (None, last) => last.map_or(0, |run| run.original.end),
        }
    }

    fn end(&self, at: usize) -> usize {
        let run = self.runs.partition_point(|run| run.clean.end < at);
        match (self.runs.get(run), self.runs.last()) {
            (Some(run), _) if run.is_copy() => run.original.start + (at - run.clean.start),
            (Some(run), _) => run.original.end,
            (None, last) => last.map_or(0, |run| run.original.end),
        }
    }

    fn add(&mut self, clean: Range<usize>, original: Range<usize>) {
        let new = Run { clean, original };
        match self.runs.last_mut() {
            Some(run)
                if run.is_copy() && new.is_copy() && run.original.end == new.original.start =>
            {
                run.clean.end = new.clean.end;
                run.original.end = new.original.end;
            }
            _ => self.runs.push(new),
        }
    }
}

impl Run {
    fn is_copy(&self) -> bool {
        self.clean.len() == self.original.len()
    }
}

fn is_heard(c: char) -> bool {
    c != '\u{FEFF}' && (!c.is_control() || c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::text::tests::TOKENIZER;

    fn cleaned(text: &str) -> String {
        clean(&TOKENIZER, text).expect("something is left").text
    }

    #[test]
    fn what_is_not_spoken_is_removed() {
        for (text, expected) in [
            ("  \u{3000}Hello  world \n", "Hello  world"),
            ("\u{FEFF}a\u{0}b\u{7F}\u{9B}c\td", "abc\td"),
            ("<|im_start|>assistant", "assistant"),
            ("Yes.<|im_end|>", "Yes."),
            ("Yes.<|im_end|>No.", "Yes. No."),
            ("Yes. <|im_end|> No.", "Yes. No."),
            ("Yes. <|im_end|>\n\nNo.", "Yes. \n\nNo."),
            ("Yes.<|im_end|>\nNo.", "Yes.\nNo."),
            ("a<|im_end|><|im_start|>b", "a b"),
            ("a <|im_end|> <|im_start|> b", "a b"),
            // Nothing that is removed makes a token of what is left.
            ("<|im_\u{0}end|>x", "x"),
            ("<|im_<|im_end|>end|>", "<|im_ end|>"),
            ("<|im_end| <|IM_END|> <|im_end", "<|im_end| <|IM_END|> <|im_end"),
            // Not special in this vocabulary: text like any other.
            ("<think>", "<think>"),
            ("👩‍💻 e\u{301}", "👩‍💻 e\u{301}"),
        ] {
            assert_eq!(cleaned(text), expected, "{text:?}");
        }
        assert_eq!(cleaned(&format!("a{}b", " ".repeat(1_000))).len(), 2 + MAX_SPACES);
    }

    #[test]
    fn a_text_of_nothing_is_refused() {
        for text in ["", " \n\u{3000}", "<|im_end|>", " <|im_end|> <|endoftext|>\u{0}"] {
            assert!(matches!(clean(&TOKENIZER, text), Err(Error::EmptyText)), "{text:?}");
        }
    }

    #[test]
    fn places_are_those_of_the_original() {
        let text = "  Yes.<|im_end|>\u{0}Né\u{0}o.  ";
        let CleanText { text: clean, origin } = clean(&TOKENIZER, text).expect("some text");
        assert_eq!(clean, "Yes. Néo.");
        let original = |part: &str| {
            let at = clean.find(part).expect("a part");
            &text[origin.of(at..at + part.len())]
        };
        assert_eq!(original("Yes"), "Yes");
        assert_eq!(original("Yes."), "Yes.");
        assert_eq!(original(" "), "<|im_end|>");
        assert_eq!(original("N"), "N");
        assert_eq!(original("éo"), "é\u{0}o");
        assert_eq!(original(&clean), text.trim());
        assert_eq!((origin.of(0..0), origin.of(99..120)), (2..2, 23..23));
    }

    #[test]
    fn little_is_held_back() {
        let mut cleaner = Cleaner::new(&TOKENIZER);
        assert_eq!(cleaner.push("Hello <|im_"), "Hello");
        assert_eq!(cleaner.push("e"), "");
        assert_eq!(cleaner.push("x"), " <|im_ex");
        assert_eq!(cleaner.push("  "), "");
        assert_eq!(cleaner.push(&" ".repeat(100_000)), "");
        assert!(cleaner.spaces.len() <= MAX_SPACES);
        assert_eq!(cleaner.push("<"), "");
        assert_eq!(cleaner.finish().trim_start(), "<");
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(
            bits in prop::collection::vec(prop::sample::select(vec![
                "a", "é", "文", " ", "  ", "\n", "\u{0}", "<", "|", "im_end", "<|im_end|>", "<|im_start|>",
                "<|endof", "text|>", "\u{FEFF}", "😀",
            ]), 0..16),
            size in 1..9usize,
        ) {
            let text = bits.concat();
            let mut cleaner = Cleaner::new(&TOKENIZER);
            let characters: Vec<char> = text.chars().collect();
            let parts = characters.chunks(size).map(|part| cleaner.push(&part.iter().collect::<String>()));
            let mut streamed = parts.collect::<String>();
            streamed += &cleaner.finish();
            match clean(&TOKENIZER, &text) {
                Ok(whole) => {
                    prop_assert_eq!(&streamed, &whole.text);
                    prop_assert_eq!(cleaner.origin(), &whole.origin);
                    prop_assert_eq!(whole.text.trim(), &whole.text);
                    prop_assert!(!whole.text.contains("<|im_end|>"));
                    let mut end = 0;
                    for (at, c) in whole.text.char_indices() {
                        let place = whole.origin.of(at..at + c.len_utf8());
                        prop_assert!(place.start >= end);
                        let original = &text[place.clone()];
                        prop_assert!(original == c.to_string() || (c == ' ' && original.len() > 1));
                        end = place.end;
                    }
                }
                Err(_) => prop_assert_eq!(streamed, ""),
            }
        }
    }
}
