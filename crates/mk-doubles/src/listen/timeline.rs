//! What is heard, from tick to tick of 10 ms of audio, whatever the protocol that tells of it.

use crate::listen::energy::EnergyHearing;
use crate::listen::words::{Word, revise};
use crate::script::{ListenScript, MomentKind, TimeScript};

/// Ticks a second.
pub(crate) const TICKS: u32 = 100;

/// Something that was heard.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Heard {
    pub(crate) kind: MomentKind,
    /// The number of the speaker's turn, by which a new list of words can be told.
    pub(crate) turn: u64,
    /// All words of it so far.
    pub(crate) words: Vec<Word>,
}

/// Plays a script along the audio.
#[derive(Debug)]
pub(crate) enum Hearing {
    Time(TimeHearing),
    Energy(EnergyHearing),
}

impl Hearing {
    /// `endpointing` (ms) is the silence that ends a turn by energy, where the protocol lets the client choose it.
    pub(crate) fn new(script: &ListenScript, endpointing: Option<u32>) -> Self {
        match script {
            ListenScript::Time(script) => Self::Time(TimeHearing::new(script.clone())),
            ListenScript::Energy(script) => {
                Self::Energy(EnergyHearing::new(script.clone(), endpointing))
            }
        }
    }

    /// Hears one tick of audio, which ends at `now` (s) and is so loud (root mean square).
    pub(crate) fn tick(&mut self, now: f64, rms: f32) -> Vec<Heard> {
        match self {
            Self::Time(hearing) => hearing.tick(now),
            Self::Energy(hearing) => hearing.tick(now, rms),
        }
    }

    /// Ends what is being said, on request: all that is known of it, unless the speaker goes on at this moment.
    pub(crate) fn finalize(&mut self, now: f64) -> Option<Heard> {
        match self {
            Self::Time(_) => None,
            Self::Energy(hearing) => hearing.finalize(now),
        }
    }

    /// Whether there is sound at this moment.
    pub(crate) fn is_loud(&self) -> bool {
        match self {
            Self::Time(_) => false,
            Self::Energy(hearing) => hearing.is_loud(),
        }
    }
}

/// Plays moments.
#[derive(Debug)]
pub(crate) struct TimeHearing {
    script: TimeScript,
    next: usize,
    /// When the present round of the script began.
    round: f64,
    turn: u64,
    words: Vec<Word>,
    began: f64,
}

/// How long before it is recognised a word was begun, in seconds.
const WORD_SECONDS: f64 = 0.2;

impl TimeHearing {
    fn new(script: TimeScript) -> Self {
        Self { script, next: 0, round: 0.0, turn: 0, words: Vec::new(), began: 0.0 }
    }

    fn tick(&mut self, now: f64) -> Vec<Heard> {
        let mut heard = Vec::new();
        loop {
            let Some(moment) = self.script.moments.get(self.next) else {
                match self.script.repeat_every {
                    // Checked to be later than the last moment.
                    Some(every) if now + 1e-9 >= self.round + every => {
                        self.round += every;
                        self.next = 0;
                        continue;
                    }
                    _ => return heard,
                }
            };
            let at = self.round + moment.at;
            if at > now + 1e-9 {
                return heard;
            }
            self.next += 1;
            if moment.event == MomentKind::Start {
                self.turn += 1;
                self.words.clear();
            }
            if let Some(transcript) = &moment.transcript {
                if self.words.is_empty() {
                    let count = transcript.split_whitespace().count();
                    self.began = (at - WORD_SECONDS * count as f64).max(self.began);
                }
                revise(&mut self.words, transcript, self.began, at);
            }
            heard.push(Heard { kind: moment.event, turn: self.turn, words: self.words.clone() });
            if moment.event == MomentKind::End {
                self.began = at;
                self.turn += 1;
                self.words.clear();
            }
        }
    }
}
