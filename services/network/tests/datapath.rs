//! The agent on a real kernel: a node in namespaces of its own, guests on its taps.
//!
//! Needs root, nftables, iproute2, busybox, curl and ping; without them it fails. Nothing outside the test's own
//! namespaces is touched.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/node.rs"]
mod node;
mod support;

use std::time::{Duration, Instant};

use cairn_network::agent::{announce, mac};
use cairn_network::model::*;
use cairn_state::StoreExt;
use node::{Node, eventually, on_a_node, run, sh, text};
use support::{Cloud, NODE, lan};

/// What of ours is on the node.
fn left() -> String {
    text(&run(
        "ip -o link | grep -E \": (tap|br|vp|pa|pb|vl)[0-9a-f]{8}-\"; ls /run/netns | grep -E \"^(net|rtr)-\"; nft list tables | grep cairn",
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

#[test]
fn a_restart_changes_nothing_and_damage_heals() {
    on_a_node(|node| {
        let mut cloud = Cloud::default();
        let (net, subnet) = cloud.network("10.0.0.0/24", None);
        let open = cloud.group(&[&allow("icmp", None)]);
        let a = cloud.guest(&net, &subnet, "10.0.0.10", "a", &[&open]);
        let b = cloud.guest(&net, &subnet, "10.0.0.11", "b", &[&open]);
        node.start_agent();
        node.settle(&cloud);
        let (ga, gb) = (node.guest(&cloud, &a), node.guest(&cloud, &b));
        ga.dhcp();
        gb.dhcp();
        let snapshot = || {
            text(&run(
                "ip -o link | sed \"s/ qlen.*//\"; nft -a list ruleset | grep -v counter; ls -i /run/netns",
            ))
        };
        let before = snapshot();

        let pings = background_pings(&ga, "10.0.0.11", 60);
        for _ in 0..3 {
            node.stop_agent();
            node.start_agent();
            std::thread::sleep(Duration::from_millis(600));
        }
        assert_eq!(lost(pings), 0, "no packet is lost");
        assert_eq!(snapshot(), before, "nothing was touched");
        // The servers are the agent's own and must be back.
        ga.dhcp();
        ga.sh("curl -s -m 3 http://169.254.169.254/openstack");

        damage(node, &cloud, &ga, &a);
        orphans(node);
        away(node, &ga);
    });
}

fn damage(node: &Node, cloud: &Cloud, guest: &node::Guest, port: &str) {
    let rules = text(&run("nft -s list ruleset"));
    sh("nft flush ruleset");
    sh(&format!("ip link set {} nomaster", tap_name(port)));
    let space = netns_name(&cloud.networks[0].id);
    sh(&format!("ip netns exec {space} ip addr flush dev lo; ip netns del {space}"));
    // Any change wakes the agent; without one it looks by itself every ten seconds.
    let mut woken = cloud.clone();
    woken.networks[0].stamp.revision += 1;
    node.put(&woken);
    eventually("rules, bridge and namespace are back", || {
        text(&run("nft -s list ruleset")) == rules && guest.pings("10.0.0.11") && guest.pings("10.0.0.2")
    });
    guest.dhcp();
    node.put(cloud);
}

fn orphans(node: &Node) {
    let id = "deadbeef-0000-4000-8000-000000000000";
    sh(&format!("ip link add {} type bridge; ip tuntap add {} mode tap", bridge_name(id), tap_name(id)));
    sh(&format!("ip netns add {}; ip link add keepme type bridge; ip netns add other", router_netns(id)));
    node.runtime.block_on(async {
        // Somebody else's record wakes nobody; a security group's does.
        let group = SecurityGroup {
            id: "g".into(),
            project_id: "p".into(),
            name: String::new(),
            description: String::new(),
            is_default: false,
            tags: Default::default(),
            stamp: support::stamp(),
        };
        node.store.transact(|tx| tx.put(&group)).await.map_err(|e: cairn_state::Abort| e).unwrap();
        assert!(node.store.get_record::<SecurityGroup>("g").await.unwrap().is_some());
    });
    eventually("orphans are gone", || !left().contains("deadbeef"));
    let all = text(&run("ip -o link; ls /run/netns"));
    assert!(all.contains("keepme") && all.contains("other"), "what is not ours stays: {all}");
}

/// Without the store the agent starts by what it kept, and takes nothing away.
fn away(node: &mut Node, guest: &node::Guest) {
    std::thread::sleep(Duration::from_millis(700));
    node.stop_agent();
    node.start_agent_on(std::sync::Arc::new(Unreachable));
    eventually("metadata is answered from what was kept", || {
        guest
            .run("curl -s -m 1 http://169.254.169.254/openstack/latest/meta_data.json | grep server-a")
            .status
            .success()
    });
    assert!(guest.pings("10.0.0.11"));
}

/// A store that is away.
struct Unreachable;

#[async_trait::async_trait]
impl cairn_state::Store for Unreachable {
    async fn get(&self, _: &str) -> Result<Option<cairn_state::Entry>, cairn_state::StoreError> {
        Err(gone())
    }
    async fn range(
        &self,
        _: &str,
        _: Option<&str>,
        _: usize,
    ) -> Result<cairn_state::Range, cairn_state::StoreError> {
        Err(gone())
    }
    async fn txn(&self, _: cairn_state::Txn) -> Result<cairn_state::TxnOutcome, cairn_state::StoreError> {
        Err(gone())
    }
    async fn watch(
        &self,
        _: &str,
        _: cairn_state::Revision,
    ) -> Result<cairn_state::WatchStream, cairn_state::StoreError> {
        Err(gone())
    }
    async fn lease_grant(&self, _: u64) -> Result<cairn_state::LeaseId, cairn_state::StoreError> {
        Err(gone())
    }
    async fn lease_keep_alive(&self, _: cairn_state::LeaseId) -> Result<(), cairn_state::StoreError> {
        Err(gone())
    }
    async fn lease_revoke(&self, _: cairn_state::LeaseId) -> Result<(), cairn_state::StoreError> {
        Err(gone())
    }
}

fn gone() -> cairn_state::StoreError {
    cairn_state::StoreError::Unavailable("away".into())
}

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

/// A node's worth of guests comes, is looked after, and goes in a time that nobody notices.
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
        let passes = || node.role_status().map_or(0, |s| s.reconcilers[0].passes);
        let before = passes();
        eventually("a pass that finds nothing to do", || passes() > before);
        let idle = node.role_status().unwrap().reconcilers[0].took_ms;
        eprintln!("100 ports: made in {all:?}, one changed in {change:?}, an idle pass takes {idle} ms");
        assert!(all < Duration::from_secs(8) && change < Duration::from_secs(2) && idle < 1000);
        everything_goes(node, &mut cloud);
    });
}

