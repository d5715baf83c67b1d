//! Flux where connections are lost: nothing of a turn is lost, and nothing of it said twice.

use super::*;

/// A turn under way: two seconds of audio were sent, of which `What is` is what Flux has made so far.
async fn under_way() -> (SttStream, Host, Server, Mic) {
    let (mut stream, mut host) = flux();
    let mut server = host.flux().await;
    assert_eq!(event(&mut stream).await, SttEvent::Connected);
    let mut mic = Mic::new();
    mic.speak(&stream.input, 2.0).await;
    server.audio(25 * 1280).await;
    server.turn("StartOfTurn", 0, 1.8, "What").await;
    server.turn("Update", 0, 1.9, "What is").await;
    for expected in [SttEvent::TurnStarted, partial("What"), partial("What is")] {
        assert_eq!(event(&mut stream).await, expected);
    }
    (stream, host, server, mic)
}

/// Where the turn of [`under_way`] is heard from again: half a second before its first word.
const FROM: u64 = 17_600;

#[tokio::test(start_paused = true)]
async fn a_turn_is_heard_again_from_its_beginning_and_replaced() {
    let (mut stream, mut host, server, mut mic) = under_way().await;
    server.close(1011, "NET-0000").await;
    let reason = lost(&mut stream).await;
    assert_eq!(reason, "closed with 1011: NET-0000 (request r-1)");
    mic.speak(&stream.input, 0.2).await;
    let mut server = host.flux().await;
    let restored = event(&mut stream).await;
    let SttEvent::Restored { replayed, lost } = restored else { panic!("{restored:?}") };
    assert!(replayed >= Duration::from_millis(1100) && lost.is_zero(), "{replayed:?} {lost:?}");
    mic.speak(&stream.input, 2.0).await;
    let heard = server.audio(40_000).await;
    assert_eq!(heard, samples(FROM, heard.len() as u64));

    // What was shown before is not shown again, and not taken back.
    server.turn("StartOfTurn", 0, 0.6, "Wha").await;
    server.turn("Update", 0, 0.7, "What").await;
    server.turn("EagerEndOfTurn", 0, 0.75, "What").await;
    server.turn("TurnResumed", 0, 0.78, "What").await;
    server.turn("Update", 0, 0.8, "What is").await;
    server.turn("Update", 0, 1.0, "What is new").await;
    server.turn("EndOfTurn", 0, 1.5, "What is new?").await;
    assert_eq!(event(&mut stream).await, partial("What is new"));
    // 1.1 s before this connection, 1.4 s in it.
    let ended = SttEvent::TurnEnded {
        text: "What is new?".into(),
        speech_end: Some(Duration::from_millis(2500)),
    };
    assert_eq!(event(&mut stream).await, ended);
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_was_likely_to_be_over_goes_on() {
    let (mut stream, mut host, mut server, _mic) = under_way().await;
    server.turn("EagerEndOfTurn", 0, 1.95, "What is").await;
    assert_eq!(event(&mut stream).await, SttEvent::LikelyEnd { text: "What is".into() });
    drop(server);
    lost(&mut stream).await;
    assert_eq!(event(&mut stream).await, SttEvent::Resumed);
    let mut server = host.flux().await;
    server.audio(8000).await;
    server.turn("EndOfTurn", 0, 0.5, "What is.").await;
    let ended = turn_event(&mut stream).await;
    assert!(matches!(&ended, SttEvent::TurnEnded { text, .. } if text == "What is."), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_the_next_connection_does_not_find_keeps_its_text() {
    let (mut stream, mut host, server, mut mic) = under_way().await;
    drop(server);
    lost(&mut stream).await;
    let mut server = host.flux().await;
    mic.speak(&stream.input, 6.0).await;
    server.turn("Update", 0, 1.0, "").await;
    let ended = SttEvent::TurnEnded {
        text: "What is".into(),
        speech_end: Some(Duration::from_millis(1800)),
    };
    assert_eq!(turn_event(&mut stream).await, ended);
}

#[tokio::test(start_paused = true)]
async fn a_turn_does_not_wait_long_for_a_connection_and_is_not_heard_twice() {
    let (mut stream, mut host, server, mut mic) = under_way().await;
    drop(server);
    lost(&mut stream).await;
    let outage = Instant::now();
    let wire = host.wire().await;
    let ended = event(&mut stream).await;
    assert!(matches!(&ended, SttEvent::TurnEnded { text, .. } if text == "What is"), "{ended:?}");
    let held = outage.elapsed();
    assert!(held > Duration::from_secs(4) && held < Duration::from_secs(6), "{held:?}");
    drop(wire);
    let mut server = host.flux().await;
    mic.next = Instant::now();
    mic.speak(&stream.input, 1.0).await;
    // From the end of the last word that was in the text.
    assert_eq!(server.audio(16_000).await[..1280], samples(28_800, 1280));
    server.turn("EndOfTurn", 0, 0.5, "new?").await;
    assert_eq!(turn_event(&mut stream).await, SttEvent::TurnStarted);
}

#[tokio::test(start_paused = true)]
async fn what_is_over_is_not_heard_again() {
    let (mut stream, mut host, mut server, mut mic) = under_way().await;
    server.turn("EndOfTurn", 0, 2.0, "What is.").await;
    turn_event(&mut stream).await;
    mic.speak(&stream.input, 4.0).await;
    server.audio(4 * 16_000 - 1280).await;
    server.turn("Update", 1, 5.0, "").await;
    drop(server);
    lost(&mut stream).await;
    let mut server = host.flux().await;
    // What was listened to, less a second in which a turn may have begun unseen.
    assert_eq!(server.audio(1280).await[..1280], samples(4 * 16_000, 1280));
}

#[tokio::test(start_paused = true)]
async fn silence_that_was_read_is_not_heard_again() {
    let (mut stream, mut host, mut server, mut mic) = under_way().await;
    server.turn("EndOfTurn", 0, 2.0, "What is.").await;
    turn_event(&mut stream).await;
    // The server says nothing, but answers pings.
    let input = stream.input.clone();
    tokio::join!(mic.speak(&input, 20.0), server.audio(20 * 16_000));
    drop(server);
    lost(&mut stream).await;
    let _server = host.flux().await;
    let restored = event(&mut stream).await;
    let SttEvent::Restored { replayed, lost } = restored else { panic!("{restored:?}") };
    assert!(replayed < Duration::from_secs(8) && lost.is_zero(), "{replayed:?}");
}

#[tokio::test(start_paused = true)]
async fn words_whose_audio_is_not_kept_any_more_stay() {
    let kept = Duration::from_secs(1);
    let options = DeepgramOptions { kept, ..options() };
    let (mut stream, mut host) = listen(&Deepgram::flux(options).unwrap());
    let mut server = host.flux().await;
    assert_eq!(event(&mut stream).await, SttEvent::Connected);
    let mut mic = Mic::new();
    mic.speak(&stream.input, 2.0).await;
    server.audio(25 * 1280).await;
    let mut info = turn("Update", 0, 1.9, "One, two three");
    for (word, (start, end)) in [(0.2, 0.5), (0.6, 0.8), (1.5, 1.7)].into_iter().enumerate() {
        info["words"][word]["start"] = start.into();
        info["words"][word]["end"] = end.into();
    }
    server.say(info).await;
    assert_eq!(event(&mut stream).await, SttEvent::TurnStarted);
    assert_eq!(event(&mut stream).await, partial("One, two three"));
    drop(server);
    lost(&mut stream).await;
    mic.speak(&stream.input, 0.04).await;
    let mut server = host.flux().await;
    let restored = event(&mut stream).await;
    // The turn was to be heard from its beginning: a second of it is not there any more, and a little.
    let SttEvent::Restored { replayed, lost } = restored else { panic!("{restored:?}") };
    assert_eq!(replayed, kept);
    assert!(lost >= Duration::from_secs(1) && lost < Duration::from_millis(1500), "{lost:?}");
    mic.speak(&stream.input, 1.0).await;
    server.audio(16_000).await;
    server.turn("Update", 0, 0.9, "three four").await;
    server.turn("EndOfTurn", 0, 1.0, "three four.").await;
    assert_eq!(event(&mut stream).await, partial("One, two three four"));
    let ended = event(&mut stream).await;
    assert!(
        matches!(&ended, SttEvent::TurnEnded { text, .. } if text == "One, two three four."),
        "{ended:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_again_while_it_is_heard_again_is_still_known() {
    let (mut stream, mut host, server, mut mic) = under_way().await;
    drop(server);
    for _ in 0..3 {
        lost(&mut stream).await;
        let mut server = host.flux().await;
        let restored = event(&mut stream).await;
        assert!(matches!(restored, SttEvent::Restored { .. }), "{restored:?}");
        assert_eq!(server.audio(3200).await[..1280], samples(FROM, 1280));
        server.turn("StartOfTurn", 0, 0.15, "Wh").await;
        // Heard before the connection is lost.
        server.socket.send(Message::Ping(Default::default())).await.unwrap();
        server.audio(2560).await;
        drop(server);
    }
    lost(&mut stream).await;
    mic.speak(&stream.input, 0.2).await;
    drop(stream.input);
    let ended = event(&mut stream).await;
    assert!(matches!(&ended, SttEvent::TurnEnded { text, .. } if text == "What is"), "{ended:?}");
    let _ = host;
}
