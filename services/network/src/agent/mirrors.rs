//! What the agent follows of the store.

use std::path::Path;

use cairn_state::{Mirror, SharedStore};
use tokio::sync::watch;

use super::desired::{Records, World};
use crate::model::{
    FloatingIp, Network, NetworkStatus, Port, PortStatus, Router, RouterStatus, SecurityGroup,
    SecurityGroupRule, ServerMetadata, Subnet,
};

/// A copy of each kind of record that concerns a node's network.
#[derive(Clone)]
pub struct Mirrors {
    networks: Mirror<Network>,
    subnets: Mirror<Subnet>,
    ports: Mirror<Port>,
    routers: Mirror<Router>,
    floating_ips: Mirror<FloatingIp>,
    groups: Mirror<SecurityGroup>,
    rules: Mirror<SecurityGroupRule>,
    /// What guests are told about themselves.
    pub metadata: Mirror<ServerMetadata>,
    /// What was last reported of ports.
    pub port_status: Mirror<PortStatus>,
    /// What was last reported of networks.
    pub network_status: Mirror<NetworkStatus>,
    /// What was last reported of routers.
    pub router_status: Mirror<RouterStatus>,
}

impl Mirrors {
    /// Starts to follow. What decides the datapath is kept in `ledger` too, so that it can be made without the
    /// controller; what was reported is not, for it is only compared with the store.
    pub async fn start(store: &SharedStore, ledger: &Path) -> Mirrors {
        let (store, kept) = (|| store.clone(), Some(ledger));
        Mirrors {
            networks: Mirror::start(store(), kept).await,
            subnets: Mirror::start(store(), kept).await,
            ports: Mirror::start(store(), kept).await,
            routers: Mirror::start(store(), kept).await,
            floating_ips: Mirror::start(store(), kept).await,
            groups: Mirror::start(store(), kept).await,
            rules: Mirror::start(store(), kept).await,
            metadata: Mirror::start(store(), kept).await,
            port_status: Mirror::start(store(), None).await,
            network_status: Mirror::start(store(), None).await,
            router_status: Mirror::start(store(), None).await,
        }
    }

    /// What a pass is woken by. (Metadata is read when it is asked for.)
    pub fn wakes(&self) -> Vec<watch::Receiver<u64>> {
        vec![
            self.networks.changes(),
            self.subnets.changes(),
            self.ports.changes(),
            self.routers.changes(),
            self.floating_ips.changes(),
            self.groups.changes(),
            self.rules.changes(),
        ]
    }

    /// Whether everything that decides the datapath is the store's own.
    pub fn synced(&self) -> bool {
        self.networks.synced()
            && self.subnets.synced()
            && self.ports.synced()
            && self.routers.synced()
            && self.floating_ips.synced()
            && self.groups.synced()
            && self.rules.synced()
    }

    /// Whether what was reported before is known.
    pub fn reports_synced(&self) -> bool {
        self.port_status.synced() && self.network_status.synced() && self.router_status.synced()
    }

    /// Waits until the store has been read, so that a first pass does not act on half of it.
    pub async fn wait_synced(&self) {
        self.networks.wait_synced().await;
        self.subnets.wait_synced().await;
        self.ports.wait_synced().await;
        self.routers.wait_synced().await;
        self.floating_ips.wait_synced().await;
        self.groups.wait_synced().await;
        self.rules.wait_synced().await;
        self.port_status.wait_synced().await;
        self.network_status.wait_synced().await;
        self.router_status.wait_synced().await;
    }

    /// The records, indexed.
    pub fn world(&self) -> World {
        World::new(Records {
            networks: self.networks.all(),
            subnets: self.subnets.all(),
            ports: self.ports.all(),
            routers: self.routers.all(),
            floating_ips: self.floating_ips.all(),
            groups: self.groups.all(),
            rules: self.rules.all(),
        })
    }
}
