//! Chat completions, streamed, of OpenAI and of whatever server speaks as it does: Ollama, vLLM, llama.cpp, Groq.

mod assemble;
mod attempt;
mod body;
mod request;
mod retry;
mod wire;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use self::attempt::Answering;
use self::retry::Failure;
use super::{Llm, LlmError, LlmEvent, LlmRequest, LlmStream};
use crate::secret::Secret;
use crate::tls;

/// Events that may wait for whoever reads an answer; then the service has to.
const WAITING_EVENTS: usize = 64;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const WARM_UP_TIMEOUT: Duration = Duration::from_secs(5);
/// How often an HTTP/2 connection is asked whether it lives, and how long it may take to say so.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));

/// How to ask.
#[derive(Debug, Clone)]
pub struct OpenAiOptions {
    /// Where the service is, with its `/v1`.
    pub base_url: String,
    /// The key; local servers need none.
    pub key: Option<Secret>,
    /// The model by its name.
    pub model: String,
    /// The organisation that pays, where there are several.
    pub organization: Option<String>,
    /// The project that pays, where there are several.
    pub project: Option<String>,
    /// How freely words are chosen; as the service does by itself if `None`.
    pub temperature: Option<f64>,
    /// Tokens of an answer at most, thoughts included.
    pub max_tokens: Option<u32>,
    /// What `max_tokens` is called; the newer name for OpenAI and the older for all others if `None`.
    pub max_tokens_name: Option<MaxTokensName>,
    /// How much a model that thinks should do so: "minimal", "low" and so on.
    pub reasoning_effort: Option<String>,
    /// When nothing of an answer is there after this time, a second, equal request is sent, once an answer; the first
    /// to give something wins, the other is dropped. [`Duration::MAX`] for never.
    pub first_token_timeout: Duration,
    /// How long the service may send nothing at all.
    pub idle_timeout: Duration,
    /// How long there may be no part of an answer, whatever else there is: retries, signs of life.
    pub stall_timeout: Duration,
    /// How often a request that failed is made again, as long as there is nothing of an answer: what OpenAI's own
    /// libraries do, but that nobody waits for more than 20 seconds.
    pub retries: u32,
    /// More of the request, by the service's names; goes before everything above.
    pub extra: serde_json::Map<String, serde_json::Value>,
}

impl Default for OpenAiOptions {
    fn default() -> Self {
        Self {
            base_url: "https://api.openai.com/v1".into(),
            key: None,
            model: "gpt-4o-mini".into(),
            organization: None,
            project: None,
            temperature: None,
            max_tokens: None,
            max_tokens_name: None,
            reasoning_effort: None,
            first_token_timeout: Duration::from_secs(3),
            idle_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(60),
            retries: 2,
            extra: serde_json::Map::new(),
        }
    }
}

/// What services call the limit of an answer's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxTokensName {
    /// OpenAI now.
    MaxCompletionTokens,
    /// OpenAI before, and most others.
    MaxTokens,
}

impl MaxTokensName {
    fn as_str(self) -> &'static str {
        match self {
            Self::MaxCompletionTokens => "max_completion_tokens",
            Self::MaxTokens => "max_tokens",
        }
    }
}

/// A language model behind OpenAI's chat completions.
///
/// Connections are kept from answer to answer, over HTTP/2 where the service speaks it: there, dropping an answer ends
/// it and nothing else.
#[derive(Debug, Clone)]
pub struct OpenAi {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: OpenAiOptions,
    name: String,
    client: Client,
    /// For the second of two equal requests: where the first waits on a connection that is dead, another helps.
    spare: Client,
    completions: Url,
    models: Url,
    official: bool,
}

impl OpenAi {
    /// A model behind a service. Nothing is sent yet.
    ///
    /// # Errors
    /// A base URL that is none, a key that cannot be sent, no TLS on this machine.
    pub fn new(options: OpenAiOptions) -> Result<Self, LlmError> {
        tls::init();
        let name = format!("OpenAI ({})", options.model);
        Inner::new(options, name.clone())
            .map(|inner| Self { inner: Arc::new(inner) })
            .map_err(|reason| LlmError { model: name, reason, permanent: true })
    }
}

impl Llm for OpenAi {
    fn name(&self) -> String {
        self.inner.name.clone()
    }

    fn warm_up(&self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let request = self.inner.client.head(self.inner.models.clone()).timeout(WARM_UP_TIMEOUT);
        runtime.spawn(async move {
            // It is the connection that counts. What the answer would complain of, the first answer will.
            if let Err(error) = request.send().await {
                tracing::debug!(error = %error.without_url(), "no connection in advance");
            }
        });
    }

    fn answer(&self, request: LlmRequest) -> LlmStream {
        let (sender, events) = mpsc::channel(WAITING_EVENTS);
        let inner = Arc::clone(&self.inner);
        let task = tokio::spawn(async move {
            tokio::select! {
                () = sender.closed() => {}
                () = inner.answer(&request, &sender) => {}
            }
        });
        LlmStream { events, task: AbortOnDropHandle::new(task) }
    }
}

