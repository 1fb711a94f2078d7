//! A network on several nodes: what crosses, and what does not.

use cairn_network::model::*;

use crate::node::{eventually, in_space, text};
use crate::nodes::{Capture, Inside, Machine, on_machines, settle};
use crate::support::Cloud;
use crate::{allow, lost};

/// The name of a machine.
pub fn name(number: usize) -> String {
    format!("cairn-00000{number}")
}

/// Binds a port to a machine.
pub fn bind(cloud: &mut Cloud, port: &str, number: usize) {
    cloud.port_mut(port).host = Some(name(number));
    for network in &mut cloud.networks {
        network.hosts.insert(name(number));
    }
}

/// Everything is asked to go, on all machines, and nothing is left.
pub fn everything_goes(machines: &[Machine], cloud: &mut Cloud) {
    for port in cloud.ports.iter_mut().filter(|p| p.host.is_some()) {
        port.deleted = true;
        port.migrating_to = None;
        port.stamp.revision += 1;
    }
    cloud.networks.iter_mut().for_each(|n| {
        n.deleted = true;
        n.stamp.revision += 1;
    });
    cloud.routers.iter_mut().for_each(|r| r.deleted = true);
    settle(machines, cloud);
    for machine in machines {
        machine.with(|_| eventually("nothing is left", || crate::left().is_empty()));
    }
}

/// What the tunnels of a machine go by.
fn entries(machine: &Machine) -> String {
    machine.with(|_| {
        let command = "for v in $(ip -o link show type vxlan | cut -d: -f2); do bridge fdb show dev $v | sort; done; ip neigh show nud permanent | sort";
        text(&crate::run(command))
    })
}

#[test]
fn guests_on_different_nodes_are_on_one_network() {
    on_machines(3, |machines, outside| {
        let mut cloud = Cloud::default();
        let (net, subnet) = cloud.network("10.0.0.0/24", None);
        let subnet6 = cloud.subnet6(&net, "fd00:1::/64");
        let open =
            cloud.group(&[&allow("icmp", None), &allow("tcp", Some(22)), &|r| r.ethertype = Ethertype::V6]);
        let closed = cloud.group(&[]);
        let a = cloud.guest(&net, &subnet, "10.0.0.10", "a", &[&open]);
        let b = cloud.guest(&net, &subnet, "10.0.0.11", "b", &[&open]);
        let c = cloud.guest(&net, &subnet, "10.0.0.12", "c", &[&closed]);
        for port in [&a, &b] {
            let mac: cairn_network::agent::mac::Mac = cloud.port_mut(port).mac.parse().unwrap();
            let suffix = u128::from(mac.link_local()) & u128::from(u64::MAX);
            let prefix = u128::from("fd00:1::".parse::<std::net::Ipv6Addr>().unwrap());
            let ip = std::net::Ipv6Addr::from(prefix | suffix).into();
            cloud.port_mut(port).fixed_ips.push(FixedIp { subnet_id: subnet6.clone(), ip });
        }
        bind(&mut cloud, &b, 2);
        bind(&mut cloud, &c, 2);
        settle(machines, &cloud);
        let (ga, gb, gc) =
            (machines[0].guest(&cloud, &a), machines[1].guest(&cloud, &b), machines[1].guest(&cloud, &c));

        let wire = Capture::start(&machines[1]);
        eventually("the tunnels are there", || {
            machines.iter().take(2).all(|m| entries(m).contains("dst 203.0.113."))
        });
        for guest in [&ga, &gb, &gc] {
            assert!(guest.dhcp().contains("mtu=1450"));
        }
        crossing(&ga, &gb, &gc);
        let address =
            |port: &str| cloud.ports.iter().find(|p| p.id == port).unwrap().fixed_ips[1].ip.to_string();
        gb.sh(&format!("ip addr add {}/64 dev eth0 nodad", address(&b)));
        ga.sh(&format!("ip addr add {}/64 dev eth0 nodad", address(&a)));
        eventually("IPv6 crosses too", || ga.pings(&address(&b)));
        let seen = wire.stop();
        assert!(seen.frames > 10, "{seen:?}");
        assert_eq!((seen.arp, seen.solicitations, seen.dhcp), (0, 0, 0), "{seen:?}");
        let own = machines[0].sh("ip -br -6 addr show dev br00000001-00");
        assert!(!own.contains("fe80"), "the node itself is not on its guests' networks: {own}");
        assert_eq!(entries(&machines[2]), "", "a node without ports of it has nothing of it");

        strangers(&machines[1], outside);
        restarts(machines, &ga);
        everything_goes(machines, &mut cloud);
    });
}

