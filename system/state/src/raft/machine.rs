//! The state machine of the replica: the committed entries of the log, applied in order to the store's tables.
//!
//! What was applied is not on stable media for a while (`engine::file`): the log has it there, and it is applied again
//! after a crash. It decides nothing by itself (`engine::commands` does), and has no clock.

use std::io;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::image::{self, Image, Source};
use super::saved::Applied;
use super::tail;
use super::types::{
    LeaderId, LogEntry, LogId, Member, NodeId, Runtime, SnapshotMeta, StoredMembership, Types,
};
use crate::engine::Core;
use crate::engine::commands::{self, Effects, Reply};
use crate::engine::disk::Job;
use crate::engine::file::Open;
use crate::engine::history::Batch;
use crate::engine::layout::Tables;
use crate::kv::StoreError;

/// The most entries that are applied in one job.
const JOB_MAX: usize = 1024;

/// The most entries, and bytes of them, that are applied on the group's own thread.
const AT_ONCE_MAX: usize = 4;
const AT_ONCE_BYTES_MAX: usize = 16 << 10;

/// How many jobs may be on their way.
const JOBS_MAX: u32 = 64;

/// The state machine. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Machine {
    core: Arc<Core>,
    places: Arc<Semaphore>,
}

/// Entries to apply.
struct Apply<K: Runtime> {
    core: Arc<Core>,
    weight: usize,
    entries: Vec<LogEntry>,
    responders: Vec<Option<ApplyResponder<Types<K>>>>,
    replies: Vec<Reply>,
    outcome: Option<Outcome>,
    _place: OwnedSemaphorePermit,
}

/// What came of applying.
struct Outcome {
    log_id: Option<LogId>,
    /// The new members, if they have changed.
    membership: Option<StoredMembership>,
    effects: Effects,
    before: u64,
    last: u64,
}

impl<K: Runtime> Job for Apply<K> {
    fn durable(&self) -> bool {
        false
    }

    fn weight(&self) -> usize {
        self.weight
    }

    fn run(&mut self, open: &mut Open) -> Result<(), StoreError> {
        let entries = std::mem::take(&mut self.entries);
        let unsaved = (open.unsaved.0 + entries.len() as u64, open.unsaved.1 + self.weight);
        let (mut log_id, mut membership) = (None, None);
        let mut effects = Effects::default();
        let (txn, sessions) = open.parts()?;
        let mut tables = Tables::open(txn)?;
        let before = tables.revision();
        for entry in entries {
            let index = entry.log_id.index;
            log_id = Some(entry.log_id);
            self.replies.push(match entry.payload {
                EntryPayload::Blank => Reply::Nothing,
                EntryPayload::Normal(_) if self.core.witness => Reply::Nothing,
                EntryPayload::Normal(command) => {
                    commands::run(&mut tables, sessions, index, command, &mut effects)?
                }
                EntryPayload::Membership(members) => {
                    membership = Some(StoredMembership::new(Some(entry.log_id), members));
                    Reply::Nothing
                }
            });
        }
        let last = tables.revision();
        tables.close()?;
        open.unsaved = unsaved;
        open.applied = log_id.or(open.applied);
        if membership.is_some() {
            open.membership = membership.clone();
        }
        self.outcome = Some(Outcome { log_id, membership, effects, before, last });
        Ok(())
    }

    fn done(self: Box<Self>, result: Result<(), StoreError>) {
        let job = *self;
        // If it failed, so does all that is written after it: the engine stops at its next write.
        if let (Ok(()), Some(outcome)) = (result, job.outcome) {
            publish(&job.core, outcome);
            for (responder, reply) in job.responders.into_iter().zip(job.replies) {
                if let Some(responder) = responder {
                    responder.send(reply);
                }
            }
        }
    }
}

fn publish(core: &Core, outcome: Outcome) {
    let Outcome { log_id, membership, effects, before, last } = outcome;
    effects.granted.iter().for_each(|(lease, ttl_ms)| core.leases.start(*lease, *ttl_ms));
    effects.ended.iter().for_each(|lease| core.leases.remove(*lease));
    if last > before {
        // No watcher is no error.
        drop(core.feed.send(Arc::new(Batch { before, last, events: effects.events })));
    }
    core.advance(log_id, membership);
}

impl Machine {
    pub(crate) fn new(core: Arc<Core>) -> Machine {
        Machine { core, places: Arc::new(Semaphore::new(JOBS_MAX as usize)) }
    }

    /// Has entries applied, in the order of these calls, and does not wait for it: they would wait for whatever the
    /// disk is writing, and those behind them for them, one commit each. Whoever reads waits (`Core::wait_applied`).
    async fn apply_some<K: Runtime>(&self, some: Vec<EntryResponder<Types<K>>>) -> Result<(), io::Error> {
        let _place = self.places.clone().acquire_owned().await.map_err(io::Error::other)?;
        let weight = some.iter().map(|(entry, _)| tail::weight(entry)).sum();
        let (entries, responders): (Vec<_>, _) = some.into_iter().unzip();
        let (core, replies) = (self.core.clone(), Vec::new());
        let few = self.core.apply_at_once && entries.len() <= AT_ONCE_MAX && weight <= AT_ONCE_BYTES_MAX;
        let apply = Apply { core, weight, entries, responders, replies, outcome: None, _place };
        if few {
            self.core.disk.put_or_do(apply)
        } else {
            self.core.disk.put(apply)
        }
        Ok(())
    }

    /// Waits until all that was to be applied is.
    async fn settle(&self) -> Result<(), io::Error> {
        self.places.acquire_many(JOBS_MAX).await.map(drop).map_err(io::Error::other)
    }

    fn meta(&self) -> SnapshotMeta {
        let Applied { log_id, membership } = self.core.applied();
        SnapshotMeta { last_log_id: log_id, last_membership: membership }
    }
}

impl<K: Runtime> RaftStateMachine<Types<K>> for Machine {
    type SnapshotData = Image;
    type SnapshotBuilder = Machine;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        self.settle().await?;
        let Applied { log_id, membership } = self.core.applied();
        Ok((log_id, membership))
    }

    async fn apply<S>(&mut self, entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types<K>>, io::Error>> + Unpin + OptionalSend,
    {
        let mut chunks = entries.chunks(JOB_MAX);
        while let Some(chunk) = chunks.next().await {
            let some = chunk.into_iter().collect::<Result<Vec<_>, _>>()?;
            self.apply_some::<K>(some).await?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Machine {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Image) -> Result<(), io::Error> {
        image::install(&self.core, meta, snapshot).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf>, io::Error> {
        self.settle().await?;
        let meta = self.meta();
        if meta.last_log_id.is_none() {
            return Ok(None);
        }
        Ok(Some(Snapshot { meta, snapshot: Image::Live(Source(self.core.file.clone())) }))
    }
}

/// A snapshot of this state machine.
pub(crate) type SnapshotOf = Snapshot<LeaderId, NodeId, Member, Image>;

impl<K: Runtime> RaftSnapshotBuilder<Types<K>> for Machine {
    type SnapshotData = Image;

    /// Nothing is built: the state is in the file, and a snapshot of it is read when somebody needs it. What
    /// this says is that the log before may be purged.
    async fn build_snapshot(&mut self) -> Result<SnapshotOf, io::Error> {
        self.settle().await?;
        Ok(Snapshot { meta: self.meta(), snapshot: Image::Live(Source(self.core.file.clone())) })
    }
}
