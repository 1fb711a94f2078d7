//! What the tests of the agent share: a small cloud's records.
#![allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    reason = "each test takes what it needs, and says where it cannot go on"
)]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use cairn_network::agent::desired::{Records, World};
use cairn_network::model::*;
use cairn_state::{Abort, LocalStore};
use jiff::Timestamp;

/// The node of all tests.
pub const NODE: &str = "cairn-000001";

/// The records of a small cloud, with helpers that make one each.
#[derive(Default, Clone)]
pub struct Cloud {
    pub networks: Vec<Network>,
    pub subnets: Vec<Subnet>,
    pub ports: Vec<Port>,
    pub routers: Vec<Router>,
    pub floating_ips: Vec<FloatingIp>,
    pub groups: Vec<SecurityGroup>,
    pub rules: Vec<SecurityGroupRule>,
    pub metadata: Vec<ServerMetadata>,
    /// What the nodes said of themselves, where there is no agent that says it.
    pub hosts: Vec<HostStatus>,
    made: u32,
}

pub fn stamp() -> Stamp {
    Stamp::new(Timestamp::UNIX_EPOCH)
}

fn v4(text: &str) -> IpAddr {
    text.parse().unwrap()
}

impl Cloud {
    fn id(&mut self) -> String {
        self.made += 1;
        format!("{:08x}-0000-4000-8000-{:012x}", self.made, self.made)
    }

    /// A network with one subnet and its DHCP port at `.2`; returns (network, subnet).
    pub fn network(&mut self, cidr: &str, provider: Option<Provider>) -> (String, String) {
        let (id, subnet_id) = (self.id(), self.id());
        let external = provider.is_some();
        self.networks.push(Network {
            id: id.clone(),
            project_id: "p".into(),
            name: format!("n{}", self.made),
            description: String::new(),
            admin_state_up: true,
            shared: false,
            external,
            is_default: false,
            port_security: true,
            segment: if external { 0 } else { 100 + self.made },
            provider,
            mtu: if external { 1500 } else { 1450 },
            dns_domain: "example.org.".into(),
            hosts: BTreeSet::from([NODE.to_owned()]),
            deleted: false,
            tags: BTreeSet::new(),
            stamp: stamp(),
        });
        self.subnets.push(subnet(&subnet_id, &id, cidr));
        let base = cidr.rsplit_once('.').unwrap().0.to_owned();
        let dhcp = self.port(&id, &[(&subnet_id, &format!("{base}.2"))], owner::DHCP, "dhcp");
        let port = self.port_mut(&dhcp);
        port.host = None;
        port.port_security = false;
        (id, subnet_id)
    }

    /// An IPv6 subnet whose guests make their addresses by themselves.
    pub fn subnet6(&mut self, network: &str, cidr: &str) -> String {
        let id = self.id();
        let mut subnet = subnet(&id, network, "10.0.0.0/24");
        subnet.cidr = cidr.parse().unwrap();
        subnet.gateway_ip = None;
        subnet.ipv6_ra_mode = Some(Ipv6Mode::Slaac);
        subnet.ipv6_address_mode = Some(Ipv6Mode::Slaac);
        self.subnets.push(subnet);
        id
    }

    /// A port on this node; guests' ports are watched, and have no group.
    pub fn port(&mut self, network: &str, ips: &[(&str, &str)], of: &str, device: &str) -> String {
        let id = self.id();
        let fixed = ips.iter().map(|(s, ip)| FixedIp { subnet_id: (*s).to_owned(), ip: v4(ip) });
        self.ports.push(Port {
            id: id.clone(),
            project_id: "p".into(),
            network_id: network.to_owned(),
            name: String::new(),
            description: String::new(),
            mac: format!("fa:16:3e:00:{:02x}:{:02x}", self.made >> 8, self.made & 0xff),
            fixed_ips: fixed.collect(),
            device_id: device.to_owned(),
            device_owner: of.to_owned(),
            admin_state_up: true,
            security_groups: vec![],
            port_security: of.starts_with(owner::COMPUTE),
            allowed_address_pairs: vec![],
            dhcp_options: vec![],
            dns_name: String::new(),
            host: Some(NODE.to_owned()),
            prior_host: None,
            migrating_to: None,
            binding_profile: serde_json::Map::new(),
            made_for_server: false,
            deleted: false,
            tags: BTreeSet::new(),
            stamp: stamp(),
        });
        id
    }

    /// A guest's port with these groups, and metadata for it.
    pub fn guest(&mut self, network: &str, subnet: &str, ip: &str, name: &str, groups: &[&str]) -> String {
        let id = self.port(network, &[(subnet, ip)], "compute:nova", &format!("server-{name}"));
        let port = self.port_mut(&id);
        port.dns_name = name.to_owned();
        port.security_groups = groups.iter().map(|g| (*g).to_owned()).collect();
        self.metadata.push(ServerMetadata {
            server_id: format!("server-{name}"),
            project_id: "p".into(),
            ports: vec![id.clone()],
            meta_data: serde_json::json!({"uuid": format!("server-{name}"), "hostname": name}),
            network_data: serde_json::json!({}),
            vendor_data: serde_json::json!({}),
            user_data: None,
            instance_type: "m1.tiny".into(),
            image_id: None,
        });
        id
    }

    pub fn port_mut(&mut self, id: &str) -> &mut Port {
        let port = self.ports.iter_mut().find(|p| p.id == id).unwrap();
        port.stamp.revision += 1;
        port
    }

