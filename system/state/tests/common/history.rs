//! What clients did and saw, and the sequential store that it must look like.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use cairn_state::{
    Compare, Event, LocalStore, Op as StoreOp, Revision, StoreError, Txn, TxnOutcome, WatchStream,
};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

/// The search goes as deep as there are calls.
const SEARCH_STACK_BYTES: usize = 64 << 20;

/// How long an order is looked for.
const SEARCH_MAX: Duration = Duration::from_secs(10);

/// What a client asks for. Values are never the same twice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Op {
    Put(u8, u64),
    /// Puts if the key was last put at this revision (0: is absent).
    Swap(u8, u64, u64),
    Delete(u8),
    Get(u8),
}

/// What it is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Ret {
    Committed(u64),
    Conflict,
    /// The value and the revision that put it, and the revision that was read.
    Found(Option<(u64, u64)>, u64),
}

/// The store in the plainest words.
#[derive(Debug, Clone, Default)]
pub struct Plain {
    revision: u64,
    entries: BTreeMap<u8, (u64, u64)>,
    /// The revisions that others have made.
    foreign: Arc<BTreeSet<u64>>,
}

impl Plain {
    /// The next revision.
    fn next(&self) -> u64 {
        (self.revision + 1..).find(|revision| !self.foreign.contains(revision)).unwrap_or(u64::MAX)
    }

    /// Goes on to a revision that is seen without a change of ours: others may have made it.
    fn see(&mut self, revision: u64) -> bool {
        let plausible = (self.revision..self.next()).contains(&revision);
        self.revision = self.revision.max(revision);
        plausible
    }

    fn put(&mut self, key: u8, value: u64) -> Ret {
        self.revision = self.next();
        self.entries.insert(key, (value, self.revision));
        Ret::Committed(self.revision)
    }
}

impl SequentialSpec for Plain {
    type Op = Op;
    type Ret = Ret;

    fn invoke(&mut self, op: &Op) -> Ret {
        match op {
            Op::Put(key, value) => self.put(*key, *value),
            Op::Swap(key, at, value) => {
                if self.entries.get(key).map_or(0, |(_, at)| *at) != *at {
                    return Ret::Conflict;
                }
                self.put(*key, *value)
            }
            Op::Delete(key) => {
                if self.entries.remove(key).is_some() {
                    self.revision = self.next();
                }
                Ret::Committed(self.revision)
            }
            Op::Get(key) => Ret::Found(self.entries.get(key).copied(), self.revision),
        }
    }

    fn is_valid_step(&mut self, op: &Op, ret: &Ret) -> bool {
        match (op, ret) {
            (Op::Get(key), Ret::Found(found, at)) => self.entries.get(key) == found.as_ref() && self.see(*at),
            (Op::Delete(key), Ret::Committed(at)) if !self.entries.contains_key(key) => self.see(*at),
            _ => self.invoke(op) == *ret,
        }
    }
}

fn key(key: u8) -> String {
    format!("k/{key}")
}

fn txn(op: &Op) -> Txn {
    let put = |k: u8, value: u64| StoreOp::Put { key: key(k), value: value.to_string().into(), lease: None };
    match op {
        Op::Put(k, value) => Txn { compares: vec![], ops: vec![put(*k, *value)] },
        Op::Swap(k, at, value) => {
            Txn { compares: vec![Compare::Modified(key(*k), Revision(*at))], ops: vec![put(*k, *value)] }
        }
        Op::Delete(k) => Txn { compares: vec![], ops: vec![StoreOp::Delete { key: key(*k) }] },
        Op::Get(_) => Txn::default(),
    }
}

/// Asks a store.
pub async fn ask(store: &LocalStore, op: &Op) -> Result<Ret, StoreError> {
    if let Op::Get(k) = op {
        store.catch_up().await?;
        let snapshot = store.snapshot()?;
        let entry = snapshot.get(&key(*k))?;
        let found = entry.map(|e| (String::from_utf8_lossy(&e.value).parse().unwrap_or(0), e.modified.0));
        return Ok(Ret::Found(found, snapshot.revision().0));
    }
    Ok(match store.commit(txn(op)).await? {
        TxnOutcome::Committed(at) => Ret::Committed(at.0),
        TxnOutcome::Conflict => Ret::Conflict,
    })
}

