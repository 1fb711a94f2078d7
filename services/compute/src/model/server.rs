//! A server as it should be: what the user asked for, and what the node that hosts it must make true.
//!
//! Written by the controller alone. The agent reads it and never changes it.

use std::collections::{BTreeMap, BTreeSet};

use cairn_state::{Index, Record};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Moving, Stage};

/// What the guest's power should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Power {
    /// It runs.
    Running,
    /// It is off.
    Stopped,
    /// It is in memory, its CPUs stand still.
    Paused,
}

/// How the last wanted boot is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BootKind {
    /// From off. If the guest runs already, nothing is to do.
    Start,
    /// Ask the guest to shut down first; by force when it does not in time.
    Soft,
    /// By force: power off and on.
    Hard,
}

/// A counted order to boot: the agent reports the last one it has done, so none is done twice or forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// Grows by one with each order.
    pub seq: u64,
    /// What was ordered.
    pub kind: BootKind,
}

/// What went wrong with a server, as its user is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// An HTTP-like code: 500 for what is not the user's doing.
    pub code: u16,
    /// When.
    pub created: Timestamp,
    /// What happened.
    pub message: String,
}

/// The flavor as it was when the server was made: later changes of the flavor do not reach it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlavorSnapshot {
    /// The flavor's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub ram_mb: u64,
    /// Root disk in GiB; 0 takes the image's size.
    pub disk_gb: u64,
    /// Extra empty disk in GiB.
    pub ephemeral_gb: u64,
    /// Swap disk in MiB.
    pub swap_mb: u64,
    /// Extra specifications.
    pub extra_specs: BTreeMap<String, String>,
}

/// What of an image matters after the server was made from it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSnapshot {
    /// The image's id; empty for a server booted from a volume.
    pub id: String,
    /// The image's properties.
    pub properties: BTreeMap<String, String>,
}

/// The firmware a guest boots with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Firmware {
    /// SeaBIOS.
    Bios,
    /// OVMF.
    Uefi,
}

/// The key pair as it was when the server was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySnapshot {
    /// Its name.
    pub name: String,
    /// `ssh` or `x509`.
    pub kind: String,
    /// The public key.
    pub public_key: String,
}

/// Who locked a server, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Whether an administrator did: then only one may unlock it.
    pub by_admin: bool,
    /// What they said.
    pub reason: Option<String>,
}

/// A volume of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerVolume {
    /// The volume.
    pub volume_id: String,
    /// The attachment, as block knows it.
    pub attachment_id: String,
    /// The block device mapping's own id.
    pub bdm_id: String,
    /// The device name shown to users, as `/dev/vda`.
    pub device: String,
    /// Whether it is the disk the guest boots from.
    pub boot: bool,
    /// Whether users of the volume API see it. Root disks made from an image are the server's own.
    pub listed: bool,
    /// Whether it is deleted with the server. Always so for a server's own disks.
    pub delete_on_termination: bool,
    /// A tag the user gave it.
    pub tag: Option<String>,
    /// Whether block has been told that the guest has it.
    pub attached: bool,
    /// Whether the guest is to give it back.
    pub detaching: bool,
}

/// A port of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerPort {
    /// The port.
    pub port_id: String,
    /// Its network.
    pub network_id: String,
    /// Its MAC address.
    pub mac: String,
    /// The largest packet its network carries, in bytes.
    pub mtu: u32,
    /// A tag the user gave it.
    pub tag: Option<String>,
    /// Whether the guest is to give it back.
    pub detaching: bool,
}

