//! Faults of the connection do what they say.

mod client;

use std::time::{Duration, Instant};

use client::*;
use futures_util::StreamExt;
use mk_doubles::{ChatScript, DoublesOptions, Fault, FaultKind, ListenEnd, ListenScript, Service};
use tokio::io::AsyncReadExt;

fn options() -> DoublesOptions {
    DoublesOptions {
        chat: ChatScript::say(["Où est la mer, là-bas?"]),
        listen: ListenScript::turns([("Où est la mer?", 0.2, 0.9)]),
        ..DoublesOptions::default()
    }
}

#[tokio::test]
async fn a_dropped_connection_ends_after_exactly_so_many_bytes() {
    let doubles = start(options()).await;
    for after_bytes in [0, 1, 100, 1000] {
        let fault = Fault::next(Service::Chat, FaultKind::Drop { after_bytes });
        doubles.faults().set(vec![fault]);
        let mut stream = ask(&doubles).await;
        let (mut bytes, mut buffer) = (0, [0; 4096]);
        let ended = loop {
            match within(stream.read(&mut buffer)).await {
                Ok(0) => break Ok(()),
                Ok(count) => bytes += count as u64,
                Err(error) => break Err(error.kind()),
            }
        };
        assert_eq!((bytes, ended), (after_bytes, Err(std::io::ErrorKind::ConnectionReset)));
    }
    // The next one is whole.
    let mut stream = ask(&doubles).await;
    let text = read_until(&mut stream, |text| text.contains("[DONE]")).await;
    assert_eq!(said(&events(&text)), "Où est la mer, là-bas?");
    let record = doubles.record();
    assert!(record.chats.iter().take(4).all(|chat| chat.hung_up && chat.faults.len() == 1));
    assert!(record.chats[4].finished);
    doubles.shutdown().await;
}

#[tokio::test]
async fn a_websocket_is_dropped_between_its_bytes() {
    let kind = FaultKind::Drop { after_bytes: 700 };
    let doubles = with_fault(Service::Listen, kind, options()).await;
    let mut socket = connect(&doubles, V2).await.unwrap();
    let _ = tokio::time::timeout(LIMIT, send(&mut socket, 10)).await;
    let (_, ended) = rest(&mut socket).await;
    ended.unwrap_err();
    let record = doubles.until(LIMIT, |record| record.listens[0].end.is_some()).await.unwrap();
    assert_eq!(record.listens[0].end, Some(ListenEnd::ClientGone));
    let mut again = connect(&doubles, V2).await.unwrap();
    assert_eq!(next(&mut again).await["type"], "Connected");
    doubles.shutdown().await;
}

#[tokio::test]
async fn a_half_open_connection_neither_speaks_nor_listens_nor_ends() {
    let kind = FaultKind::HalfOpen { after_bytes: 600 };
    let doubles = with_fault(Service::Chat, kind, options()).await;
    let mut stream = ask(&doubles).await;
    let mut bytes = vec![0; 600];
    within(stream.read_exact(&mut bytes)).await.unwrap();
    assert!(is_silent(stream.read_u8()).await);

    let mut socket = connect(&doubles, V2).await.unwrap();
    assert_eq!(next(&mut socket).await["type"], "Connected");
    send(&mut socket, 1).await;
    doubles.until(LIMIT, |record| record.listens[0].audio_messages == 1).await.unwrap();
    let half_open = FaultKind::HalfOpen { after_bytes: 0 };
    assert_eq!(doubles.faults().strike(Service::Listen, &half_open), 1);
    send(&mut socket, 10).await;
    assert!(is_silent(socket.next()).await);
    let listen = &doubles.record().listens[0];
    assert_eq!((listen.audio_messages, &listen.end), (1, &None));
    // A double with connections in this state can still be shut down.
    within(doubles.shutdown()).await;
}

