//! Makes an answer fit the API it comes from: errors in its form, request ids, no body where there must be none.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};

use crate::caller::RequestId;
use crate::error::{ApiError, ErrorStyle};

/// The answer as the client gets it.
pub(super) fn answer(response: Response, style: ErrorStyle, id: &RequestId, path: &str) -> Response {
    let mut response = match error_of(&response) {
        Some(error) => rendered(response, &error, style, id),
        None => response,
    };
    if matches!(
        response.status(),
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
    ) {
        *response.body_mut() = Body::empty();
        response.headers_mut().remove(header::CONTENT_TYPE);
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        if path == "/compute" || path.starts_with("/compute/") {
            headers.insert("x-compute-request-id", value.clone());
        }
        headers.insert("x-openstack-request-id", value);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The error an answer stands for: the one a handler returned, or the one behind axum's own plain refusals.
fn error_of(response: &Response) -> Option<ApiError> {
    if let Some(error) = response.extensions().get::<ApiError>() {
        return Some(error.clone());
    }
    let status = response.status();
    let is_text = |v: &HeaderValue| v.as_bytes().starts_with(b"text/plain");
    if !status.is_client_error() || !response.headers().get(header::CONTENT_TYPE).is_none_or(is_text) {
        return None;
    }
    let (status, message) = match status {
        StatusCode::METHOD_NOT_ALLOWED => (status, "The method is not allowed for this resource."),
        StatusCode::PAYLOAD_TOO_LARGE => (status, "The request body is too large."),
        StatusCode::NOT_FOUND => (status, "The resource could not be found."),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => (status, "The content type of the request is not supported."),
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => {
            (StatusCode::BAD_REQUEST, "The request is not valid.")
        }
        _ => return None,
    };
    Some(ApiError::new(status, message))
}

/// The error in the API's form, with the headers the handler or axum had set (as `Allow`).
fn rendered(response: Response, error: &ApiError, style: ErrorStyle, id: &RequestId) -> Response {
    let mut out = style.render(error, &id.0);
    for (name, value) in response.headers() {
        if name != header::CONTENT_TYPE && name != header::CONTENT_LENGTH {
            out.headers_mut().insert(name, value.clone());
        }
    }
    if error.status == StatusCode::TOO_MANY_REQUESTS {
        out.headers_mut().entry(header::RETRY_AFTER).or_insert(HeaderValue::from_static("2"));
    }
    if error.status == StatusCode::SERVICE_UNAVAILABLE {
        out.headers_mut().entry(header::RETRY_AFTER).or_insert(HeaderValue::from_static("5"));
    }
    out
}
