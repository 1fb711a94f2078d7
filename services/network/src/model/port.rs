//! Ports: where a guest, a router or a service touches a network. Written by the controller alone.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cairn_state::{Index, Record};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Stamp;

/// Who a port is for: the values of [`Port::device_owner`] that the cloud itself gives.
pub mod owner {
    /// A guest's; the availability zone's name follows.
    pub const COMPUTE: &str = "compute:";
    /// Where a router meets a network of its project: the port's address is the router's there.
    pub const ROUTER_INTERFACE: &str = "network:router_interface";
    /// Where a router meets its external network.
    pub const ROUTER_GATEWAY: &str = "network:router_gateway";
    /// The address at which DHCP, DNS and metadata are answered, the same one on every node.
    pub const DHCP: &str = "network:dhcp";
    /// Holds a floating IP's address on the external network; nothing is plugged.
    pub const FLOATING_IP: &str = "network:floatingip";
}

/// An address of a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FixedIp {
    /// The subnet it is of.
    pub subnet_id: String,
    /// The address.
    pub ip: IpAddr,
}

/// A source that anti-spoofing lets pass beside the port's own addresses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AddressPair {
    /// The addresses.
    pub ip: IpNet,
    /// The MAC they come from, in lower case with colons.
    pub mac: String,
}

/// An option that DHCP tells this port's guest beside the usual ones.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DhcpOption {
    /// The option's name as dnsmasq knows it, or its number; see [`super::dhcp`].
    pub name: String,
    /// Its value.
    pub value: String,
    /// 4 or 6.
    pub ip_version: u8,
}

/// A port. Key `network/port/ID`. Writer: controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// A uuid.
    pub id: String,
    /// The project it belongs to; empty for a floating IP's.
    pub project_id: String,
    /// The network it is on.
    pub network_id: String,
    /// A name, not unique.
    pub name: String,
    /// Free text.
    pub description: String,
    /// In lower case with colons; unique in the network.
    pub mac: String,
    /// Its addresses, each used once in its subnet.
    pub fixed_ips: Vec<FixedIp>,
    /// The server, router or other thing it is for; empty when for none.
    pub device_id: String,
    /// What kind of thing that is; see [`owner`].
    pub device_owner: String,
    /// Whether it forwards at all.
    pub admin_state_up: bool,
    /// The ids of its security groups, in order, none twice.
    pub security_groups: Vec<String>,
    /// Whether security groups and anti-spoofing hold for it. Never for the ports of routers and services.
    pub port_security: bool,
    /// Further sources that anti-spoofing lets pass.
    pub allowed_address_pairs: Vec<AddressPair>,
    /// Further DHCP options.
    pub dhcp_options: Vec<DhcpOption>,
    /// The guest's host name as DNS and DHCP tell it; empty for none.
    pub dns_name: String,
    /// The node it is plugged on. A router's ports follow the router; DHCP and floating IP ports have none.
    pub host: Option<String>,
    /// The node it was plugged on before it was unbound.
    pub prior_host: Option<String>,
    /// The node it is about to move to, because its guest does: that node makes its tap and rules ready, while the
    /// traffic still goes to `host`.
    #[serde(default)]
    pub migrating_to: Option<String>,
    /// Free data of an administrator's (`binding:profile`).
    pub binding_profile: serde_json::Map<String, serde_json::Value>,
    /// Whether compute made it for its server, and so removes it with it.
    pub made_for_server: bool,
    /// A tombstone: `host` is to unplug it. Its addresses and MAC are free again.
    pub deleted: bool,
    /// Words of the user's.
    pub tags: BTreeSet<String>,
    /// When, and how often changed. The revision is the generation that an agent reports.
    pub stamp: Stamp,
}

impl Port {
    /// The number that an agent reports when it has acted on this state of the port.
    pub fn generation(&self) -> u64 {
        self.stamp.revision
    }

    /// Whether it is, or is about to be, plugged on this node.
    pub fn is_on(&self, node: &str) -> bool {
        [&self.host, &self.migrating_to].into_iter().any(|h| h.as_deref() == Some(node))
    }

    /// Whether a router holds it.
    pub fn is_router_port(&self) -> bool {
        self.device_owner == owner::ROUTER_INTERFACE || self.device_owner == owner::ROUTER_GATEWAY
    }

    /// Whether it is one of the cloud's own, which goes with its network or router and not by itself.
    pub fn is_service_port(&self) -> bool {
        self.device_owner.starts_with("network:")
    }

    /// Whether a guest holds it, so that it has a tap.
    pub fn is_guest_port(&self) -> bool {
        self.device_owner.starts_with(owner::COMPUTE)
    }
}

/// The value of the unique index `address`.
pub fn address_value(subnet_id: &str, ip: &IpAddr) -> String {
    format!("{subnet_id} {ip}")
}

/// The value of the unique index `mac`.
pub fn mac_value(network_id: &str, mac: &str) -> String {
    format!("{network_id} {mac}")
}

impl Record for Port {
    const KIND: &'static str = "network/port";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        if self.deleted {
            return vec![Index::multi("deleted", "yes")];
        }
        let mut indexes = vec![
            Index::multi("network", &self.network_id),
            Index::multi("project", &self.project_id),
            Index::unique("mac", mac_value(&self.network_id, &self.mac)),
        ];
        if !self.device_id.is_empty() {
            indexes.push(Index::multi("device", &self.device_id));
        }
        indexes.extend(self.security_groups.iter().map(|g| Index::multi("group", g)));
        for fixed in &self.fixed_ips {
            indexes.push(Index::unique("address", address_value(&fixed.subnet_id, &fixed.ip)));
            let subnet = Index::multi("subnet", &fixed.subnet_id);
            if !indexes.contains(&subnet) {
                indexes.push(subnet);
            }
            let ip = Index::multi("ip", fixed.ip.to_string());
            if !indexes.contains(&ip) {
                indexes.push(ip);
            }
            let routed = Index::multi("routed", &fixed.subnet_id);
            if self.device_owner == owner::ROUTER_INTERFACE && !indexes.contains(&routed) {
                indexes.push(routed);
            }
        }
        indexes
    }
}
