//! The deciding half of the agent, without a machine: what a node should look like, the rules' text (golden
//! files: `UPDATE_GOLDEN=1 cargo test -p cairn-network` rewrites them), and that a right node is left alone.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod support;

use std::path::Path;

use cairn_network::agent;
use cairn_network::agent::desired::{Desired, Here, Uplink, World};
use cairn_network::agent::mac::Mac;
use cairn_network::agent::netlink::{self, Link};
use cairn_network::agent::plan::{Action, Observed, SpaceState, additions, redirections, removals};
use cairn_network::agent::tunnel::{EVERYONE, Step};
use cairn_network::model::*;
use support::{Cloud, NODE, lan};

/// Two guests on a network behind a router with a floating IP, one on the LAN.
fn cloud() -> Cloud {
    let mut cloud = Cloud::default();
    let (outside, outside_subnet) = cloud.network("203.0.113.0/24", lan());
    let (net, subnet) = cloud.network("10.0.0.0/24", None);
    let ssh = cloud.group(&[
        &|r| {
            r.protocol = Some("tcp".into());
            (r.port_range_min, r.port_range_max) = (Some(22), Some(22));
            r.remote_ip_prefix = Some("192.0.2.7/24".parse().unwrap());
        },
        &|r| {
            r.protocol = Some("icmp".into());
            (r.port_range_min, r.port_range_max) = (Some(8), Some(0));
        },
        &|r| {
            r.ethertype = Ethertype::V6;
            r.protocol = Some("icmp".into());
        },
        &|r| r.protocol = Some("112".into()),
    ]);
    let members = cloud.group(&[]);
    let group = members.clone();
    cloud.rule(&members, &|r| r.remote_group_id = Some(group.clone()));
    let a = cloud.guest(&net, &subnet, "10.0.0.10", "a", &[&ssh, &members]);
    let b = cloud.guest(&net, &subnet, "10.0.0.11", "b", &[&members]);
    cloud.port_mut(&b).fixed_ips.push(FixedIp { subnet_id: subnet.clone(), ip: "fd00::b".parse().unwrap() });
    cloud.port_mut(&b).allowed_address_pairs = vec![
        AddressPair { ip: "10.0.0.100/30".parse().unwrap(), mac: "fa:16:3e:00:00:99".into() },
        AddressPair { ip: "10.0.0.0/24".parse().unwrap(), mac: "fa:16:3e:00:00:98".into() },
    ];
    cloud.guest(&outside, &outside_subnet, "203.0.113.77", "c", &[]);
    let router =
        cloud.router(&[(&net, &subnet, "10.0.0.1")], Some((&outside, &outside_subnet, "203.0.113.9")));
    cloud.floating(&outside, "203.0.113.50", &a, "10.0.0.10", &router);
    cloud
}

/// What this node should look like while it is the only one.
fn desired(world: &World) -> Desired {
    agent::desired::desired(world, &Here { node: NODE.into(), ..Here::default() })
}

/// Compares with a golden file, or rewrites it.
fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, kept, "{} differs; if it should, run with UPDATE_GOLDEN=1", path.display());
}

