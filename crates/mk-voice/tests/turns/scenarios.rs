//! What a conversation does, case by case.

use std::time::Duration;

use mk_voice::llm::{FinishReason, LlmError, LlmEvent, Message, ToolCall};
use mk_voice::protocol::{ServerMessage, State};
use mk_voice::stt::SttEvent;
use mk_voice::turn::{Action, BargeIn, Event, TurnOptions};

use crate::world::World;

const ANSWER: &str = "The capital of France is Paris. It lies on the river Seine and is very old.";

fn world() -> World {
    World::new(TurnOptions { system: "Be brief.".into(), ..TurnOptions::default() })
}

/// A world in which the answer is being heard.
fn speaking() -> World {
    let mut world = world();
    world.user("What is the capital of France?");
    world.answer(ANSWER);
    world.pass_ms(1000);
    assert_eq!(world.state(), State::Speaking);
    world
}

fn user(content: &str) -> Message {
    Message::User { content: content.into() }
}

fn assistant(content: &str) -> Message {
    Message::Assistant { content: content.into(), tool_calls: Vec::new() }
}

fn call(id: &str) -> ToolCall {
    ToolCall { id: id.into(), name: "weather".into(), arguments: "{}".into() }
}

fn partial(text: &str) -> SttEvent {
    SttEvent::Partial { text: text.into() }
}

fn ended(text: &str) -> SttEvent {
    SttEvent::TurnEnded { text: text.into(), speech_end: None }
}

fn flushes(world: &World) -> usize {
    world.done(|action| matches!(action, Action::Flush { .. }))
}

fn problems(world: &World) -> Vec<&str> {
    fn problem(message: &ServerMessage) -> Option<&str> {
        match message {
            ServerMessage::Problem { message, .. } => Some(message),
            _ => None,
        }
    }
    world.told.iter().filter_map(problem).collect()
}