fn crossing(a: &Inside<'_>, b: &Inside<'_>, c: &Inside<'_>) {
    eventually("a guest is reached on another node", || a.pings("10.0.0.11"));
    let pings = a.background_pings("10.0.0.11", 20);
    assert_eq!(lost(pings), 0, "from node to node");
    assert!(b.pings("10.0.0.10"), "and back");
    assert!(!a.pings("10.0.0.12"), "groups hold for what comes through the tunnel");
    assert!(c.pings("10.0.0.10"), "c may begin");
    a.sh("ping -n -c 1 -W 1 -M do -s 1422 10.0.0.11");
    a.sh("curl -s -m 3 http://169.254.169.254/openstack/latest/meta_data.json | grep server-a");
    b.sh("curl -s -m 3 http://169.254.169.254/openstack/latest/meta_data.json | grep server-b");
}

/// Who is no node gets nothing into a tunnel.
fn strangers(machine: &Machine, outside: &crate::node::Guest) {
    let dropped = |machine: &Machine| machine.sh("nft list table inet cairn_tunnel | grep counter");
    let before = dropped(machine);
    assert!(before.contains("packets 0"), "{before}");
    in_space(&outside.name, || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.send_to(&[0; 64], "203.0.113.2:4789").unwrap();
    });
    eventually("it is dropped", || !dropped(machine).contains("packets 0"));
}

fn restarts(machines: &[Machine], a: &Inside<'_>) {
    let before: Vec<_> = machines.iter().map(entries).collect();
    let pings = a.background_pings("10.0.0.11", 60);
    for machine in &machines[..2] {
        machine.with(|node| {
            node.stop_agent();
            node.start_agent();
        });
        std::thread::sleep(std::time::Duration::from_millis(600));
    }
    assert_eq!(lost(pings), 0, "a restart disturbs nothing");
    assert_eq!(machines.iter().map(entries).collect::<Vec<_>>(), before);
}

#[test]
fn tunnels_follow_the_lan_to_ipv6() {
    on_machines(2, |machines, _| {
        let mut cloud = Cloud::default();
        let (net, subnet) = cloud.network("10.0.0.0/24", None);
        let open = cloud.group(&[&allow("icmp", None)]);
        let a = cloud.guest(&net, &subnet, "10.0.0.10", "a", &[&open]);
        let b = cloud.guest(&net, &subnet, "10.0.0.11", "b", &[&open]);
        bind(&mut cloud, &b, 2);
        settle(machines, &cloud);
        let (ga, gb) = (machines[0].guest(&cloud, &a), machines[1].guest(&cloud, &b));
        ga.sh("ip addr add 10.0.0.10/24 dev eth0");
        gb.sh("ip addr add 10.0.0.11/24 dev eth0");
        eventually("by IPv4", || ga.pings("10.0.0.11"));
        for (number, machine) in machines.iter().enumerate() {
            machine.sh(&format!(
                "ip addr add fd00:99::{}/64 dev lan0 nodad; ip addr del 203.0.113.{}/24 dev lan0",
                number + 1,
                number + 1
            ));
        }
        eventually("by IPv6", || {
            machines.iter().all(|m| entries(m).contains("dst fd00:99::")) && ga.pings("10.0.0.11")
        });
        everything_goes(machines, &mut cloud);
    });
}
