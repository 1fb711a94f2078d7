//! The records of volumes and data disks: what the controller wants of them, what the storage agent has seen.
//!
//! Only types and their keys. Sizes are bytes. Each record has one writer, named in its docs.

use cairn_state::Record;
use serde::{Deserialize, Serialize};

use crate::crypt::keys::SealedKey;
use crate::health::Health;
use crate::replication::place;
use crate::replication::placement::COPIES;
use crate::throttle::IoLimits;

/// A volume as it should be. Writer: the controller, through [`crate::volumes`] alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// The volume's id, a UUID.
    pub id: String,
    /// Its size in bytes. It only ever grows.
    pub size: u64,
    /// The node that holds it; if several do ([`crate::replication::set::ReplicaSet`]), the one that looks after it
    /// while nobody uses it.
    pub node: String,
    /// The volume it is a clone of, taken when it is made. What the source lacks up to `size` reads as zeroes.
    pub source: Option<String>,
    /// Whether guests may only read it (images are read-only volumes).
    pub read_only: bool,
    /// Who may use it now; `None` for nobody.
    pub export: Option<Export>,
    /// The node that prepares to serve it to the same owner, see [`crate::volumes::begin_move`].
    #[serde(default)]
    pub moving: Option<String>,
    /// The fencing number of the node that writes it while nobody uses it; [`VolumeSpec::epoch`] is what counts.
    #[serde(default)]
    pub keeper_epoch: u64,
    /// The epoch under which its user began; one that moves while it runs gets another, and goes on.
    #[serde(default)]
    pub user_since: u64,
    /// How much of it its user may ask for.
    #[serde(default, skip_serializing_if = "IoLimits::is_empty")]
    pub limits: IoLimits,
    /// The most replicas it has; as many as any volume if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies: Option<usize>,
    /// What its content is under on every disk; plaintext if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<SealedKey>,
    /// What its source's content is under, if that is something else: it shares nothing with its source then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recoded: Option<Recoded>,
    /// Who keeps its content, if that is not this engine: the name of a [`crate::external::model::Backend`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// A tombstone: the agent destroys the volume and reports [`Phase::Gone`].
    pub deleted: bool,
    /// Grows with each change of this record. The agent refuses an older one.
    pub generation: u64,
}

impl Record for VolumeSpec {
    const KIND: &'static str = "shards/volume";

    fn id(&self) -> String {
        self.id.clone()
    }
}

impl VolumeSpec {
    /// An empty volume of `size` bytes on `node`, which nobody uses yet.
    pub fn new(id: impl Into<String>, node: impl Into<String>, size: u64) -> VolumeSpec {
        VolumeSpec {
            id: id.into(),
            size,
            node: node.into(),
            source: None,
            read_only: false,
            export: None,
            moving: None,
            keeper_epoch: 0,
            user_since: 0,
            limits: IoLimits::new(),
            copies: None,
            key: None,
            recoded: None,
            backend: None,
            deleted: false,
            generation: 1,
        }
    }

    /// The node that writes it and reports it: where it is used, or kept.
    pub fn lead(&self) -> &str {
        self.export.as_ref().map_or(&self.node, |e| &e.node)
    }

    /// How many replicas it shall have where there are as many nodes.
    pub fn copies(&self) -> usize {
        self.copies.unwrap_or(COPIES).max(1)
    }

    /// The epoch under which that node writes it.
    pub fn epoch(&self) -> u64 {
        self.export.as_ref().map_or(0, |e| e.epoch).max(self.keeper_epoch).max(1)
    }
}

/// Content that is copied from under one key to under another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recoded {
    /// What it was under; `None` for plaintext.
    pub from: Option<SealedKey>,
}

/// The right to use a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    /// The node where it is used (and served).
    pub node: String,
    /// The server that uses it.
    pub owner: String,
    /// The fencing number: of two exports of a volume the one with the greater epoch stands.
    pub epoch: u64,
}

/// How far a volume has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// It is being made (or waits for its source, or for room on a disk).
    Creating,
    /// It is there, on stable media.
    Ready,
    /// It cannot be made or served; `error` says why. The agent goes on trying.
    Failed,
    /// It was destroyed, durably, as its tombstone asked.
    Gone,
}

/// A volume as it is. Writer: the storage agent of the node that leads it ([`VolumeSpec::lead`]), `node`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeStatus {
    /// The volume's id.
    pub id: String,
    /// The node that reports.
    pub node: String,
    /// The generation of the spec last acted on.
    pub generation: u64,
    /// How far it has come.
    pub phase: Phase,
    /// What is wrong with it, if anything. A volume may be ready and yet in trouble: "disk full" holds its
    /// guest's writes until there is room.
    pub error: Option<String>,
    /// Its vhost-user-blk socket, set only while something listens on it.
    pub socket: Option<String>,
    /// The epoch of the export served there; 0 for none.
    pub epoch: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Bytes it takes on its disk, blocks shared with clones counted in each of them.
    pub allocated: u64,
    /// The disk that holds it, or the backend, once it is on stable media there. A volume that has one is never made anew.
    #[serde(default)]
    pub disk: Option<String>,
    /// About how many bytes replicas still have to be compared or copied, in all: 0 when they are whole. Rounded up, so
    /// that a rebuild is told in few steps.
    #[serde(default)]
    pub behind: u64,
    /// Bytes that were sent to make replicas whole again, by the writer that runs, of those that are in sync by now.
    #[serde(default)]
    pub rebuilt: u64,
    /// Bytes that were compared for that on each side.
    #[serde(default)]
    pub compared: u64,
    /// Times that a block was found corrupt on the node that leads it, since it is in use there. A replica that is whole
    /// answered instead, if there is one; without, the volume's user was told of an error.
    #[serde(default)]
    pub corrupt: u64,
}

