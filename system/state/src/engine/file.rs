//! The state's file as it is worked on: one transaction that stays open while entries are applied to it, and is
//! committed when somebody looks, and to stable media now and then.
//!
//! What is applied is in the log, which is on stable media, so a commit for each entry would buy nothing; pages that a
//! thousand entries change are written once. It must never show who reads less than was told to be done, never wait
//! for the disk on a reader's behalf, and never let the log forget what is not on stable media here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use redb::{Database, Durability, ReadTransaction, ReadableDatabase, WriteTransaction};
use tokio::sync::watch;

use super::Limits;
use super::disk::guarded;
use super::history::compact;
use super::layout::{Tables, failed};
use super::sessions::Sessions;
use crate::kv::StoreError;
use crate::raft::{LogId, StoredMembership, put_applied, put_logged, put_membership};
use crate::wal::Log;

/// So many bytes of changes may be in memory and the log alone.
const UNSAVED_BYTES: usize = 4 << 20;

/// How long a reader waits before it looks again whether what it must see can be seen.
const LOOK_AGAIN: Duration = Duration::from_micros(50);

/// The file, open.
pub(crate) struct StateFile {
    open: Mutex<Open>,
    /// Whether the open transaction has what a reader must see.
    unseen: AtomicBool,
    failure: watch::Sender<Option<StoreError>>,
    log: Arc<Log>,
    keep_revisions: u64,
    unsaved_entries: u64,
    db: Database,
}

/// What a writer works on.
pub(crate) struct Open {
    txn: Option<WriteTransaction>,
    /// What callers are remembered, with what is in `txn`.
    pub sessions: Sessions,
    /// How far `txn` is, if that has changed in it.
    pub applied: Option<LogId>,
    /// The members, if they have changed in it.
    pub membership: Option<StoredMembership>,
    /// Up to where the log was purged since the last commit to stable media.
    pub purged: Option<LogId>,
    /// How many entries were applied since then, and their bytes.
    pub unsaved: (u64, usize),
}

impl Open {
    /// The open transaction, and what is remembered beside it.
    pub(crate) fn parts(&mut self) -> Result<(&WriteTransaction, &mut Sessions), StoreError> {
        Ok((self.txn.as_ref().ok_or_else(none_open)?, &mut self.sessions))
    }

    /// The open transaction.
    pub(crate) fn txn(&self) -> Result<&WriteTransaction, StoreError> {
        self.txn.as_ref().ok_or_else(none_open)
    }
}

fn none_open() -> StoreError {
    StoreError::Storage("no transaction is open".into())
}

impl StateFile {
    pub(crate) fn new(
        db: Database,
        log: Arc<Log>,
        failure: watch::Sender<Option<StoreError>>,
        limits: &Limits,
    ) -> Result<StateFile, StoreError> {
        let sessions = Sessions::load(&db.begin_read().map_err(failed)?)?;
        let open =
            Open { txn: None, sessions, applied: None, membership: None, purged: None, unsaved: (0, 0) };
        let (open, unseen) = (Mutex::new(open), AtomicBool::new(false));
        let Limits { history_revisions: keep_revisions, unsaved_entries, .. } = *limits;
        Ok(StateFile { open, unseen, failure, log, keep_revisions, unsaved_entries, db })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A view of all that was told to be done before this call. It may have to be committed first, but never waits for
    /// the disk.
    pub(crate) fn view(&self) -> Result<ReadTransaction, StoreError> {
        while self.unseen.load(Ordering::Acquire) {
            let mut open = match self.open.try_lock() {
                Ok(open) => open,
                Err(TryLockError::Poisoned(e)) => e.into_inner(),
                // Whoever works there shows it before going to the disk with it.
                Err(TryLockError::WouldBlock) => {
                    std::thread::sleep(LOOK_AGAIN);
                    continue;
                }
            };
            guarded(&self.failure, || self.show(&mut open))?;
        }
        self.db.begin_read().map_err(failed)
    }

    /// Works on the open transaction; commits it to stable media if that is asked for, or due.
    pub(crate) fn write(
        &self,
        durable: bool,
        work: impl FnOnce(&mut Open) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut open = self.open();
        guarded(&self.failure, || {
            self.work(&mut open, work)?;
            if durable || self.is_due(&open) { self.save_open(&mut open) } else { Ok(()) }
        })
    }

    /// Works on the open transaction at once, unless another does: then `None`. Never waits for the disk; says whether
    /// a commit to stable media is due.
    pub(crate) fn write_at_once(
        &self,
        work: impl FnOnce(&mut Open) -> Result<(), StoreError>,
    ) -> Option<Result<bool, StoreError>> {
        let mut open = self.open.try_lock().ok()?;
        Some(guarded(&self.failure, || {
            self.work(&mut open, work)?;
            Ok(self.is_due(&open))
        }))
    }

    fn work(
        &self,
        open: &mut Open,
        work: impl FnOnce(&mut Open) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        if open.txn.is_none() {
            open.txn = Some(self.db.begin_write().map_err(failed)?);
        }
        self.unseen.store(true, Ordering::Release);
        work(open)
    }

    fn is_due(&self, open: &Open) -> bool {
        let (entries, bytes) = open.unsaved;
        entries >= self.unsaved_entries || bytes >= UNSAVED_BYTES
    }

    /// Commits what is not on stable media yet.
    pub(crate) fn save(&self) -> Result<(), StoreError> {
        let mut open = self.open();
        if open.txn.is_none() && open.unsaved.0 == 0 {
            return Ok(());
        }
        guarded(&self.failure, || self.save_open(&mut open))
    }

    /// In two steps: who reads must not wait for the second.
    fn save_open(&self, open: &mut Open) -> Result<(), StoreError> {
        self.show(open)?;
        let mut txn = self.db.begin_write().map_err(failed)?;
        put_logged(&txn, self.log.number())?;
        txn.set_durability(Durability::Immediate).map_err(|e| StoreError::Storage(e.to_string()))?;
        txn.commit().map_err(failed)?;
        open.unsaved = (0, 0);
        if let Some(purged) = open.purged.take() {
            self.log.release(purged.index);
        }
        Ok(())
    }

    /// Commits what was worked on, so that it is seen.
    fn show(&self, open: &mut Open) -> Result<(), StoreError> {
        let Some(mut txn) = open.txn.take() else { return Ok(()) };
        let mut tables = Tables::open(&txn)?;
        open.sessions.save(&mut tables)?;
        compact(&mut tables, self.keep_revisions)?;
        drop(tables);
        if let Some(applied) = open.applied.take() {
            put_applied(&txn, &Some(applied))?;
        }
        if let Some(membership) = open.membership.take() {
            put_membership(&txn, &membership)?;
        }
        txn.set_durability(Durability::None).map_err(|e| StoreError::Storage(e.to_string()))?;
        txn.commit().map_err(failed)?;
        self.unseen.store(false, Ordering::Release);
        Ok(())
    }
}
