//! The agent on a real kernel: a node in namespaces of its own, guests on its taps.
//!
//! Needs root, nftables, iproute2, busybox, curl and ping; without them it fails. Nothing outside the test's own
//! namespaces is touched.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod moves;
mod networks;
#[path = "../support/node.rs"]
mod node;
#[path = "../support/nodes.rs"]
mod nodes;
mod outside;
mod restart;
mod routers;
mod spanning;
#[path = "../support/mod.rs"]
mod support;
mod virtual_address;

use cairn_network::agent::announce;
use cairn_network::model::*;
use cairn_state::StoreExt;
use node::{Node, eventually, on_a_node, run, sh, text};
use support::{Cloud, NODE};

/// What of ours is on the node.
fn left() -> String {
    text(&run(
        "ip -o link | grep -E \": (tap|br|vx|vp|pa|pb|vl)[0-9a-f]{8}-\"; ls /run/netns | grep -E \"^(net|rtr)-\"; nft list tables | grep cairn",
    ))
}

fn allow(protocol: &'static str, port: Option<u16>) -> impl Fn(&mut SecurityGroupRule) {
    move |r| {
        r.protocol = Some(protocol.into());
        (r.port_range_min, r.port_range_max) = (port, port);
    }
}

#[test]
fn guests_of_a_network_get_what_their_groups_allow() {
    on_a_node(|node| {
        let mut cloud = Cloud::default();
        let (net, subnet) = cloud.network("10.0.0.0/24", None);
        let open = cloud.group(&[&allow("icmp", None), &allow("tcp", Some(22))]);
        let members = cloud.group(&[]);
        let group = members.clone();
        cloud.rule(&members, &|r| r.remote_group_id = Some(group.clone()));
        let a = cloud.guest(&net, &subnet, "10.0.0.10", "a", &[&open]);
        let b = cloud.guest(&net, &subnet, "10.0.0.11", "b", &[&members]);
        let c = cloud.guest(&net, &subnet, "10.0.0.12", "c", &[&members]);
        resolver(node);
        node.start_agent();
        node.settle(&cloud);
        let (ga, gb, gc) = (node.guest(&cloud, &a), node.guest(&cloud, &b), node.guest(&cloud, &c));

        dhcp_and_metadata(&ga);
        gb.dhcp();
        gc.dhcp();
        groups(&ga, &gb, &gc);
        spoofing(&ga, &gb);
        changes(node, &mut cloud, &ga, &gb);
        everything_goes(node, &mut cloud);
    });
}

fn dhcp_and_metadata(guest: &node::Guest) {
    let told = guest.dhcp();
    for line in
        ["ip=10.0.0.10", "router=10.0.0.1", "dns=10.0.0.2", "mtu=1450", "hostname=a", "domain=example.org"]
    {
        assert!(told.contains(line), "{line} in {told}");
    }
    assert!(told.contains("169.254.169.254/32 10.0.0.2"), "{told}");
    let url = "http://169.254.169.254";
    let meta = guest.sh(&format!("curl -s -m 3 {url}/openstack/latest/meta_data.json"));
    assert!(meta.contains("server-a"), "{meta}");
    assert_eq!(guest.sh(&format!("curl -s -m 3 {url}/latest/meta-data/local-ipv4")), "10.0.0.10");
    assert!(guest.sh(&format!("curl -s -m 3 -o /dev/null -w %{{http_code}} {url}/nothing")).contains("404"));
    let answer = text(&guest.run("busybox nslookup web.test 10.0.0.2"));
    assert!(answer.contains("192.0.2.53"), "DNS is passed on to whom the node asks: {answer}");
}

/// A resolver on the node's loopback, that answers everything with one address.
fn resolver(node: &Node) {
    std::fs::write("/run/resolv.conf", "nameserver 127.0.0.1\n").unwrap();
    sh("mount --bind /run/resolv.conf /etc/resolv.conf");
    let socket = std::net::UdpSocket::bind("127.0.0.1:53").unwrap();
    socket.set_nonblocking(true).unwrap();
    node.runtime.spawn(async move {
        let socket = tokio::net::UdpSocket::from_std(socket).unwrap();
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let mut answer = buffer[..length].to_vec();
            answer[2] |= 0x80;
            answer[7] = 1;
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 53]);
            let _ = socket.send_to(&answer, from).await;
        }
    });
}

