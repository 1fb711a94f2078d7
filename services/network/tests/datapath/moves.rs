//! A guest that moves to another node takes its port along.

use cairn_network::model::*;

use crate::allow;
use crate::node::{eventually, text};
use crate::nodes::{Machine, on_machines, settle};
use crate::spanning::{bind, everything_goes, name};
use crate::support::Cloud;

#[test]
fn a_port_moves_while_it_is_pinged() {
    on_machines(3, |machines, _| {
        let mut cloud = Cloud::default();
        let (net, subnet) = cloud.network("10.0.0.0/24", None);
        let open = cloud.group(&[&allow("icmp", None)]);
        let a = cloud.guest(&net, &subnet, "10.0.0.10", "a", &[&open]);
        let b = cloud.guest(&net, &subnet, "10.0.0.11", "b", &[&open]);
        let c = cloud.guest(&net, &subnet, "10.0.0.12", "c", &[&open]);
        bind(&mut cloud, &b, 2);
        bind(&mut cloud, &c, 3);
        settle(machines, &cloud);
        let (ga, gb) = (machines[0].guest(&cloud, &a), machines[1].guest(&cloud, &b));
        let gc = machines[2].guest(&cloud, &c);
        for (guest, ip) in [(&ga, "10.0.0.10"), (&gb, "10.0.0.11"), (&gc, "10.0.0.12")] {
            guest.sh(&format!("ip addr add {ip}/24 dev eth0"));
        }
        eventually("it is reached from everywhere", || ga.pings("10.0.0.11") && gc.pings("10.0.0.11"));

        // The new node gets ready, and says so; nothing has moved.
        prepare(&mut cloud, machines, &b, 3);
        assert!(ga.pings("10.0.0.11") && gc.pings("10.0.0.11"), "it still is where it was");
        // Called off, nothing is left there.
        cloud.port_mut(&b).migrating_to = None;
        settle(machines, &cloud);
        let tap = tap_name(&b);
        eventually("the tap is gone, and so is the report", || {
            let (tap, port) = (tap.clone(), b.clone());
            machines[2].with(move |node| {
                !text(&crate::run("ip -br link")).contains(&tap) && node.get::<PortPrepared>(&port).is_none()
            })
        });

        prepare(&mut cloud, machines, &b, 3);
        let moved = machines[2].guest(&cloud, &b);
        let pings = ga.background_pings("10.0.0.11", 100);
        // The guest stops here and goes on there, as QEMU does it; then compute says so.
        gb.sh("ip link set eth0 down");
        moved.sh("ip addr add 10.0.0.11/24 dev eth0");
        let port = cloud.port_mut(&b);
        (port.host, port.migrating_to) = (Some(name(3)), None);
        settle(machines, &cloud);
        let output = text(&pings.wait_with_output().unwrap());
        let answered = output.lines().filter(|l| l.contains("bytes from")).count();
        eprintln!("{}", output.lines().find(|l| l.contains("transmitted")).unwrap());
        assert!(answered > 20, "{output}");
        assert!(
            ga.pings("10.0.0.11") && gc.pings("10.0.0.11") && moved.pings("10.0.0.10"),
            "it is there now"
        );
        eventually("its old node has let go", || {
            let tap = tap_name(&b);
            machines[1].with(move |_| !text(&crate::run("ip -br link")).contains(&tap))
        });
        assert_eq!(machines[2].with(move |node| node.port_status(&b)).unwrap().host, name(3));
        everything_goes(machines, &mut cloud);
    });
}

fn prepare(cloud: &mut Cloud, machines: &[Machine], port: &str, number: usize) {
    cloud.port_mut(port).migrating_to = Some(name(number));
    let generation = cloud.ports.iter().find(|p| p.id == port).unwrap().generation();
    settle(machines, cloud);
    let port = port.to_owned();
    machines[number - 1].with(move |node| {
        eventually("the new node is ready", || {
            node.get::<PortPrepared>(&port)
                .is_some_and(|p| p.phase == Phase::Ready && p.generation == generation && p.host == node.name)
        });
    });
}
