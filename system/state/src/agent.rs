//! What every agent is started with.

use std::path::PathBuf;

use crate::kv::SharedStore;
use crate::report::Reporter;

/// Where an agent finds the store, its folders, and whom it reports as.
#[derive(Clone)]
pub struct AgentArgs {
    /// The node's name.
    pub node: String,
    /// The store.
    pub store: SharedStore,
    /// Reports as this role of this node.
    pub reporter: Reporter,
    /// What the role keeps across reboots, as `/var/lib/cairn/compute`.
    pub state_dir: PathBuf,
    /// Where sockets are, `/run/cairn`.
    pub run_dir: PathBuf,
}