/// What a watch tells, until it is silent for so long.
pub async fn told(mut watch: WatchStream, silence: Duration) -> Result<Vec<Event>, String> {
    let mut events = Vec::new();
    while let Ok(Some(event)) = tokio::time::timeout(silence, watch.next()).await {
        events.push(event.map_err(|e| e.to_string())?);
    }
    Ok(events)
}

/// All that was ever written, in the end.
#[derive(Debug, Default)]
pub struct Written {
    /// The revision of each value that clients have put.
    values: BTreeMap<u64, u64>,
    /// The revisions of keys that are not the clients'.
    foreign: Arc<BTreeSet<u64>>,
}

impl Written {
    /// As these events tell. No value may be put twice.
    pub fn of(events: &[Event]) -> Result<Written, String> {
        let (mut values, mut foreign) = (BTreeMap::new(), BTreeSet::new());
        for event in events {
            let at = event.revision().0;
            match event {
                Event::Put(entry) if entry.key.starts_with("k/") => {
                    let value = String::from_utf8_lossy(&entry.value).parse().map_err(|e| format!("{e}"))?;
                    if let Some(before) = values.insert(value, at) {
                        return Err(format!("{value} was put once, but at {before} and at {at}"));
                    }
                }
                Event::Delete { key, .. } if key.starts_with("k/") => {}
                _ => drop(foreign.insert(at)),
            }
        }
        Ok(Written { values, foreign: Arc::new(foreign) })
    }
}

/// The history of a run, in the order of time.
#[derive(Debug, Default)]
pub struct History {
    events: Vec<(u32, Step)>,
    threads: u32,
    pub calls: u32,
    pub unknown: u32,
}

#[derive(Debug, Clone)]
enum Step {
    Call(Op),
    Answer(Ret),
}

impl History {
    /// A client that has not asked anything yet. One that was not answered is never used again.
    pub fn thread(&mut self) -> u32 {
        self.threads += 1;
        self.threads
    }

    pub fn call(&mut self, thread: u32, op: Op) {
        self.calls += 1;
        self.events.push((thread, Step::Call(op)));
    }

    pub fn answer(&mut self, thread: u32, ret: Ret) {
        self.events.push((thread, Step::Answer(ret)));
    }

    /// Whether some sequential order of the calls explains the answers. `written` has the revision of each value
    /// that was ever put: a call without an answer has been done at that revision, some time before the end, or
    /// never. (A removal leaves no value: it may have been done or not.)
    pub fn linearizable(&self, written: &Written) -> bool {
        let plain = Plain { foreign: written.foreign.clone(), ..Plain::default() };
        let mut tester = LinearizabilityTester::new(plain);
        let mut late = Vec::new();
        for (at, (thread, step)) in self.events.iter().enumerate() {
            let mut rest = self.events[at + 1..].iter();
            match step {
                Step::Answer(ret) => drop(tester.on_return(*thread, ret.clone()).unwrap()),
                Step::Call(op) if rest.any(|(other, _)| other == thread) => {
                    tester.on_invoke(*thread, op.clone()).unwrap();
                }
                Step::Call(op @ (Op::Put(_, value) | Op::Swap(_, _, value))) => {
                    if let Some(&revision) = written.values.get(value) {
                        tester.on_invoke(*thread, op.clone()).unwrap();
                        late.push((*thread, Ret::Committed(revision)));
                    }
                }
                Step::Call(op @ Op::Delete(_)) => drop(tester.on_invoke(*thread, op.clone()).unwrap()),
                Step::Call(Op::Get(_)) => {}
            }
        }
        for (thread, ret) in late {
            tester.on_return(thread, ret).unwrap();
        }
        // The search for an order that is not there may take for ever; one that is there is found at once.
        let (found, result) = mpsc::channel();
        let search = move || {
            let _ = found.send(tester.is_consistent());
        };
        std::thread::Builder::new().stack_size(SEARCH_STACK_BYTES).spawn(search).unwrap();
        result.recv_timeout(SEARCH_MAX).unwrap_or(false)
    }
}
