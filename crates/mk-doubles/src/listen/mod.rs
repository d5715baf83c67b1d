//! `/v1/listen` and `/v2/listen`: who may connect, and how.

mod audio;
mod energy;
mod outlet;
mod query;
mod session;
mod timeline;
mod v1;
mod v2;
mod words;

use std::time::Duration;

use axum::Json;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::doubles::App;
use crate::fault::{FaultKind, Service};
use crate::listen::audio::Meter;
use crate::listen::query::{AudioQuery, FluxQuery, NovaQuery};
use crate::listen::session::{Protocol, Session};
use crate::listen::timeline::Hearing;
use crate::listen::v1::Nova;
use crate::listen::v2::Flux;
use crate::record::{ListenApi, ListenEntry, ListenRecord};
use crate::wire::Linked;

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;
type Pairs = Query<Vec<(String, String)>>;

/// `/v1/listen`: Nova-3.
pub(crate) async fn v1_handler(
    state: State<App>,
    link: ConnectInfo<Linked>,
    query: Pairs,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Response {
    connect(ListenApi::V1, state.0, link.0, query.0, &headers, upgrade).await
}

/// `/v2/listen`: Flux.
pub(crate) async fn v2_handler(
    state: State<App>,
    link: ConnectInfo<Linked>,
    query: Pairs,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Response {
    connect(ListenApi::V2, state.0, link.0, query.0, &headers, upgrade).await
}

async fn connect(
    api: ListenApi,
    app: App,
    Linked(link): Linked,
    query: Vec<(String, String)>,
    headers: &HeaderMap,
    upgrade: Upgrade,
) -> Response {
    let request_id = app.ids.uuid();
    let faults = app.faults.claim(Service::Listen);
    let entry = app.recorder.listen(|number| ListenRecord {
        number,
        request_id: request_id.clone(),
        api,
        query: query.clone(),
        headers: app.wanted(headers),
        opened: app.recorder.now(),
        refused: None,
        end: None,
        samples: 0,
        audio_seconds: 0.0,
        audio_messages: 0,
        controls: Vec::new(),
        keep_alives: 0,
        sent: 0,
        over_rate_seconds: 0.0,
        violations: Vec::new(),
        faults: faults.clone(),
    });
    app.faults.watch(Service::Listen, &link);
    for fault in &faults {
        link.arm(fault);
    }

    for fault in &faults {
        match fault {
            FaultKind::Delay { ms } => tokio::time::sleep(Duration::from_millis(*ms)).await,
            FaultKind::Status { status, retry_after, code } => {
                let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::BAD_GATEWAY);
                let refusal = Refused::fault(status, *retry_after, code.as_deref());
                return refusal.answer(&request_id, &entry);
            }
            _ => {}
        }
    }
    if let Some(key) = &app.options.deepgram_key
        && given_key(headers).as_deref() != Some(key)
    {
        let status = StatusCode::UNAUTHORIZED;
        return Refused::new(status, "INVALID_AUTH", "the credentials are not valid")
            .answer(&request_id, &entry);
    }
    let pairs = query::Query(&query);
    let made = match api {
        ListenApi::V1 => NovaQuery::read(&pairs).map(|(settings, audio)| {
            let nova = Nova::new(request_id.clone(), app.ids.uuid(), settings.clone());
            // Where it is off, a turn ends as the script says, but no result is `speech_final`.
            (Protocol::V1(nova), audio, settings.endpointing)
        }),
        ListenApi::V2 => FluxQuery::read(&pairs).map(|(settings, audio)| {
            (Protocol::V2(Flux::new(request_id.clone(), settings)), audio, None)
        }),
    };
    let (protocol, audio, endpointing) = match made {
        Ok(made) => made,
        Err(reason) => {
            return Refused::new(StatusCode::BAD_REQUEST, "Bad Request", &reason)
                .answer(&request_id, &entry);
        }
    };
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(_) => {
            return Refused::new(StatusCode::BAD_REQUEST, "Bad Request", "no websocket upgrade")
                .answer(&request_id, &entry);
        }
    };

    let AudioQuery { encoding, sample_rate, channels } = audio;
    let session = Session {
        meter: Meter::new(encoding, sample_rate, channels),
        hearing: Hearing::new(&app.options.listen, endpointing),
        protocol,
        says_connected: !faults.contains(&FaultKind::NoConnected),
        entry,
        link,
        app: app.clone(),
    };
    let tracked = app.tasks.token();
    // Browsers cannot send a header, and offer the key as a protocol.
    let mut response = upgrade.protocols(["token", "bearer"]).on_upgrade(|socket| async move {
        session.run(socket).await;
        drop(tracked);
    });
    response.headers_mut().insert("dg-request-id", header_value(&request_id));
    response
}

/// The key that the client shows: `Token KEY`, `Bearer KEY`, or the protocols `token, KEY`.
fn given_key(headers: &HeaderMap) -> Option<String> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
        let is_known = ["token", "bearer"].contains(&scheme.to_lowercase().as_str());
        return is_known.then(|| key.trim().to_owned());
    }
    let offered = headers.get(header::SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
    let (scheme, key) = offered.split_once(',')?;
    ["token", "bearer"].contains(&scheme.trim()).then(|| key.trim().to_owned())
}

/// A refused upgrade.
#[derive(Debug)]
struct Refused {
    status: StatusCode,
    code: String,
    message: String,
    retry_after: Option<u32>,
}

impl Refused {
    fn new(status: StatusCode, code: &str, message: &str) -> Self {
        let (code, message) = (code.to_owned(), message.to_owned());
        Self { status, code, message, retry_after: None }
    }

    fn fault(status: StatusCode, retry_after: Option<u32>, code: Option<&str>) -> Self {
        let (usual, message) = match status.as_u16() {
            400 => ("Bad Request", "the request is not valid"),
            401 => ("INVALID_AUTH", "the credentials are not valid"),
            402 => ("ASR_PAYMENT_REQUIRED", "the project has no credits left"),
            403 => ("INSUFFICIENT_PERMISSIONS", "the project may not use this model"),
            429 => ("TOO_MANY_REQUESTS", "too many requests, try again later"),
            503 => ("SERVICE_UNAVAILABLE", "the service is not available, try again later"),
            _ => ("INTERNAL_SERVER_ERROR", "something went wrong"),
        };
        Self { retry_after, ..Self::new(status, code.unwrap_or(usual), message) }
    }

    fn answer(&self, request_id: &str, entry: &ListenEntry) -> Response {
        entry.update(|record| record.refused = Some(self.status.as_u16()));
        let body = json!({
            "err_code": self.code, "err_msg": self.message, "request_id": request_id,
        });
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert("dg-error", header_value(&self.message));
        headers.insert("dg-request-id", header_value(request_id));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// A header's value; what a header cannot hold is left out of it.
pub(crate) fn header_value(text: &str) -> HeaderValue {
    let plain: String = text.chars().filter(|c| (' '..='~').contains(c)).collect();
    HeaderValue::try_from(plain).unwrap_or(HeaderValue::from_static(""))
}
