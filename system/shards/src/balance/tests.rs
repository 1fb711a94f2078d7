//! Moves as the conductor makes them, over records alone: what is said of replicas here, agents say elsewhere.

use super::*;
use crate::conductor::tests::{alive, disk as any_disk};
use crate::conductor::{Absent, pass};
use crate::model::{Export, Phase};
use crate::removal;

const GIB: u64 = 1 << 30;

fn disk(node: &str, disk: &str, used: u64) -> DiskStatus {
    DiskStatus { disk: disk.into(), size: 100 * GIB, free: (100 - used) * GIB, ..any_disk(node) }
}

/// A volume of 10 GiB that is used on a node.
fn volume(tx: &mut Tx, id: &str, home: &str, places: &[&str]) -> Result<(), Abort> {
    let spec = VolumeSpec::new(id, home, 10 * GIB);
    tx.put(&VolumeStatus { allocated: 10 * GIB, ..VolumeStatus::new(&spec, Phase::Ready) })?;
    tx.put(&spec)?;
    tx.put(&ReplicaSet { epoch: 1, ..ReplicaSet::new(id, places.iter().map(|p| (*p).to_owned())) })
}

fn set(store: &LocalStore, id: &str) -> ReplicaSet {
    store.read(|tx| tx.get::<ReplicaSet>(id)).unwrap().unwrap()
}

fn moves(store: &LocalStore) -> Vec<ReplicaMove> {
    store.read(|tx| tx.list::<ReplicaMove>()).unwrap()
}

async fn look(store: &LocalStore, nodes: &[&str]) -> Found {
    store.transact(|tx| even_out(tx, &alive(nodes), &Round::default())).await.unwrap()
}

/// Writers and agents do what the records ask of them.
async fn obeyed(store: &LocalStore) {
    let obey = |tx: &mut Tx| -> Result<(), Abort> {
        for set in tx.list::<ReplicaSet>()? {
            for replica in &set.replicas {
                if let Some(whole) = set.with(&replica.place) {
                    tx.put(&whole)?;
                } else if replica.leaving {
                    tx.put(&ReplicaStatus {
                        volume: set.id.clone(),
                        node: replica.node().into(),
                        bound: place::disk_of(&replica.place).map(str::to_owned),
                        phase: Phase::Gone,
                        error: None,
                        disk: None,
                        allocated: 0,
                    })?;
                }
            }
        }
        Ok(())
    };
    store.transact(obey).await.unwrap();
}

/// One node with volumes on two disks, and a third that is empty.
async fn three_disks() -> LocalStore {
    let store = LocalStore::in_memory().unwrap();
    let put = |tx: &mut Tx| -> Result<(), Abort> {
        [("x", 40), ("y", 40), ("z", 0)].iter().try_for_each(|(d, used)| tx.put(&disk("a", d, *used)))?;
        ["v1", "v2", "v3", "v4"].iter().try_for_each(|id| volume(tx, id, "a", &["a/x", "a/y"]))
    };
    store.transact(put).await.unwrap();
    store
}

#[tokio::test]
async fn a_replica_leaves_when_the_new_one_is_whole_and_nothing_else_moves_meanwhile() {
    let store = three_disks().await;
    let Found::Moves(begun) = look(&store, &["a"]).await else { panic!("nothing moves") };
    assert_eq!(begun.len(), MOVES_MAX);
    assert_eq!(look(&store, &["a"]).await, Found::Busy);
    let views = store.read(disks::list).unwrap();
    let z = views.iter().find(|d| d.disk == "z").unwrap();
    assert_eq!((z.coming, z.going), (2, 0));
    let nodes = alive(&["a"]);
    for _ in 0..6 {
        assert!(!pass(&store, &nodes, &Absent::default()).await.unwrap());
        for m in &begun {
            let now = set(&store, &m.volume);
            assert!(now.in_sync().count() >= 2, "{now:?}");
            assert!(now.on(&m.from).is_none_or(|r| !r.leaving) || now.is_in_sync(&m.to), "{now:?}");
        }
        obeyed(&store).await;
        if moves(&store).is_empty() {
            break;
        }
    }
    assert!(pass(&store, &nodes, &Absent::default()).await.unwrap(), "all is as it should be");
    for m in &begun {
        let mut now: Vec<String> = set(&store, &m.volume).in_sync().map(str::to_owned).collect();
        now.sort();
        let stayed = if m.from == "a/x" { "a/y" } else { "a/x" };
        assert_eq!(now, [stayed, "a/z"]);
    }
}

