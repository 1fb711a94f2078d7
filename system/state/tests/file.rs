//! The store's file: its format is what it was, a newer one is refused, a torn first start is survived.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::path::Path;

use cairn_state::{LeaseId, LocalStore, Op, Revision, Store, StoreError, Txn};
use common::{delete, put};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

const ENTRIES: TableDefinition<&str, &[u8]> = TableDefinition::new("entries");
const HISTORY: TableDefinition<(u64, u32), &[u8]> = TableDefinition::new("history");
const LEASES: TableDefinition<u64, u64> = TableDefinition::new("leases");
const LEASE_KEYS: TableDefinition<(u64, &str), ()> = TableDefinition::new("lease-keys");
const RAFT: TableDefinition<&str, &[u8]> = TableDefinition::new("raft");
const RAFT_LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("raft-log");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

fn word(n: u8) -> [u8; 8] {
    [n, 0, 0, 0, 0, 0, 0, 0]
}

fn entry(created: u8, modified: u8, lease: u8, value: &str) -> Vec<u8> {
    [&word(created), &word(modified), &word(lease), value.as_bytes()].concat()
}

fn event(tag: u8, key: &str, entry: &[u8]) -> Vec<u8> {
    [&[tag][..], &[key.len() as u8, 0, 0, 0], key.as_bytes(), entry].concat()
}

fn entries() -> Vec<(String, Vec<u8>)> {
    vec![("a".into(), entry(1, 1, 0, "one")), ("b/é".into(), entry(2, 2, 1, "two"))]
}

fn history() -> Vec<((u64, u32), Vec<u8>)> {
    vec![
        ((1, 0), event(1, "a", &entry(1, 1, 0, "one"))),
        ((2, 0), event(1, "b/é", &entry(2, 2, 1, "two"))),
        ((3, 0), event(1, "b/é/2", &entry(3, 3, 0, "gone"))),
        ((4, 0), event(0, "b/é/2", &[])),
    ]
}

/// A file of format 1, as the first release left it: the store of a single node.
fn write_format_1(path: &Path) {
    let db = Database::create(path).unwrap();
    let txn = db.begin_write().unwrap();
    for (key, stored) in entries() {
        txn.open_table(ENTRIES).unwrap().insert(key.as_str(), stored.as_slice()).unwrap();
    }
    for (at, stored) in history() {
        txn.open_table(HISTORY).unwrap().insert(at, stored.as_slice()).unwrap();
    }
    txn.open_table(LEASES).unwrap().insert(1, 7000).unwrap();
    txn.open_table(LEASE_KEYS).unwrap().insert((1, "b/é"), ()).unwrap();
    for (name, number) in [("format", 1), ("revision", 4), ("lease", 1)] {
        txn.open_table(META).unwrap().insert(name, number).unwrap();
    }
    txn.commit().unwrap();
}

/// What a single node has kept is there when its store has become a replica, and goes on from there.
#[tokio::test]
async fn format_1_is_carried_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.redb");
    write_format_1(&path);
    for round in 0..2 {
        let store = LocalStore::open(&path).unwrap();
        let found = store.range("", None, usize::MAX).await.unwrap();
        assert_eq!(found.at, Revision(4 + round));
        assert_eq!(found.entries[0].value, "one");
        assert_eq!((found.entries[1].key.as_str(), found.entries[1].lease), ("b/é", Some(LeaseId(1))));
        assert!(store.watch("", Revision(0)).await.is_ok(), "the history is there");
        assert_eq!(common::revision(store.commit(put("c", "three")).await), 5 + round);
        assert_eq!(store.lease_grant(7000).await.unwrap(), LeaseId(2 + round));
    }
    let store = LocalStore::open(&path).unwrap();
    store.lease_revoke(LeaseId(1)).await.unwrap();
    assert_eq!(store.get("b/é").await.unwrap(), None);
}

