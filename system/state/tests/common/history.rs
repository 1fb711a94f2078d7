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
const SEARCH_MAX: Duration = Duration::from_secs(60);

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

impl Ret {
    /// The revision that it shows.
    fn revision(&self) -> Option<u64> {
        match self {
            Ret::Committed(at) | Ret::Found(_, at) => Some(*at),
            Ret::Conflict => None,
        }
    }
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
    /// The keys that clients have removed, by revision.
    removals: BTreeMap<u64, u8>,
    /// The revisions of keys that are not the clients'.
    foreign: Arc<BTreeSet<u64>>,
}

impl Written {
    /// Whether this may have been done although nothing says so: a removal that another one was answered with.
    fn may_hide(&self, op: &Op) -> bool {
        matches!(op, Op::Delete(key) if self.removals.values().any(|removed| removed == key))
    }

    /// As these events tell. No value may be put twice.
    pub fn of(events: &[Event]) -> Result<Written, String> {
        let (mut values, mut removals, mut foreign) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        for event in events {
            let at = event.revision().0;
            match event {
                Event::Put(entry) if entry.key.starts_with("k/") => {
                    let value = String::from_utf8_lossy(&entry.value).parse().map_err(|e| format!("{e}"))?;
                    if let Some(before) = values.insert(value, at) {
                        return Err(format!("{value} was put once, but at {before} and at {at}"));
                    }
                }
                Event::Delete { key, .. } if key.starts_with("k/") => {
                    removals.insert(at, key[2..].parse().map_err(|e| format!("{e}"))?);
                }
                _ => drop(foreign.insert(at)),
            }
        }
        Ok(Written { values, removals, foreign: Arc::new(foreign) })
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

    /// Whether some sequential order of the calls explains the answers. `written` has all that was ever done: a call
    /// without an answer has been done at the revision that has its change, or never.
    pub fn linearizable(&self, written: &Written) -> bool {
        let plain = Plain { foreign: written.foreign.clone(), ..Plain::default() };
        let mut tester = LinearizabilityTester::new(plain);
        let mut late = self.late(written);
        for (at, (thread, step)) in self.events.iter().enumerate() {
            match step {
                Step::Answer(ret) => {
                    // Whoever sees a revision sees it done.
                    while late.first().is_some_and(|(done, _)| Some(*done) <= ret.revision()) {
                        let (done, thread) = late.remove(0);
                        tester.on_return(thread, Ret::Committed(done)).unwrap();
                    }
                    tester.on_return(*thread, ret.clone()).unwrap();
                }
                Step::Call(op)
                    if self.is_answered(at)
                        || late.iter().any(|(_, by)| by == thread)
                        || written.may_hide(op) =>
                {
                    tester.on_invoke(*thread, op.clone()).unwrap();
                }
                Step::Call(_) => {}
            }
        }
        for (done, thread) in late {
            tester.on_return(thread, Ret::Committed(done)).unwrap();
        }
        // The search for an order that is not there may take for ever; one that is there is found at once.
        let (found, result) = mpsc::channel();
        let search = move || {
            let _ = found.send(tester.is_consistent());
        };
        std::thread::Builder::new().stack_size(SEARCH_STACK_BYTES).spawn(search).unwrap();
        result.recv_timeout(SEARCH_MAX).expect("whether there is an order was not found out in time")
    }

    /// Whether the call at this place was answered: a thread that was not never calls again.
    fn is_answered(&self, at: usize) -> bool {
        let thread = self.events[at].0;
        self.events[at + 1..].iter().any(|(other, _)| *other == thread)
    }

    /// The calls that were done without an answer, by the revision at which they were: that and the thread.
    fn late(&self, written: &Written) -> Vec<(u64, u32)> {
        let mut removals = written.removals.clone();
        for (_, step) in &self.events {
            if let Step::Answer(Ret::Committed(at)) = step {
                removals.remove(at);
            }
        }
        let mut late = Vec::new();
        for (at, (thread, step)) in self.events.iter().enumerate() {
            let Step::Call(op) = step else { continue };
            if self.is_answered(at) {
                continue;
            }
            let done = match op {
                Op::Put(_, value) | Op::Swap(_, _, value) => written.values.get(value).copied(),
                // Removals of one key are all alike: the first that was asked for is taken for the first that was done.
                Op::Delete(key) => {
                    let first = removals.iter().find(|(_, removed)| *removed == key).map(|(at, _)| *at);
                    first.filter(|at| removals.remove(at).is_some())
                }
                Op::Get(_) => None,
            };
            late.extend(done.map(|done| (done, *thread)));
        }
        late.sort_unstable();
        late
    }
}
