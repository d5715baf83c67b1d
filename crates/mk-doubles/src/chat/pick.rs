//! Which reply of the script answers.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::StatusCode;

use crate::chat::errors::ApiError;
use crate::chat::request::ChatRequest;
use crate::script::{ChatScript, Reply};

/// How far the replies that come in turn have come.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    next: AtomicUsize,
}

impl Replies {
    /// The reply to a request, with its number in the script.
    pub(crate) fn pick<'a>(
        &self,
        script: &'a ChatScript,
        request: &ChatRequest,
    ) -> Result<(usize, &'a Reply), ApiError> {
        let last = request.last.to_lowercase();
        let fits = |reply: &Reply| {
            reply.contains.as_ref().is_some_and(|part| last.contains(&part.to_lowercase()))
        };
        let replies = || script.replies.iter().enumerate();
        if let Some(found) = replies().find(|(_, reply)| fits(reply)) {
            return Ok(found);
        }
        let in_turn: Vec<_> = replies().filter(|(_, reply)| reply.contains.is_none()).collect();
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        in_turn.get(next % in_turn.len().max(1)).copied().ok_or_else(|| {
            let message = "No reply of the script fits the last message.".to_owned();
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message)
        })
    }
}
