//! What this deployment offers: versions, import methods, stores.

use axum::Json;
use axum::http::StatusCode;
use cairn_gateway::versions::{self, Version};
use cairn_gateway::{ApiError, ApiResult, BaseUrl, Caller};
use serde_json::{Value, json};

const fn version(id: &'static str, status: &'static str) -> Version {
    Version {
        id,
        status,
        updated: "2025-01-01T00:00:00Z",
        path: "/image/v2/",
        microversions: None,
        media_type: None,
    }
}

/// What is spoken: up to 2.9 (hidden images, multihash). Those from 2.8 on that are left out belong to
/// deployments with several stores.
const VERSIONS: [Version; 9] = [
    version("v2.9", "CURRENT"),
    version("v2.7", "SUPPORTED"),
    version("v2.6", "SUPPORTED"),
    version("v2.5", "SUPPORTED"),
    version("v2.4", "SUPPORTED"),
    version("v2.3", "SUPPORTED"),
    version("v2.2", "SUPPORTED"),
    version("v2.1", "SUPPORTED"),
    version("v2.0", "SUPPORTED"),
];

/// `GET /`, `/versions` and `/v2/`. Needs no token.
pub async fn versions(base: BaseUrl) -> (StatusCode, Json<Value>) {
    (StatusCode::MULTIPLE_CHOICES, Json(versions::list(&VERSIONS, &base)))
}

/// `GET /v2/info/import`: no import method is offered; content is uploaded.
pub async fn import(_: Caller) -> Json<Value> {
    Json(json!({"import-methods": {
        "description": "Import methods available.", "type": "array", "value": [],
    }}))
}

/// `GET /v2/info/stores`: there is one store, so there is nothing to choose.
pub async fn stores(_: Caller) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "Multi backend is not supported at this site.")
}

/// The import API is not built.
pub async fn no_import(_: Caller) -> ApiResult<()> {
    Err(ApiError::not_implemented(
        "Image import is not supported here: upload the content with PUT /v2/images/{id}/file.",
    ))
}