/// Format 2, byte by byte, as far as it is ours: the log's entries are the consensus engine's. If this fails, a
/// released file can no longer be read: give the new layout a new format number, and keep this test for the old.
#[tokio::test]
async fn format_2() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.redb");
    let store = LocalStore::open(&path).unwrap();
    let lease = store.lease_grant(7000).await.unwrap();
    store.commit(put("a", "one")).await.unwrap();
    let op = Op::Put { key: "b/é".into(), value: "two".into(), lease: Some(lease) };
    store.commit(Txn { compares: vec![], ops: vec![op] }).await.unwrap();
    store.commit(put("b/é/2", "gone")).await.unwrap();
    store.commit(delete("b/é/2")).await.unwrap();
    drop(store);

    let db = Database::open(&path).unwrap();
    let txn = db.begin_read().unwrap();
    let table = txn.open_table(ENTRIES).unwrap();
    let found = table
        .iter()
        .unwrap()
        .map(|row| row.map(|(k, v)| (k.value().to_owned(), v.value().to_vec())).unwrap());
    assert_eq!(found.collect::<Vec<_>>(), entries());
    let table = txn.open_table(HISTORY).unwrap();
    let found = table.iter().unwrap().map(|row| row.map(|(k, v)| (k.value(), v.value().to_vec())).unwrap());
    assert_eq!(found.collect::<Vec<_>>(), history());
    assert_eq!(txn.open_table(LEASES).unwrap().get(1).unwrap().unwrap().value(), 7000);
    assert!(txn.open_table(LEASE_KEYS).unwrap().get((1, "b/é")).unwrap().is_some());
    let meta = txn.open_table(META).unwrap();
    for (name, expected) in [("format", 2), ("revision", 4), ("lease", 1)] {
        assert_eq!(meta.get(name).unwrap().unwrap().value(), expected, "{name}");
    }
    let raft = txn.open_table(RAFT).unwrap();
    let names: Vec<_> = raft.iter().unwrap().map(|row| row.unwrap().0.value().to_owned()).collect();
    assert_eq!(names, ["applied", "generation", "membership", "node", "purged", "vote"]);
    let log = txn.open_table(RAFT_LOG).unwrap();
    let indexes: Vec<_> = log.iter().unwrap().map(|row| row.unwrap().0.value()).collect();
    assert_eq!(indexes, [2, 3, 4, 5, 6, 7], "the leader's first entry, then one for each change");
    // Leader (term, node), index, payload: a transaction without conditions that puts "a" without a lease.
    let stored = log.get(4).unwrap().unwrap().value().to_vec();
    let payload = stored.strip_prefix(&[2]).map(|rest| &rest[rest.len() - 13..]).unwrap();
    assert_eq!(payload, [&[4, 1, 0, 0, 1, 0, 1][..], b"a", &[3], b"one", &[0]].concat());
}

#[tokio::test]
async fn a_newer_format_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.redb");
    drop(LocalStore::open(&path).unwrap());
    let db = Database::open(&path).unwrap();
    let txn = db.begin_write().unwrap();
    txn.open_table(META).unwrap().insert("format", 3).unwrap();
    txn.commit().unwrap();
    drop(db);
    let error = LocalStore::open(&path).err().unwrap();
    assert_eq!(error, StoreError::TooNew { found: 3, known: 2 });
    assert!(error.to_string().contains("newer release"), "{error}");
}

#[tokio::test]
async fn a_start_that_was_cut_short_is_begun_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.redb");
    std::fs::write(directory.path().join("state.redb.new"), "torn").unwrap();
    let store = LocalStore::open(&path).unwrap();
    assert_eq!(common::revision(store.commit(put("k", "v")).await), 1);
    drop(store);
    assert!(LocalStore::open(&path).unwrap().get("k").await.unwrap().is_some());

    // What is no store is never overwritten.
    std::fs::write(&path, "something of the user's").unwrap();
    assert!(LocalStore::open(&path).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"something of the user's");
}
