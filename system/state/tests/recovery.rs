//! A group that has lost its majority for good: one replica goes on by order, with all its log, and the others, whatever
//! they have come to since, are refused and stop.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::path::PathBuf;
use std::time::Duration;

use cairn_state::{LocalStore, Member, Options, Store};
use common::cluster::{Wires, fast};
use common::{put, within_20s};

struct House {
    wires: Wires,
    dir: tempfile::TempDir,
}

impl House {
    fn path(&self, n: usize) -> PathBuf {
        self.dir.path().join(format!("{n}.redb"))
    }

    fn open(&self, n: usize, options: Options) -> LocalStore {
        let options = options.network(self.wires.end(false)).timing(fast());
        let store = LocalStore::open_with(&self.path(n), options).unwrap();
        self.wires.connect(&store);
        store
    }

    async fn close(&self, store: LocalStore) {
        self.wires.disconnect(store.status().unwrap().node);
        tokio::task::spawn_blocking(move || drop(store)).await.unwrap();
    }

    /// Three voters.
    async fn three(&self) -> [LocalStore; 3] {
        let first = self.open(0, Options::found(named("n0")));
        let others = [1, 2].map(|n| self.open(n, Options::join()));
        let ids: Vec<_> = others.iter().map(|s| s.status().unwrap().node).collect();
        for (id, name) in ids.iter().zip(["n1", "n2"]) {
            within_20s(first.admit(*id, named(name))).await.unwrap();
        }
        let all = [first.status().unwrap().node, ids[0], ids[1]];
        within_20s(first.set_voters(all)).await.unwrap();
        let [second, third] = others;
        [first, second, third]
    }
}

fn named(name: &str) -> Member {
    Member { name: name.into(), addresses: vec![] }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    within_20s(async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(holds(), "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_goes_on_and_those_left_behind_stop_even_when_they_are_the_majority() {
    let house = House { wires: Wires::default(), dir: tempfile::tempdir().unwrap() };
    let [first, second, third] = house.three().await;
    within_20s(second.commit(put("before", "x"))).await.unwrap();
    let (id, applied) = (third.status().unwrap().node, first.status().unwrap().applied);
    until("all have it", || third.status().unwrap().applied >= applied).await;
    for store in [first, second] {
        house.close(store).await;
    }
    assert!(within_20s(third.commit(put("lost", "x"))).await.is_err(), "no majority");
    house.close(third).await;

    LocalStore::recover(&house.path(2), named("n2"), 2).unwrap();
    LocalStore::recover(&house.path(2), named("n2"), 2).unwrap();
    let third = house.open(2, Options::join());
    let status = third.status().unwrap();
    assert_eq!((status.node, status.generation, status.members.len()), (id, 2, 1));
    assert!(within_20s(third.get("before")).await.unwrap().is_some());
    within_20s(third.commit(put("after", "x"))).await.unwrap();
    let term = third.status().unwrap().term;

    // The two others come back as they were: a majority of what was. They hear of it, and say nothing more.
    let [first, second] = [0, 1].map(|n| house.open(n, Options::join()));
    within_20s(async { tokio::join!(first.left_behind(), second.left_behind()) }).await;
    assert!(within_20s(first.commit(put("diverged", "x"))).await.is_err());
    assert!(within_20s(second.catch_up()).await.is_err());
    let status = third.status().unwrap();
    assert_eq!((status.term, status.members.len()), (term, 1), "they disturb nobody");
    assert!(within_20s(third.get("diverged")).await.unwrap().is_none());

    // With an empty store one is taken in again.
    house.close(first).await;
    std::fs::remove_file(house.path(0)).unwrap();
    let first = house.open(0, Options::join());
    let id = first.status().unwrap().node;
    within_20s(third.admit(id, named("n0"))).await.unwrap();
    within_20s(third.set_voters([id, third.status().unwrap().node])).await.unwrap();
    within_20s(first.commit(put("again", "x"))).await.unwrap();
    assert_eq!(first.status().unwrap().generation, 2);
    house.close(first).await;
    // What it is of, it keeps.
    assert_eq!(house.open(0, Options::join()).status().unwrap().generation, 2);
}

#[tokio::test]
async fn a_store_without_a_state_is_nothing_to_go_on_with() {
    let house = House { wires: Wires::default(), dir: tempfile::tempdir().unwrap() };
    let empty = house.open(0, Options::join());
    house.close(empty).await;
    let refused = LocalStore::recover(&house.path(0), named("n0"), 2).unwrap_err();
    assert!(refused.to_string().contains("no cloud's state"), "{refused}");

    // Nor is a file that is no store's, and nothing is made beside it.
    std::fs::write(house.path(7), "something of the user's").unwrap();
    for n in [7, 8] {
        assert!(LocalStore::recover(&house.path(n), named("n"), 2).is_err());
        assert!(!house.path(n).with_extension("log0").exists());
    }
    assert!(!house.path(8).exists());
}
