//! One client's websocket, from the upgrade to the goodbye.

use std::error::Error as _;
use std::io;
use std::sync::Arc;

use axum::extract::ws::{Message, WebSocket};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};

use super::Shared;
use super::goodbye::Goodbye;
use super::limits::Bucket;
use crate::protocol::{ClientMessage, ServerMessage};
use crate::session::Session;

/// Samples a second that a microphone may have.
const SAMPLE_RATES: std::ops::RangeInclusive<u32> = 8_000..=96_000;

/// Audio may come at twice the rate at which it is spoken, and this many seconds of it at once, after a network's pause.
const AUDIO: (f64, f64) = (10.0, 2.0);

/// Messages that may come at once, and in each second: three times what the page sends.
const MESSAGES: (f64, f64) = (1000.0, 250.0);

/// How long a goodbye may take to be said, and to be answered.
const FAREWELL: Duration = Duration::from_secs(2);

type Sink = SplitSink<WebSocket, Message>;
type Stream = SplitStream<WebSocket>;

/// How a conversation ended.
enum End {
    /// The client left, or cannot be reached.
    Gone(String),
    /// The server ends it.
    Goodbye(Goodbye),
}

impl From<Goodbye> for End {
    fn from(goodbye: Goodbye) -> Self {
        Self::Goodbye(goodbye)
    }
}

/// Attends to a client until one side leaves.
pub(super) async fn attend(socket: WebSocket, shared: Arc<Shared>) {
    let (mut sink, mut stream) = socket.split();
    let end = match shared.seats.clone().try_acquire_owned() {
        Err(_) => {
            shared.metrics.refused("full");
            Goodbye::full(shared.options.max_sessions).into()
        }
        Ok(_seat) => tokio::select! {
            end = converse(&mut sink, &mut stream, &shared) => end,
            () = shared.stopping.cancelled() => Goodbye::stopping().into(),
        },
    };
    match end {
        End::Gone(reason) => info!(reason, "a client left"),
        End::Goodbye(goodbye) => {
            info!(code = goodbye.code, reason = goodbye.reason, "a client is sent away");
            say(&goodbye, sink, stream).await;
        }
    }
}

/// Says goodbye, and reads on until the client answers: a connection that is closed with something unread loses what was
/// said last.
async fn say(goodbye: &Goodbye, mut sink: Sink, mut stream: Stream) {
    let said = timeout(FAREWELL, sink.send(goodbye.frame())).await;
    if matches!(said, Ok(Ok(()))) {
        let _ = timeout(FAREWELL, async { while let Some(Ok(_)) = stream.next().await {} }).await;
    }
}

