//! Turns where the audio is loud.

use crate::listen::timeline::{Heard, TICKS};
use crate::listen::words::Word;
use crate::script::{EnergyScript, MomentKind};

/// Milliseconds of a tick.
const TICK_MS: u32 = 1000 / TICKS;

/// Finds speech by its energy and gives it the words of the script.
#[derive(Debug)]
pub(crate) struct EnergyHearing {
    script: EnergyScript,
    /// Milliseconds of silence that end a turn.
    silence_ms: u32,
    loud: bool,
    /// Milliseconds without a break above `on_rms`, while it is silent.
    above_ms: u32,
    /// Milliseconds since sound was last above `off_rms`.
    quiet_ms: u32,
    /// Milliseconds of sound in this turn.
    spoken_ms: u32,
    /// The number of the turn that is open, or comes next.
    turn: u64,
    open: bool,
    likely_over: bool,
    /// The texts of the turn's words, and those that have been heard.
    texts: Vec<String>,
    words: Vec<Word>,
    began: f64,
}

impl EnergyHearing {
    pub(crate) fn new(script: EnergyScript, endpointing: Option<u32>) -> Self {
        let silence_ms = endpointing.map_or(script.silence_ms, |ms| ms.max(script.eager_ms));
        Self {
            script,
            silence_ms: silence_ms.max(TICK_MS),
            loud: false,
            above_ms: 0,
            quiet_ms: 0,
            spoken_ms: 0,
            turn: 0,
            open: false,
            likely_over: false,
            texts: Vec::new(),
            words: Vec::new(),
            began: 0.0,
        }
    }

    pub(crate) fn is_loud(&self) -> bool {
        self.loud
    }

    pub(crate) fn tick(&mut self, now: f64, rms: f32) -> Vec<Heard> {
        let mut heard = Vec::new();
        self.detect(rms);
        if self.loud {
            self.spoken_ms += TICK_MS;
            if !self.open && self.above_ms >= self.script.onset_ms.max(TICK_MS) {
                self.begin(now);
                self.say_next(now);
                heard.push(self.heard(MomentKind::Start));
            } else if self.open {
                if std::mem::take(&mut self.likely_over) {
                    heard.push(self.heard(MomentKind::Resume));
                }
                let due = 1 + (self.spoken_ms / self.script.word_ms) as usize;
                if self.words.len() < due.min(self.texts.len()) {
                    self.say_next(now);
                    heard.push(self.heard(MomentKind::Update));
                }
            }
        } else if self.open {
            if self.quiet_ms >= self.script.eager_ms && !self.likely_over {
                self.say_all(now - f64::from(self.quiet_ms) / 1000.0);
                self.likely_over = true;
                heard.push(self.heard(MomentKind::Eager));
            }
            if self.quiet_ms >= self.silence_ms {
                self.say_all(now - f64::from(self.quiet_ms) / 1000.0);
                heard.push(self.end());
            }
        }
        heard
    }

    pub(crate) fn finalize(&mut self, now: f64) -> Option<Heard> {
        (self.open && !self.loud).then(|| {
            self.say_all(now - f64::from(self.quiet_ms) / 1000.0);
            self.end()
        })
    }

    /// Hysteresis: sound begins above one level and ends below another.
    fn detect(&mut self, rms: f32) {
        if rms >= self.script.on_rms {
            self.above_ms += TICK_MS;
        } else if !self.loud || rms < self.script.off_rms {
            self.above_ms = 0;
        }
        let is_above = rms >= if self.loud { self.script.off_rms } else { self.script.on_rms };
        self.loud = is_above;
        self.quiet_ms = if is_above { 0 } else { self.quiet_ms.saturating_add(TICK_MS) };
    }

    fn begin(&mut self, now: f64) {
        let transcripts = &self.script.transcripts;
        let spoken = transcripts.iter().filter(|text| !text.trim().is_empty()).collect::<Vec<_>>();
        // Checked not to be empty.
        let text = spoken.get((self.turn % spoken.len().max(1) as u64) as usize);
        let words = text.map(|text| text.split_whitespace().map(String::from).collect());
        self.texts = words.unwrap_or_default();
        self.words.clear();
        self.open = true;
        self.spoken_ms = self.above_ms;
        self.began = now - f64::from(self.above_ms) / 1000.0;
    }

