//! Who may talk to the server: which names it answers to, and pages of which sites may open a conversation.
//!
//! A browser lets any page open a websocket to any host, so the server has to look at `Origin`. And whoever owns a name
//! can point it at this machine, so that his page and the server share an origin; so the server looks at `Host` too. An
//! address in the place of a name cannot be pointed elsewhere.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri, header};

/// The rules.
pub(super) struct Admission {
    /// Origins besides the server's own, in lower case: "https://voice.example.com:8443".
    origins: Vec<String>,
    /// Their hosts, without ports.
    hosts: Vec<String>,
}

impl Admission {
    /// Rules that let in `origins` too. Fails with the one that is none.
    pub fn new(origins: &[String]) -> Result<Self, String> {
        let mut rules = Self { origins: Vec::new(), hosts: Vec::new() };
        for origin in origins {
            let known = origin.trim_end_matches('/').to_ascii_lowercase();
            let (_, authority) = split(&known).ok_or_else(|| origin.clone())?;
            rules.hosts.push(authority.host().to_owned());
            rules.origins.push(known);
        }
        Ok(rules)
    }

    /// The host (with its port) that is asked for, if it is one that this server answers to.
    pub fn host(&self, headers: &HeaderMap) -> Option<Authority> {
        let mut values = headers.get_all(header::HOST).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        let authority: Authority = value.to_str().ok()?.to_ascii_lowercase().parse().ok()?;
        if authority.as_str().contains('@') {
            return None;
        }
        let host = authority.host();
        let is_here = host == "localhost"
            || host.ends_with(".localhost")
            || host.parse::<Ipv4Addr>().is_ok()
            || host.trim_matches(['[', ']']).parse::<Ipv6Addr>().is_ok()
            || self.hosts.iter().any(|known| known == host);
        is_here.then_some(authority)
    }

    /// Whether the page that asks, if it is a page, may open a conversation: one of this server's or of an origin that
    /// was let in. What is not a browser sends no origin.
    pub fn origin(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(header::ORIGIN).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return !headers.contains_key(header::ORIGIN);
        };
        let Ok(origin) = value.to_str().map(str::to_ascii_lowercase) else { return false };
        if self.origins.contains(&origin) {
            return true;
        }
        let own = split(&origin).map(|(_, authority)| authority);
        own.is_some() && own == self.host(headers)
    }
}

/// Scheme and authority of an origin that consists of them.
fn split(origin: &str) -> Option<(String, Authority)> {
    let uri: Uri = origin.parse().ok()?;
    let scheme = uri.scheme_str().filter(|scheme| ["http", "https"].contains(scheme))?;
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
    let is_whole = format!("{scheme}://{authority}") == origin;
    is_whole.then(|| (scheme.to_owned(), authority.clone()))
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(host: &str, origin: Option<&str>) -> HeaderMap {
        let pair = |name: HeaderName, value: &str| (name, HeaderValue::from_str(value).unwrap());
        let host = pair(header::HOST, host);
        HeaderMap::from_iter([host].into_iter().chain(origin.map(|o| pair(header::ORIGIN, o))))
    }

    #[test]
    fn addresses_and_localhost_are_answered_to_and_other_names_are_not() {
        let rules = Admission::new(&["https://voice.example.com".to_owned()]).unwrap();
        for (host, answered) in [
            ("127.0.0.1:7860", true),
            ("127.0.0.1", true),
            ("192.168.1.5:80", true),
            ("[::1]:7860", true),
            ("localhost:7860", true),
            ("LOCALHOST", true),
            ("mk.localhost:7860", true),
            ("voice.example.com", true),
            ("voice.example.com:443", true),
            ("evil.example.com", false),
            ("127.0.0.1.evil.example.com", false),
            ("localhost.evil.example.com", false),
            ("127.0.0.1@evil.example.com", false),
            ("evil@127.0.0.1", false),
            ("", false),
        ] {
            assert_eq!(rules.host(&headers(host, None)).is_some(), answered, "{host}");
        }
        let mut twice = headers("localhost", None);
        twice.append(header::HOST, HeaderValue::from_static("evil.example.com"));
        assert_eq!(rules.host(&twice), None);
        assert_eq!(rules.host(&HeaderMap::new()), None);
    }

    #[test]
    fn pages_of_the_server_and_of_origins_let_in_may_talk() {
        let rules = Admission::new(&["https://voice.example.com/".to_owned()]).unwrap();
        for (host, origin, allowed) in [
            ("127.0.0.1:7860", None, true),
            ("127.0.0.1:7860", Some("http://127.0.0.1:7860"), true),
            ("localhost:7860", Some("http://localhost:7860"), true),
            ("localhost:7860", Some("https://voice.example.com"), true),
            ("voice.example.com", Some("https://voice.example.com"), true),
            ("127.0.0.1:7860", Some("http://127.0.0.1:7861"), false),
            ("127.0.0.1:7860", Some("http://localhost:7860"), false),
            ("127.0.0.1:7860", Some("http://evil.example.com"), false),
            ("evil.example.com", Some("http://evil.example.com"), false),
            ("127.0.0.1:7860", Some("http://127.0.0.1:7860.evil.example.com"), false),
            ("127.0.0.1:7860", Some("null"), false),
            ("127.0.0.1:7860", Some(""), false),
            ("127.0.0.1:7860", Some("file://127.0.0.1:7860"), false),
        ] {
            assert_eq!(rules.origin(&headers(host, origin)), allowed, "{origin:?} at {host}");
        }
    }

    #[test]
    fn what_is_not_an_origin_is_not_taken_for_one() {
        for origin in
            ["voice.example.com", "*", "https://", "https://a.example/path", "ftp://a.example"]
        {
            assert_eq!(Admission::new(&[origin.to_owned()]).err().as_deref(), Some(origin));
        }
    }
}
