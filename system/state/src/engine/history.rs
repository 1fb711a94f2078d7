//! The bounded history of changes, and the watches that replay it and then follow live.
//!
//! A watcher reads the shared feed of commits, a ring that forgets; whoever falls behind it reads what it
//! missed from the history in the file, and whoever falls behind that is told that it is compacted. So no
//! watcher ever holds up the writer, and none sees a gap or a change twice.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use futures_util::stream;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::file::StateFile;
use super::layout::{HISTORY, META, META_COMPACTED, META_REVISION, Tables, decode_event, failed, number};
use crate::kv::{Event, Revision, StoreError, WatchStream};

/// How many stored events a replay looks at in one go, so that it holds no old page for long.
const REPLAY_CHUNK: usize = 512;

/// What one commit changed.
pub(crate) struct Batch {
    /// The revision before it.
    pub before: u64,
    /// The revision after it.
    pub last: u64,
    /// The changes, in order.
    pub events: Vec<Event>,
}

/// Drops the oldest events once the history is an eighth too long, so that the work is done now and then
/// and not at each commit.
pub(crate) fn compact(tables: &mut Tables, keep: u64) -> Result<(), StoreError> {
    let (last, floor) = (tables.revision(), tables.number(META_COMPACTED)?);
    if last - floor <= keep + keep / 8 {
        return Ok(());
    }
    let floor = last - keep;
    tables.history.retain_in(..(floor + 1, 0), |_, _| false).map_err(failed)?;
    tables.set_number(META_COMPACTED, floor)
}

/// Where a watcher is.
struct Watcher {
    file: Weak<StateFile>,
    feed: Receiver<Arc<Batch>>,
    prefix: String,
    /// The next event in the history to look at: all before it were delivered or are not ours.
    next: (u64, u32),
    /// Whether the history must be read before the feed is followed.
    behind: bool,
    ready: VecDeque<Event>,
}

/// A watch of what changes under `prefix` after `after`. The feed must have been subscribed to before this
/// is called: what is committed in between is then in both, and is delivered once.
pub(crate) fn watch(
    file: &Arc<StateFile>,
    feed: Receiver<Arc<Batch>>,
    prefix: &str,
    after: Revision,
) -> Result<WatchStream, StoreError> {
    let next = (after.0.saturating_add(1), 0);
    let mut watcher = Watcher {
        file: Arc::downgrade(file),
        feed,
        prefix: prefix.to_owned(),
        next,
        behind: true,
        ready: VecDeque::new(),
    };
    watcher.replay()?;
    // `None` as the state ends the stream: nothing follows an error.
    Ok(Box::pin(stream::unfold(Some(watcher), |watcher| async {
        let mut watcher = watcher?;
        match watcher.event().await {
            Ok(event) => Some((Ok(event), Some(watcher))),
            Err(e) => Some((Err(e), None)),
        }
    })))
}

impl Watcher {
    async fn event(&mut self) -> Result<Event, StoreError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            if self.behind {
                self.replay()?;
                // A long replay must let others run.
                tokio::task::yield_now().await;
                continue;
            }
            match self.feed.recv().await {
                Ok(batch) => self.take(&batch),
                Err(RecvError::Lagged(_)) => self.behind = true,
                Err(RecvError::Closed) => return Err(closed()),
            }
        }
    }

    /// Takes what is new to us from a commit.
    fn take(&mut self, batch: &Batch) {
        if batch.last < self.next.0 {
            return;
        }
        if batch.before >= self.next.0 || self.next.1 > 0 {
            self.behind = true;
            return;
        }
        let ours = |e: &&Event| e.revision().0 >= self.next.0 && e.key().starts_with(&self.prefix);
        self.ready.extend(batch.events.iter().filter(ours).cloned());
        self.next = (batch.last + 1, 0);
    }

    /// Takes the next chunk from the history.
    fn replay(&mut self) -> Result<(), StoreError> {
        let txn = self.file.upgrade().ok_or_else(closed)?.view()?;
        let meta = txn.open_table(META).map_err(failed)?;
        let (last, floor) = (number(&meta, META_REVISION)?, number(&meta, META_COMPACTED)?);
        // A revision still to come was seen in another life of this store (a restored copy, say).
        if self.next.0 <= floor || self.next.0 > last + 1 {
            return Err(StoreError::Compacted { asked: Revision(self.next.0 - 1), oldest: Revision(floor) });
        }
        let history = txn.open_table(HISTORY).map_err(failed)?;
        for (looked_at, row) in history.range(self.next..).map_err(failed)?.enumerate() {
            if looked_at == REPLAY_CHUNK {
                return Ok(());
            }
            let (at, stored) = row.map_err(failed)?;
            let (revision, position) = at.value();
            self.ready.extend(decode_event(revision, stored.value(), &self.prefix)?);
            self.next = (revision, position + 1);
        }
        self.next = (last + 1, 0);
        self.behind = false;
        Ok(())
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable("the store was closed".into())
}
