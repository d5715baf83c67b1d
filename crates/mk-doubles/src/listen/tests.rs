//! What is heard becomes messages, for any audio and any client: Flux's rules, and the same whatever the chunks.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::listen::audio::{Encoding, Meter};
use crate::listen::query::{FluxQuery, NovaQuery, Query};
use crate::listen::timeline::Hearing;
use crate::listen::v1::Nova;
use crate::listen::v2::{Flux, FluxReply};
use crate::script::{EnergyScript, ListenScript, Moment, MomentKind, TimeScript};

fn pairs(query: &str) -> Vec<(String, String)> {
    let split = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap();
        (name.to_owned(), value.to_owned())
    };
    format!("encoding=linear16&sample_rate=8000&{query}").split('&').map(split).collect()
}

fn flux(query: &str) -> Flux {
    let query = pairs(&format!("model=flux-general-en&{query}"));
    Flux::new("id".into(), FluxQuery::read(&Query(&query)).unwrap().0)
}

fn nova(query: &str) -> Nova {
    Nova::new("id".into(), "model".into(), NovaQuery::read(&Query(&pairs(query))).unwrap().0)
}

/// What a client does: audio so loud and so long (ticks of 10 ms), or a message.
#[derive(Debug, Clone)]
enum Step {
    Audio { loud: bool, ticks: usize },
    Control(Value),
}

fn bytes(loud: bool, ticks: usize) -> Vec<u8> {
    let sample: i16 = if loud { 5000 } else { 0 };
    [sample, -sample].repeat(40 * ticks).into_iter().flat_map(i16::to_le_bytes).collect()
}

/// All messages of a session to its end.
fn play(script: &ListenScript, flux: &mut Flux, steps: &[Step], chunk: usize) -> Vec<Value> {
    let mut hearing = Hearing::new(script, None);
    let mut meter = Meter::new(Encoding::Linear16, 8000, 1);
    let mut messages = vec![flux.connected()];
    let mut now = 0.0;
    for step in steps {
        match step {
            Step::Audio { loud, ticks } => {
                for piece in bytes(*loud, *ticks).chunks(chunk) {
                    for (end, rms) in meter.take(piece) {
                        now = end;
                        let heard = hearing.tick(now, rms);
                        messages.extend(flux.tick(now, &heard, hearing.is_loud()));
                    }
                }
            }
            Step::Control(message) => match flux.control(now, message) {
                FluxReply::Messages(more) => messages.extend(more),
                FluxReply::Fatal(error) => panic!("{error}"),
            },
        }
    }
    messages.extend(flux.close(now));
    messages
}

