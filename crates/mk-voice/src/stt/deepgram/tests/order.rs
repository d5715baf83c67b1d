//! What every conversation with Flux must keep to, over random ones: a Flux that hears a script of words, on connections
//! that are lost at any moment.

use proptest::prelude::*;

use super::super::clock::Clock;
use super::super::flux::Flux;
use super::super::kept::Kept;
use super::super::messages::TurnInfo;
use super::*;

/// Samples of a frame, 80 ms.
const FRAME: u64 = 1280;

/// Silence after which a turn is likely to be over, and is over.
const LIKELY: u64 = 6400;
const OVER: u64 = 14_400;

/// What takes Flux to make something of what it hears.
const LAG: u64 = 1600;

/// A word of the script.
#[derive(Debug, Clone)]
struct Spoken {
    text: String,
    start: u64,
    end: u64,
}

/// Words with pauses, in milliseconds before each; and how long each takes.
fn script() -> impl Strategy<Value = Vec<Spoken>> {
    let pause = prop_oneof![4 => 20..300u64, 2 => 350..800u64, 1 => 1000..4000u64];
    prop::collection::vec((pause, 60..500u64), 1..30).prop_map(|words| {
        let mut now = 16_000;
        let words = words.into_iter().enumerate().map(|(at, (pause, length))| {
            let start = now + 16 * pause;
            now = start + 16 * length;
            Spoken { text: format!("w{at}"), start, end: now }
        });
        words.collect()
    })
}

/// A Flux on one connection, that hears the input from `from` on.
struct Recogniser<'a> {
    script: &'a [Spoken],
    from: u64,
    turn: u64,
    /// Number of the first word of the turn.
    first: usize,
    begun: bool,
    likely: bool,
    text: String,
}

impl<'a> Recogniser<'a> {
    fn new(script: &'a [Spoken], from: u64) -> Self {
        // A word of which the greater part is heard is recognised.
        let first = script.iter().take_while(|word| (word.start + word.end) / 2 < from).count();
        Self { script, from, turn: 0, first, begun: false, likely: false, text: String::new() }
    }

    /// What it says when it has heard up to `now`.
    fn hear(&mut self, now: u64) -> Vec<TurnInfo> {
        let mut said = Vec::new();
        let rest = &self.script[self.first..];
        let mut count = 0;
        for (at, word) in rest.iter().enumerate() {
            let apart = at > 0 && word.start - rest[at - 1].end >= OVER;
            if apart || word.end + LAG > now {
                break;
            }
            count += 1;
        }
        let words = &rest[..count];
        let text = words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
        if !self.begun && rest.first().is_some_and(|word| word.start + LAG < now) {
            self.begun = true;
            said.push(self.info("StartOfTurn", now, words, &text));
        } else if text != self.text && self.likely {
            self.likely = false;
            said.push(self.info("TurnResumed", now, words, &text));
        } else {
            said.push(self.info("Update", now, words, &text));
        }
        self.text = text.clone();
        let silence = words.last().map_or(0, |word| now - word.end);
        if silence >= OVER {
            said.push(self.info("EndOfTurn", now, words, &text));
            self.turn += 1;
            self.first += count;
            (self.begun, self.likely) = (false, false);
            self.text.clear();
        } else if silence >= LIKELY && !self.likely && self.begun {
            self.likely = true;
            said.push(self.info("EagerEndOfTurn", now, words, &text));
        }
        said
    }

    fn info(&self, event: &str, now: u64, words: &[Spoken], text: &str) -> TurnInfo {
        let seconds = |position: u64| position.saturating_sub(self.from) as f64 / 16_000.0;
        let words = words.iter().map(|word| {
            json!({"word": word.text, "start": seconds(word.start), "end": seconds(word.end)})
        });
        let info = json!({
            "event": event, "turn_index": self.turn, "audio_window_end": seconds(now),
            "transcript": text, "words": words.collect::<Vec<_>>()
        });
        serde_json::from_value(info).expect("a message")
    }
}

/// Holds events to the order that [`SttEvent`] promises; collects the texts of the turns.
#[derive(Default)]
struct Order {
    open: bool,
    likely: Option<String>,
    turns: Vec<String>,
    /// Words that were shown, in a turn that is open.
    shown: String,
}