    /// A group that lets everything out, and in what `ingress` makes of rules.
    pub fn group(&mut self, ingress: &[&dyn Fn(&mut SecurityGroupRule)]) -> String {
        let id = self.id();
        self.groups.push(SecurityGroup {
            id: id.clone(),
            project_id: "p".into(),
            name: String::new(),
            description: String::new(),
            is_default: false,
            tags: BTreeSet::new(),
            stamp: stamp(),
        });
        self.rule(&id, &|r| r.direction = Direction::Egress);
        self.rule(&id, &|r| {
            r.direction = Direction::Egress;
            r.ethertype = Ethertype::V6;
        });
        ingress.iter().for_each(|change| drop(self.rule(&id, change)));
        id
    }

    /// A rule: all IPv4 in, changed by `change`.
    pub fn rule(&mut self, group: &str, change: &dyn Fn(&mut SecurityGroupRule)) -> String {
        let id = self.id();
        let mut rule = SecurityGroupRule {
            id: id.clone(),
            project_id: "p".into(),
            security_group_id: group.to_owned(),
            description: String::new(),
            direction: Direction::Ingress,
            ethertype: Ethertype::V4,
            protocol: None,
            port_range_min: None,
            port_range_max: None,
            remote_ip_prefix: None,
            remote_group_id: None,
            stamp: stamp(),
        };
        change(&mut rule);
        self.rules.push(rule);
        id
    }

    /// A node that has said where its tunnels end.
    pub fn host(&mut self, node: &str, tunnel_ip: &str) {
        self.hosts.push(HostStatus {
            node: node.to_owned(),
            version: String::new(),
            started_at: Timestamp::UNIX_EPOCH,
            heartbeat_at: Timestamp::UNIX_EPOCH,
            physical_networks: vec![],
            tunnel_ip: Some(v4(tunnel_ip)),
            tunnel_mtu: 1500,
            error: None,
        });
    }

    /// A router with a leg (at `.1`) in each of these networks, and its gateway if given (network, subnet, ip).
    pub fn router(&mut self, inner: &[(&str, &str, &str)], gateway: Option<(&str, &str, &str)>) -> String {
        let id = self.id();
        for (network, subnet, ip) in inner {
            self.port(network, &[(subnet, ip)], owner::ROUTER_INTERFACE, &id);
        }
        let gateway = gateway.map(|(network, subnet, ip)| ExternalGateway {
            network_id: network.to_owned(),
            port_id: self.port(network, &[(subnet, ip)], owner::ROUTER_GATEWAY, &id),
            enable_snat: true,
        });
        self.routers.push(Router {
            id: id.clone(),
            project_id: "p".into(),
            name: String::new(),
            description: String::new(),
            admin_state_up: true,
            gateway,
            routes: vec![],
            host: Some(NODE.to_owned()),
            deleted: false,
            tags: BTreeSet::new(),
            stamp: stamp(),
        });
        id
    }

    /// A floating IP that leads to a guest.
    pub fn floating(&mut self, network: &str, outer: &str, port: &str, inner: &str, router: &str) -> String {
        let id = self.id();
        self.floating_ips.push(FloatingIp {
            id: id.clone(),
            project_id: "p".into(),
            description: String::new(),
            floating_network_id: network.to_owned(),
            floating_ip_address: v4(outer),
            floating_port_id: String::new(),
            port_id: Some(port.to_owned()),
            fixed_ip_address: Some(v4(inner)),
            router_id: Some(router.to_owned()),
            tags: BTreeSet::new(),
            stamp: stamp(),
        });
        id
    }

    pub fn world(&self) -> World {
        fn shared<T: Clone>(all: &[T]) -> Vec<Arc<T>> {
            all.iter().cloned().map(Arc::new).collect()
        }
        World::new(Records {
            networks: shared(&self.networks),
            subnets: shared(&self.subnets),
            ports: shared(&self.ports),
            routers: shared(&self.routers),
            floating_ips: shared(&self.floating_ips),
            groups: shared(&self.groups),
            rules: shared(&self.rules),
            hosts: shared(&self.hosts),
        })
    }

    /// Makes the store hold just this cloud.
    pub async fn put(&self, store: &LocalStore) {
        let done: Result<(), Abort> = store
            .transact(|tx| {
                sync(tx, &self.networks)?;
                sync(tx, &self.subnets)?;
                sync(tx, &self.ports)?;
                sync(tx, &self.routers)?;
                sync(tx, &self.floating_ips)?;
                sync(tx, &self.groups)?;
                sync(tx, &self.rules)?;
                sync(tx, &self.metadata)
            })
            .await;
        done.unwrap();
    }
}

fn sync<R: cairn_state::Record + PartialEq>(tx: &mut cairn_state::Tx, want: &[R]) -> Result<(), Abort> {
    for old in tx.list_unfenced::<R>()? {
        if !want.iter().any(|r| r.id() == old.id()) {
            tx.delete::<R>(&old.id())?;
        }
    }
    for record in want {
        if tx.get::<R>(&record.id())?.as_ref() != Some(record) {
            tx.put(record)?;
        }
    }
    Ok(())
}

fn subnet(id: &str, network: &str, cidr: &str) -> Subnet {
    let base = cidr.rsplit_once('.').unwrap().0;
    Subnet {
        id: id.to_owned(),
        project_id: "p".into(),
        network_id: network.to_owned(),
        name: String::new(),
        description: String::new(),
        cidr: cidr.parse().unwrap(),
        gateway_ip: Some(v4(&format!("{base}.1"))),
        allocation_pools: vec![],
        dns_nameservers: vec![],
        host_routes: vec![],
        enable_dhcp: true,
        ipv6_ra_mode: None,
        ipv6_address_mode: None,
        subnetpool_id: None,
        service_types: vec![],
        tags: BTreeSet::new(),
        stamp: stamp(),
    }
}

/// The LAN itself.
pub fn lan() -> Option<Provider> {
    Some(Provider { kind: ProviderKind::Flat, physical_network: LAN.into(), vlan: None })
}
