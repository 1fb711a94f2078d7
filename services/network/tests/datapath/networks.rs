//! Several networks on a node, and many ports.

use std::time::Instant;

use cairn_network::agent::mac;
use cairn_network::model::*;

use crate::node::{self, eventually, on_a_node};
use crate::support::Cloud;
use crate::{allow, everything_goes};

/// Two networks may use the same addresses, and IPv6 is filtered like IPv4.
#[test]
fn networks_are_apart_and_ipv6_is_watched_too() {
    on_a_node(|node| {
        let mut cloud = Cloud::default();
        let open = cloud.group(&[&allow("icmp", None), &|r| {
            r.ethertype = Ethertype::V6;
            r.protocol = Some("tcp".into());
        }]);
        let mut guests = vec![];
        let mut nets = vec![];
        for n in ["x", "y"] {
            let (net, subnet) = cloud.network("10.0.0.0/24", None);
            for (at, ip) in ["10.0.0.10", "10.0.0.11"].iter().enumerate() {
                let id = cloud.guest(&net, &subnet, ip, &format!("{n}{at}"), &[&open]);
                guests.push(id);
            }
            nets.push((net, subnet));
        }
        let six = cloud.subnet6(&nets[0].0, "fd00:7::/64");
        for (at, port) in guests[..2].iter().enumerate() {
            let mac: mac::Mac = cloud.port_mut(port).mac.parse().unwrap();
            let host = u128::from(mac.link_local()) & u128::from(u64::MAX);
            let ip = std::net::Ipv6Addr::from((0xfd00_0007_u128 << 96) | host);
            cloud.port_mut(port).fixed_ips.push(FixedIp { subnet_id: six.clone(), ip: ip.into() });
            assert!(at < 2);
        }
        let router = cloud.router(&[(&nets[0].0, &six, "fd00:7::1")], None);
        node.start_agent();
        node.settle(&cloud);
        let guests: Vec<_> = guests.iter().map(|p| node.guest(&cloud, p)).collect();
        guests.iter().for_each(|g| drop(g.dhcp()));
        let [x0, x1, y0, y1] = guests.as_slice() else { unreachable!() };
        assert!(x0.pings("10.0.0.11") && y0.pings("10.0.0.11") && y1.pings("10.0.0.10"));
        y1.sh("ip link set eth0 down");
        assert!(x0.pings("10.0.0.11") && !y0.pings("10.0.0.11"), "each its own");

        let address = |g: &node::Guest| {
            let all = g.sh("ip -6 -o addr show dev eth0 scope global");
            all.split("inet6 ").nth(1).map(|a| a.split('/').next().unwrap().to_owned())
        };
        eventually("guests make addresses of what the router advertises", || {
            address(x0).is_some() && address(x1).is_some() && x0.pings("fd00:7::1")
        });
        let to = address(x1).unwrap();
        x1.listen(7);
        // Its address is usable once it has asked whether it is free.
        eventually("what is allowed passes", || x0.connects(&to, 7));
        assert!(!x0.pings(&to), "what is not");
        x0.sh("ip addr add fd00:7::bad/64 dev eth0 nodad");
        assert!(!x0.run("ping -n -c 1 -W 1 -I fd00:7::bad fd00:7::1").status.success(), "a foreign address");
        assert!(!router.is_empty());
        everything_goes(node, &mut cloud);
    });
}

/// A node's worth of guests comes, is looked after, and goes; how long it takes is printed.
#[test]
fn a_hundred_ports() {
    on_a_node(|node| {
        let mut cloud = Cloud::default();
        let group = cloud.group(&[&allow("icmp", None), &allow("tcp", Some(22))]);
        for n in 0..10 {
            let (net, subnet) = cloud.network(&format!("10.{n}.0.0/24"), None);
            for host in 10..20 {
                cloud.guest(&net, &subnet, &format!("10.{n}.0.{host}"), &format!("g{n}-{host}"), &[&group]);
            }
        }
        node.start_agent();
        let started = Instant::now();
        node.settle(&cloud);
        let all = started.elapsed();
        let one = cloud.ports.iter().position(|p| p.port_security).unwrap();
        cloud.ports[one].allowed_address_pairs =
            vec![AddressPair { ip: "10.0.0.200/32".parse().unwrap(), mac: cloud.ports[one].mac.clone() }];
        cloud.ports[one].stamp.revision += 1;
        let started = Instant::now();
        node.settle(&cloud);
        let change = started.elapsed();
        let passes = || node.role_status().and_then(|s| Some(s.reconcilers.first()?.passes)).unwrap_or(0);
        let before = passes();
        eventually("a pass that finds nothing to do", || passes() > before);
        let idle = node.role_status().unwrap().reconcilers[0].took_ms;
        eprintln!("100 ports: made in {all:?}, one changed in {change:?}, an idle pass takes {idle} ms");
        everything_goes(node, &mut cloud);
    });
}

/// A port may be down, may send as others on request, and may be left unwatched.
#[test]
fn ports_are_as_their_users_want_them() {
    on_a_node(|node| {
        let mut cloud = Cloud::default();
        let (net, subnet) = cloud.network("10.0.0.0/24", None);
        let open = cloud.group(&[&allow("icmp", None)]);
        let a = cloud.guest(&net, &subnet, "10.0.0.10", "a", &[&open]);
        let b = cloud.guest(&net, &subnet, "10.0.0.11", "b", &[&open]);
        let closed = cloud.guest(&net, &subnet, "10.0.0.12", "c", &[]);
        node.start_agent();
        node.settle(&cloud);
        let [ga, gb, gc] = [&a, &b, &closed].map(|p| node.guest(&cloud, p));
        [&ga, &gb, &gc].iter().for_each(|g| drop(g.dhcp()));
        assert!(ga.pings("10.0.0.11"));
        assert!(!gc.pings("10.0.0.11") && !ga.pings("10.0.0.12"), "without a group nothing passes");

        let from = "ping -n -c 1 -W 1 -I 10.0.0.99 10.0.0.10";
        gb.sh("ip addr add 10.0.0.99/24 dev eth0");
        assert!(!gb.run(from).status.success());
        let mac = cloud.port_mut(&b).mac.clone();
        cloud.port_mut(&b).allowed_address_pairs =
            vec![AddressPair { ip: "10.0.0.96/30".parse().unwrap(), mac }];
        node.settle(&cloud);
        eventually("an address that is allowed", || gb.run(from).status.success());

        let port = cloud.port_mut(&closed);
        port.port_security = false;
        node.settle(&cloud);
        gc.sh("ip addr add 10.0.0.50/24 dev eth0");
        assert!(gc.run("ping -n -c 1 -W 1 -I 10.0.0.50 10.0.0.11").status.success(), "unwatched");
        assert!(ga.pings("10.0.0.12"), "unwatched");

        cloud.port_mut(&a).admin_state_up = false;
        node.settle(&cloud);
        assert!(!gb.pings("10.0.0.10") && !node.port_status(&a).unwrap().up, "down");
        everything_goes(node, &mut cloud);
    });
}
