//! Holds a conversation's connection: makes it, feeds it, reads it, and makes it again.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::select;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_tungstenite::tungstenite::{self, Message};
use tracing::{debug, info, warn};

use super::clock::{Clock, duration};
use super::feed::{FRAME, Feed, Overdue, Step};
use super::kept::Kept;
use super::link::{self, Dial, Link, Target};
use super::outbox::{Gone, Outbox};
use super::trouble::{Backoff, Trouble};
use super::turns::Turns;
use super::{Counters, Kind};
use crate::stt::{SttError, SttEvent, SttInput};

/// A turn is kept open for so long without a connection.
const TURN_HELD: Duration = Duration::from_secs(5);

/// A connection that held for so long was a good one: the next attempt need not be put off.
const GOOD: Duration = Duration::from_secs(10);

/// How long a connection may take to be closed that nobody needs any more.
const CLOSING: Duration = Duration::from_secs(1);

/// How long the server may take to say its last words: why it closed; what it heard when it was told to finish.
const LAST_WORDS: Duration = Duration::from_secs(1);
const FINISHING: Duration = Duration::from_secs(5);

/// Ends of speech that may wait to be sent.
const MARKS: usize = 64;

/// A conversation.
pub(super) struct Supervisor<D> {
    dial: Arc<D>,
    target: Arc<Target>,
    recogniser: String,
    input: mpsc::Receiver<SttInput>,
    outbox: Outbox,
    counters: Arc<Counters>,
    ears: Ears,
    turns: Turns,
    backoff: Backoff,
    /// Since when there has been no connection, where one was lost.
    lost: Option<Instant>,
    /// Whether there has been one.
    connected: bool,
}

/// What came from the caller.
pub(super) struct Ears {
    pub(super) kept: Kept,
    /// Where `Finalize` is to be sent, in order.
    pub(super) marks: VecDeque<u64>,
    /// When audio came last.
    pub(super) audio_at: Instant,
    /// Whether more may come.
    pub(super) open: bool,
}

/// How a connection ended.
enum End {
    Trouble(Trouble),
    /// Nothing to be heard for long.
    Idle,
    /// The caller said all there was, and everything was answered.
    Finished,
}

impl<D: Dial> Supervisor<D> {
    pub(super) fn new(
        dial: D,
        target: Arc<Target>,
        recogniser: String,
        kept: u64,
        counters: Arc<Counters>,
        (input, events): (mpsc::Receiver<SttInput>, mpsc::Sender<SttEvent>),
    ) -> Self {
        let ears = Ears {
            kept: Kept::new(usize::try_from(kept).unwrap_or(usize::MAX)),
            marks: VecDeque::new(),
            audio_at: Instant::now(),
            open: true,
        };
        Self {
            dial: Arc::new(dial),
            turns: Turns::new(target.kind),
            target,
            recogniser,
            input,
            outbox: Outbox::new(events),
            counters,
            ears,
            backoff: Backoff::default(),
            lost: None,
            connected: false,
        }
    }

    /// Until the caller has gone, has said all, or nothing can be done.
    pub(super) async fn run(mut self) {
        // The error says that there is nobody to be told.
        let _ = self.converse().await;
    }

    async fn converse(&mut self) -> Result<(), Gone> {
        let mut from = 0;
        loop {
            let (dial, target) = (Arc::clone(&self.dial), Arc::clone(&self.target));
            let end = match self.meanwhile(async move { target.open(&*dial).await }).await? {
                Ok(link) => {
                    let started = Instant::now();
                    let mut feed = self.begin(from, link.request_id.as_deref());
                    let end = self.attend(link, &mut feed).await?;
                    if started.elapsed() >= GOOD {
                        self.backoff.reset();
                    }
                    from = feed.clock.cursor();
                    end
                }
                Err(trouble) => End::Trouble(trouble),
            };
            match end {
                End::Finished => return self.finish(None).await,
                End::Idle => {
                    self.wait_for_audio().await?;
                    if self.ears.kept.end() == from {
                        return self.finish(None).await;
                    }
                }
                End::Trouble(trouble) if trouble.permanent => {
                    return self.finish(Some(trouble.reason)).await;
                }
                End::Trouble(trouble) => {
                    let wait = self.backoff.next().max(trouble.retry_after.unwrap_or_default());
                    self.lose(trouble.reason, wait);
                    if !self.ears.open {
                        return self.finish(None).await;
                    }
                    self.meanwhile(sleep(wait)).await?;
                    self.wait_for_room().await?;
                    from = self.turns.replay_from();
                }
            }
        }
    }

    /// There is a connection, which should hear the input from `from` on.
    fn begin(&mut self, from: u64, request_id: Option<&str>) -> Feed {
        let position = from.max(self.ears.kept.start());
        let replayed = duration(self.ears.kept.end().saturating_sub(position));
        let lost = duration(position - from);
        info!(recogniser = self.recogniser, request_id, ?replayed, ?lost, "listening");
        self.turns.connected(position);
        for mark in &mut self.ears.marks {
            *mark = position.max(*mark);
        }
        self.counters.connections.fetch_add(1, Ordering::Relaxed);
        if !self.connected {
            self.connected = true;
            self.outbox.push(SttEvent::Connected);
        }
        if self.lost.take().is_some() {
            self.counters.reconnects.fetch_add(1, Ordering::Relaxed);
            self.outbox.push(SttEvent::Restored { replayed, lost });
        }
        Feed::new(self.target.kind, Clock::new(position), Instant::now())
    }

