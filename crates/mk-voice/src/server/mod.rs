//! A small web server: the page, and the websocket that carries a conversation to it.
//!
//! `/` is the page, `/ws` a conversation, `/metrics` is for Prometheus, `/stats` gives [`crate::metrics::Stats`] as
//! JSON, `/healthz` answers "ok". What a websocket may do is in `socket`, who may open one in `admission`.

mod admission;
mod goodbye;
mod limits;
mod page;
mod socket;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use self::admission::Admission;
use crate::metrics::Metrics;
use crate::session::Session;

/// How a server behaves. The durations rarely need to be changed outside of tests.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Where to listen. Port 0 takes a free one.
    pub bind: SocketAddr,
    /// Whether `bind` may be an address that other machines reach.
    pub public: bool,
    /// Origins besides the server's own whose pages may talk to it: `https://voice.example.com`. Their hosts are also
    /// names under which the server may be asked for, as it is behind a proxy.
    pub allowed_origins: Vec<String>,
    /// Conversations at a time.
    pub max_sessions: usize,
    /// Bytes of a message from a client.
    pub max_message_bytes: usize,
    /// How long a conversation may last.
    pub session_limit: Option<Duration>,
    /// How long the client may take to say hello.
    pub hello_timeout: Duration,
    /// How often the client is asked whether it is there. It is taken for gone after two and a half of these.
    pub ping_interval: Duration,
    /// How long a client may be behind with what it is sent.
    pub patience: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            public: false,
            allowed_origins: Vec::new(),
            max_sessions: 16,
            max_message_bytes: 64 << 10,
            session_limit: None,
            hello_timeout: Duration::from_secs(5),
            ping_interval: Duration::from_secs(15),
            patience: Duration::from_secs(5),
        }
    }
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Nothing can listen there.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The address can be reached from other machines, which must be asked for.
    #[error(
        "{address} can be reached from other machines, and whoever reaches it can talk at your expense; \
         listen on 127.0.0.1, or say that it shall be public"
    )]
    NotLoopback {
        /// Which.
        address: SocketAddr,
    },
    /// An allowed origin is not one.
    #[error("{origin:?} is not an origin; one is a scheme and a host: https://voice.example.com")]
    BadOrigin {
        /// What was given.
        origin: String,
    },
    /// The server stopped by itself.
    #[error("the server failed: {0}")]
    Serve(#[source] io::Error),
}

/// A server that listens, and answers once it is told to [`serve`](Self::serve).
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// What all requests share.
struct Shared {
    options: ServerOptions,
    admission: Admission,
    metrics: Arc<Metrics>,
    start: Box<dyn Fn() -> Session + Send + Sync>,
    seats: Arc<Semaphore>,
    stopping: CancellationToken,
    conversations: TaskTracker,
}

impl Server {
    /// Begins to listen. `start` begins a conversation, within the runtime; it is called for each client that says
    /// hello.
    pub async fn bind(
        options: ServerOptions,
        metrics: Arc<Metrics>,
        start: impl Fn() -> Session + Send + Sync + 'static,
    ) -> Result<Self, ServerError> {
        let address = options.bind;
        if !address.ip().is_loopback() {
            if !options.public {
                return Err(ServerError::NotLoopback { address });
            }
            warn!(%address, "other machines can reach this server, without a password and unencrypted");
        }
        let admission = Admission::new(&options.allowed_origins)
            .map_err(|origin| ServerError::BadOrigin { origin })?;
        let failed = |source| ServerError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let shared = Arc::new(Shared {
            admission,
            metrics,
            start: Box::new(start),
            seats: Arc::new(Semaphore::new(options.max_sessions)),
            stopping: CancellationToken::new(),
            conversations: TaskTracker::new(),
            options,
        });
        Ok(Self { listener, address, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `shutdown` is ready, then says goodbye to every client.
    pub async fn serve(
        self,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServerError> {
        let Self { listener, address, shared } = self;
        info!(%address, "listening");
        let listener = listener.tap_io(|connection| {
            // What is sent is small and urgent.
            let _ = connection.set_nodelay(true);
        });
        let stopping = shared.stopping.clone();
        let signal = async move {
            shutdown.await;
            stopping.cancel();
        };
        let served = axum::serve(listener, router(shared.clone()))
            .with_graceful_shutdown(signal)
            .await
            .map_err(ServerError::Serve);
        shared.stopping.cancel();
        shared.conversations.close();
        shared.conversations.wait().await;
        served
    }
}

fn router(shared: Arc<Shared>) -> Router {
    let router = Router::new()
        .route("/ws", get(conversation))
        .route("/metrics", get(prometheus))
        .route(
            "/stats",
            get(async |State(shared): State<Arc<Shared>>| Json(shared.metrics.stats())),
        )
        .route("/healthz", get(async || "ok\n"));
    page::routes(router)
        .layer(middleware::from_fn_with_state(shared.clone(), only_known_hosts))
        .with_state(shared)
}

async fn prometheus(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], shared.metrics.render())
}

/// Refuses requests for hosts that are not this one: a page of another site whose name was made to point here.
async fn only_known_hosts(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response {
    if shared.admission.host(request.headers()).is_none() {
        shared.metrics.refused("host");
        let text = "This server does not answer to that name. Use its address, localhost, or a host of --allow-origin.\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    next.run(request).await
}

async fn conversation(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    if !shared.admission.origin(&headers) {
        shared.metrics.refused("origin");
        warn!(origin = ?headers.get(header::ORIGIN), "a page of another site wanted to talk");
        let text =
            "Pages of that origin may not talk to this server. Allow it with --allow-origin.\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    // What is a little too large is read and answered with a reason; what is much too large is not read.
    let limit = 2 * shared.options.max_message_bytes;
    upgrade
        .max_message_size(limit)
        .max_frame_size(limit)
        .on_upgrade(move |socket| {
            let tracker = shared.conversations.clone();
            tracker.track_future(socket::attend(socket, shared))
        })
        .into_response()
}
