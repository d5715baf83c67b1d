//! Long texts in parts that a model speaks well.
//!
//! A part ends with a sentence where it can, else with a clause, else with a word. There are as few as the limit
//! allows, and as even: a short rest at the end would be spoken in another tone.

use std::ops::Range;

use mk_model::text::Tokenizer;
use unicode_segmentation::UnicodeSegmentation;

use crate::error::Result;

/// The default limit: a minute of speech or less, well within what the models were trained on.
pub const MAX_TOKENS: usize = 200;

/// Where a text may be cut, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Sentence,
    Clause,
    Word,
    Grapheme,
}

/// A piece that is not cut any further at its level, and its tokens.
struct Atom {
    place: Range<usize>,
    tokens: usize,
}

/// Cuts `text` into parts of at most `max_tokens` tokens each (0 is taken as 1). Returns their places in the text, in
/// order, without the whitespace around them; none for a text of whitespace.
///
/// Sentences and words are those of Unicode Standard Annex 29. What has nothing to pronounce stays with what is before
/// it. A grapheme is never cut, however many tokens it has.
///
/// # Errors
/// Those of the tokenizer.
pub fn split(tokenizer: &Tokenizer, text: &str, max_tokens: usize) -> Result<Vec<Range<usize>>> {
    let splitter = Splitter { tokenizer, text, max_tokens: max_tokens.max(1) };
    let mut parts = Vec::new();
    splitter.split(0..text.len(), Cut::Sentence, &mut parts)?;
    Ok(parts)
}

struct Splitter<'a> {
    tokenizer: &'a Tokenizer,
    text: &'a str,
    max_tokens: usize,
}

impl Splitter<'_> {
    fn split(&self, place: Range<usize>, cut: Cut, parts: &mut Vec<Range<usize>>) -> Result<()> {
        let place = self.trimmed(place);
        if place.is_empty() {
            return Ok(());
        }
        if self.fits(&place)? {
            parts.push(place);
            return Ok(());
        }
        let mut fitting = Vec::new();
        for place in self.cut(place, cut) {
            let tokens = self.tokens(&place)?;
            if tokens <= self.max_tokens {
                fitting.push(Atom { place, tokens });
                continue;
            }
            self.pack(&fitting, parts)?;
            fitting.clear();
            match cut.next() {
                Some(cut) => self.split(place, cut, parts)?,
                None => self.join(&[Atom { place, tokens }], parts)?,
            }
        }
        self.pack(&fitting, parts)
    }

    /// Joins atoms to as few parts as the limit allows, and these as even as can be.
    fn pack(&self, atoms: &[Atom], parts: &mut Vec<Range<usize>>) -> Result<()> {
        let fewest = groups(atoms, self.max_tokens).len();
        let (mut low, mut high) = (0, self.max_tokens);
        while low + 1 < high {
            let middle = low.midpoint(high);
            let enough = groups(atoms, middle).len() <= fewest;
            *(if enough { &mut high } else { &mut low }) = middle;
        }
        for group in groups(atoms, high) {
            self.join(group, parts)?;
        }
        Ok(())
    }

    /// Makes one part of atoms, or several in the rare case that they have more tokens together than one by one.
    fn join(&self, atoms: &[Atom], parts: &mut Vec<Range<usize>>) -> Result<()> {
        let (Some(first), Some(last)) = (atoms.first(), atoms.last()) else { return Ok(()) };
        let place = self.trimmed(first.place.start..last.place.end);
        if atoms.len() > 1 && !self.fits(&place)? {
            let (left, right) = atoms.split_at(atoms.len() / 2);
            self.join(left, parts)?;
            return self.join(right, parts);
        }
        if !place.is_empty() {
            parts.push(place);
        }
        Ok(())
    }

    /// The pieces of a place at a level, each with the unpronounceable ones that follow it.
    fn cut(&self, place: Range<usize>, cut: Cut) -> Vec<Range<usize>> {
        let text = &self.text[place.clone()];
        let pieces: Vec<&str> = match cut {
            Cut::Sentence => text.split_sentence_bounds().collect(),
            Cut::Clause => clauses(text),
            Cut::Word => text.split_word_bounds().collect(),
            Cut::Grapheme => text.graphemes(true).collect(),
        };
        let mut places: Vec<Range<usize>> = Vec::new();
        let mut start = place.start;
        for piece in pieces {
            let end = start + piece.len();
            match places.last_mut() {
                Some(last) if cut != Cut::Grapheme && !piece.contains(char::is_alphanumeric) => {
                    last.end = end;
                }
                _ => places.push(start..end),
            }
            start = end;
        }
        places
    }

    fn fits(&self, place: &Range<usize>) -> Result<bool> {
        let text = &self.text[place.clone()];
        Ok(self.tokenizer.encode_plain(text)?.len() <= self.max_tokens)
    }

    /// The most tokens that a place has, with the whitespace around it or without.
    fn tokens(&self, place: &Range<usize>) -> Result<usize> {
        let text = &self.text[place.clone()];
        let tokens = |text: &str| self.tokenizer.encode_plain(text).map(|ids| ids.len());
        Ok(tokens(text)?.max(tokens(text.trim())?))
    }

    fn trimmed(&self, place: Range<usize>) -> Range<usize> {
        let text = &self.text[place.clone()];
        let start = place.end - text.trim_start().len();
        start..start + text.trim().len()
    }
}

impl Cut {
    fn next(self) -> Option<Self> {
        match self {
            Self::Sentence => Some(Self::Clause),
            Self::Clause => Some(Self::Word),
            Self::Word => Some(Self::Grapheme),
            Self::Grapheme => None,
        }
    }
}

