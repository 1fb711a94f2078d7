//! Networks and subnets. Written by the controller alone.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cairn_state::{Index, Record};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{AddressRange, Route, Stamp};

/// How a network that isn't an overlay lies on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProviderKind {
    /// Untagged.
    Flat,
    /// Tagged with a VLAN id.
    Vlan,
}

/// A network's place on a physical network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provider {
    /// Untagged or tagged.
    pub kind: ProviderKind,
    /// The physical network; [`super::LAN`] is the only one.
    pub physical_network: String,
    /// The VLAN id, 1 to 4094, of a tagged one.
    pub vlan: Option<u16>,
}

/// A layer 2 network: an overlay with its VNI, or (with [`Network::provider`]) a piece of the real LAN.
/// Key `network/network/ID`. Writer: controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// A uuid.
    pub id: String,
    /// The project it belongs to.
    pub project_id: String,
    /// A name, not unique.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Whether it forwards at all.
    pub admin_state_up: bool,
    /// Whether every project may use it.
    pub shared: bool,
    /// Whether routers may have their gateway, and floating IPs their address, on it.
    pub external: bool,
    /// Whether it is the external network that is taken when none is named.
    pub is_default: bool,
    /// Whether ports made on it have security groups and anti-spoofing unless they say otherwise.
    pub port_security: bool,
    /// The VXLAN network identifier of an overlay, 1 to 2^24-1; 0 when there is a `provider`.
    pub segment: u32,
    /// Its place on a physical network; `None` for an overlay.
    pub provider: Option<Provider>,
    /// The largest packet, in bytes, that guests are told.
    pub mtu: u32,
    /// The domain name that guests are told, with a dot at the end, or empty.
    pub dns_domain: String,
    /// The nodes that have, or may still have, ports of it. They must report it gone before it is.
    pub hosts: BTreeSet<String>,
    /// A tombstone: to be removed from every node in `hosts`.
    pub deleted: bool,
    /// Words of the user's.
    pub tags: BTreeSet<String>,
    /// When, and how often changed.
    pub stamp: Stamp,
}

impl Record for Network {
    const KIND: &'static str = "network/network";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        // The wire stays taken until every node has let go of it, so a tombstone keeps these.
        let mut indexes = vec![match &self.provider {
            None => Index::unique("segment", self.segment.to_string()),
            Some(p) => Index::unique("provider", provider_value(&p.physical_network, p.vlan)),
        }];
        if self.deleted {
            indexes.push(Index::multi("deleted", "yes"));
            return indexes;
        }
        indexes.push(Index::multi("project", &self.project_id));
        if self.shared {
            indexes.push(Index::multi("shared", "yes"));
        }
        if self.external {
            indexes.push(Index::multi("external", "yes"));
        }
        indexes
    }
}

/// The value of the index `provider`: what may be used once per physical network.
pub fn provider_value(physical_network: &str, vlan: Option<u16>) -> String {
    match vlan {
        None => format!("{physical_network} untagged"),
        Some(vlan) => format!("{physical_network} VLAN {vlan}"),
    }
}

/// How guests of an IPv6 subnet get address and options (RFC 4861's A, M and O flags).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ipv6Mode {
    /// From router advertisements alone.
    Slaac,
    /// The address and options from DHCPv6.
    Dhcpv6Stateful,
    /// The address from router advertisements, options from DHCPv6.
    Dhcpv6Stateless,
}

/// A range of addresses of a network. Key `network/subnet/ID`. Writer: controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// A uuid.
    pub id: String,
    /// The project it belongs to.
    pub project_id: String,
    /// The network.
    pub network_id: String,
    /// A name, not unique.
    pub name: String,
    /// Free text.
    pub description: String,
    /// The addresses, with no host bits set.
    pub cidr: IpNet,
    /// The guests' default router, if they have one.
    pub gateway_ip: Option<IpAddr>,
    /// Where addresses are taken from when none is asked for; disjoint, in order.
    pub allocation_pools: Vec<AddressRange>,
    /// The name servers that guests are told; empty means the node's own answers on the DHCP port's address.
    pub dns_nameservers: Vec<IpAddr>,
    /// Routes that guests are told beside the default one.
    pub host_routes: Vec<Route>,
    /// Whether DHCP is answered (for IPv6: as the modes say).
    pub enable_dhcp: bool,
    /// What router advertisements of our own routers say.
    pub ipv6_ra_mode: Option<Ipv6Mode>,
    /// How addresses are made.
    pub ipv6_address_mode: Option<Ipv6Mode>,
    /// The pool its prefix was taken from.
    pub subnetpool_id: Option<String>,
    /// The kinds of port it is for (prefixes of `device_owner`); empty means all.
    pub service_types: Vec<String>,
    /// Words of the user's.
    pub tags: BTreeSet<String>,
    /// When, and how often changed.
    pub stamp: Stamp,
}

impl Subnet {
    /// 4 or 6.
    pub fn ip_version(&self) -> u8 {
        if self.cidr.addr().is_ipv4() { 4 } else { 6 }
    }

    /// Whether ports get the address that their MAC makes (RFC 4291, appendix A), as their guests will by
    /// themselves.
    pub fn is_auto_address(&self) -> bool {
        use Ipv6Mode::{Dhcpv6Stateless, Slaac};
        matches!(self.ipv6_address_mode, Some(Slaac | Dhcpv6Stateless))
            || (self.ipv6_address_mode.is_none()
                && matches!(self.ipv6_ra_mode, Some(Slaac | Dhcpv6Stateless)))
    }
}

impl Record for Subnet {
    const KIND: &'static str = "network/subnet";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        let mut indexes =
            vec![Index::multi("network", &self.network_id), Index::multi("project", &self.project_id)];
        indexes.extend(self.subnetpool_id.as_ref().map(|p| Index::multi("pool", p)));
        indexes
    }
}
