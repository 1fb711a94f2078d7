//! The version documents, which need no token, and which microversions are spoken.

use axum::routing::get;
use axum::{Json, Router};
use cairn_gateway::versions::Version;
use cairn_gateway::{BaseUrl, Microversions};
use serde_json::{Value, json};

/// What is spoken.
pub static SPOKEN: Microversions = Microversions {
    service: "compute",
    major: 2,
    min: 1,
    max: 96,
    legacy: Some("x-openstack-nova-api-version"),
};

const LEGACY: Version = Version {
    id: "v2.0",
    status: "SUPPORTED",
    updated: "2011-01-21T11:33:21Z",
    path: "/compute/v2/",
    microversions: None,
    media_type: Some("application/vnd.openstack.compute+json;version=2"),
};

const CURRENT: Version = Version {
    id: "v2.1",
    status: "CURRENT",
    updated: "2013-07-23T11:33:21Z",
    path: "/compute/v2.1/",
    microversions: Some(&SPOKEN),
    media_type: Some("application/vnd.openstack.compute+json;version=2.1"),
};

/// The documents at the service's root and at each version's.
pub fn router() -> Router {
    Router::new()
        .route("/", get(list))
        .route("/v2/", get(|base: BaseUrl| async move { Json(json!({"version": legacy(&base)})) }))
        .route("/v2.1/", get(|base: BaseUrl| async move { Json(CURRENT.document(&base)) }))
}

/// Both versions, the old one first, as clients expect.
async fn list(base: BaseUrl) -> Json<Value> {
    Json(json!({"versions": [legacy(&base), CURRENT.entry(&base)]}))
}

/// The old version says that it has no microversions with empty words.
fn legacy(base: &BaseUrl) -> Value {
    let mut entry = LEGACY.entry(base);
    entry["min_version"] = "".into();
    entry["version"] = "".into();
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_the_fields_of_novas_schema_and_no_other() {
        let base = BaseUrl("https://cloud.example".into());
        for entry in [legacy(&base), CURRENT.entry(&base)] {
            let fields: Vec<&str> = entry.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(fields, ["id", "links", "media-types", "min_version", "status", "updated", "version"]);
        }
        assert_eq!(CURRENT.entry(&base)["version"], "2.96");
    }
}
