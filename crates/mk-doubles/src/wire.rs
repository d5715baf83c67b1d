//! The socket below HTTP: where bytes are counted, cut, held back and dropped.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::fault::FaultKind;

/// How long a half-open connection is kept. Nobody would notice that its client is gone.
const HALF_OPEN: Duration = Duration::from_secs(120);

/// A connection's part that its handler, its socket and the faults share.
#[derive(Debug)]
pub(crate) struct Link {
    /// Its number, from 0.
    pub(crate) number: u64,
    state: Mutex<State>,
    /// Told when there are faults for the handler.
    events: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes written since the connection was opened.
    written: u64,
    /// At how many of them it is reset.
    drop_at: Option<u64>,
    /// At how many of them it falls silent.
    half_open_at: Option<u64>,
    dropped: bool,
    fragments: Option<Fragments>,
    bytes_per_second: Option<u32>,
    /// Since when nothing has been read or written, and how long that may last.
    idle: Option<(Instant, Duration)>,
    /// Faults that events meet, until their handler fetches them.
    events: Vec<FaultKind>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Debug)]
struct Fragments {
    sizes: Vec<usize>,
    pause: Duration,
    next: usize,
}

impl State {
    fn is_half_open(&self) -> bool {
        self.half_open_at.is_some_and(|at| self.written >= at)
    }

    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

impl Link {
    fn new(number: u64) -> Self {
        Self { number, state: Mutex::default(), events: Notify::new() }
    }

    /// Makes a fault happen on this connection from here on.
    pub(crate) fn arm(&self, kind: &FaultKind) {
        let mut state = self.lock();
        match kind {
            FaultKind::Drop { after_bytes } => {
                state.drop_at = Some(state.written.saturating_add(*after_bytes));
                state.dropped |= *after_bytes == 0;
            }
            FaultKind::HalfOpen { after_bytes } => {
                state.half_open_at = Some(state.written.saturating_add(*after_bytes));
            }
            FaultKind::Fragment { sizes, pause_ms } => {
                let sizes = sizes.iter().copied().filter(|size| *size > 0).collect::<Vec<_>>();
                let pause = Duration::from_millis(*pause_ms);
                state.fragments =
                    (!sizes.is_empty()).then_some(Fragments { sizes, pause, next: 0 });
            }
            FaultKind::SlowRead { bytes_per_second } => {
                state.bytes_per_second = Some((*bytes_per_second).max(1));
            }
            other => {
                state.events.push(other.clone());
                self.events.notify_one();
            }
        }
        state.wake();
    }

    /// Ends the faults of a request, when another comes on the same connection.
    pub(crate) fn disarm(&self) {
        let mut state = self.lock();
        let (written, dropped) = (state.written, state.dropped);
        let (reader, writer) = (state.reader.take(), state.writer.take());
        *state = State { written, dropped, reader, writer, ..State::default() };
    }

    /// Closes the connection if nothing happens on it for `limit` from now.
    pub(crate) fn close_when_idle(&self, limit: Duration) {
        let mut state = self.lock();
        state.idle = Some((Instant::now(), limit));
        state.wake();
    }

    /// Takes the faults that the handler has to make happen.
    pub(crate) fn take_events(&self) -> Vec<FaultKind> {
        std::mem::take(&mut self.lock().events)
    }

