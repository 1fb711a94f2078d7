//! What a cloud tells its witness: served by the witness as `witness` on the wire.
//!
//! `witness/begin` takes a [`Begin`] from whoever has the secret; `witness/tell` takes a [`Told`] from a node of a cloud
//! that is served, `witness/health` takes nothing from one; all answer with a
//! [`Health`](crate::membership::service::Health). `witness/end` takes nothing and forgets the caller's cloud.

use std::net::SocketAddr;

use cairn_wire::remote::PeerId;
use serde::{Deserialize, Serialize};

/// The name of the service on the wire.
pub const SERVICE: &str = "witness";

/// A node of the cloud, as far as a witness needs to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Its identity.
    pub id: PeerId,
    /// Its name.
    pub name: String,
    /// Where it can be tried.
    pub addresses: Vec<SocketAddr>,
    /// The number of its replica of the store, if it has one.
    pub replica: Option<u64>,
}

/// All that a witness knows of a cloud.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The cloud's id.
    pub cloud: String,
    /// The generation of the store's group. A witness of an older one begins anew.
    pub generation: u64,
    /// Its nodes, whoever tells among them.
    pub members: Vec<Known>,
}

/// A cloud asks to be served.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// The secret of the witness's code.
    pub secret: String,
    /// Who asks.
    pub told: Told,
}
