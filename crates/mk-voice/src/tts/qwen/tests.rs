//! The voice on small checkpoints of random weights: noise, but in time and in order.

use std::sync::LazyLock;
use std::time::Duration;

use mk_tts::TtsOptions;
use mk_tts::config::ModelType;
use mk_tts::guard::GuardOptions;
use mk_tts::runtime::{EngineChoice, RuntimeOptions};
use mk_tts::synth::Spec;
use mk_tts::text::LiveOptions;
use tokio::time::timeout;

use super::*;

const TEXT: &str = "Hello world, this is a test.  ";
/// For what must happen, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

fn load(model_type: ModelType) -> mk_tts::Tts {
    let dir = tempfile::tempdir().expect("a temporary directory");
    Spec::tiny(model_type).write(dir.path()).expect("a valid spec");
    let runtime = RuntimeOptions { engine: EngineChoice::Rten, ..RuntimeOptions::default() };
    let options = TtsOptions { runtime, ..TtsOptions::default() };
    mk_tts::Tts::load(dir.path(), &options).expect("a valid checkpoint")
}

static MODEL: LazyLock<mk_tts::Tts> = LazyLock::new(|| load(ModelType::CustomVoice));

/// A speech of so many frames, since random weights do not know when they are done.
fn options(frames: usize) -> SpeakOptions {
    let guard = GuardOptions { max_frames: Some(frames), ..GuardOptions::none() };
    SpeakOptions { language: "english".into(), guard, ..SpeakOptions::default() }
}

fn voice(options: SpeakOptions) -> QwenTts {
    let ryan = MODEL.voice("ryan").expect("a voice");
    QwenTts::new(MODEL.clone(), ryan, options).expect("a voice to talk with")
}

async fn next(events: &mut mpsc::Receiver<TtsEvent>) -> Option<TtsEvent> {
    timeout(PATIENCE, events.recv()).await.expect("in time")
}

async fn speak(voice: &QwenTts, pieces: &[&str]) -> Vec<TtsEvent> {
    let Utterance { text, mut events } = voice.speak();
    let pieces: Vec<String> = pieces.iter().map(ToString::to_string).collect();
    tokio::spawn(async move {
        for piece in pieces {
            let _ = text.send(piece).await;
        }
    });
    let mut all = Vec::new();
    while let Some(event) = next(&mut events).await {
        all.push(event);
    }
    all
}

/// The samples, and the marks in the end.
fn heard(events: &[TtsEvent]) -> (Vec<i16>, Vec<Mark>) {
    let mut all = Vec::new();
    let mut byte = 0;
    for event in events {
        match event {
            TtsEvent::Audio { samples, mark } => {
                all.extend(samples);
                assert_eq!(mark.sample, all.len() as u64);
                assert!(!samples.is_empty() && mark.byte >= byte);
                byte = mark.byte;
            }
            TtsEvent::Ended { marks } => return (all, marks.clone()),
            TtsEvent::Failed(error) => panic!("{error}"),
        }
    }
    panic!("no end: {events:?}")
}

fn failure(events: &[TtsEvent]) -> String {
    let [.., TtsEvent::Failed(error)] = events else { panic!("{events:?}") };
    error.to_string()
}

#[tokio::test]
async fn an_utterance_is_the_speech_of_its_text() {
    let options = options(25);
    let voice = voice(options.clone()).trim_silence(false);
    assert_eq!((voice.name().as_str(), voice.sample_rate()), ("Qwen3-TTS (ryan, english)", 24_000));
    let events = speak(&voice, &["Hello wor", "ld, this ", "is a test.  "]).await;
    let (samples, marks) = heard(&events);

    let streamed = SpeakOptions { layout: Some(TextLayout::Streaming), ..options };
    let ryan = MODEL.voice("ryan").expect("a voice");
    let speech = MODEL.speak(TEXT, &ryan, &streamed).expect("a speech");
    let expected: Vec<i16> = speech.flat_map(|chunk| chunk.expect("a chunk").to_i16()).collect();
    // How it is cut into chunks rounds a little otherwise.
    assert_eq!(samples.len(), expected.len());
    assert!(samples.iter().zip(&expected).all(|(a, b)| a.abs_diff(*b) <= 1));

    let end = Mark { sample: samples.len() as u64, byte: TEXT.len() };
    assert_eq!((marks.first(), marks.last()), (Some(&Mark::default()), Some(&end)));
    assert!(marks.len() > 6, "words have marks of their own: {marks:?}");
    assert!(marks.windows(2).all(|m| m[0].sample < m[1].sample && m[0].byte <= m[1].byte));
}

