//! `/v2/images/{id}/file`: content, streamed both ways.

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cairn_gateway::{ApiError, ApiResult, Caller};

use super::Svc;
use crate::model::{Image, Status};
use crate::{access, upload};

/// `PUT /v2/images/{id}/file`: 204 once it is stored, checked and active.
pub async fn upload(
    State(svc): Svc,
    caller: Caller,
    Path(id): Path<String>,
    request: Request,
) -> ApiResult<StatusCode> {
    let media = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !media.starts_with("application/octet-stream") {
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "The content type must be application/octet-stream.",
        ));
    }
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    if announced.is_some_and(|n: u64| n > upload::VIRTUAL_BYTES_MAX) {
        return Err(ApiError::too_large(format!(
            "The image exceeds the largest size that is accepted, {} GiB.",
            upload::VIRTUAL_BYTES_MAX >> 30
        )));
    }
    upload::upload(&svc, &caller, &id, request.into_body()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v2/images/{id}/file`: 200, 206 for a range, 204 if there is no content yet.
pub async fn download(
    State(svc): Svc,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let image = svc.store.read(|tx| access::visible(tx, &caller, &id))?;
    if image.status == Status::Deactivated && !caller.is_admin() {
        return Err(ApiError::forbidden(
            "The requested image has been deactivated. Image data download is forbidden.",
        ));
    }
    if !image.status.has_data() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let range = headers.get(header::RANGE).and_then(|v| v.to_str().ok());
    let answer = svc.data.read(&id, range).await?;
    Ok(passed_on(answer, &image))
}

/// The storage process's answer with only the headers that clients are meant to see.
fn passed_on(answer: Response<Body>, image: &Image) -> Response {
    let (parts, body) = answer.into_parts();
    let mut out = Response::new(body);
    *out.status_mut() = parts.status;
    let kept: [HeaderName; 3] = [header::CONTENT_LENGTH, header::CONTENT_RANGE, header::ACCEPT_RANGES];
    for name in kept {
        if let Some(value) = parts.headers.get(&name) {
            out.headers_mut().insert(name, value.clone());
        }
    }
    let octets = HeaderValue::from_static("application/octet-stream");
    out.headers_mut().insert(header::CONTENT_TYPE, octets);
    // Glance sends the hexadecimal form here, and its clients compare it with `checksum`.
    let md5 = image.checksum.as_deref().filter(|_| parts.status == StatusCode::OK);
    if let Some(value) = md5.and_then(|m| HeaderValue::from_str(m).ok()) {
        out.headers_mut().insert(HeaderName::from_static("content-md5"), value);
    }
    out
}
