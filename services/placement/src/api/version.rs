//! The version document, which needs no token, and the headers that answers have from 1.15 on.

use axum::Json;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use cairn_gateway::{Microversions, Minor};
use http::{HeaderValue, header};
use serde_json::{Value, json};

/// What is spoken. 1.30 would promise the reshaper, which is not built.
pub static SPOKEN: Microversions =
    Microversions { service: "placement", major: 1, min: 0, max: 29, legacy: None };

/// `GET /`: which versions there are. Needs no token.
pub async fn document() -> Json<Value> {
    Json(json!({"versions": [{
        "id": "v1.0",
        "status": "CURRENT",
        "min_version": SPOKEN.oldest(),
        "max_version": SPOKEN.newest(),
        "links": [{"rel": "self", "href": "/placement"}],
    }]}))
}

/// Tells caches, from 1.15 on, that an answer is of this moment.
pub async fn date(minor: Minor, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if minor.since(15) {
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        let now = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        if let Ok(value) = HeaderValue::from_str(&now) {
            headers.insert(header::LAST_MODIFIED, value);
        }
    }
    response
}
