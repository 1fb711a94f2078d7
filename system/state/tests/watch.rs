//! Watches: no gap, no duplicate, whatever falls behind; leases end visibly.

mod common;

use std::time::Duration;

use cairn_state::{Event, LocalStore, Op, Revision, Store, StoreError, Txn, TxnOutcome};
use common::{delete, put, revision, small, within};
use futures_util::{FutureExt, StreamExt};

#[tokio::test]
async fn a_watch_replays_and_then_follows() {
    let store = LocalStore::in_memory().unwrap();
    for n in 0..10 {
        store.commit(put(&format!("a/{n}"), "x")).await.unwrap();
        store.commit(put(&format!("b/{n}"), "x")).await.unwrap();
    }
    let mut watch = store.watch("a/", Revision(4)).await.unwrap();
    store.commit(delete("a/0")).await.unwrap();
    store.commit(put("b/0", "y")).await.unwrap();
    store.commit(put("a/1", "y")).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..10 {
        seen.push(within(watch.next()).await.unwrap().unwrap());
    }
    let revisions: Vec<u64> = seen.iter().map(|e| e.revision().0).collect();
    assert_eq!(revisions, [5, 7, 9, 11, 13, 15, 17, 19, 21, 23]);
    assert_eq!(seen[8], Event::Delete { key: "a/0".into(), revision: Revision(21) });
    assert!(watch.next().now_or_never().is_none());
}

#[tokio::test]
async fn a_slow_watcher_reads_what_it_missed_from_the_history() {
    let store = small(1000, 2);
    let mut watch = store.watch("", Revision(0)).await.unwrap();
    for n in 0..700 {
        store.commit(put(&format!("k/{n}"), "x")).await.unwrap();
    }
    for n in 0..700 {
        let event = within(watch.next()).await.unwrap().unwrap();
        assert_eq!(event.revision(), Revision(n + 1));
        if n == 300 {
            // And behind once more, in the middle of the replay.
            store.commit(put("k/late", "x")).await.unwrap();
        }
    }
    assert_eq!(within(watch.next()).await.unwrap().unwrap().key(), "k/late");
}

#[tokio::test]
async fn who_is_too_late_is_told() {
    let store = small(10, 2);
    let mut watch = store.watch("", Revision(0)).await.unwrap();
    for n in 0..100 {
        store.commit(put(&format!("k/{n}"), "x")).await.unwrap();
    }
    let error = within(watch.next()).await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Compacted { .. }), "{error}");
    assert!(within(watch.next()).await.is_none(), "nothing follows an error");

    let Err(StoreError::Compacted { oldest, .. }) = store.watch("", Revision(3)).await else {
        panic!("an old revision was accepted")
    };
    let mut watch = store.watch("", oldest).await.unwrap();
    assert_eq!(within(watch.next()).await.unwrap().unwrap().revision(), Revision(oldest.0 + 1));
    assert!(store.watch("", Revision(101)).await.is_err(), "a revision that never was");
}

#[tokio::test]
async fn a_watch_ends_when_the_store_is_closed() {
    let store = LocalStore::in_memory().unwrap();
    let mut watch = store.watch("", Revision(0)).await.unwrap();
    drop(store);
    assert!(matches!(within(watch.next()).await, Some(Err(StoreError::Unavailable(_)))));
}

#[tokio::test]
async fn a_lease_takes_its_keys_along() {
    let store = LocalStore::in_memory().unwrap();
    let lease = store.lease_grant(2000).await.unwrap();
    let other = store.lease_grant(60_000).await.unwrap();
    for (key, lease) in [("l/1", Some(lease)), ("l/2", Some(lease)), ("l/3", Some(other)), ("l/4", None)] {
        let op = Op::Put { key: key.into(), value: "x".into(), lease };
        store.commit(Txn { compares: vec![], ops: vec![op] }).await.unwrap();
    }
    // A key that is put without the lease is free of it.
    store.commit(put("l/2", "free")).await.unwrap();
    let mut watch = store.watch("l/", Revision(5)).await.unwrap();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(800)).await;
        store.lease_keep_alive(lease).await.unwrap();
    }
    assert!(watch.next().now_or_never().is_none(), "it is kept alive");
    let gone = within(watch.next()).await.unwrap().unwrap();
    assert_eq!(gone, Event::Delete { key: "l/1".into(), revision: Revision(6) });
    assert_eq!(store.lease_keep_alive(lease).await, Err(StoreError::LeaseExpired(lease)));
    let op = Op::Put { key: "l/1".into(), value: "x".into(), lease: Some(lease) };
    let put = store.commit(Txn { compares: vec![], ops: vec![op] }).await;
    assert_eq!(put, Err(StoreError::LeaseExpired(lease)));

    store.lease_revoke(other).await.unwrap();
    assert_eq!(store.lease_revoke(other).await, Err(StoreError::LeaseExpired(other)));
    let left = store.range("l/", None, usize::MAX).await.unwrap();
    assert_eq!(left.entries.iter().map(|e| e.key.as_str()).collect::<Vec<_>>(), ["l/2", "l/4"]);
}

#[tokio::test]
async fn a_lease_starts_anew_when_the_store_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.redb");
    let store = LocalStore::open(&path).unwrap();
    let lease = store.lease_grant(1500).await.unwrap();
    let op = Op::Put { key: "k".into(), value: "x".into(), lease: Some(lease) };
    store.commit(Txn { compares: vec![], ops: vec![op] }).await.unwrap();
    drop(store);
    tokio::time::sleep(Duration::from_millis(1600)).await;
    let store = LocalStore::open(&path).unwrap();
    assert!(store.get("k").await.unwrap().is_some());
    store.lease_keep_alive(lease).await.unwrap();
    let mut watch = store.watch("k", Revision(1)).await.unwrap();
    assert_eq!(within(watch.next()).await.unwrap().unwrap().revision(), Revision(2));
    assert!(LocalStore::open(&path).is_err(), "two processes may not have it open");
}

#[tokio::test]
async fn what_changes_nothing_has_no_revision() {
    let store = LocalStore::in_memory().unwrap();
    assert_eq!(revision(store.commit(put("k", "1")).await), 1);
    assert_eq!(revision(store.commit(delete("absent")).await), 1);
    let both = Txn { ops: [put("t", "x").ops, delete("t").ops].concat(), compares: vec![] };
    assert_eq!(revision(store.commit(both).await), 1, "put and removed at once was never there");
    let absent =
        Txn { compares: vec![cairn_state::Compare::Modified("k".into(), Revision(0))], ..put("k", "2") };
    assert_eq!(store.commit(absent).await, Ok(TxnOutcome::Conflict));
    assert!(matches!(store.commit(put("", "x")).await, Err(StoreError::TooLarge(_))));
}