    /// Feeds and reads a connection until it ends, in one way.
    async fn attend(&mut self, mut link: Link<D::Io>, feed: &mut Feed) -> Result<End, Gone> {
        let request_id = link.request_id.take();
        let mut written = false;
        loop {
            let now = Instant::now();
            let reads = self.outbox.has_room();
            if !reads {
                // It may be saying things that are not read for now.
                feed.heard(now, true);
            }
            if self.turns.finalizing().is_none() {
                feed.finalized();
            }
            let in_turn = self.turns.in_turn();
            let (due, step) = feed.next(now, &self.ears, in_turn);
            let (overdue_at, overdue) = feed.deadline(now, in_turn);
            let outgoing = link.outgoing.clone().filter(|_| due <= now);
            if outgoing.is_some() && matches!(step, Step::Idle | Step::Finish) {
                if step == Step::Idle {
                    debug!(request_id, "closed while there is no audio");
                    self.meanwhile(link.close(CLOSING)).await?;
                    return Ok(End::Idle);
                }
                link.outgoing = None;
                feed.finish_within(now, FINISHING);
                continue;
            }
            let trouble = select! {
                delivered = self.outbox.deliver() => match delivered {
                    Ok(()) => continue,
                    Err(gone) => {
                        link.close(CLOSING).await;
                        return Err(gone);
                    }
                },
                message = link.incoming.next(), if reads => {
                    match self.take_message(message, feed) {
                        Ok(()) => continue,
                        Err(_) if link.outgoing.is_none() => return Ok(End::Finished),
                        Err(trouble) => trouble,
                    }
                }
                result = &mut link.writer, if !written => match result {
                    Ok(Ok(_sink)) => {
                        written = true;
                        continue;
                    }
                    Ok(Err(error)) => self.why(&error, &mut link, feed).await?,
                    Err(_) => Trouble::passing("what writes has ended"),
                },
                input = self.input.recv(), if self.ears.open => {
                    self.ears.take(input, self.target.kind);
                    continue;
                }
                Some(permit) = reserve(outgoing) => {
                    self.send(step, permit, feed);
                    continue;
                }
                () = sleep_until(due), if due > now => continue,
                () = sleep_until(overdue_at) => match overdue {
                    Overdue::Finalize => {
                        self.tell(Turns::finalize_unanswered);
                        continue;
                    }
                    Overdue::Finish => return Ok(End::Finished),
                    Overdue::Dead => Trouble::passing("nothing was heard of the server"),
                    Overdue::Stalled => Trouble::passing("audio is taken, and nothing said of it"),
                },
            };
            return Ok(End::Trouble(trouble.of_request(request_id.as_deref())));
        }
    }

    /// Sends `step`, which is something to be sent.
    fn send(&mut self, step: Step, permit: mpsc::OwnedPermit<Message>, feed: &mut Feed) {
        let now = Instant::now();
        let message = match step {
            Step::Audio(count) => {
                let kept = &self.ears.kept;
                if kept.start() > feed.clock.cursor() {
                    warn!("audio was not sent before it was kept no longer");
                    feed.clock.skip_to(kept.start());
                    return;
                }
                Message::binary(kept.bytes(feed.clock.cursor(), count as usize))
            }
            Step::Silence => Message::binary(vec![0; 2 * FRAME as usize]),
            Step::Finalize => {
                self.ears.marks.pop_front();
                if feed.clock.total() == 0 {
                    // Nothing was heard that could be made final.
                    return;
                }
                self.turns.finalize_sent(feed.clock.cursor());
                link::finalize()
            }
            Step::KeepAlive => link::keep_alive(),
            Step::Ping => Message::Ping(feed.clock.cursor().to_be_bytes().to_vec().into()),
            Step::Idle | Step::Finish => return,
        };
        permit.send(message);
        let before = feed.clock.total();
        feed.sent(now, step);
        let total = feed.clock.total();
        self.counters.samples.fetch_add(total - before, Ordering::Relaxed);
        self.tell(|turns, events| turns.sent(total, events));
    }

    /// What the server said, or that it will say nothing more.
    fn take_message(
        &mut self,
        message: Option<Result<Message, tungstenite::Error>>,
        feed: &mut Feed,
    ) -> Result<(), Trouble> {
        let key = &self.target.key;
        let message = match message {
            Some(Ok(message)) => message,
            Some(Err(error)) => return Err(Trouble::from_error(&error, key)),
            None => return Err(Trouble::from_close(None, key)),
        };
        feed.heard(Instant::now(), message.is_text());
        match message {
            Message::Text(text) => {
                let mut events = Vec::new();
                let heard = self.turns.hear(&text, &feed.clock, &mut events);
                events.into_iter().for_each(|event| self.outbox.push(event));
                heard.map_err(|error| Trouble::from_message(&error, key))
            }
            Message::Close(frame) => Err(Trouble::from_close(frame.as_ref(), key)),
            Message::Pong(payload) => {
                // What was sent before the ping has been read, then.
                if let Ok(position) = payload[..].try_into().map(u64::from_be_bytes) {
                    self.turns.read_to(position.min(feed.clock.cursor()));
                }
                Ok(())
            }
            // Pings are answered where they are read.
            Message::Ping(_) | Message::Binary(_) | Message::Frame(_) => Ok(()),
        }
    }

