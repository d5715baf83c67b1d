//! Faults of what is sent do what they say.

mod client;

use client::*;
use futures_util::StreamExt;
use mk_doubles::{
    ChatScript, DoublesOptions, Fault, FaultKind, ListenEnd, ListenScript, Reply, Service,
};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::Message;

fn options() -> DoublesOptions {
    DoublesOptions {
        chat: ChatScript::say(["One two three four."]),
        listen: ListenScript::turns([("One two three", 0.2, 0.9)]),
        ..DoublesOptions::default()
    }
}

#[tokio::test]
async fn a_stalled_stream_says_nothing_more() {
    let kind = FaultKind::Stall { after_events: 3, for_ms: None };
    let doubles = with_fault(Service::Chat, kind, options()).await;
    let mut stream = ask(&doubles).await;
    let text = read_until(&mut stream, |text| events(text).len() == 3).await;
    assert_eq!(said(&events(&text)), "One two");
    assert!(is_silent(stream.read_u8()).await);
    drop(stream);
    let record = doubles.until(LIMIT, |record| record.chats[0].hung_up).await.unwrap();
    assert_eq!(record.chats[0].deltas_sent, 2);

    // For a time only, what was held back follows.
    let kind = FaultKind::Stall { after_events: 3, for_ms: Some(100) };
    doubles.faults().add(Fault::next(Service::Chat, kind));
    let mut stream = ask(&doubles).await;
    let text = read_until(&mut stream, |text| text.contains("[DONE]")).await;
    assert_eq!(said(&events(&text)), "One two three four.");
    doubles.shutdown().await;
}

#[tokio::test]
async fn a_stalled_session_still_listens() {
    let kind = FaultKind::Stall { after_events: 2, for_ms: None };
    let doubles = with_fault(Service::Listen, kind, options()).await;
    let mut socket = connect(&doubles, V2).await.unwrap();
    send(&mut socket, 20).await;
    assert_eq!(next(&mut socket).await["type"], "Connected");
    assert_eq!(next(&mut socket).await["event"], "Update");
    assert!(is_silent(socket.next()).await);
    doubles.until(LIMIT, |record| record.listens[0].audio_messages == 20).await.unwrap();

    let kind = FaultKind::Stall { after_events: 2, for_ms: Some(100) };
    doubles.faults().add(Fault::next(Service::Listen, kind));
    let mut socket = connect(&doubles, V2).await.unwrap();
    send(&mut socket, 20).await;
    let mut sequence = 0;
    loop {
        let message = next(&mut socket).await;
        assert_eq!(message["sequence_id"], sequence);
        sequence += 1;
        if message["event"] == "EndOfTurn" {
            break;
        }
    }
    doubles.shutdown().await;
}

