//! Three nodes that are switched on together.

use std::collections::BTreeSet;

use cairn_cluster::alive::since_renewal;
use cairn_cluster::membership::{Member, change};
use cairn_cluster::{Alive, handover};
use futures_util::future::join_all;

use super::*;

fn alive(node: &Node) -> usize {
    node.store().read(|tx| Ok::<_, change::Error>(tx.list_unfenced::<Alive>()?.len())).unwrap()
}

pub(super) fn leader(nodes: &[&Node]) -> Option<usize> {
    nodes.iter().position(|node| node.cluster().leads())
}

pub(super) async fn three() -> [Node; 3] {
    let wire = Wire::new();
    let nodes = [wire.node(1), wire.node(2), wire.node(3)];
    join_all(nodes.iter().map(Node::start)).await;
    until("three voters", || nodes.iter().all(|n| n.voters() == 3)).await;
    nodes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_become_one_cloud_that_outlives_the_loss_of_its_leader_and_of_a_disk() {
    let nodes = three().await;
    let clouds: BTreeSet<_> = nodes.iter().map(|n| n.cluster().kept().belonging.cloud).collect();
    assert_eq!(clouds.len(), 1);
    assert_eq!(nodes.iter().filter(|n| n.cluster().kept().founded).count(), 1);
    until("all are in touch", || nodes.iter().all(|n| alive(n) == 3)).await;
    for node in &nodes {
        let told = std::fs::read_to_string(node.paths.handover().join("cloud")).unwrap();
        assert!(clouds.contains(&told));
        assert!(since_renewal(&node.paths.alive()).is_some());
        node.put(&format!("test/{}", node.name())).await;
    }

    let first = leader(&nodes.each_ref()).unwrap();
    nodes[first].stop().await;
    let others: Vec<_> = nodes.iter().enumerate().filter(|(n, _)| *n != first).map(|(_, n)| n).collect();
    for node in &others {
        node.put(&format!("after/{}", node.name())).await;
        assert!(node.has(&format!("test/{}", nodes[first].name())).await);
    }
    until("another leads", || leader(&others).is_some()).await;

    // It comes back without its store: the cloud gives it the state again, as another replica.
    std::fs::remove_file(nodes[first].paths.store()).unwrap();
    nodes[first].start().await;
    until("three voters, and no trace of the lost replica", || {
        let status = nodes[first].store().status().unwrap();
        nodes.iter().all(|n| n.voters() == 3)
            && status.voters.contains(&status.node)
            && status.members.len() == 3
    })
    .await;
    assert!(nodes[first].has(&format!("after/{}", others[0].name())).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_is_refused_and_the_others_go_on() {
    let nodes = three().await;
    let gone = &nodes[(leader(&nodes.each_ref()).unwrap() + 1) % 3];
    let left: Vec<_> = nodes.iter().filter(|n| n.name() != gone.name()).collect();
    std::fs::write(left[0].paths.run.join("node.key"), &left[0].key).unwrap();
    let role = handover::open(&left[0].paths.run, &left[0].paths.trust(), 4601).unwrap();
    assert!(role.id_of(&gone.name()).is_some());

    let order = operator::Order { node: gone.name(), ..operator::Order::default() };
    ordered(left[0], "/remove", &order).await.unwrap();
    until("two members, of which one votes", || {
        left.iter().all(|n| {
            let status = n.store().status().unwrap();
            status.members.len() == 2 && status.voters.len() == 1
        })
    })
    .await;
    let id = left[0].cluster().id;
    let heard = within(gone.cluster().peers.call::<_, ()>(id, "cluster/health", &(), PATIENCE)).await;
    assert!(heard.is_err(), "a removed node is heard");
    let members =
        |n: &Node| n.store().read(|tx| Ok::<_, change::Error>(tx.list_unfenced::<Member>()?)).unwrap();
    assert_eq!(members(left[0]).iter().filter(|m| m.is_trusted()).count(), 2);
    left[1].put("test/on").await;
    // The roles of the others hear of it.
    let role = handover::open(&left[0].paths.run, &left[0].paths.trust(), 4601).unwrap();
    assert_eq!(role.id_of(&gone.name()), None);
}
