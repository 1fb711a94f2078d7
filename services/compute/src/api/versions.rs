//! The version documents, which need no token.

use axum::Json;
use axum::Router;
use axum::routing::get;
use cairn_gateway::BaseUrl;
use serde_json::{Value, json};

use crate::version::Mv;

/// The documents at the service's root and at each version's.
pub fn router() -> Router {
    Router::new()
        .route("/", get(list))
        .route("/v2/", get(|base: BaseUrl| async move { Json(json!({"version": legacy(&base)})) }))
        .route("/v2.1/", get(|base: BaseUrl| async move { Json(json!({"version": current(&base)})) }))
}

/// Both versions, the old one first, as clients expect.
async fn list(base: BaseUrl) -> Json<Value> {
    Json(json!({"versions": [legacy(&base), current(&base)]}))
}

fn legacy(base: &BaseUrl) -> Value {
    entry(base, "v2.0", "v2/", "SUPPORTED", "2011-01-21T11:33:21Z", ("", ""), "2")
}

fn current(base: &BaseUrl) -> Value {
    let (min, max) = (Mv::MIN.text(), Mv::MAX.text());
    entry(base, "v2.1", "v2.1/", "CURRENT", "2013-07-23T11:33:21Z", (&min, &max), "2.1")
}

fn entry(
    base: &BaseUrl,
    id: &str,
    path: &str,
    status: &str,
    updated: &str,
    (min, max): (&str, &str),
    media: &str,
) -> Value {
    json!({
        "id": id, "status": status, "updated": updated, "min_version": min, "version": max,
        "links": [{"rel": "self", "href": format!("{}/compute/{path}", base.0)}],
        "media-types": [{
            "base": "application/json",
            "type": format!("application/vnd.openstack.compute+json;version={media}"),
        }],
    })
}
