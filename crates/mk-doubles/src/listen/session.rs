//! One listening connection, from its upgrade to its end.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use futures_util::StreamExt;
use futures_util::stream::SplitStream;
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use crate::doubles::App;
use crate::ids::{iso_time, unix_seconds};
use crate::listen::audio::Meter;
use crate::listen::outlet::{Outlet, Stop};
use crate::listen::timeline::Hearing;
use crate::listen::v1::Nova;
use crate::listen::v2::{Flux, FluxReply};
use crate::record::{ListenEnd, ListenEntry};
use crate::wire::Link;

/// Times real time at which audio may come.
const PERMITTED_RATE: f64 = 1.25;

/// Seconds of audio that may come at once.
const PERMITTED_BURST: f64 = 3.0;

/// How long a client may take to answer a close frame.
const CLOSING: Duration = Duration::from_secs(1);

/// A connection that was accepted.
pub(crate) struct Session {
    pub(crate) protocol: Protocol,
    pub(crate) meter: Meter,
    pub(crate) hearing: Hearing,
    /// Whether `Connected` is sent, where the protocol has it.
    pub(crate) says_connected: bool,
    pub(crate) entry: ListenEntry,
    pub(crate) link: Arc<Link>,
    pub(crate) app: App,
}

/// What is spoken on it.
#[derive(Debug)]
pub(crate) enum Protocol {
    V1(Nova),
    V2(Flux),
}

/// When audio came.
#[derive(Debug)]
struct Clock {
    /// The first of it.
    first: Option<Instant>,
    /// The last of it or what counts as such; at first, the opening.
    last: Instant,
    /// The end of the last tick, in seconds of audio.
    now: f64,
}

impl Session {
    /// Serves the connection until it ends, and records how it did.
    pub(crate) async fn run(mut self, socket: WebSocket) {
        let (sink, mut stream) = socket.split();
        let mut outlet = Outlet::new(sink, self.link.clone(), self.app.shutdown.clone());
        let stop = self.serve(&mut outlet, &mut stream).await;
        self.link.set_busy(false);
        let end = match stop {
            Stop::End(end) => end,
            Stop::Close(code, reason) => {
                let closed = self.close(&mut outlet, &mut stream, Some((code, &reason))).await;
                closed.unwrap_or(ListenEnd::Closed(code, reason))
            }
            // Made into a message or a close where messages are sent.
            Stop::Error(_) => ListenEnd::ClientGone,
        };
        self.entry.update(|record| record.end = Some(end));
    }

    async fn serve(&mut self, outlet: &mut Outlet, stream: &mut SplitStream<WebSocket>) -> Stop {
        let mut clock = Clock { first: None, last: Instant::now(), now: 0.0 };
        if let Protocol::V2(flux) = &mut self.protocol
            && self.says_connected
        {
            let connected = flux.connected();
            if let Err(stop) = self.send(outlet, vec![connected]).await {
                return stop;
            }
        }
        let link = self.link.clone();
        let shutdown = self.app.shutdown.clone();
        loop {
            let limit = outlet.idle.unwrap_or(self.app.options.scaled(self.app.options.idle));
            let release = outlet.release_at();
            let step = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Stop::End(ListenEnd::Shutdown),
                () = link.events_changed() => self.send(outlet, Vec::new()).await,
                () = sleep_until(release.unwrap_or(clock.last)), if release.is_some() => {
                    let held = outlet.release();
                    self.send(outlet, held).await
                }
                () = sleep_until(clock.last + limit) => {
                    return Stop::Close(1011, "NET-0001".into());
                }
                message = stream.next() => match message {
                    Some(Ok(Message::Binary(audio))) => self.hear(outlet, &mut clock, &audio).await,
                    Some(Ok(Message::Text(text))) => self.control(outlet, &mut clock, &text).await,
                    Some(Ok(Message::Close(frame))) => {
                        // The answer to it is sent with the next write.
                        let _ = outlet.close(None).await;
                        return Stop::End(ListenEnd::ClientClosed(frame.map(|frame| frame.code)));
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(()),
                    Some(Err(_)) | None => return Stop::End(ListenEnd::ClientGone),
                },
            };
            match step {
                Ok(()) => {}
                Err(Stop::End(ListenEnd::CloseStream)) => {
                    // Nova-3 ends with a status, Flux without one.
                    let code = matches!(self.protocol, Protocol::V1(_)).then_some((1000, ""));
                    let closed = self.close(outlet, stream, code).await;
                    return Stop::End(closed.unwrap_or(ListenEnd::CloseStream));
                }
                Err(stop) => return stop,
            }
        }
    }

