//! Words with the times at which they were said.

/// A word, as it is written, with its times in seconds of audio.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Word {
    pub(crate) text: String,
    pub(crate) start: f64,
    pub(crate) end: f64,
}

impl Word {
    /// A confidence that differs from word to word, and is the same for the same word.
    pub(crate) fn confidence(&self) -> f64 {
        let sum: u32 = self.text.bytes().map(u32::from).sum();
        0.9 + f64::from(sum % 97) / 1000.0
    }

    /// Lower case and without what punctuates it, as Nova-3 gives a word beside its written form.
    pub(crate) fn bare(&self) -> String {
        self.text.trim_matches(|c: char| c.is_ascii_punctuation()).to_lowercase()
    }
}

/// The words as one line.
pub(crate) fn transcript(words: &[Word]) -> String {
    words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ")
}

/// Brings `words` to a new transcript: those that have not changed keep their times, the others share what is left up to
/// `now`. `began` is where the first may begin.
pub(crate) fn revise(words: &mut Vec<Word>, transcript: &str, began: f64, now: f64) {
    let texts: Vec<&str> = transcript.split_whitespace().collect();
    let same = words.iter().zip(&texts).take_while(|(word, text)| word.text == **text).count();
    words.truncate(same);
    let from = words.last().map_or(began, |word| word.end).min(now);
    let share = (now - from) / (texts.len() - same).max(1) as f64;
    for (index, text) in texts[same..].iter().enumerate() {
        let start = from + share * index as f64;
        words.push(Word { text: (*text).to_owned(), start, end: start + share });
    }
}

/// A time in seconds as it is written in messages.
pub(crate) fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_words_keep_their_times_when_others_follow() {
        let mut words = Vec::new();
        revise(&mut words, "what is", 0.5, 1.5);
        assert_eq!((words[1].start, words[1].end), (1.0, 1.5));
        revise(&mut words, "what is it?", 0.5, 2.0);
        assert_eq!(transcript(&words), "what is it?");
        assert_eq!((words[1].start, words[2].start, words[2].end), (1.0, 1.5, 2.0));
        revise(&mut words, "what was it?", 0.5, 2.0);
        assert_eq!((words[0].end, words[1].start, words[2].end), (1.0, 1.0, 2.0));
        assert_eq!(words[2].bare(), "it");
    }
}