/// Holds all messages of a session against the rules that Deepgram gives.
fn check_rules(messages: &[Value]) {
    let (mut turn, mut eager, mut in_turn) = (0, None, false);
    let mut last_sent = 0.0;
    for (sequence, message) in messages.iter().enumerate() {
        assert_eq!(message["sequence_id"], sequence, "{message}");
        if message["type"] != "TurnInfo" {
            continue;
        }
        assert_eq!(message["turn_index"], turn, "{message}");
        let transcript = message["transcript"].as_str().unwrap();
        let words = message["words"].as_array().unwrap();
        let line: Vec<_> = words.iter().map(|word| word["word"].as_str().unwrap()).collect();
        assert_eq!(line.join(" "), transcript);
        let times: Vec<_> = words
            .iter()
            .flat_map(|word| [word["start"].as_f64().unwrap(), word["end"].as_f64().unwrap()])
            .collect();
        assert!(times.is_sorted(), "{message}");
        let now = message["audio_window_end"].as_f64().unwrap();
        assert!(message["audio_window_start"].as_f64().unwrap() <= now, "{message}");
        assert!((0.0..0.2501).contains(&(now - last_sent)), "after {last_sent}: {message}");
        last_sent = now;
        let event = message["event"].as_str().unwrap();
        assert_eq!(message.get("trigger").is_some(), event == "EndOfTurn", "{message}");
        match event {
            "StartOfTurn" => {
                assert!(!in_turn, "{message}");
                in_turn = true;
            }
            "Update" => match &eager {
                Some(eager) => assert_eq!(transcript, eager, "{message}"),
                None => assert!(in_turn || transcript.is_empty(), "{message}"),
            },
            "EagerEndOfTurn" => {
                assert!(in_turn && eager.is_none() && !transcript.is_empty(), "{message}");
                eager = Some(transcript.to_owned());
            }
            "TurnResumed" => assert!(eager.take().is_some(), "{message}"),
            "EndOfTurn" => {
                assert!(in_turn, "{message}");
                if let Some(eager) = eager.take() {
                    assert_eq!(transcript, eager, "{message}");
                }
                in_turn = false;
                turn += 1;
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!(messages.last().unwrap()["event"], "Update");
}

fn any_step() -> impl Strategy<Value = Step> {
    let control = prop_oneof![
        Just(json!({"type": "ForceEndTurn"})),
        Just(json!({"type": "Configure", "thresholds": {"eager_eot_threshold": 0.4}})),
        Just(json!({"type": "Configure", "thresholds": {"eot_threshold": 1.0}})),
        Just(
            json!({"type": "Configure", "thresholds": {"eot_threshold": 0.6, "eot_timeout_ms": 500}})
        ),
        Just(json!({"type": "Configure", "thresholds": {"eot_threshold": 2}})),
    ];
    prop_oneof![
        5 => (any::<bool>(), 1..80usize).prop_map(|(loud, ticks)| Step::Audio { loud, ticks }),
        1 => control.prop_map(Step::Control),
    ]
}

fn any_moment() -> impl Strategy<Value = (f64, MomentKind, Option<String>)> {
    use MomentKind::{Eager, End, Resume, Start, Update};
    let kind = prop::sample::select(vec![Start, Update, Eager, Resume, End]);
    let text = prop::option::of(prop::sample::select(vec!["", "a", "a b", "a b c", "x b c d"]));
    (0.0..0.6f64, kind, text.prop_map(|text| text.map(String::from)))
}

fn any_script() -> impl Strategy<Value = ListenScript> {
    let time = prop::collection::vec(any_moment(), 0..25).prop_map(|moments| {
        let mut at = 0.0;
        let moments = moments.into_iter().map(|(after, event, transcript)| {
            at += after;
            Moment { at, event, transcript }
        });
        let moments = moments.collect();
        ListenScript::Time(TimeScript { moments, repeat_every: Some(16.0) })
    });
    let energy = (0..12u32, 0..30u32, 1..40u32).prop_map(|(onset, eager, word)| {
        ListenScript::Energy(EnergyScript {
            onset_ms: onset * 10,
            eager_ms: eager * 10,
            silence_ms: 300,
            word_ms: word * 10,
            ..EnergyScript::default()
        })
    });
    prop_oneof![time, energy]
}

proptest! {
    #[test]
    fn flux_keeps_its_rules_whatever_is_heard_and_asked(
        script in any_script(),
        steps in prop::collection::vec(any_step(), 0..40),
        query in prop::sample::select(vec!["eot_threshold=0.7", "eager_eot_threshold=0.4", "eot_timeout_ms=500"]),
        chunk in 1..3000usize,
    ) {
        script.check().unwrap();
        // Whole samples, as the session demands.
        let messages = play(&script, &mut flux(query), &steps, chunk * 2);
        check_rules(&messages);
        prop_assert_eq!(messages, play(&script, &mut flux(query), &steps, 1280));
    }

    #[test]
    fn novas_final_results_hold_every_word_once(
        script in any_script(),
        steps in prop::collection::vec((any::<bool>(), 1..80usize), 0..30),
        query in prop::sample::select(vec!["interim_results=true", "endpointing=false", "endpointing=300"]),
    ) {
        let ListenScript::Energy(_) = script else { return Ok(()) };
        let mut nova = nova(query);
        let mut hearing = Hearing::new(&script, None);
        let mut meter = Meter::new(Encoding::Linear16, 8000, 1);
        let (mut messages, mut said) = (Vec::new(), Vec::new());
        for (loud, ticks) in steps {
            for (now, rms) in meter.take(&bytes(loud, ticks)) {
                let heard = hearing.tick(now, rms);
                let ended = heard.iter().filter(|heard| heard.kind == MomentKind::End);
                said.extend(ended.flat_map(|heard| heard.words.clone()));
                messages.extend(nova.tick(now, &heard));
            }
        }
        let mut start = 0.0;
        let mut results = Vec::new();
        for message in messages.iter().filter(|message| message["is_final"] == true) {
            prop_assert_eq!(&message["start"], start);
            start = ((start + message["duration"].as_f64().unwrap()) * 1000.0).round() / 1000.0;
            let alternative = &message["channel"]["alternatives"][0];
            results.extend(alternative["words"].as_array().unwrap().iter().map(|word| word["word"].clone()));
            prop_assert!(query != "endpointing=false" || message["speech_final"] == false);
        }
        let said: Vec<Value> = said.iter().map(|word| word.bare().into()).collect();
        // Words of a turn that goes on may be final already.
        prop_assert_eq!(results.get(..said.len()), Some(&said[..]));
    }
}

#[test]
fn a_turn_ends_by_its_timeout_where_nothing_else_ends_it() {
    let moments = vec![Moment { at: 0.5, event: MomentKind::Start, transcript: Some("So".into()) }];
    let script = ListenScript::Time(TimeScript { moments, repeat_every: None });
    let steps = [Step::Audio { loud: false, ticks: 300 }];
    let messages = play(&script, &mut flux("eot_timeout_ms=1000"), &steps, 640);
    let end = messages.iter().find(|message| message["event"] == "EndOfTurn").unwrap();
    assert_eq!((&end["trigger"], &end["audio_window_end"]), (&"timeout".into(), &1.5.into()));
    check_rules(&messages);
}

#[test]
fn words_that_follow_a_forced_end_are_another_turn() {
    let script = ListenScript::turns([("one two three four", 0.0, 2.0)]);
    let audio = || Step::Audio { loud: false, ticks: 125 };
    let steps = [audio(), Step::Control(json!({"type": "ForceEndTurn"})), audio()];
    let messages = play(&script, &mut flux("eot_threshold=0.7"), &steps, 640);
    let ends = messages.iter().filter(|message| message["event"] == "EndOfTurn");
    let ends: Vec<_> =
        ends.map(|end| (end["transcript"].as_str().unwrap(), &end["trigger"])).collect();
    assert_eq!(ends, [("one two", &json!("manual")), ("three four", &json!("model"))]);
}

#[test]
fn long_speech_is_final_in_parts() {
    let script = ListenScript::turns([("one two three four five six", 0.5, 6.5)]);
    let mut nova = nova("endpointing=300");
    let mut hearing = Hearing::new(&script, None);
    let results: Vec<Value> = (1..=800)
        .flat_map(|tick| {
            let now = f64::from(tick) / 100.0;
            nova.tick(now, &hearing.tick(now, 0.0))
        })
        .collect();
    let said: Vec<_> = results
        .iter()
        .map(|message| {
            let transcript = message["channel"]["alternatives"][0]["transcript"].as_str().unwrap();
            (transcript, message["speech_final"].as_bool().unwrap())
        })
        .collect();
    assert_eq!(said, [("one two three", false), ("four five six", true)]);
}

#[test]
fn queries_are_refused_with_the_reason() {
    let nova = |query: &str| NovaQuery::read(&Query(&pairs(query))).unwrap_err();
    let flux = |query: &str| FluxQuery::read(&Query(&pairs(query))).unwrap_err();
    for (reason, part) in [
        (nova("utterance_end_ms=1000"), "needs interim_results"),
        (nova("interim_results=yes"), "true or false"),
        (nova("interim_results=true&utterance_end_ms=200"), "from 1000 to 5000"),
        (nova("model=flux-general-en"), "/v2/listen"),
        (nova("endpointing=soon"), "endpointing"),
        (flux("x=y"), "model is missing"),
        (flux("model=nova-3"), "not served"),
        (flux("model=flux-general-en&interim_results=true"), "no parameter"),
        (flux("model=flux-general-en&eot_threshold=0.2"), "from 0.5 to 1"),
        (flux("model=flux-general-en&eager_eot_threshold=0.8"), "above eot_threshold"),
        (flux("model=flux-general-en&language_hint=de"), "takes no language_hint"),
    ] {
        assert!(reason.contains(part), "{reason}");
    }
    let raw = |query: &str| {
        let pairs: Vec<_> = query
            .split('&')
            .map(|pair| pair.split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap())
            .collect();
        NovaQuery::read(&Query(&pairs)).unwrap_err()
    };
    assert!(raw("model=nova-3").contains("encoding is missing"));
    assert!(raw("encoding=linear16").contains("sample_rate is missing"));
    assert!(raw("encoding=opus&sample_rate=16000").contains("opus"));
}