/// A node that is exactly what is desired.
fn right(want: &Desired) -> Observed {
    let mut node = Observed::default();
    let mut index = 1;
    let mut number = || {
        index += 1;
        index
    };
    let bridge =
        |mtu, filtered, index| Link { index, mtu, filtered, up: true, bridge: true, ..Link::default() };
    node.links.insert(LAN_BRIDGE.into(), bridge(1500, false, number()));
    for (name, b) in &want.bridges {
        node.links.insert(name.clone(), bridge(b.mtu, b.filtered, number()));
    }
    let index_of = |node: &Observed, name: &str| Some(node.links[name].index);
    for (name, b) in &want.bridges {
        if let Uplink::Patch { here, there, parent } = &b.uplink {
            for (end, master) in [(here, name), (there, parent)] {
                let link = Link {
                    index: number(),
                    master: index_of(&node, master),
                    mtu: b.mtu,
                    up: true,
                    ..Link::default()
                };
                node.links.insert(end.clone(), link);
            }
        }
    }
    for (name, tunnel) in &want.tunnels {
        let link = Link {
            index: number(),
            master: index_of(&node, &tunnel.bridge),
            mtu: tunnel.mtu,
            up: true,
            shape: Some(tunnel.shape),
            port: netlink::Port { learning: false, suppress: tunnel.suppress },
            ..Link::default()
        };
        let (device, bridge) = (link.index, node.links[&tunnel.bridge].index);
        node.links.insert(name.clone(), link);
        node.entries.remote.extend(tunnel.remote.iter().map(|(mac, to)| (device, *mac, *to)));
        node.entries.remote.extend(tunnel.everyone.iter().map(|to| (device, EVERYONE, *to)));
        let held = tunnel.remote.keys().filter(|m| !tunnel.arriving.contains(m));
        node.entries.held.extend(held.map(|mac| (device, *mac)));
        node.entries.neighbours.extend(tunnel.neighbours.iter().map(|(ip, mac)| ((bridge, *ip), *mac)));
    }
    for (name, tap) in &want.taps {
        let link = Link {
            index: number(),
            master: index_of(&node, &tap.bridge),
            mtu: tap.mtu,
            up: tap.up,
            ..Link::default()
        };
        node.links.insert(name.clone(), link);
    }
    for (name, space) in &want.spaces {
        let mut state = SpaceState { routes: space.routes.clone(), ..SpaceState::default() };
        state.links.insert("lo".into(), Link { index: 1, up: true, ..Link::default() });
        state.addresses.extend(space.loopback.iter().map(|a| (1, *a)));
        for (inner, veth) in &space.links {
            let link = Link { index: number(), mtu: veth.mtu, up: veth.up, ..Link::default() };
            let outer = Link { index: number(), master: index_of(&node, &veth.bridge), ..link.clone() };
            node.links.insert(veth.outer.clone(), outer);
            state.addresses.extend(veth.addresses.iter().map(|a| (link.index, *a)));
            state.links.insert(inner.clone(), Link { mac: veth.mac, ..link });
        }
        node.spaces.insert(name.clone(), state);
    }
    node
}

#[test]
fn the_rules_are_these() {
    let want = desired(&cloud().world());
    golden("node.nft", &want.ruleset);
    let router = want.spaces.values().find_map(|s| s.ruleset.clone()).unwrap();
    golden("router.nft", &router);
}

/// The same cloud with two nodes more: a guest on one, and one of this node's about to move to the other.
fn spanning() -> Cloud {
    let mut cloud = cloud();
    for (node, ip) in [(NODE, "192.0.2.1"), ("cairn-000002", "192.0.2.2"), ("cairn-000003", "192.0.2.3")] {
        cloud.host(node, ip);
    }
    let (net, subnet) = (cloud.networks[1].id.clone(), cloud.subnets[1].id.clone());
    let d = cloud.guest(&net, &subnet, "10.0.0.12", "d", &[]);
    cloud.port_mut(&d).host = Some("cairn-000002".into());
    let a = cloud.ports.iter().find(|p| p.device_id == "server-a").unwrap().id.clone();
    cloud.port_mut(&a).migrating_to = Some("cairn-000003".into());
    cloud
}

fn desired_at(world: &World, node: &str, tunnel: &str) -> Desired {
    let tunnel = Some(tunnel.parse().unwrap());
    agent::desired::desired(world, &Here { node: node.into(), tunnel, fenced: false })
}

