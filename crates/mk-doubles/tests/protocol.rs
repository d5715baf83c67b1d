//! What the services demand of their clients, the doubles demand too.

mod client;

use std::time::Duration;

use client::*;
use futures_util::SinkExt;
use mk_doubles::{Doubles, DoublesOptions, Error, ListenEnd, ListenScript};
use serde_json::json;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// Ten seconds are 100 ms.
fn quick() -> DoublesOptions {
    DoublesOptions { time_scale: 100.0, ..DoublesOptions::default() }
}

#[tokio::test]
async fn half_a_sample_is_no_audio() {
    let doubles = start(DoublesOptions::default()).await;
    for path in [V1, V2] {
        let mut socket = connect(&doubles, path).await.unwrap();
        socket.send(Message::binary(vec![0; 321])).await.unwrap();
        let (_, ended) = rest(&mut socket).await;
        assert_eq!(ended.unwrap(), Some((1008, "DATA-0000".into())));
    }
    let record = doubles.until(LIMIT, |record| record.listens[1].end.is_some()).await.unwrap();
    assert_eq!(record.listens[0].violations.len(), 1);
    assert_eq!(record.listens[1].end, Some(ListenEnd::Closed(1008, "DATA-0000".into())));
    doubles.shutdown().await;
}

#[tokio::test]
async fn an_empty_message_closes_the_stream() {
    let doubles = start(DoublesOptions::default()).await;
    let mut socket = connect(&doubles, V1).await.unwrap();
    send(&mut socket, 1).await;
    socket.send(Message::binary(Vec::new())).await.unwrap();
    let (all, ended) = rest(&mut socket).await;
    assert_eq!(all.last().unwrap()["type"], "Metadata");
    assert_eq!(ended.unwrap(), Some((1000, String::new())));
    doubles.shutdown().await;
}

