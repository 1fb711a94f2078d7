//! Version discovery: `/` lists (300), `/v3` shows.

use std::sync::Arc;

use axum::routing::get;
use axum::{Json, Router};
use cairn_gateway::{BaseUrl, Version};
use http::StatusCode;
use serde_json::{Value, json};

use crate::service::Service;

const V3: Version = Version {
    id: "v3.14",
    status: "stable",
    updated: "2020-04-07T00:00:00Z",
    path: "/identity/v3/",
    microversions: None,
    media_type: Some("application/vnd.openstack.identity-v3+json"),
};

pub fn routes() -> Router<Arc<Service>> {
    Router::new().route("/", get(versions)).route("/v3", get(version))
}

async fn versions(base: BaseUrl) -> (StatusCode, Json<Value>) {
    (StatusCode::MULTIPLE_CHOICES, Json(json!({"versions": {"values": [V3.entry(&base)]}})))
}

async fn version(base: BaseUrl) -> Json<Value> {
    Json(V3.document(&base))
}