impl Order {
    fn take(&mut self, events: &mut Vec<SttEvent>) {
        for event in events.drain(..) {
            match event {
                SttEvent::TurnStarted => {
                    assert!(!self.open, "a turn in a turn");
                    self.open = true;
                    self.shown.clear();
                }
                SttEvent::Partial { text } => {
                    assert!(self.open && self.likely.is_none(), "{text} out of place");
                    assert_ne!(text, self.shown, "nothing new");
                    self.shown = text;
                }
                SttEvent::LikelyEnd { text } => {
                    assert!(self.open && self.likely.is_none() && !text.is_empty());
                    self.likely = Some(text.clone());
                    self.shown = text;
                }
                SttEvent::Resumed => assert!(self.likely.take().is_some(), "nothing to resume"),
                SttEvent::TurnEnded { text, .. } => {
                    assert!(self.open, "the end of no turn");
                    if let Some(likely) = self.likely.take() {
                        assert_eq!(likely, text);
                    }
                    self.open = false;
                    self.turns.push(text);
                }
                other => panic!("{other:?} is not of a turn"),
            }
        }
    }
}

/// Has `script` heard over connections of so many frames each, with so much audio kept; gives the turns, and the words
/// that were known when a connection was lost.
fn hear(script: &[Spoken], connections: &[u64], kept: u64) -> (Vec<String>, Vec<String>) {
    let (mut flux, mut order, mut events) = (Flux::default(), Order::default(), Vec::new());
    let mut ring = Kept::new(kept as usize);
    let mut known = Vec::new();
    let until = script.last().expect("words").end + 6 * 16_000;
    let mut lengths = connections.iter();
    loop {
        let from = flux.replay_from();
        let position = from.max(ring.start());
        flux.connected(position);
        let mut clock = Clock::new(position);
        let mut recogniser = Recogniser::new(script, position);
        let mut left = lengths.next().copied().unwrap_or(u64::MAX);
        while left > 0 {
            left -= 1;
            while ring.end() < clock.cursor() + FRAME {
                ring.push(&[0; FRAME as usize]);
            }
            clock.sent(FRAME);
            flux.sent(clock.total(), &mut events);
            for info in recogniser.hear(clock.cursor()) {
                flux.hear(info, &clock, &mut events);
            }
            order.take(&mut events);
            if clock.cursor() > until {
                assert!(!order.open, "a turn without end");
                return (order.turns, known);
            }
        }
        known.extend(order.shown.split_whitespace().map(str::to_owned).filter(|_| order.open));
        // Audio goes on while there is no connection.
        ring.push(&vec![0; 2 * FRAME as usize]);
        flux.lost(&mut events);
        order.take(&mut events);
    }
}

fn words(turns: &[String]) -> Vec<&str> {
    turns.iter().flat_map(|turn| turn.split_whitespace()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_word_is_lost_and_none_is_said_twice(
        script in script(),
        connections in prop::collection::vec(1..120u64, 0..12),
    ) {
        let (turns, _) = hear(&script, &connections, 600 * 16_000);
        let spoken: Vec<&str> = script.iter().map(|word| word.text.as_str()).collect();
        prop_assert_eq!(words(&turns), spoken);
        if connections.is_empty() {
            let pauses = script.windows(2).filter(|two| two[1].start - two[0].end >= OVER).count();
            prop_assert_eq!(turns.len(), pauses + 1);
        }
    }

    #[test]
    fn what_was_shown_is_not_lost_though_its_audio_is(
        script in script(),
        connections in prop::collection::vec(1..120u64, 0..12),
        kept in 8_000..80_000u64,
    ) {
        let (turns, known) = hear(&script, &connections, kept);
        let heard = words(&turns);
        let order: Vec<usize> =
            heard.iter().map(|word| word[1..].parse().expect("a number")).collect();
        prop_assert!(order.is_sorted_by(|a, b| a < b), "{:?}", heard);
        for word in known {
            prop_assert!(heard.contains(&word.as_str()), "{} of {:?}", word, heard);
        }
    }
}
