//! Quotas and the counts they are held against. Written by the controller alone.

use std::collections::BTreeMap;

use cairn_state::Record;
use serde::{Deserialize, Serialize};

/// A project's limits that differ from the defaults. Key `network/quota/PROJECT`. Writer: controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// The project.
    pub project_id: String,
    /// By resource (`port`); -1 means no limit.
    pub limits: BTreeMap<String, i64>,
}

impl Record for Quota {
    const KIND: &'static str = "network/quota";

    fn id(&self) -> String {
        self.project_id.clone()
    }
}

/// How many of a resource a project has, kept with each change so that nothing is counted by scanning.
/// Key `network/usage/PROJECT/RESOURCE`. Writer: controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// The project.
    pub project_id: String,
    /// The resource.
    pub resource: String,
    /// How many.
    pub count: u64,
}

impl Record for Usage {
    const KIND: &'static str = "network/usage";

    fn id(&self) -> String {
        format!("{}/{}", self.project_id, self.resource)
    }
}
