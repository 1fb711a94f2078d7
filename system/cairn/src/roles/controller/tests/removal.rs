//! Nodes that are removed, dead and alive, and those that may not be.

use cairn_cluster::membership::{Member, MemberState, change};
use cairn_node::told;
use cairn_shards::model::VolumeSpec;

use super::super::left;
use super::three::{leader, three};
use super::*;

fn order(node: &Node) -> operator::Order {
    operator::Order { node: node.name(), ..operator::Order::default() }
}

fn state(of: &Node, seen_by: &Node) -> MemberState {
    let members = seen_by.store().read(|tx| Ok::<_, change::Error>(tx.list_unfenced::<Member>()?)).unwrap();
    members.iter().find(|m| m.name == of.name()).unwrap().state
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_is_removed_without_it_and_stays_out_when_it_comes_back() {
    let nodes = three().await;
    let dead = &nodes[(leader(&nodes.each_ref()).unwrap() + 1) % 3];
    let left: Vec<_> = nodes.iter().filter(|n| n.name() != dead.name()).collect();
    let only = VolumeSpec::new("v1", dead.name(), 1024);
    let put = left[0].store();
    put.transact(|tx| Ok::<_, change::Error>(tx.put(&only)?)).await.unwrap();
    dead.stop().await;

    let refused = ordered(left[0], "/remove", &order(dead)).await.unwrap_err();
    assert!(refused.contains("only whole copy of these volumes: v1"), "{refused}");
    assert_eq!(state(dead, left[0]), MemberState::Member, "nothing was changed");
    let anyway = operator::Order { lose_volumes: true, ..order(dead) };
    ordered(left[0], "/remove", &anyway).await.unwrap();
    assert_eq!(state(dead, left[0]), MemberState::Removed);
    left[1].put("test/on").await;

    dead.start().await;
    within(left::removed(dead.cluster())).await.unwrap();
    assert_eq!(told::joining(&dead.paths).unwrap().state, left::SAYS);
    dead.stop().await;
    let entering = Cluster::enter(dead.surroundings(), dead.given());
    let entered = tokio::time::timeout(Duration::from_secs(2), entering).await;
    assert!(entered.is_err(), "it serves nothing any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_voter_hands_over_before_it_is_removed() {
    let wire = Wire::new();
    let (first, second) = (wire.node(41), wire.node(42));
    first.start().await;
    second.start().await;
    until("the second is in the group", || second.store().status().unwrap().members.len() == 2).await;
    until("the second has come", || state(&second, &second) == MemberState::Member).await;
    ordered(&second, "/remove", &order(&first)).await.unwrap();
    until("the second leads", || second.cluster().leads() && second.voters() == 1).await;
    second.put("test/alone").await;
    let last = ordered(&second, "/remove", &order(&second)).await.unwrap_err();
    assert!(last.contains("the last node"), "{last}");
}