#[tokio::test]
async fn fragments_are_as_small_as_they_should_be_and_lose_nothing() {
    let doubles = start(options()).await;
    let set = |on, sizes: &[usize], pause_ms| {
        let kind = FaultKind::Fragment { sizes: sizes.to_vec(), pause_ms };
        doubles.faults().set(vec![Fault::next(on, kind)]);
    };
    set(Service::Chat, &[7, 100_000], 50);
    let mut stream = ask(&doubles).await;
    let mut buffer = [0; 4096];
    assert_eq!(within(stream.read(&mut buffer)).await.unwrap(), 7);
    assert_eq!(&buffer[..7], b"HTTP/1.");

    for sizes in [&[1][..], &[2, 3, 1], &[5]] {
        set(Service::Chat, sizes, 0);
        let mut stream = ask(&doubles).await;
        let text = read_until(&mut stream, |text| text.contains("[DONE]")).await;
        assert_eq!(said(&events(&text)), "Où est la mer, là-bas?");

        set(Service::Listen, sizes, 0);
        let mut socket = connect(&doubles, V2).await.unwrap();
        send(&mut socket, 16).await;
        send_text(&mut socket, r#"{"type":"CloseStream"}"#).await;
        let (all, ended) = rest(&mut socket).await;
        assert_eq!(ended.unwrap(), None);
        let end = all.iter().find(|message| message["event"] == "EndOfTurn").unwrap();
        assert_eq!(end["transcript"], "Où est la mer?");
    }
    doubles.shutdown().await;
}

#[tokio::test]
async fn a_slow_reader_takes_its_time() {
    let kind = FaultKind::SlowRead { bytes_per_second: 30_000 };
    let doubles = with_fault(Service::Listen, kind, options()).await;
    let mut socket = connect(&doubles, V2).await.unwrap();
    let started = Instant::now();
    send(&mut socket, 12).await;
    let all = |record: &mk_doubles::Record| record.listens[0].audio_messages == 12;
    doubles.until(LIMIT, all).await.unwrap();
    // 30,720 bytes and the frames' heads.
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(900), "{took:?}");
    doubles.shutdown().await;
}

#[tokio::test]
async fn a_late_answer_comes_late() {
    let kind = FaultKind::Delay { ms: 300 };
    let doubles = with_fault(Service::Chat, kind, options()).await;
    let started = Instant::now();
    let mut stream = ask(&doubles).await;
    read_until(&mut stream, |text| text.contains("[DONE]")).await;
    assert!(started.elapsed() >= Duration::from_millis(300));
    doubles.shutdown().await;
}

#[tokio::test]
async fn an_unused_connection_of_a_chat_is_closed() {
    let kind = FaultKind::IdleClose { after_ms: 100 };
    let doubles = with_fault(Service::Chat, kind, options()).await;
    let mut stream = ask(&doubles).await;
    let text = read_until(&mut stream, |_| false).await;
    assert_eq!(events(&text).last().unwrap(), "[DONE]");
    // Without the fault the connection stays, and is used again.
    let mut stream = ask(&doubles).await;
    read_until(&mut stream, |text| text.contains("[DONE]")).await;
    write_request(&mut stream).await;
    read_until(&mut stream, |text| text.contains("[DONE]")).await;
    let connections: Vec<_> = doubles.record().chats.iter().map(|chat| chat.connection).collect();
    assert_eq!(connections, [0, 1, 1]);
    doubles.shutdown().await;
}

#[tokio::test]
async fn budgets_say_how_often_a_fault_hits_and_what_it_lets_pass() {
    let doubles = start(options()).await;
    let kind = FaultKind::Status { status: 503, retry_after: None, code: None };
    doubles.faults().set(vec![Fault::next(Service::Listen, kind).skip(1).times(2)]);
    let mut connected = Vec::new();
    for _ in 0..4 {
        let socket = connect(&doubles, V2).await;
        connected.push(socket.is_ok());
        if let Ok(mut socket) = socket {
            socket.close(None).await.unwrap();
        }
    }
    assert_eq!(connected, [true, false, false, true]);
    assert!(doubles.faults().waiting().faults.is_empty());
    doubles.shutdown().await;
}
