//! The records of block storage: volumes, snapshots, types, quotas and running totals.
//!
//! Only types, their keys and indexes. Sizes are GiB, as Cinder has them. Every record here is written by the
//! controller alone.

use std::collections::{BTreeMap, BTreeSet};

use cairn_state::{Index, Record};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::capacity;
pub use crate::kept::{Backup, Restore, Unmanaged};

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
    const ALL: [(Status, &str); 18] = [
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
        matches!(self, Status::Deleting | Status::Extending | Status::Uploading)
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
    /// What its content is being replaced by: the engine's id of that. What it had is on its way out.
    #[serde(default)]
    pub refill: Option<String>,
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
        if !self.made || self.refill.is_some() || self.status.is_busy() {
            indexes.push(Index::multi(BY_WORK, BUSY));
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

/// A volume type. Writer: controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeType {
    /// Its id, a UUID.
    pub id: String,
    /// Its name; unique.
    pub name: String,
    /// Its description.
    pub description: Option<String>,
    /// Whether every project may use it.
    pub is_public: bool,
    /// What a backend must be capable of for it.
    pub extra_specs: Metadata,
    /// The projects that may use it though it is not public.
    pub projects: BTreeSet<String>,
    /// The [`QosSpecs`] of its volumes.
    #[serde(default)]
    pub qos_id: Option<String>,
    /// How its volumes shall be encrypted.
    #[serde(default)]
    pub encryption: Option<Encryption>,
}

/// How volumes of a type shall be encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encryption {
    /// Its id, a UUID.
    pub id: String,
    /// The format, as `luks`.
    pub provider: String,
    /// The cipher, as `aes-xts-plain64`.
    pub cipher: Option<String>,
    /// Bits of a key.
    pub key_size: Option<u64>,
    /// Who encrypts: `front-end` or `back-end`.
    pub control_location: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Option<Timestamp>,
}

impl Record for VolumeType {
    const KIND: &'static str = "block/type";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        vec![Index::unique("name", &self.name)]
    }
}

/// A type of groups. Writer: controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupType {
    /// Its id, a UUID.
    pub id: String,
    /// Its name; unique.
    pub name: String,
    /// Its description.
    pub description: Option<String>,
    /// Whether every project may use it.
    pub is_public: bool,
    /// What a backend must be capable of for it.
    pub group_specs: Metadata,
}

impl Record for GroupType {
    const KIND: &'static str = "block/group-type";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        vec![Index::unique("name", &self.name)]
    }
}

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

/// Limits on the volumes of types, as the field writes them: see [`crate::qos`]. Writer: controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QosSpecs {
    /// Its id, a UUID.
    pub id: String,
    /// Its name; unique.
    pub name: String,
    /// Who is said to keep the limits.
    pub consumer: String,
    /// The limits.
    pub specs: Metadata,
}

impl Record for QosSpecs {
    const KIND: &'static str = "block/qos";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        vec![Index::unique("name", &self.name)]
    }
}

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

impl Record for Usage {
    const KIND: &'static str = "block/usage";

    fn id(&self) -> String {
        self.project_id.clone()
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
