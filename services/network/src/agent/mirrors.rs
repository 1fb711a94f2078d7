//! What the agent follows of the store.

use std::path::Path;

use cairn_state::{Mirror, SharedStore};
use tokio::sync::watch;

use super::desired::{Records, World};
use super::tunnel::End;
use crate::model::{
    FloatingIp, HostStatus, Network, NetworkStatus, Port, PortPrepared, PortStatus, Router, RouterStatus,
    SecurityGroup, SecurityGroupRule, ServerMetadata, Subnet,
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
    hosts: Mirror<HostStatus>,
    /// What guests are told about themselves.
    pub metadata: Mirror<ServerMetadata>,
    /// What was last reported of ports.
    pub port_status: Mirror<PortStatus>,
    /// What was last reported of ports that are about to come.
    pub port_prepared: Mirror<PortPrepared>,
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
            hosts: Mirror::start(store(), kept).await,
            metadata: Mirror::start(store(), kept).await,
            port_status: Mirror::start(store(), None).await,
            port_prepared: Mirror::start(store(), None).await,
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
            self.ends(),
        ]
    }

    /// A counter that grows when a node's tunnels end elsewhere than before: its heartbeats alone wake nobody. The
    /// task ends with the receiver.
    fn ends(&self) -> watch::Receiver<u64> {
        let (changed, receiver) = watch::channel(0);
        let (hosts, mut told) = (self.hosts.clone(), self.hosts.changes());
        tokio::spawn(async move {
            let ends = |hosts: &Mirror<HostStatus>| -> Vec<_> {
                hosts.all().iter().map(|h| (h.node.clone(), h.tunnel_ip)).collect()
            };
            let mut known = ends(&hosts);
            while !changed.is_closed() && told.changed().await.is_ok() {
                let now = ends(&hosts);
                if now != known {
                    known = now;
                    changed.send_modify(|n| *n += 1);
                }
            }
        });
        receiver
    }

    /// A node's side of its tunnels, as it said last.
    pub fn end_of(&self, node: &str) -> Option<End> {
        let host = self.hosts.get(node)?;
        host.tunnel_ip.map(|ip| End { ip, mtu: host.tunnel_mtu })
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
            && self.hosts.synced()
    }

    /// Whether what was reported before is known.
    pub fn reports_synced(&self) -> bool {
        self.port_status.synced()
            && self.port_prepared.synced()
            && self.network_status.synced()
            && self.router_status.synced()
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
        self.hosts.wait_synced().await;
        self.port_prepared.wait_synced().await;
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
            hosts: self.hosts.all(),
        })
    }
}
