//! What holds whatever happens, in whatever order.

use std::time::Duration;

use mk_voice::llm::{FinishReason, LlmError, LlmEvent, Message, ToolCall};
use mk_voice::protocol::State;
use mk_voice::stt::{SttError, SttEvent};
use mk_voice::turn::{Event, TurnOptions};
use proptest::prelude::*;

use crate::world::World;

/// Something that may happen at any time.
#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    Event(Event),
    Llm(LlmEvent),
    Answer(String),
    Tool(usize),
    VoiceFails,
    VoiceStalls(bool),
    ClientMute(bool),
}

fn words() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "one", "two", "kernel", "mhm", "paris", "and", "or", "yes.", "no?", "well,", "time",
    ]);
    prop::collection::vec(word, 0..12).prop_map(|words| words.join(" "))
}

fn answer() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "alpha", "bravo", "charlie.", "delta,", "echo", "foxtrot?", "golf", "hotel!", "india",
    ]);
    prop::collection::vec(word, 1..60).prop_map(|words| words.join(" ") + " ")
}

fn stt() -> impl Strategy<Value = SttEvent> {
    let error = SttError { recogniser: "test".into(), reason: "broken".into() };
    prop_oneof![
        4 => Just(SttEvent::TurnStarted),
        6 => words().prop_map(|text| SttEvent::Partial { text }),
        3 => words().prop_map(|text| SttEvent::LikelyEnd { text }),
        2 => Just(SttEvent::Resumed),
        8 => words().prop_map(|text| SttEvent::TurnEnded { text, speech_end: None }),
        1 => Just(SttEvent::Lost { reason: "lost".into() }),
        1 => Just(SttEvent::Restored { replayed: Duration::ZERO, lost: Duration::ZERO }),
        1 => Just(SttEvent::Failed(error)),
    ]
}

fn llm() -> impl Strategy<Value = LlmEvent> {
    let error = LlmError { model: "test".into(), reason: "broken".into(), permanent: false };
    let call = |number: u32| {
        let (id, name) = (format!("call {number}"), "tool".into());
        LlmEvent::ToolCall(ToolCall { id, name, arguments: "{}".into() })
    };
    prop_oneof![
        6 => answer().prop_map(LlmEvent::Text),
        2 => any::<u32>().prop_map(call),
        4 => Just(LlmEvent::Finished { reason: FinishReason::Stop, usage: None }),
        1 => Just(LlmEvent::Failed(error)),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => stt().prop_map(Event::Stt),
        4 => Just(Event::SpeechStarted),
        4 => (0u64..100_000).prop_map(|ms| Event::SpeechStopped { at: Duration::from_millis(ms) }),
        1 => words().prop_map(Event::Text),
        1 => Just(Event::Interrupt),
        1 => Just(Event::Start),
        // What is late, or made up.
        1 => (0u32..9, llm()).prop_map(|(back, event)| Event::Llm { generation: back, event }),
        1 => (0u32..9, any::<u64>()).prop_map(|(epoch, samples)| Event::Flushed { epoch, samples }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (0u64..3000).prop_map(Step::Pass),
        12 => event().prop_map(Step::Event),
        6 => llm().prop_map(Step::Llm),
        6 => answer().prop_map(Step::Answer),
        2 => (0usize..4).prop_map(Step::Tool),
        1 => Just(Step::VoiceFails),
        1 => any::<bool>().prop_map(Step::VoiceStalls),
        1 => any::<bool>().prop_map(Step::ClientMute),
    ]
}

fn options() -> impl Strategy<Value = TurnOptions> {
    (0u32..3, any::<bool>(), 1usize..3).prop_map(|(eager_answers, greets, min_words)| {
        let mut options = TurnOptions { eager_answers, ..TurnOptions::default() };
        options.barge_in.min_words = min_words;
        if greets {
            options.greeting = "Hello there.".into();
        }
        options
    })
}

fn take(world: &mut World, step: Step) {
    match step {
        Step::Pass(ms) => world.pass_ms(ms),
        Step::Event(event) => {
            // The client says what is true, and flushes only what it is told to.
            let lie =
                matches!(&event, Event::Flushed { epoch, .. } if *epoch >= world.client.epoch);
            let live = matches!(&event, Event::Llm { generation, .. } if Some(*generation) == world.asking);
            if !lie && !live {
                world.event(event);
            }
        }
        Step::Llm(event) => world.llm(event),
        Step::Answer(text) => world.answer(&text),
        Step::Tool(number) => {
            if let Some(call) = world.tools.get(number).cloned() {
                world.event(Event::Tool { call_id: call.id, result: "done".into() });
            }
        }
        Step::VoiceFails => world.voice.failing = true,
        Step::VoiceStalls(stalled) => world.voice.stalled = stalled,
        Step::ClientMute(mute) => world.client.mute = mute,
    }
}

proptest! {
    /// One request, one utterance, no old audio, no gaps, messages that a service accepts: the world checks them at every
    /// step. And: everything ends.
    #[test]
    fn every_turn_ends(options in options(), steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::new(options);
        for step in steps {
            take(&mut world, step);
        }
        world.pass(Duration::from_secs(400));
        prop_assert_eq!(world.state(), State::Listening);
        prop_assert_eq!(world.machine.deadline(), None);
        prop_assert_eq!(world.asking, None);
        let mut turns: Vec<u32> = world.reports.iter().map(|report| report.turn).collect();
        turns.retain(|&turn| turn > 0);
        prop_assert_eq!(&turns, &(1..=turns.len() as u32).collect::<Vec<_>>(), "a turn without a report");
    }

    /// With a client and a voice that behave, what is remembered of an answer is what was heard of it.
    #[test]
    fn what_is_remembered_was_heard(
        text in answer(),
        before in 0u64..12_000,
        says in prop::sample::select(vec!["stop that", "wait", "no no no"]),
    ) {
        let mut world = World::new(TurnOptions::default());
        world.user("Tell me.");
        for delta in text.split_inclusive(' ') {
            world.llm(LlmEvent::Text(delta.into()));
            world.pass_ms(20);
        }
        world.llm(LlmEvent::Finished { reason: FinishReason::Stop, usage: None });
        world.pass_ms(before);
        let epoch = world.client.epoch;
        world.user(says);
        let remembered = world.machine.context().iter().find_map(|message| match message {
            Message::Assistant { content, .. } => Some(content.as_str()),
            _ => None,
        });
        let remembered: Vec<&str> = remembered.unwrap_or_default().split_whitespace().collect();
        let heard = world.words_heard(epoch);
        prop_assert!(heard.len().abs_diff(remembered.len()) <= 1, "{:?} of {:?}", remembered, heard);
        let bare = |word: &&str| word.trim_matches(|c: char| !c.is_alphanumeric()).to_owned();
        let both = heard.len().min(remembered.len());
        let heard: Vec<String> = heard.iter().take(both).map(bare).collect();
        let remembered: Vec<String> = remembered.iter().take(both).map(bare).collect();
        prop_assert_eq!(heard, remembered);
    }
}
