//! Whole conversations: a file speaks, doubles of the services answer over real sockets, tones are the voice.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mk_doubles::{
    ChatScript, Doubles, DoublesOptions, Fault, FaultKind, ListenScript, Reply, Service,
};
use mk_voice::client::file::{FileOptions, Speech, converse};
use mk_voice::llm::{OpenAi, OpenAiOptions, Tools};
use mk_voice::protocol::{ClientMessage, ServerMessage, TurnReport};
use mk_voice::stt::Stt;
use mk_voice::stt::deepgram::{Deepgram, DeepgramOptions, DeepgramOptionsError};
use mk_voice::tts::{Tones, TonesOptions};
use mk_voice::{Secret, Voice, VoiceBuilder, VoiceOptions};
use tokio::time::timeout;

const QUESTIONS: [&str; 2] = ["What is the capital of France?", "Wait, and of Spain?"];
const LONG: &str = "The capital of France is Paris, a city of two million people on the river Seine, and it has been the \
                    capital for most of its history.";

async fn doubles(replies: Vec<Reply>) -> Doubles {
    let listen = ListenScript::energy(QUESTIONS);
    let chat = ChatScript { replies };
    Doubles::start(DoublesOptions { listen, chat, ..DoublesOptions::default() }).await.unwrap()
}

fn deepgram(doubles: &Doubles) -> DeepgramOptions {
    let key = Secret::new("dg-test");
    DeepgramOptions { url: doubles.deepgram_url(), key, ..DeepgramOptions::default() }
}

fn voice_of(doubles: &Doubles, stt: impl Stt) -> VoiceBuilder {
    let openai = OpenAiOptions { base_url: doubles.openai_url(), ..OpenAiOptions::default() };
    let llm = OpenAi::new(openai).unwrap();
    let tones = TonesOptions { character: Duration::from_millis(40), ..TonesOptions::default() };
    Voice::builder(Arc::new(stt), Arc::new(llm), Arc::new(Tones::new(tones)))
}

fn voice(doubles: &Doubles) -> VoiceBuilder {
    voice_of(doubles, Deepgram::flux(deepgram(doubles)).unwrap())
}

/// The question, at these times.
fn speech(at: &[f64]) -> Speech {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/audio/question.wav");
    let one = Speech::read(&path).unwrap();
    let mut samples = Vec::new();
    for at in at {
        samples.resize((at * f64::from(one.sample_rate)) as usize, 0);
        samples.extend(&one.samples);
    }
    Speech { samples, ..one }
}

async fn talk(voice: &Voice, speech: &Speech) -> (Vec<TurnReport>, Vec<ServerMessage>) {
    let options = FileOptions { quiet: Duration::from_secs(2), most: Duration::from_secs(60) };
    let mut told = Vec::new();
    let turns = converse(voice.start(), speech, &options, |message| told.push(message.clone()));
    let turns = timeout(Duration::from_secs(120), turns).await.expect("an end").unwrap();
    (turns, told)
}

