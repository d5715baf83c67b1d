//! One connection: made, written to by a task of its own, read by whoever holds it.

use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderValue, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use super::Kind;
use super::messages::FluxMessage;
use super::trouble::{Trouble, request_id};
use crate::secret::Secret;

/// Frames that are on their way to the socket. Few: what waits here cannot be taken back.
const OUTGOING: usize = 4;

/// A socket that takes nothing for so long is dead.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest message that is accepted, in bytes. The longest turns make some tens of kilobytes.
const MESSAGE_LIMIT: usize = 1 << 20;

/// How a socket is made. There is one way but in tests.
pub(super) trait Dial: Send + Sync + 'static {
    /// What it is made on.
    type Io: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Connects, and upgrades; also gives what the server said when it did.
    fn dial(
        &self,
        request: Request,
        config: WebSocketConfig,
    ) -> impl Future<Output = Result<(WebSocketStream<Self::Io>, HeaderMap), Error>> + Send;
}

/// Over TCP, with TLS for `wss`.
#[derive(Debug)]
pub(super) struct Network;

impl Dial for Network {
    type Io = MaybeTlsStream<TcpStream>;

    async fn dial(
        &self,
        request: Request,
        config: WebSocketConfig,
    ) -> Result<(WebSocketStream<Self::Io>, HeaderMap), Error> {
        // Without Nagle's algorithm: frames are small and each of them is waited for.
        let connect = tokio_tungstenite::connect_async_with_config(request, Some(config), true);
        let (socket, response) = connect.await?;
        Ok((socket, response.into_parts().0.headers))
    }
}

/// Where and how to connect.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) kind: Kind,
    pub(super) url: Url,
    pub(super) key: Secret,
    pub(super) timeout: Duration,
}

/// The half of a connection that is written to.
type Sink<Io> = SplitSink<WebSocketStream<Io>, Message>;

/// A connection over which audio can be sent.
pub(super) struct Link<Io> {
    pub(super) incoming: SplitStream<WebSocketStream<Io>>,
    /// Dropped when nothing more is to be sent, which is then said.
    pub(super) outgoing: Option<mpsc::Sender<Message>>,
    /// Ends when all has been written, or with what went wrong.
    pub(super) writer: AbortOnDropHandle<Result<Sink<Io>, Error>>,
    pub(super) request_id: Option<String>,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Link<Io> {
    /// Says that nothing more comes, and closes. Takes `limit` at most, and does not wait for an answer.
    pub(super) async fn close(self, limit: Duration) {
        let Self { incoming, outgoing, writer, .. } = self;
        drop(outgoing);
        let close = async {
            if let Ok(Ok(mut sink)) = writer.await {
                // The connection ends here whether or not that can still be said.
                let _ = sink.close().await;
            }
        };
        let _ = timeout(limit, close).await;
        drop(incoming);
    }
}

impl Target {
    /// Makes a connection. With Flux it is there when `Connected` was said.
    pub(super) async fn open<D: Dial>(&self, dial: &D) -> Result<Link<D::Io>, Trouble> {
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_LIMIT))
            .max_frame_size(Some(MESSAGE_LIMIT));
        let seconds = self.timeout.as_secs_f64();
        let dialled = timeout(self.timeout, dial.dial(self.request()?, config)).await;
        let (socket, headers) = dialled
            .map_err(|_| Trouble::passing(format!("not connected within {seconds} s")))?
            .map_err(|error| Trouble::from_error(&error, &self.key))?;
        let mut request_id = request_id(&headers);
        let (sink, mut incoming) = socket.split();
        if self.kind == Kind::Flux {
            let connected = timeout(self.timeout, self.connected(&mut incoming)).await;
            let said = connected
                .unwrap_or_else(|_| {
                    Err(Trouble::passing(format!("Connected was not said within {seconds} s")))
                })
                .map_err(|trouble| trouble.of_request(request_id.as_deref()))?;
            request_id = Some(said).filter(|id| !id.is_empty()).or(request_id);
        }
        let (outgoing, frames) = mpsc::channel(OUTGOING);
        let writer = AbortOnDropHandle::new(tokio::spawn(write(sink, frames)));
        Ok(Link { incoming, outgoing: Some(outgoing), writer, request_id })
    }

    fn request(&self) -> Result<Request, Trouble> {
        let wrong = |error: Error| Trouble::from_error(&error, &self.key);
        let mut request = self.url.as_str().into_client_request().map_err(wrong)?;
        if !self.key.is_empty() {
            let mut value = HeaderValue::try_from(format!("Token {}", self.key.expose()))
                .map_err(|_| Trouble::permanent("the key cannot be sent"))?;
            value.set_sensitive(true);
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        Ok(request)
    }

    /// Waits for Flux to be there; gives the request's id.
    async fn connected<S>(&self, incoming: &mut S) -> Result<String, Trouble>
    where
        S: StreamExt<Item = Result<Message, Error>> + Unpin,
    {
        loop {
            match incoming.next().await {
                Some(Ok(Message::Text(text))) => match serde_json::from_str(&text) {
                    Ok(FluxMessage::Connected { request_id }) => return Ok(request_id),
                    Ok(FluxMessage::Error(message)) => {
                        return Err(Trouble::from_message(&message, &self.key));
                    }
                    _ => tracing::debug!("a message of Flux before Connected"),
                },
                Some(Ok(Message::Close(frame))) => {
                    return Err(Trouble::from_close(frame.as_ref(), &self.key));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(Trouble::from_error(&error, &self.key)),
                None => return Err(Trouble::from_close(None, &self.key)),
            }
        }
    }
}

/// Writes what comes, and `CloseStream` when nothing more does.
async fn write<Io: AsyncRead + AsyncWrite + Unpin>(
    mut sink: Sink<Io>,
    mut frames: mpsc::Receiver<Message>,
) -> Result<Sink<Io>, Error> {
    let slow = |_| Error::Io(std::io::ErrorKind::TimedOut.into());
    while let Some(frame) = frames.recv().await {
        timeout(WRITE_TIMEOUT, sink.send(frame)).await.map_err(slow)??;
    }
    let last = sink.send(Message::text(r#"{"type":"CloseStream"}"#));
    timeout(WRITE_TIMEOUT, last).await.map_err(slow)??;
    Ok(sink)
}

/// What was heard is to be made final now.
pub(super) fn finalize() -> Message {
    Message::text(r#"{"type":"Finalize"}"#)
}

/// There is no audio, but there will be.
pub(super) fn keep_alive() -> Message {
    Message::text(r#"{"type":"KeepAlive"}"#)
}