/// Atoms taken together as long as they have `limit` tokens at most; one with more is by itself.
fn groups(atoms: &[Atom], limit: usize) -> Vec<&[Atom]> {
    let mut groups = Vec::new();
    let (mut start, mut tokens) = (0, 0);
    for (i, atom) in atoms.iter().enumerate() {
        if i > start && tokens + atom.tokens > limit {
            groups.push(&atoms[start..i]);
            (start, tokens) = (i, 0);
        }
        tokens += atom.tokens;
    }
    if start < atoms.len() {
        groups.push(&atoms[start..]);
    }
    groups
}

/// A text cut after marks that end a clause. Those of ASCII do so before whitespace only: there is none in 1,000.
fn clauses(text: &str) -> Vec<&str> {
    let mut clauses = Vec::new();
    let mut start = 0;
    let mut characters = text.char_indices().peekable();
    while let Some((at, c)) = characters.next() {
        let next = characters.peek().map(|&(_, next)| next);
        let ends = match c {
            ',' | ';' | ':' => next.is_none_or(char::is_whitespace),
            '—' | '–' | '…' | '、' | '，' | '；' | '：' | '،' | '؛' => true,
            _ => false,
        };
        // A mark with a diacritic on it is one grapheme.
        let end = at + c.len_utf8();
        if ends
            && text[at..].graphemes(true).next().is_some_and(|grapheme| grapheme.len() == end - at)
        {
            clauses.push(&text[start..end]);
            start = end;
        }
    }
    clauses.push(&text[start..]);
    clauses
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::text::tests::TOKENIZER;

    fn parts(text: &str, max_tokens: usize) -> Vec<&str> {
        let places = split(&TOKENIZER, text, max_tokens).expect("any text");
        places.into_iter().map(|place| &text[place]).collect()
    }

    fn tokens(text: &str) -> usize {
        TOKENIZER.encode_plain(text).expect("any text").len()
    }

    #[test]
    fn a_short_text_is_one_part() {
        assert_eq!(parts(" Hello. How are you?\n", 200), ["Hello. How are you?"]);
        assert!(parts(" \n", 200).is_empty() && parts("", 200).is_empty());
    }

    #[test]
    fn sentences_are_kept_whole_and_parts_even() {
        let sentence = "The quick brown fox jumps. ";
        let text = sentence.repeat(11);
        let parts = parts(&text, tokens(sentence) * 8);
        let sentences: Vec<usize> = parts.iter().map(|part| part.matches("fox").count()).collect();
        assert_eq!(sentences, [5, 6]);
        assert!(parts.iter().all(|part| part.ends_with("jumps.")));
    }

    #[test]
    fn clauses_words_and_graphemes_where_there_is_nothing_better() {
        let clause = "the quick brown fox jumps over it, ";
        for part in parts(&clause.repeat(8), tokens(clause) * 3) {
            assert!(part.starts_with("the") && part.ends_with(','), "{part:?}");
        }
        for part in parts(&"brown fox ".repeat(50), 20) {
            assert!(part.starts_with("brown") || part.starts_with("fox"), "{part:?}");
            assert!(part.ends_with("brown") || part.ends_with("fox"), "{part:?}");
        }
        let family = "👨‍👩‍👧‍👦";
        for part in parts(&family.repeat(20), tokens(family) * 2) {
            assert_eq!(part, family.repeat(part.len() / family.len()));
        }
        assert_eq!(parts(&family.repeat(3), 0), [family; 3]);
    }

    #[test]
    fn numbers_are_no_clauses() {
        assert_eq!(clauses("1,000 at 12:30, or so"), ["1,000 at 12:30,", " or so"]);
        assert_eq!(clauses("好，你：好"), ["好，", "你：", "好"]);
        assert_eq!(clauses("a,\u{301} b"), ["a,\u{301} b"]);
    }

    #[test]
    fn chinese_is_cut_at_its_own_marks() {
        let sentence = "今天天气很好，我们去公园吧。";
        let text = sentence.repeat(6);
        for part in parts(&text, tokens(sentence) * 2) {
            assert!(part.ends_with('。') && part.starts_with('今'), "{part:?}");
        }
        let text = "今天天气很好，".repeat(6);
        for part in parts(&text, tokens(&text) / 2) {
            assert!(part.ends_with('，'), "{part:?}");
        }
    }

    #[test]
    fn what_cannot_be_pronounced_is_no_part_of_its_own() {
        let text = "Go home now. ... !!! (Go home now.) ?! Go.";
        for part in parts(text, tokens("Go home now. ... !!!")) {
            assert!(part.starts_with("Go") || part.starts_with("(Go"), "{part:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_the_limit_holds(
            bits in prop::collection::vec(prop::sample::select(vec![
                "word", "Two words", " ", ". ", "! ", ", ", "\n\n", "你好", "。", "，", "e\u{301}", "👩‍💻", "1,000", "...",
                "\u{0}", "\u{301}", "extraordinarily",
            ]), 0..60),
            max_tokens in 0..40usize,
        ) {
            let text = bits.concat();
            let places = split(&TOKENIZER, &text, max_tokens).expect("any text");
            let mut end = 0;
            for place in places {
                prop_assert!(text[end..place.start].trim().is_empty());
                end = place.end;
                let part = &text[place];
                prop_assert!(!part.is_empty() && part == part.trim());
                prop_assert!(tokens(part) <= max_tokens.max(1) || part.graphemes(true).count() == 1);
            }
            prop_assert!(text[end..].trim().is_empty());
        }
    }
}
