//! What is filtered on a node: the policy of its watched ports.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::{Desired, World};
use crate::agent::mac::Mac;
use crate::agent::security::{Addresses, Edge, Guarded, Policy};
use crate::model::{LAN_BRIDGE, Network, Port, bridge_name, netns_name, tap_name, tunnel_name};

pub(super) fn policy(world: &World, here: &BTreeMap<&str, Vec<&Port>>, out: &Desired) -> Policy {
    let watched: Vec<_> = here.values().flatten().copied().filter(|p| p.port_security).collect();
    let mut policy = Policy { zones: zones(world, out), members: members(out), ..Policy::default() };
    let mut marks = BTreeSet::new();
    for port in &watched {
        let mark = free(mark(&port.id), u32::MAX, |m| !marks.contains(&m));
        marks.insert(mark);
        policy.guarded.insert(port.id.clone(), guarded(port, mark));
    }
    let groups: BTreeSet<_> = watched.iter().flat_map(|p| &p.security_groups).collect();
    for group in groups {
        if let Some(rules) = world.rules.get(group) {
            policy.groups.insert(group.clone(), rules.clone());
        }
    }
    policy.remotes = remotes(world, &policy);
    policy.edges = edges(world, out);
    policy.peers = out.peers.clone();
    policy
}

/// What each node has for itself must not meet its like where a network leaves the node.
fn edges(world: &World, out: &Desired) -> BTreeMap<String, Edge> {
    let exits = out.networks.keys().flat_map(|network| {
        let tunnel = Some(tunnel_name(network)).filter(|name| out.tunnels.contains_key(name));
        let uplink = out.bridges.get(&bridge_name(network)).and_then(|b| b.uplink.link().map(str::to_owned));
        tunnel.into_iter().chain(uplink).map(move |exit| (exit, edge(world, out, network)))
    });
    exits.collect()
}

fn edge(world: &World, out: &Desired, network: &str) -> Edge {
    let mut edge = Edge::default();
    if let Some(space) = out.spaces.get(&netns_name(network)) {
        for veth in space.links.values() {
            edge.macs.insert(veth.mac);
            edge.addresses.extend(veth.addresses.iter().map(IpNet::addr));
        }
    }
    let subnets = world.dhcp_port(network).into_iter().flat_map(|p| &p.fixed_ips);
    edge.dhcp = subnets.filter_map(|f| world.subnets.get(&f.subnet_id)).any(|s| s.enable_dhcp);
    edge
}

fn guarded(port: &Port, mark: u32) -> Guarded {
    let mut sources: BTreeMap<Mac, Addresses> = BTreeMap::new();
    if let Ok(mac) = port.mac.parse::<Mac>() {
        let own = sources.entry(mac).or_default();
        port.fixed_ips.iter().for_each(|f| own.add(IpNet::from(f.ip)));
    }
    for pair in &port.allowed_address_pairs {
        if let Ok(mac) = pair.mac.parse::<Mac>() {
            sources.entry(mac).or_default().add(pair.ip);
        }
    }
    for (mac, addresses) in &mut sources {
        addresses.add(IpNet::from(std::net::IpAddr::V6(mac.link_local())));
    }
    Guarded { tap: tap_name(&port.id), mark, sources, groups: port.security_groups.clone() }
}

/// Who the groups are that the rules name as the other side.
fn remotes(world: &World, policy: &Policy) -> BTreeMap<String, Addresses> {
    let named = policy.groups.values().flatten().filter_map(|r| r.remote_group_id.clone());
    let mut remotes: BTreeMap<String, Addresses> = named.map(|g| (g, Addresses::default())).collect();
    if remotes.is_empty() {
        return remotes;
    }
    for port in world.ports.iter().filter(|p| !p.deleted) {
        for group in &port.security_groups {
            if let Some(addresses) = remotes.get_mut(group) {
                port.fixed_ips.iter().for_each(|f| addresses.add(IpNet::from(f.ip)));
                port.allowed_address_pairs.iter().for_each(|p| addresses.add(p.ip));
            }
        }
    }
    remotes
}

/// Every device in a network's bridge.
fn members(out: &Desired) -> BTreeSet<String> {
    let mut members: BTreeSet<_> = out.taps.keys().cloned().collect();
    let plugs = out.spaces.values().flat_map(|s| s.links.values());
    members.extend(plugs.filter(|v| v.bridge != LAN_BRIDGE).map(|v| v.outer.clone()));
    members.extend(out.tunnels.keys().cloned());
    members.extend(out.bridges.values().filter_map(|b| b.uplink.link().map(str::to_owned)));
    members
}

/// A conntrack zone for each filtered bridge: by its segment, so that it stays the same whatever else comes and
/// goes, for a changed zone forgets its connections.
fn zones(world: &World, out: &Desired) -> BTreeMap<String, u16> {
    let mut taken = BTreeSet::new();
    let mut zones = BTreeMap::new();
    for network in out.networks.keys().filter_map(|id| world.network(id)) {
        let bridge = bridge_name(&network.id);
        if out.bridges.get(&bridge).is_some_and(|b| b.filtered) {
            let zone = free(zone(network), u32::from(u16::MAX), |z| !taken.contains(&z));
            taken.insert(zone);
            zones.insert(bridge, zone as u16);
        }
    }
    zones
}

fn zone(network: &Network) -> u32 {
    let wanted = if network.segment > 0 { network.segment } else { mark(&network.id) };
    wanted % u32::from(u16::MAX) + 1
}

/// A number for an id: its first eight digits.
fn mark(id: &str) -> u32 {
    id.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or(1)
}

/// The first number from `wanted` on, between 1 and `max`, that is free.
fn free(wanted: u32, max: u32, is_free: impl Fn(u32) -> bool) -> u32 {
    let mut number = wanted.clamp(1, max);
    while !is_free(number) {
        number = if number == max { 1 } else { number + 1 };
    }
    number
}
