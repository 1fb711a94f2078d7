//! The log of the replica: entries in the write-ahead log (`wal`), votes and what was purged in the state's file.
//!
//! Appended entries and votes are on stable media before they are reported so; appends that wait share a frame.
//! It never reads what a truncation or purge has taken away, although the disk may still have it.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use tokio::sync::oneshot;

use super::saved;
use super::tail;
use super::types::{LogEntry, LogId, Runtime, Types, Vote};
use crate::engine::Core;
use crate::engine::disk::Job;
use crate::engine::file::Open;
use crate::kv::StoreError;
use crate::wal::{Rows, Task};

/// The most bytes of entries in one message to another replica (a single larger entry goes alone).
const SEND_BYTES_MAX: usize = 1 << 20;

/// The log. Clones are the same one.
#[derive(Clone)]
pub(crate) struct LogStore(pub Arc<Core>);

/// A small change of the state's file, and who waits for it.
struct Change<F> {
    change: F,
    durable: bool,
    done: oneshot::Sender<Result<(), StoreError>>,
}

impl<F: FnMut(&mut Open) -> Result<(), StoreError> + Send> Job for Change<F> {
    fn durable(&self) -> bool {
        self.durable
    }

    fn weight(&self) -> usize {
        64
    }

    fn run(&mut self, open: &mut Open) -> Result<(), StoreError> {
        (self.change)(open)
    }

    fn done(self: Box<Self>, result: Result<(), StoreError>) {
        // Who does not wait need not know.
        drop(self.done.send(result));
    }
}

/// Has a change done behind all that wait; gives what will be told of it.
fn put(
    core: &Core,
    durable: bool,
    change: impl FnMut(&mut Open) -> Result<(), StoreError> + Send + 'static,
) -> oneshot::Receiver<Result<(), StoreError>> {
    let (done, result) = oneshot::channel();
    core.disk.put(Change { change, durable, done });
    result
}

/// Does a change behind all that wait, and waits for it.
pub(crate) async fn change(
    core: &Core,
    durable: bool,
    change: impl FnMut(&mut Open) -> Result<(), StoreError> + Send + 'static,
) -> Result<(), io::Error> {
    put(core, durable, change).await.map_err(io::Error::other)?.map_err(io::Error::other)
}

impl LogStore {
    /// The entries of `from..to`; no more than `bytes_max`, but for the first.
    fn read(&self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<LogEntry>, StoreError> {
        let (from, (recent, disk_end)) = {
            let tail = self.0.tail();
            let from = tail.purged.map_or(from, |purged| from.max(purged.index + 1));
            (from, tail.read(from, to))
        };
        let mut found = Vec::new();
        let mut bytes = 0;
        if from < disk_end {
            let mut full = false;
            self.0.log.read(from, disk_end, |stored| {
                bytes += stored.len();
                full = bytes > bytes_max && !found.is_empty();
                if !full {
                    found.push(saved::decode::<LogEntry>(stored)?);
                }
                Ok(!full)
            })?;
            if full {
                return Ok(found);
            }
        }
        for entry in recent {
            bytes += tail::weight(&entry);
            if bytes > bytes_max && !found.is_empty() {
                break;
            }
            found.push(entry);
        }
        Ok(found)
    }
}

impl<K: Runtime> RaftLogReader<Types<K>> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<LogEntry>, io::Error> {
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(last) => last + 1,
            Bound::Excluded(to) => *to,
            Bound::Unbounded => u64::MAX,
        };
        self.read(from, to, usize::MAX).map_err(io::Error::other)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.0.tail().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<LogEntry>, io::Error> {
        self.read(start, end, SEND_BYTES_MAX).map_err(io::Error::other)
    }
}

impl<K: Runtime> RaftLogStorage<Types<K>> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<Types<K>>, io::Error> {
        let tail = self.0.tail();
        Ok(LogState { last_purged_log_id: tail.purged, last_log_id: tail.last })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (vote, generation) = (*vote, self.0.standing.generation());
        change(&self.0, true, move |open| {
            saved::put_generation(open.txn()?, generation)?;
            saved::put_vote(open.txn()?, &vote)
        })
        .await?;
        self.0.tail().vote = Some(vote);
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types<K>>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut rows = Rows::default();
        let (mut first, mut last) = (None, 0);
        let mut tail = self.0.tail();
        for entry in entries {
            last = entry.index();
            first.get_or_insert(last);
            rows.push(&saved::encode(&entry).map_err(io::Error::other)?);
            tail.push(entry);
        }
        let truncations = tail.truncations();
        drop(tail);
        let Some(first) = first else {
            callback.io_completed(Ok(()));
            return Ok(());
        };
        let core = Arc::downgrade(&self.0);
        let done = move |result: Result<(), StoreError>| {
            if result.is_ok()
                && let Some(core) = core.upgrade()
            {
                core.tail().flushed(last, truncations);
            }
            callback.io_completed(result.map_err(io::Error::other));
        };
        self.0.appends.put(Task::Append(first, rows, Box::new(done)));
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        self.0.tail().truncate(last_log_id);
        let next = last_log_id.map_or(0, |l| l.index + 1);
        let (done, result) = oneshot::channel();
        // Whoever asked waits, or is gone.
        self.0.appends.put(Task::Cut(next, Box::new(move |result| drop(done.send(result)))));
        result.await.map_err(io::Error::other)?.map_err(io::Error::other)
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        self.0.tail().purge(log_id);
        // Nobody waits for it: the engine would hear and say nothing as long as the disk takes for what is before it.
        // If a crash undoes it, there is more log than needed, which does no harm.
        drop(put(&self.0, false, move |open| {
            saved::put_purged(open.txn()?, &log_id)?;
            open.purged = open.purged.max(Some(log_id));
            Ok(())
        }));
        Ok(())
    }
}
