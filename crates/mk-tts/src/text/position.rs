//! How much of a text has been spoken when so many samples have been played.
//!
//! The model does not say which sound belongs to which word. Certain are only: where the speech of a segment begins and
//! ends, and that a token cannot sound before it was fed. In between, the time is shared out by how long the characters
//! of a text take, which is estimated here in syllables.

use std::ops::Range;

use crate::talker::TextToken;

/// Syllables a second, pauses included, before anything is known of the voice.
const USUAL_RATE: f64 = 4.5;

/// Seconds of speech that this first guess counts for, against what is then measured.
const PRIOR_SECONDS: f64 = 4.0;

/// A token of the text, and the syllables it takes.
#[derive(Debug, Clone, PartialEq)]
pub struct SpokenToken {
    /// The token, its place that in the caller's text.
    pub token: TextToken,
    /// How long it takes to speak, by [`syllables`]. Where several tokens are parts of one character, the first has
    /// all of it.
    pub syllables: f32,
}

/// About how many syllables a text takes, pauses counted as syllables.
///
/// English has some 2.8 letters to a syllable, and languages with an alphabet are near enough; a Chinese character, a
/// kana or a Hangul block is one. A digit is a short word. A comma is a pause of 150 ms, the end of a sentence one of
/// 300.
pub fn syllables(text: &str) -> f32 {
    text.chars().map(of_character).sum()
}

fn of_character(c: char) -> f32 {
    match c {
        '.' | '!' | '?' | '…' | '。' | '！' | '？' | '\n' => 1.4,
        ',' | ';' | ':' | '–' | '—' | '、' | '，' | '；' | '：' => 0.7,
        '%' | '$' | '€' | '£' | '¥' | '+' | '=' | '&' | '@' | '#' => 1.5,
        '\u{3041}'..='\u{30FF}'
        | '\u{3400}'..='\u{4DBF}'
        | '\u{4E00}'..='\u{9FFF}'
        | '\u{AC00}'..='\u{D7A3}'
        | '\u{F900}'..='\u{FAFF}'
        | '\u{20000}'..='\u{3FFFF}' => 1.0,
        _ if c.is_numeric() => 1.4,
        _ if c.is_alphabetic() => 0.36,
        _ => 0.0,
    }
}

/// What is known of the speech of one text, segment after segment, and how far it is spoken.
///
/// Positions in the audio are samples from the beginning of the first segment, at one rate; positions in the text are
/// bytes.
#[derive(Debug, Clone)]
pub struct Timeline {
    sample_rate: f64,
    segments: Vec<Segment>,
    /// Syllables and seconds of the segments that are over.
    measured: (f64, f64),
}

#[derive(Debug, Clone)]
struct Segment {
    samples: Range<u64>,
    /// Whether the end of `samples` is where the speech ends, rather than not known.
    ended: bool,
    start: usize,
    tokens: Vec<Fed>,
}

/// A token that was fed, with what it takes to have been spoken.
#[derive(Debug, Clone)]
struct Fed {
    end: usize,
    /// Syllables of the segment up to its end.
    syllables: f64,
    /// The first sample that it can have an influence on.
    from: u64,
}

impl Segment {
    fn syllables(&self) -> f64 {
        self.tokens.last().map_or(0.0, |token| token.syllables)
    }

    fn end(&self) -> usize {
        self.tokens.last().map_or(self.start, |token| token.end)
    }
}

impl Timeline {
    /// A timeline of audio at `sample_rate`.
    pub fn new(sample_rate: u32) -> Self {
        let sample_rate = f64::from(sample_rate.max(1));
        Self { sample_rate, segments: Vec::new(), measured: (0.0, 0.0) }
    }

    /// A segment begins at a sample and with a byte of the text. One that has not ended does so there.
    pub fn begin(&mut self, sample: u64, byte: usize) {
        self.end(sample);
        let samples = sample..sample;
        self.segments.push(Segment { samples, ended: false, start: byte, tokens: Vec::new() });
    }

    /// A token of the segment was fed: nothing of it sounds before sample `from`.
    pub fn feed(&mut self, token: &SpokenToken, from: u64) {
        let Some(segment) = self.segments.last_mut() else { return };
        let syllables = segment.syllables() + f64::from(token.syllables.max(0.0));
        let last = segment.tokens.last().map_or(segment.samples.start, |token| token.from);
        let end = segment.end().max(token.token.text.end);
        segment.tokens.push(Fed { end, syllables, from: from.max(last) });
    }

