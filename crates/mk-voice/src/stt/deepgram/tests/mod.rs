//! Against servers that are written out move by move, over a wire in memory and in virtual time: the runtime's clock
//! moves on when nothing else can happen.

mod flux;
mod lifecycle;
mod loss;
mod nova;
mod order;
mod pace;

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::handshake::server;
use tokio_tungstenite::tungstenite::http::HeaderMap;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::link::Dial;
use super::{Deepgram, DeepgramOptions};
use crate::Secret;
use crate::stt::{SttEvent, SttInput, SttStream};

/// In virtual time nothing takes long but what waits for ever.
const FOR_EVER: Duration = Duration::from_secs(3600);

const KEY: &str = "dg-the-key";

/// Bytes that a wire holds which nobody reads.
const WIRE: usize = 16 * 1024;

/// Connects to a test.
struct Wire {
    dialled: mpsc::Sender<DuplexStream>,
    /// Bytes that are on their way at most.
    holds: usize,
}

impl Dial for Wire {
    type Io = DuplexStream;

    async fn dial(
        &self,
        request: Request,
        config: WebSocketConfig,
    ) -> Result<(WebSocketStream<DuplexStream>, HeaderMap), Error> {
        let (ours, theirs) = tokio::io::duplex(self.holds);
        let gone = |_| Error::Io(std::io::ErrorKind::ConnectionRefused.into());
        self.dialled.send(theirs).await.map_err(gone)?;
        let upgraded =
            tokio_tungstenite::client_async_with_config(request, ours, Some(config)).await;
        let (socket, response) = upgraded?;
        Ok((socket, response.into_parts().0.headers))
    }
}

/// Where connections arrive.
struct Host {
    dialled: mpsc::Receiver<DuplexStream>,
}

impl Host {
    /// The other end of the next connection, before anything was said on it.
    async fn wire(&mut self) -> DuplexStream {
        timeout(FOR_EVER, self.dialled.recv()).await.expect("a connection").expect("a client")
    }

    /// The next connection, upgraded.
    async fn accept(&mut self) -> Server {
        let wire = self.wire().await;
        let mut asked = None;
        #[expect(clippy::result_large_err, reason = "the callback's type is not ours")]
        let callback = |request: &server::Request, mut response: server::Response| {
            let authorization = request.headers().get("authorization").cloned();
            asked = Some((request.uri().to_string(), authorization));
            response.headers_mut().insert("dg-request-id", "r-1".parse().expect("a header"));
            Ok(response)
        };
        let socket = tokio_tungstenite::accept_hdr_async(wire, callback).await.expect("an upgrade");
        let (uri, authorization) = asked.expect("a request");
        assert_eq!(authorization.expect("a key"), format!("Token {KEY}"));
        Server { socket, uri, samples: 0, sequence: 0 }
    }

    /// The next connection, to Flux, which has said that it is there.
    async fn flux(&mut self) -> Server {
        let mut server = self.accept().await;
        server.say(json!({"type": "Connected", "request_id": "r-1"})).await;
        server
    }

    /// Whether nobody connects for `time`.
    async fn quiet(&mut self, time: Duration) -> bool {
        timeout(time, self.dialled.recv()).await.is_err()
    }
}

/// A server on one connection.
struct Server {
    socket: WebSocketStream<DuplexStream>,
    uri: String,
    /// Samples that it got.
    samples: u64,
    sequence: u64,
}

/// What a server got.
#[derive(Debug, PartialEq)]
enum Got {
    Audio(Vec<i16>),
    Text(String),
    /// The connection has ended; in order if it was said.
    End {
        said: bool,
    },
}

impl Server {
    /// Says `message`, numbered as Flux does.
    async fn say(&mut self, mut message: Value) {
        message["sequence_id"] = self.sequence.into();
        self.sequence += 1;
        self.socket.send(Message::text(message.to_string())).await.expect("a listener");
    }

    /// Says what Flux makes of a turn, having listened to `end` seconds.
    async fn turn(&mut self, event: &str, index: u64, end: f64, text: &str) {
        self.say(turn(event, index, end, text)).await;
    }

    async fn close(mut self, code: u16, reason: &str) {
        let frame = CloseFrame { code: code.into(), reason: reason.to_owned().into() };
        self.socket.close(Some(frame)).await.expect("a listener");
    }

