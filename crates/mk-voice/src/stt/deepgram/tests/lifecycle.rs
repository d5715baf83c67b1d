//! How connections begin and end, and what the caller is told of it.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::*;

/// Answers the request for an upgrade with something else.
async fn refuse(host: &mut Host, answer: &str) {
    let mut wire = host.wire().await;
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(wire.read_u8().await.unwrap());
    }
    assert!(String::from_utf8_lossy(&request).to_lowercase().contains("host: deepgram.test:8080"));
    wire.write_all(answer.as_bytes()).await.unwrap();
}

/// Tasks that are alive, the test's own not being one.
fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// How long it takes until no task is left.
async fn all_over() -> Duration {
    let began = Instant::now();
    while tasks() > 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "{} tasks", tasks());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_wrong_key_is_not_tried_twice() {
    let (mut stream, mut host) = flux();
    let answer = "HTTP/1.1 401 Unauthorized\r\ndg-error: no such key: dg-the-key\r\n\
                  dg-request-id: r-7\r\nContent-Length: 0\r\n\r\n";
    refuse(&mut host, answer).await;
    let reason = failed(&mut stream).await;
    assert_eq!(
        reason,
        "Deepgram Flux (flux-general-en): refused with HTTP 401 Unauthorized: no such key: <key> \
         (request r-7)"
    );
    assert!(host.quiet(Duration::from_secs(100)).await);
    assert!(stream.input.send(SttInput::Audio(vec![0])).await.is_err());
    assert_eq!(tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_passes_is_tried_until_it_has_passed() {
    let (mut stream, mut host) = flux();
    let began = Instant::now();
    refuse(&mut host, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").await;
    assert!(lost(&mut stream).await.contains("503"));
    let mut waits = Vec::new();
    for _ in 0..8 {
        let before = Instant::now();
        refuse(&mut host, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").await;
        waits.push(before.elapsed().as_secs_f64());
    }
    for (wait, most) in waits.iter().zip([0.1, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]) {
        assert!((0.7 * most..1.1 * most).contains(wait), "{waits:?}");
    }
    let mut server = host.flux().await;
    // It is said once that there was no connection, and then that there is.
    assert_eq!(event(&mut stream).await, SttEvent::Connected);
    let nothing = Duration::ZERO;
    let restored = SttEvent::Restored { replayed: nothing, lost: nothing };
    assert_eq!(event(&mut stream).await, restored);
    assert!(began.elapsed() > Duration::from_secs(20));
    // A connection that held does not pay for those before.
    let mut mic = Mic::new();
    mic.speak(&stream.input, 12.0).await;
    server.audio(12 * 16_000 - 1280).await;
    drop(server);
    let before = Instant::now();
    host.flux().await;
    assert!(before.elapsed() < Duration::from_millis(200), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_server_says_when_to_come_back() {
    let (mut stream, mut host) = flux();
    let answer = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3\r\nContent-Length: 0\r\n\r\n";
    refuse(&mut host, answer).await;
    assert!(lost(&mut stream).await.contains("429"));
    let before = Instant::now();
    host.flux().await;
    assert!(before.elapsed() >= Duration::from_secs(3), "{:?}", before.elapsed());
    assert_eq!(event(&mut stream).await, SttEvent::Connected);
}

#[tokio::test(start_paused = true)]
async fn closes_and_errors_are_told_apart() {
    let (mut stream, mut host) = flux();
    host.flux().await.close(1008, "DATA-0000").await;
    assert_eq!(event(&mut stream).await, SttEvent::Connected);
    assert!(failed(&mut stream).await.contains("closed with 1008: DATA-0000"));

    let (mut stream, mut host) = flux();
    let mut server = host.flux().await;
    server
        .say(json!({"type": "Error", "code": "INTERNAL_SERVER_ERROR", "description": "oh"}))
        .await;
    assert_eq!(event(&mut stream).await, SttEvent::Connected);
    assert_eq!(lost(&mut stream).await, "INTERNAL_SERVER_ERROR: oh (request r-1)");
    // The close that follows is not another loss.
    let close = CloseFrame { code: 1011.into(), reason: "NET-0000".into() };
    let _ = server.socket.close(Some(close)).await;
    let mut server = host.flux().await;
    assert!(matches!(event(&mut stream).await, SttEvent::Restored { .. }));
    server.turn("StartOfTurn", 0, 0.0, "").await;
    assert_eq!(event(&mut stream).await, SttEvent::TurnStarted);
    let code = "UNPARSABLE_CLIENT_MESSAGE";
    server.say(json!({"type": "Error", "code": code, "description": "what?"})).await;
    // Every turn ends.
    let ended = SttEvent::TurnEnded { text: String::new(), speech_end: None };
    assert_eq!(event(&mut stream).await, ended);
    assert!(failed(&mut stream).await.contains(code));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_say_connected_is_left() {
    let (mut stream, mut host) = flux();
    let began = Instant::now();
    let _upgraded = host.accept().await;
    assert!(lost(&mut stream).await.contains("Connected was not said within 10 s"));
    assert_eq!(began.elapsed().as_secs(), 10);
    let _wire = host.wire().await;
    let began = Instant::now();
    let mut server = host.flux().await;
    assert_eq!(began.elapsed().as_secs(), 10);
    assert_eq!(event(&mut stream).await, SttEvent::Connected);
    server.socket.send(Message::Ping("are you there".into())).await.unwrap();
    assert_eq!(server.socket.next().await.unwrap().unwrap(), Message::Pong("are you there".into()));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_nothing_is_left_and_what_it_did_not_take_is_not_lost() {
    let (mut stream, mut host) = listen_by_wire(&Deepgram::flux(options()).unwrap(), 16 * 1024);
    // Nobody reads what comes, so the wire is soon full.
    let deaf = host.flux().await;
    assert_eq!(event(&mut stream).await, SttEvent::Connected);
    let (input, mut mic) = (stream.input.clone(), Mic::new());
    let began = Instant::now();
    let speaking = mic.speak(&input, 25.0);
    let next = async {
        let reason = lost(&mut stream).await;
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        let mut server = host.flux().await;
        (reason, server.audio(10 * 16_000).await)
    };
    let ((reason, heard), ()) = tokio::join!(next, speaking);
    assert!(reason.contains("timed out") || reason.contains("nothing was heard"), "{reason}");
    assert_eq!(heard, samples(0, heard.len() as u64));
    drop(deaf);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_silent_in_a_turn_is_left() {
    let (mut stream, mut host) = flux();
    let mut server = host.flux().await;
    server.turn("StartOfTurn", 0, 0.0, "").await;
    assert_eq!(event(&mut stream).await, SttEvent::Connected);
    assert_eq!(event(&mut stream).await, SttEvent::TurnStarted);
    let (input, mut mic) = (stream.input.clone(), Mic::new());
    // It takes audio and answers pings, but that is all.
    let listening = async { while server.got().await != (Got::End { said: false }) {} };
    let losing = async {
        assert!(lost(&mut stream).await.contains("nothing said"));
        assert_eq!(tasks(), 1);
    };
    tokio::select! {
        ((), ()) = async { tokio::join!(losing, mic.speak(&input, 11.0)) } => {}
        () = listening => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_caller_stops_neither_the_audio_nor_the_last_word() {
    let (mut stream, mut host) = flux();
    let mut server = host.flux().await;
    let mut mic = Mic::new();
    for turn in 0..200 {
        mic.speak(&stream.input, 0.08).await;
        // What is not read any more may fill the wire.
        let said = server.turn("EndOfTurn", turn, 0.0, "Again.");
        if timeout(Duration::from_millis(1), said).await.is_err() {
            break;
        }
        assert_eq!(server.audio(1280).await.len(), 1280, "turn {turn}");
    }
    mic.speak(&stream.input, 4.0).await;
    server.audio(4 * 16_000 - 1280).await;
    let closing = server.close(1008, "DATA-0000");
    let reading = async {
        let mut events = Vec::new();
        while let Some(event) = stream.events.recv().await {
            events.push(event);
        }
        events
    };
    let ((), events) = tokio::join!(closing, reading);
    assert_eq!(events[0], SttEvent::Connected);
    assert!(events.len() > 64, "{}", events.len());
    for pair in events[1..events.len() - 1].chunks(2) {
        assert!(matches!(pair, [SttEvent::TurnStarted, SttEvent::TurnEnded { .. }]), "{pair:?}");
    }
    let failures = events.iter().filter(|event| matches!(event, SttEvent::Failed(_))).count();
    assert!(failures == 1 && matches!(events.last(), Some(SttEvent::Failed(_))), "{failures}");
}

#[tokio::test(start_paused = true)]
async fn messages_may_come_in_pieces_of_any_size() {
    for holds in [100, 300, WIRE] {
        let (mut stream, mut host) = listen_by_wire(&Deepgram::flux(options()).unwrap(), holds);
        let mut server = host.flux().await;
        assert_eq!(event(&mut stream).await, SttEvent::Connected);
        let message = turn("EndOfTurn", 0, 0.0, "Grüß Gott, 東京!").to_string();
        let (first, rest) = message.as_bytes().split_at(message.find('ü').unwrap() + 1);
        for (part, code, last) in
            [(first, OpCode::Data(Data::Text), false), (rest, OpCode::Data(Data::Continue), true)]
        {
            let frame = Frame::message(part.to_vec(), code, last);
            server.socket.send(Message::Frame(frame)).await.unwrap();
        }
        assert_eq!(event(&mut stream).await, SttEvent::TurnStarted);
        let ended = event(&mut stream).await;
        assert!(
            matches!(&ended, SttEvent::TurnEnded { text, .. } if text == "Grüß Gott, 東京!"),
            "{ended:?}"
        );
        drop(stream);
        while server.got().await != (Got::End { said: true }) {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_without_end_ends_the_connection() {
    let (mut stream, mut host) = flux();
    let mut server = host.flux().await;
    assert_eq!(event(&mut stream).await, SttEvent::Connected);
    // The client may hang up before all of it is said.
    let _ = server.socket.send(Message::text("x".repeat(2 << 20))).await;
    assert!(lost(&mut stream).await.contains("too long"));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_stream_closes_its_connection() {
    let (stream, mut host) = flux();
    let mut server = host.flux().await;
    let mut mic = Mic::new();
    mic.speak(&stream.input, 1.0).await;
    drop(stream);
    assert_eq!(server.text().await, r#"{"type":"CloseStream"}"#);
    assert_eq!(server.got().await, Got::End { said: true });
    assert!(all_over().await < Duration::from_millis(1500));
    assert!(host.dialled.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_stream_waits_for_nobody() {
    // Not connected yet.
    let (stream, host) = flux();
    tokio::task::yield_now().await;
    drop(stream);
    all_over().await;
    drop(host);
    // Connected, but not said to be.
    let (stream, mut host) = flux();
    let server = host.accept().await;
    drop(stream);
    assert!(all_over().await < Duration::from_millis(1500));
    drop(server);
    // Waiting to connect again.
    let (mut stream, mut host) = flux();
    refuse(
        &mut host,
        "HTTP/1.1 429 Slow Down
Retry-After: 90
Content-Length: 0

",
    )
    .await;
    lost(&mut stream).await;
    drop(stream);
    assert!(all_over().await < Duration::from_millis(1500));
    // With a server that takes nothing.
    let (stream, mut host) = listen_by_wire(&Deepgram::flux(options()).unwrap(), 16 * 1024);
    let deaf = host.flux().await;
    let mut mic = Mic::new();
    mic.speak(&stream.input, 3.0).await;
    drop(stream);
    assert!(all_over().await < Duration::from_millis(1500));
    drop(deaf);
}

#[tokio::test(start_paused = true)]
async fn an_input_that_ends_is_heard_to_its_end() {
    let (mut stream, mut host) = flux();
    let mut server = host.flux().await;
    let audio = SttInput::Audio(samples(0, 5000));
    stream.input.send(audio).await.unwrap();
    drop(stream.input);
    assert_eq!(server.audio(5000).await, samples(0, 5000));
    assert_eq!(server.text().await, r#"{"type":"CloseStream"}"#);
    server.turn("Update", 0, 0.3, "That is all").await;
    // As Flux does: without a code, and without having ended the turn.
    server.socket.close(None).await.unwrap();
    let ended = SttEvent::TurnEnded {
        text: "That is all".into(),
        speech_end: Some(Duration::from_millis(200)),
    };
    for expected in [SttEvent::Connected, SttEvent::TurnStarted, partial("That is all"), ended] {
        assert_eq!(timeout(FOR_EVER, stream.events.recv()).await.unwrap(), Some(expected));
    }
    assert_eq!(timeout(FOR_EVER, stream.events.recv()).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn usage_is_what_was_sent() {
    let deepgram = Deepgram::flux(options()).unwrap();
    let (mut stream, mut host) = listen(&deepgram);
    let mut server = host.flux().await;
    let mut mic = Mic::new();
    mic.speak(&stream.input, 2.0).await;
    server.audio(25 * 1280).await;
    server.turn("EndOfTurn", 0, 1.5, "Yes.").await;
    turn_event(&mut stream).await;
    drop(server);
    let mut server = host.flux().await;
    mic.speak(&stream.input, 0.08).await;
    // From the end of the turn on.
    server.audio(9280).await;
    let usage = deepgram.usage();
    assert_eq!((usage.connections, usage.reconnects), (2, 1));
    let sent = usage.audio.as_secs_f64();
    assert!((2.57..2.8).contains(&sent), "{sent}");
}

#[tokio::test]
async fn a_real_socket_that_nobody_listens_on_is_a_loss() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let deepgram = Deepgram::flux(DeepgramOptions { url, ..options() }).unwrap();
    let mut stream = crate::stt::Stt::listen(&deepgram);
    assert!(lost(&mut stream).await.contains("refused"));
    drop(stream);
    while tasks() > 0 {
        tokio::task::yield_now().await;
    }
}