fn contents(request: &serde_json::Value) -> Vec<(String, String)> {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let messages = request["messages"].as_array().unwrap();
    messages.iter().map(|m| (text(&m["role"]), text(&m["content"]))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_is_answered_aloud() {
    let doubles = doubles(vec![Reply::say("It is **Paris**.")]).await;
    let (turns, told) = talk(&voice(&doubles).build(), &speech(&[0.0])).await;
    let [turn] = &turns[..] else { panic!("{turns:?}") };
    assert_eq!((turn.user.as_str(), turn.assistant.as_str()), (QUESTIONS[0], "It is **Paris**."));
    assert!(!turn.failed && !turn.interrupted);
    assert!(turn.stages.named().iter().all(|(_, at)| at.is_some()), "{:?}", turn.stages);
    let spoken: usize = told
        .iter()
        .map(|message| match message {
            ServerMessage::Audio(frame) => frame.samples.len(),
            _ => 0,
        })
        .sum();
    // What is heard is the sentence without its marks: 12 characters of 40 ms.
    assert!((9..=13).contains(&(spoken / 960)), "{spoken} samples");
    doubles.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nova_answers_too() {
    let doubles = doubles(vec![Reply::say("It is Paris.")]).await;
    let stt = Deepgram::nova(deepgram(&doubles)).unwrap();
    let (turns, _) = talk(&voice_of(&doubles, stt).build(), &speech(&[0.0])).await;
    assert_eq!(turns.len(), 1, "{turns:?}");
    assert_eq!(turns[0].assistant, "It is Paris.");
    doubles.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interruption_is_heard_and_only_what_was_spoken_is_remembered() {
    let doubles = doubles(vec![Reply::say(LONG), Reply::say("Madrid.")]).await;
    let (turns, told) = talk(&voice(&doubles).build(), &speech(&[0.0, 4.5])).await;
    assert_eq!(turns.len(), 2, "{turns:?}");
    assert!(turns[0].interrupted && !turns[1].interrupted);
    let heard = turns[0].assistant.as_str();
    assert!(!heard.is_empty() && heard.len() < LONG.len() && LONG.starts_with(heard), "{heard}");
    assert!(told.iter().any(|message| matches!(message, ServerMessage::Flush { .. })));
    let record = doubles.record();
    let asked = contents(&record.chats.back().unwrap().request);
    let expected = [
        ("user".to_owned(), QUESTIONS[0].to_owned()),
        ("assistant".to_owned(), heard.to_owned()),
        ("user".to_owned(), QUESTIONS[1].to_owned()),
    ];
    assert_eq!(asked[1..], expected);
    doubles.shutdown().await;
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct City {
    city: String,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_is_run_and_its_result_is_asked_with() {
    let asks = Reply::call("weather", r#"{"city":"Paris"}"#);
    let doubles = doubles(vec![asks, Reply::say("It rains.")]).await;
    let tools =
        Tools::new().with("weather", "The weather in a city", |City { city }: City| async move {
            Ok::<_, Infallible>(format!("rain in {city}"))
        });
    let (turns, _) = talk(&voice(&doubles).tools(tools).build(), &speech(&[0.0])).await;
    assert_eq!(turns.len(), 1, "{turns:?}");
    assert_eq!(turns[0].assistant, "It rains.");
    let record = doubles.record();
    let asked = contents(&record.chats.back().unwrap().request);
    let (role, content) = asked.last().unwrap();
    assert!(role == "tool" && content.contains("rain in Paris"), "{asked:?}");
    doubles.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_fails_is_told_of_and_the_next_turn_is_answered() {
    let doubles = doubles(vec![Reply::say("It is Madrid.")]).await;
    let refused = FaultKind::Status { status: 401, retry_after: None, code: None };
    let voice = voice(&doubles).build();
    // The warm-up asks for the models, which faults leave alone.
    doubles.faults().add(Fault::next(Service::Chat, refused));
    let (turns, told) = talk(&voice, &speech(&[0.0, 8.0])).await;
    assert_eq!(turns.len(), 2, "{turns:?}");
    assert!(turns[0].failed && turns[0].assistant.starts_with("I'm sorry"), "{:?}", turns[0]);
    assert_eq!((turns[1].failed, turns[1].assistant.as_str()), (false, "It is Madrid."));
    let problem = |message: &ServerMessage| match message {
        ServerMessage::Problem { stage, message, permanent } => {
            stage == "thinking" && *permanent && message.contains("401") && !message.contains("sk-")
        }
        _ => false,
    };
    assert!(told.iter().any(problem), "{told:?}");
    doubles.shutdown().await;
}

/// A conversation of one question, in which the recogniser's connection breaks so many milliseconds after its beginning.
async fn with_a_break(
    recogniser: fn(DeepgramOptions) -> Result<Deepgram, DeepgramOptionsError>,
    fault: FaultKind,
    at_ms: u64,
) {
    let doubles = doubles(vec![Reply::say("It is Paris.")]).await;
    let voice = voice_of(&doubles, recogniser(deepgram(&doubles)).unwrap()).build();
    let speech = speech(&[0.0]);
    let strikes = async {
        tokio::time::sleep(Duration::from_millis(at_ms)).await;
        doubles.faults().strike(Service::Listen, &fault)
    };
    let ((turns, told), struck) = tokio::join!(talk(&voice, &speech), strikes);
    assert_eq!(struck, 1, "at {at_ms} ms");
    let told: Vec<_> =
        told.iter().filter(|told| !matches!(told, ServerMessage::Audio(_))).collect();
    assert!(told.iter().any(|message| matches!(message, ServerMessage::Problem { .. })));
    assert_eq!(turns.len(), 1, "{fault:?} at {at_ms} ms: {told:#?}");
    assert_eq!(turns[0].user, QUESTIONS[0], "{fault:?} at {at_ms} ms");
    assert_eq!(turns[0].assistant, "It is Paris.", "{fault:?} at {at_ms} ms");
    doubles.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recogniser_that_goes_away_at_any_time_makes_one_turn_of_a_question() {
    let dropped = FaultKind::Drop { after_bytes: 0 };
    let closed = FaultKind::Close { after_events: 0, code: 1011, reason: "NET-0000".into() };
    let mut conversations = tokio::task::JoinSet::new();
    for at_ms in (300..4300).step_by(200) {
        conversations.spawn(with_a_break(Deepgram::flux, dropped.clone(), at_ms));
        conversations.spawn(with_a_break(Deepgram::flux, closed.clone(), at_ms + 100));
        conversations.spawn(with_a_break(Deepgram::nova, dropped.clone(), at_ms + 100));
        conversations.spawn(with_a_break(Deepgram::nova, closed.clone(), at_ms));
    }
    while let Some(conversation) = conversations.join_next().await {
        conversation.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_ends_its_conversation() {
    let doubles = doubles(vec![Reply::say(LONG)]).await;
    let slow_client = Duration::from_millis(200);
    let mut options = VoiceOptions { slow_client, ..VoiceOptions::default() };
    options.turn.greeting = LONG.repeat(8);
    let session = voice(&doubles).options(options).build().start();
    session.input.send(ClientMessage::Hello { sample_rate: 16_000 }).await.unwrap();
    timeout(Duration::from_secs(60), session.input.closed()).await.expect("an end");
    doubles.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_is_recorded_with_both_sides() {
    let doubles = doubles(vec![Reply::say("It is Paris.")]).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("it.wav");
    let voice = voice(&doubles).build();
    let options = FileOptions { quiet: Duration::from_secs(1), most: Duration::from_secs(60) };
    let session = voice.start_recording(path.clone());
    let turns = converse(session, &speech(&[0.0]), &options, |_| ()).await.unwrap();
    assert_eq!(turns.len(), 1);
    // The session ends after its client, and the recording with it.
    let timeline = dir.path().join("it.json");
    let whole = || {
        let text = std::fs::read_to_string(&timeline).unwrap_or_default();
        serde_json::from_str::<serde_json::Value>(&text).is_ok() && text.contains("first_played")
    };
    for _ in 0..100 {
        if whole() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(whole());
    let mut reader = hound::WavReader::open(&path).unwrap();
    assert_eq!((reader.spec().channels, reader.spec().sample_rate), (2, 24_000));
    let samples: Vec<i16> = reader.samples().map(Result::unwrap).collect();
    let loudest =
        |side: usize| samples.iter().skip(side).step_by(2).map(|x| x.unsigned_abs()).max();
    assert!(loudest(0) > Some(1000) && loudest(1) > Some(1000));
    doubles.shutdown().await;
}
