//! What nodes report about guests and about themselves, and the log of what was done to a server.

use cairn_state::{Index, Record};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The power of a guest, by Nova's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum PowerState {
    /// Not known, or no guest yet.
    #[default]
    NoState = 0,
    /// It runs.
    Running = 1,
    /// Its CPUs stand still.
    Paused = 3,
    /// It is off.
    Shutdown = 4,
    /// It crashed.
    Crashed = 6,
    /// Its memory is on disk.
    Suspended = 7,
}

/// What a node sees of a guest. Writer: the compute agent of that node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// The server.
    pub id: String,
    /// The node.
    pub node: String,
    /// The generation of the [`super::Server`] this was compared with.
    pub generation: u64,
    /// The guest's power.
    pub power_state: PowerState,
    /// The sequence number of the last boot order that was carried out.
    pub boots_done: u64,
    /// Whether the guest turned itself off (as against: was turned off, or never started).
    pub guest_off: bool,
    /// The volumes the guest has.
    pub volumes_attached: Vec<String>,
    /// The ports the guest has.
    pub ports_plugged: Vec<String>,
    /// What stands in the way now.
    pub error: Option<String>,
    /// Whether the node has given up on that; a new order makes it try again.
    pub failed: bool,
    /// When the guest was last started.
    pub started_at: Option<Timestamp>,
    /// The guest and all that belonged to it on this node are destroyed.
    pub gone: bool,
}

impl Record for InstanceStatus {
    const KIND: &'static str = "compute/instance";

    fn id(&self) -> String {
        self.id.clone()
    }
}

/// What a node can host. Writer: the compute agent of that node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostStatus {
    /// The node.
    pub node: String,
    /// Its CPUs.
    pub vcpus: u32,
    /// Its memory in MiB.
    pub memory_mb: u64,
    /// The hypervisor's version as one number, as libvirt gives it (10.0.3 is 10000003).
    pub hypervisor_version: u64,
    /// `kvm`, or `tcg` where hardware virtualisation is missing or does not work.
    pub accelerator: String,
    /// The model of its CPUs.
    pub cpu_model: String,
    /// The architecture, as `x86_64`.
    pub arch: String,
    /// The kind of machine guests get, as `pc-q35-10.0`.
    pub machine: String,
    /// When the node booted.
    pub booted_at: Timestamp,
}

impl Record for HostStatus {
    const KIND: &'static str = "compute/host";

    fn id(&self) -> String {
        self.node.clone()
    }
}

/// Something that was done to a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionEntry {
    /// What: `create`, `stop`, `attach_volume`...
    pub action: String,
    /// The request that asked for it.
    pub request_id: String,
    /// Who asked.
    pub user_id: String,
    /// For which project.
    pub project_id: String,
    /// When.
    pub start: Timestamp,
    /// When it was done; none while it is going on.
    pub finish: Option<Timestamp>,
    /// What went wrong.
    pub message: Option<String>,
}

/// The last things done to one server, oldest first; kept for some days after it is deleted.
/// Writer: controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionLog {
    /// The server.
    pub server_id: String,
    /// Its project, which may read the log.
    pub project_id: String,
    /// The node it was on, at last.
    pub host: Option<String>,
    /// What was done.
    pub entries: Vec<ActionEntry>,
    /// The day (as `2026-01-31`) it was deleted on.
    pub deleted_on: Option<String>,
}

/// How many entries a log keeps.
const ENTRIES_MAX: usize = 100;

impl ActionLog {
    /// Adds an entry, at the cost of the oldest when there are too many.
    pub fn push(&mut self, entry: ActionEntry) {
        if self.entries.len() >= ENTRIES_MAX {
            self.entries.remove(0);
        }
        self.entries.push(entry);
    }
}

impl Record for ActionLog {
    const KIND: &'static str = "compute/action-log";

    fn id(&self) -> String {
        self.server_id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        self.deleted_on.iter().map(|day| Index::multi("deleted", day)).collect()
    }
}