#[tokio::test]
async fn silence_at_the_beginning_moves_the_marks() {
    let whole = heard(&speak(&voice(options(25)).trim_silence(false), &[TEXT]).await);
    let (samples, marks) = heard(&speak(&voice(options(25)), &[TEXT]).await);
    let cut = whole.0.len() - samples.len();
    assert!(cut <= 7_200);
    assert!(whole.0.iter().zip(&samples).count() > 0);
    let same = whole.0[cut..].iter().zip(&samples).all(|(a, b)| a.abs_diff(*b) <= 1);
    assert!(same, "what is left is what was there");
    let end = Mark { sample: samples.len() as u64, byte: TEXT.len() };
    assert_eq!(marks.last(), Some(&end));
}

#[tokio::test]
async fn a_text_of_nothing_is_spoken_by_silence() {
    for pieces in [&[][..], &["  \n"], &["", " ", "\u{1}"]] {
        let events = speak(&voice(options(9)), pieces).await;
        let byte = pieces.concat().len();
        assert_eq!(events, [TtsEvent::Ended { marks: vec![Mark { sample: 0, byte }] }]);
    }
}

#[tokio::test]
async fn what_is_cut_off_is_not_counted_as_spoken() {
    let text = "One two three four five six seven eight nine ten eleven twelve thirteen.";
    let (samples, marks) = heard(&speak(&voice(options(5)).trim_silence(false), &[text]).await);
    let last = marks.last().expect("a mark");
    assert_eq!(last.sample, samples.len() as u64);
    assert!(0 < last.byte && last.byte < text.len(), "{last:?}");
}

#[tokio::test]
async fn a_text_longer_than_what_may_wait_is_spoken() {
    let mut options = options(40);
    options.live = LiveOptions { max_waiting: 2, ..LiveOptions::default() };
    let (_, marks) =
        heard(&speak(&voice(options), &["One two three four five", " six seven."]).await);
    assert_eq!(marks.last().map(|mark| mark.byte), Some(34));
}

#[tokio::test]
async fn a_text_that_stalls_is_a_failure() {
    let mut options = options(40);
    options.live.idle_timeout = Some(Duration::from_millis(50));
    let voice = voice(options);
    let Utterance { text, mut events } = voice.speak();
    text.send("Hello there and".into()).await.expect("a listener");
    let mut all = Vec::new();
    while let Some(event) = next(&mut events).await {
        all.push(event);
    }
    let expected = "Qwen3-TTS (ryan, english): no text came for 50ms, and it was not finished";
    assert_eq!(failure(&all), expected);
    timeout(PATIENCE, text.closed()).await.expect("nobody reads it any more");
}

#[tokio::test]
async fn an_utterance_that_nobody_hears_gives_its_thread_back() {
    let voice = voice(options(2_000)).at_once(1);
    for hold in 0..3 {
        let Utterance { text, mut events } = voice.speak();
        match hold {
            // It waits for its first text.
            0 => {}
            // It is being made, and waits for the listener in the end.
            1 => text.send(TEXT.repeat(30)).await.expect("a listener"),
            // It waits for more text.
            _ => {
                text.send("Hello there and".into()).await.expect("a listener");
                assert!(matches!(next(&mut events).await, Some(TtsEvent::Audio { .. })));
            }
        }
        let Utterance { text: second, events: mut waiting } = voice.speak();
        second.send("Hello world.".into()).await.expect("a listener");
        // Its turn does not come as long as the first is there.
        assert!(timeout(Duration::from_millis(200), waiting.recv()).await.is_err());
        drop(events);
        assert!(matches!(next(&mut waiting).await, Some(TtsEvent::Audio { .. })), "{hold}");
        timeout(PATIENCE, text.closed()).await.expect("nobody reads it any more");
    }
}

#[test]
fn voices_that_cannot_talk_are_refused() {
    let ryan = || MODEL.voice("ryan").expect("a voice");
    let refused =
        |options| QwenTts::new(MODEL.clone(), ryan(), options).expect_err("an error").to_string();
    let whole = SpeakOptions { layout: Some(TextLayout::Whole), ..options(1) };
    assert!(refused(whole).contains("can only be streamed"));
    let language = SpeakOptions { language: "latin".into(), ..options(1) };
    assert!(refused(language).contains("latin"));
    let design = load(ModelType::VoiceDesign);
    let voice = design.design_voice("A calm, low voice").expect("a voice");
    let error = QwenTts::new(design, voice, options(1)).expect_err("an error");
    assert!(matches!(error, QwenTtsError::Described));
}

#[test]
fn a_voice_is_warmed_up_before_it_is_needed() {
    voice(options(1)).warm_up().expect("a frame");
}
