//! The records of the network service: what the controller wants, and what the agents of the nodes observed.
//!
//! What lives here: the records with their keys and indexes, and the pure functions that name what a record
//! becomes on a node (taps, bridges, namespaces). No decisions, no I/O. Controller and agent both build on it,
//! so a change of meaning here is a change of both.
//!
//! Who writes what: every record is written by the controller, except those of [`status`], which only the
//! network agent of the node they name writes.
//!
//! What an agent reads: a port belongs to a node when [`Port::host`] names it (and is made ready on the one that
//! [`Port::migrating_to`] names), a network when
//! [`Network::hosts`] holds it, a router when [`Router::host`] does. A tombstone (`deleted`) of one of these asks
//! that node to remove it and to report [`status::Phase::Gone`]; only then the controller removes the record.
//! A port whose `host` is another node or none is not wanted here. Everything else (subnets, addresses, floating
//! IPs, rules) needs no tombstone: it is the content of a network, port or router, and is recomputed whole.

pub mod alloc;
pub mod dhcp;
pub mod metadata;
pub mod network;
pub mod pool;
pub mod port;
pub mod quota;
pub mod router;
pub mod security;
pub mod status;
pub mod virtual_address;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use metadata::ServerMetadata;
pub use network::{Ipv6Mode, Network, Provider, ProviderKind, Subnet};
pub use pool::{AddressScope, SubnetPool};
pub use port::{AddressPair, DhcpOption, FixedIp, Port, owner};
pub use router::{ExternalGateway, FloatingIp, Router, RouterLoad};
pub use security::{Direction, Ethertype, SecurityGroup, SecurityGroupRule};
pub use status::{HostStatus, NetworkStatus, Phase, PortPrepared, PortStatus, RouterStatus};
pub use virtual_address::VirtualAddress;

/// The name of the physical network that is the node's real LAN.
pub const LAN: &str = "lan";

/// The bridge of a node that its physical NIC is in; made by the node's bring-up, not by the network agent.
pub const LAN_BRIDGE: &str = "lan0";

/// When a record was made and last changed, and how often. [`Stamp::revision`] is also its generation: an agent
/// reports the one it acted on, and refuses an older one than it knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// How many changes it has had, from 1 on.
    pub revision: u64,
}

impl Stamp {
    /// The stamp of a record made now.
    pub fn new(now: Timestamp) -> Stamp {
        Stamp { created_at: now, updated_at: now, revision: 1 }
    }

    /// Counts a change.
    pub fn touch(&mut self, now: Timestamp) {
        self.updated_at = now;
        self.revision += 1;
    }
}

/// A static route: of a router, or told to the guests of a subnet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Route {
    /// Where to.
    pub destination: ipnet::IpNet,
    /// By way of which address.
    pub nexthop: std::net::IpAddr,
}

/// A range of addresses, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AddressRange {
    /// The first address.
    pub start: std::net::IpAddr,
    /// The last address.
    pub end: std::net::IpAddr,
}

/// `prefix` and the beginning of an id, within the kernel's 15 bytes for an interface's name.
fn device_name(prefix: &str, id: &str) -> String {
    let room = 11.min(15 - prefix.len());
    format!("{prefix}{}", id.chars().take(room).collect::<String>())
}

/// The tap device of a port, as its guest's machine names it.
pub fn tap_name(port_id: &str) -> String {
    device_name("tap", port_id)
}

/// The bridge of a network on a node.
pub fn bridge_name(network_id: &str) -> String {
    device_name("br", network_id)
}

/// The tunnel of a network's bridge to the other nodes.
pub fn tunnel_name(network_id: &str) -> String {
    device_name("vx", network_id)
}

/// The namespace in which a node answers a network's DHCP, metadata and DNS.
pub fn netns_name(network_id: &str) -> String {
    format!("net-{network_id}")
}

/// The namespace of a router.
pub fn router_netns(router_id: &str) -> String {
    format!("rtr-{router_id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names_fit_the_kernel() {
        let id = "0f8fad5b-d9cb-469f-a165-70867728950e";
        assert_eq!(tap_name(id), "tap0f8fad5b-d9");
        assert_eq!(bridge_name(id), "br0f8fad5b-d9");
        for name in [tap_name(id), bridge_name(id), tunnel_name(id)] {
            assert!(name.len() <= 15, "{name}");
        }
        assert_eq!(router_netns(id), format!("rtr-{id}"));
    }
}