    async fn got(&mut self) -> Got {
        loop {
            match timeout(FOR_EVER, self.socket.next()).await.expect("something") {
                Some(Ok(Message::Binary(bytes))) => {
                    assert!(!bytes.is_empty() && bytes.len() % 2 == 0, "{} bytes", bytes.len());
                    let pairs = bytes.chunks_exact(2);
                    let samples: Vec<i16> =
                        pairs.map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
                    self.samples += samples.len() as u64;
                    return Got::Audio(samples);
                }
                Some(Ok(Message::Text(text))) => return Got::Text(text.to_string()),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(_))) => return Got::End { said: true },
                Some(Err(_)) | None => return Got::End { said: false },
            }
        }
    }

    /// The next message that is no audio.
    async fn text(&mut self) -> String {
        loop {
            match self.got().await {
                Got::Audio(_) => {}
                Got::Text(text) => return text,
                Got::End { .. } => panic!("the connection ended"),
            }
        }
    }

    /// All that comes until there are `count` samples more.
    async fn audio(&mut self, count: usize) -> Vec<i16> {
        let mut samples = Vec::new();
        while samples.len() < count {
            match self.got().await {
                Got::Audio(more) => samples.extend(more),
                other => panic!("{other:?} after {} samples", samples.len()),
            }
        }
        samples
    }
}

/// What Flux says of a turn. Words take a tenth of a second each and end together where it listened to, less 0.1 s.
fn turn(event: &str, index: u64, end: f64, text: &str) -> Value {
    let count = text.split_whitespace().count();
    let words = text.split_whitespace().enumerate().map(|(at, word)| {
        let end = end - 0.1 * (count - at) as f64;
        json!({"word": word, "start": end - 0.1, "end": end, "confidence": 0.9})
    });
    json!({
        "type": "TurnInfo", "request_id": "r-1", "event": event, "turn_index": index,
        "audio_window_start": 0.0, "audio_window_end": end, "transcript": text,
        "words": words.collect::<Vec<_>>(), "end_of_turn_confidence": 0.5
    })
}

fn options() -> DeepgramOptions {
    DeepgramOptions {
        url: "ws://deepgram.test:8080".into(),
        key: Secret::new(KEY),
        ..Default::default()
    }
}

fn listen(deepgram: &Deepgram) -> (SttStream, Host) {
    let (dialled, host) = mpsc::channel(1);
    (deepgram.listen_by(Wire { dialled, holds: WIRE }), Host { dialled: host })
}

fn flux() -> (SttStream, Host) {
    listen(&Deepgram::flux(options()).expect("options"))
}

fn nova() -> (SttStream, Host) {
    listen(&Deepgram::nova(options()).expect("options"))
}

/// Samples that tell their own positions.
fn samples(from: u64, count: u64) -> Vec<i16> {
    (from..from + count).map(|position| (position % 30_011) as i16 + 1).collect()
}

/// A microphone: audio as it is spoken, in pieces of 20 ms, each sample telling its position.
struct Mic {
    position: u64,
    next: Instant,
}

impl Mic {
    fn new() -> Self {
        Self { position: 0, next: Instant::now() }
    }

    /// The next `seconds`.
    async fn speak(&mut self, input: &mpsc::Sender<SttInput>, seconds: f64) {
        for _ in 0..(seconds * 50.0).round() as u64 {
            tokio::time::sleep_until(self.next).await;
            let audio = SttInput::Audio(samples(self.position, 320));
            input.send(audio).await.expect("a recogniser");
            self.position += 320;
            self.next += Duration::from_millis(20);
        }
    }
}

/// The next event.
async fn event(stream: &mut SttStream) -> SttEvent {
    timeout(FOR_EVER, stream.events.recv()).await.expect("an event").expect("a recogniser")
}

/// The next event, which is none of the kind that comes and goes with connections.
async fn turn_event(stream: &mut SttStream) -> SttEvent {
    loop {
        match event(stream).await {
            SttEvent::Connected | SttEvent::Lost { .. } | SttEvent::Restored { .. } => {}
            event => return event,
        }
    }
}

/// The reason of the next event, which is `Lost`.
async fn lost(stream: &mut SttStream) -> String {
    match event(stream).await {
        SttEvent::Lost { reason } => reason,
        other => panic!("{other:?}"),
    }
}

/// The reason of the next event, which is `Failed`, and the last.
async fn failed(stream: &mut SttStream) -> String {
    let reason = match event(stream).await {
        SttEvent::Failed(error) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(timeout(FOR_EVER, stream.events.recv()).await, Ok(None));
    assert!(!reason.contains(KEY), "{reason}");
    reason
}

fn partial(text: &str) -> SttEvent {
    SttEvent::Partial { text: text.into() }
}
