//! Why a connection ended, and whether another will do better.

use std::time::Duration;

use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::http::{HeaderMap, Response, StatusCode};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::messages::ErrorMessage;
use crate::secret::Secret;

/// The longest that a server's `Retry-After` is waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(120);

/// Characters of what a server wrote that are passed on.
const LONGEST_TEXT: usize = 300;

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    /// For people, in a line.
    pub(super) reason: String,
    /// The next connection would end the same way.
    pub(super) permanent: bool,
    /// The server wants to be left alone for so long.
    pub(super) retry_after: Option<Duration>,
}

impl Trouble {
    /// What may be better the next time.
    pub(super) fn passing(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), permanent: false, retry_after: None }
    }

    /// What will not.
    pub(super) fn permanent(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), permanent: true, retry_after: None }
    }

    /// An error of the socket. A server may repeat what it was sent, so `key` is taken out.
    pub(super) fn from_error(error: &Error, key: &Secret) -> Self {
        match error {
            Error::Http(response) => Self::from_refusal(response, key),
            Error::Url(_) | Error::HttpFormat(_) => Self::permanent(error.to_string()),
            // Text that is not UTF-8 or messages without end: the server is not what it should be, today.
            _ => Self::passing(key.redact(&error.to_string())),
        }
    }

    /// An answer other than a connection.
    fn from_refusal(response: &Response<Option<Vec<u8>>>, key: &Secret) -> Self {
        let status = response.status();
        let passing = status.is_server_error()
            || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
        let mut reason = format!("refused with HTTP {status}");
        let header = header(response.headers(), "dg-error");
        let body = response.body().as_deref().unwrap_or_default();
        let said = header.unwrap_or_else(|| match serde_json::from_slice::<ErrorMessage>(body) {
            Ok(message) => message.text(),
            Err(_) => String::from_utf8_lossy(body).into_owned(),
        });
        let said = brief(&key.redact(&said));
        if !said.is_empty() {
            reason += &format!(": {said}");
        }
        Self { reason, permanent: !passing, retry_after: retry_after(response.headers()) }
            .of_request(request_id(response.headers()).as_deref())
    }

    /// The server closed.
    pub(super) fn from_close(frame: Option<&CloseFrame>, key: &Secret) -> Self {
        let Some(CloseFrame { code, reason }) = frame else {
            return Self::passing("closed without a code");
        };
        let said = brief(&key.redact(reason));
        let reason = if said.is_empty() {
            format!("closed with {code}")
        } else {
            format!("closed with {code}: {said}")
        };
        let permanent = *code == CloseCode::Policy || said.contains("DATA-0000");
        Self { reason, permanent, retry_after: None }
    }

    /// The server said that it is going to close.
    pub(super) fn from_message(message: &ErrorMessage, key: &Secret) -> Self {
        let reason = brief(&key.redact(&message.text()));
        Self { reason, permanent: message.permanent(), retry_after: None }
    }

    /// The same, with the number under which the server's people find it.
    pub(super) fn of_request(mut self, request_id: Option<&str>) -> Self {
        if let Some(id) = request_id.filter(|id| !id.is_empty() && !self.reason.contains(*id)) {
            self.reason += &format!(" (request {})", brief(id));
        }
        self
    }
}

/// The number of a request, which may be absent.
pub(super) fn request_id(headers: &HeaderMap) -> Option<String> {
    header(headers, "dg-request-id")
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?;
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// `Retry-After` in seconds. As a date it is not read: the backoff is near enough.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: f64 = header(headers, "retry-after")?.trim().parse().ok()?;
    let wait = Duration::try_from_secs_f64(seconds).ok()?;
    Some(wait.min(LONGEST_WAIT))
}

/// `text` in a line, and not too long.
fn brief(text: &str) -> String {
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((at, _)) = line.char_indices().nth(LONGEST_TEXT) {
        line.truncate(at);
        line.push('…');
    }
    line
}

/// Waits between attempts: 0.1 s, then 0.5 s doubled up to 8 s, each shortened by up to a quarter at random, so that
/// clients that were cut off together do not come back together.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// How long to wait for the next attempt.
    pub(super) fn next(&mut self) -> Duration {
        let seconds = match self.attempts {
            0 => 0.1,
            n => 0.5 * f64::from(1u32 << (n - 1).min(4)),
        };
        self.attempts = self.attempts.saturating_add(1);
        Duration::from_secs_f64(seconds * (1.0 - 0.25 * fastrand::f64()))
    }

    /// A connection held.
    pub(super) fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, headers: &[(&str, &str)], body: &str) -> Trouble {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let response = response.body(Some(body.as_bytes().to_vec())).unwrap();
        Trouble::from_error(&Error::Http(Box::new(response)), &Secret::new("k-e-y"))
    }

    #[test]
    fn refusals_are_told_apart() {
        let trouble = refusal(
            401,
            &[("dg-error", "Invalid credentials k-e-y."), ("dg-request-id", "r-1")],
            "",
        );
        assert!(trouble.permanent);
        assert_eq!(
            trouble.reason,
            "refused with HTTP 401 Unauthorized: Invalid credentials <key>. (request r-1)"
        );
        for status in [200, 302, 400, 402, 403, 404] {
            assert!(refusal(status, &[], "").permanent, "{status}");
        }
        for status in [408, 429, 500, 502, 503] {
            assert!(!refusal(status, &[], "").permanent, "{status}");
        }
        let body = r#"{"err_code":"Bad Request","err_msg":"no such model","request_id":"r"}"#;
        let trouble = refusal(400, &[], body);
        assert_eq!(trouble.reason, "refused with HTTP 400 Bad Request: Bad Request: no such model");
        assert!(refusal(500, &[], &"x\n".repeat(9999)).reason.len() < 400);
    }

    #[test]
    fn the_server_says_how_long_to_wait() {
        let wait = |value| refusal(429, &[("retry-after", value)], "").retry_after;
        assert_eq!(wait("3"), Some(Duration::from_secs(3)));
        assert_eq!(wait("0.5"), Some(Duration::from_millis(500)));
        assert_eq!(wait("99999"), Some(LONGEST_WAIT));
        for nothing in ["-1", "NaN", "1e99", "Wed, 21 Oct 2026 07:28:00 GMT"] {
            assert_eq!(wait(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn closes_are_told_apart() {
        let close = |code: u16, reason: &str| {
            let frame = CloseFrame { code: code.into(), reason: reason.into() };
            Trouble::from_close(Some(&frame), &Secret::default())
        };
        assert_eq!(close(1008, "DATA-0000").reason, "closed with 1008: DATA-0000");
        assert!(close(1008, "").permanent && close(1011, "DATA-0000").permanent);
        assert!(!close(1011, "NET-0001").permanent && !close(1000, "").permanent);
        assert!(!Trouble::from_close(None, &Secret::default()).permanent);
    }

    #[test]
    fn waits_grow_to_eight_seconds() {
        let mut backoff = Backoff::default();
        for most in [0.1, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0] {
            let wait = backoff.next().as_secs_f64();
            assert!((0.75 * most..=most).contains(&wait), "{wait} for {most}");
        }
        backoff.reset();
        assert!(backoff.next().as_secs_f64() <= 0.1);
    }
}