#[test]
fn routers_translate_both_ways() {
    on_a_node(|node| {
        // The LAN: the node's bridge, and a machine on it.
        sh("ip link add lan0 type bridge; ip link set lan0 up; ip addr add 203.0.113.1/24 dev lan0");
        sh(
            "ip netns add outside; ip link add o0 type veth peer name eth0 netns outside; ip link set o0 master lan0 up",
        );
        sh(
            "ip netns exec outside sh -c \"ip addr add 203.0.113.200/24 dev eth0; ip link set eth0 up; ip link set lo up\"",
        );
        let outside = node::Guest { name: "outside".into() };

        let mut cloud = Cloud::default();
        let (ext, ext_subnet) = cloud.network("203.0.113.0/24", lan());
        let (net, subnet) = cloud.network("10.0.0.0/24", None);
        let (net2, subnet2) = cloud.network("10.0.1.0/24", None);
        let open = cloud.group(&[&allow("icmp", None), &allow("tcp", Some(22))]);
        let a = cloud.guest(&net, &subnet, "10.0.0.10", "a", &[&open]);
        let b = cloud.guest(&net, &subnet, "10.0.0.11", "b", &[&open]);
        let c = cloud.guest(&net2, &subnet2, "10.0.1.10", "c", &[&open]);
        let d = cloud.guest(&ext, &ext_subnet, "203.0.113.77", "d", &[&open]);
        let legs = [(&*net, &*subnet, "10.0.0.1"), (&*net2, &*subnet2, "10.0.1.1")];
        let router = cloud.router(&legs, Some((&ext, &ext_subnet, "203.0.113.9")));
        cloud.floating(&ext, "203.0.113.50", &a, "10.0.0.10", &router);
        node.start_agent();
        node.settle(&cloud);
        eventually("the router is reported", || {
            node.get::<RouterStatus>(&status::on_host(&router, NODE)).is_some_and(|s| s.phase == Phase::Ready)
        });
        let guests: Vec<_> = [&a, &b, &c, &d].iter().map(|p| node.guest(&cloud, p)).collect();
        guests.iter().for_each(|g| drop(g.dhcp()));
        let [a_, b_, c_, d_] = guests.as_slice() else { unreachable!() };
        a_.listen(22);

        assert!(b_.pings("203.0.113.200"), "out, by the shared address");
        assert!(a_.pings("203.0.113.200"), "out, by the floating address");
        assert!(b_.pings("10.0.1.10") && c_.pings("10.0.0.10"), "between networks");
        assert!(outside.pings("203.0.113.50"), "in, by the floating address");
        assert!(outside.connects("203.0.113.50", 22), "in, by TCP");
        assert!(b_.pings("203.0.113.50"), "hairpin from one without a floating address");
        assert!(a_.pings("203.0.113.50"), "hairpin to oneself");
        assert!(c_.connects("203.0.113.50", 22), "hairpin from another network");
        assert!(!outside.pings("203.0.113.51"));
        outside.sh("ip route add 10.0.0.0/24 via 203.0.113.9");
        assert!(!outside.pings("10.0.0.11"), "not in past the translation");
        assert!(d_.pings("203.0.113.200") && outside.pings("203.0.113.77"), "a guest on the LAN");
        assert!(
            node.role_status().is_some()
                && node.get::<HostStatus>(NODE).unwrap().physical_networks == ["lan"]
        );
        assert_eq!(filtered("lan0"), "0", "the LAN's own traffic is not filtered");
        assert_eq!(c_.sh("curl -s -m 3 http://169.254.169.254/latest/meta-data/hostname"), "c");
        assert_eq!(a_.sh("curl -s -m 3 http://169.254.169.254/latest/meta-data/public-ipv4"), "203.0.113.50");

        moves(node, &mut cloud, &outside, &b);
        everything_goes(node, &mut cloud);
    });
}

fn filtered(bridge: &str) -> String {
    let details = sh(&format!("ip -d link show {bridge}"));
    details.split("nf_call_iptables ").nth(1).unwrap()[..1].to_owned()
}

/// A floating IP that leads elsewhere does so at once, and its old connections end.
fn moves(node: &Node, cloud: &mut Cloud, outside: &node::Guest, b: &str) {
    assert!(outside.pings("203.0.113.50"));
    let before = outside.sh("ip neigh show 203.0.113.50");
    cloud.floating_ips[0].port_id = Some(b.to_owned());
    cloud.floating_ips[0].fixed_ip_address = Some("10.0.0.11".parse().unwrap());
    bump(cloud);
    let started = Instant::now();
    node.settle(cloud);
    // b does not listen on 22, a does: who answers now is b.
    assert!(!outside.connects("203.0.113.50", 22), "a is not behind it any more");
    assert!(outside.pings("203.0.113.50"), "b is");
    assert!(started.elapsed() < Duration::from_secs(5), "{before}");
    cloud.floating_ips.clear();
    bump(cloud);
    node.settle(cloud);
    assert!(!outside.pings("203.0.113.50"));
}