#[tokio::test]
async fn a_round_goes_by_what_was_moved_and_moves_nothing_twice() {
    let store = three_disks().await;
    let (nodes, mut round, mut all) = (alive(&["a"]), Round::default(), Vec::new());
    store.read(|tx| round.ask(tx, &nodes)).unwrap();
    // Disks report nothing new meanwhile.
    loop {
        match store.transact(|tx| even_out(tx, &nodes, &round)).await.unwrap() {
            Found::Moves(moves) => {
                round.note(&moves);
                all.extend(moves);
            }
            Found::Busy => {
                obeyed(&store).await;
                pass(&store, &nodes, &Absent::default()).await.unwrap();
            }
            found => break assert_eq!(found, Found::Vain),
        }
    }
    let used: Vec<u64> = round.used.values().map(|used| used / GIB).collect();
    assert_eq!((all.len(), used), (2, vec![30, 30, 20]));
    round.end();
    assert!(round.is_over());
}

#[tokio::test]
async fn it_waits_until_disks_can_be_believed_and_remembers_what_was_in_vain() {
    let store = three_disks().await;
    let nodes = alive(&["a"]);
    let mut patient = Balance::default();
    patient.look(&store, &nodes, true).await.unwrap();
    assert_eq!(moves(&store), [], "nobody knows yet that all is at rest");
    let mut balance = Balance { patience: Duration::ZERO, ..Balance::default() };
    balance.look(&store, &nodes, false).await.unwrap();
    assert_eq!(moves(&store), [], "something was done a moment ago");
    balance.look(&store, &nodes, true).await.unwrap();
    assert_eq!((moves(&store).len(), balance.round.count), (2, 2));
    while !pass(&store, &nodes, &Absent::default()).await.unwrap() {
        obeyed(&store).await;
    }
    // What disks say is what counts in the end; they say that no volume has gone, and none goes twice.
    balance.look(&store, &nodes, true).await.unwrap();
    assert_eq!(moves(&store).len(), 2, "the other two");
    while !pass(&store, &nodes, &Absent::default()).await.unwrap() {
        obeyed(&store).await;
    }
    balance.look(&store, &nodes, true).await.unwrap();
    assert!(moves(&store).is_empty() && balance.vain.is_some());
    let vain = balance.vain.clone();
    balance.look(&store, &nodes, true).await.unwrap();
    assert_eq!(balance.vain, vain, "it is not tried again");
    store.transact(|tx| tx.put(&disk("a", "w", 0))).await.unwrap();
    balance.look(&store, &nodes, true).await.unwrap();
    assert_eq!(moves(&store).len(), 2, "until disks are others");
}

#[tokio::test]
async fn nothing_moves_while_anything_is_rebuilt_or_drained_or_away() {
    let store = three_disks().await;
    let whole = set(&store, "v4");
    store.transact(|tx| tx.put(&whole.without(|at| at == "a/y").unwrap())).await.unwrap();
    assert_eq!(look(&store, &["a"]).await, Found::Busy);
    store.transact(|tx| tx.put(&whole)).await.unwrap();
    let wish = crate::model::DiskWish { disk: "y".into(), retire: false };
    store.transact(|tx| tx.put(&wish)).await.unwrap();
    assert_eq!(look(&store, &["a"]).await, Found::Busy);
    store.transact(|tx| tx.delete::<crate::model::DiskWish>("y")).await.unwrap();
    store.transact(|tx| tx.put(&DiskStatus { healthy: false, ..disk("a", "y", 40) })).await.unwrap();
    assert_eq!(look(&store, &["a"]).await, Found::Busy);
    store.transact(|tx| tx.put(&DiskStatus { knows_places: false, ..disk("a", "y", 40) })).await.unwrap();
    assert_eq!(look(&store, &["a"]).await, Found::Even, "not while a node knows no places");
    store.transact(|tx| tx.put(&disk("a", "y", 40))).await.unwrap();
    assert!(matches!(look(&store, &["a"]).await, Found::Moves(_)));
}