    /// The speech of the segment ends before a sample: all of its text is spoken there.
    pub fn end(&mut self, sample: u64) {
        let Some(segment) = self.segments.last_mut() else { return };
        if !segment.ended {
            segment.samples.end = sample.max(segment.samples.start);
            segment.ended = true;
            let samples = segment.samples.end - segment.samples.start;
            self.measured.0 += segment.syllables();
            self.measured.1 += samples as f64 / self.sample_rate;
        }
    }

    /// The byte up to which the text is spoken when `played` samples have been played: exactly where a segment begins
    /// or ends, an estimate in between, which never has more than what was fed by then. It grows with `played`; for one
    /// and the same `played` it may change either way as more becomes known.
    pub fn spoken(&self, played: u64) -> usize {
        let begun = self.segments.partition_point(|segment| segment.samples.start <= played);
        self.segments[..begun].last().map_or(0, |segment| self.within(segment, played))
    }

    /// [`Timeline::spoken`] for all that is known: wherever it grows, looked at every so many samples, and at the end.
    pub fn marks(&self, every: u64) -> Vec<(u64, usize)> {
        let end = self.segments.last().map_or(0, |segment| segment.samples.end);
        let mut marks: Vec<(u64, usize)> = Vec::new();
        let mut sample = 0;
        while sample < end {
            let byte = self.spoken(sample);
            if marks.last().is_none_or(|(_, before)| byte > *before) {
                marks.push((sample, byte));
            }
            sample = sample.saturating_add(every.max(1));
        }
        marks.push((end, self.spoken(end)));
        marks
    }

    fn within(&self, segment: &Segment, played: u64) -> usize {
        let Range { start, end } = segment.samples;
        if segment.ended && played >= end {
            return segment.end();
        }
        let elapsed = (played - start) as f64;
        let (syllables, most) = if segment.ended {
            (segment.syllables() * elapsed / (end - start) as f64, segment.tokens.len())
        } else {
            // As long as the speech goes on, it has not come to the end of the text.
            (self.rate() * elapsed / self.sample_rate, segment.tokens.len().saturating_sub(1))
        };
        let spoken = segment.tokens[..most]
            .partition_point(|token| token.syllables <= syllables && token.from < played);
        spoken.checked_sub(1).map_or(segment.start, |last| segment.tokens[last].end)
    }

