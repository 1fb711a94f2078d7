//! The version documents, and the microversion of a request (`OpenStack-API-Version: volume 3.27`).

use axum::Json;
use axum::extract::{FromRequestParts, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use cairn_gateway::versions::{self, Version};
use cairn_gateway::{ApiError, BaseUrl};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::Value;

/// The newest microversion whose answers are shaped here.
const MINOR_MAX: u32 = 67;

const V3: Version = Version {
    id: "v3.0",
    status: "CURRENT",
    updated: "2023-08-31T00:00:00Z",
    path: "/volume/v3/",
    microversions: Some(("3.0", "3.67")),
    media_type: Some("application/vnd.openstack.volume+json;version=3"),
};

/// The minor number of the request's microversion. A request extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Minor(pub u32);

impl<S: Send + Sync> FromRequestParts<S> for Minor {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(parts.extensions.get().copied().unwrap_or(Minor(0)))
    }
}

/// `GET /`: 300. Needs no token.
pub async fn list(base: BaseUrl) -> (StatusCode, Json<Value>) {
    (StatusCode::MULTIPLE_CHOICES, Json(versions::list(&[V3], &base)))
}

/// `GET /v3/`. Needs no token.
pub async fn show(base: BaseUrl) -> Json<Value> {
    Json(versions::list(&[V3], &base))
}

/// Reads the wanted microversion (3.0 if none is named), refuses one that is not spoken with 406, and tells
/// the one that was used in the answer.
pub async fn negotiate(mut request: Request, next: Next) -> Response {
    let minor = match wanted(request.headers()) {
        Ok(minor) => minor,
        Err(e) => return e.into_response(),
    };
    request.extensions_mut().insert(Minor(minor));
    let mut response = next.run(request).await;
    if let Ok(value) = HeaderValue::from_str(&format!("volume 3.{minor}")) {
        response.headers_mut().insert("openstack-api-version", value);
    }
    response.headers_mut().append(header::VARY, HeaderValue::from_static("OpenStack-API-Version"));
    response
}

fn wanted(headers: &HeaderMap) -> Result<u32, ApiError> {
    let values = headers.get_all("openstack-api-version").iter().filter_map(|v| v.to_str().ok());
    let ours = values.flat_map(|v| v.split(',')).find_map(|v| v.trim().strip_prefix("volume "));
    let Some(text) = ours.map(str::trim) else { return Ok(0) };
    if text == "latest" {
        return Ok(MINOR_MAX);
    }
    let number = text
        .split_once('.')
        .and_then(|(major, minor)| Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?)));
    match number {
        Some((3, minor)) if minor <= MINOR_MAX => Ok(minor),
        Some(_) => Err(ApiError::new(
            StatusCode::NOT_ACCEPTABLE,
            format!(
                "Version {text} is not supported by the API. Minimum is 3.0 and maximum is 3.{MINOR_MAX}."
            ),
        )),
        None => Err(ApiError::bad_request(format!(
            "API Version String {text} is of invalid format. It must be of format MajorNum.MinorNum."
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_tells_the_newest_microversion() {
        assert_eq!(V3.microversions.map(|m| m.1), Some(format!("3.{MINOR_MAX}").as_str()));
    }

    #[test]
    fn microversions_are_bounded() {
        let ask = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("openstack-api-version", HeaderValue::from_static(value));
            wanted(&headers).map_err(|e| e.status)
        };
        assert_eq!(ask("volume 3.27"), Ok(27));
        assert_eq!(ask("volume latest"), Ok(MINOR_MAX));
        assert_eq!(ask("compute 2.1"), Ok(0));
        assert_eq!(ask("volume 3.999"), Err(StatusCode::NOT_ACCEPTABLE));
        assert_eq!(ask("volume 2.0"), Err(StatusCode::NOT_ACCEPTABLE));
        assert_eq!(ask("volume new"), Err(StatusCode::BAD_REQUEST));
    }
}
