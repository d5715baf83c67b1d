//! Nova: words, and where its turns end.

use super::*;

/// Results about `start` to `end` seconds. Words are spread over them evenly.
fn results(start: f64, end: f64, text: &str) -> Value {
    let each = (end - start) / text.split_whitespace().count().max(1) as f64;
    let words = text.split_whitespace().enumerate().map(|(at, word)| {
        let start = start + each * at as f64;
        json!({
            "word": word.to_lowercase(), "punctuated_word": word,
            "start": start, "end": start + each, "confidence": 0.9
        })
    });
    json!({
        "type": "Results", "channel_index": [0, 1], "start": start, "duration": end - start,
        "is_final": false, "speech_final": false, "from_finalize": false,
        "channel": {"alternatives": [
            {"transcript": text, "confidence": 0.9, "words": words.collect::<Vec<_>>()}
        ]},
        "metadata": {"request_id": "r-1"}
    })
}

fn with(mut results: Value, flags: &[&str]) -> Value {
    for flag in flags {
        results[flag] = true.into();
    }
    results
}

fn is_final(start: f64, end: f64, text: &str) -> Value {
    with(results(start, end, text), &["is_final"])
}

/// A conversation of which `seconds` have been spoken and heard.
async fn spoken(seconds: f64) -> (SttStream, Host, Server, Mic) {
    let (mut stream, mut host) = nova();
    let mut server = host.accept().await;
    assert!(server.uri.starts_with("/v1/listen?model=nova-3&"), "{}", server.uri);
    assert_eq!(event(&mut stream).await, SttEvent::Connected);
    let mut mic = Mic::new();
    mic.speak(&stream.input, seconds).await;
    server.audio((seconds * 16_000.0) as usize - 1279).await;
    (stream, host, server, mic)
}

fn ended(text: &str, end: f64) -> SttEvent {
    let speech_end = Some(Duration::from_secs_f64(end));
    SttEvent::TurnEnded { text: text.into(), speech_end }
}

/// Whether there is no event for `time`.
async fn silent(stream: &mut SttStream, time: Duration) -> bool {
    timeout(time, stream.events.recv()).await.is_err()
}

const FINALIZE: &str = r#"{"type":"Finalize"}"#;

#[tokio::test(start_paused = true)]
async fn a_turn_is_all_that_is_final_until_silence() {
    let (mut stream, _host, mut server, _mic) = spoken(4.0).await;
    server.say(json!({"type": "SpeechStarted", "channel": [0, 1], "timestamp": 0.2})).await;
    server.say(json!({"type": "SpeechStarted", "channel": [0, 1], "timestamp": 0.4})).await;
    server.say(results(0.0, 1.0, "Tell")).await;
    server.say(results(0.0, 1.5, "Tell me")).await;
    server.say(is_final(0.0, 2.0, "Tell me more")).await;
    server.say(results(2.0, 2.5, "about")).await;
    server.say(with(is_final(2.0, 3.0, "about it."), &["speech_final"])).await;
    // Once more, later, as it is wont to.
    server.say(json!({"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": 3.0})).await;
    server.say(is_final(3.0, 4.0, "")).await;
    for expected in [
        SttEvent::TurnStarted,
        partial("Tell"),
        partial("Tell me"),
        partial("Tell me more"),
        partial("Tell me more about"),
        partial("Tell me more about it."),
        ended("Tell me more about it.", 3.0),
    ] {
        assert_eq!(event(&mut stream).await, expected);
    }
    assert!(silent(&mut stream, Duration::from_secs(20)).await);
}

