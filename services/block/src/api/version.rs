//! The version documents, and which microversions are spoken.

use axum::Json;
use cairn_gateway::versions::{self, Version};
use cairn_gateway::{BaseUrl, Microversions};
use http::StatusCode;
use serde_json::Value;

/// What is spoken.
pub static SPOKEN: Microversions =
    Microversions { service: "volume", major: 3, min: 0, max: 71, legacy: None };

const V3: Version = Version {
    id: "v3.0",
    status: "CURRENT",
    updated: "2023-08-31T00:00:00Z",
    path: "/volume/v3/",
    microversions: Some(&SPOKEN),
    media_type: Some("application/vnd.openstack.volume+json;version=3"),
};

/// `GET /`: 300. Needs no token.
pub async fn list(base: BaseUrl) -> (StatusCode, Json<Value>) {
    (StatusCode::MULTIPLE_CHOICES, Json(versions::list(&[V3], &base)))
}

/// `GET /v3/`. Needs no token.
pub async fn show(base: BaseUrl) -> Json<Value> {
    Json(versions::list(&[V3], &base))
}
