//! What went wrong, independent of the API it is told in, and the forms each API's clients expect.

use axum::response::{IntoResponse, Response};
use cairn_state::{Abort, StoreError};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

/// An error for the client. Handlers return it; [`crate::Mount`] renders it in its [`ErrorStyle`].
#[derive(Debug, Clone, thiserror::Error)]
#[error("{status}: {message}")]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// The error's name where the API has one (`NetworkInUse` in Neutron); empty for the status's usual one.
    pub code: &'static str,
    /// What is wrong and what to do, for a person. Never an internal error's text.
    pub message: String,
}

impl ApiError {
    /// Any status.
    pub fn new(status: StatusCode, message: impl Into<String>) -> ApiError {
        ApiError { status, code: "", message: message.into() }
    }

    /// Names the error, for APIs whose clients read that name.
    pub fn with_code(mut self, code: &'static str) -> ApiError {
        self.code = code;
        self
    }

    /// 400: the request itself is wrong.
    pub fn bad_request(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, message)
    }

    /// 401: no token, or none that is valid.
    pub fn unauthorized() -> ApiError {
        ApiError::new(StatusCode::UNAUTHORIZED, "The request you have made requires authentication.")
    }

    /// 403: who asks may not do this.
    pub fn forbidden(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::FORBIDDEN, message)
    }

    /// 404: `what` (a kind, as `Volume`) with this id is not there, or not for this caller to see.
    pub fn not_found(what: &str, id: &str) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, format!("{what} {id} could not be found."))
    }

    /// 409: what is there stands against it.
    pub fn conflict(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::CONFLICT, message)
    }

    /// 413: more than is allowed or than fits.
    pub fn too_large(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    }

    /// 501: not built.
    pub fn not_implemented(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::NOT_IMPLEMENTED, message)
    }

    /// 503: a part of the node does not answer; trying again may help.
    pub fn unavailable(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    /// 500: logs the cause, and tells the client only that it was logged.
    pub fn internal(cause: impl std::fmt::Display) -> ApiError {
        tracing::error!(%cause, "internal error");
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "An internal error was logged under this request's id.",
        )
    }
}

impl From<Abort> for ApiError {
    fn from(abort: Abort) -> ApiError {
        match abort {
            Abort::Taken { index, value, .. } => {
                ApiError::conflict(format!("{index} '{value}' is already in use."))
            }
            Abort::Store(e) => e.into(),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(e: StoreError) -> ApiError {
        match e {
            StoreError::Contention | StoreError::Unavailable(_) => {
                ApiError::unavailable("The store is busy; try again.")
            }
            e => ApiError::internal(e),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// The form of an API's error bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorStyle {
    /// `{"error": {"code", "title", "message"}}`
    Keystone,
    /// `{"itemNotFound": {"code", "message"}}`: Nova and Cinder.
    Nova,
    /// `{"NeutronError": {"type", "message", "detail"}}`
    Neutron,
    /// `{"code", "title", "message"}`: Glance, for clients that take JSON.
    Glance,
    /// `{"errors": [{"status", "title", "detail", "code", "request_id"}]}`
    Placement,
}

impl ErrorStyle {
    /// The response for an error.
    pub fn render(self, e: &ApiError, request_id: &str) -> Response {
        let title = e.status.canonical_reason().unwrap_or("Error");
        let code = e.status.as_u16();
        let body = match self {
            ErrorStyle::Keystone => json!({"error": {"code": code, "title": title, "message": e.message}}),
            ErrorStyle::Nova => {
                let mut inner = serde_json::Map::new();
                let name = if e.code.is_empty() { nova_name(e.status) } else { e.code };
                inner.insert(name.into(), json!({"code": code, "message": e.message}));
                Value::Object(inner)
            }
            ErrorStyle::Neutron => {
                let name = if e.code.is_empty() { neutron_name(e.status) } else { e.code };
                json!({"NeutronError": {"type": name, "message": e.message, "detail": ""}})
            }
            ErrorStyle::Glance => json!({"code": code, "title": title, "message": e.message}),
            ErrorStyle::Placement => json!({"errors": [{
                "status": code, "title": title, "detail": e.message,
                "code": if e.code.is_empty() { "placement.undefined_code" } else { e.code },
                "request_id": request_id,
            }]}),
        };
        let mut response = (e.status, axum::Json(body)).into_response();
        if e.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Keystone uri=\"/identity\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

fn nova_name(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "badRequest",
        401 => "unauthorized",
        403 => "forbidden",
        404 => "itemNotFound",
        405 => "badMethod",
        409 => "conflictingRequest",
        413 | 429 => "overLimit",
        415 => "badMediaType",
        501 => "notImplemented",
        503 => "serviceUnavailable",
        _ => "computeFault",
    }
}

fn neutron_name(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "BadRequest",
        401 => "HTTPUnauthorized",
        403 => "PolicyNotAuthorized",
        404 => "HTTPNotFound",
        409 => "Conflict",
        501 => "HTTPNotImplemented",
        503 => "ServiceUnavailable",
        _ => "HTTPInternalServerError",
    }
}