impl Record for VolumeStatus {
    const KIND: &'static str = "shards/volume-status";

    fn id(&self) -> String {
        self.id.clone()
    }
}

impl VolumeStatus {
    /// The report on a volume that has come so far and is not served.
    pub fn new(spec: &VolumeSpec, phase: Phase) -> VolumeStatus {
        VolumeStatus {
            id: spec.id.clone(),
            node: spec.lead().to_owned(),
            generation: spec.generation,
            phase,
            error: None,
            socket: None,
            epoch: 0,
            size: spec.size,
            allocated: 0,
            disk: None,
            behind: 0,
            rebuilt: 0,
            compared: 0,
            corrupt: 0,
        }
    }
}

/// One replica of a volume that has several, as it is on its node. Writer: the storage agent of `node`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// The volume's id.
    pub volume: String,
    /// The node that reports.
    pub node: String,
    /// The disk that its place names, see [`crate::replication::place`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<String>,
    /// How far the replica has come.
    pub phase: Phase,
    /// What is wrong with it, if anything.
    pub error: Option<String>,
    /// The disk that holds it, once it is on stable media there.
    pub disk: Option<String>,
    /// Bytes it takes on its disk, blocks shared with clones counted in each of them.
    pub allocated: u64,
}

impl Record for ReplicaStatus {
    const KIND: &'static str = "shards/replica-status";

    fn id(&self) -> String {
        match &self.bound {
            Some(disk) => ReplicaStatus::id_of(&self.volume, &place::on_disk(&self.node, disk)),
            None => ReplicaStatus::id_of(&self.volume, &self.node),
        }
    }
}

impl ReplicaStatus {
    /// The id of the record of a volume's replica at a place.
    pub fn id_of(volume: &str, place: &str) -> String {
        format!("{volume}/{place}")
    }
}

/// A volume that the node it moves to is ready to serve: its socket is there, reads are done, and changes are held
/// until the move is finished. Writer: the storage agent of `node`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// The volume's id.
    pub volume: String,
    /// The node that is ready.
    pub node: String,
    /// The generation of the spec that asked for it.
    pub generation: u64,
    /// Its vhost-user-blk socket there.
    pub socket: String,
}

impl Record for Prepared {
    const KIND: &'static str = "shards/volume-prepared";

    fn id(&self) -> String {
        format!("{}/{}", self.volume, self.node)
    }
}

/// A data disk as it is. Writer: the storage agent of `node`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStatus {
    /// The node it is in.
    pub node: String,
    /// The disk's id, from its marker file.
    pub disk: String,
    /// Where it is mounted.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// Bytes free for volumes.
    pub free: u64,
    /// Whether it can be written.
    pub healthy: bool,
    /// What is wrong with it.
    pub error: Option<String>,
    /// Whether the node runs a release that knows of disks as places of replicas.
    #[serde(default)]
    pub knows_places: bool,
    /// Whether there are backups on it.
    #[serde(default)]
    pub has_backups: bool,
    /// What it says of itself, if it can be asked.
    #[serde(default)]
    pub health: Option<Health>,
    /// Whether the node runs a release that knows whose disks are.
    #[serde(default)]
    pub knows_owners: bool,
    /// It was this node's, and is not there any more.
    #[serde(default)]
    pub gone: bool,
    /// Set if it belongs to another node: nothing on it is used here, until it is adopted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visiting: Option<Visiting>,
}

/// A disk of one node in another, as that one sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Visiting {
    /// Whose it is; empty if nobody knows.
    pub owner: String,
    /// Volumes on it that are not bound to it.
    pub unbound: Vec<String>,
    /// Whole backups on it.
    pub backups: Vec<String>,
}

/// Which node a disk belongs to, once it was adopted. It counts, whatever the disk says ([`crate::ownership`]). Writer: the
/// controller, through [`crate::adoption`] alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskOwner {
    /// The disk's id.
    pub disk: String,
    /// The node; empty if whoever has it is to adopt it.
    pub node: String,
    /// How often it was adopted.
    pub adoption: u64,
}

impl Record for DiskOwner {
    const KIND: &'static str = "shards/disk-owner";

    fn id(&self) -> String {
        self.disk.clone()
    }
}

impl Record for DiskStatus {
    const KIND: &'static str = "shards/disk";

    fn id(&self) -> String {
        format!("{}/{}", self.node, self.disk)
    }
}

/// What an operator wants of a data disk. Writer: the controller, through [`crate::disks`] alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskWish {
    /// The disk's id.
    pub disk: String,
    /// Whether it is given up once nothing is on it, or at once if it is gone.
    pub retire: bool,
}

impl Record for DiskWish {
    const KIND: &'static str = "shards/disk-wish";

    fn id(&self) -> String {
        self.disk.clone()
    }
}

/// A replica that moves to another disk, so that disks fill evenly; it is there until that is done, or given up. Writer: the
/// controller, through [`crate::balance`] alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaMove {
    /// The volume's id. One replica of a volume moves at a time.
    pub volume: String,
    /// The place that it leaves, see [`crate::replication::place`].
    pub from: String,
    /// The place that it gets.
    pub to: String,
    /// The disk that it leaves.
    pub from_disk: String,
    /// The disk that it gets.
    pub to_disk: String,
    /// About how many bytes that are.
    pub bytes: u64,
    /// How many replicas the volume had before: it keeps as many.
    pub copies: usize,
}

impl Record for ReplicaMove {
    const KIND: &'static str = "shards/replica-move";

    fn id(&self) -> String {
        self.volume.clone()
    }
}

/// What a volume's NBD socket ends in; its vhost-user socket, the one in [`VolumeStatus`], ends in `sock`.
pub const NBD_EXTENSION: &str = "nbd";
