//! The records of limits and of what is used, of what is promised on nodes, and of what users are told.

use std::collections::BTreeMap;

use cairn_state::{Index, Record};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{BY_LISTED, BY_PROJECT, LISTED};

/// The limits of a project that differ from the defaults, or (under [`crate::quota::DEFAULT_CLASS`]) the
/// defaults that differ from those built in. -1 is no limit. Writer: controller.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaSet {
    /// The project.
    pub project_id: String,
    /// The limits by name.
    pub limits: BTreeMap<String, i64>,
}

impl Record for QuotaSet {
    const KIND: &'static str = "block/quota";

    fn id(&self) -> String {
        self.project_id.clone()
    }
}

/// What a project uses. Writer: controller.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// The project.
    pub project_id: String,
    /// How many volumes it has.
    pub volumes: u64,
    /// How many snapshots it has.
    pub snapshots: u64,
    /// GiB of both together.
    pub gigabytes: u64,
    /// How many groups it has.
    #[serde(default)]
    pub groups: u64,
    /// How many backups it has.
    #[serde(default)]
    pub backups: u64,
    /// GiB of the volumes that they are of.
    #[serde(default)]
    pub backup_gigabytes: u64,
    /// What of volumes, snapshots and gigabytes is of which type, by the type's id.
    #[serde(default)]
    pub by_type: BTreeMap<String, TypeUsage>,
}

impl Record for Usage {
    const KIND: &'static str = "block/usage";

    fn id(&self) -> String {
        self.project_id.clone()
    }
}

/// What of a project's usage is of one type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeUsage {
    /// How many volumes.
    pub volumes: u64,
    /// How many snapshots.
    pub snapshots: u64,
    /// GiB of both together.
    pub gigabytes: u64,
}

/// A backend that is given no more volumes. Writer: controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disabled {
    /// Its name, `NODE@BACKEND`.
    pub host: String,
    /// Why.
    pub reason: Option<String>,
}

impl Record for Disabled {
    const KIND: &'static str = "block/disabled";

    fn id(&self) -> String {
        self.host.clone()
    }
}

/// What was promised of a node's disks. Writer: controller.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provisioned {
    /// The node.
    pub node: String,
    /// GiB promised to volumes, root disks and snapshots there.
    pub gigabytes: u64,
}

impl Record for Provisioned {
    const KIND: &'static str = "block/provisioned";

    fn id(&self) -> String {
        self.node.clone()
    }
}

/// What a user is told. Writer: controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its id, a UUID.
    pub id: String,
    /// The project it is for.
    pub project_id: String,
    /// What it is about, as `VOLUME`.
    pub resource_type: String,
    /// Which one.
    pub resource_id: String,
    /// What happened, in the field's numbers.
    pub event_id: String,
    /// The same in words.
    pub text: String,
    /// The request that began it; empty if that is not known any more.
    pub request_id: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Until when it is kept.
    pub kept_until: Timestamp,
}

impl Record for Message {
    const KIND: &'static str = "block/message";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        vec![Index::multi(BY_PROJECT, &self.project_id), Index::multi(BY_LISTED, LISTED)]
    }
}
