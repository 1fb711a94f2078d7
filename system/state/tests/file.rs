//! The store's file: its format is what it was, a newer one is refused, a torn first start is survived.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::path::Path;

use cairn_state::{LeaseId, LocalStore, Member, Op, Options, Revision, Store, StoreError, Txn};
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

/// The log's entries that [`write_format_2`] leaves: what the consensus engine's are in postcard.
const LOG: [(u64, &[u8]); 6] = [
    (2, &[2, 1, 2, 0]),
    (3, &[2, 1, 3, 1, 1, 216, 54]),
    (4, &[2, 1, 4, 1, 0, 0, 1, 0, 1, b'a', 3, b'o', b'n', b'e', 0]),
    (5, &[2, 1, 5, 1, 0, 0, 1, 0, 4, b'b', b'/', 195, 169, 3, b't', b'w', b'o', 1, 1]),
    (6, &[2, 1, 6, 1, 0, 0, 1, 0, 6, b'b', b'/', 195, 169, b'/', b'2', 4, b'g', b'o', b'n', b'e', 0]),
    (7, &[2, 1, 7, 1, 0, 0, 1, 1, 6, b'b', b'/', 195, 169, b'/', b'2']),
];

/// A file of format 2, as the release before this left it: a replica with its log in a table. What its last two entries
/// did is not applied yet.
fn write_format_2(path: &Path) {
    let db = Database::create(path).unwrap();
    let txn = db.begin_write().unwrap();
    for (key, stored) in entries() {
        txn.open_table(ENTRIES).unwrap().insert(key.as_str(), stored.as_slice()).unwrap();
    }
    for (at, stored) in &history()[..2] {
        txn.open_table(HISTORY).unwrap().insert(*at, stored.as_slice()).unwrap();
    }
    txn.open_table(LEASES).unwrap().insert(1, 7000).unwrap();
    txn.open_table(LEASE_KEYS).unwrap().insert((1, "b/é"), ()).unwrap();
    for (name, number) in [("format", 2), ("revision", 2), ("lease", 1)] {
        txn.open_table(META).unwrap().insert(name, number).unwrap();
    }
    let of_the_replica: [(&str, &[u8]); 6] = [
        ("applied", &[1, 2, 1, 5]),
        ("generation", &[1]),
        ("membership", &[1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0]),
        ("node", &[1]),
        ("purged", &[1, 1, 1]),
        ("vote", &[2, 1, 1]),
    ];
    for (name, stored) in of_the_replica {
        txn.open_table(RAFT).unwrap().insert(name, stored).unwrap();
    }
    for (index, stored) in LOG {
        txn.open_table(RAFT_LOG).unwrap().insert(index, stored).unwrap();
    }
    txn.commit().unwrap();
}

/// A log in the state's file is carried over to its own, and what was not applied yet is.
#[tokio::test]
async fn format_2_is_carried_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.redb");
    write_format_2(&path);
    for round in 0..2 {
        let store = LocalStore::open(&path).unwrap();
        let found = store.range("", None, usize::MAX).await.unwrap();
        assert_eq!((found.at, found.entries.len()), (Revision(4), 2));
        // The leader's first entry of its term, each time.
        assert_eq!(store.status().unwrap().last, 8 + round);
        assert!(store.watch("", Revision(0)).await.is_ok(), "the history is there");
    }
    let store = LocalStore::open(&path).unwrap();
    assert_eq!(common::revision(store.commit(put("c", "three")).await), 5);
    drop(store);
    let db = Database::open(&path).unwrap();
    let txn = db.begin_read().unwrap();
    assert_eq!(txn.open_table(META).unwrap().get("format").unwrap().unwrap().value(), 3);
    assert_eq!(txn.open_table(RAFT_LOG).unwrap().iter().unwrap().count(), 0);
}

/// Format 3, byte by byte, as far as it is ours (frames are in `wal::frame`). If this fails, a released file can no
/// longer be read: give the new layout a new format number, and keep this test for the old.
#[tokio::test]
async fn format_3() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.redb");
    let store = LocalStore::open_with(&path, Options::found(Member::default()).node(1)).unwrap();
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
    for (name, expected) in [("format", 3), ("revision", 4), ("lease", 1)] {
        assert_eq!(meta.get(name).unwrap().unwrap().value(), expected, "{name}");
    }
    let raft = txn.open_table(RAFT).unwrap();
    let names: Vec<_> = raft.iter().unwrap().map(|row| row.unwrap().0.value().to_owned()).collect();
    assert_eq!(names, ["applied", "generation", "logged", "membership", "node", "purged", "vote"]);
    assert_eq!(raft.get("applied").unwrap().unwrap().value(), [1, 2, 1, 7]);
    assert_eq!(txn.open_table(RAFT_LOG).unwrap().iter().unwrap().count(), 0);
    let log = std::fs::read(directory.path().join("state.log0")).unwrap();
    for (block, (index, entry)) in log.chunks(4096).zip(LOG) {
        assert_eq!(block[40..48], word(index as u8));
        let found = &block[48..][..4 + entry.len()];
        assert_eq!(found, [&[entry.len() as u8, 0, 0, 0], entry].concat(), "entry {index}");
    }
    assert!(std::fs::read(directory.path().join("state.log1")).unwrap().is_empty());
}

/// A log that lacks what was acknowledged is refused, and not begun anew.
#[tokio::test]
async fn a_log_that_is_lost_or_damaged_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.redb");
    let log = directory.path().join("state.log0");
    let store = LocalStore::open(&path).unwrap();
    for n in 0..5 {
        store.commit(put(&format!("k/{n}"), "v")).await.unwrap();
    }
    drop(store);
    let whole = std::fs::read(&log).unwrap();
    let refused = |content: &[u8]| {
        std::fs::write(&log, content).unwrap();
        LocalStore::open(&path).err().unwrap().to_string()
    };
    std::fs::remove_file(&log).unwrap();
    let error = LocalStore::open(&path).err().unwrap().to_string();
    assert!(error.contains("lacks what was in it"), "{error}");
    let error = refused(&whole[..2 * 4096]);
    assert!(error.contains("lacks what was in it"), "{error}");
    let mut flipped = whole.clone();
    flipped[4096 + 50] ^= 1;
    let error = refused(&flipped);
    assert!(error.contains("damaged"), "{error}");
    std::fs::write(&log, &whole).unwrap();
    assert_eq!(LocalStore::open(&path).unwrap().range("k/", None, 9).await.unwrap().entries.len(), 5);

    // One that was put aside is no other's: a new store begins with an empty log.
    std::fs::remove_file(&path).unwrap();
    let store = LocalStore::open(&path).unwrap();
    assert!(store.range("", None, 1).await.unwrap().entries.is_empty());
}

#[tokio::test]
async fn a_newer_format_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.redb");
    drop(LocalStore::open(&path).unwrap());
    let db = Database::open(&path).unwrap();
    let txn = db.begin_write().unwrap();
    txn.open_table(META).unwrap().insert("format", 4).unwrap();
    txn.commit().unwrap();
    drop(db);
    let error = LocalStore::open(&path).err().unwrap();
    assert_eq!(error, StoreError::TooNew { found: 4, known: 3 });
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
