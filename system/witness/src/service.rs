//! What the witness answers on the wire: `witness`, by which clouds are served, and `raft`, by which replicas of their
//! stores talk to each other.
//!
//! Only taking calls apart. Whoever has no code and is of no cloud that is served gets nothing.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cairn_cluster::witness::{Begin, Told};
use cairn_wire::remote::{Access, Call, Limits, Outgoing, Refusal, ReplicaService, Service};

use super::clouds::Clouds;

/// Serves `witness`.
pub struct WitnessService {
    clouds: Arc<Clouds>,
}

impl WitnessService {
    /// For these clouds.
    pub fn new(clouds: Arc<Clouds>) -> WitnessService {
        WitnessService { clouds }
    }
}

#[async_trait]
impl Service for WitnessService {
    /// Who has the code is not known here before.
    fn access(&self) -> Access {
        Access::Anyone
    }

    fn limits(&self) -> Limits {
        Limits { calls: 32, message_bytes: 1 << 20, answer: Duration::from_secs(30) }
    }

    async fn call(&self, mut call: Call) -> Result<Outgoing, Refusal> {
        let peer = call.peer.id;
        match call.method.as_str() {
            "begin" => {
                let Begin { secret, told } = call.message().await?;
                Outgoing::message(&self.clouds.begin(peer, &secret, told).await?)
            }
            "tell" => {
                let told: Told = call.message().await?;
                Outgoing::message(&self.clouds.tell(peer, told).await?)
            }
            "health" => {
                let () = call.message().await?;
                Outgoing::message(&self.clouds.health(peer).await?)
            }
            "end" => {
                let () = call.message().await?;
                Outgoing::message(&self.clouds.end(peer).await?)
            }
            _ => Err(call.unknown_method()),
        }
    }
}

/// Serves `raft`, each caller with the replica of its own cloud.
pub struct Replicas {
    clouds: Arc<Clouds>,
}

impl Replicas {
    /// For these clouds.
    pub fn new(clouds: Arc<Clouds>) -> Replicas {
        Replicas { clouds }
    }
}

#[async_trait]
impl Service for Replicas {
    fn limits(&self) -> Limits {
        ReplicaService::LIMITS
    }

    async fn call(&self, call: Call) -> Result<Outgoing, Refusal> {
        match self.clouds.replica(call.peer.id) {
            Some(replica) => ReplicaService::new(replica).call(call).await,
            None => Err(Refusal::forbidden("this witness does not know you")),
        }
    }
}
