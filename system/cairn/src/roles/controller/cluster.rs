//! This node as a member of its cloud: its replica of the store, its end of connections, what it keeps, and the
//! duties that go on as long as it runs.
//!
//! It holds what the duties share and starts them; each duty is a file of its own, driven by state alone, and may be
//! stopped anywhere.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use cairn_cluster::join;
use cairn_cluster::membership::service::{self, MemberService};
use cairn_cluster::{Belonging, NodeKey, join::service::JoinService};
use cairn_node::Paths;
use cairn_node::told::{self, Standing};
use cairn_state::{LocalStore, Status};
use cairn_wire::remote::{
    Endpoint, PeerId, Peers, REPLICAS, ReplicaNetwork, ReplicaService, Services, Trust, TrustSet, Versions,
};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::given::Given;
use super::kept::{self, Kept};
use super::names::Names;
use super::opening::{Opened, Opening};
use super::surroundings::{Sight, Surroundings};
use super::{alive, announce, giving_way, hello, listening, members, voters};

/// A member of a cloud.
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub id: PeerId,
    /// Its key.
    pub key: NodeKey,
    /// Its replica of the store.
    pub store: LocalStore,
    /// The other nodes, for calls of this process.
    pub peers: Peers,
    /// Which key is behind which replica.
    pub names: Names,
    /// This run of the process.
    pub run: String,
    around: Surroundings,
    endpoint: Endpoint,
    /// This node's end of connections to clouds that it is not of: it trusts nobody.
    stranger: Endpoint,
    /// The other nodes, for the store: its connections live on its own runtime.
    store_peers: Peers,
    kept: Mutex<Kept>,
}

impl Cluster {
    /// Becomes a member, or goes on as one. It returns when this node is of a cloud, however long that takes.
    pub async fn enter(around: Surroundings, given: Given) -> Result<Arc<Cluster>> {
        let id = given.key.id();
        let credentials = given.key.credentials(given.key.self_signed()?)?;
        let end = |credentials| {
            let trust = Trust::new(TrustSet::default());
            Endpoint { credentials, trust, versions: Versions::OURS }
        };
        let stranger = end(given.key.credentials(given.key.self_signed()?)?);
        let endpoint = end(credentials);
        let (names, store_peers) = (Names::default(), Peers::new(endpoint.clone()));
        let network = Arc::new(ReplicaNetwork::new(store_peers.clone(), names.who_is()));
        giving_way::tell(&around.paths)?;
        // What is kept is known before the store is opened, whose replica may call others at once.
        if let Some(kept) = kept::load(&around.paths)? {
            trust_in(&endpoint, &names, &kept.belonging)?;
        }
        let opening = Opening { around: &around, given: &given, stranger: &stranger, network };
        let Opened { store, kept } = opening.open().await?;
        trust_in(&endpoint, &names, &kept.belonging)?;
        let standing = if kept.founded { Standing::Founded } else { Standing::Joined };
        told::tell_cloud(&around.paths, &kept.belonging.cloud, standing)
            .context("the cloud's id cannot be told to the node role")?;
        let peers = Peers::new(endpoint.clone());
        let (name, run) = (given.key.name(), uuid::Uuid::new_v4().to_string());
        let kept = Mutex::new(kept);
        let cluster = Cluster {
            name,
            id,
            key: given.key,
            store,
            peers,
            names,
            run,
            around,
            endpoint,
            stranger,
            store_peers,
            kept,
        };
        members::refresh(&cluster)?;
        Ok(Arc::new(cluster))
    }

    /// Listens for other nodes and starts all duties. They end when the set is dropped.
    pub async fn start(self: &Arc<Cluster>) -> Result<JoinSet<()>> {
        let mut duties = JoinSet::new();
        duties.spawn(listening::serve(self.around.listen, self.endpoint.clone(), self.services())?);
        duties.spawn(members::follow(self.clone()));
        duties.spawn(hello::run(self.clone()));
        duties.spawn(alive::run(self.clone()));
        duties.spawn(voters::run(self.clone()));
        duties.spawn(announce::run(self.clone()));
        Ok(duties)
    }

    fn services(&self) -> Services {
        Services::new()
            .with(REPLICAS, Arc::new(ReplicaService::new(self.store.endpoint())))
            .with(join::SERVICE, Arc::new(JoinService::new(self.store.clone(), self.id)))
            .with(service::SERVICE, Arc::new(MemberService::new(self.store.clone())))
    }

    /// Its end of connections as a member.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Its end of connections to clouds that it is not of.
    pub fn stranger(&self) -> &Endpoint {
        &self.stranger
    }

    /// Its folders.
    pub fn paths(&self) -> &Paths {
        &self.around.paths
    }

    /// What is around it.
    pub fn around(&self) -> &Surroundings {
        &self.around
    }

    /// Who else is on its links.
    pub fn sight(&self) -> &dyn Sight {
        &*self.around.sight
    }

    /// Its own addresses.
    pub fn addresses(&self) -> watch::Receiver<Vec<IpAddr>> {
        self.around.addresses.clone()
    }

    /// What it keeps.
    pub fn kept(&self) -> Kept {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether its replica leads the group.
    pub fn leads(&self) -> bool {
        self.store.status().is_ok_and(|status| leads(&status))
    }

    /// Keeps this from now on, and trusts whom it says.
    pub fn keep(&self, belonging: Belonging) -> Result<()> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.belonging == belonging {
            return Ok(());
        }
        trust_in(&self.endpoint, &self.names, &belonging)?;
        let next = Kept { belonging, ..*kept };
        kept::save(&self.around.paths, &next)?;
        *kept = next;
        Ok(())
    }

    /// Calls members at these addresses from now on, and nobody else.
    pub fn call_at(&self, belonging: &Belonging) {
        for peers in [&self.peers, &self.store_peers] {
            let known = || belonging.members.iter().chain(&belonging.witness);
            for pin in known() {
                peers.set_addresses(pin.id, pin.addresses.clone());
            }
            peers.keep_only(|id| known().any(|pin| pin.id == *id));
        }
    }
}

/// Whether the replica of this status leads.
pub fn leads(status: &Status) -> bool {
    status.leader == Some(status.node)
}

fn trust_in(endpoint: &Endpoint, names: &Names, belonging: &Belonging) -> Result<()> {
    endpoint.credentials.replace(belonging.certificate.der())?;
    endpoint.trust.replace(belonging.trust());
    names.set_pins(&belonging.members);
    Ok(())
}
