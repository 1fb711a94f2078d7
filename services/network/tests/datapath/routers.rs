//! Routers: out, in, and back by the same way.

use cairn_network::model::*;

use crate::node::{self, Node, eventually, on_a_node, sh, text};
use crate::support::{Cloud, NODE, lan};
use crate::{allow, bump, everything_goes};

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

        let resolves = |g: &node::Guest| {
            // Nobody resolves on this node, so an answer is "server failure"; no answer at all takes longer.
            text(&g.run("timeout 1 busybox nslookup web.test 203.0.113.2")).contains("SERVFAIL")
        };
        assert!(resolves(d_) && !resolves(&outside), "DNS on the LAN is for the cloud's own guests");
        let asks = outside.run("busybox arping -f -w 1 -I eth0 169.254.169.254");
        assert!(!asks.status.success(), "nobody claims the metadata address on the LAN");
        assert_eq!(d_.sh("curl -s -m 3 http://169.254.169.254/latest/meta-data/hostname"), "d");

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
    cloud.floating_ips[0].port_id = Some(b.to_owned());
    cloud.floating_ips[0].fixed_ip_address = Some("10.0.0.11".parse().unwrap());
    bump(cloud);
    node.settle(cloud);
    // b does not listen on 22, a does: who answers now is b.
    assert!(!outside.connects("203.0.113.50", 22), "a is not behind it any more");
    assert!(outside.pings("203.0.113.50"), "b is");
    cloud.floating_ips.clear();
    bump(cloud);
    node.settle(cloud);
    assert!(!outside.pings("203.0.113.50"));
}

/// What cannot be made is told, and made as soon as it can be.
#[test]
fn a_node_without_the_lan_says_so() {
    on_a_node(|node| {
        let mut cloud = Cloud::default();
        let (ext, ext_subnet) = cloud.network("203.0.113.0/24", lan());
        let (net, subnet) = cloud.network("10.0.0.0/24", None);
        cloud.router(&[(&net, &subnet, "10.0.0.1")], Some((&ext, &ext_subnet, "203.0.113.9")));
        let gateway = cloud.ports.last().unwrap().id.clone();
        node.start_agent();
        node.put(&cloud);
        eventually("the gateway port has failed", || {
            let status = node.port_status(&gateway);
            status.is_some_and(|s| s.phase == Phase::Failed && s.error.unwrap().contains("lan0"))
        });
        // Ports are told of before the host is.
        eventually("the host has no physical network", || {
            node.get::<HostStatus>(NODE).is_some_and(|host| host.physical_networks.is_empty())
        });
        sh("ip link add lan0 type bridge; ip link set lan0 up");
        node.settle(&cloud);
        everything_goes(node, &mut cloud);
    });
}