#[test]
fn a_turn() {
    let mut world = world();
    world.event(Event::SpeechStarted);
    assert_eq!(world.state(), State::Hearing);
    world.pass_ms(500);
    world.stt(SttEvent::TurnStarted);
    world.stt(partial("What is"));
    world.pass_ms(500);
    world.event(Event::SpeechStopped { at: Duration::from_millis(800) });
    world.stt(ended("What is the time?"));
    assert_eq!(world.state(), State::Thinking);
    assert_eq!(world.requests[0].messages[1], user("What is the time?"));
    world.pass_ms(100);
    world.answer("It is noon.");
    world.pass_ms(10_000);
    assert_eq!(world.state(), State::Listening);
    assert_eq!(world.machine.deadline(), None);
    assert_eq!(world.machine.context()[1..], [user("What is the time?"), assistant("It is noon.")]);
    let [report] = &world.reports[..] else { panic!("{:?}", world.reports) };
    assert_eq!((report.turn, report.interrupted, report.failed), (1, false, false));
    let stages = report.stages;
    assert_eq!((stages.transcript, stages.first_token), (Some(200.0), Some(300.0)));
    let times: Vec<f64> = stages.named().iter().map(|(_, time)| time.unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn the_end_of_speech_may_become_known_after_the_turn() {
    let mut world = world();
    world.event(Event::SpeechStarted);
    world.pass_ms(1000);
    world.user("What is the time?");
    world.pass_ms(100);
    world.event(Event::SpeechStopped { at: Duration::from_millis(800) });
    world.answer("It is noon.");
    world.pass_ms(10_000);
    assert_eq!(world.reports[0].stages.transcript, Some(200.0));
}

#[test]
fn words_interrupt_and_what_was_heard_is_remembered() {
    let mut world = speaking();
    world.event(Event::SpeechStarted);
    assert_eq!(world.state(), State::Holding);
    world.pass_ms(400);
    world.stt(SttEvent::TurnStarted);
    world.stt(partial("wait"));
    assert_eq!((world.state(), flushes(&world)), (State::Hearing, 1));
    // 1 s of 50 ms characters: "The capital of Franc".
    assert_eq!(world.last_assistant(), Some("The capital of"));
    assert_eq!(world.words_heard(1), ["The", "capital", "of"]);
    world.stt(ended("wait a moment"));
    let last = world.requests.last().unwrap();
    assert_eq!(last.messages[2..], [assistant("The capital of"), user("wait a moment")]);
    assert!(world.reports[0].interrupted);
}

#[test]
fn an_interruption_stops_the_request_and_the_voice() {
    let mut world = world();
    world.user("Tell me a story.");
    world.llm(LlmEvent::Text("Once upon a time, there was a kernel. It ".into()));
    world.pass_ms(600);
    world.stt(partial("stop it"));
    assert_eq!(world.asking, None);
    assert_eq!(world.done(|action| matches!(action, Action::StopSpeaking { epoch: 1 })), 1);
}

#[test]
fn a_sound_without_words_holds_the_answer_for_two_seconds() {
    let mut world = speaking();
    world.event(Event::SpeechStarted);
    let played = world.client.played;
    world.pass_ms(1900);
    assert_eq!((world.state(), world.client.played), (State::Holding, played));
    world.pass_ms(200);
    assert_eq!(world.state(), State::Speaking);
    world.pass_ms(20_000);
    assert_eq!(world.last_assistant(), Some(ANSWER));
    assert_eq!(flushes(&world), 0);
}

#[test]
fn sounds_of_listening_do_not_interrupt() {
    let mut world = speaking();
    world.event(Event::SpeechStarted);
    world.stt(SttEvent::TurnStarted);
    world.stt(partial("Mhm."));
    assert_eq!(world.state(), State::Holding);
    world.stt(ended("Mhm."));
    assert_eq!(world.state(), State::Speaking);
    world.pass_ms(20_000);
    assert_eq!((world.last_assistant(), world.requests.len()), (Some(ANSWER), 1));
}

#[test]
fn more_words_can_be_asked_for() {
    let barge_in = BargeIn { min_words: 2, ..BargeIn::default() };
    let mut world = World::new(TurnOptions { barge_in, ..TurnOptions::default() });
    world.user("Hello");
    world.answer(ANSWER);
    world.pass_ms(1000);
    world.stt(partial("uh wait"));
    assert_eq!(flushes(&world), 0);
    world.stt(partial("uh wait please"));
    assert_eq!(flushes(&world), 1);
}

#[test]
fn half_duplex_hears_nothing_while_it_speaks() {
    let barge_in = BargeIn { enabled: false, ..BargeIn::default() };
    let mut world = World::new(TurnOptions { barge_in, ..TurnOptions::default() });
    world.user("Hello");
    world.answer(ANSWER);
    world.pass_ms(1000);
    world.event(Event::SpeechStarted);
    world.stt(partial("stop it now"));
    world.stt(ended("stop it now"));
    assert_eq!((world.state(), flushes(&world)), (State::Speaking, 0));
    world.event(Event::Interrupt);
    assert_eq!(flushes(&world), 1);
}

#[test]
fn an_answer_that_was_begun_early_is_heard_when_the_turn_has_ended() {
    let mut world = World::new(TurnOptions { eager_answers: 2, ..TurnOptions::default() });
    world.stt(SttEvent::TurnStarted);
    world.stt(SttEvent::LikelyEnd { text: "How are you?".into() });
    world.answer("I am well.");
    world.pass_ms(300);
    assert_eq!((world.client.received, world.state()), (0, State::Hearing));
    world.stt(ended("How are you?"));
    assert!(world.client.received > 0);
    assert_eq!(world.requests.len(), 1);
    world.pass_ms(5000);
    assert_eq!(world.machine.context()[1..], [user("How are you?"), assistant("I am well.")]);
    assert_eq!(world.reports[0].turn, 1);
}

#[test]
fn an_answer_that_was_begun_too_early_is_dropped_and_their_number_is_limited() {
    let mut world = World::new(TurnOptions { eager_answers: 1, ..TurnOptions::default() });
    world.stt(SttEvent::TurnStarted);
    world.stt(SttEvent::LikelyEnd { text: "How are".into() });
    world.llm(LlmEvent::Text("Where is what? ".into()));
    world.stt(SttEvent::Resumed);
    assert_eq!(world.asking, None);
    world.stt(SttEvent::LikelyEnd { text: "How are you".into() });
    assert_eq!(world.requests.len(), 1);
    world.stt(ended("How are you?"));
    assert_eq!(world.requests.len(), 2);
    assert_eq!(world.requests[1].messages.last(), Some(&user("How are you?")));
    assert!(world.reports.is_empty());
}

#[test]
fn a_user_who_goes_on_before_the_answer_is_heard_is_answered_once() {
    let mut world = world();
    world.user("What is");
    world.llm(LlmEvent::Text("What is what? ".into()));
    world.stt(SttEvent::TurnStarted);
    world.stt(partial("the time"));
    assert_eq!((world.asking, flushes(&world)), (None, 0));
    world.stt(ended("the time?"));
    assert_eq!(world.requests[1].messages[1..], [user("What is the time?")]);
}

#[test]
fn tools_are_called_and_their_results_go_back() {
    let mut world = world();
    world.user("Weather?");
    world.llm(LlmEvent::Text("Let me look. ".into()));
    world.llm(LlmEvent::ToolCall(call("a")));
    world.llm(LlmEvent::ToolCall(call("b")));
    world.llm(LlmEvent::Finished { reason: FinishReason::ToolCalls, usage: None });
    assert_eq!(world.tools, [call("a"), call("b")]);
    world.event(Event::Tool { call_id: "b".into(), result: "sun".into() });
    assert_eq!(world.requests.len(), 1);
    world.event(Event::Tool { call_id: "a".into(), result: "rain".into() });
    let asked = &world.requests[1].messages[2..];
    let tool_calls = vec![call("a"), call("b")];
    let tool = |call_id: &str, content: &str| Message::Tool {
        call_id: call_id.into(),
        content: content.into(),
    };
    let expected = [
        Message::Assistant { content: "Let me look.".into(), tool_calls },
        tool("a", "rain"),
        tool("b", "sun"),
    ];
    assert_eq!(asked, expected);
    world.answer("It rains here.");
    world.pass_ms(10_000);
    assert_eq!(world.machine.context()[2..5], expected);
    assert_eq!(world.last_assistant(), Some("It rains here."));
    assert_eq!(world.reports[0].assistant, "Let me look. It rains here.");
}

#[test]
fn an_interruption_does_not_stop_a_tool_and_its_result_is_known_later() {
    let mut world = world();
    world.user("Book it.");
    world.llm(LlmEvent::ToolCall(call("a")));
    world.llm(LlmEvent::Finished { reason: FinishReason::ToolCalls, usage: None });
    world.user("And hurry.");
    let result = |world: &World, request: usize| {
        let messages = &world.requests[request].messages;
        messages.iter().find_map(|message| match message {
            Message::Tool { content, .. } => Some(content.clone()),
            _ => None,
        })
    };
    assert_eq!(result(&world, 1).unwrap(), r#"{"status":"still running"}"#);
    world.event(Event::Tool { call_id: "a".into(), result: "booked".into() });
    world.answer("I will.");
    world.pass_ms(10_000);
    world.user("Thanks.");
    assert_eq!(result(&world, 2).unwrap(), "booked");
}

#[test]
fn calls_without_an_end_are_ended() {
    let mut world = World::new(TurnOptions { requests_per_turn: 3, ..TurnOptions::default() });
    world.user("Loop.");
    for round in 0..3 {
        let id = format!("call {round}");
        world.llm(LlmEvent::ToolCall(call(&id)));
        world.llm(LlmEvent::Finished { reason: FinishReason::ToolCalls, usage: None });
        world.event(Event::Tool { call_id: id, result: "again".into() });
    }
    assert_eq!((world.requests.len(), world.asking), (3, None));
    world.pass_ms(20_000);
    assert_eq!(world.state(), State::Listening);
    assert!(world.reports[0].failed);
}

#[test]
fn a_model_that_fails_is_excused_aloud() {
    let mut world = world();
    world.user("Hello?");
    let (model, reason) = ("test".into(), "no quota".into());
    world.llm(LlmEvent::Failed(LlmError { model, reason, permanent: true }));
    world.pass_ms(10_000);
    assert_eq!(world.last_assistant(), Some("I'm sorry, I cannot answer right now."));
    assert!(world.reports[0].failed);
    assert_eq!(problems(&world), ["test: no quota"]);
    world.user("Hello again?");
    world.answer("Hello.");
    world.pass_ms(10_000);
    assert!(!world.reports[1].failed);
}

#[test]
fn a_model_that_breaks_off_is_heard_as_far_as_it_came() {
    let mut world = world();
    world.user("Count.");
    world.llm(LlmEvent::Text("One, two, three, four".into()));
    let (model, reason) = ("test".into(), "cut".into());
    world.llm(LlmEvent::Failed(LlmError { model, reason, permanent: false }));
    world.pass_ms(10_000);
    assert_eq!(world.last_assistant(), Some("One, two, three, four"));
    assert!(world.reports[0].failed);
}

#[test]
fn a_model_that_says_nothing_is_given_up() {
    let mut world = world();
    world.user("Hello?");
    world.pass_ms(19_000);
    assert_eq!(world.state(), State::Thinking);
    world.pass_ms(12_000);
    assert_eq!((world.state(), world.asking), (State::Listening, None));
}

#[test]
fn a_voice_that_fails_ends_the_turn_and_the_next_is_spoken() {
    let mut world = world();
    world.voice.failing = true;
    world.user("Hello?");
    world.answer("Hello.");
    world.pass_ms(1000);
    assert_eq!(world.state(), State::Listening);
    assert!(world.reports[0].failed);
    assert_eq!(world.last_assistant(), None);
    world.user("Hello?");
    world.answer("Hello.");
    world.pass_ms(10_000);
    assert_eq!(world.last_assistant(), Some("Hello."));
}

#[test]
fn a_voice_that_stalls_is_given_up() {
    let mut world = world();
    world.voice.stalled = true;
    world.user("Hello?");
    world.answer("Hello.");
    world.pass_ms(31_000);
    assert_eq!(world.state(), State::Listening);
}

#[test]
fn a_client_that_does_not_say_what_it_plays_does_not_hold_up_anything() {
    let mut world = world();
    world.client.mute = true;
    world.user("Hello?");
    world.answer(ANSWER);
    world.pass_ms(30_000);
    assert_eq!((world.state(), world.last_assistant()), (State::Listening, Some(ANSWER)));
    world.user("Hello?");
    world.answer(ANSWER);
    world.pass_ms(1000);
    world.event(Event::Interrupt);
    world.pass_ms(1000);
    assert_eq!(world.state(), State::Listening);
}

#[test]
fn a_turn_that_the_recogniser_does_not_end_is_answered_once() {
    let mut world = world();
    world.stt(SttEvent::TurnStarted);
    world.stt(partial("What is the time"));
    world.pass_ms(9000);
    assert_eq!(world.requests.len(), 1);
    world.stt(ended("What is the time"));
    assert_eq!((world.requests.len(), world.state()), (1, State::Thinking));
}

#[test]
fn a_turn_is_not_given_up_while_the_recogniser_is_away() {
    let mut world = world();
    world.stt(SttEvent::TurnStarted);
    world.stt(partial("What is"));
    world.stt(SttEvent::Lost { reason: "closed".into() });
    world.pass_ms(20_000);
    assert_eq!(world.requests.len(), 0);
    world.stt(SttEvent::Restored { replayed: Duration::ZERO, lost: Duration::ZERO });
    world.stt(partial("What is the time"));
    world.stt(ended("What is the time?"));
    assert_eq!(world.requests[0].messages[1..], [user("What is the time?")]);
}

#[test]
fn a_sound_that_is_nothing_is_forgotten() {
    let mut world = world();
    world.event(Event::SpeechStarted);
    world.pass_ms(2100);
    assert_eq!((world.state(), world.requests.len()), (State::Listening, 0));
}

#[test]
fn typing_is_a_turn_and_an_interruption() {
    let mut world = speaking();
    world.event(Event::Text("  ".into()));
    assert_eq!(world.state(), State::Speaking);
    world.event(Event::Text(" And of Spain? ".into()));
    let asked = world.requests.last().unwrap().messages.last();
    assert_eq!((asked, flushes(&world)), (Some(&user("And of Spain?")), 1));
}

#[test]
fn turns_that_end_while_an_answer_is_flushed_wait_for_it() {
    let mut world = speaking();
    world.client.mute = true;
    world.user("Stop.");
    world.event(Event::Text("Please.".into()));
    assert_eq!(world.requests.len(), 1);
    world.pass_ms(600);
    assert_eq!(world.requests.len(), 2);
    let messages = &world.requests[1].messages;
    assert!(
        matches!(&messages[2], Message::Assistant { content, .. } if ANSWER.starts_with(content))
    );
    assert_eq!(messages[3], user("Stop. Please."));
}

#[test]
fn a_greeting_is_part_of_the_conversation() {
    let greeting = "Hello, how can I help?".to_owned();
    let mut world =
        World::new(TurnOptions { greeting: greeting.clone(), ..TurnOptions::default() });
    world.event(Event::Start);
    world.pass_ms(5000);
    assert_eq!(world.last_assistant(), Some(greeting.as_str()));
    assert_eq!((world.reports[0].turn, world.requests.len()), (0, 0));
}

#[test]
fn an_answer_without_an_end_is_ended() {
    let mut world = World::new(TurnOptions { reply_bytes: 200, ..TurnOptions::default() });
    world.user("Talk.");
    while world.asking.is_some() {
        world.llm(LlmEvent::Text("And so on and on. ".into()));
    }
    world.pass_ms(60_000);
    assert_eq!(world.state(), State::Listening);
    assert!(world.last_assistant().unwrap().len() < 230);
}

#[test]
fn sentences_are_not_made_long_before_they_are_heard() {
    let mut world = world();
    world.user("Talk.");
    world.answer(&"This is a sentence of some length. ".repeat(20));
    world.pass_ms(1000);
    let made = world.client.received - world.client.played;
    assert!(made < 4000 + 40 * 50, "{made} samples ahead");
    world.pass_ms(100_000);
    assert_eq!(world.state(), State::Listening);
    assert_eq!(world.done(|action| matches!(action, Action::Speak { .. })), 20);
}