#[tokio::test(start_paused = true)]
async fn the_local_detector_ends_a_turn() {
    let (mut stream, _host, mut server, mut mic) = spoken(1.9).await;
    server.say(results(0.0, 1.5, "Yes please")).await;
    assert_eq!(event(&mut stream).await, SttEvent::TurnStarted);
    assert_eq!(event(&mut stream).await, partial("Yes please"));
    mic.speak(&stream.input, 0.02).await;
    stream.input.send(SttInput::SpeechStopped).await.unwrap();
    mic.speak(&stream.input, 0.02).await;
    // All that was heard until then goes first, though it is not a frame.
    let mut rest = 0;
    let text = loop {
        match server.got().await {
            Got::Audio(audio) => rest += audio.len(),
            Got::Text(text) => break text,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((text.as_str(), server.samples), (FINALIZE, (1.92 * 16_000.0) as u64), "{rest}");
    server.say(with(is_final(0.0, 1.9, "Yes, please."), &["from_finalize"])).await;
    assert_eq!(event(&mut stream).await, partial("Yes, please."));
    assert_eq!(event(&mut stream).await, ended("Yes, please.", 1.9));
    server.say(json!({"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": 1.9})).await;
    assert!(silent(&mut stream, Duration::from_secs(3)).await);
}

#[tokio::test(start_paused = true)]
async fn the_answer_to_finalize_may_be_empty() {
    let (mut stream, _host, mut server, _mic) = spoken(2.0).await;
    server.say(is_final(0.0, 1.9, "Yes, please.")).await;
    stream.input.send(SttInput::SpeechStopped).await.unwrap();
    assert_eq!(server.text().await, FINALIZE);
    server.say(with(is_final(1.9, 2.0, ""), &["from_finalize"])).await;
    assert_eq!(event(&mut stream).await, SttEvent::TurnStarted);
    assert_eq!(event(&mut stream).await, partial("Yes, please."));
    assert_eq!(event(&mut stream).await, ended("Yes, please.", 1.9));
}

#[tokio::test(start_paused = true)]
async fn the_answer_to_finalize_may_not_come_and_may_come_late() {
    let (mut stream, _host, mut server, mut mic) = spoken(2.0).await;
    server.say(is_final(0.0, 1.0, "Yes,")).await;
    server.say(results(1.0, 1.9, "please")).await;
    for expected in [SttEvent::TurnStarted, partial("Yes,"), partial("Yes, please")] {
        assert_eq!(event(&mut stream).await, expected);
    }
    stream.input.send(SttInput::SpeechStopped).await.unwrap();
    assert_eq!(server.text().await, FINALIZE);
    let asked = Instant::now();
    assert_eq!(event(&mut stream).await, ended("Yes, please", 1.9));
    let waited = asked.elapsed();
    assert!(
        waited > Duration::from_millis(400) && waited < Duration::from_millis(600),
        "{waited:?}"
    );
    // The words of that turn are no turn of their own; those after them are.
    mic.next = Instant::now();
    mic.speak(&stream.input, 1.0).await;
    server.audio(12_800).await;
    server.say(with(is_final(1.0, 2.0, "please."), &["from_finalize"])).await;
    server.say(with(is_final(2.0, 2.8, "And then?"), &["speech_final"])).await;
    for expected in [SttEvent::TurnStarted, partial("And then?"), ended("And then?", 2.8)] {
        assert_eq!(event(&mut stream).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn finalize_with_nothing_to_be_final_ends_nothing() {
    let (mut stream, _host, mut server, _mic) = spoken(1.0).await;
    stream.input.send(SttInput::SpeechStarted).await.unwrap();
    stream.input.send(SttInput::SpeechStopped).await.unwrap();
    assert_eq!(server.text().await, FINALIZE);
    assert!(silent(&mut stream, Duration::from_secs(2)).await);
    // A short word whose results took longer than the wait.
    server.say(with(is_final(0.0, 1.0, "Yes."), &["from_finalize"])).await;
    for expected in [SttEvent::TurnStarted, partial("Yes."), ended("Yes.", 1.0)] {
        assert_eq!(event(&mut stream).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_ends_where_no_words_come_for_long() {
    let (mut stream, _host, mut server, _mic) = spoken(4.0).await;
    server.say(results(0.0, 1.0, "Well")).await;
    server.say(json!({"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": 1.0})).await;
    for expected in [SttEvent::TurnStarted, partial("Well"), ended("Well", 1.0)] {
        assert_eq!(event(&mut stream).await, expected);
    }
    // The next turn has begun when the end of this one is said once more.
    server.say(results(2.0, 3.0, "so")).await;
    server.say(json!({"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": 1.0})).await;
    server.say(json!({"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": 3.0})).await;
    for expected in [SttEvent::TurnStarted, partial("so"), ended("so", 3.0)] {
        assert_eq!(event(&mut stream).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn results_may_lack_what_is_optional() {
    let (mut stream, _host, mut server, _mic) = spoken(2.0).await;
    server
        .say(json!({"type": "Results", "start": 0.0, "duration": 1.0,
            "channel": {"alternatives": [{"transcript": "One"}]}}))
        .await;
    server
        .say(json!({"type": "Results", "start": 0.0, "duration": 1.5, "is_final": true,
            "channel": {"alternatives": [{"transcript": "One two"}]}}))
        .await;
    server.say(json!({"type": "Results", "start": 1.5, "duration": 0.5, "is_final": true})).await;
    server.say(json!({"type": "UtteranceEnd"})).await;
    for expected in [
        SttEvent::TurnStarted,
        partial("One"),
        partial("One two"),
        SttEvent::TurnEnded { text: "One two".into(), speech_end: None },
    ] {
        assert_eq!(event(&mut stream).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn the_connection_is_kept_while_there_is_no_audio() {
    let (stream, _host, mut server, _mic) = spoken(1.0).await;
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(server.text().await, r#"{"type":"KeepAlive"}"#);
    }
    let each = began.elapsed() / 20;
    assert!(each > Duration::from_secs(3) && each < Duration::from_secs(5), "{each:?}");
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_was_never_fed_is_not_kept() {
    let (mut stream, mut host) = nova();
    let mut server = host.accept().await;
    assert_eq!(event(&mut stream).await, SttEvent::Connected);
    assert_eq!(server.text().await, r#"{"type":"CloseStream"}"#);
    let mut mic = Mic::new();
    mic.speak(&stream.input, 0.2).await;
    let mut server = host.accept().await;
    assert_eq!(server.audio(2560).await, samples(0, 2560));
}

#[tokio::test(start_paused = true)]
async fn after_a_loss_audio_is_heard_from_the_last_final_word() {
    let (mut stream, mut host, mut server, mut mic) = spoken(3.0).await;
    server.say(is_final(0.0, 2.0, "Tell me more")).await;
    server.say(results(2.0, 2.8, "about it")).await;
    for expected in
        [SttEvent::TurnStarted, partial("Tell me more"), partial("Tell me more about it")]
    {
        assert_eq!(event(&mut stream).await, expected);
    }
    server.close(1011, "NET-0000").await;
    lost(&mut stream).await;
    // Speech ends while there is no connection.
    stream.input.send(SttInput::SpeechStopped).await.unwrap();
    let mut server = host.accept().await;
    mic.speak(&stream.input, 2.0).await;
    let heard = server.audio(15_999).await;
    assert_eq!(heard, samples(32_000, heard.len() as u64));
    server.say(results(0.0, 0.4, "about")).await;
    assert_eq!((server.text().await.as_str(), server.samples), (FINALIZE, 16_000));
    server.say(with(is_final(0.0, 0.9, "about it."), &["from_finalize"])).await;
    assert!(matches!(event(&mut stream).await, SttEvent::Restored { .. }));
    assert_eq!(event(&mut stream).await, partial("Tell me more about it."));
    assert_eq!(event(&mut stream).await, ended("Tell me more about it.", 2.9));
}

#[tokio::test(start_paused = true)]
async fn finalize_is_sent_again_when_its_answer_was_lost() {
    let (mut stream, mut host, mut server, _mic) = spoken(2.0).await;
    server.say(is_final(0.0, 1.9, "Yes, please.")).await;
    stream.input.send(SttInput::SpeechStopped).await.unwrap();
    assert_eq!(server.text().await, FINALIZE);
    drop(server);
    for expected in [SttEvent::TurnStarted, partial("Yes, please.")] {
        assert_eq!(event(&mut stream).await, expected);
    }
    lost(&mut stream).await;
    let mut server = host.accept().await;
    assert_eq!(server.text().await, FINALIZE);
    server.say(with(is_final(0.0, 0.1, ""), &["from_finalize"])).await;
    assert_eq!(turn_event(&mut stream).await, ended("Yes, please.", 1.9));
}