    /// Why nothing can be written: the server may have said so before it hung up.
    async fn why(
        &mut self,
        error: &tungstenite::Error,
        link: &mut Link<D::Io>,
        feed: &mut Feed,
    ) -> Result<Trouble, Gone> {
        let written = Trouble::from_error(error, &self.target.key);
        let until = Instant::now() + LAST_WORDS;
        loop {
            let next = self.meanwhile(timeout_at(until, link.incoming.next())).await?;
            let Ok(Some(Ok(message))) = next else { return Ok(written) };
            if let Err(said) = self.take_message(Some(Ok(message)), feed) {
                return Ok(said);
            }
        }
    }

    /// The connection is lost, or was not made, which is said once.
    fn lose(&mut self, reason: String, wait: Duration) {
        warn!(recogniser = self.recogniser, reason, ?wait, "not listening");
        if self.lost.is_none() {
            self.lost = Some(Instant::now());
            if let Some(position) = self.turns.finalizing() {
                self.ears.mark(position, true);
            }
            self.outbox.push(SttEvent::Lost { reason });
            self.tell(Turns::lost);
        }
    }

    /// Does `work`, while the caller is listened to, and told what there is to be told.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Gone> {
        let mut work = pin!(work);
        loop {
            let held = self.lost.filter(|_| self.turns.in_turn()).map(|since| since + TURN_HELD);
            select! {
                result = &mut work => return Ok(result),
                delivered = self.outbox.deliver() => delivered?,
                input = self.input.recv(), if self.ears.open => {
                    self.ears.take(input, self.target.kind);
                }
                () = sleep_until(held.unwrap_or_else(Instant::now)), if held.is_some() => {
                    self.tell(Turns::cut_short);
                }
            }
        }
    }

    /// Until there is audio that was not sent, or no more will come.
    async fn wait_for_audio(&mut self) -> Result<(), Gone> {
        let before = self.ears.kept.end();
        while self.ears.open && self.ears.kept.end() == before {
            select! {
                delivered = self.outbox.deliver() => delivered?,
                input = self.input.recv() => self.ears.take(input, self.target.kind),
            }
        }
        Ok(())
    }

    /// Until there is room for what the next connection will have to say.
    async fn wait_for_room(&mut self) -> Result<(), Gone> {
        while !self.outbox.has_room() {
            select! {
                delivered = self.outbox.deliver() => delivered?,
                input = self.input.recv(), if self.ears.open => {
                    self.ears.take(input, self.target.kind);
                }
            }
        }
        Ok(())
    }

    /// Nothing more will be heard, for this reason if there is one: ends the turn that is open, says so, and takes no
    /// more audio.
    async fn finish(&mut self, reason: Option<String>) -> Result<(), Gone> {
        self.input.close();
        self.tell(Turns::cut_short);
        if let Some(reason) = reason {
            warn!(recogniser = self.recogniser, reason, "cannot listen");
            let recogniser = self.recogniser.clone();
            self.outbox.push(SttEvent::Failed(SttError { recogniser, reason }));
        }
        while !self.outbox.is_empty() {
            self.outbox.deliver().await?;
        }
        Ok(())
    }

    /// Passes on what `happened` makes of the turns.
    fn tell(&mut self, happened: impl FnOnce(&mut Turns, &mut Vec<SttEvent>)) {
        let mut events = Vec::new();
        happened(&mut self.turns, &mut events);
        events.into_iter().for_each(|event| self.outbox.push(event));
    }
}

impl Ears {
    fn take(&mut self, input: Option<SttInput>, kind: Kind) {
        match input {
            Some(SttInput::Audio(samples)) => {
                self.kept.push(&samples);
                self.audio_at = Instant::now();
            }
            Some(SttInput::SpeechStopped) if kind == Kind::Nova => {
                self.mark(self.kept.end(), false);
            }
            Some(SttInput::SpeechStarted | SttInput::SpeechStopped) => {}
            None => self.open = false,
        }
    }

    /// `Finalize` is to be sent at `position`, before all others if it is sent `again`.
    fn mark(&mut self, position: u64, again: bool) {
        if again {
            self.marks.push_front(position);
        } else if self.marks.back() != Some(&position) {
            self.marks.push_back(position);
        }
        self.marks.truncate(MARKS);
    }
}

/// Waits for room to send, if there is something to be sent.
async fn reserve(outgoing: Option<mpsc::Sender<Message>>) -> Option<mpsc::OwnedPermit<Message>> {
    // The writer has ended where there is none, and says why itself.
    outgoing?.reserve_owned().await.ok()
}
