//! The one writer: a thread that takes whatever transactions wait, does them in order, and commits them
//! together.
//!
//! It must never acknowledge before the commit is on stable media, and never wait for a reader or a watcher.
//! After a failure of the disk nothing more is written: what is on it is decided by opening it again.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use redb::{Database, Durability};
use tokio::sync::{OwnedSemaphorePermit, broadcast, oneshot, watch};

use super::apply::{apply, end_lease, weight};
use super::history::{Batch, compact};
use super::layout::{META_LEASE, META_REVISION, Tables, failed};
use super::leases::Leases;
use crate::kv::{Event, LeaseId, StoreError, Txn, TxnOutcome};

/// The most transactions in one commit, so that the first of them does not wait long.
const BATCH_MAX: usize = 1024;
/// The most bytes in one commit (a single larger transaction goes alone).
const BATCH_BYTES_MAX: usize = 2 << 20;
/// How long to sleep when no lease is near its end.
const IDLE: Duration = Duration::from_secs(3600);

/// What the writer is asked for.
pub(super) enum Command {
    Txn(Txn),
    Grant { ttl_ms: u64 },
    Revoke(LeaseId),
}

/// What it answers.
#[derive(Clone, Copy)]
pub(super) enum Reply {
    Txn(TxnOutcome),
    Granted(LeaseId),
    Revoked,
}

/// A command in the queue; the permit is its place there.
pub(super) struct Request {
    pub command: Command,
    pub reply: oneshot::Sender<Result<Reply, StoreError>>,
    pub _place: OwnedSemaphorePermit,
}

/// A request that was done, with the answer it gets once the commit is safe.
type Done = (oneshot::Sender<Result<Reply, StoreError>>, Result<Reply, StoreError>);

/// What a commit changed beside the keys.
#[derive(Default)]
struct Effects {
    events: Vec<Event>,
    granted: Vec<(LeaseId, u64)>,
    ended: Vec<LeaseId>,
}

impl Effects {
    fn nothing(&self) -> bool {
        self.events.is_empty() && self.granted.is_empty() && self.ended.is_empty()
    }
}

pub(super) struct Writer {
    pub db: Arc<Database>,
    pub leases: Arc<Leases>,
    pub feed: broadcast::Sender<Arc<Batch>>,
    pub failure: watch::Sender<Option<StoreError>>,
    pub keep_revisions: u64,
}

impl Writer {
    /// Serves the queue until all who could send are gone.
    pub(super) fn run(self, queue: Receiver<Request>) {
        loop {
            // After a failure leases no longer end: only requests are left to be refused.
            let lease = if self.failure.borrow().is_none() { self.leases.next_in() } else { None };
            let wait = lease.unwrap_or(IDLE);
            let first = match queue.recv_timeout(wait) {
                Ok(request) => Some(request),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let batch = gather(first, &queue);
            self.serve(batch);
        }
    }

    fn serve(&self, batch: Vec<Request>) {
        let (replies, commands): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|r| ((r.reply, r._place), r.command)).unzip();
        match self.commit(commands) {
            Ok(results) => {
                let done = replies.into_iter().map(|(reply, _)| reply).zip(results);
                done.for_each(|(reply, result): Done| drop(reply.send(result)));
            }
            Err(e) => {
                self.fail(&e);
                replies.into_iter().for_each(|(reply, _)| drop(reply.send(Err(e.clone()))));
            }
        }
    }

    fn fail(&self, e: &StoreError) {
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            if first {
                tracing::error!(error = %e, "the store could not commit, and writes no more");
                *failure = Some(e.clone());
            }
            first
        });
    }

    /// Does the commands in one redb transaction. An error means that none is acknowledged.
    fn commit(&self, commands: Vec<Command>) -> Result<Vec<Result<Reply, StoreError>>, StoreError> {
        if let Some(e) = &*self.failure.borrow() {
            return Err(e.clone());
        }
        let mut txn = self.db.begin_write().map_err(failed)?;
        txn.set_durability(Durability::Immediate).map_err(failed)?;
        let mut effects = Effects::default();
        let mut tables = Tables::open(&txn)?;
        let before = tables.number(META_REVISION)?;
        for lease in self.leases.take_expired() {
            end_lease(&mut tables, lease, &mut effects.events)?;
            effects.ended.push(lease);
        }
        let mut results = Vec::with_capacity(commands.len());
        for command in commands {
            match run_command(&mut tables, command, &mut effects) {
                Err(e @ StoreError::Storage(_)) => return Err(e),
                result => results.push(result),
            }
        }
        if effects.nothing() {
            drop(tables);
            txn.abort().map_err(failed)?;
            return Ok(results);
        }
        compact(&mut tables, self.keep_revisions)?;
        let last = tables.number(META_REVISION)?;
        drop(tables);
        txn.commit().map_err(failed)?;
        self.publish(effects, before, last);
        Ok(results)
    }

    fn publish(&self, effects: Effects, before: u64, last: u64) {
        effects.granted.iter().for_each(|(lease, ttl_ms)| self.leases.start(*lease, *ttl_ms));
        effects.ended.iter().for_each(|lease| self.leases.remove(*lease));
        if last > before {
            // No watcher is no error.
            drop(self.feed.send(Arc::new(Batch { before, last, events: effects.events })));
        }
    }
}

/// The first request and all that wait behind it, within the limits of a commit.
fn gather(first: Option<Request>, queue: &Receiver<Request>) -> Vec<Request> {
    let mut batch: Vec<Request> = first.into_iter().collect();
    let mut bytes = batch.iter().map(size).sum::<usize>();
    while batch.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX {
        let Ok(next) = queue.try_recv() else { break };
        bytes += size(&next);
        batch.push(next);
    }
    batch
}

fn size(request: &Request) -> usize {
    match &request.command {
        Command::Txn(txn) => weight(txn),
        Command::Grant { .. } | Command::Revoke(_) => 16,
    }
}

fn run_command(tables: &mut Tables, command: Command, effects: &mut Effects) -> Result<Reply, StoreError> {
    match command {
        Command::Txn(txn) => apply(tables, txn, &mut effects.events).map(Reply::Txn),
        Command::Grant { ttl_ms } => {
            let lease = LeaseId(tables.number(META_LEASE)? + 1);
            tables.set_number(META_LEASE, lease.0)?;
            tables.leases.insert(lease.0, ttl_ms).map_err(failed)?;
            effects.granted.push((lease, ttl_ms));
            Ok(Reply::Granted(lease))
        }
        Command::Revoke(lease) => {
            if end_lease(tables, lease, &mut effects.events)?.is_none() {
                return Err(StoreError::LeaseExpired(lease));
            }
            effects.ended.push(lease);
            Ok(Reply::Revoked)
        }
    }
}
