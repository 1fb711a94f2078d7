//! The records of block storage: volumes, snapshots, types, quotas and running totals.
//!
//! Only types, their keys and indexes. Sizes are GiB, as Cinder has them. Every record here is written by the
//! controller alone.

use std::collections::BTreeMap;

use cairn_shards::crypt::keys::SealedKey;
use cairn_state::{Index, Record};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::capacity;

mod counts;
mod groups;
mod kept;
mod kinds;

pub use counts::{Disabled, Message, Provisioned, QuotaSet, TypeUsage, Usage};
pub use groups::{Group, GroupSnapshot, Transfer};
pub use kept::{BY_CONTENT, BY_PARENT, Backup, Described, Restore, Unmanaged};
pub use kinds::{Encryption, GroupType, QosSpecs, VolumeType};

/// Bytes of a GiB.
pub const GIB: u64 = 1 << 30;

/// Texts by name.
pub type Metadata = BTreeMap<String, String>;

/// What a volume or snapshot is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Its content is being made.
    Creating,
    /// It can be used.
    Available,
    /// A server is about to use it.
    Attaching,
    /// A server uses it.
    InUse,
    /// A server is letting it go.
    Detaching,
    /// It is being destroyed.
    Deleting,
    /// It is growing.
    Extending,
    /// An image is being made of it.
    Uploading,
    /// It is offered to another project.
    AwaitingTransfer,
    /// An administrator keeps it from being used.
    Maintenance,
    /// A backup is being made of it.
    BackingUp,
    /// A backup's content is being put into it.
    RestoringBackup,
    /// An image's content is being put into it.
    Downloading,
    /// A snapshot's content is being put into it.
    Reverting,
    /// Its content is being copied to what another type asks for.
    Retyping,
    /// Of a backup: it is being put into a volume.
    Restoring,
    /// It could not be made.
    Error,
    /// It could not be destroyed.
    ErrorDeleting,
    /// It could not be grown.
    ErrorExtending,
    /// A backup's content could not be put into it.
    ErrorRestoring,
}

impl Status {
    const ALL: [(Status, &str); 20] = [
        (Status::Creating, "creating"),
        (Status::Available, "available"),
        (Status::Attaching, "attaching"),
        (Status::InUse, "in-use"),
        (Status::Detaching, "detaching"),
        (Status::Deleting, "deleting"),
        (Status::Extending, "extending"),
        (Status::Uploading, "uploading"),
        (Status::AwaitingTransfer, "awaiting-transfer"),
        (Status::Maintenance, "maintenance"),
        (Status::BackingUp, "backing-up"),
        (Status::RestoringBackup, "restoring-backup"),
        (Status::Downloading, "downloading"),
        (Status::Reverting, "reverting"),
        (Status::Retyping, "retyping"),
        (Status::Restoring, "restoring"),
        (Status::Error, "error"),
        (Status::ErrorDeleting, "error_deleting"),
        (Status::ErrorExtending, "error_extending"),
        (Status::ErrorRestoring, "error_restoring"),
    ];

    /// Its name in the API.
    pub fn name(self) -> &'static str {
        Status::ALL.iter().find(|(s, _)| *s == self).map_or("error", |(_, name)| name)
    }

    /// The one with this name in the API.
    pub fn parse(name: &str) -> Option<Status> {
        Status::ALL.iter().find(|(_, n)| *n == name).map(|(s, _)| *s)
    }

    /// Whether the conductor has something to wait for.
    fn is_busy(self) -> bool {
        matches!(self, Status::Deleting | Status::Extending | Status::Uploading | Status::Retyping)
    }
}

/// Who made an attachment, and so who may end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttachedBy {
    /// Compute: the volume is exported to the server's node.
    Server,
    /// A call of this API that only notes it.
    Api,
}

/// A server's use of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The attachment's id, a UUID.
    pub id: String,
    /// The server.
    pub server_id: String,
    /// The node it runs on, if known.
    pub host: Option<String>,
    /// The name of the disk in the guest, as `/dev/vdb`.
    pub device: Option<String>,
    /// Since when.
    pub attached_at: Timestamp,
    /// Who made it.
    pub by: AttachedBy,
}

/// Content that is frozen to come under another key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retype {
    /// The engine's copy of it, which does not change.
    pub copy: String,
    /// What it comes under.
    pub key: Option<SealedKey>,
}

/// A volume. Writer: controller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    /// Its id, a UUID, shared with the engine's volume.
    pub id: String,
    /// The project it belongs to.
    pub project_id: String,
    /// Who made it.
    pub user_id: String,
    /// Its name.
    pub name: Option<String>,
    /// Its description.
    pub description: Option<String>,
    /// Its size in GiB.
    pub size_gb: u64,
    /// What it is at.
    pub status: Status,
    /// What it was at before [`Status::Extending`], [`Status::Uploading`] or [`Status::BackingUp`].
    pub before: Option<Status>,
    /// Why it is in error.
    pub error: Option<String>,
    /// Whether its content was made: false until the storage agent says so.
    pub made: bool,
    /// Whether a server can start from it.
    pub bootable: bool,
    /// Whether servers may only read it.
    pub read_only: bool,
    /// The user's own notes.
    pub metadata: Metadata,
    /// What is known of the image it was made from.
    pub image_metadata: Metadata,
    /// The id of its type.
    pub type_id: String,
    /// The [`Group`] it is in.
    #[serde(default)]
    pub group_id: Option<String>,
    /// The node that holds it.
    pub node: String,
    /// Its backend there.
    #[serde(default = "usual_backend")]
    pub backend: String,
    /// Whether it was moved from one backend to another.
    #[serde(default)]
    pub migrated: bool,
    /// The image, snapshot or volume whose content it began with, as the engine knows it.
    pub source: Option<String>,
    /// What its content is under on disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<SealedKey>,
    /// A copy of its content, on its way to what another type asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retype: Option<Retype>,
    /// Whether it is meant for several servers, as its type says.
    #[serde(default)]
    pub multiattach: bool,
    /// What its content is being replaced by: the engine's id of that. What it had is on its way out.
    #[serde(default)]
    pub refill: Option<String>,
    /// It has grown while servers have it, whose log does not say so yet.
    #[serde(default)]
    pub grown: bool,
    /// The snapshot it was made from.
    pub snapshot_id: Option<String>,
    /// The volume it was made from.
    pub source_volid: Option<String>,
    /// The image being made of it.
    pub uploading_to: Option<String>,
    /// Who uses it: at most one.
    pub attachments: Vec<Attachment>,
    /// A server's root disk, which block storage does not show.
    pub hidden: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Option<Timestamp>,
}

