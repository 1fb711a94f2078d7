//! Every service of the cloud, over one store.

use std::sync::Arc;

use axum::Router;
use cairn_cluster::Alive;
use cairn_gateway::Mount;
use cairn_node::Paths;
use cairn_state::LocalStore;
use tokio::task::JoinSet;

use super::address;
use super::cluster::Cluster;
use super::liveness;
use super::opening::REGION;
use super::removal;
use crate::appliance::{self, Appliance};
use crate::maintenance;
use crate::roles::neighbours::{COMPUTE_PORT, Names, neighbours};

/// Every service of the cloud. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    /// Identity, which knows whose token it is.
    pub identity: Arc<cairn_identity::Service>,
    image: Arc<cairn_image::Service>,
    placement: Arc<cairn_placement::Service>,
    network: Arc<cairn_network::Service>,
    block: Arc<cairn_block::Service>,
    compute: Arc<cairn_compute::Service>,
    store: LocalStore,
    node: String,
}

impl Services {
    /// The services over this node's store.
    pub fn new(cluster: &Cluster) -> Services {
        let (paths, store) = (cluster.paths(), &cluster.store);
        let data = Arc::new(cairn_shards::data::Client::new(paths.run.join("storage.sock")));
        Services {
            identity: cairn_identity::Service::new(store.clone()),
            image: cairn_image::Service::among(
                store.clone(),
                cluster.name.clone(),
                data,
                cluster.run.clone(),
                lives(store.clone()),
            ),
            placement: cairn_placement::Service::new(store.clone()),
            network: cairn_network::Service::new(store.clone()),
            block: cairn_block::Service::new(store.clone()),
            compute: cairn_compute::Service::with_leases(
                store.clone(),
                paths.run.join("compute.sock"),
                Arc::new(|tx, node| Ok(tx.get::<Alive>(node)?.is_some())),
            ),
            store: store.clone(),
            node: cluster.name.clone(),
        }
    }

    /// Finds the compute agents of other nodes, for console logs and diagnostics of guests there. Once.
    pub async fn reach_others(self, paths: Paths, node: String) {
        let others = neighbours(&paths, "controller", COMPUTE_PORT).await;
        let (peers, book) = (others.peers.clone(), Arc::new(Names(others)));
        self.compute.reach(cairn_compute::Others { node, peers, book });
    }

    /// Their places under the endpoint.
    pub fn mounts(&self, appliance: &Arc<Appliance>) -> Vec<Mount> {
        vec![
            cairn_identity::mount(&self.identity),
            cairn_image::mount(&self.image),
            cairn_placement::mount(&self.placement),
            cairn_network::mount(&self.network),
            cairn_block::mount(&self.block),
            cairn_compute::mount(&self.compute),
            appliance::mount(appliance),
        ]
    }

    /// What the appliance's API does with servers.
    pub fn maintenance(&self) -> Router {
        maintenance::router(&self.compute)
    }

    /// Their work in the background, which one node does for all.
    pub fn conductors(&self) -> JoinSet<()> {
        let mut work = JoinSet::new();
        work.spawn(complete(self.store.clone()));
        work.spawn(removal::sweep(self.store.clone()));
        work.spawn(address::hold(self.store.clone(), self.node.clone()));
        work.spawn(cairn_identity::conductor(self.identity.clone()));
        work.spawn(cairn_image::conductor(self.image.clone()));
        work.spawn(cairn_network::conductor_with(self.network.clone(), liveness::fallen()));
        work.spawn(cairn_shards::conductor::conductor(
            self.store.clone(),
            liveness::census(self.store.clone()),
        ));
        work.spawn(cairn_block::conductor(self.block.clone()));
        work.spawn(cairn_compute::conductor(self.compute.clone()));
        work
    }
}

/// Whether a run of a controller is one that a node is in touch with the cloud by.
fn lives(store: LocalStore) -> cairn_image::Lives {
    Arc::new(move |run| {
        let alive = store.read(|tx| tx.list_unfenced::<Alive>());
        // What cannot be read is not called dead.
        alive.map_or(true, |alive: Vec<Alive>| alive.iter().any(|alive| alive.run == run))
    })
}

/// Adds what a newer release wants of every cloud from the beginning.
async fn complete(store: LocalStore) {
    if let Err(e) = cairn_identity::bootstrap(&store, None, REGION).await {
        tracing::warn!(error = %e, "the catalog could not be completed");
    }
}
