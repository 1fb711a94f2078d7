//! The records of groups, their snapshots, and offers to other projects.

use std::collections::BTreeSet;

use cairn_state::{Index, Record};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{BY_GROUP, BY_LISTED, BY_PROJECT, BY_TYPE, BY_VOLUME, LISTED, Status};

/// Volumes that are handled together. Writer: controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its id, a UUID.
    pub id: String,
    /// The project it belongs to.
    pub project_id: String,
    /// Its name.
    pub name: String,
    /// Its description.
    pub description: Option<String>,
    /// The id of its type.
    pub group_type: String,
    /// The ids of the types that its volumes may have.
    pub volume_types: BTreeSet<String>,
    /// What it is at, if that is not told by its volumes.
    pub status: Option<Status>,
    /// The group snapshot it was made from.
    pub group_snapshot_id: Option<String>,
    /// The group it was made from.
    pub source_group_id: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Record for Group {
    const KIND: &'static str = "block/group";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        vec![
            Index::multi(BY_PROJECT, &self.project_id),
            Index::multi(BY_LISTED, LISTED),
            Index::multi(BY_TYPE, &self.group_type),
        ]
    }
}

/// Snapshots of all volumes of a group. Writer: controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSnapshot {
    /// Its id, a UUID.
    pub id: String,
    /// The group.
    pub group_id: String,
    /// The group's type.
    pub group_type: String,
    /// The project it belongs to.
    pub project_id: String,
    /// Its name.
    pub name: String,
    /// Its description.
    pub description: Option<String>,
    /// What it is at, if that is not told by its snapshots.
    pub status: Option<Status>,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Record for GroupSnapshot {
    const KIND: &'static str = "block/group-snapshot";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        vec![
            Index::multi(BY_PROJECT, &self.project_id),
            Index::multi(BY_LISTED, LISTED),
            Index::multi(BY_GROUP, &self.group_id),
        ]
    }
}

/// An offer of a volume to another project. Writer: controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// Its id, a UUID.
    pub id: String,
    /// The volume.
    pub volume_id: String,
    /// The project that offers it.
    pub project_id: String,
    /// Its name.
    pub name: Option<String>,
    /// What only who has the key can make.
    pub proof: String,
    /// Whether the volume's snapshots stay behind.
    pub no_snapshots: bool,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Record for Transfer {
    const KIND: &'static str = "block/transfer";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        vec![
            Index::multi(BY_PROJECT, &self.project_id),
            Index::multi(BY_LISTED, LISTED),
            Index::multi(BY_VOLUME, &self.volume_id),
        ]
    }
}
