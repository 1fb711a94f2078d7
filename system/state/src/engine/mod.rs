//! The store's file: its tables, the commands that change them, the one writer, snapshots for readers, a bounded
//! history for watches, leases.
//!
//! Nothing here knows what a value means, and nothing knows of other nodes: in which order commands come is the
//! consensus engine's to say (`raft`).
//!
//! `layout` is the file, byte by byte; `commands` and `apply` decide; `disk` writes;
//! `file` commits; `snapshot` and `history`
//! read; `leases` keeps time; `sessions` remembers answers.

mod apply;
pub(crate) mod commands;
pub(crate) mod disk;
pub(crate) mod file;
pub(crate) mod history;
pub(crate) mod layout;
mod leases;
pub(crate) mod sessions;
mod snapshot;

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::ReadableTable;
use tokio::sync::{Notify, broadcast};

pub(crate) use self::apply::check;
pub use self::commands::{Command, Reply};
use self::disk::Queue;
use self::file::StateFile;
use self::history::Batch;
use self::layout::{LEASES, failed};
pub(crate) use self::leases::{Clock, Leases};
pub(crate) use self::sessions::Sessions;
pub use self::snapshot::Snapshot;
use crate::kv::{LeaseId, Revision, StoreError, WatchStream};
use crate::raft::{Applied, LogId, Saved, Seal, Standing, StoredMembership, Tail, is_witness};
use crate::wal::{self, Log};

/// The sizes of a store.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Memory for pages of the file.
    pub cache_bytes: usize,
    /// How many revisions can be watched from behind.
    pub history_revisions: u64,
    /// How many commits a watcher may be late before it reads them from the file.
    pub feed_commits: usize,
    /// So long a file of the log becomes before the other is begun, if nobody needs what is in that.
    pub log_file_bytes: u64,
    /// How many entries may be in the log alone and not on stable media in the state's file.
    pub unsaved_entries: u64,
    /// Whether the group's own thread applies a few entries itself if the writer is idle.
    pub apply_at_once: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            cache_bytes: 16 << 20,
            history_revisions: 10_000,
            feed_commits: 64,
            log_file_bytes: 16 << 20,
            unsaved_entries: 4096,
            apply_at_once: true,
        }
    }
}

/// The open file and what memory knows of it: what log, state machine and readers share.
pub(crate) struct Core {
    pub file: Arc<StateFile>,
    pub disk: Queue,
    pub log: Arc<Log>,
    pub appends: wal::Queue,
    pub leases: Leases,
    pub standing: Standing,
    pub seal: Seal,
    /// Whether this is a witness's: it keeps the log, which it cannot read, and no state.
    pub witness: bool,
    /// Whether few entries are applied on the group's own thread.
    pub apply_at_once: bool,
    pub feed: broadcast::Sender<Arc<Batch>>,
    applied: Mutex<Applied>,
    moved: Notify,
    tail: Mutex<Tail>,
}

impl Core {
    pub(crate) fn new(
        file: Arc<StateFile>,
        disk: Queue,
        log: Arc<Log>,
        appends: wal::Queue,
        clock: Clock,
        saved: &Saved,
        limits: Limits,
    ) -> Result<Core, StoreError> {
        let core = Core {
            file,
            disk,
            log,
            appends,
            leases: Leases::new(clock),
            standing: Standing::new(saved.generation),
            seal: Seal::default(),
            witness: is_witness(saved.node),
            apply_at_once: limits.apply_at_once,
            feed: broadcast::channel(limits.feed_commits).0,
            applied: Mutex::new(saved.applied.clone()),
            moved: Notify::new(),
            tail: Mutex::new(Tail::new(saved.last, saved.purged, saved.vote)),
        };
        core.restart_leases()?;
        Ok(core)
    }

    pub(crate) fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far the state is.
    pub(crate) fn applied(&self) -> Applied {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Is told of entries that were applied. The members are as before if none are given.
    pub(crate) fn advance(&self, log_id: Option<LogId>, membership: Option<StoredMembership>) {
        let now = self.applied();
        self.set_applied(Applied { log_id, membership: membership.unwrap_or(now.membership) });
    }

    pub(crate) fn set_applied(&self, applied: Applied) {
        *self.applied.lock().unwrap_or_else(PoisonError::into_inner) = applied;
        self.moved.notify_waiters();
    }

    /// Waits until the state has the entry of this index.
    pub(crate) async fn wait_applied(&self, index: u64) {
        loop {
            let mut moved = pin!(self.moved.notified());
            moved.as_mut().enable();
            if self.applied().log_id.is_some_and(|at| at.index >= index) {
                return;
            }
            moved.await;
        }
    }

    /// A view of what is applied.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, StoreError> {
        Snapshot::new(&self.file.view()?)
    }

    pub(crate) fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, StoreError> {
        history::watch(&self.file, self.feed.subscribe(), prefix, after)
    }

    /// Gives every lease its full term.
    pub(crate) fn restart_leases(&self) -> Result<(), StoreError> {
        self.leases.restart(|| {
            let txn = self.file.view()?;
            let mut all = Vec::new();
            for row in txn.open_table(LEASES).map_err(failed)?.iter().map_err(failed)? {
                let (lease, ttl_ms) = row.map_err(failed)?;
                all.push((LeaseId(lease.value()), ttl_ms.value()));
            }
            Ok(all)
        })
    }
}
