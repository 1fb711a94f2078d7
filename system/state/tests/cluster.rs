//! Three replicas in one process: writes from any of them, a leader that is lost, a learner taken in by snapshot,
//! watches and leases across a change of leaders.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::time::Duration;

use cairn_state::{Abort, Event, LocalStore, Op, Revision, Store, StoreError, Txn};
use common::cluster::{Cluster, fast};
use common::{Named, put, revision, within_20s};
use futures_util::StreamExt;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_anywhere_is_read_everywhere() {
    let cluster = Cluster::of(3).await;
    for n in 0..30 {
        let (writer, reader) = (cluster.store(n % 3), cluster.store((n + 1) % 3));
        assert_eq!(revision(within_20s(writer.commit(put(&format!("k/{n}"), "x"))).await), n as u64 + 1);
        // Linearizable on another replica, and at once on the one that wrote.
        assert_eq!(
            within_20s(reader.get(&format!("k/{n}"))).await.unwrap().unwrap().modified,
            Revision(n as u64 + 1)
        );
        assert!(writer.snapshot().unwrap().get(&format!("k/{n}")).unwrap().is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_of_all_replicas_lose_nothing() {
    let cluster = Cluster::of(3).await;
    let tasks: Vec<_> = (0..30)
        .map(|n| {
            let store = cluster.store(n % 3);
            tokio::spawn(async move {
                store
                    .transact(|tx| {
                        let count = tx.get::<Named>("one")?.map_or(0, |r| r.name.parse::<u32>().unwrap()) + 1;
                        tx.put(&Named::new("one", &count.to_string(), "red"))?;
                        Ok::<_, Abort>(count)
                    })
                    .await
            })
        })
        .collect();
    let mut seen = Vec::new();
    for task in tasks {
        seen.push(within_20s(task).await.unwrap().unwrap());
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=30).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_leader_is_replaced_and_comes_back() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let (other, third) = ((leader + 1) % 3, (leader + 2) % 3);
    let mut watch = cluster.store(other).watch("", Revision(0)).await.unwrap();
    for n in 0..5 {
        within_20s(cluster.store(leader).commit(put(&format!("before/{n}"), "x"))).await.unwrap();
    }
    cluster.stop(leader);
    for n in 0..5 {
        cluster.retry(third, put(&format!("after/{n}"), "x")).await;
    }
    for n in 0..10u64 {
        let event = within_20s(watch.next()).await.unwrap().unwrap();
        assert_eq!(event.revision(), Revision(n + 1), "the watch goes on, without a gap");
    }
    cluster.start(leader).await;
    let found = within_20s(cluster.store(leader).range("", None, 100)).await.unwrap();
    assert_eq!((found.entries.len(), found.at), (10, Revision(10)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_without_a_majority_says_so_and_changes_nothing() {
    let mut cluster = Cluster::of(3).await;
    within_20s(cluster.store(0).commit(put("k", "1"))).await.unwrap();
    cluster.stop(1);
    cluster.stop(2);
    assert!(matches!(
        within_20s(cluster.store(0).commit(put("k", "2"))).await,
        Err(StoreError::Unavailable(_))
    ));
    assert!(matches!(within_20s(cluster.store(0).get("k")).await, Err(StoreError::Unavailable(_))));
    // What was applied can still be looked at.
    assert_eq!(cluster.store(0).snapshot().unwrap().get("k").unwrap().unwrap().value, "1");
    cluster.start(1).await;
    cluster.retry(0, put("k", "3")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_gets_a_snapshot_and_becomes_a_voter() {
    // The founder has had a life of its own, and has dropped the log of it.
    let mut cluster = Cluster::of(1).await;
    let founder = cluster.store(0);
    let lease = founder.lease_grant(3_600_000).await.unwrap();
    let large = "x".repeat(100_000);
    for n in 0..40 {
        let op = Op::Put { key: format!("k/{n}"), value: large.clone().into(), lease: Some(lease) };
        founder.commit(Txn { compares: vec![], ops: vec![op] }).await.unwrap();
    }
    let learner = cluster.add().await;
    let store = cluster.store(learner);
    let found = within_20s(store.range("k/", None, 100)).await.unwrap();
    assert_eq!((found.entries.len(), found.at), (40, Revision(40)));
    let mut watch = store.watch("k/", Revision(30)).await.unwrap();
    for n in 31..=40 {
        assert_eq!(
            within_20s(watch.next()).await.unwrap().unwrap().revision(),
            Revision(n),
            "the history came along"
        );
    }
    within_20s(store.commit(put("k/by-learner", "x"))).await.unwrap();
    assert_eq!(within_20s(watch.next()).await.unwrap().unwrap().key(), "k/by-learner");
    let voters = [cluster.node(0), cluster.node(learner)];
    within_20s(founder.set_voters(voters)).await.unwrap();
    assert_eq!(founder.status().unwrap().voters, voters.into());
    // The new one can lead, and knows the lease.
    within_20s(founder.hand_over(cluster.node(learner))).await.unwrap();
    within_20s(cluster.led_by(learner)).await;
    within_20s(founder.lease_keep_alive(lease)).await.unwrap();
    within_20s(founder.lease_revoke(lease)).await.unwrap();
    let left = within_20s(store.range("k/", None, 100)).await.unwrap().entries;
    assert_eq!(left.iter().map(|e| e.key.as_str()).collect::<Vec<_>>(), ["k/by-learner"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_outlives_its_leader_but_not_its_holder() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let other = cluster.store((leader + 1) % 3);
    let ttl = fast().election * 6;
    let lease = within_20s(other.lease_grant(ttl.as_millis() as u64)).await.unwrap();
    let op = Op::Put { key: "l".into(), value: "x".into(), lease: Some(lease) };
    within_20s(other.commit(Txn { compares: vec![], ops: vec![op] })).await.unwrap();
    let mut watch = other.watch("l", Revision(1)).await.unwrap();
    cluster.stop(leader);
    let until = tokio::time::Instant::now() + ttl * 2;
    while tokio::time::Instant::now() < until {
        // While there is no leader, the lease is safe.
        drop(other.lease_keep_alive(lease).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(within_20s(other.get("l")).await.unwrap().is_some(), "it was kept alive");
    let gone = within_20s(watch.next()).await.unwrap().unwrap();
    assert_eq!(gone, Event::Delete { key: "l".into(), revision: Revision(2) });
    assert_eq!(within_20s(other.lease_keep_alive(lease)).await, Err(StoreError::LeaseExpired(lease)));
}

#[tokio::test]
async fn a_store_that_holds_a_cloud_joins_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.redb");
    let store = LocalStore::open(&path).unwrap();
    let node = store.status().unwrap().node;
    drop(store);
    // It stays what it was.
    let store = LocalStore::open_with(&path, cairn_state::Options::join()).unwrap();
    assert_eq!(store.status().unwrap().voters, [node].into());
}