/// A server. Writer: controller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Server {
    /// Its id, a UUID; the guest's own too.
    pub id: String,
    /// The project it is counted for.
    pub project_id: String,
    /// Who made it.
    pub user_id: String,
    /// Its name, which need not be unique.
    pub name: String,
    /// The name the guest is told.
    pub hostname: String,
    /// The user's description.
    pub description: Option<String>,
    /// When it was asked for.
    pub created: Timestamp,
    /// When the user or the controller last changed it.
    pub updated: Timestamp,
    /// When it first ran.
    pub launched_at: Option<Timestamp>,
    /// The image it was made from.
    pub image: ImageSnapshot,
    /// The flavor it was made with.
    pub flavor: FlavorSnapshot,
    /// The firmware it boots with.
    pub firmware: Firmware,
    /// The node that hosts it; none if no node could.
    pub host: Option<String>,
    /// The zone it was asked to be in, if the user asked.
    pub pinned_zone: Option<String>,
    /// The key pair its user chose.
    pub key: Option<KeySnapshot>,
    /// The user data, in base64.
    pub user_data: Option<String>,
    /// The user's metadata.
    pub metadata: BTreeMap<String, String>,
    /// The user's tags.
    pub tags: BTreeSet<String>,
    /// An address by which the user says it can be reached; may be empty.
    pub access_ipv4: String,
    /// The same, IPv6.
    pub access_ipv6: String,
    /// `AUTO` or `MANUAL`.
    pub disk_config: String,
    /// Whether a configuration drive was asked for.
    pub config_drive: bool,
    /// Whom it is locked by.
    pub lock: Option<Lock>,
    /// The order it came with, shared by the servers of one request.
    pub reservation_id: String,
    /// Its place in that order.
    pub launch_index: u32,
    /// The group it belongs to.
    pub group: Option<String>,
    /// The scheduler hints it was made with.
    pub hints: BTreeMap<String, Value>,
    /// What its power should be.
    pub power: Power,
    /// The last boot ordered.
    pub boot: Boot,
    /// Its disks, in device order.
    pub volumes: Vec<ServerVolume>,
    /// Its ports, in the order the guest sees them.
    pub ports: Vec<ServerPort>,
    /// What went wrong last.
    pub fault: Option<Fault>,
    /// Whether it is in error: by that fault, or because an administrator said so.
    pub error: bool,
    /// The request whose work is still going on.
    pub open_action: Option<String>,
    /// Grows with each change that the node must act on.
    pub generation: u64,
    /// Whether it is to be destroyed. Nothing else changes any more.
    pub deleted: bool,
    /// The move it is making.
    #[serde(default)]
    pub moving: Option<Moving>,
    /// The nodes that failed to build it.
    #[serde(default)]
    pub tried: BTreeSet<String>,
}

/// The index of servers on which something is going on, under [`WORK_OPEN`].
pub const INDEX_WORK: &str = "work";
/// The value of [`INDEX_WORK`].
pub const WORK_OPEN: &str = "open";

impl Record for Server {
    const KIND: &'static str = "compute/server";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        let mut indexes = vec![Index::multi("project", &self.project_id)];
        indexes.extend(self.host.iter().map(|host| Index::multi("host", host)));
        indexes.extend(self.group.iter().map(|group| Index::multi("group", group)));
        indexes.extend(self.unfinished().then(|| Index::multi(INDEX_WORK, WORK_OPEN)));
        indexes
    }
}

impl Server {
    /// Whether the conductor still waits for its node.
    pub fn unfinished(&self) -> bool {
        let building = self.launched_at.is_none() && !self.error;
        let changing =
            self.volumes.iter().any(|v| v.detaching || !v.attached) || self.ports.iter().any(|p| p.detaching);
        let moving = self.moving.as_ref().is_some_and(Moving::open);
        self.deleted || building || changing || moving || self.open_action.is_some()
    }

    /// Notes that the node must act.
    pub fn touch(&mut self) {
        self.generation += 1;
        self.updated = Timestamp::now();
    }

    /// Orders a boot.
    pub fn order_boot(&mut self, kind: BootKind) {
        self.power = Power::Running;
        self.boot = Boot { seq: self.boot.seq + 1, kind };
        self.touch();
    }

    /// The flavor its project is counted with: while it leaves, already the one it will have.
    pub fn counted_flavor(&self) -> &FlavorSnapshot {
        match &self.moving {
            Some(m) if m.stage == Stage::Leaving => &m.flavor,
            _ => &self.flavor,
        }
    }

    /// Whether this node is the one it comes to, running.
    pub fn comes_live_to(&self, node: &str) -> bool {
        self.moving.as_ref().is_some_and(|m| m.live() && m.to == node)
    }

    /// Whether this node is sending it now. One that is to be destroyed is not sent any more.
    pub fn sent_by(&self, node: &str) -> bool {
        let sends = |m: &Moving| m.live() && m.stage == Stage::Running && m.from == node;
        !self.deleted && self.moving.as_ref().is_some_and(sends)
    }

    /// The volume with this id.
    pub fn volume(&self, volume_id: &str) -> Option<&ServerVolume> {
        self.volumes.iter().find(|v| v.volume_id == volume_id)
    }

    /// The disk it boots from.
    pub fn root(&self) -> Option<&ServerVolume> {
        self.volumes.iter().find(|v| v.boot)
    }

    /// The first free device name.
    pub fn next_device(&self) -> Option<String> {
        (b'a'..=b'z')
            .map(|c| format!("/dev/vd{}", c as char))
            .find(|name| self.volumes.iter().all(|v| &v.device != name))
    }
}