#[test]
fn a_tunnel_goes_to_the_nodes_that_have_ports_and_to_no_other() {
    let cloud = spanning();
    let mac_of = |server: &str| {
        cloud.ports.iter().find(|p| p.device_id == server).unwrap().mac.parse::<Mac>().unwrap()
    };
    let one = desired_at(&cloud.world(), NODE, "192.0.2.1");
    let tunnel = one.tunnels.values().next().unwrap();
    assert_eq!(one.tunnels.len(), 1, "the LAN needs none");
    assert_eq!(tunnel.remote, [(mac_of("server-d"), "192.0.2.2".parse().unwrap())].into());
    assert_eq!(tunnel.everyone, ["192.0.2.2", "192.0.2.3"].map(|ip| ip.parse().unwrap()).into());
    assert!(!tunnel.suppress, "b has address pairs");
    golden("spanning.nft", &one.ruleset);

    let two = desired_at(&cloud.world(), "cairn-000002", "192.0.2.2");
    let remote: Vec<_> = two.tunnels.values().next().unwrap().remote.values().collect();
    assert_eq!(remote.len(), 3, "two guests and the router");
    assert!(remote.iter().all(|to| **to == "192.0.2.1".parse::<std::net::IpAddr>().unwrap()));

    let three = desired_at(&cloud.world(), "cairn-000003", "192.0.2.3");
    let tunnel = three.tunnels.values().next().unwrap();
    assert_eq!(tunnel.arriving, [mac_of("server-a")].into());
    assert_eq!((three.ports.len(), three.prepared.len(), three.taps.len()), (0, 1, 1));
    assert!(desired(&cloud.world()).tunnels.is_empty(), "without an address there is none");
}

#[test]
fn a_right_tunnel_is_left_alone_and_one_of_another_shape_is_made_anew() {
    let want = desired_at(&spanning().world(), NODE, "192.0.2.1");
    let mut node = right(&want);
    assert_eq!((removals(&want, &node, true), additions(&want, &node)), (vec![], vec![]));
    assert_eq!(redirections(&want, &node), []);
    node.entries.held.clear();
    assert_eq!(redirections(&want, &node).len(), 1);
    let (name, tunnel) = want.tunnels.iter().next().unwrap();
    node.links.get_mut(name).unwrap().shape.as_mut().unwrap().local = "192.0.2.9".parse().unwrap();
    assert_eq!(removals(&want, &node, false), [Action::DeleteLink(name.clone())]);
    node.links.remove(name);
    let actions = additions(&want, &node);
    let at = |find: &dyn Fn(&Action) -> bool| actions.iter().position(find).unwrap();
    let made = at(&|a| *a == Action::Tunnel(Step::Add { link: name.clone(), shape: tunnel.shape }));
    let quiet = at(&|a| matches!(a, Action::Tunnel(Step::Port { .. })));
    let up = at(&|a| matches!(a, Action::SetUp { link, up: true, .. } if link == name));
    assert!(made < quiet && quiet < up);
}

#[test]
fn a_fenced_node_reaches_nothing_outside_by_its_routers() {
    let here = Here { node: NODE.into(), tunnel: None, fenced: true };
    let fenced = agent::desired::desired(&cloud().world(), &here);
    let free = desired(&cloud().world());
    let router = |want: &Desired| want.spaces.iter().find(|(n, _)| n.starts_with("rtr-")).unwrap().1.clone();
    let up = |want: &Desired, prefix: &str| {
        router(want).links.iter().filter(|(n, v)| n.starts_with(prefix) && v.up).count()
    };
    assert_eq!((up(&free, "qg"), up(&free, "qr")), (1, 1));
    assert_eq!((up(&fenced, "qg"), up(&fenced, "qr")), (0, 1));
    assert_eq!((router(&free).routes.len(), router(&fenced).routes.len()), (1, 0));
    assert_eq!(free.taps, fenced.taps, "guests are not the network's to stop");
}

#[test]
fn the_same_records_make_the_same_rules_in_any_order() {
    let cloud = cloud();
    let mut turned = cloud.clone();
    turned.rules.reverse();
    turned.ports.iter_mut().for_each(|p| p.allowed_address_pairs.reverse());
    assert_eq!(desired(&cloud.world()).ruleset, desired(&turned.world()).ruleset);
}

#[test]
fn a_right_node_is_left_alone() {
    let want = desired(&cloud().world());
    let node = right(&want);
    assert_eq!(removals(&want, &node, true), []);
    assert_eq!(additions(&want, &node), []);
}

