//! The records of volumes and data disks: what the controller wants of them, what the storage agent has seen.
//!
//! Only types and their keys. Sizes are bytes. Each record has one writer, named in its docs.

use cairn_state::Record;
use serde::{Deserialize, Serialize};

/// A volume as it should be. Writer: the controller, through [`crate::volumes`] alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// The volume's id, a UUID.
    pub id: String,
    /// Its size in bytes. It only ever grows.
    pub size: u64,
    /// The node that holds it.
    pub node: String,
    /// The volume it is a clone of, taken when it is made. What the source lacks up to `size` reads as zeroes.
    pub source: Option<String>,
    /// Whether guests may only read it (images are read-only volumes).
    pub read_only: bool,
    /// Who may use it now; `None` for nobody.
    pub export: Option<Export>,
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
            deleted: false,
            generation: 1,
        }
    }
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

/// A volume as it is. Writer: the storage agent of `node`.
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
    /// The disk that holds it, once it is on stable media there. A volume that has a disk is never made anew.
    #[serde(default)]
    pub disk: Option<String>,
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
            node: spec.node.clone(),
            generation: spec.generation,
            phase,
            error: None,
            socket: None,
            epoch: 0,
            size: spec.size,
            allocated: 0,
            disk: None,
        }
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
}

impl Record for DiskStatus {
    const KIND: &'static str = "shards/disk";

    fn id(&self) -> String {
        format!("{}/{}", self.node, self.disk)
    }
}

/// What a volume's NBD socket ends in; its vhost-user socket, the one in [`VolumeStatus`], ends in `sock`.
pub const NBD_EXTENSION: &str = "nbd";
