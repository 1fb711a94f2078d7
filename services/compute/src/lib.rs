//! Servers: OpenStack's Compute API (Nova v2.1) at `/compute`, the conductor that advances servers as nodes report,
//! and the agent that makes a node's guests what the store says.
//!
//! Rooms: [`model`] (the records), `api` (a file per resource), files named after what they decide (`scheduler`,
//! `create`, `state`, `advance`, `quota`), `moves` (servers going from node to node), `takeover` and [`liveness`] (the
//! guests of nodes that are lost), [`drain`] (nodes that are emptied), [`removal`] (nodes that leave for good), [`agent`]
//! (the node side).
//!
//! A server is made in one transaction: quota, host, claim, ports, disks and record together, or nothing. What it
//! is doing is never stored but derived ([`model::Server`] is what is wanted, [`model::InstanceStatus`] what is).
//!
//! It may touch its own records, and those of network, block storage, image and placement through their public
//! functions on the open transaction; on a node, libvirt and the console logs. It must never give a disk, an
//! address or a CPU to two servers, never let a guest run on two nodes, never destroy one that is neither
//! tombstoned nor another node's, and never store or log a private key, a password or user data.

pub mod actions;
mod advance;
pub mod agent;
mod api;
mod conductor;
mod create;
mod disks;
pub mod drain;
mod growth;
pub mod liveness;
mod metadata;
pub mod model;
mod moves;
mod nics;
mod node_socket;
mod order;
mod place;
mod quota;
mod reach;
pub mod removal;
mod scheduler;
mod sshkey;
mod state;
mod takeover;
#[cfg(test)]
mod testing;
mod zones;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cairn_gateway::{ErrorStyle, Mount, mount::BODY_MAX};
use cairn_state::{Abort, LocalStore, Tx};

pub use conductor::conductor;
pub use node_socket::Others;

use crate::liveness::Absences;
use crate::node_socket::NodeSocket;

/// Whether a node's lease is there, read within a transaction so that it holds when that is committed.
pub type Alive = Arc<dyn Fn(&mut Tx, &str) -> Result<bool, Abort> + Send + Sync>;

/// The compute service of a controller.
pub struct Service {
    /// The store.
    pub store: LocalStore,
    /// The compute agent of this node.
    node: NodeSocket,
    /// Which nodes are in touch.
    alive: Alive,
    /// Since when the others are not.
    absences: Mutex<Absences>,
}

impl Service {
    /// The service on this store; `agent_socket` is the data socket of this node's compute agent. Every node counts
    /// as alive, so nothing is ever taken over.
    pub fn new(store: LocalStore, agent_socket: impl Into<PathBuf>) -> Arc<Service> {
        Service::with_leases(store, agent_socket, Arc::new(|_, _| Ok(true)))
    }

    /// The service of a cloud whose nodes hold leases: the guests of a node without one are started elsewhere.
    pub fn with_leases(store: LocalStore, agent_socket: impl Into<PathBuf>, alive: Alive) -> Arc<Service> {
        let (node, absences) = (NodeSocket::new(agent_socket), Mutex::default());
        Arc::new(Service { store, node, alive, absences })
    }

    /// Makes the compute agents of other nodes known, for console logs and diagnostics of guests there; once.
    pub fn reach(&self, others: Others) {
        self.node.reach(others);
    }

    fn absences(&self) -> MutexGuard<'_, Absences> {
        self.absences.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The service's place under the endpoint.
pub fn mount(svc: &Arc<Service>) -> Mount {
    Mount { prefix: "/compute", style: ErrorStyle::Nova, router: api::router(svc), body_max: BODY_MAX }
}