impl Inner {
    fn new(options: OpenAiOptions, name: String) -> Result<Self, String> {
        let base = Url::parse(&options.base_url)
            .map_err(|error| format!("{:?} is not a URL: {error}", options.base_url))?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(format!("{:?} is not a URL of HTTP", options.base_url));
        }
        let below = |path: [&str; 2]| {
            let mut url = base.clone();
            if let Ok(mut segments) = url.path_segments_mut() {
                segments.pop_if_empty().extend(path.iter().filter(|part| !part.is_empty()));
            }
            url
        };
        let headers = headers(&options)?;
        let client = || client(&headers, base.scheme() == "https");
        Ok(Self {
            name,
            client: client()?,
            spare: client()?,
            completions: below(["chat", "completions"]),
            models: below(["models", ""]),
            official: base.host_str() == Some("api.openai.com"),
            options,
        })
    }

    /// Makes an answer, and says in any case how it ended.
    async fn answer(&self, request: &LlmRequest, events: &mpsc::Sender<LlmEvent>) {
        if let Err(failure) = self.try_answer(request, events).await {
            let error = self.error(failure);
            tracing::warn!(%error, "no answer");
            self.tell(events, LlmEvent::Failed(error)).await;
        }
    }

    async fn try_answer(
        &self,
        request: &LlmRequest,
        events: &mpsc::Sender<LlmEvent>,
    ) -> Result<(), Failure> {
        let stall = self.options.stall_timeout;
        let body = request::body(&self.options, self.official, request).to_string().into();
        let begun = timeout(stall, self.begin(&body, events)).await;
        let mut answering = begun.map_err(|_| attempt::stalled(stall))??;
        while let Some(event) = answering.next(stall).await? {
            self.tell(events, event).await;
        }
        Ok(())
    }

    /// Asks until there is something of an answer.
    async fn begin(
        &self,
        body: &Bytes,
        events: &mpsc::Sender<LlmEvent>,
    ) -> Result<Answering, Failure> {
        let mut hedged = false;
        let mut tries = 0;
        loop {
            let failure = match self.ask(body, &mut hedged, events).await {
                Ok(answering) => return Ok(answering),
                Err(failure) => failure,
            };
            let Some(wait) = retry::wait(&failure, tries, self.options.retries) else {
                return Err(failure);
            };
            let reason = self.error(failure).reason;
            self.tell(events, LlmEvent::Retried { reason }).await;
            sleep(wait).await;
            tries += 1;
        }
    }

    /// Asks once; twice if there is nothing of an answer in time, and it is the first time.
    async fn ask(
        &self,
        body: &Bytes,
        hedged: &mut bool,
        events: &mpsc::Sender<LlmEvent>,
    ) -> Result<Answering, Failure> {
        let mut first = pin!(self.send(&self.client, body));
        if *hedged {
            return first.await;
        }
        let patience = self.options.first_token_timeout;
        if let Ok(begun) = timeout(patience, &mut first).await {
            return begun;
        }
        *hedged = true;
        let reason = format!("nothing of an answer after {patience:?}");
        self.tell(events, LlmEvent::Retried { reason }).await;
        let second = pin!(self.send(&self.spare, body));
        match select(first, second).await {
            Either::Left((Ok(answering), _)) | Either::Right((Ok(answering), _)) => Ok(answering),
            Either::Left((Err(failure), other)) => other.await.map_err(|_| failure),
            Either::Right((Err(_), first)) => first.await,
        }
    }

    async fn send(&self, client: &Client, body: &Bytes) -> Result<Answering, Failure> {
        let request = client.post(self.completions.clone()).body(body.clone());
        attempt::begin(request, self.options.idle_timeout).await
    }

    async fn tell(&self, events: &mpsc::Sender<LlmEvent>, event: LlmEvent) {
        // Where nobody listens any more, `answer` is being dropped.
        let _ = events.send(event).await;
    }

    fn error(&self, failure: Failure) -> LlmError {
        // A service may quote the key that it does not accept.
        let key = self.options.key.as_ref();
        let reason = key.map_or(failure.reason.clone(), |key| key.redact(&failure.reason));
        LlmError { model: self.name.clone(), reason, permanent: failure.permanent }
    }
}

/// What every request says of the client.
fn headers(options: &OpenAiOptions) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::from_iter([
        (ACCEPT, HeaderValue::from_static("text/event-stream")),
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
    ]);
    if let Some(key) = options.key.as_ref().filter(|key| !key.expose().is_empty()) {
        let value = HeaderValue::from_str(&format!("Bearer {}", key.expose()));
        let mut value = value.map_err(|_| "the key has characters that no key has")?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    let named =
        [("openai-organization", &options.organization), ("openai-project", &options.project)];
    for (name, text) in named {
        if let Some(text) = text {
            let value = HeaderValue::from_str(text);
            let value = value.map_err(|_| format!("{name}: {text:?} cannot be sent"))?;
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    Ok(headers)
}

fn client(headers: &HeaderMap, secure: bool) -> Result<Client, String> {
    let mut builder = Client::builder()
        .default_headers(headers.clone())
        .user_agent(concat!("mk-voice/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE.0)
        .http2_keep_alive_timeout(KEEP_ALIVE.1)
        .http2_keep_alive_while_idle(true)
        // The key goes to nobody else, and a POST must not become a GET.
        .redirect(Policy::none());
    if !secure {
        // A server without TLS must be reachable from a machine without certificates.
        builder = builder.tls_certs_only([]);
    }
    builder.build().map_err(|error| format!("no HTTP client: {error}"))
}

#[cfg(test)]
mod tests;
