//! A node's routers: namespaces with a leg in each of their networks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cairn_state::Fault;
use ipnet::IpNet;

use super::network::{plug_router, tenants};
use super::{Desired, Here, METADATA_IP, PortWant, Space, StaticRoute, Veth, World};
use crate::agent::advertise::Advert;
use crate::agent::names;
use crate::agent::router::Translation;
use crate::model::{Ipv6Mode, Port, Router, owner, router_netns};

pub(super) fn add(world: &World, here: &Here, out: &mut Desired) {
    let mut inner = BTreeMap::new();
    let is_here = |r: &&Router| !r.deleted && r.host.as_ref() == Some(&here.node);
    for router in world.routers.values().map(AsRef::as_ref).filter(is_here) {
        out.routers.insert(router.id.clone(), router.stamp.revision);
        let space = space(world, router, here.fenced, out);
        for port in world.router_ports(&router.id).filter(|p| p.device_owner == owner::ROUTER_INTERFACE) {
            inner.entry(port.network_id.as_str()).or_insert_with(Vec::new).push(router_netns(&router.id));
        }
        out.spaces.insert(router_netns(&router.id), space);
    }
    add_tenants(world, &inner, out);
}

/// Guests ask a router for metadata when their network has no DHCP.
fn add_tenants(world: &World, inner: &BTreeMap<&str, Vec<String>>, out: &mut Desired) {
    for port in world.ports.iter().filter(|p| !p.deleted && !p.is_service_port()) {
        for space in inner.get(port.network_id.as_str()).into_iter().flatten() {
            if let Some(space) = out.spaces.get_mut(space) {
                space.tenants.extend(tenants(world, port));
            }
        }
    }
}

fn space(world: &World, router: &Router, fenced: bool, out: &mut Desired) -> Space {
    let mut space = Space { forwarding: router.admin_state_up, ..Space::default() };
    space.loopback.insert(IpNet::from(IpAddr::V4(METADATA_IP)));
    space
        .routes
        .extend(router.routes.iter().map(|r| StaticRoute { destination: r.destination, via: r.nexthop }));
    let mut translation = Translation::default();
    for port in world.router_ports(&router.id) {
        let gateway = port.device_owner == owner::ROUTER_GATEWAY;
        if let Some((name, veth)) = leg(world, port, gateway, fenced, out) {
            if !gateway {
                space.adverts.extend(advert(world, port, &veth).map(|a| (name.clone(), a)));
            }
            space.links.insert(name.clone(), veth);
            if gateway {
                translation.gateway = Some(name);
            }
        }
    }
    if translation.gateway.is_some() {
        add_gateway(world, router, &mut space, &mut translation);
    }
    if fenced {
        drop_unreachable(&mut space);
    }
    space.ruleset = Some(translation.render());
    space
}

/// The kernel takes no route by way of a link that is down.
fn drop_unreachable(space: &mut Space) {
    let nets: Vec<IpNet> =
        space.links.values().filter(|v| v.up).flat_map(|v| v.addresses.iter().copied()).collect();
    space.routes.retain(|route| nets.iter().any(|net| net.contains(&route.via)));
}

fn leg(world: &World, port: &Port, gateway: bool, fenced: bool, out: &mut Desired) -> Option<(String, Veth)> {
    let network = world.network(&port.network_id)?;
    let mac = match port.mac.parse() {
        Ok(mac) => mac,
        Err(why) => {
            out.faults.push(Fault::new(format!("port {}", port.id), why));
            return None;
        }
    };
    let bridge = plug_router(network, out);
    // Another node may have this router's outer addresses by now.
    let up = port.admin_state_up && network.admin_state_up && !(gateway && fenced);
    let outer = names::plug(&port.id);
    let want = PortWant {
        generation: port.generation(),
        device: outer.clone(),
        bridge: bridge.clone(),
        tap: false,
        up,
    };
    out.ports.insert(port.id.clone(), want);
    let addresses: BTreeSet<_> = port.fixed_ips.iter().filter_map(|f| world.address(f)).collect();
    let name = if gateway { names::gateway_link(&port.id) } else { names::router_link(&port.id) };
    Some((name, Veth { outer, bridge, mac, mtu: network.mtu, up, addresses }))
}

/// What a router tells the IPv6 guests of a network, if its subnets want it to.
fn advert(world: &World, port: &Port, veth: &Veth) -> Option<Advert> {
    let mut advert = Advert {
        mac: veth.mac,
        mtu: veth.mtu,
        managed: false,
        other: false,
        prefixes: vec![],
        resolvers: vec![],
    };
    for subnet in port.fixed_ips.iter().filter_map(|f| world.subnets.get(&f.subnet_id)) {
        let (IpNet::V6(prefix), Some(mode)) = (subnet.cidr, subnet.ipv6_ra_mode) else { continue };
        advert.managed |= mode == Ipv6Mode::Dhcpv6Stateful;
        advert.other |= mode != Ipv6Mode::Slaac;
        advert.prefixes.push((prefix, mode != Ipv6Mode::Dhcpv6Stateful));
        let resolvers = subnet.dns_nameservers.iter().filter_map(|ip| match ip {
            IpAddr::V6(ip) => Some(*ip),
            IpAddr::V4(_) => None,
        });
        advert.resolvers.extend(resolvers);
    }
    (!advert.prefixes.is_empty()).then_some(advert)
}

/// The way out: default routes, source translation, floating IPs.
fn add_gateway(world: &World, router: &Router, space: &mut Space, translation: &mut Translation) {
    let Some(port) = world.router_ports(&router.id).find(|p| p.device_owner == owner::ROUTER_GATEWAY) else {
        return;
    };
    for fixed in &port.fixed_ips {
        let via = world.subnets.get(&fixed.subnet_id).and_then(|s| s.gateway_ip);
        if let Some(via) = via.filter(|via| via.is_ipv4() == fixed.ip.is_ipv4()) {
            let all =
                if via.is_ipv4() { IpNet::V4(Default::default()) } else { IpNet::V6(Default::default()) };
            // A route of the user's for the same destination is the one wanted.
            if !space.routes.iter().any(|r| r.destination == all) {
                space.routes.insert(StaticRoute { destination: all, via });
            }
        }
        if let IpAddr::V4(ip) = fixed.ip {
            translation.address.get_or_insert(ip);
        }
    }
    translation.snat = router.gateway.as_ref().is_some_and(|g| g.enable_snat);
    for fip in world.floating_ips.get(&router.id).into_iter().flatten() {
        if let (IpAddr::V4(outer), Some(IpAddr::V4(inner))) = (fip.floating_ip_address, fip.fixed_ip_address)
        {
            translation.floating.insert(outer, inner);
        }
    }
    if let Some(gateway) = translation.gateway.as_ref().and_then(|name| space.links.get_mut(name)) {
        gateway.addresses.extend(translation.floating.keys().map(|ip| IpNet::from(IpAddr::V4(*ip))));
    }
}
