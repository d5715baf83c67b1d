//! One request, from its first byte to the last of its answer.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{RequestBuilder, Response};
use tokio::time::timeout;

use super::assemble::Assembler;
use super::body;
use super::retry::Failure;
use super::wire;
use crate::llm::LlmEvent;

/// Bytes of an error, and of an answer that is not streamed.
const MAX_WHOLE: usize = 1 << 20;
/// How long the rest of a stream is waited for when the answer is over: its cost, and its end.
const GRACE: Duration = Duration::from_millis(500);

/// An answer of which something is there.
pub(super) struct Answering {
    data: Pin<Box<dyn Stream<Item = Result<String, Failure>> + Send>>,
    assembler: Assembler,
    ready: VecDeque<LlmEvent>,
    request_id: String,
    finished: bool,
}

/// Sends a request and waits for a sign of an answer. `idle` is how long the service may send nothing.
///
/// # Errors
/// No connection, a status that is not success, and what goes wrong before there is anything of an answer.
pub(super) async fn begin(request: RequestBuilder, idle: Duration) -> Result<Answering, Failure> {
    let sent = timeout(idle, request.send()).await;
    let response = sent.map_err(|_| silent(idle))?.map_err(Failure::of_transport)?;
    let request_id = request_id(response.headers());
    let begun = async {
        let status = response.status();
        tracing::debug!(%status, request_id, headers = ?told(response.headers()), "answer begins");
        if !status.is_success() {
            let headers = response.headers().clone();
            // What can be read of the reason, even if it ends too early.
            let body = whole(response, idle).await.unwrap_or_default();
            return Err(wire::refused(status, &headers, &body));
        }
        let data: Pin<Box<dyn Stream<Item = _> + Send>> = if is_json(response.headers()) {
            // A server that does not stream. Its answer has the form of one large chunk.
            Box::pin(stream::iter([Ok(whole(response, idle).await?)]))
        } else {
            Box::pin(body::data(bytes(response, idle)))
        };
        let mut answering = Answering {
            data,
            assembler: Assembler::new(),
            ready: VecDeque::new(),
            request_id: request_id.clone(),
            finished: false,
        };
        while !answering.assembler.has_begun() && !answering.finished {
            answering.read().await?;
        }
        Ok(answering)
    };
    begun.await.map_err(|failure| with_id(failure, &request_id))
}

impl Answering {
    /// The next part; `None` after `Finished`. Waits at most `stall` for it.
    ///
    /// # Errors
    /// What ends the answer before its time.
    pub(super) async fn next(&mut self, stall: Duration) -> Result<Option<LlmEvent>, Failure> {
        let next = async {
            while self.ready.is_empty() && !self.finished {
                self.read().await?;
            }
            Ok(self.ready.pop_front())
        };
        let next = timeout(stall, next).await.unwrap_or_else(|_| Err(stalled(stall)));
        next.map_err(|failure| with_id(failure, &self.request_id))
    }

    async fn read(&mut self) -> Result<(), Failure> {
        let data = if self.assembler.has_ended() {
            // Whatever happens now, the answer is there.
            timeout(GRACE, self.data.next()).await.ok().flatten().and_then(Result::ok)
        } else {
            self.data.next().await.transpose()?
        };
        let over = match data {
            Some(data) => {
                self.ready.extend(self.assembler.push(&data)?);
                self.assembler.is_done()
            }
            None => true,
        };
        if over {
            self.ready.extend(self.assembler.finish()?);
            self.finished = true;
        }
        Ok(())
    }
}

/// The body in pieces.
fn bytes(response: Response, idle: Duration) -> impl Stream<Item = Result<Bytes, Failure>> + Send {
    stream::try_unfold(response, move |mut response| async move {
        let read = timeout(idle, response.chunk()).await.map_err(|_| silent(idle))?;
        Ok(read.map_err(Failure::of_transport)?.map(|bytes| (bytes, response)))
    })
}

/// All of a small body.
async fn whole(response: Response, idle: Duration) -> Result<String, Failure> {
    let mut all = Vec::new();
    let mut bytes = std::pin::pin!(bytes(response, idle));
    while let Some(part) = bytes.next().await.transpose()? {
        all.extend_from_slice(&part);
        if all.len() > MAX_WHOLE {
            return Err(Failure::passing(format!("a body of more than {MAX_WHOLE} bytes")));
        }
    }
    Ok(String::from_utf8_lossy(&all).into_owned())
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("application/json"))
}

fn request_id(headers: &HeaderMap) -> String {
    let id = headers.get("x-request-id").and_then(|id| id.to_str().ok());
    id.unwrap_or_default().chars().take(100).collect()
}

/// What the service tells of its work and its limits.
fn told(headers: &HeaderMap) -> Vec<(&str, &str)> {
    let named = headers.iter().filter(|(name, _)| {
        let name = name.as_str();
        name == "openai-processing-ms" || name.starts_with("x-ratelimit-")
    });
    named.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?))).collect()
}

fn with_id(failure: Failure, request_id: &str) -> Failure {
    if request_id.is_empty() {
        return failure;
    }
    Failure { reason: format!("{} (request {request_id})", failure.reason), ..failure }
}

fn silent(idle: Duration) -> Failure {
    Failure::passing(format!("nothing came for {idle:?}"))
}

/// What is said of a service that sends signs of life, and no answer.
pub(super) fn stalled(stall: Duration) -> Failure {
    Failure::passing(format!("nothing of an answer came for {stall:?}"))
}
