//! What the agent knows of the store, indexed once so that nothing below scans.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::model::{
    FixedIp, FloatingIp, HostStatus, Network, Port, Router, SecurityGroup, SecurityGroupRule, Subnet, owner,
};

/// The records that decide what a node looks like.
#[derive(Debug, Default)]
pub struct World {
    /// Networks by id.
    pub networks: BTreeMap<String, Arc<Network>>,
    /// Subnets by id.
    pub subnets: BTreeMap<String, Arc<Subnet>>,
    /// Ports in id order.
    pub ports: Vec<Arc<Port>>,
    /// Routers by id.
    pub routers: BTreeMap<String, Arc<Router>>,
    /// Floating IPs by router.
    pub floating_ips: BTreeMap<String, Vec<Arc<FloatingIp>>>,
    /// Rules by group; a group without rules has an empty list.
    pub rules: BTreeMap<String, Vec<SecurityGroupRule>>,
    /// The nodes that have spoken, each with the address its tunnels end at.
    pub hosts: BTreeMap<String, Option<IpAddr>>,
    by_network: BTreeMap<String, Vec<usize>>,
    by_device: BTreeMap<String, Vec<usize>>,
    dhcp: BTreeMap<String, usize>,
    public: BTreeMap<(String, IpAddr), Ipv4Addr>,
}

/// The records as the store has them.
#[derive(Debug, Default)]
pub struct Records {
    /// All networks.
    pub networks: Vec<Arc<Network>>,
    /// All subnets.
    pub subnets: Vec<Arc<Subnet>>,
    /// All ports.
    pub ports: Vec<Arc<Port>>,
    /// All routers.
    pub routers: Vec<Arc<Router>>,
    /// All floating IPs.
    pub floating_ips: Vec<Arc<FloatingIp>>,
    /// All security groups.
    pub groups: Vec<Arc<SecurityGroup>>,
    /// All their rules.
    pub rules: Vec<Arc<SecurityGroupRule>>,
    /// All nodes.
    pub hosts: Vec<Arc<HostStatus>>,
}

impl World {
    /// Indexes the records.
    pub fn new(records: Records) -> World {
        let mut world = World {
            networks: records.networks.into_iter().map(|n| (n.id.clone(), n)).collect(),
            subnets: records.subnets.into_iter().map(|s| (s.id.clone(), s)).collect(),
            ports: records.ports,
            routers: records.routers.into_iter().map(|r| (r.id.clone(), r)).collect(),
            hosts: records.hosts.iter().map(|h| (h.node.clone(), h.tunnel_ip)).collect(),
            ..World::default()
        };
        for fip in records.floating_ips {
            if let (Some(port), Some(fixed), IpAddr::V4(outer)) =
                (&fip.port_id, fip.fixed_ip_address, fip.floating_ip_address)
            {
                world.public.insert((port.clone(), fixed), outer);
            }
            if let Some(router) = &fip.router_id {
                world.floating_ips.entry(router.clone()).or_default().push(fip);
            }
        }
        world.rules.extend(records.groups.iter().map(|g| (g.id.clone(), Vec::new())));
        for rule in records.rules {
            if let Some(rules) = world.rules.get_mut(&rule.security_group_id) {
                rules.push(rule.as_ref().clone());
            }
        }
        for (at, port) in world.ports.iter().enumerate().filter(|(_, p)| !p.deleted) {
            world.by_network.entry(port.network_id.clone()).or_default().push(at);
            if port.is_router_port() {
                world.by_device.entry(port.device_id.clone()).or_default().push(at);
            } else if port.device_owner == owner::DHCP {
                world.dhcp.insert(port.network_id.clone(), at);
            }
        }
        world
    }

    /// The guests' ports that are bound to `node`, or about to move there, by network. Ports of networks that are
    /// unknown or going are not among them.
    pub fn here(&self, node: &str) -> BTreeMap<&str, Vec<&Port>> {
        let mut here: BTreeMap<&str, Vec<&Port>> = BTreeMap::new();
        let bound = |p: &&Arc<Port>| !p.deleted && p.is_on(node) && !p.is_service_port();
        for port in self.ports.iter().filter(bound) {
            if self.network(&port.network_id).is_some() {
                here.entry(&port.network_id).or_default().push(port);
            }
        }
        here
    }

    /// A network that is not going away.
    pub fn network(&self, id: &str) -> Option<&Network> {
        self.networks.get(id).map(Arc::as_ref).filter(|n| !n.deleted)
    }

    /// A port.
    pub fn port(&self, id: &str) -> Option<&Port> {
        let at = self.ports.binary_search_by(|p| p.id.as_str().cmp(id)).ok()?;
        self.ports.get(at).map(AsRef::as_ref)
    }

    /// The ports of a network.
    pub fn ports_of(&self, network: &str) -> impl Iterator<Item = &Port> {
        self.by_network.get(network).into_iter().flatten().map(|at| self.ports[*at].as_ref())
    }

    /// The address at which a node's tunnels end, if it can be reached from `local`.
    pub fn tunnel_end(&self, node: &str, local: IpAddr) -> Option<IpAddr> {
        self.hosts.get(node).copied().flatten().filter(|ip| ip.is_ipv4() == local.is_ipv4())
    }

    /// The port of a network at whose addresses DHCP is answered.
    pub fn dhcp_port(&self, network: &str) -> Option<&Port> {
        self.dhcp.get(network).map(|at| self.ports[*at].as_ref())
    }

    /// The ports of a router.
    pub fn router_ports(&self, router: &str) -> impl Iterator<Item = &Port> {
        self.by_device.get(router).into_iter().flatten().map(|at| self.ports[*at].as_ref())
    }

    /// The floating address that leads to an address of a port.
    pub fn floating_address(&self, port: &str, fixed: IpAddr) -> Option<Ipv4Addr> {
        self.public.get(&(port.to_owned(), fixed)).copied()
    }

    /// An address with the prefix length of its subnet.
    pub fn address(&self, fixed: &FixedIp) -> Option<IpNet> {
        let subnet = self.subnets.get(&fixed.subnet_id)?;
        IpNet::new(fixed.ip, subnet.cidr.prefix_len()).ok()
    }
}
