//! `/v1/chat/completions` and `/v1/models`.

mod errors;
mod pick;
mod reply;
mod request;
mod stream;

pub(crate) use pick::Replies;

use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::chat::errors::ApiError;
use crate::chat::reply::Answer;
use crate::chat::request::ChatRequest;
use crate::doubles::App;
use crate::fault::{FaultKind, Service};
use crate::ids::unix_seconds;
use crate::listen::header_value;
use crate::record::ChatRecord;
use crate::wire::Linked;

/// When the models were made, in seconds since 1970.
const MODELS_CREATED: u64 = 1_721_172_741;

/// `POST /v1/chat/completions`.
pub(crate) async fn completions(
    State(app): State<App>,
    ConnectInfo(Linked(link)): ConnectInfo<Linked>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let request_id = format!("req_{}", app.ids.hex(32));
    let faults = app.faults.claim(Service::Chat);
    let value = serde_json::from_slice::<Value>(&body);
    let entry = app.recorder.chat(|number| ChatRecord {
        number,
        request_id: request_id.clone(),
        connection: link.number,
        headers: app.wanted(&headers),
        at: app.recorder.now(),
        request: match &value {
            Ok(value) => value.clone(),
            Err(_) => String::from_utf8_lossy(&body).into(),
        },
        status: 200,
        reply: None,
        deltas_sent: 0,
        finished: false,
        hung_up: false,
        faults: faults.clone(),
    });
    link.disarm();
    app.faults.watch(Service::Chat, &link);
    for fault in &faults {
        link.arm(fault);
    }

    let made = async {
        for fault in &faults {
            match fault {
                FaultKind::Delay { ms } => tokio::time::sleep(Duration::from_millis(*ms)).await,
                FaultKind::Status { status, retry_after, code } => {
                    return Err(ApiError::fault(*status, *retry_after, code.clone()));
                }
                _ => {}
            }
        }
        authorize(&app, &headers)?;
        let request = ChatRequest::read(value)?;
        let (index, reply) = app.replies.pick(&app.options.chat, &request)?;
        entry.update(|record| record.reply = Some(index));
        Ok((Answer::new(&app, &request, reply), request.stream))
    };
    let mut response = match made.await {
        Ok((answer, true)) => {
            let stream = stream::body(answer, app.clone(), link.clone(), entry);
            let content_type = [
                (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
                (header::CACHE_CONTROL, "no-cache"),
            ];
            (content_type, Body::from_stream(stream)).into_response()
        }
        Ok((answer, false)) => {
            tokio::time::sleep(app.options.scaled(answer.whole_delay())).await;
            stream::close_when_idle(&link);
            entry.update(|record| record.finished = true);
            Json(answer.whole()).into_response()
        }
        Err(error) => {
            entry.update(|record| {
                record.status = error.status.as_u16();
                record.finished = true;
            });
            error.into_response()
        }
    };
    add_headers(&mut response, &request_id);
    response
}

/// `GET /v1/models`.
pub(crate) async fn models(State(app): State<App>, headers: HeaderMap) -> Response {
    let request_id = format!("req_{}", app.ids.hex(32));
    let mut response = match authorize(&app, &headers) {
        Ok(()) => {
            let model = |id: &String| json!({"id": id, "object": "model", "created": MODELS_CREATED, "owned_by": "system"});
            let models: Vec<Value> = app.options.models.iter().map(model).collect();
            Json(json!({"object": "list", "data": models})).into_response()
        }
        Err(error) => error.into_response(),
    };
    add_headers(&mut response, &request_id);
    response
}

/// Everything else.
pub(crate) async fn unknown_url(method: axum::http::Method, uri: axum::http::Uri) -> Response {
    ApiError::new(StatusCode::NOT_FOUND, format!("Unknown URL: {method} {}", uri.path()))
        .into_response()
}

fn authorize(app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(key) = &app.options.openai_key else { return Ok(()) };
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(given) = given.and_then(|value| value.strip_prefix("Bearer ")) else {
        let message = "No API key was given: it belongs in a header, Authorization: Bearer KEY.";
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, message.into()));
    };
    if given.trim() == key {
        return Ok(());
    }
    // The service shows a few characters of it; that much of a key is too much here.
    let message = format!("The API key of {} characters is not known.", given.len());
    Err(ApiError::new(StatusCode::UNAUTHORIZED, message).code("invalid_api_key"))
}

fn add_headers(response: &mut Response, request_id: &str) {
    let pairs = [
        ("x-request-id", request_id),
        ("openai-organization", "org-double"),
        ("openai-processing-ms", "12"),
        ("openai-version", "2020-10-01"),
        ("x-ratelimit-limit-requests", "10000"),
        ("x-ratelimit-limit-tokens", "200000"),
        ("x-ratelimit-remaining-requests", "9999"),
        ("x-ratelimit-remaining-tokens", "199000"),
        ("x-ratelimit-reset-requests", "8.64s"),
        ("x-ratelimit-reset-tokens", "12ms"),
    ];
    for (name, value) in pairs {
        response.headers_mut().insert(name, header_value(value));
    }
}

/// The time at which an answer is made.
fn created() -> u64 {
    unix_seconds()
}
