//! The version document and the microversion of a request (`OpenStack-API-Version: placement 1.12`).

use axum::Json;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use cairn_gateway::ApiError;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

/// The newest microversion whose answers are shaped here. 1.30 would promise the reshaper, which is not built.
const MINOR_MAX: u32 = 29;

/// The minor number of the request's microversion. A request extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Minor(pub u32);

impl<S: Send + Sync> axum::extract::FromRequestParts<S> for Minor {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut http::request::Parts, _: &S) -> Result<Self, ApiError> {
        Ok(parts.extensions.get().copied().unwrap_or(Minor(0)))
    }
}

/// `GET /`: which versions there are. Needs no token.
pub async fn document() -> Json<Value> {
    Json(json!({"versions": [{
        "id": "v1.0",
        "status": "CURRENT",
        "min_version": "1.0",
        "max_version": format!("1.{MINOR_MAX}"),
        "links": [{"rel": "self", "href": "/placement"}],
    }]}))
}

/// Reads the wanted microversion (1.0 if none is named), refuses one that is not spoken with 406, and tells
/// the one that was used in the answer.
pub async fn negotiate(mut request: Request, next: Next) -> Response {
    let minor = match wanted(request.headers()) {
        Ok(minor) => minor,
        Err(e) => return e.into_response(),
    };
    request.extensions_mut().insert(Minor(minor));
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&format!("placement 1.{minor}")) {
        headers.insert("openstack-api-version", value);
    }
    headers.append(header::VARY, HeaderValue::from_static("openstack-api-version"));
    if minor >= 15 {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        let now = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        if let Ok(value) = HeaderValue::from_str(&now) {
            headers.insert(header::LAST_MODIFIED, value);
        }
    }
    response
}

fn wanted(headers: &HeaderMap) -> Result<u32, ApiError> {
    let values = headers.get_all("openstack-api-version").iter().filter_map(|v| v.to_str().ok());
    let ours = values.flat_map(|v| v.split(',')).find_map(|v| v.trim().strip_prefix("placement "));
    let Some(text) = ours.map(str::trim) else { return Ok(0) };
    if text == "latest" {
        return Ok(MINOR_MAX);
    }
    let number = text
        .split_once('.')
        .and_then(|(major, minor)| Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?)));
    match number {
        Some((1, minor)) if minor <= MINOR_MAX => Ok(minor),
        Some(_) => Err(ApiError::new(
            StatusCode::NOT_ACCEPTABLE,
            format!("Unacceptable version header: {text}; 1.0 to 1.{MINOR_MAX} are spoken."),
        )),
        None => Err(ApiError::bad_request(format!("invalid version string: {text}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(value: &'static str) -> Result<u32, StatusCode> {
        let mut headers = HeaderMap::new();
        headers.insert("openstack-api-version", HeaderValue::from_static(value));
        wanted(&headers).map_err(|e| e.status)
    }

    #[test]
    fn microversions_are_bounded() {
        assert_eq!(ask("placement 1.6"), Ok(6));
        assert_eq!(ask("compute 2.1, placement 1.10"), Ok(10));
        assert_eq!(ask("placement latest"), Ok(MINOR_MAX));
        assert_eq!(ask("placement 1.99"), Err(StatusCode::NOT_ACCEPTABLE));
        assert_eq!(ask("placement one"), Err(StatusCode::BAD_REQUEST));
        assert_eq!(wanted(&HeaderMap::new()).ok(), Some(0));
    }
}
