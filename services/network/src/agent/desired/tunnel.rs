//! The tunnels of a node: for each overlay that has ports here and elsewhere, where they are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cairn_state::Fault;

use super::{Desired, Here, World};
use crate::agent::mac::Mac;
use crate::agent::tunnel::{Shape, Tunnel, UDP_PORT};
use crate::model::{Network, Port, bridge_name, owner, tunnel_name};

pub(super) fn add(world: &World, here: &Here, out: &mut Desired) {
    let Some(local) = here.tunnel else { return };
    let networks: Vec<_> = out.networks.keys().filter_map(|id| world.network(id)).collect();
    let mut unreachable = BTreeSet::new();
    for network in networks.into_iter().filter(|n| n.provider.is_none()) {
        if let Some(tunnel) = tunnel(world, here, network, local, &mut unreachable) {
            out.peers.extend(&tunnel.everyone);
            out.tunnels.insert(tunnel_name(&network.id), tunnel);
        }
    }
    out.faults.extend(unreachable.into_iter().map(|node| {
        Fault::new(format!("node {node}"), format!("it has no address that can be reached from {local}"))
    }));
}

fn tunnel(
    world: &World,
    here: &Here,
    network: &Network,
    local: IpAddr,
    unreachable: &mut BTreeSet<String>,
) -> Option<Tunnel> {
    let mut tunnel = Tunnel {
        bridge: bridge_name(&network.id),
        shape: Shape { vni: network.segment, local, port: UDP_PORT },
        mtu: network.mtu,
        // A floating address changes hands too.
        suppress: !network.external,
        remote: BTreeMap::new(),
        arriving: BTreeSet::new(),
        everyone: BTreeSet::new(),
        neighbours: BTreeMap::new(),
    };
    for port in world.ports_of(&network.id).filter(|p| p.device_owner != owner::FLOATING_IP) {
        let Ok(mac) = port.mac.parse::<Mac>() else { continue };
        // Whose addresses may change hands announces them, and everybody has to hear it.
        tunnel.suppress &=
            port.allowed_address_pairs.is_empty() && (port.port_security || port.is_service_port());
        tunnel.neighbours.extend(addresses(port, mac));
        for host in [&port.host, &port.migrating_to].into_iter().flatten().filter(|h| **h != here.node) {
            match world.tunnel_end(host, local) {
                Some(end) => drop(tunnel.everyone.insert(end)),
                None if world.hosts.contains_key(host) => drop(unreachable.insert(host.clone())),
                // A node that never spoke has no ports, whatever the records say.
                None => {}
            }
        }
        locate(world, here, port, mac, local, &mut tunnel);
    }
    (!tunnel.everyone.is_empty()).then_some(tunnel)
}

/// Where a port's MAC is, if that is another node.
fn locate(world: &World, here: &Here, port: &Port, mac: Mac, local: IpAddr, tunnel: &mut Tunnel) {
    let Some(host) = port.host.as_ref().filter(|h| **h != here.node) else { return };
    let Some(end) = world.tunnel_end(host, local) else { return };
    tunnel.remote.insert(mac, end);
    if port.migrating_to.as_ref() == Some(&here.node) {
        tunnel.arriving.insert(mac);
    }
}

/// The addresses that a port answers for: its own and, with IPv6, the one that its MAC makes.
fn addresses(port: &Port, mac: Mac) -> impl Iterator<Item = (IpAddr, Mac)> {
    let own = port.fixed_ips.iter().map(move |f| (f.ip, mac));
    let made = port.fixed_ips.iter().any(|f| f.ip.is_ipv6());
    own.chain(made.then_some((IpAddr::V6(mac.link_local()), mac)))
}
