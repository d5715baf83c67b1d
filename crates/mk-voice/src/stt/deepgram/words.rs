//! Words with their places in the input.

use super::clock::Clock;
use super::messages::WordMessage;

/// A word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    /// Positions in the input.
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Word {
    /// Audio from here on, or up to here, has enough of the word for it to be recognised.
    pub(super) fn middle(&self) -> u64 {
        self.start.midpoint(self.end)
    }
}

/// The words of a message, as they are written in its transcript; none where any of them lacks a time, since then nothing
/// can be told by them.
pub(super) fn timed(words: &[WordMessage], transcript: &str, clock: &Clock) -> Vec<Word> {
    let written: Vec<&str> = transcript.split_whitespace().collect();
    let as_written = written.len() == words.len();
    let timed = words.iter().enumerate().map(|(at, word)| {
        let text = match (as_written, &word.punctuated_word) {
            (true, _) => written[at].to_owned(),
            (false, Some(punctuated)) => punctuated.clone(),
            (false, None) => word.word.clone(),
        };
        let (start, end) = (clock.position(word.start?), clock.position(word.end?));
        Some(Word { text, start, end: end.max(start) })
    });
    timed.collect::<Option<_>>().unwrap_or_default()
}

/// Two stretches of text, one behind the other.
pub(super) fn joined(before: &str, after: &str) -> String {
    let (before, after) = (before.trim(), after.trim());
    if before.is_empty() || after.is_empty() {
        return format!("{before}{after}");
    }
    format!("{before} {after}")
}

/// The words' text.
pub(super) fn text(words: &[Word]) -> String {
    words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(word: &str, start: Option<f64>, end: Option<f64>) -> WordMessage {
        WordMessage { word: word.into(), punctuated_word: None, start, end }
    }

    #[test]
    fn words_are_written_as_in_the_transcript() {
        let mut clock = Clock::new(0);
        clock.sent(16_000);
        let words = || {
            vec![message("hello", Some(0.1), Some(0.2)), message("there", Some(0.25), Some(0.5))]
        };
        let heard = timed(&words(), "Hello, there.", &clock);
        assert_eq!(heard[0], Word { text: "Hello,".into(), start: 1600, end: 3200 });
        assert_eq!(text(&heard), "Hello, there.");
        assert_eq!(text(&timed(&words(), "Hello 2 U", &clock)), "hello there");
        assert!(timed(&[message("hello", Some(0.1), None)], "Hello", &clock).is_empty());
    }

    #[test]
    fn texts_are_joined_by_a_space_where_there_are_two() {
        assert_eq!(joined("a ", " b"), "a b");
        assert_eq!(joined("", "b"), "b");
        assert_eq!(joined("a", " "), "a");
    }
}
