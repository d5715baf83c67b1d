//! What every conversation with Flux must keep to, over random ones: a Flux that hears a script of words, on connections
//! that are lost at any moment.

use proptest::prelude::*;

use super::super::Kind;
use super::super::clock::Clock;
use super::super::flux::Flux;
use super::super::kept::Kept;
use super::super::messages::TurnInfo;
use super::super::turns::Turns;
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
        // Until the next word begins, which may not be recognised yet.
        let until = rest.get(count).map_or(now, |word| word.start.min(now));
        let silence = words.last().map_or(0, |word| until - word.end);
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
/// that were shown when a connection was lost. Not those that a connection heard in part: whether it recognises them is
/// its own affair.
fn hear(script: &[Spoken], connections: &[u64], kept: u64) -> (Vec<String>, Vec<String>) {
    let (mut flux, mut order, mut events) = (Flux::default(), Order::default(), Vec::new());
    let mut ring = Kept::new(kept as usize);
    let (mut known, mut cuts) = (Vec::new(), Vec::new());
    let until = script.last().expect("words").end + 6 * 16_000;
    let mut lengths = connections.iter();
    loop {
        let from = flux.replay_from();
        let position = from.max(ring.start());
        flux.connected(position);
        cuts.push(position);
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
                let cut =
                    |word: &&Spoken| cuts.iter().any(|cut| (word.start..word.end).contains(cut));
                script
                    .iter()
                    .filter(cut)
                    .for_each(|word| known.retain(|known| *known != word.text));
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

/// Something that happens to a conversation, in any order and with any content.
#[derive(Debug, Clone)]
enum Happening {
    Message(Value),
    Sent(u64),
    Silence,
    Lost { from_ahead: u64 },
    ReadTo(u64),
    FinalizeSent,
    FinalizeUnanswered,
    CutShort,
}

/// Some words, some of them more than once, so that a message often says what the one before it said.
fn text() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["", " ", "a", "a b", "a b.", "a b c", "b c", "x", "Ü, 東京!"])
        .prop_map(str::to_owned)
}

fn message() -> impl Strategy<Value = Value> {
    let events = ["Update", "StartOfTurn", "EagerEndOfTurn", "TurnResumed", "EndOfTurn", "Other"];
    let time = prop_oneof![4 => 0.0..8.0, 1 => Just(-1.0), 1 => Just(1e300)];
    let flux =
        (prop::sample::select(events.to_vec()), text(), time.clone(), 0..4u64, any::<bool>())
            .prop_map(|(event, text, end, index, timed)| {
                let mut message = turn(event, index, end, &text);
                if !timed {
                    message["words"] = json!([]);
                }
                message
            });
    let flags = any::<(bool, bool, bool, bool)>();
    let nova = (text(), time.clone(), 0.0..2.0, flags).prop_map(
        |(text, start, duration, (is_final, speech_final, from_finalize, timed))| {
            let words = text
                .split_whitespace()
                .filter(|_| timed)
                .map(|word| json!({"word": word, "start": start, "end": start + duration}));
            let words = words.collect::<Vec<_>>();
            json!({
                "type": "Results", "start": start, "duration": duration, "is_final": is_final,
                "speech_final": speech_final, "from_finalize": from_finalize,
                "channel": {"alternatives": [{"transcript": text, "words": words}]}
            })
        },
    );
    let end = time.prop_map(|end| json!({"type": "UtteranceEnd", "last_word_end": end}));
    prop_oneof![8 => flux, 8 => nova, 1 => end]
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        12 => message().prop_map(Happening::Message),
        4 => (1..40_000u64).prop_map(Happening::Sent),
        1 => Just(Happening::Silence),
        2 => (0..40_000u64).prop_map(|from_ahead| Happening::Lost { from_ahead }),
        1 => (0..100_000u64).prop_map(Happening::ReadTo),
        1 => Just(Happening::FinalizeSent),
        1 => Just(Happening::FinalizeUnanswered),
        1 => Just(Happening::CutShort),
    ]
}

/// Has all of it happen, and the turn end that may then be open.
fn endure(kind: Kind, happenings: Vec<Happening>) {
    let (mut turns, mut order, mut events) = (Turns::new(kind), Order::default(), Vec::new());
    let mut clock = Clock::new(0);
    turns.connected(0);
    for happening in happenings {
        match happening {
            // Those of the other kind are not known, and passed over.
            Happening::Message(message) => {
                turns.hear(&message.to_string(), &clock, &mut events).expect("no error");
            }
            Happening::Sent(count) => {
                clock.sent(count);
                turns.sent(clock.total(), &mut events);
            }
            Happening::Silence => {
                clock.filled(FRAME);
                turns.sent(clock.total(), &mut events);
            }
            Happening::Lost { from_ahead } => {
                turns.lost(&mut events);
                let from = turns.replay_from() + from_ahead / 20_000 * from_ahead;
                turns.connected(from);
                clock = Clock::new(from);
            }
            Happening::ReadTo(position) => turns.read_to(position.min(clock.cursor())),
            Happening::FinalizeSent => turns.finalize_sent(clock.cursor()),
            Happening::FinalizeUnanswered => turns.finalize_unanswered(&mut events),
            Happening::CutShort => turns.cut_short(&mut events),
        }
        order.take(&mut events);
        assert_eq!(order.open, turns.in_turn());
    }
    turns.cut_short(&mut events);
    order.take(&mut events);
    assert!(!order.open && !turns.in_turn());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_is_said_events_keep_their_order(
        happenings in prop::collection::vec(happening(), 0..60),
    ) {
        endure(Kind::Flux, happenings.clone());
        endure(Kind::Nova, happenings);
    }

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