    /// Waits until there are some.
    pub(crate) async fn events_changed(&self) {
        self.events.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Accepts connections whose bytes go through a [`Wire`].
pub(crate) struct WireListener {
    listener: TcpListener,
    accepted: u64,
    shutdown: CancellationToken,
}

impl WireListener {
    pub(crate) fn new(listener: TcpListener, shutdown: CancellationToken) -> Self {
        Self { listener, accepted: 0, shutdown }
    }
}

impl Listener for WireListener {
    type Io = Wire;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Wire, SocketAddr) {
        // As axum does it: waits where the system has no file for the connection.
        let (stream, address) = Listener::accept(&mut self.listener).await;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
        let link = Arc::new(Link::new(self.accepted));
        self.accepted += 1;
        (Wire::new(stream, link, self.shutdown.clone()), address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// What a handler is told of its connection.
#[derive(Debug, Clone)]
pub(crate) struct Linked(pub(crate) Arc<Link>);

impl Connected<IncomingStream<'_, WireListener>> for Linked {
    fn connect_info(stream: IncomingStream<'_, WireListener>) -> Self {
        Self(stream.io().link.clone())
    }
}

/// A socket that does what the faults say.
pub(crate) struct Wire {
    stream: TcpStream,
    link: Arc<Link>,
    /// When the next bytes may be read.
    read_pause: Option<Pin<Box<Sleep>>>,
    /// When the next piece may be written.
    write_pause: Option<Pin<Box<Sleep>>>,
    /// When an idle connection is closed.
    idle: Option<Pin<Box<Sleep>>>,
    /// Whether a piece was just written, after which others get their turn, so that it travels by itself.
    piece_written: bool,
    shutdown: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Wire {
    fn new(stream: TcpStream, link: Arc<Link>, shutdown: CancellationToken) -> Self {
        let shutdown = Box::pin(shutdown.cancelled_owned());
        let (read_pause, write_pause, idle) = (None, None, None);
        Self { stream, link, read_pause, write_pause, idle, piece_written: false, shutdown }
    }

    /// Resets the connection, which its peer sees at once.
    fn reset(&mut self) -> io::Error {
        if let Err(error) = self.stream.set_zero_linger() {
            tracing::debug!(%error, "SO_LINGER");
        }
        io::ErrorKind::ConnectionReset.into()
    }
}

/// Ready once `pause` is over.
fn poll_pause(pause: &mut Option<Pin<Box<Sleep>>>, context: &mut Context<'_>) -> Poll<()> {
    if let Some(sleep) = pause {
        std::task::ready!(sleep.as_mut().poll(context));
        *pause = None;
    }
    Poll::Ready(())
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.shutdown.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(this.reset()));
        }
        let rate = {
            let mut state = this.link.lock();
            state.reader = Some(context.waker().clone());
            if state.dropped {
                drop(state);
                return Poll::Ready(Err(this.reset()));
            }
            if state.is_half_open() {
                drop(state);
                let sleep = this.idle.get_or_insert_with(|| Box::pin(sleep(HALF_OPEN)));
                std::task::ready!(sleep.as_mut().poll(context));
                return Poll::Ready(Err(this.reset()));
            }
            match state.idle {
                Some((since, limit)) => {
                    let deadline = since + limit;
                    let sleep = this.idle.get_or_insert_with(|| Box::pin(sleep(Duration::ZERO)));
                    sleep.as_mut().reset(deadline);
                    if sleep.as_mut().poll(context).is_ready() {
                        return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                    }
                }
                None => this.idle = None,
            }
            state.bytes_per_second
        };
        std::task::ready!(poll_pause(&mut this.read_pause, context));
        let Some(rate) = rate else {
            let before = buffer.filled().len();
            let result = std::task::ready!(Pin::new(&mut this.stream).poll_read(context, buffer));
            if buffer.filled().len() > before {
                this.link.lock().idle = None;
            }
            return Poll::Ready(result);
        };
        // A fiftieth of a second at a time.
        let most = (rate as usize / 50).clamp(1, buffer.remaining().max(1));
        let mut part = buffer.take(most);
        std::task::ready!(Pin::new(&mut this.stream).poll_read(context, &mut part))?;
        let count = part.filled().len();
        // `take` shares the buffer's memory, and these bytes were filled above.
        let filled = part.filled().to_vec();
        buffer.put_slice(&filled);
        let pause = Duration::from_secs_f64(count as f64 / f64::from(rate));
        this.read_pause = Some(Box::pin(sleep(pause)));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.shutdown.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(this.reset()));
        }
        std::task::ready!(poll_pause(&mut this.write_pause, context));
        if std::mem::take(&mut this.piece_written) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut state = this.link.lock();
        state.writer = Some(context.waker().clone());
        if state.dropped {
            drop(state);
            return Poll::Ready(Err(this.reset()));
        }
        if state.is_half_open() {
            return Poll::Pending;
        }
        let mut most = bytes.len();
        for end in [state.drop_at, state.half_open_at].into_iter().flatten() {
            most = most.min(usize::try_from(end - state.written).unwrap_or(usize::MAX));
        }
        if let Some(fragments) = &state.fragments {
            most = most.min(fragments.sizes[fragments.next]);
        }
        let count =
            std::task::ready!(Pin::new(&mut this.stream).poll_write(context, &bytes[..most]))?;
        state.written += count as u64;
        state.idle = None;
        state.dropped |= state.drop_at.is_some_and(|at| state.written >= at);
        if state.dropped || state.is_half_open() {
            state.wake();
        }
        if let Some(fragments) = &mut state.fragments {
            fragments.next = (fragments.next + 1) % fragments.sizes.len();
            this.piece_written = true;
            if !fragments.pause.is_zero() {
                this.write_pause = Some(Box::pin(sleep(fragments.pause)));
            }
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.shutdown.as_mut().poll(context).is_pending() && this.link.lock().is_half_open() {
            return Poll::Pending;
        }
        Pin::new(&mut this.stream).poll_shutdown(context)
    }
}
