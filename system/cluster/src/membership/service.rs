//! What members say to each other about membership: serves `cluster` on the wire, to the cloud's own alone.
//!
//! `cluster/hello` takes a [`Hello`]: where the caller is and which replica of the store it holds, for when it cannot
//! write that down itself because its replica is in no group yet. `cluster/health` takes nothing and answers with a
//! [`Health`]. Whom it is about is whose key the caller has proven to hold, never what it says.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use cairn_state::LocalStore;
use cairn_wire::remote::{Call, Limits, Outgoing, Refusal, Service};
use serde::{Deserialize, Serialize};

use super::change::{self, Error};

/// The name of the service on the wire.
pub const SERVICE: &str = "cluster";
/// How many addresses a hello may name.
const ADDRESSES_MAX: usize = 16;

/// A member says where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The number of its replica of the store.
    pub replica: u64,
    /// Where it can be reached by other nodes; none if it does not know.
    pub addresses: Vec<SocketAddr>,
}

/// How a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The number of its replica of the store.
    pub replica: u64,
    /// The last entry of the log that it has applied.
    pub applied: u64,
    /// The last entry of its log.
    pub last: u64,
    /// The generation of the store's group that it is of.
    pub generation: u64,
}

/// Serves `cluster` from this node's store.
pub struct MemberService {
    store: LocalStore,
}

impl MemberService {
    /// The service over this store.
    pub fn new(store: LocalStore) -> MemberService {
        MemberService { store }
    }

    async fn hello(&self, mut call: Call) -> Result<Outgoing, Refusal> {
        let hello: Hello = call.message().await?;
        if hello.addresses.len() > ADDRESSES_MAX {
            return Err(Refusal::invalid("too many addresses"));
        }
        let done = self
            .store
            .transact(|tx| change::heard_of(tx, call.peer.id, hello.addresses.clone(), Some(hello.replica)))
            .await;
        done.map_err(refused)?;
        Outgoing::message(&())
    }

    async fn health(&self, mut call: Call) -> Result<Outgoing, Refusal> {
        let () = call.message().await?;
        let status = self.store.status().map_err(|e| Refusal::unavailable(e.to_string()))?;
        let (replica, applied) = (status.node, status.applied);
        Outgoing::message(&Health { replica, applied, last: status.last, generation: status.generation })
    }
}

#[async_trait]
impl Service for MemberService {
    fn limits(&self) -> Limits {
        Limits { calls: 64, message_bytes: 4 << 10, answer: Duration::from_secs(20) }
    }

    async fn call(&self, call: Call) -> Result<Outgoing, Refusal> {
        match call.method.as_str() {
            "hello" => self.hello(call).await,
            "health" => self.health(call).await,
            _ => Err(call.unknown_method()),
        }
    }
}

fn refused(e: Error) -> Refusal {
    match e {
        Error::Store(e) => {
            tracing::warn!(error = %e, "the store failed while a member said hello");
            Refusal::unavailable("the cloud's store does not answer just now")
        }
        e => Refusal::invalid(e.to_string()),
    }
}
