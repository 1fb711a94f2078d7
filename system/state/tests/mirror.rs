//! Mirrors: fresh, complete, and never less because something is wrong.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use cairn_state::{LocalStore, Mirror, StoreError};
use common::{Named, delete, put, small, within};

async fn until(mirror: &Mirror<Named>, what: impl Fn(&Mirror<Named>) -> bool) {
    let mut changes = mirror.changes();
    within(async {
        while !what(mirror) {
            changes.changed().await.unwrap();
        }
    })
    .await
}

async fn add(store: &LocalStore, id: &str, colour: &str) {
    store.transact(|tx| tx.put(&Named::new(id, id, colour))).await.map_err(|e: cairn_state::Abort| e).unwrap()
}

#[tokio::test]
async fn it_follows_the_store() {
    let store = LocalStore::in_memory().unwrap();
    add(&store, "a", "red").await;
    let mirror = Mirror::<Named>::start(Arc::new(store.clone()), None).await;
    within(mirror.wait_synced()).await;
    assert_eq!(mirror.all().len(), 1);
    add(&store, "b/1", "red").await;
    add(&store, "a", "blue").await;
    until(&mirror, |m| m.get("a").unwrap().colour == "blue").await;
    assert_eq!(mirror.get("b/1").unwrap().colour, "red");
    store.transact(|tx| tx.delete::<Named>("a")).await.unwrap();
    until(&mirror, |m| m.get("a").is_none()).await;
    assert_eq!(mirror.all().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_transaction_changed_is_seen_together() {
    let store = LocalStore::in_memory().unwrap();
    let mirror = Mirror::<Named>::start(Arc::new(store.clone()), None).await;
    within(mirror.wait_synced()).await;
    let writer = tokio::spawn(async move {
        for round in 0..500 {
            let both = ["a", "z"].map(|id| Named::new(id, id, &round.to_string()));
            let put = |tx: &mut cairn_state::Tx| both.iter().try_for_each(|named| tx.put(named));
            store.transact(put).await.map_err(|e: cairn_state::Abort| e).unwrap();
        }
    });
    let colours = || mirror.all().iter().map(|named| named.colour.clone()).collect::<Vec<_>>();
    loop {
        let seen = colours();
        assert!(seen.is_empty() || (seen.len() == 2 && seen[0] == seen[1]), "{seen:?}");
        if writer.is_finished() && seen == ["499", "499"] {
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_skipped() {
    let store = LocalStore::in_memory().unwrap();
    add(&store, "good", "red").await;
    store.commit(put("test/named/bad", "?")).await.unwrap();
    let mirror = Mirror::<Named>::start(Arc::new(store.clone()), None).await;
    within(mirror.wait_synced()).await;
    assert_eq!(mirror.all().len(), 1);
    // A newer release wrote it: the last that could be read stays.
    store.commit(put("test/named/good", "\u{9}\u{0}{}")).await.unwrap();
    add(&store, "next", "red").await;
    until(&mirror, |m| m.get("next").is_some()).await;
    assert_eq!(mirror.get("good").unwrap().colour, "red");
    store.commit(delete("test/named/good")).await.unwrap();
    until(&mirror, |m| m.get("good").is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_complete_after_it_fell_behind() {
    // A history so short that the watch is often told that it is compacted.
    let store = small(4, 1);
    let mirror = Mirror::<Named>::start(Arc::new(store.clone()), None).await;
    for round in 0..10 {
        for n in 0..20 {
            add(&store, &format!("{n}"), &format!("round {round}")).await;
        }
    }
    store.transact(|tx| tx.delete::<Named>("3")).await.unwrap();
    until(&mirror, |m| m.all().len() == 19 && m.all().iter().all(|r| r.colour == "round 9")).await;
}

#[tokio::test]
async fn the_ledger_stands_in_for_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = directory.path().join("ledger");
    let store = LocalStore::in_memory().unwrap();
    add(&store, "a", "red").await;
    let mirror = Mirror::<Named>::start(Arc::new(store.clone()), Some(&ledger)).await;
    within(mirror.wait_synced()).await;
    let file = ledger.join("test.named.json");
    within(async {
        while !file.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    drop((mirror, store));

    let away: cairn_state::SharedStore = Arc::new(Away);
    let mirror = Mirror::<Named>::start(away.clone(), Some(&ledger)).await;
    assert_eq!(mirror.get("a").unwrap().colour, "red");
    assert!(!mirror.synced());

    std::fs::write(&file, "{ torn").unwrap();
    assert!(Mirror::<Named>::start(away, Some(&ledger)).await.all().is_empty());

    // The store has the last word.
    let mirror = Mirror::<Named>::start(Arc::new(LocalStore::in_memory().unwrap()), Some(&ledger)).await;
    within(mirror.wait_synced()).await;
    assert!(mirror.all().is_empty());
}

/// A store that cannot be reached.
struct Away;

fn away<T>() -> Result<T, StoreError> {
    Err(StoreError::Unavailable("away".into()))
}

#[async_trait::async_trait]
impl cairn_state::Store for Away {
    async fn get(&self, _: &str) -> Result<Option<cairn_state::Entry>, StoreError> {
        away()
    }
    async fn range(&self, _: &str, _: Option<&str>, _: usize) -> Result<cairn_state::Range, StoreError> {
        away()
    }
    async fn txn(&self, _: cairn_state::Txn) -> Result<cairn_state::TxnOutcome, StoreError> {
        away()
    }
    async fn watch(&self, _: &str, _: cairn_state::Revision) -> Result<cairn_state::WatchStream, StoreError> {
        away()
    }
    async fn lease_grant(&self, _: u64) -> Result<cairn_state::LeaseId, StoreError> {
        away()
    }
    async fn lease_keep_alive(&self, _: cairn_state::LeaseId) -> Result<(), StoreError> {
        away()
    }
    async fn lease_revoke(&self, _: cairn_state::LeaseId) -> Result<(), StoreError> {
        away()
    }
}
