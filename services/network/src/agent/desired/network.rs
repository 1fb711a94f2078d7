//! A node's bridges and taps, and for each network with guests here the namespace that answers them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use cairn_state::Fault;
use ipnet::{IpNet, Ipv4Net};

use super::{Bridge, Desired, METADATA_IP, PortWant, Space, Tap, Uplink, Veth, World, service_bridge};
use crate::agent::dhcp::{Client, Scope};
use crate::agent::dns::Audience;
use crate::agent::mac::Mac;
use crate::agent::metadata::Tenant;
use crate::agent::names;
use crate::model::{LAN_BRIDGE, Network, Port, ProviderKind, Subnet, bridge_name, netns_name, tap_name};

pub(super) fn add(world: &World, node: &str, here: &BTreeMap<&str, Vec<&Port>>, out: &mut Desired) {
    for (id, ports) in here {
        let Some(network) = world.network(id) else { continue };
        let filtered = ports.iter().any(|p| p.port_security);
        add_bridge(network, filtered, out);
        ports.iter().for_each(|port| add_tap(network, node, port, out));
        if let Some(dhcp) = world.dhcp_port(id) {
            add_space(world, network, dhcp, ports, out);
        }
    }
}

/// The bridge of a network; `filtered` if any port of it here is watched.
pub(super) fn add_bridge(network: &Network, filtered: bool, out: &mut Desired) {
    out.networks.insert(network.id.clone(), network.stamp.revision);
    let bridge = Bridge { mtu: network.mtu, filtered, uplink: uplink(network) };
    out.bridges
        .entry(bridge_name(&network.id))
        .and_modify(|known| known.filtered |= filtered)
        .or_insert(bridge);
}

fn uplink(network: &Network) -> Uplink {
    let parent = LAN_BRIDGE.to_owned();
    match &network.provider {
        None => Uplink::None,
        Some(p) if p.kind == ProviderKind::Flat => {
            let (here, there) = names::patch(&network.id);
            Uplink::Patch { here, there, parent }
        }
        Some(p) => {
            Uplink::Tagged { link: names::tagged(&network.id), parent, vlan: p.vlan.unwrap_or_default() }
        }
    }
}

fn add_tap(network: &Network, node: &str, port: &Port, out: &mut Desired) {
    let (name, bridge) = (tap_name(&port.id), bridge_name(&network.id));
    let up = port.admin_state_up && network.admin_state_up;
    out.taps.insert(name.clone(), Tap { bridge: bridge.clone(), mtu: network.mtu, up });
    let want = PortWant { generation: port.generation(), device: name, bridge, tap: true, up };
    let bound = port.host.as_deref() == Some(node);
    let list = if bound { &mut out.ports } else { &mut out.prepared };
    list.insert(port.id.clone(), want);
}

fn add_space(world: &World, network: &Network, dhcp: &Port, ports: &[&Port], out: &mut Desired) {
    let Ok(mac) = dhcp.mac.parse() else {
        out.faults.push(Fault::new(format!("port {}", dhcp.id), format!("{:?} is no MAC", dhcp.mac)));
        return;
    };
    let mut addresses: BTreeSet<_> = dhcp.fixed_ips.iter().filter_map(|f| world.address(f)).collect();
    let metadata = IpNet::from(IpAddr::V4(METADATA_IP));
    let mut loopback = BTreeSet::new();
    // On the real LAN it is nobody's business to answer ARP for that address, nor to resolve for strangers.
    let audience = if network.provider.is_some() {
        loopback.insert(metadata);
        Audience::Only(ports.iter().flat_map(|p| &p.fixed_ips).map(|f| f.ip).collect())
    } else {
        addresses.insert(metadata);
        Audience::All
    };
    let veth = Veth {
        outer: names::plug(&dhcp.id),
        // Guests of a network on the LAN are in a bridge of their own, so their DHCP is too.
        bridge: bridge_name(&network.id),
        mac,
        mtu: network.mtu,
        up: true,
        addresses,
    };
    let device = names::service_link(&dhcp.id);
    let clients = ports.iter().filter_map(|p| Some((p.mac.parse().ok()?, client(world, network, dhcp, p)?)));
    let scope = Scope { device: device.clone(), clients: clients.collect::<BTreeMap<Mac, Client>>() };
    let space = Space {
        links: BTreeMap::from([(device, veth)]),
        scope: Some(scope),
        loopback,
        dns: Some(audience),
        tenants: ports.iter().flat_map(|p| tenants(world, p)).collect(),
        ..Space::default()
    };
    out.spaces.insert(netns_name(&network.id), space);
}

