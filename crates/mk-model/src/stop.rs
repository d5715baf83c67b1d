//! Stop strings in text that arrives in pieces.

use crate::error::{Error, Result};

/// Watches a stream of text for the first of several strings.
///
/// Text that may yet turn out to begin a stop string is held back, so nothing of a stop string is ever handed out.
/// The strings are looked for in the text alone: where it was cut into pieces makes no difference.
///
/// The match that ends first wins, since only what has arrived can be judged; of several that end at the same
/// character, the one that begins first. For the strings `bc` and `abcd`, the text `xabcd` stops at `bc`, after `xa`.
#[derive(Debug, Clone)]
pub struct StopStrings {
    strings: Vec<String>,
    held: String,
    stopped: bool,
}

/// What one piece of text led to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Piece {
    /// Text that is certain to stand before any stop string; may begin with text held back earlier.
    pub text: String,
    /// Whether a stop string was found, now or before.
    pub stopped: bool,
}

impl StopStrings {
    /// Watches for `strings`; for none of them, all text passes at once.
    ///
    /// # Errors
    /// [`Error::Sampling`] for an empty string, which every text holds.
    pub fn new(strings: impl IntoIterator<Item = impl Into<String>>) -> Result<Self> {
        let strings: Vec<String> = strings.into_iter().map(Into::into).collect();
        if strings.iter().any(String::is_empty) {
            return Err(Error::Sampling {
                name: "stop",
                value: format!("{strings:?}"),
                expected: "expected strings of at least one character",
            });
        }
        Ok(Self { strings, held: String::new(), stopped: false })
    }

    /// Takes the next piece of text. After a match, all further text is dropped.
    pub fn push(&mut self, piece: &str) -> Piece {
        if self.stopped {
            return Piece { text: String::new(), stopped: true };
        }
        let mut text = std::mem::take(&mut self.held) + piece;
        let matches = self.strings.iter().filter_map(|stop| {
            let start = text.find(stop.as_str())?;
            Some((start + stop.len(), start))
        });
        if let Some((_, start)) = matches.min() {
            text.truncate(start);
            self.stopped = true;
        } else {
            self.held = text.split_off(self.undecided(&text));
        }
        Piece { text, stopped: self.stopped }
    }

    /// What was held back, once no more text comes; nothing after a match. Then another text may begin.
    pub fn finish(&mut self) -> String {
        self.stopped = false;
        std::mem::take(&mut self.held)
    }

    /// Where the longest end of `text` begins that a stop string begins with.
    fn undecided(&self, text: &str) -> usize {
        let longest = self.strings.iter().map(String::len).max().unwrap_or(0);
        let first = text.floor_char_boundary(text.len().saturating_sub(longest));
        let mut starts = text[first..].char_indices().map(|(offset, _)| first + offset);
        starts
            .find(|start| self.strings.iter().any(|stop| stop.starts_with(&text[*start..])))
            .unwrap_or(text.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(strings: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut stop = StopStrings::new(strings.iter().copied()).unwrap();
        let mut out = String::new();
        let mut stopped = false;
        for piece in pieces {
            let piece = stop.push(piece);
            out += &piece.text;
            stopped = piece.stopped;
        }
        out += &stop.finish();
        (out, stopped)
    }

    #[test]
    fn an_empty_string_is_refused() {
        assert!(matches!(StopStrings::new(["a", ""]), Err(Error::Sampling { name: "stop", .. })));
        assert_eq!(run(&[], &["a", "b"]), ("ab".into(), false));
    }

    #[test]
    fn what_may_begin_a_stop_string_is_held_back() {
        let mut stop = StopStrings::new(["\n\nUser:"]).unwrap();
        assert_eq!(stop.push("Yes.\n"), Piece { text: "Yes.".into(), stopped: false });
        assert_eq!(stop.push("\nUse"), Piece { text: "".into(), stopped: false });
        assert_eq!(stop.push("d"), Piece { text: "\n\nUsed".into(), stopped: false });
        assert_eq!(stop.push("\n"), Piece { text: "".into(), stopped: false });
        assert_eq!(stop.finish(), "\n");
    }

    #[test]
    fn nothing_follows_a_match() {
        let mut stop = StopStrings::new(["END"]).unwrap();
        assert_eq!(stop.push("a EN"), Piece { text: "a ".into(), stopped: false });
        assert_eq!(stop.push("D b"), Piece { text: "".into(), stopped: true });
        assert_eq!(stop.push("c"), Piece { text: "".into(), stopped: true });
        assert_eq!(stop.finish(), "");
        assert_eq!(stop.push("again"), Piece { text: "again".into(), stopped: false });
    }

    #[test]
    fn strings_that_overlap() {
        assert_eq!(run(&["bc", "abcd"], &["xab", "cd"]), ("xa".into(), true));
        assert_eq!(run(&["bc", "abc"], &["xab", "c"]), ("x".into(), true));
        assert_eq!(run(&["ab", "abc"], &["xabc"]), ("x".into(), true));
        assert_eq!(run(&["aab"], &["aa", "a", "b"]), ("a".into(), true));
        assert_eq!(run(&["é!"], &["cafe", "é", "?é", "!"]), ("cafeé?".into(), true));
    }

    /// Character by character: the first end of any stop string, and the earliest start for that end.
    fn naive(strings: &[String], text: &str) -> (String, bool) {
        let ends = (0..=text.len()).filter(|end| text.is_char_boundary(*end));
        for end in ends {
            let ending = strings.iter().filter(|stop| text[..end].ends_with(stop.as_str()));
            if let Some(longest) = ending.map(String::len).max() {
                return (text[..end - longest].into(), true);
            }
        }
        (text.into(), false)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn as_a_search_of_the_whole_text(
            strings in prop::collection::vec("[abé]{1,4}", 0..4),
            text in "[abcé]{0,24}",
            cuts in prop::collection::vec(0_usize..40, 0..8),
        ) {
            let mut cuts: Vec<usize> =
                cuts.into_iter().map(|cut| text.floor_char_boundary(cut)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&str> = cuts.windows(2).map(|w| &text[w[0]..w[1]]).collect();
            let strings_ref: Vec<&str> = strings.iter().map(String::as_str).collect();
            prop_assert_eq!(run(&strings_ref, &pieces), naive(&strings, &text));
        }

        /// Nothing is held back longer than needed: what is held always begins a stop string.
        #[test]
        fn only_beginnings_are_held(strings in prop::collection::vec("[ab]{1,4}", 1..4), text in "[abc]{0,16}") {
            let mut stop = StopStrings::new(strings.clone()).unwrap();
            for c in text.chars() {
                let piece = stop.push(c.encode_utf8(&mut [0; 4]));
                if piece.stopped {
                    break;
                }
                prop_assert!(stop.held.is_empty() || strings.iter().any(|s| s.starts_with(&stop.held)));
            }
        }
    }
}
