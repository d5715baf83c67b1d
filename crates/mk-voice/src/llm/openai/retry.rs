//! Whether and when a request is made again: the policy of OpenAI's own libraries.

use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::HeaderMap;

/// A service that asks for a longer wait than this is not asked again: whoever waits for an answer is spoken to sooner.
const LONGEST_WAIT: Duration = Duration::from_secs(20);
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_BACKOFF: Duration = Duration::from_secs(8);

/// Error codes and types that come with a status which is usually worth a retry, and are not.
const NO_QUOTA: [&str; 3] =
    ["insufficient_quota", "billing_hard_limit_reached", "billing_not_active"];

/// Why a request came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(super) struct Failure {
    /// For people.
    pub(super) reason: String,
    /// Whether asking again is useless.
    pub(super) permanent: bool,
    /// Whether to ask again, as long as nothing of the answer was handed on.
    pub(super) retry: bool,
    /// How long the service wants to be left alone.
    pub(super) wait: Option<Duration>,
}

impl Failure {
    /// Something that may be better the next time.
    pub(super) fn passing(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), permanent: false, retry: true, wait: None }
    }

    /// Something that will be the same the next time.
    pub(super) fn permanent(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), permanent: true, retry: false, wait: None }
    }

    /// What the HTTP client says. Its URL is left out: there are services whose key is part of it.
    pub(super) fn of_transport(error: reqwest::Error) -> Self {
        let error = error.without_url();
        let mut reason = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            reason = format!("{reason}: {cause}");
            source = cause.source();
        }
        if error.is_builder() { Self::permanent(reason) } else { Self::passing(reason) }
    }

    /// A status that is not success. `kinds` are the type and the code of the error in its body.
    pub(super) fn of_status(
        status: StatusCode,
        headers: &HeaderMap,
        kinds: &[&str],
        reason: String,
    ) -> Self {
        let no_quota = kinds.iter().any(|kind| NO_QUOTA.contains(kind));
        let passing = matches!(status.as_u16(), 408 | 409 | 429 | 500..);
        let permanent = no_quota || !passing;
        let retry = match text(headers, "x-should-retry") {
            Some("true") => true,
            Some("false") => false,
            _ => !permanent,
        };
        Self { reason, permanent: permanent && !retry, retry, wait: asked_wait(headers) }
    }

    /// An error object within an answer.
    pub(super) fn of_kinds(kinds: &[&str], reason: String) -> Self {
        let permanent = kinds.iter().any(|kind| {
            NO_QUOTA.contains(kind)
                || kind.starts_with("invalid_")
                || matches!(*kind, "authentication_error" | "permission_error" | "model_not_found")
        });
        if permanent { Self::permanent(reason) } else { Self::passing(reason) }
    }
}

/// How long to wait before the next request, if there is to be one after `tries` retries of at most `most`.
pub(super) fn wait(failure: &Failure, tries: u32, most: u32) -> Option<Duration> {
    if !failure.retry || tries >= most {
        return None;
    }
    match failure.wait {
        Some(wait) => (wait <= LONGEST_WAIT).then_some(wait),
        None => {
            let backoff = FIRST_WAIT.saturating_mul(1 << tries.min(10)).min(LONGEST_BACKOFF);
            Some(backoff.mul_f64(1.0 - 0.25 * fastrand::f64()))
        }
    }
}

/// What `retry-after-ms` or `retry-after` asks for.
fn asked_wait(headers: &HeaderMap) -> Option<Duration> {
    let number = |name| text(headers, name)?.trim().parse::<f64>().ok();
    let milliseconds = number("retry-after-ms").map(|ms| ms / 1e3);
    if let Some(seconds) = milliseconds.or_else(|| number("retry-after")) {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = httpdate::parse_http_date(text(headers, "retry-after")?.trim()).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a header"))
        };
        pairs.iter().map(pair).collect()
    }

    fn failure(status: u16, pairs: &[(&'static str, &str)], kinds: &[&str]) -> Failure {
        let status = StatusCode::from_u16(status).expect("a status");
        Failure::of_status(status, &headers(pairs), kinds, String::new())
    }

    #[test]
    fn some_statuses_are_worth_a_retry() {
        for status in [408, 409, 429, 500, 502, 503, 529] {
            let found = failure(status, &[], &[]);
            assert!(found.retry && !found.permanent, "{status}");
        }
        for status in [301, 400, 401, 403, 404, 413, 422] {
            let found = failure(status, &[], &[]);
            assert!(!found.retry && found.permanent, "{status}");
        }
        assert!(failure(429, &[], &["insufficient_quota"]).permanent);
    }

    #[test]
    fn the_service_knows_better() {
        assert!(failure(400, &[("x-should-retry", "true")], &[]).retry);
        let found = failure(503, &[("x-should-retry", "false")], &[]);
        assert!(!found.retry && !found.permanent);
    }

    #[test]
    fn the_service_says_how_long() {
        let wait = |pairs: &[(&'static str, &str)]| failure(429, pairs, &[]).wait;
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        assert_eq!(
            wait(&[("retry-after-ms", "120.5"), ("retry-after", "9")]),
            Some(ms(120) + Duration::from_micros(500))
        );
        assert_eq!(wait(&[("retry-after", "9")]), Some(s(9)));
        assert_eq!(wait(&[("retry-after", "soon")]), None);
        assert_eq!(wait(&[("retry-after", "-3")]), None);
        assert_eq!(wait(&[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")]), Some(s(0)));
        let later = httpdate::fmt_http_date(SystemTime::now() + s(15));
        let found = wait(&[("retry-after", &later)]).expect("a wait");
        assert!(s(12) < found && found <= s(15), "{found:?}");
    }

    #[test]
    fn waits_grow_and_end() {
        let failure = Failure::passing("x");
        for (tries, expected) in [(0, 0.5), (1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (9, 8.0)] {
            let found = wait(&failure, tries, 10).expect("a retry").as_secs_f64();
            assert!(0.75 * expected <= found && found <= expected, "{tries}: {found}");
        }
        assert_eq!(wait(&failure, 2, 2), None);
        assert_eq!(wait(&Failure::permanent("x"), 0, 2), None);
        let asked =
            |seconds| Failure { wait: Some(Duration::from_secs(seconds)), ..failure.clone() };
        assert_eq!(wait(&asked(3), 0, 2), Some(Duration::from_secs(3)));
        assert_eq!(wait(&asked(60), 0, 2), None);
    }
}