/// Who asks from which address of this port.
pub(super) fn tenants<'a>(world: &'a World, port: &'a Port) -> impl Iterator<Item = (IpAddr, Tenant)> + 'a {
    port.fixed_ips.iter().map(|f| {
        (f.ip, Tenant { server: port.device_id.clone(), public: world.floating_address(&port.id, f.ip) })
    })
}

/// What DHCP tells a port: about its first IPv4 address in a subnet with DHCP.
fn client(world: &World, network: &Network, dhcp: &Port, port: &Port) -> Option<Client> {
    let mut offers = port.fixed_ips.iter().filter_map(|fixed| {
        let subnet = world.subnets.get(&fixed.subnet_id).filter(|s| s.enable_dhcp)?;
        let server = dhcp.fixed_ips.iter().find(|f| f.subnet_id == subnet.id)?.ip;
        let (IpAddr::V4(ip), IpAddr::V4(server), IpNet::V4(cidr)) = (fixed.ip, server, subnet.cidr) else {
            return None;
        };
        Some((subnet, Ipv4Net::new(ip, cidr.prefix_len()).ok()?, server))
    });
    let (subnet, address, server) = offers.next()?;
    let name = if port.dns_name.is_empty() {
        format!("host-{}", address.addr().to_string().replace('.', "-"))
    } else {
        port.dns_name.clone()
    };
    let options = port.dhcp_options.iter().filter(|o| o.ip_version == 4);
    Some(Client {
        address,
        server,
        router: subnet.gateway_ip.and_then(v4),
        dns: name_servers(subnet, server),
        routes: routes(subnet, server),
        mtu: u16::try_from(network.mtu).unwrap_or(u16::MAX),
        hostname: name,
        domain: network.dns_domain.trim_end_matches('.').to_owned(),
        options: options.map(|o| (o.name.clone(), o.value.clone())).collect(),
    })
}

fn v4(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

fn name_servers(subnet: &Subnet, server: Ipv4Addr) -> Vec<Ipv4Addr> {
    let told: Vec<_> = subnet.dns_nameservers.iter().copied().filter_map(v4).collect();
    if told.is_empty() { vec![server] } else { told }
}

/// Routes beside the one to the subnet itself. A client that takes these ignores the plain router option
/// (RFC 3442), so the default route is among them.
fn routes(subnet: &Subnet, server: Ipv4Addr) -> Vec<(Ipv4Net, Ipv4Addr)> {
    let told = subnet.host_routes.iter().filter_map(|r| match (r.destination, r.nexthop) {
        (IpNet::V4(to), IpAddr::V4(via)) => Some((to, via)),
        _ => None,
    });
    let mut routes: Vec<_> = told.collect();
    let metadata = Ipv4Net::from(METADATA_IP);
    if !routes.iter().any(|(to, _)| *to == metadata) {
        routes.push((metadata, server));
    }
    let all = Ipv4Net::default();
    if let Some(gateway) = subnet.gateway_ip.and_then(v4)
        && !routes.iter().any(|(to, _)| *to == all)
    {
        routes.push((all, gateway));
    }
    routes
}

/// Makes sure that a network that only a router of this node is on has its bridge, and says which it plugs
/// into.
pub(super) fn plug_router(network: &Network, out: &mut Desired) -> String {
    let bridge = service_bridge(network);
    if bridge == LAN_BRIDGE {
        out.networks.insert(network.id.clone(), network.stamp.revision);
    } else {
        add_bridge(network, false, out);
    }
    bridge
}