    /// Takes audio, or the empty message that ends the stream.
    async fn hear(
        &mut self,
        outlet: &mut Outlet,
        clock: &mut Clock,
        audio: &[u8],
    ) -> Result<(), Stop> {
        if audio.is_empty() {
            self.entry.violation("an empty binary message, which closes the stream");
            return self.close_stream(outlet, clock).await;
        }
        if !audio.len().is_multiple_of(self.meter.frame_bytes()) {
            let bytes = audio.len();
            self.entry.violation(format!("{bytes} bytes of audio, which are no whole samples"));
            return Err(Stop::Close(1008, "DATA-0000".into()));
        }
        if !self.says_connected && clock.first.is_none() && matches!(self.protocol, Protocol::V2(_))
        {
            self.entry.violation("audio before Connected");
        }
        clock.last = Instant::now();
        let first = *clock.first.get_or_insert(clock.last);
        let ticks = self.meter.take(audio);
        let elapsed = (clock.last - first).as_secs_f64() * self.app.options.time_scale;
        let over = self.meter.seconds() - PERMITTED_BURST - PERMITTED_RATE * elapsed;
        let (samples, seconds) = (self.meter.samples(), self.meter.seconds());
        self.entry.update(|record| {
            record.samples = samples;
            record.audio_seconds = seconds;
            record.audio_messages += 1;
            record.over_rate_seconds = record.over_rate_seconds.max(over);
        });
        for (now, rms) in ticks {
            clock.now = now;
            let heard = self.hearing.tick(now, rms);
            let messages = match &mut self.protocol {
                Protocol::V1(nova) => nova.tick(now, &heard),
                Protocol::V2(flux) => flux.tick(now, &heard, self.hearing.is_loud()),
            };
            self.send(outlet, messages).await?;
        }
        Ok(())
    }

    /// Obeys a text message.
    async fn control(
        &mut self,
        outlet: &mut Outlet,
        clock: &mut Clock,
        text: &str,
    ) -> Result<(), Stop> {
        let message = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
        self.entry.control(message.clone());
        match (&mut self.protocol, message["type"].as_str()) {
            (Protocol::V1(_), Some("KeepAlive")) => {
                if clock.first.is_some() {
                    clock.last = Instant::now();
                }
                Ok(())
            }
            (Protocol::V1(nova), Some("Finalize")) => {
                let heard = self.hearing.finalize(clock.now);
                let messages = nova.finalize(clock.now, heard);
                self.send(outlet, messages).await
            }
            (_, Some("CloseStream")) => self.close_stream(outlet, clock).await,
            (Protocol::V1(_), _) => {
                self.entry.violation(format!("an unknown message: {text:.200}"));
                let error = Nova::error("UnknownMessage", "the message is not known");
                self.send(outlet, vec![error]).await
            }
            (Protocol::V2(flux), _) => match flux.control(clock.now, &message) {
                FluxReply::Messages(messages) => self.send(outlet, messages).await,
                FluxReply::Fatal(error) => {
                    self.entry.violation(format!("an unknown message: {text:.200}"));
                    self.send(outlet, vec![error]).await?;
                    Err(Stop::Close(1008, "UNPARSABLE_CLIENT_MESSAGE".into()))
                }
            },
        }
    }

    /// Sends the last messages.
    async fn close_stream(&mut self, outlet: &mut Outlet, clock: &Clock) -> Result<(), Stop> {
        let messages = match &mut self.protocol {
            Protocol::V1(nova) => {
                let heard = self.hearing.finalize(clock.now);
                nova.close(self.meter.seconds(), heard, &iso_time(unix_seconds()))
            }
            Protocol::V2(flux) => flux.close(clock.now),
        };
        self.send(outlet, messages).await?;
        Err(Stop::End(ListenEnd::CloseStream))
    }

    /// Sends messages, or what faults put in their place.
    async fn send(&mut self, outlet: &mut Outlet, messages: Vec<Value>) -> Result<(), Stop> {
        let mut messages = messages.into_iter();
        let mut sent = outlet.check();
        loop {
            sent = match (sent, &mut self.protocol) {
                (Ok(()), _) => match messages.next() {
                    Some(message) => outlet.send(message, &self.entry).await,
                    None => return Ok(()),
                },
                (Err(Stop::Error(code)), Protocol::V1(_)) => {
                    let code = code.as_deref().unwrap_or("InternalServerError");
                    outlet.send(Nova::error(code, "an error on demand"), &self.entry).await
                }
                (Err(Stop::Error(code)), Protocol::V2(flux)) => {
                    let code = code.unwrap_or_else(|| "INTERNAL_SERVER_ERROR".into());
                    let error = flux.error(&code, "an error on demand");
                    return match outlet.send(error, &self.entry).await {
                        Err(Stop::End(end)) => Err(Stop::End(end)),
                        _ => Err(Stop::Close(1011, code)),
                    };
                }
                (Err(stop), _) => return Err(stop),
            };
        }
    }

    /// Closes the websocket and waits for the client to agree; says why it could not.
    async fn close(
        &self,
        outlet: &mut Outlet,
        stream: &mut SplitStream<WebSocket>,
        code: Option<(u16, &str)>,
    ) -> Option<ListenEnd> {
        if let Err(Stop::End(end)) = outlet.close(code).await {
            return Some(end);
        }
        let drained = async { while let Some(Ok(_)) = stream.next().await {} };
        tokio::select! {
            () = self.app.shutdown.cancelled() => {}
            _ = tokio::time::timeout(CLOSING, drained) => {}
        }
        None
    }
}
