//! Doubles that run.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::{any, get, post};
use tokio::net::TcpSocket;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::error::{Error, Result};
use crate::fault::FaultControl;
use crate::ids::Ids;
use crate::options::DoublesOptions;
use crate::record::{Record, Recorder};
use crate::wire::{Linked, WireListener};
use crate::{chat, listen};

/// Running doubles of both services. They end when this is dropped; [`Self::shutdown`] also waits for it.
#[derive(Debug)]
pub struct Doubles {
    address: SocketAddr,
    app: App,
    _shutdown: DropGuard,
}

/// What all handlers share.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) options: Arc<DoublesOptions>,
    pub(crate) recorder: Recorder,
    pub(crate) faults: FaultControl,
    pub(crate) ids: Arc<Ids>,
    pub(crate) replies: Arc<chat::Replies>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl App {
    /// The headers that the record wants.
    pub(crate) fn wanted(&self, headers: &HeaderMap) -> BTreeMap<String, String> {
        let wanted = self.options.headers.iter().filter_map(|name| {
            let value = headers.get(name)?.to_str().ok()?;
            Some((name.clone(), value.to_owned()))
        });
        wanted.collect()
    }
}

impl Doubles {
    /// Starts doubles; they answer when this returns.
    ///
    /// # Errors
    /// [`Error::Script`] and [`Error::Option`] for options that cannot be, [`Error::Bind`].
    pub async fn start(options: DoublesOptions) -> Result<Self> {
        options.check()?;
        let bind = options.bind;
        let listener =
            open(bind, &options).map_err(|source| Error::Bind { address: bind, source })?;
        let address =
            listener.local_addr().map_err(|source| Error::Bind { address: bind, source })?;
        let shutdown = CancellationToken::new();
        let faults = FaultControl::default();
        faults.set(options.faults.clone());
        let app = App {
            recorder: Recorder::new(options.kept),
            faults,
            ids: Arc::new(Ids::new(options.seed)),
            replies: Arc::new(chat::Replies::default()),
            shutdown: shutdown.clone(),
            tasks: TaskTracker::new(),
            options: Arc::new(options),
        };
        let router = Router::new()
            .route("/v1/listen", any(listen::v1_handler))
            .route("/v2/listen", any(listen::v2_handler))
            .route("/v1/chat/completions", post(chat::completions))
            .route("/v1/models", get(chat::models))
            .fallback(chat::unknown_url)
            .with_state(app.clone());
        let listener = WireListener::new(listener, shutdown.clone());
        let service = router.into_make_service_with_connect_info::<Linked>();
        let ended = shutdown.clone().cancelled_owned();
        app.tasks.spawn(async move {
            // It gives up only when it is told to.
            if let Err(error) = axum::serve(listener, service).with_graceful_shutdown(ended).await {
                tracing::error!(%error, "serving ended");
            }
        });
        Ok(Self { address, app, _shutdown: shutdown.drop_guard() })
    }

    /// Where they listen.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL of Deepgram's double: `http://127.0.0.1:PORT`.
    pub fn deepgram_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The base URL of OpenAI's double: `http://127.0.0.1:PORT/v1`.
    pub fn openai_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Everything received up to now.
    pub fn record(&self) -> Record {
        self.app.recorder.snapshot()
    }

    /// Waits until `condition` holds of the record, and gives it as it is then.
    ///
    /// # Errors
    /// [`Error::Waited`] when `limit` is over.
    pub async fn until(
        &self,
        limit: Duration,
        condition: impl FnMut(&Record) -> bool,
    ) -> Result<Record> {
        self.app.recorder.until(limit, condition).await
    }

    /// What goes wrong, to be changed at any time.
    pub fn faults(&self) -> &FaultControl {
        &self.app.faults
    }

    /// Ends all connections and waits until they are gone.
    pub async fn shutdown(self) {
        self.app.shutdown.cancel();
        self.app.tasks.close();
        self.app.tasks.wait().await;
    }
}

/// A listening socket. Its connections inherit the size of their receive buffers from it.
fn open(bind: SocketAddr, options: &DoublesOptions) -> std::io::Result<tokio::net::TcpListener> {
    let socket = if bind.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A double can be started again where one has just ended.
    socket.set_reuseaddr(cfg!(unix))?;
    if let Some(size) = options.receive_buffer {
        socket.set_recv_buffer_size(size)?;
    }
    socket.bind(bind)?;
    socket.listen(1024)
}