    /// The next word has been heard; it lasted from the one before it until now.
    fn say_next(&mut self, now: f64) {
        if let Some(text) = self.texts.get(self.words.len()) {
            let start = self.words.last().map_or(self.began, |word| word.end);
            self.words.push(Word { text: text.clone(), start, end: now.max(start) });
        }
    }

    /// The words that are left share the time up to `until`, when the speaker fell silent.
    fn say_all(&mut self, until: f64) {
        let left = self.texts.len() - self.words.len();
        let from = self.words.last().map_or(self.began, |word| word.end);
        let share = (until - from).max(0.0) / left.max(1) as f64;
        for _ in 0..left {
            let end = self.words.last().map_or(self.began, |word| word.end) + share;
            self.say_next(end);
        }
    }

    fn end(&mut self) -> Heard {
        let heard = self.heard(MomentKind::End);
        self.open = false;
        self.likely_over = false;
        self.above_ms = 0;
        self.turn += 1;
        heard
    }

    fn heard(&self, kind: MomentKind) -> Heard {
        Heard { kind, turn: self.turn, words: self.words.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::words::transcript;

    /// The kinds of what is heard in sound and silence of so many ticks.
    fn play(hearing: &mut EnergyHearing, parts: &[(bool, u32)]) -> Vec<(f64, MomentKind, String)> {
        let mut tick = 0;
        let mut all = Vec::new();
        for &(loud, ticks) in parts {
            for _ in 0..ticks {
                tick += 1;
                let now = f64::from(tick) / f64::from(TICKS);
                for heard in hearing.tick(now, if loud { 0.1 } else { 0.001 }) {
                    all.push((now, heard.kind, transcript(&heard.words)));
                }
            }
        }
        all
    }

    fn script(transcripts: &[&str]) -> EnergyScript {
        let transcripts = transcripts.iter().map(|text| (*text).to_owned()).collect();
        EnergyScript { transcripts, ..EnergyScript::default() }
    }

    #[test]
    fn a_turn_begins_with_sound_and_ends_after_silence_with_all_its_words() {
        let mut hearing = EnergyHearing::new(script(&["one two three four"]), None);
        let heard = play(&mut hearing, &[(false, 50), (true, 60), (false, 60)]);
        assert_eq!(heard[0], (0.56, MomentKind::Start, "one".into()));
        assert_eq!(heard[1].1, MomentKind::Update);
        let [.., eager, end] = &heard[..] else { panic!("{heard:?}") };
        assert_eq!(*eager, (1.22, MomentKind::Eager, "one two three four".into()));
        assert_eq!(*end, (1.4, MomentKind::End, "one two three four".into()));
        let last = hearing.words.last().unwrap().end;
        assert!((last - 1.1).abs() < 0.02, "the last word ends at {last}");
    }

    #[test]
    fn a_click_is_no_speech_and_a_pause_does_not_end_it() {
        let mut hearing = EnergyHearing::new(script(&["a b", "c d"]), None);
        let parts = [(true, 4), (false, 50), (true, 40), (false, 20), (true, 20), (false, 40)];
        let kinds: Vec<_> = play(&mut hearing, &parts).into_iter().map(|heard| heard.1).collect();
        use MomentKind::*;
        assert_eq!(kinds, [Start, Update, Eager, Resume, Eager, End]);
    }

    #[test]
    fn turns_take_the_transcripts_in_turn() {
        let mut hearing = EnergyHearing::new(script(&["a", " ", "b"]), Some(50));
        let parts = [(true, 20), (false, 20)].repeat(3);
        let heard = play(&mut hearing, &parts);
        let ends: Vec<&str> =
            heard.iter().filter(|h| h.1 == MomentKind::End).map(|h| &*h.2).collect();
        assert_eq!(ends, ["a", "b", "a"]);
    }
}