#[tokio::test]
async fn what_shares_its_bytes_with_others_stays_where_it_is() {
    let store = three_disks().await;
    let share = |tx: &mut Tx| -> Result<(), Abort> {
        for (id, source) in [("v2", "v1"), ("v3", "gone")] {
            let spec = tx.get::<VolumeSpec>(id)?.unwrap();
            tx.put(&VolumeSpec { source: Some(source.into()), ..spec })?;
        }
        Ok(())
    };
    store.transact(share).await.unwrap();
    let Found::Moves(begun) = look(&store, &["a"]).await else { panic!("nothing moves") };
    assert_eq!(begun.iter().map(|m| m.volume.as_str()).collect::<Vec<_>>(), ["v4"]);
}

/// Three volumes on the first three of four nodes, the fourth of which is empty; one of them moves there from b.
async fn four_nodes() -> (LocalStore, ReplicaMove) {
    let store = LocalStore::in_memory().unwrap();
    let put = |tx: &mut Tx| -> Result<(), Abort> {
        [("a", 10), ("b", 40), ("c", 10), ("d", 5)]
            .iter()
            .try_for_each(|(n, used)| tx.put(&disk(n, n, *used)))?;
        for replica in ["a", "b", "c"] {
            tx.put(&ReplicaStatus {
                volume: "v".into(),
                node: replica.into(),
                bound: None,
                phase: Phase::Ready,
                error: None,
                disk: Some(replica.into()),
                allocated: 10 * GIB,
            })?;
        }
        volume(tx, "v", "a", &["a", "b", "c"])
    };
    store.transact(put).await.unwrap();
    let Found::Moves(begun) = look(&store, &["a", "b", "c", "d"]).await else { panic!("nothing moves") };
    let begun = begun.into_iter().next().unwrap();
    assert_eq!((begun.from.as_str(), begun.to.as_str(), begun.copies), ("b", "d", 3));
    (store, begun)
}

#[tokio::test]
async fn a_node_that_is_lost_during_a_move_costs_no_copy() {
    let (store, _) = four_nodes().await;
    let out = set(&store, "v").without(|at| at == "c").unwrap().with("d").unwrap();
    store.transact(|tx| tx.put(&out)).await.unwrap();
    let lost =
        Absent { briefly: ["c".to_owned()].into(), long: ["c".to_owned()].into(), ..Absent::default() };
    for _ in 0..6 {
        pass(&store, &alive(&["a", "b", "d"]), &lost).await.unwrap();
        if set(&store, "v").on("c").is_some_and(|r| r.leaving) {
            let removed = Nodes { removed: ["c".to_owned()].into(), ..alive(&["a", "b", "d"]) };
            store.transact(|tx| removal::forget_node(tx, "c")).await.unwrap();
            pass(&store, &removed, &Absent::default()).await.unwrap();
        }
    }
    let now = set(&store, "v");
    assert_eq!(now.in_sync().collect::<Vec<_>>(), ["a", "b", "d"], "{now:?}");
    assert_eq!(moves(&store), []);
}

#[tokio::test]
async fn a_replica_that_its_user_came_to_does_not_leave() {
    let (store, _) = four_nodes().await;
    let come = |tx: &mut Tx| -> Result<(), Abort> {
        let spec = tx.get::<VolumeSpec>("v")?.unwrap();
        let export = Some(Export { node: "b".into(), owner: "guest".into(), epoch: 2 });
        tx.put(&VolumeSpec { export, ..spec })
    };
    store.transact(come).await.unwrap();
    for _ in 0..6 {
        pass(&store, &alive(&["a", "b", "c", "d"]), &Absent::default()).await.unwrap();
        obeyed(&store).await;
    }
    let now = set(&store, "v");
    assert!(now.is_in_sync("b") && now.in_sync().count() == 3 && now.replicas.len() == 3, "{now:?}");
    assert_eq!(moves(&store), []);
}