#[tokio::test]
async fn a_session_without_audio_is_closed() {
    let doubles = start(quick()).await;
    for path in [V1, V2] {
        let mut socket = connect(&doubles, path).await.unwrap();
        let (_, ended) = rest(&mut socket).await;
        assert_eq!(ended.unwrap(), Some((1011, "NET-0001".into())));
    }
    // Messages that keep it alive do so only where there was audio.
    let mut socket = connect(&doubles, V1).await.unwrap();
    send_text(&mut socket, r#"{"type":"KeepAlive"}"#).await;
    let (_, ended) = rest(&mut socket).await;
    assert_eq!(ended.unwrap(), Some((1011, "NET-0001".into())));
    assert_eq!(doubles.record().listens[2].keep_alives, 1);
    doubles.shutdown().await;
}

#[tokio::test]
async fn keep_alive_keeps_a_session_that_has_had_audio() {
    let doubles = start(DoublesOptions { time_scale: 10.0, ..DoublesOptions::default() }).await;
    let mut socket = connect(&doubles, V1).await.unwrap();
    send(&mut socket, 1).await;
    // Twice as long as it may be without audio, here one second.
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        send_text(&mut socket, r#"{"type":"KeepAlive"}"#).await;
    }
    send_text(&mut socket, r#"{"type":"CloseStream"}"#).await;
    let (all, ended) = rest(&mut socket).await;
    assert_eq!(all.last().unwrap()["duration"], 0.08);
    assert_eq!(ended.unwrap(), Some((1000, String::new())));
    doubles.shutdown().await;
}

#[tokio::test]
async fn flux_knows_no_keep_alive() {
    let doubles = start(DoublesOptions::default()).await;
    let mut socket = connect(&doubles, V2).await.unwrap();
    send_text(&mut socket, r#"{"type":"KeepAlive"}"#).await;
    let (all, ended) = rest(&mut socket).await;
    assert_eq!(all.last().unwrap()["code"], "UNPARSABLE_CLIENT_MESSAGE");
    assert_eq!(ended.unwrap().unwrap().0, 1008);
    assert_eq!(doubles.record().listens[0].violations.len(), 1);
    doubles.shutdown().await;
}

#[tokio::test]
async fn audio_that_comes_too_fast_is_counted() {
    let doubles = start(DoublesOptions::default()).await;
    let mut socket = connect(&doubles, V2).await.unwrap();
    // 8 s at once, of which 3 may be.
    send(&mut socket, 100).await;
    let all = |record: &mk_doubles::Record| record.listens[0].audio_messages == 100;
    let over = doubles.until(LIMIT, all).await.unwrap().listens[0].over_rate_seconds;
    assert!((1.0..=5.0).contains(&over), "{over}");
    let mut socket = connect(&doubles, V2).await.unwrap();
    send(&mut socket, 30).await;
    let all = |record: &mk_doubles::Record| record.listens[1].audio_messages == 30;
    assert_eq!(doubles.until(LIMIT, all).await.unwrap().listens[1].over_rate_seconds, 0.0);
    doubles.shutdown().await;
}

#[tokio::test]
async fn keys_are_taken_from_headers_and_from_protocols() {
    let options = DoublesOptions { deepgram_key: Some("dg-test".into()), ..quick() };
    let doubles = start(options).await;
    let url = format!("{}{V2}", doubles.deepgram_url().replacen("http", "ws", 1));
    for (name, value, works) in [
        ("authorization", "Token dg-test", true),
        ("authorization", "Bearer dg-test", true),
        ("authorization", "Token dg-other", false),
        ("authorization", "Basic dg-test", false),
        ("sec-websocket-protocol", "token, dg-test", true),
        ("sec-websocket-protocol", "token, dg-other", false),
        ("x-other", "dg-test", false),
    ] {
        let mut request = url.as_str().into_client_request().unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
        let connected = connect_async(request).await;
        assert_eq!(connected.is_ok(), works, "{name}: {value}");
        if let Ok((_, response)) = connected {
            assert_eq!(response.headers()["dg-request-id"].len(), 36);
        }
    }
    let text = serde_json::to_string(&doubles.record()).unwrap();
    assert!(!text.contains("dg-test") && !text.contains("dg-other"), "a key is in the record");
    doubles.shutdown().await;
}

#[tokio::test]
async fn finalize_ends_what_is_said_by_energy() {
    let options = DoublesOptions { listen: ListenScript::energy(["one two three"]), ..quick() };
    let doubles = start(DoublesOptions { time_scale: 1.0, ..options }).await;
    let mut socket = connect(&doubles, V1).await.unwrap();
    let loud = [4000i16, -4000].repeat(3200).into_iter().flat_map(i16::to_le_bytes);
    socket.send(Message::binary(loud.collect::<Vec<u8>>())).await.unwrap();
    send_text(&mut socket, r#"{"type":"Finalize"}"#).await;
    // Still loud: what is known is final, and the rest follows.
    let first = next(&mut socket).await;
    assert_eq!(first["from_finalize"], true);
    let silence = vec![0; 640];
    socket.send(Message::binary(silence)).await.unwrap();
    send_text(&mut socket, r#"{"type":"Finalize"}"#).await;
    let second = next(&mut socket).await;
    let text = |message: &serde_json::Value| {
        message["channel"]["alternatives"][0]["transcript"].as_str().unwrap().to_owned()
    };
    assert_eq!(format!("{} {}", text(&first), text(&second)), "one two three");
    // Nothing came since: no answer.
    send_text(&mut socket, r#"{"type":"Finalize"}"#).await;
    send_text(&mut socket, r#"{"type":"CloseStream"}"#).await;
    assert_eq!(next(&mut socket).await["type"], "Metadata");
    let controls = &doubles.record().listens[0].controls;
    assert_eq!(controls.len(), 4);
    assert_eq!(controls[0], json!({"type": "Finalize"}));
    doubles.shutdown().await;
}

#[tokio::test]
async fn doubles_can_be_started_again_where_they_were() {
    let first = start(DoublesOptions::default()).await;
    let bind = first.address();
    let again = Doubles::start(DoublesOptions { bind, ..DoublesOptions::default() }).await;
    assert!(matches!(again, Err(Error::Bind { address, .. }) if address == bind));
    let mut socket = connect(&first, V2).await.unwrap();
    within(first.shutdown()).await;
    let _ = rest(&mut socket).await;
    let again = start(DoublesOptions { bind, ..DoublesOptions::default() }).await;
    assert!(connect(&again, V2).await.is_ok());
    again.shutdown().await;
}

#[tokio::test]
async fn scripts_that_cannot_be_played_are_refused() {
    for (listen, part) in [
        (
            json!({"by": "time", "moments": [{"at": 2, "event": "start"}, {"at": 1, "event": "end"}]}),
            "moment 1",
        ),
        (
            json!({"by": "time", "moments": [{"at": 2, "event": "start"}], "repeat_every": 1}),
            "repeat_every",
        ),
        (json!({"by": "energy", "transcripts": [" "]}), "no transcripts"),
        (json!({"by": "energy", "on_rms": 0.001}), "on_rms"),
    ] {
        let listen = serde_json::from_value(listen).unwrap();
        let options = DoublesOptions { listen, ..DoublesOptions::default() };
        let error = Doubles::start(options).await.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let error =
        Doubles::start(DoublesOptions { time_scale: 0.0, ..DoublesOptions::default() }).await;
    assert!(error.unwrap_err().to_string().contains("time_scale"));
}

#[tokio::test]
async fn models_are_listed_and_unknown_urls_are_errors() {
    // Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let options = DoublesOptions { openai_key: Some("sk-test".into()), ..quick() };
    let doubles = start(options).await;
    let client = reqwest::Client::new();
    let get = |url: String| {
        let request = client.get(url).bearer_auth("sk-test");
        async move {
            let response = request.send().await.unwrap();
            let status = response.status().as_u16();
            (status, response.json::<serde_json::Value>().await.unwrap())
        }
    };
    let (status, models) = get(format!("{}/models", doubles.openai_url())).await;
    assert_eq!((status, &models["data"][0]["id"]), (200, &json!("gpt-4o-mini")));
    let (status, error) = get(format!("{}/completions", doubles.openai_url())).await;
    assert_eq!((status, &error["error"]["type"]), (404, &json!("invalid_request_error")));
    let (status, error) = get(format!("{}/v1/listen", doubles.deepgram_url())).await;
    assert_eq!((status, &error["err_code"]), (400, &json!("Bad Request")));
    doubles.shutdown().await;
}

#[tokio::test]
async fn the_record_forgets_the_oldest_and_counts_all() {
    let doubles = start(DoublesOptions { kept: 2, ..DoublesOptions::default() }).await;
    let mut sockets = Vec::new();
    for _ in 0..3 {
        sockets.push(connect(&doubles, V1).await.unwrap());
    }
    // The first is forgotten, what happens to it too.
    for socket in &mut sockets {
        send(socket, 1).await;
    }
    let heard = |record: &mk_doubles::Record| record.listens.iter().all(|l| l.audio_messages == 1);
    let record = doubles.until(LIMIT, heard).await.unwrap();
    let numbers: Vec<_> = record.listens.iter().map(|listen| listen.number).collect();
    assert_eq!((numbers, record.listens_total), (vec![1, 2], 3));
    doubles.shutdown().await;
}
