//! Version documents, as keystoneauth's discovery reads them: every service says what it speaks in the same form.
//!
//! Discovery takes the PATH of a version's self link, so the link has the service's prefix; an entry without id,
//! status and self link is skipped by clients in silence.

use serde_json::{Value, json};

use crate::caller::BaseUrl;
use crate::microversion::Microversions;

/// One version of an API.
#[derive(Debug, Clone, Copy)]
pub struct Version {
    /// The version's id, as `v2.1`.
    pub id: &'static str,
    /// `CURRENT`, `SUPPORTED`, `DEPRECATED` or (identity) `stable`.
    pub status: &'static str,
    /// When the version was last changed, RFC 3339.
    pub updated: &'static str,
    /// The path of its root under the endpoint, prefix included, as `/compute/v2.1/`.
    pub path: &'static str,
    /// The microversions spoken; `None` for an API without them.
    pub microversions: Option<&'static Microversions>,
    /// The vendor media type, as `application/vnd.openstack.compute+json;version=2.1`, if the API has one.
    pub media_type: Option<&'static str>,
}

impl Version {
    /// The version's entry. Its `self` link is the same wherever it is shown: clients follow and compare it.
    pub fn entry(&self, base: &BaseUrl) -> Value {
        let mut entry = json!({
            "id": self.id, "status": self.status, "updated": self.updated,
            "links": [{"rel": "self", "href": format!("{}{}", base.0, self.path)}],
        });
        if let Some(spoken) = self.microversions {
            entry["min_version"] = spoken.oldest().into();
            entry["version"] = spoken.newest().into();
        }
        if let Some(media_type) = self.media_type {
            entry["media-types"] = json!([{"base": "application/json", "type": media_type}]);
        }
        entry
    }

    /// The document of this version alone: `{"version": {...}}`.
    pub fn document(&self, base: &BaseUrl) -> Value {
        json!({"version": self.entry(base)})
    }
}

/// The list of versions that most services show at their root: `{"versions": [...]}`.
pub fn list(versions: &[Version], base: &BaseUrl) -> Value {
    json!({"versions": versions.iter().map(|v| v.entry(base)).collect::<Vec<_>>()})
}
