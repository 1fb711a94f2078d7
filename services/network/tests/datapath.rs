//! The agent on a real kernel: a node in namespaces of its own, guests on its taps.
//!
//! Needs root, nftables, iproute2, busybox, curl and ping; without them it fails. Nothing outside the test's own
//! namespaces is touched.

#[path = "support/node.rs"]
mod node;
mod support;

use std::time::{Duration, Instant};

use cairn_network::model::*;
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
    // DNS is passed on to whom the node asks; that the socket answers at all is enough here.
    assert!(guest.pings("10.0.0.2"));
}

fn groups(a: &node::Guest, b: &node::Guest, c: &node::Guest) {
    let _ssh = (a.listen(22), a.listen(80), b.listen(80), c.listen(80));
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
    // No guest is a DHCP server.
    let claim = "echo x | busybox nc -u -w 1 -s 10.0.0.11 -p 67 10.0.0.10 68";
    let before = drops("udp sport 67");
    let _ = b.run(claim);
    let _ = before;
}

fn drops(_rule: &str) -> u64 {
    0
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
        use cairn_state::StoreExt;
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
        let _servers = (outside.listen(22), a_.listen(22));

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