#[tokio::test]
async fn refusals_have_their_status_and_say_when_to_come_again() {
    let kind = FaultKind::Status { status: 429, retry_after: Some(3), code: None };
    let doubles = with_fault(Service::Listen, kind.clone(), options()).await;
    doubles.faults().add(Fault::next(Service::Chat, kind));
    let Err(tungstenite::Error::Http(response)) = connect(&doubles, V1).await else {
        panic!("not refused")
    };
    assert_eq!(
        (response.status().as_u16(), &response.headers()["retry-after"]),
        (429, &"3".parse().unwrap())
    );
    let body: Value = serde_json::from_slice(response.body().as_deref().unwrap()).unwrap();
    assert_eq!(body["err_code"], "TOO_MANY_REQUESTS");
    assert_eq!(response.headers()["dg-error"].to_str().unwrap(), body["err_msg"]);
    assert!(connect(&doubles, V1).await.is_ok());

    let mut stream = ask(&doubles).await;
    let text = read_until(&mut stream, |text| text.contains('}')).await;
    assert!(text.starts_with("HTTP/1.1 429") && text.contains("retry-after: 3"), "{text}");
    assert!(text.contains(r#""code":"rate_limit_exceeded""#), "{text}");
    doubles.shutdown().await;
}

#[tokio::test]
async fn malformed_events_are_cut_and_others_follow() {
    let kind = FaultKind::Malformed { after_events: 2 };
    let doubles = with_fault(Service::Chat, kind.clone(), options()).await;
    doubles.faults().add(Fault::next(Service::Listen, kind));
    let mut stream = ask(&doubles).await;
    let text = read_until(&mut stream, |text| text.contains("[DONE]")).await;
    let wrong: Vec<bool> =
        events(&text).iter().map(|event| serde_json::from_str::<Value>(event).is_err()).collect();
    assert_eq!(wrong, [false, false, true, false, false, false, true]);

    let mut socket = connect(&doubles, V2).await.unwrap();
    send(&mut socket, 12).await;
    let mut wrong = Vec::new();
    for _ in 0..4 {
        let Some(Ok(Message::Text(text))) = within(socket.next()).await else { panic!("no text") };
        wrong.push(serde_json::from_str::<Value>(&text).is_err());
    }
    assert_eq!(wrong, [false, false, true, false]);
    doubles.shutdown().await;
}

#[tokio::test]
async fn an_error_ends_flux_and_not_nova() {
    let kind = FaultKind::Error { after_events: 2, code: None };
    let fault = Fault::next(Service::Listen, kind).times(2);
    let doubles = start(DoublesOptions { faults: vec![fault].into(), ..options() }).await;
    let mut socket = connect(&doubles, V2).await.unwrap();
    send(&mut socket, 6).await;
    let (all, ended) = rest(&mut socket).await;
    let error = all.last().unwrap();
    assert_eq!((&error["type"], &error["sequence_id"]), (&"Error".into(), &2.into()));
    assert_eq!(ended.unwrap(), Some((1011, "INTERNAL_SERVER_ERROR".into())));

    let mut socket = connect(&doubles, &format!("{V1}&interim_results=true")).await.unwrap();
    send(&mut socket, 40).await;
    send_text(&mut socket, r#"{"type":"CloseStream"}"#).await;
    let (all, ended) = rest(&mut socket).await;
    let types: Vec<_> = all.iter().map(|message| message["type"].as_str().unwrap()).collect();
    assert_eq!(types[..3], ["Results", "Results", "Error"]);
    assert_eq!(types.last(), Some(&"Metadata"));
    assert_eq!(ended.unwrap(), Some((1000, String::new())));
    doubles.shutdown().await;
}

#[tokio::test]
async fn a_session_can_be_closed_with_any_code_at_any_time() {
    let kind = FaultKind::Close { after_events: 1, code: 1011, reason: "NET-0000".into() };
    let doubles = with_fault(Service::Listen, kind, options()).await;
    let mut socket = connect(&doubles, V2).await.unwrap();
    let (all, ended) = rest(&mut socket).await;
    assert_eq!(all.len(), 1);
    assert_eq!(ended.unwrap(), Some((1011, "NET-0000".into())));

    let mut socket = connect(&doubles, V2).await.unwrap();
    next(&mut socket).await;
    let kind = FaultKind::Close { after_events: 0, code: 1012, reason: String::new() };
    assert_eq!(doubles.faults().strike(Service::Listen, &kind), 1);
    let (_, ended) = rest(&mut socket).await;
    assert_eq!(ended.unwrap(), Some((1012, String::new())));
    let record = doubles.until(LIMIT, |record| record.listens[1].end.is_some()).await.unwrap();
    assert_eq!(record.listens[1].end, Some(ListenEnd::Closed(1012, String::new())));
    doubles.shutdown().await;
}

#[tokio::test]
async fn a_session_can_be_closed_as_idle_before_its_time() {
    let kind = FaultKind::IdleClose { after_ms: 100 };
    let doubles = with_fault(Service::Listen, kind, options()).await;
    let mut socket = connect(&doubles, V2).await.unwrap();
    send(&mut socket, 1).await;
    let (_, ended) = rest(&mut socket).await;
    assert_eq!(ended.unwrap(), Some((1011, "NET-0001".into())));
    doubles.shutdown().await;
}

#[tokio::test]
async fn flux_can_fail_to_say_that_it_is_connected() {
    let doubles = with_fault(Service::Listen, FaultKind::NoConnected, options()).await;
    let mut socket = connect(&doubles, V2).await.unwrap();
    assert!(is_silent(socket.next()).await);
    send(&mut socket, 4).await;
    assert_eq!(next(&mut socket).await["event"], "Update");
    assert_eq!(doubles.record().listens[0].violations, ["audio before Connected"]);
    doubles.shutdown().await;
}

#[tokio::test]
async fn a_client_that_hangs_up_is_seen_with_what_it_was_sent() {
    let reply = Reply { first_token_ms: 10, delta_ms: 50, ..Reply::say("a b c d e f g h i j") };
    let chat = ChatScript { replies: vec![reply] };
    let doubles = start(DoublesOptions { chat, ..options() }).await;
    let mut stream = ask(&doubles).await;
    read_until(&mut stream, |text| said(&events(text)) == "a b c").await;
    drop(stream);
    let record = doubles.until(LIMIT, |record| record.chats[0].hung_up).await.unwrap();
    let chat = &record.chats[0];
    assert!((3..10).contains(&chat.deltas_sent) && !chat.finished, "{chat:?}");
    doubles.shutdown().await;
}

#[tokio::test]
async fn a_closed_websocket_is_recorded_with_its_code() {
    let doubles = start(options()).await;
    let mut socket = connect(&doubles, V1).await.unwrap();
    socket.close(None).await.unwrap();
    let _ = rest(&mut socket).await;
    let record = doubles.until(LIMIT, |record| record.listens[0].end.is_some()).await.unwrap();
    assert_eq!(record.listens[0].end, Some(ListenEnd::ClientClosed(None)));
    doubles.shutdown().await;
}
