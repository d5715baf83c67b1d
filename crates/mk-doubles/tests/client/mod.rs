//! Plain clients, which see every byte and every frame.
#![allow(dead_code)] // Each test program uses some of it.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use mk_doubles::{Doubles, DoublesOptions, Fault, FaultKind, Service};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// A generous limit for what takes milliseconds.
pub const LIMIT: Duration = Duration::from_secs(20);

/// How long nothing may happen before it is taken to be silent.
pub const SILENCE: Duration = Duration::from_millis(250);

pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub const V1: &str = "/v1/listen?encoding=linear16&sample_rate=16000&punctuate=true";
pub const V2: &str = "/v2/listen?model=flux-general-en&encoding=linear16&sample_rate=16000";

/// 80 ms of silence at 16 kHz.
pub fn chunk() -> Message {
    Message::binary(vec![0; 2560])
}

pub async fn start(options: DoublesOptions) -> Doubles {
    Doubles::start(options).await.unwrap()
}

/// Doubles with one fault, which hits once.
pub async fn with_fault(on: Service, kind: FaultKind, options: DoublesOptions) -> Doubles {
    let faults = vec![Fault::next(on, kind)].into();
    start(DoublesOptions { faults, ..options }).await
}

pub async fn connect(doubles: &Doubles, path: &str) -> Result<Socket, tungstenite::Error> {
    let url = format!("{}{path}", doubles.deepgram_url().replacen("http", "ws", 1));
    Ok(connect_async(url.into_client_request()?).await?.0)
}

/// The next message as JSON.
pub async fn next(socket: &mut Socket) -> Value {
    match within(socket.next()).await {
        Some(Ok(Message::Text(text))) => serde_json::from_str(&text).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Sends so many chunks of 80 ms.
pub async fn send(socket: &mut Socket, chunks: usize) {
    for _ in 0..chunks {
        socket.send(chunk()).await.unwrap();
    }
}

pub async fn send_text(socket: &mut Socket, text: &str) {
    socket.send(Message::text(text)).await.unwrap();
}

/// All messages up to the close frame, and its code and reason, or the error in its place.
pub async fn rest(
    socket: &mut Socket,
) -> (Vec<Value>, Result<Option<(u16, String)>, tungstenite::Error>) {
    let mut all = Vec::new();
    loop {
        match within(socket.next()).await {
            Some(Ok(Message::Text(text))) => all.push(serde_json::from_str(&text).unwrap()),
            Some(Ok(Message::Close(frame))) => {
                let close = frame.map(|frame| (frame.code.into(), frame.reason.to_string()));
                return (all, Ok(close));
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return (all, Err(error)),
            None => return (all, Ok(None)),
        }
    }
}

/// A chat request on a connection of its own.
pub async fn ask(doubles: &Doubles) -> TcpStream {
    let mut stream = TcpStream::connect(doubles.address()).await.unwrap();
    write_request(&mut stream).await;
    stream
}

pub async fn write_request(stream: &mut TcpStream) {
    let body = json!({
        "model": "any", "stream": true, "messages": [{"role": "user", "content": "Hi"}],
        "stream_options": {"include_obfuscation": false},
    })
    .to_string();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: double\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len(),
    );
    stream.write_all(request.as_bytes()).await.unwrap();
}

/// What comes until `enough` says so, or the connection ends.
pub async fn read_until(stream: &mut TcpStream, enough: impl Fn(&str) -> bool) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match within(stream.read(&mut buffer)).await {
            Ok(0) | Err(_) => break,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
        }
        if enough(&String::from_utf8_lossy(&bytes)) {
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The data of all events in a body, whose chunks of HTTP hold one event each.
pub fn events(text: &str) -> Vec<String> {
    text.lines().filter_map(|line| line.strip_prefix("data: ")).map(String::from).collect()
}

/// What the deltas say.
pub fn said(events: &[String]) -> String {
    let deltas = events.iter().filter_map(|event| {
        let chunk: Value = serde_json::from_str(event).ok()?;
        Some(chunk["choices"][0]["delta"]["content"].as_str()?.to_owned())
    });
    deltas.collect()
}

pub async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(LIMIT, future).await.expect("it takes too long")
}

/// Whether nothing comes for a while.
pub async fn is_silent<F: Future>(future: F) -> bool {
    tokio::time::timeout(SILENCE, future).await.is_err()
}
