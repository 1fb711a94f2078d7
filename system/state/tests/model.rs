//! The engine does what the model does: random transactions, ranges, watches and reopenings.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use cairn_state::{Compare, Event, LeaseId, LocalStore, Op, Revision, Store, StoreError, Txn, WatchStream};
use common::disk::{Break, Content, Disk};
use common::model::Model;
use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt};
use proptest::collection::vec;
use proptest::prelude::*;

/// How far back the store under test can be watched.
const HISTORY: u64 = 12;

#[derive(Debug, Clone)]
enum Step {
    /// Transactions sent at once, which may share a commit.
    Txns(Vec<Txn>),
    Grant,
    Revoke(u64),
    Range(String, Option<String>, usize),
    Watch(String, u64),
    /// Reads all watches to their end.
    Drain,
    Reopen,
}

fn keys() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "a/", "a/1", "a/2", "a/2/x", "ab", "b/1", "b/é", "b/\u{10ffff}"])
        .prop_map(str::to_owned)
}

fn prefixes() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["", "a", "a/", "a/2", "b/", "c"]).prop_map(str::to_owned)
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (keys(), vec(any::<u8>(), 0..4), prop::option::weighted(0.3, 1..4u64)).prop_map(
            |(key, value, lease)| Op::Put { key, value: value.into(), lease: lease.map(LeaseId) }
        ),
        2 => keys().prop_map(|key| Op::Delete { key }),
    ]
}

fn compares() -> impl Strategy<Value = Compare> {
    prop_oneof![
        (keys(), 0..6u64).prop_map(|(key, at)| Compare::Modified(key, Revision(at))),
        (prefixes(), 0..4u64, 0..40u64).prop_map(|(prefix, count, since)| Compare::Unchanged {
            prefix,
            count,
            since: Revision(since)
        }),
    ]
}

fn txns() -> impl Strategy<Value = Txn> {
    // Most have no condition, or nothing would ever change.
    let compares = prop_oneof![3 => Just(vec![]), 1 => vec(compares(), 1..3)];
    (compares, vec(ops(), 0..4)).prop_map(|(compares, ops)| Txn { compares, ops })
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => vec(txns(), 1..5).prop_map(Step::Txns),
        1 => Just(Step::Grant),
        1 => (1..4u64).prop_map(Step::Revoke),
        3 => (prefixes(), prop::option::of(keys()), 0..5usize).prop_map(|(p, a, l)| Step::Range(p, a, l)),
        2 => (prefixes(), 0..20u64).prop_map(|(prefix, back)| Step::Watch(prefix, back)),
        2 => Just(Step::Drain),
        1 => Just(Step::Reopen),
    ]
}

struct Watch {
    stream: WatchStream,
    prefix: String,
    after: Revision,
    seen: Vec<Event>,
}

struct Bench {
    disk: Disk,
    store: LocalStore,
    model: Model,
    watches: Vec<Watch>,
}

fn open(disk: &Disk) -> LocalStore {
    LocalStore::with_media(disk.media(), common::limits(HISTORY, 2)).unwrap()
}

impl Bench {
    fn new() -> Bench {
        let disk = Disk::new(Content::default(), Break::Never);
        Bench { store: open(&disk), disk, model: Model::default(), watches: Vec::new() }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Txns(txns) => {
                let txns: Vec<Txn> = txns.into_iter().map(|txn| self.aim(txn)).collect();
                let outcomes = join_all(txns.iter().map(|txn| self.store.commit(txn.clone()))).await;
                let expected: Vec<_> = txns.iter().map(|txn| self.model.txn(txn)).collect();
                assert_eq!(outcomes, expected);
            }
            Step::Grant => {
                let lease = self.store.lease_grant(3_600_000).await.unwrap();
                assert!(self.model.leases.insert(lease));
            }
            Step::Revoke(lease) => {
                let lease = LeaseId(lease);
                assert_eq!(self.store.lease_revoke(lease).await, self.model.revoke(lease));
            }
            Step::Range(prefix, after, limit) => {
                let found = self.store.range(&prefix, after.as_deref(), limit).await.unwrap();
                assert_eq!(found, self.model.range(&prefix, after.as_deref(), limit));
            }
            Step::Watch(prefix, back) => self.watch(prefix, back).await,
            Step::Drain => self.drain(),
            Step::Reopen => {
                self.drain();
                self.watches.clear();
                self.store = LocalStore::in_memory().unwrap();
                self.store = open(&self.disk);
            }
        }
    }

    /// Brings most conditions close to the truth, where a wrong answer would show.
    fn aim(&self, mut txn: Txn) -> Txn {
        for compare in &mut txn.compares {
            match compare {
                Compare::Modified(key, at) if at.0 % 2 == 0 => {
                    *at = self.model.entries.get(key.as_str()).map_or(*at, |e| e.modified);
                }
                Compare::Modified(..) => {}
                Compare::Unchanged { prefix, count, since } => {
                    let found = self.model.range(prefix, None, usize::MAX).entries;
                    let newest = found.iter().map(|e| e.modified.0).max().unwrap_or(0);
                    *count = found.len() as u64 + u64::from(*count == 3);
                    *since = Revision((newest + since.0 % 3).saturating_sub(1));
                }
            }
        }
        txn
    }

    async fn watch(&mut self, prefix: String, back: u64) {
        let after = Revision(self.model.revision.saturating_sub(back));
        match self.store.watch(&prefix, after).await {
            Ok(stream) => self.watches.push(Watch { stream, prefix, after, seen: Vec::new() }),
            Err(StoreError::Compacted { oldest, .. }) => {
                assert!(back >= HISTORY, "compacted too soon");
                assert!(self.model.revision - oldest.0 >= HISTORY && oldest > after);
            }
            Err(e) => panic!("{e}"),
        }
    }

    /// Every watch has seen just what happened, or was told that it is too late.
    fn drain(&mut self) {
        let model = &self.model;
        self.watches.retain_mut(|watch| {
            let mut late = false;
            // A replay yields once in a while.
            let mut idle = 0;
            while idle < 100 {
                match watch.stream.next().now_or_never() {
                    Some(Some(Ok(event))) => watch.seen.push(event),
                    Some(Some(Err(StoreError::Compacted { .. }))) => {
                        late = true;
                        break;
                    }
                    Some(other) => panic!("{other:?}"),
                    None => idle += 1,
                }
            }
            let expected = model.history(&watch.prefix, watch.after);
            if late {
                assert!(expected.starts_with(&watch.seen));
            } else {
                assert_eq!(watch.seen, expected);
            }
            !late
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_does_what_the_model_does(steps in vec(steps(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut bench = Bench::new();
            for step in steps {
                bench.step(step).await;
            }
            bench.step(Step::Reopen).await;
            bench.step(Step::Range(String::new(), None, usize::MAX)).await;
        });
    }
}
