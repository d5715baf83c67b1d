//! The page: files that are part of the program, and the headers that keep it to itself.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::Shared;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// The files: path, type, content.
const FILES: [(&str, &str, &str); 12] = [
    ("/", HTML, include_str!("page/index.html")),
    ("/style.css", CSS, include_str!("page/style.css")),
    ("/icon.svg", SVG, include_str!("page/icon.svg")),
    ("/app.js", SCRIPT, include_str!("page/app.js")),
    ("/socket.js", SCRIPT, include_str!("page/socket.js")),
    ("/microphone.js", SCRIPT, include_str!("page/microphone.js")),
    ("/speaker.js", SCRIPT, include_str!("page/speaker.js")),
    ("/transcript.js", SCRIPT, include_str!("page/transcript.js")),
    ("/latency.js", SCRIPT, include_str!("page/latency.js")),
    ("/meter.js", SCRIPT, include_str!("page/meter.js")),
    ("/capture-worklet.js", SCRIPT, include_str!("page/capture-worklet.js")),
    ("/playback-worklet.js", SCRIPT, include_str!("page/playback-worklet.js")),
];

/// What holds for every file.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "microphone=(self), camera=(), geolocation=()"),
];

/// Adds the files to a router.
pub(super) fn routes(router: Router<Arc<Shared>>) -> Router<Arc<Shared>> {
    FILES.into_iter().fold(router, |router, (path, kind, content)| {
        let answer = async move |State(shared): State<Arc<Shared>>, headers: HeaderMap| {
            file(&shared, &headers, kind, content)
        };
        router.route(path, get(answer))
    })
}

fn file(shared: &Shared, headers: &HeaderMap, kind: &str, content: &'static str) -> Response {
    // Older browsers do not count a websocket of the same host as 'self'.
    let host = shared.admission.host(headers);
    let sockets = host.map(|host| format!("ws://{host} wss://{host}")).unwrap_or_default();
    let policy = format!(
        "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; img-src 'self'; \
         connect-src 'self' {sockets}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let own = [(header::CONTENT_TYPE, kind), (header::CONTENT_SECURITY_POLICY, &policy)];
    (HEADERS, own, content).into_response()
}
