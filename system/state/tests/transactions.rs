//! Optimistic transactions: concurrent writers lose no update, unique values stay unique, index entries
//! follow their records.

mod common;

use cairn_state::{Abort, Index, LocalStore, Record, Store, Tx};
use common::{Named, within};

#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Counter {
    id: String,
    count: u64,
}

impl Record for Counter {
    const KIND: &'static str = "test/counter";
    fn id(&self) -> String {
        self.id.clone()
    }
}

fn increment(tx: &mut Tx, id: &str) -> Result<u64, Abort> {
    let count = tx.get::<Counter>(id)?.map_or(0, |c| c.count) + 1;
    tx.put(&Counter { id: id.into(), count })?;
    Ok(count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_counters_lose_nothing() {
    let store = LocalStore::in_memory().unwrap();
    // More writers of one record than a transaction has tries.
    let tasks: Vec<_> = (0..300)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.transact(|tx| increment(tx, "one")).await })
        })
        .collect();
    let mut seen = Vec::new();
    for task in tasks {
        seen.push(within(task).await.unwrap().unwrap());
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=300).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unique_value_has_one_holder() {
    let store = LocalStore::in_memory().unwrap();
    let tasks: Vec<_> = (0..20)
        .map(|n| {
            let store = store.clone();
            let record = Named::new(&format!("id-{n}"), "same/name", "red");
            tokio::spawn(async move { store.transact(|tx| tx.put(&record)).await })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        match within(task).await.unwrap() {
            Ok(()) => won += 1,
            Err(Abort::Taken { index: "name", value, .. }) => assert_eq!(value, "same/name"),
            Err(e) => panic!("{e}"),
        }
    }
    assert_eq!(won, 1);
    let found = store.read(|tx| tx.by_unique::<Named>("name", "same/name")).unwrap().unwrap();
    assert_eq!(found.name, "same/name");
}

#[tokio::test]
async fn indexes_follow_their_record() {
    let store = LocalStore::in_memory().unwrap();
    let red = |store: &LocalStore| store.read(|tx| tx.by_index::<Named>("colour", "red")).unwrap();
    store
        .transact(|tx| {
            tx.put(&Named::new("1", "a", "red"))?;
            tx.put(&Named::new("2", "b", "red"))?;
            // What is buffered is seen.
            assert_eq!(tx.by_index::<Named>("colour", "red")?.len(), 2);
            tx.put(&Named::new("2", "b", "blue"))?;
            assert_eq!(tx.by_index::<Named>("colour", "red")?.len(), 1);
            Ok::<_, Abort>(())
        })
        .await
        .unwrap();
    assert_eq!(red(&store).iter().map(|r| r.id.as_str()).collect::<Vec<_>>(), ["1"]);
    // A name given up can be taken in the same transaction.
    store
        .transact(|tx| {
            tx.put(&Named::new("1", "c", "blue"))?;
            tx.put(&Named::new("2", "a", "blue"))
        })
        .await
        .unwrap();
    assert!(red(&store).is_empty());
    assert_eq!(store.read(|tx| tx.by_unique::<Named>("name", "a")).unwrap().unwrap().id, "2");
    assert!(store.transact(|tx| tx.delete::<Named>("1")).await.unwrap());
    assert!(!store.transact(|tx| tx.delete::<Named>("1")).await.unwrap());
    store.transact(|tx| tx.delete::<Named>("2")).await.unwrap();
    assert!(store.range("", None, usize::MAX).await.unwrap().entries.is_empty(), "nothing is left behind");
}

#[tokio::test]
async fn what_was_listed_is_fenced() {
    let store = LocalStore::in_memory().unwrap();
    let mut runs = 0;
    let inner = store.clone();
    // The first run is overtaken by another writer between its listing and its commit.
    let seen = store
        .transact(|tx| {
            runs += 1;
            let listed = tx.list::<Named>()?.len();
            if runs == 1 {
                let (other, record) = (inner.clone(), Named::new("x", "x", "red"));
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    runtime.block_on(other.transact(|tx| tx.put(&record))).unwrap();
                })
                .join()
                .unwrap();
            }
            tx.put(&Counter { id: "listed".into(), count: listed as u64 })?;
            Ok::<_, Abort>(listed)
        })
        .await
        .unwrap();
    assert_eq!((runs, seen), (2, 1));
}

#[tokio::test]
async fn a_failed_body_changes_nothing() {
    let store = LocalStore::in_memory().unwrap();
    let result: Result<(), Abort> = store
        .transact(|tx| {
            increment(tx, "one")?;
            Err(cairn_state::StoreError::Contention.into())
        })
        .await;
    assert!(result.is_err());
    assert_eq!(store.snapshot().unwrap().revision().0, 0);
}

#[test]
fn index_values_are_escaped() {
    let index = Index::multi("path", "a/b%\n");
    assert_eq!(cairn_state::record::index_key::<Named>(&index, "7"), "test/named.by-path/a%2Fb%25%0A/7");
}