    /// Syllables a second.
    fn rate(&self) -> f64 {
        let (syllables, seconds) = self.measured;
        (USUAL_RATE * PRIOR_SECONDS + syllables) / (PRIOR_SECONDS + seconds)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: u32 = 24_000;
    const FRAME: u64 = 1920;

    /// A token for every word of a text, as far as `syllables` is concerned.
    fn tokens(text: &str) -> Vec<SpokenToken> {
        let mut start = 0;
        let words = text.split_inclusive(' ');
        words
            .map(|word| {
                let place = start..start + word.len();
                start = place.end;
                SpokenToken { token: TextToken { id: 0, text: place }, syllables: syllables(word) }
            })
            .collect()
    }

    /// A segment of a text that was fed a token a frame.
    fn feed(timeline: &mut Timeline, text: &str, sample: u64, byte: usize) {
        timeline.begin(sample, byte);
        for (i, mut token) in tokens(text).into_iter().enumerate() {
            let place = token.token.text;
            token.token.text = byte + place.start..byte + place.end;
            timeline.feed(&token, sample + FRAME * (i as u64).saturating_sub(1));
        }
    }

    #[test]
    fn syllables_are_about_right() {
        for (text, expected) in [
            ("The quick brown fox jumps over the lazy dog", 11.0),
            ("internationalization", 8.0),
            ("你好世界", 4.0),
            ("2024", 6.0),
            ("", 0.0),
            (" \u{301}🙂", 0.0),
        ] {
            let found = syllables(text);
            assert!((found - expected).abs() <= 0.25 * expected, "{text:?}: {found}");
        }
    }

    #[test]
    fn ends_are_exact() {
        let mut timeline = Timeline::new(RATE);
        assert_eq!(timeline.spoken(1_000), 0);
        let (first, second) = ("Hello there, how are you? ", "I am well.");
        feed(&mut timeline, first, 0, 3);
        timeline.end(48_000);
        feed(&mut timeline, second, 50_000, 3 + first.len());
        timeline.end(70_000);
        assert_eq!(timeline.spoken(0), 3);
        for sample in [48_000, 49_999, 50_000] {
            assert_eq!(timeline.spoken(sample), 3 + first.len());
        }
        assert!(timeline.spoken(69_999) < 3 + first.len() + second.len());
        for sample in [70_000, u64::MAX] {
            assert_eq!(timeline.spoken(sample), 3 + first.len() + second.len());
        }
    }

    #[test]
    fn time_is_shared_out_by_length() {
        let text = "a internationalization b";
        let mut timeline = Timeline::new(RATE);
        timeline.begin(0, 0);
        for token in tokens(text) {
            timeline.feed(&token, 0);
        }
        timeline.end(96_000);
        let at = |part: f64| timeline.spoken((96_000.0 * part) as u64);
        assert_eq!(at(0.02), 0);
        assert_eq!(at(0.10), 2);
        assert_eq!(at(0.90), 2);
        assert_eq!(at(0.97), 23);
    }

    #[test]
    fn nothing_is_spoken_before_it_was_fed() {
        let mut timeline = Timeline::new(RATE);
        timeline.begin(0, 0);
        let tokens = tokens("one two three four");
        timeline.feed(&tokens[0], 0);
        timeline.feed(&tokens[1], 0);
        // The text ran dry for ten seconds of audio.
        timeline.feed(&tokens[2], 240_000);
        timeline.feed(&tokens[3], 240_000);
        assert_eq!(timeline.spoken(240_000), 8);
        timeline.end(480_000);
        assert_eq!(timeline.spoken(240_000), 8);
        assert!(timeline.spoken(400_000) > 8);
    }

    #[test]
    fn the_rate_is_learnt() {
        let text = "one two three four five six seven eight nine ten ".repeat(4);
        let after_a_second = |length: u64| {
            let mut timeline = Timeline::new(RATE);
            feed(&mut timeline, &text, 0, 0);
            timeline.end(length);
            feed(&mut timeline, &text, length, text.len());
            timeline.spoken(length + 2 * u64::from(RATE)) - text.len()
        };
        let (fast, usual, slow) =
            (after_a_second(240_000), after_a_second(480_000), after_a_second(1_440_000));
        assert!(fast > usual && usual > slow && slow > 0, "{fast} {usual} {slow}");
    }

    #[test]
    fn marks_are_what_is_spoken_when() {
        let mut timeline = Timeline::new(RATE);
        assert_eq!(timeline.marks(FRAME), [(0, 0)]);
        let (first, second) = ("Hello there, how are you? ", "I am well.");
        feed(&mut timeline, first, 0, 0);
        timeline.end(48_000);
        feed(&mut timeline, second, 50_000, first.len());
        timeline.end(70_000);
        for every in [0, 100, FRAME, 1_000_000] {
            let marks = timeline.marks(every);
            assert_eq!(
                (marks[0], marks[marks.len() - 1]),
                ((0, 0), (70_000, first.len() + second.len()))
            );
            assert!(marks.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1));
            assert!(marks.iter().all(|(sample, byte)| timeline.spoken(*sample) == *byte));
        }
        // One for each word, the space before the first and that at the end of the first text.
        assert_eq!(timeline.marks(100).len(), 9);
        assert_eq!(timeline.marks(1_000_000).len(), 2);
    }

    proptest! {
        #[test]
        fn answers_grow_and_stay_within_what_was_fed(
            texts in prop::collection::vec("[a-z0-9,. 你好]{1,40}", 1..4),
            frames in prop::collection::vec(0..60u64, 4),
            step in 1..5_000u64,
        ) {
            let mut timeline = Timeline::new(RATE);
            let (mut sample, mut byte, mut played) = (0, 0, 0);
            for (text, frames) in texts.iter().zip(frames) {
                timeline.begin(sample, byte);
                let mut left = tokens(text).into_iter();
                let mut fed = byte;
                for frame in 0..frames {
                    if let Some(mut token) = left.next() {
                        let place = token.token.text;
                        token.token.text = byte + place.start..byte + place.end;
                        fed = token.token.text.end;
                        timeline.feed(&token, sample + frame * FRAME);
                    }
                    // Playing may be anywhere behind what is made.
                    played = (played + step).min(sample + (frame + 1) * FRAME);
                    let spoken = timeline.spoken(played);
                    prop_assert!(spoken <= fed);
                    prop_assert!(timeline.spoken(played.saturating_sub(step)) <= spoken);
                }
                sample += frames * FRAME;
                timeline.end(sample);
                byte = fed;
            }
            prop_assert_eq!(timeline.spoken(sample), byte);
        }
    }
}
