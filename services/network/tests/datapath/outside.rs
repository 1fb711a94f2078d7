//! A router on one node serves guests on others, and another node takes it over.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cairn_network::conductor::rescue;
use cairn_network::logic::residence::{Fallen, recount};
use cairn_network::model::*;
use cairn_state::StoreExt;

use crate::allow;
use crate::node::{Guest, eventually, text};
use crate::nodes::{Inside, Machine, on_machines, settle};
use crate::spanning::{bind, everything_goes, name};
use crate::support::{Cloud, lan};

#[test]
fn a_router_serves_other_nodes_and_moves_when_its_own_falls() {
    on_machines(3, |machines, outside| {
        let mut cloud = Cloud::default();
        let (ext, ext_subnet) = cloud.network("203.0.113.0/24", lan());
        let (net, subnet) = cloud.network("10.0.0.0/24", None);
        let open = cloud.group(&[&allow("icmp", None)]);
        let a = cloud.guest(&net, &subnet, "10.0.0.10", "a", &[&open]);
        let b = cloud.guest(&net, &subnet, "10.0.0.11", "b", &[&open]);
        let router = cloud.router(&[(&net, &subnet, "10.0.0.1")], Some((&ext, &ext_subnet, "203.0.113.90")));
        cloud.floating(&ext, "203.0.113.50", &b, "10.0.0.11", &router);
        bind(&mut cloud, &a, 2);
        bind(&mut cloud, &b, 3);
        settle(machines, &cloud);
        let (ga, gb) = (machines[1].guest(&cloud, &a), machines[2].guest(&cloud, &b));
        ga.dhcp();
        gb.dhcp();
        works(&ga, &gb, outside);

        // The node is cut off: it steps back by itself, though nothing in the store has changed.
        machines[0].renewed.store(16, Ordering::SeqCst);
        eventually("the outer addresses are gone", || {
            !outside.pings("203.0.113.50") && !ga.pings("203.0.113.200")
        });
        let links = machines[0].sh(&format!("ip netns exec {} ip -br link", router_netns(&router)));
        let up = |prefix: &str| links.lines().any(|l| l.starts_with(prefix) && l.contains(",UP"));
        assert!(up("qr") && !up("qg"), "{links}");
        take_over(machines, &router);
        reload(&mut cloud, machines);
        let host = cloud.routers[0].host.clone().unwrap();
        assert_ne!(host, name(1));
        eventually("it is served again", || outside.pings("203.0.113.50") && ga.pings("203.0.113.200"));
        works(&ga, &gb, outside);

        // The node is back, and sees that it is not wanted.
        machines[0].renewed.store(0, Ordering::SeqCst);
        eventually("it has let go", || {
            machines[0].with(|_| !text(&crate::run("ls /run/netns")).contains("rtr-"))
        });
        works(&ga, &gb, outside);
        everything_goes(machines, &mut cloud);
    });
}

fn works(a: &Inside<'_>, b: &Inside<'_>, outside: &Guest) {
    eventually("out, by the shared address", || a.pings("203.0.113.200"));
    eventually("in, by the floating address", || outside.pings("203.0.113.50"));
    assert!(b.pings("203.0.113.200"), "out, by the floating address");
    assert!(a.pings("203.0.113.50"), "hairpin");
    assert!(a.pings("10.0.0.11") && b.pings("10.0.0.1"), "within");
}

/// What the controller does about a node that has fallen.
fn take_over(machines: &[Machine], router: &str) {
    let router = router.to_owned();
    machines[1].with(move |node| {
        let fallen: Fallen = Arc::new(|_, node| Ok(node == "cairn-000001"));
        node.runtime.block_on(async {
            node.store.transact(recount).await.unwrap();
            rescue(&node.store, &fallen).await;
        });
        assert_ne!(node.get::<Router>(&router).unwrap().host.as_deref(), Some("cairn-000001"));
    });
}

/// Makes the test's records those of the store.
fn reload(cloud: &mut Cloud, machines: &[Machine]) {
    let (routers, ports, networks) = machines[1].with(|node| {
        node.runtime.block_on(async {
            let routers = node.store.list_records::<Router>().await.unwrap();
            let ports = node.store.list_records::<Port>().await.unwrap();
            (routers, ports, node.store.list_records::<Network>().await.unwrap())
        })
    });
    (cloud.routers, cloud.ports, cloud.networks) = (routers, ports, networks);
}