fn groups(a: &node::Guest, b: &node::Guest, c: &node::Guest) {
    a.listen(22);
    [a, b, c].iter().for_each(|g| g.listen(80));
    assert!(b.pings("10.0.0.10"), "a lets pings in");
    assert!(b.connects("10.0.0.10", 22), "a lets ssh in");
    assert!(!b.connects("10.0.0.10", 80), "a lets nothing else in");
    assert!(!a.pings("10.0.0.11"), "b lets only members in");
    assert!(!a.connects("10.0.0.11", 80), "b lets only members in");
    assert!(b.run("ping -n -c 1 -W 1 -s 4000 10.0.0.10").status.success(), "in fragments");
    assert!(b.pings("10.0.0.12") && c.connects("10.0.0.11", 80), "members reach each other");
}

fn spoofing(a: &node::Guest, b: &node::Guest) {
    b.sh("ip addr add 10.0.0.99/24 dev eth0");
    assert!(!b.run("ping -n -c 1 -W 1 -I 10.0.0.99 10.0.0.10").status.success(), "a foreign address");
    b.sh("ip addr del 10.0.0.99/24 dev eth0");
    let mac = b.sh("cat /sys/class/net/eth0/address").trim().to_owned();
    b.sh("ip link set eth0 address fa:16:3e:ff:ff:ff");
    assert!(!b.pings("10.0.0.10"), "a foreign MAC");
    b.sh(&format!("ip link set eth0 address {mac}"));
    eventually("its own MAC passes again", || b.pings("10.0.0.10"));
    // The node itself is not there for guests: neither by ARP nor by the bridge's own MAC.
    let bridge = sh("ip -o link show type bridge");
    let own = bridge.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    sh("ip addr replace 192.0.2.1/32 dev lo");
    a.sh(&format!("ip route replace 192.0.2.1 dev eth0; ip neigh replace 192.0.2.1 lladdr {own} dev eth0"));
    assert!(!a.pings("192.0.2.1"), "the node's own address");
    a.sh("ip neigh del 192.0.2.1 dev eth0");
    assert!(!a.pings("192.0.2.1"), "the node's own address by ARP");
    a.sh("ip route del 192.0.2.1 dev eth0");
    frames(b, a);
}

/// What a guest may put on the wire, frame by frame.
fn frames(from: &node::Guest, to: &node::Guest) {
    let (own, target) = (from.mac(), to.mac());
    let own_ll = own.link_local();
    let eth = |kind: u16, rest: &[u8]| [&target.0[..], &own.0, &kind.to_be_bytes(), rest].concat();
    let arp = |ip: [u8; 4]| {
        let head = [0, 1, 8, 0, 6, 4, 0, 2];
        eth(0x0806, &[&head[..], &own.0, &ip, &target.0, &[10, 0, 0, 10]].concat())
    };
    assert!(from.reaches(to, &arp([10, 0, 0, 11])), "its own address by ARP");
    assert!(!from.reaches(to, &arp([10, 0, 0, 1])), "the router's address by ARP");
    let tagged = eth(0x8100, &[&[0, 5, 8, 6][..], &arp([10, 0, 0, 11])[14..]].concat());
    assert!(!from.reaches(to, &tagged), "a tagged frame");
    assert!(!from.reaches(to, &eth(0x8863, &[0; 50])), "neither ARP nor IP");

    let neighbour = |claims: std::net::Ipv6Addr, kind: u8, hop: std::net::Ipv6Addr| {
        let mut icmp = vec![kind, 0, 0, 0, 0x20, 0, 0, 0];
        icmp.extend(claims.octets());
        let all = "ff02::1".parse().unwrap();
        let sum = announce::icmpv6_checksum(hop, all, &icmp);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
        announce::ipv6_frame(own, hop, all, &icmp)
    };
    let other = "fe80::1".parse().unwrap();
    assert!(from.reaches(to, &neighbour(own_ll, 136, own_ll)), "its own address by neighbour discovery");
    assert!(!from.reaches(to, &neighbour(other, 136, own_ll)), "another's address by neighbour discovery");
    assert!(!from.reaches(to, &neighbour(own_ll, 136, other)), "from another's IPv6 address");
    assert!(!from.reaches(to, &neighbour(own_ll, 134, own_ll)), "a router advertisement");

    let offer = |source: u16, target: u16| {
        let mut ip = vec![0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 11, 255, 255, 255, 255];
        let sum = announce::checksum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        ip.extend([source.to_be_bytes(), target.to_be_bytes(), [0, 12], [0, 0], [1, 2], [3, 4]].concat());
        eth(0x0800, &ip)
    };
    assert!(!from.reaches(to, &offer(67, 68)), "serving DHCP");
}

