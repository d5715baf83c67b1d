//! Flux where all goes well.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_turn_is_heard_from_its_first_word_to_its_last() {
    let (mut stream, mut host) = flux();
    let mut server = host.flux().await;
    assert!(server.uri.starts_with("/v2/listen?model=flux-general-en&"), "{}", server.uri);
    assert_eq!(event(&mut stream).await, SttEvent::Connected);
    let mut mic = Mic::new();
    mic.speak(&stream.input, 1.0).await;
    assert_eq!(server.audio(12 * 1280).await, samples(0, 12 * 1280));

    server.turn("Update", 0, 0.25, "").await;
    server.turn("StartOfTurn", 0, 0.5, "What").await;
    server.turn("Update", 0, 0.75, "What is").await;
    server.turn("Update", 0, 0.8, "What is").await;
    server.turn("EagerEndOfTurn", 0, 0.85, "What is it?").await;
    server.turn("TurnResumed", 0, 0.9, "What is it? I").await;
    server.turn("EagerEndOfTurn", 0, 0.92, "What is it? I").await;
    server.turn("Update", 0, 0.93, "What is it? I").await;
    server.turn("EndOfTurn", 0, 0.95, "What is it? I").await;
    server.turn("Update", 0, 0.95, "What is it? I").await;
    let likely = |text: &str| SttEvent::LikelyEnd { text: text.into() };
    let ended = SttEvent::TurnEnded {
        text: "What is it? I".into(),
        speech_end: Some(Duration::from_millis(850)),
    };
    for expected in [
        SttEvent::TurnStarted,
        partial("What"),
        partial("What is"),
        likely("What is it?"),
        SttEvent::Resumed,
        partial("What is it? I"),
        likely("What is it? I"),
        ended,
    ] {
        assert_eq!(event(&mut stream).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_known_is_passed_over() {
    let (mut stream, mut host) = flux();
    let mut server = host.accept().await;
    server.say(json!({"type": "Weather"})).await;
    server.say(json!({"type": "Connected"})).await;
    assert_eq!(event(&mut stream).await, SttEvent::Connected);
    for odd in [
        "",
        "[1",
        "{}",
        "null",
        "17",
        "{\"type\":7}",
        "{\"type\":\"TurnInfo\",\"event\":\"Yawn\",\"transcript\":\"x\"}",
        "{\"type\":\"TurnInfo\",\"event\":\"Update\",\"transcript\":7}",
        "{\"type\":\"ConfigureSuccess\",\"sequence_id\":-3}",
    ] {
        server.socket.send(Message::text(odd)).await.unwrap();
    }
    server.socket.send(Message::binary(vec![0, 1, 2])).await.unwrap();
    server.turn("EndOfTurn", 0, 1e300, "Still there.").await;
    assert_eq!(event(&mut stream).await, SttEvent::TurnStarted);
    let ended = event(&mut stream).await;
    assert!(
        matches!(&ended, SttEvent::TurnEnded { text, .. } if text == "Still there."),
        "{ended:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_turn_when_the_microphone_is_off() {
    let (mut stream, mut host) = flux();
    let mut server = host.flux().await;
    assert_eq!(event(&mut stream).await, SttEvent::Connected);
    let mut mic = Mic::new();
    mic.speak(&stream.input, 1.0).await;
    server.audio(12 * 1280).await;
    server.turn("StartOfTurn", 0, 0.9, "Yes").await;
    assert_eq!(event(&mut stream).await, SttEvent::TurnStarted);
    // The rest of the input, which is less than a frame, then silence as time goes by.
    let began = Instant::now();
    let rest = server.audio(640).await;
    assert_eq!(rest, samples(12 * 1280, 640));
    let silence = server.audio(16_000).await;
    assert!(silence.iter().all(|&sample| sample == 0));
    let took = began.elapsed();
    assert!(took > Duration::from_millis(1300) && took < Duration::from_millis(1700), "{took:?}");
    server.turn("EndOfTurn", 0, 2.0, "Yes.").await;
    assert_eq!(event(&mut stream).await, partial("Yes"));
    // The word ended in the silence, for the server; for us, at the end of what there was.
    let ended =
        SttEvent::TurnEnded { text: "Yes.".into(), speech_end: Some(Duration::from_secs(1)) };
    assert_eq!(event(&mut stream).await, ended);
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_audio_is_closed_and_made_again_for_audio() {
    let (mut stream, mut host) = flux();
    let mut server = host.flux().await;
    assert_eq!(event(&mut stream).await, SttEvent::Connected);
    let mut mic = Mic::new();
    mic.speak(&stream.input, 0.16).await;
    server.audio(2560).await;
    let idle = Instant::now();
    assert_eq!(server.got().await, Got::Text(r#"{"type":"CloseStream"}"#.into()));
    assert_eq!(server.got().await, Got::End { said: true });
    assert!(idle.elapsed() < Duration::from_secs(9), "before the server closes");
    assert!(host.quiet(Duration::from_secs(600)).await);

    mic.next = Instant::now();
    mic.speak(&stream.input, 0.16).await;
    let mut server = host.flux().await;
    mic.speak(&stream.input, 0.16).await;
    assert_eq!(server.audio(5120).await, samples(2560, 5120));
    server.turn("EndOfTurn", 0, 0.3, "Hello.").await;
    assert_eq!(event(&mut stream).await, SttEvent::TurnStarted);
    let ended =
        SttEvent::TurnEnded { text: "Hello.".into(), speech_end: Some(Duration::from_millis(360)) };
    assert_eq!(event(&mut stream).await, ended);
}
