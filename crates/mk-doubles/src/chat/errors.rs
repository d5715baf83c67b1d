//! Errors as OpenAI writes them.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// An error that ends a request.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    message: String,
    kind: &'static str,
    param: Option<String>,
    code: Option<String>,
    retry_after: Option<u32>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: String) -> Self {
        let kind = match status.as_u16() {
            429 => "requests",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        Self { status, message, kind, param: None, code: None, retry_after: None }
    }

    /// A request that cannot be answered because of a parameter.
    pub(crate) fn parameter(param: &str, message: String) -> Self {
        let param = Some(param.to_owned());
        Self { param, ..Self::new(StatusCode::BAD_REQUEST, message) }
    }

    pub(crate) fn fault(status: u16, retry_after: Option<u32>, code: Option<String>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let (usual, message) = match status.as_u16() {
            401 => (Some("invalid_api_key"), "The API key is not known."),
            429 => (Some("rate_limit_exceeded"), "Too many requests, try again later."),
            503 => (None, "The server is overloaded, try again later."),
            500.. => (None, "The server had an error while processing the request."),
            _ => (None, "The request cannot be answered."),
        };
        let mut error = Self::new(status, message.into());
        if code.as_deref() == Some("insufficient_quota") {
            error.kind = "insufficient_quota";
        }
        Self { code: code.or(usual.map(String::from)), retry_after, ..error }
    }

    /// The same error with a code.
    pub(crate) fn code(self, code: &str) -> Self {
        Self { code: Some(code.to_owned()), ..self }
    }

    /// An error in the middle of a stream.
    pub(crate) fn in_stream(code: Option<String>) -> Value {
        let message = "The server had an error while processing the request.";
        let mut error = Self::new(StatusCode::INTERNAL_SERVER_ERROR, message.into());
        error.code = code;
        error.body()
    }

    fn body(&self) -> Value {
        let Self { message, kind, param, code, .. } = self;
        json!({"error": {"message": message, "type": kind, "param": param, "code": code}})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