/// Established connections survive a change of rules; what is not allowed any more ends.
fn changes(node: &Node, cloud: &mut Cloud, a: &node::Guest, b: &node::Guest) {
    let pings = background_pings(b, "10.0.0.10", 30);
    let open = cloud.groups[0].id.clone();
    for port in 0..5 {
        cloud.rule(&open, &allow("udp", Some(5000 + port)));
        bump(cloud);
        node.settle(cloud);
    }
    assert_eq!(lost(pings), 0, "a change of other rules breaks nothing");
    cloud.rules.retain(|r| r.security_group_id != open || r.protocol.as_deref() != Some("icmp"));
    bump(cloud);
    node.settle(cloud);
    assert!(!b.pings("10.0.0.10"), "what is not allowed any more ends");
    assert!(a.pings("10.0.0.2"), "what a itself begins goes on");
}

/// A change that every port's status tells.
fn bump(cloud: &mut Cloud) {
    cloud.ports.iter_mut().for_each(|p| p.stamp.revision += 1);
}

fn background_pings(guest: &node::Guest, to: &str, count: u32) -> std::process::Child {
    let name = guest.name.clone();
    std::process::Command::new("ip")
        .args(["netns", "exec", &name, "ping", "-n", "-i", "0.05", "-W", "1", "-c", &count.to_string(), to])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap()
}

/// How many pings were not answered.
fn lost(pings: std::process::Child) -> u32 {
    let output = text(&pings.wait_with_output().unwrap());
    let line =
        output.lines().find(|l| l.contains("packets transmitted")).unwrap_or_else(|| panic!("{output}"));
    let number = |at: usize| line.split(' ').nth(at).unwrap().parse::<u32>().unwrap();
    number(0) - number(3)
}

fn everything_goes(node: &Node, cloud: &mut Cloud) {
    for port in cloud.ports.iter_mut().filter(|p| p.host.is_some()) {
        port.deleted = true;
        port.stamp.revision += 1;
    }
    for network in &mut cloud.networks {
        network.deleted = true;
        network.stamp.revision += 1;
    }
    cloud.routers.iter_mut().for_each(|r| r.deleted = true);
    node.settle(cloud);
    eventually("networks and routers are reported gone", || {
        let gone = |n: &Network| {
            let status = node.get::<NetworkStatus>(&status::on_host(&n.id, NODE));
            status.is_some_and(|s| s.phase == Phase::Gone && s.generation == n.stamp.revision)
        };
        let router_gone = |r: &Router| {
            node.get::<RouterStatus>(&status::on_host(&r.id, NODE)).is_some_and(|s| s.phase == Phase::Gone)
        };
        cloud.networks.iter().all(gone) && cloud.routers.iter().all(router_gone)
    });
    assert_eq!(left(), "", "nothing is left");
    eventually("the agent says so too", || {
        let facts = node.role_status().unwrap().facts;
        ["bridges", "taps", "namespaces"].iter().all(|f| facts[f] == serde_json::json!([]))
            && facts["rules"] == serde_json::json!({"chains": 0, "sets": 0})
    });
    let reported = cloud.ports[0].clone();
    *cloud = Cloud::default();
    node.put(cloud);
    eventually("reports go with what they are about", || {
        let all = node.runtime.block_on(node.store.list_records::<PortStatus>()).unwrap();
        let networks = node.runtime.block_on(node.store.list_records::<NetworkStatus>()).unwrap();
        all.is_empty() && networks.is_empty() && node.port_status(&reported.id).is_none()
    });
}
