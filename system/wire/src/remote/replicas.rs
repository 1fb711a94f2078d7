//! Replicas of the store talk over this transport: a [`cairn_state::Network`] on one side, the service `raft` on the
//! other. What they say is the store's own business; here it is bytes.
//!
//! The group knows its members by number and name; which key that is, the caller says ([`WhoIs`]). It must never
//! be an address that decides.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cairn_state::{Endpoint as Replica, Member, Network, NodeId, NotReached};

use super::error::{Error, Refusal};
use super::message::Outgoing;
use super::peer::{PeerId, Standing};
use super::peers::Peers;
use super::service::{Access, Call, Limits, Service};

/// The name of the service.
pub const REPLICAS: &str = "raft";
/// Its one method.
const METHOD: &str = "raft/ask";
/// The longest message: pieces of logs and snapshots are of about a MiB, one entry of either may be a full transaction.
const MESSAGE_BYTES_MAX: usize = 32 << 20;
/// How long one call may take at most; the store gives up by itself well before.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// The key of a member of the group; `None` if it is no member of the cloud.
pub type WhoIs = Arc<dyn Fn(NodeId, &Member) -> Option<PeerId> + Send + Sync>;

/// Carries the store's requests to other nodes.
pub struct ReplicaNetwork {
    peers: Peers,
    who_is: WhoIs,
}

impl ReplicaNetwork {
    /// Over these peers. Give the store peers of its own ([`Peers::new`]): connections live on the runtime that made
    /// them, and the store has one to itself.
    pub fn new(peers: Peers, who_is: WhoIs) -> ReplicaNetwork {
        ReplicaNetwork { peers, who_is }
    }
}

#[async_trait]
impl Network for ReplicaNetwork {
    async fn call(&self, to: NodeId, member: &Member, request: Bytes) -> Result<Bytes, NotReached> {
        let Some(node) = (self.who_is)(to, member) else {
            let why = format!("replica {to} ({}) is of no member of the cloud", member.name);
            return Err(NotReached { why, maybe_arrived: false });
        };
        self.peers.hint(node, || member.addresses.iter().filter_map(|a| a.parse().ok()).collect());
        let answer = self.peers.call(node, METHOD, &request, ANSWER_MAX).await;
        answer.map_err(|e: Error| NotReached { maybe_arrived: !e.nothing_done(), why: e.to_string() })
    }
}

/// Answers other replicas at this node's store.
pub struct ReplicaService {
    replica: Replica,
}

impl ReplicaService {
    /// What it bears.
    pub const LIMITS: Limits = Limits { calls: 4096, message_bytes: MESSAGE_BYTES_MAX, answer: ANSWER_MAX };

    /// For this store ([`cairn_state::LocalStore::endpoint`]).
    pub fn new(replica: Replica) -> ReplicaService {
        ReplicaService { replica }
    }
}

#[async_trait]
impl Service for ReplicaService {
    fn access(&self) -> Access {
        Access::Voters
    }

    fn limits(&self) -> Limits {
        ReplicaService::LIMITS
    }

    async fn call(&self, mut call: Call) -> Result<Outgoing, Refusal> {
        if call.method != "ask" {
            return Err(call.unknown_method());
        }
        let request: Bytes = call.message().await?;
        let answer = match call.peer.standing {
            Standing::Witness => self.replica.serve_witness(request).await,
            _ => self.replica.serve(request).await,
        };
        match answer {
            Some(answer) => Outgoing::message(&answer),
            None => Err(Refusal::unavailable("this node's store is closed")),
        }
    }
}