#[test]
fn an_empty_node_gets_bridges_before_taps_and_masters_before_up() {
    let want = desired(&cloud().world());
    let actions = additions(&want, &Observed::default());
    let at = |find: &dyn Fn(&Action) -> bool| actions.iter().position(find).unwrap();
    for (name, tap) in &want.taps {
        let made = at(&|a| matches!(a, Action::AddTap(n) if n == name));
        let in_bridge = at(&|a| matches!(a, Action::SetMaster { link, .. } if link == name));
        let up = at(&|a| matches!(a, Action::SetUp { link, up: true, .. } if link == name));
        let bridge = at(&|a| matches!(a, Action::AddBridge { name, .. } if *name == tap.bridge));
        let filtered =
            at(&|a| matches!(a, Action::SetFiltered { bridge, on: true } if *bridge == tap.bridge));
        assert!(bridge < filtered && filtered < made && made < in_bridge && in_bridge < up, "{name}");
    }
}

#[test]
fn what_is_not_wanted_goes_only_by_the_stores_own_word() {
    let want = desired(&cloud().world());
    let nothing = desired(&Cloud::default().world());
    let node = right(&want);
    assert_eq!(removals(&nothing, &node, false), []);
    let gone = removals(&nothing, &node, true);
    let links = node.links.keys().filter(|n| *n != LAN_BRIDGE).count();
    assert_eq!(gone.len(), links + node.spaces.len());
    assert!(!gone.contains(&Action::DeleteLink(LAN_BRIDGE.into())));
}

#[test]
fn a_veth_that_lost_its_inner_end_is_made_anew() {
    let want = desired(&cloud().world());
    let mut node = right(&want);
    let (space, state) = node.spaces.iter_mut().next().unwrap();
    let (inner, veth) = want.spaces[space].links.iter().next().unwrap();
    state.links.remove(inner);
    assert_eq!(removals(&want, &node, false), [Action::DeleteLink(veth.outer.clone())]);
}

#[test]
fn tombstones_and_ports_of_other_nodes_are_not_here() {
    let mut cloud = cloud();
    for port in &mut cloud.ports {
        port.deleted = port.device_owner.starts_with(owner::COMPUTE);
    }
    let elsewhere = cloud.ports.iter_mut().find(|p| p.deleted).unwrap();
    (elsewhere.deleted, elsewhere.host) = (false, Some("cairn-000002".into()));
    cloud.routers.iter_mut().for_each(|r| r.deleted = true);
    let want = desired(&cloud.world());
    assert!(want.taps.is_empty() && want.spaces.is_empty() && want.bridges.is_empty());
    assert!(!want.ruleset.contains("chain"), "{}", want.ruleset);
}

#[test]
fn a_port_without_groups_lets_nothing_pass_and_one_without_security_everything() {
    let mut cloud = cloud();
    let free = cloud.ports.iter().find(|p| p.device_id == "server-a").unwrap().id.clone();
    let before = desired(&cloud.world()).ruleset;
    assert!(before.contains(&format!("chain in_{} ", tap_name(&free))));
    cloud.port_mut(&free).port_security = false;
    let after = desired(&cloud.world()).ruleset;
    assert!(!after.contains(&format!("chain in_{} ", tap_name(&free))));
    let closed = cloud.ports.iter().find(|p| p.device_id == "server-c").unwrap();
    let chain = format!("chain in_{} {{\n    jump common_in\n    counter drop\n  }}", tap_name(&closed.id));
    assert!(after.contains(&chain), "{after}");
}

#[test]
fn many_ports_come_out_right() {
    let mut cloud = Cloud::default();
    let group = cloud.group(&[&|r| r.protocol = Some("icmp".into())]);
    for n in 0..10 {
        let (net, subnet) = cloud.network(&format!("10.{n}.0.0/16"), None);
        for host in 0..10 {
            cloud.guest(&net, &subnet, &format!("10.{n}.1.{host}"), &format!("g{n}x{host}"), &[&group]);
        }
    }
    let want = desired(&cloud.world());
    let node = right(&want);
    assert!(additions(&want, &node).is_empty());
    assert_eq!((want.taps.len(), want.spaces.len()), (100, 10));
}