async fn converse(sink: &mut Sink, stream: &mut Stream, shared: &Shared) -> End {
    let hello = timeout(shared.options.hello_timeout, hello(stream, shared)).await;
    let sample_rate = match hello {
        Ok(Ok(sample_rate)) => sample_rate,
        Ok(Err(end)) => return end,
        Err(_) => return Goodbye::policy("no hello came").into(),
    };
    let _active = shared.metrics.session();
    let Session { input, output } = (shared.start)();
    let listening = listen(stream, input, sample_rate, shared);
    let speaking = speak(sink, output, shared);
    let limit = async {
        match shared.options.session_limit {
            Some(limit) => sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        end = listening => end,
        end = speaking => end,
        () = limit => {
            let seconds = shared.options.session_limit.unwrap_or_default().as_secs_f64();
            Goodbye::policy(format!("a conversation may last {seconds} s on this server")).into()
        }
    }
}

/// The first message: the microphone's rate.
async fn hello(stream: &mut Stream, shared: &Shared) -> Result<u32, End> {
    let message = loop {
        match receive(stream, shared).await? {
            Some(message) => break message,
            None => continue,
        }
    };
    match message {
        ClientMessage::Hello { sample_rate } if SAMPLE_RATES.contains(&sample_rate) => {
            Ok(sample_rate)
        }
        ClientMessage::Hello { sample_rate } => {
            let reason = format!("a sample rate of {sample_rate}; 8000 to 96000 are understood");
            Err(Goodbye::policy(reason).into())
        }
        _ => Err(Goodbye::policy("the first message must be a hello").into()),
    }
}

/// Hands what the client says to the session.
async fn listen(
    stream: &mut Stream,
    input: mpsc::Sender<ClientMessage>,
    sample_rate: u32,
    shared: &Shared,
) -> End {
    let mut audio = Bucket::new(AUDIO.0, AUDIO.1);
    let mut messages = Bucket::new(MESSAGES.0, MESSAGES.1);
    let mut message = ClientMessage::Hello { sample_rate };
    loop {
        match timeout(shared.options.patience, input.send(message)).await {
            Ok(Ok(())) => {}
            // Its output is closed too: what ends it is said there.
            Ok(Err(_)) => std::future::pending().await,
            Err(_) => return Goodbye::failed("the conversation does not listen").into(),
        }
        message = loop {
            let gone_after = shared.options.ping_interval.mul_f64(2.5);
            let Ok(received) = timeout(gone_after, receive(stream, shared)).await else {
                return End::Gone(format!("nothing came for {gone_after:?}"));
            };
            match received {
                Ok(received) if !messages.add(1.0) => {
                    drop(received);
                    return Goodbye::policy("too many messages a second").into();
                }
                Ok(Some(received)) => break received,
                Ok(None) => {}
                Err(end) => return end,
            }
        };
        match &message {
            ClientMessage::Hello { .. } => return Goodbye::policy("a second hello").into(),
            ClientMessage::Audio(samples) => {
                shared.metrics.audio_in(samples.len(), sample_rate);
                if !audio.add(samples.len() as f64 / f64::from(sample_rate)) {
                    return Goodbye::policy("audio faster than twice the time it takes").into();
                }
            }
            _ => {}
        }
    }
}

/// The client's next message; `None` for one that is not for the session: a ping, a pong.
async fn receive(stream: &mut Stream, shared: &Shared) -> Result<Option<ClientMessage>, End> {
    let message = match stream.next().await {
        None | Some(Ok(Message::Close(_))) => return Err(End::Gone("it said goodbye".to_owned())),
        Some(Err(error)) if is_gone(&error) => return Err(End::Gone(error.to_string())),
        Some(Err(error)) => return Err(Goodbye::protocol(error).into()),
        Some(Ok(message)) => message,
    };
    let limit = shared.options.max_message_bytes;
    let bytes = match &message {
        Message::Text(text) => text.len(),
        Message::Binary(bytes) => bytes.len(),
        _ => 0,
    };
    if bytes > limit {
        return Err(Goodbye::too_large(bytes, limit).into());
    }
    match message {
        Message::Text(text) => match serde_json::from_str(&text) {
            Ok(message) => Ok(Some(message)),
            Err(error) => Err(Goodbye::unsupported(format!("not a message: {error}")).into()),
        },
        Message::Binary(bytes) => match bytes.as_chunks() {
            (samples, []) => {
                let samples = samples.iter().map(|&sample| i16::from_le_bytes(sample)).collect();
                Ok(Some(ClientMessage::Audio(samples)))
            }
            _ => Err(Goodbye::unsupported("audio with half a sample at its end").into()),
        },
        _ => Ok(None),
    }
}

/// Whether a connection failed, rather than what came over it.
fn is_gone(error: &axum::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.is::<io::Error>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Sends what the session tells the client, and asks now and then whether it is there.
async fn speak(sink: &mut Sink, mut output: mpsc::Receiver<ServerMessage>, shared: &Shared) -> End {
    let patience = shared.options.patience;
    let mut ping = interval(shared.options.ping_interval);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sample_rate = 0;
    let mut gave_up = None;
    let mut full_since: Option<Instant> = None;
    loop {
        let frame = tokio::select! {
            message = output.recv() => {
                let Some(message) = message else {
                    return match gave_up {
                        Some(reason) => Goodbye::ended(reason),
                        None => Goodbye::failed("the conversation broke off"),
                    }
                    .into();
                };
                match &message {
                    ServerMessage::Ready { sample_rate: ready, .. } => sample_rate = *ready,
                    ServerMessage::Problem { stage, message, permanent: true }
                        if stage == "session" => gave_up = Some(message.clone()),
                    _ => {}
                }
                shared.metrics.told(&message, sample_rate);
                match frame(&message) {
                    Ok(frame) => frame,
                    Err(error) => return Goodbye::failed(error).into(),
                }
            }
            _ = ping.tick() => Message::Ping(Default::default()),
        };
        match output.len() < output.max_capacity() {
            true => full_since = None,
            false => _ = full_since.get_or_insert_with(Instant::now),
        }
        let sent = timeout(patience, sink.send(frame)).await;
        match sent {
            Ok(Ok(())) if full_since.is_none_or(|since| since.elapsed() < patience) => {}
            Ok(Err(error)) => return End::Gone(error.to_string()),
            Ok(Ok(())) | Err(_) => {
                warn!("a client does not read what it is sent");
                let reason = format!("the connection is too slow: {patience:?} behind");
                return Goodbye::policy(reason).into();
            }
        }
    }
}

/// A message as it is sent.
fn frame(message: &ServerMessage) -> serde_json::Result<Message> {
    match message {
        ServerMessage::Audio(frame) => Ok(Message::Binary(frame.to_bytes().into())),
        message => Ok(Message::Text(serde_json::to_string(message)?.into())),
    }
}
