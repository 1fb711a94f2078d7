//! What a node should look like, from the records alone. Pure: no clock, no I/O, the same world makes the same
//! node.
//!
//! [`World`] is what the agent knows of the store, [`Desired`] what is to be there. [`network`] makes bridges,
//! taps and the namespaces that answer DHCP, [`router`] makes routers, [`tunnel`] the ways to other nodes,
//! [`policy`] makes what is filtered.

mod network;
mod policy;
mod router;
mod tunnel;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cairn_state::Fault;
use ipnet::IpNet;

pub use world::{Records, World};

use super::advertise::Advert;
use super::dhcp::Scope;
use super::dns::Audience;
use super::mac::Mac;
use super::metadata::Tenants;
use super::tunnel::Tunnel;

/// The address that guests find their metadata at.
pub const METADATA_IP: std::net::Ipv4Addr = std::net::Ipv4Addr::new(169, 254, 169, 254);

/// What decides beside the records what this node is to look like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Here {
    /// The node.
    pub node: String,
    /// The address at which its tunnels end, if it has one.
    pub tunnel: Option<IpAddr>,
    /// Whether others may take over what it did for all: then its routers reach nothing outside any more.
    pub fenced: bool,
}

/// What should be on this node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Desired {
    /// Bridges in the node's namespace.
    pub bridges: BTreeMap<String, Bridge>,
    /// Taps in the node's namespace.
    pub taps: BTreeMap<String, Tap>,
    /// Tunnels in the node's namespace.
    pub tunnels: BTreeMap<String, Tunnel>,
    /// The addresses that tunnels come from.
    pub peers: BTreeSet<IpAddr>,
    /// Namespaces.
    pub spaces: BTreeMap<String, Space>,
    /// The node's rules, as nftables text.
    pub ruleset: String,
    /// What is to be reported about each port that is bound here.
    pub ports: BTreeMap<String, PortWant>,
    /// The same of each that is about to move here.
    pub prepared: BTreeMap<String, PortWant>,
    /// The networks that are here: id, and the generation they come from.
    pub networks: BTreeMap<String, u64>,
    /// The routers that are here: id, and the generation they come from.
    pub routers: BTreeMap<String, u64>,
    /// What the records ask for that cannot be.
    pub faults: Vec<Fault>,
}

/// A network's bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// In bytes.
    pub mtu: u32,
    /// Whether its packets pass the inet rules.
    pub filtered: bool,
    /// Its way to the wire.
    pub uplink: Uplink,
}

/// A bridge's way to the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Uplink {
    /// None: an overlay.
    None,
    /// A veth to the bridge of the physical network.
    Patch {
        /// The end in this bridge.
        here: String,
        /// The end in the other.
        there: String,
        /// The other bridge.
        parent: String,
    },
    /// A VLAN interface on the bridge of the physical network.
    Tagged {
        /// The VLAN interface.
        link: String,
        /// What it is on.
        parent: String,
        /// 1 to 4094.
        vlan: u16,
    },
}

impl Uplink {
    /// The link in the bridge that leads there.
    pub fn link(&self) -> Option<&str> {
        match self {
            Uplink::None => None,
            Uplink::Patch { here: link, .. } | Uplink::Tagged { link, .. } => Some(link),
        }
    }
}

/// A guest's tap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tap {
    /// The bridge it is in.
    pub bridge: String,
    /// In bytes.
    pub mtu: u32,
    /// Whether it forwards.
    pub up: bool,
}

/// A namespace: of a network (DHCP, DNS, metadata) or a router.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Space {
    /// Its veths, by the name they have inside.
    pub links: BTreeMap<String, Veth>,
    /// Addresses of its loopback beside the usual.
    pub loopback: BTreeSet<IpNet>,
    /// Its static routes.
    pub routes: BTreeSet<StaticRoute>,
    /// Whether it forwards between its links.
    pub forwarding: bool,
    /// Its rules, as nftables text.
    pub ruleset: Option<String>,
    /// What DHCP answers in it.
    pub scope: Option<Scope>,
    /// Whether DNS is answered in it, and whom.
    pub dns: Option<Audience>,
    /// What is advertised to IPv6 guests, by link.
    pub adverts: BTreeMap<String, Advert>,
    /// Which server asks for metadata, by the address it asks from.
    pub tenants: Tenants,
}

/// A veth into a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Veth {
    /// The node's end.
    pub outer: String,
    /// The bridge that end is in.
    pub bridge: String,
    /// The inner end's MAC.
    pub mac: Mac,
    /// In bytes.
    pub mtu: u32,
    /// Whether it forwards.
    pub up: bool,
    /// The inner end's addresses.
    pub addresses: BTreeSet<IpNet>,
}

/// A route of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StaticRoute {
    /// Where to.
    pub destination: IpNet,
    /// By way of which address.
    pub via: IpAddr,
}

/// What is to be reported about a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortWant {
    /// The generation that this comes from.
    pub generation: u64,
    /// Its device in the node's namespace.
    pub device: String,
    /// The bridge that device is to be in.
    pub bridge: String,
    /// Whether it is a guest's tap.
    pub tap: bool,
    /// Whether it is to forward.
    pub up: bool,
}

/// What this node should look like.
pub fn desired(world: &World, here: &Here) -> Desired {
    let mut out = Desired::default();
    let ports = world.here(&here.node);
    network::add(world, &here.node, &ports, &mut out);
    router::add(world, here, &mut out);
    tunnel::add(world, here, &mut out);
    out.ruleset = policy::policy(world, &ports, &out).render();
    out
}

/// The bridge that ports of a router or service on this network plug into.
fn service_bridge(network: &crate::model::Network) -> String {
    use crate::model::{LAN_BRIDGE, ProviderKind, bridge_name};
    match &network.provider {
        // One hop less, and nothing of the LAN's own traffic passes a filter.
        Some(p) if p.kind == ProviderKind::Flat => LAN_BRIDGE.to_owned(),
        _ => bridge_name(&network.id),
    }
}
