//! The store's file: its format is what it was, a newer one is refused, a torn first start is survived.

mod common;

use cairn_state::{LocalStore, Op, Store, StoreError, Txn};
use common::{delete, put};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

const ENTRIES: TableDefinition<&str, &[u8]> = TableDefinition::new("entries");
const HISTORY: TableDefinition<(u64, u32), &[u8]> = TableDefinition::new("history");
const LEASES: TableDefinition<u64, u64> = TableDefinition::new("leases");
const LEASE_KEYS: TableDefinition<(u64, &str), ()> = TableDefinition::new("lease-keys");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// Format 1, byte by byte. If this fails, a released file can no longer be read: give the new layout a new
/// format number, and keep this test for the old.
#[tokio::test]
async fn format_1() {
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
    let word = |n: u8| [n, 0, 0, 0, 0, 0, 0, 0];
    let entry = |created, modified, lease, value: &str| {
        [&word(created), &word(modified), &word(lease), value.as_bytes()].concat()
    };
    let event = |tag: u8, key: &str, entry: &[u8]| {
        [&[tag][..], &[key.len() as u8, 0, 0, 0], key.as_bytes(), entry].concat()
    };
    let entries = txn.open_table(ENTRIES).unwrap();
    let found: Vec<_> = entries
        .iter()
        .unwrap()
        .map(|row| row.map(|(k, v)| (k.value().to_owned(), v.value().to_vec())).unwrap())
        .collect();
    assert_eq!(found, [("a".into(), entry(1, 1, 0, "one")), ("b/é".into(), entry(2, 2, 1, "two"))]);

    let history = txn.open_table(HISTORY).unwrap();
    let found: Vec<_> = history
        .iter()
        .unwrap()
        .map(|row| row.map(|(k, v)| (k.value(), v.value().to_vec())).unwrap())
        .collect();
    let expected = [
        ((1, 0), event(1, "a", &entry(1, 1, 0, "one"))),
        ((2, 0), event(1, "b/é", &entry(2, 2, 1, "two"))),
        ((3, 0), event(1, "b/é/2", &entry(3, 3, 0, "gone"))),
        ((4, 0), event(0, "b/é/2", &[])),
    ];
    assert_eq!(found, expected);

    assert_eq!(txn.open_table(LEASES).unwrap().get(1).unwrap().unwrap().value(), 7000);
    assert!(txn.open_table(LEASE_KEYS).unwrap().get((1, "b/é")).unwrap().is_some());
    let meta = txn.open_table(META).unwrap();
    for (name, expected) in [("format", 1), ("revision", 4), ("lease", 1)] {
        assert_eq!(meta.get(name).unwrap().unwrap().value(), expected, "{name}");
    }
}

#[tokio::test]
async fn a_newer_format_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.redb");
    drop(LocalStore::open(&path).unwrap());
    let db = Database::open(&path).unwrap();
    let txn = db.begin_write().unwrap();
    txn.open_table(META).unwrap().insert("format", 2).unwrap();
    txn.commit().unwrap();
    drop(db);
    let error = LocalStore::open(&path).err().unwrap();
    assert_eq!(error, StoreError::TooNew { found: 2, known: 1 });
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
