//! Servers: OpenStack's Compute API (Nova v2.1) at `/compute`, the conductor that advances servers as nodes report,
//! and the agent that makes a node's guests what the store says.
//!
//! Rooms: [`model`] (the records), `api` (a file per resource), files named after what they decide (`scheduler`,
//! `create`, `state`, `advance`, `quota`), [`agent`] (the node side).
//!
//! A server is made in one transaction: quota, host, claim, ports, disks and record together, or nothing. What it
//! is doing is never stored but derived ([`model::Server`] is what is wanted, [`model::InstanceStatus`] what is).
//!
//! It may touch its own records, and those of network, block storage, image and placement through their public
//! functions on the open transaction; on a node, libvirt and the console logs. It must never give a disk, an
//! address or a CPU to two servers, never destroy a guest that no tombstone names, and never store or log a
//! private key, a password or user data.

mod actions;
mod advance;
pub mod agent;
mod api;
mod conductor;
mod create;
mod disks;
mod metadata;
pub mod model;
mod nics;
mod node_socket;
mod order;
mod quota;
mod scheduler;
mod sshkey;
mod state;
#[cfg(test)]
mod testing;
mod zones;

use std::path::PathBuf;
use std::sync::Arc;

use cairn_gateway::{ErrorStyle, Mount, mount::BODY_MAX};
use cairn_state::LocalStore;

pub use conductor::conductor;

use crate::node_socket::NodeSocket;

/// The compute service of a controller.
pub struct Service {
    /// The store.
    pub store: LocalStore,
    /// The compute agent of this node.
    node: NodeSocket,
}

impl Service {
    /// The service on this store; `agent_socket` is the data socket of this node's compute agent.
    pub fn new(store: LocalStore, agent_socket: impl Into<PathBuf>) -> Arc<Service> {
        Arc::new(Service { store, node: NodeSocket::new(agent_socket) })
    }
}

/// The service's place under the endpoint.
pub fn mount(svc: &Arc<Service>) -> Mount {
    Mount { prefix: "/compute", style: ErrorStyle::Nova, router: api::router(svc), body_max: BODY_MAX }
}
