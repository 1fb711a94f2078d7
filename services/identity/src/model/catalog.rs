//! What the cloud offers, and where: regions, services, endpoints.

use cairn_state::{Index, Record};
use serde::{Deserialize, Serialize};

use super::Extra;

/// A region. Writer: controller.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Region {
    /// The id, which is also its name; clients may choose it.
    pub id: String,
    /// The region it is part of.
    pub parent_region_id: Option<String>,
    /// What it is.
    pub description: String,
    /// All other attributes.
    pub extra: Extra,
}

impl Record for Region {
    const KIND: &'static str = "identity/region";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        self.parent_region_id.iter().map(|p| Index::multi("parent", p)).collect()
    }
}

/// A service. Writer: controller.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// The id.
    pub id: String,
    /// The type, as `compute`.
    pub kind: String,
    /// The name, as `nova`.
    pub name: Option<String>,
    /// What it is.
    pub description: Option<String>,
    /// Whether it is in the catalog.
    pub enabled: bool,
    /// All other attributes.
    pub extra: Extra,
}

impl Record for Service {
    const KIND: &'static str = "identity/service";

    fn id(&self) -> String {
        self.id.clone()
    }
}

/// An endpoint of a service. Writer: controller.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The id.
    pub id: String,
    /// The service's id.
    pub service_id: String,
    /// The region's id.
    pub region_id: Option<String>,
    /// `public`, `internal` or `admin`.
    pub interface: String,
    /// An absolute URL, or a path under this cloud's own endpoint. `$(project_id)s` and `%(project_id)s` are
    /// replaced in catalogs.
    pub url: String,
    /// Whether it is in the catalog.
    pub enabled: bool,
    /// All other attributes.
    pub extra: Extra,
}

impl Record for Endpoint {
    const KIND: &'static str = "identity/endpoint";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        let mut all = vec![Index::multi("service", &self.service_id)];
        all.extend(self.region_id.iter().map(|r| Index::multi("region", r)));
        all
    }
}