fn usual_backend() -> String {
    capacity::BACKEND.into()
}

/// The index of records of one project that lists show.
pub const BY_PROJECT: &str = "project";
/// The index of all records that lists show, under [`LISTED`].
pub const BY_LISTED: &str = "listed";
/// The one value of [`BY_LISTED`].
pub const LISTED: &str = "all";
/// The index of records the conductor follows, under [`BUSY`].
pub const BY_WORK: &str = "work";
/// The one value of [`BY_WORK`].
pub const BUSY: &str = "busy";
/// The index of records whose content is still being copied from a source, by that source.
pub const BY_SOURCE: &str = "pending-source";
/// The index of volumes by the servers that use them.
pub const BY_SERVER: &str = "server";
/// The index of volumes by the ids of their attachments.
pub const BY_ATTACHMENT: &str = "attachment";
/// The index of snapshots by their volume.
pub const BY_VOLUME: &str = "volume";
/// The index of volumes of which compute has something to take note of.
pub const BY_NEWS: &str = "news";
/// The one value of [`BY_NEWS`]: they have grown.
pub const GROWN: &str = "grown";
/// The index of volumes by group, and of snapshots by group snapshot.
pub const BY_GROUP: &str = "group";
/// The index of volumes by type.
pub const BY_TYPE: &str = "type";

impl Record for Volume {
    const KIND: &'static str = "block/volume";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        let mut indexes = Vec::new();
        if !self.hidden {
            indexes.push(Index::multi(BY_PROJECT, &self.project_id));
            indexes.push(Index::multi(BY_LISTED, LISTED));
            indexes.push(Index::multi(BY_TYPE, &self.type_id));
        }
        if let Some(group) = &self.group_id {
            indexes.push(Index::multi(BY_GROUP, group));
        }
        if !self.made || self.refill.is_some() || self.retype.is_some() || self.status.is_busy() {
            indexes.push(Index::multi(BY_WORK, BUSY));
        }
        if self.grown {
            indexes.push(Index::multi(BY_NEWS, GROWN));
        }
        if let Some(source) = self.refill.as_ref().or(self.source.as_ref().filter(|_| !self.made)) {
            indexes.push(Index::multi(BY_SOURCE, source));
        }
        for attachment in &self.attachments {
            indexes.push(Index::multi(BY_SERVER, &attachment.server_id));
            indexes.push(Index::multi(BY_ATTACHMENT, &attachment.id));
        }
        indexes
    }
}

impl Volume {
    /// Moves on to another status.
    pub fn become_status(&mut self, status: Status) {
        self.status = status;
        self.updated_at = Some(Timestamp::now());
    }
}

/// A snapshot of a volume. Writer: controller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its id, a UUID, shared with the engine's volume.
    pub id: String,
    /// The volume it is of.
    pub volume_id: String,
    /// The project it belongs to.
    pub project_id: String,
    /// Who made it.
    pub user_id: String,
    /// Its name.
    pub name: Option<String>,
    /// Its description.
    pub description: Option<String>,
    /// The size of the volume at that time, in GiB.
    pub size_gb: u64,
    /// The id of the volume's type; empty if that was not noted yet when it was made.
    #[serde(default)]
    pub type_id: String,
    /// What it is at.
    pub status: Status,
    /// Whether its content was made.
    pub made: bool,
    /// How far it has come, if somebody said so.
    #[serde(default)]
    pub progress: Option<String>,
    /// The user's own notes.
    pub metadata: Metadata,
    /// The [`GroupSnapshot`] it is part of.
    #[serde(default)]
    pub group_snapshot_id: Option<String>,
    /// The node that holds it.
    pub node: String,
    /// Its volume's backend when it was made.
    #[serde(default = "usual_backend")]
    pub backend: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Option<Timestamp>,
}

impl Record for Snapshot {
    const KIND: &'static str = "block/snapshot";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        let mut indexes = vec![
            Index::multi(BY_PROJECT, &self.project_id),
            Index::multi(BY_LISTED, LISTED),
            Index::multi(BY_VOLUME, &self.volume_id),
        ];
        if !self.made || self.status.is_busy() {
            indexes.push(Index::multi(BY_WORK, BUSY));
        }
        if !self.made {
            indexes.push(Index::multi(BY_SOURCE, &self.volume_id));
        }
        if let Some(group) = &self.group_snapshot_id {
            indexes.push(Index::multi(BY_GROUP, group));
        }
        indexes
    }
}
