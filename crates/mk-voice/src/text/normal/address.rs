//! Addresses of pages and of people.

use super::grammar::Grammar;
use super::{Reading, is_over};

/// Ends of names of hosts, without a scheme before them. Those that are also words or endings of files are not here.
const DOMAINS: &[&str] = &[
    "com", "org", "net", "edu", "gov", "info", "biz", "io", "dev", "ai", "app", "eu", "uk", "de",
    "fr", "es", "it", "pt", "br", "ru", "cn", "jp", "kr", "us", "ca", "ch", "at", "au", "nl", "be",
    "pl", "se", "tv", "co", "me", "cloud", "xyz",
];

/// Longest path of an address that is read; nobody remembers more.
const MAX_PATH: usize = 30;

/// An address at the beginning of a text.
pub(super) fn read(text: &str, grammar: &Grammar) -> Option<Reading> {
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    let end = text
        .find(|c: char| !c.is_ascii_graphic() || "<>\"'()[]{}|\\^`".contains(c))
        .unwrap_or(text.len());
    let address = text[..end].trim_end_matches(['.', ',', ';', ':', '!', '?', '*', '_']);
    let bytes = address.len();
    let lower = address.to_ascii_lowercase();
    let scheme =
        ["https://", "http://", "mailto:"].into_iter().find(|scheme| lower.starts_with(scheme));
    let rest = &address[scheme.map_or(0, str::len)..];
    if let Some((name, host)) = rest.split_once('@') {
        let whole = !name.is_empty()
            && is_host(host)
            && name.bytes().all(|c| c.is_ascii_alphanumeric() || b"._+-".contains(&c));
        return whole.then(|| Reading {
            bytes,
            words: format!("{} {} {}", spoken(name, grammar), grammar.at, spoken(host, grammar)),
        });
    }
    let host_end = rest.find(['/', '?', '#', ':']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(host_end);
    let bare = host.strip_prefix("www.").unwrap_or(host);
    let known = || {
        let lower = bare.to_ascii_lowercase();
        let end = lower.rsplit('.').next().unwrap_or("");
        // "Node.js" and "3.de" are none; nor is a sentence without a space, "it.It".
        DOMAINS.contains(&end) && bare.ends_with(end) && is_host(bare) && is_over(&text[bytes..])
    };
    if host.is_empty() || scheme.is_none() && !(known() || host != bare && is_host(bare)) {
        return None;
    }
    let path = path.trim_end_matches('/');
    let mut words = spoken(bare, grammar);
    if path.starts_with('/') && path.len() <= MAX_PATH && !path.contains(['?', '#', '%', '=']) {
        words += &spoken(path, grammar);
    }
    Some(Reading { bytes, words })
}

/// Whether a text is of labels with dots between them, the last of letters.
fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
    };
    let last = text.rsplit('.').next().unwrap_or("");
    text.contains('.')
        && text.split('.').all(label)
        && last.len() >= 2
        && last.bytes().all(|c| c.is_ascii_alphabetic())
}

/// An address in words.
fn spoken(text: &str, grammar: &Grammar) -> String {
    let mut words = String::new();
    for c in text.chars() {
        let word = match c {
            '.' => grammar.dot,
            '/' => grammar.slash,
            '-' => grammar.dash,
            '_' => grammar.underscore,
            ':' => ":",
            c => {
                words.push(c);
                continue;
            }
        };
        words += &format!(" {word} ");
    }
    words.trim_end().to_owned()
}
