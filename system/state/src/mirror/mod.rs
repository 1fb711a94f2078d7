//! A typed, always fresh copy of one kind of record, followed by a watch: what an agent reconciles against.
//!
//! It reads the whole kind, then follows its changes; when the store cannot be reached it keeps what it has
//! and tries again. It writes nothing but its ledger (`ledger`), the copy on this node's own disk that lets
//! an agent start without the controller. It must never show less because the store is away.

mod ledger;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use self::ledger::Ledger;
use crate::kv::{Entry, Event, Revision, SharedStore, StoreError, WatchStream};
use crate::record::{self, Record};

const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// How long changes gather before the ledger is written.
const LEDGER_DELAY: Duration = Duration::from_millis(500);
/// How many changes are taken at once.
const TOGETHER_MAX: usize = 1024;

/// The records by id, each with the revision it was put at.
type Records<R> = BTreeMap<String, (Revision, Arc<R>)>;

/// A copy in memory of every record of kind `R`, kept fresh by a watch. Cheap to clone; it is followed until
/// the last clone is dropped.
pub struct Mirror<R: Record> {
    content: Arc<Content<R>>,
    _follower: Arc<Follower>,
}

impl<R: Record> Clone for Mirror<R> {
    fn clone(&self) -> Self {
        Mirror { content: self.content.clone(), _follower: self._follower.clone() }
    }
}

struct Follower(AbortHandle);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Content<R> {
    records: RwLock<Records<R>>,
    changes: watch::Sender<u64>,
    synced: watch::Sender<bool>,
}

impl<R: Record> Mirror<R> {
    /// Starts to follow the store. With a `ledger` (a directory), the content that was last kept there is
    /// here at once; the store's own follows when it can be reached.
    pub async fn start(store: SharedStore, ledger: Option<&Path>) -> Mirror<R> {
        let ledger = ledger.map(Ledger::in_directory::<R>);
        let records = match &ledger {
            Some(ledger) => ledger.load::<R>().await,
            None => Records::new(),
        };
        let content = Arc::new(Content {
            records: RwLock::new(records),
            changes: watch::Sender::new(0),
            synced: watch::Sender::new(false),
        });
        let task = Follow { store, ledger, content: content.clone(), ledger_due: None };
        let follower = Arc::new(Follower(tokio::spawn(task.run()).abort_handle()));
        Mirror { content, _follower: follower }
    }

    /// The record with this id.
    pub fn get(&self, id: &str) -> Option<Arc<R>> {
        self.content.read(|records| records.get(id).map(|(_, r)| r.clone()))
    }

    /// Every record, in id order.
    pub fn all(&self) -> Vec<Arc<R>> {
        self.content.read(|records| records.values().map(|(_, r)| r.clone()).collect())
    }

    /// A counter that grows with each change, for `changed().await`.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.content.changes.subscribe()
    }

    /// Whether the content has been read from the store since the start, and is not only the ledger's.
    pub fn synced(&self) -> bool {
        *self.content.synced.borrow()
    }

    /// Waits until [`Mirror::synced`].
    pub async fn wait_synced(&self) {
        // The sender lives in `content`, so this cannot fail.
        let _ = self.content.synced.subscribe().wait_for(|synced| *synced).await;
    }
}

impl<R: Record> Content<R> {
    fn read<T>(&self, f: impl FnOnce(&Records<R>) -> T) -> T {
        f(&self.records.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the records; followers are told if `f` says that it did.
    fn write(&self, f: impl FnOnce(&mut Records<R>) -> bool) -> bool {
        let changed = f(&mut self.records.write().unwrap_or_else(PoisonError::into_inner));
        if changed {
            self.changes.send_modify(|n| *n += 1);
        }
        changed
    }
}

/// The task that follows the store.
struct Follow<R: Record> {
    store: SharedStore,
    ledger: Option<Ledger>,
    content: Arc<Content<R>>,
    ledger_due: Option<Instant>,
}

impl<R: Record> Follow<R> {
    async fn run(mut self) {
        let mut backoff = BACKOFF_MIN;
        loop {
            let started = Instant::now();
            let Err(e) = self.follow().await;
            tracing::debug!(kind = R::KIND, error = %e, "following the store anew");
            if started.elapsed() > BACKOFF_MAX {
                backoff = BACKOFF_MIN;
            }
            self.rest(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Reads everything, then follows until something fails.
    async fn follow(&mut self) -> Result<std::convert::Infallible, StoreError> {
        let prefix = record::prefix::<R>();
        let range = self.store.range(&prefix, None, usize::MAX).await?;
        self.replace(&prefix, range.entries);
        self.content.synced.send_if_modified(|synced| !std::mem::replace(synced, true));
        let mut events = self.store.watch(&prefix, range.at).await?;
        loop {
            let due = self.ledger_due;
            tokio::select! {
                event = events.next() => match event {
                    Some(event) => self.take(&prefix, &mut events, event?)?,
                    None => return Err(StoreError::Unavailable("the watch ended".into())),
                },
                () = sleep_until(due) => self.keep_ledger().await,
            }
        }
    }

    /// Waits, and meanwhile writes the ledger if it is due.
    async fn rest(&mut self, time: Duration) {
        let until = Instant::now() + time;
        if let Some(due) = self.ledger_due.filter(|due| *due < until) {
            tokio::time::sleep_until(due).await;
            self.keep_ledger().await;
        }
        tokio::time::sleep_until(until).await;
    }

    fn replace(&mut self, prefix: &str, entries: Vec<Entry>) {
        let changed = self.content.write(|records| {
            let mut fresh = Records::new();
            let mut changed = false;
            for entry in entries {
                let id = entry.key[prefix.len()..].to_owned();
                let known = records.remove(&id);
                let before = known.as_ref().map(|(at, _)| *at);
                if let Some(record) = refresh::<R>(&entry, known) {
                    changed |= before != Some(record.0);
                    fresh.insert(id, record);
                }
            }
            // What is left in the old map is gone from the store.
            let old = std::mem::replace(records, fresh);
            changed || !old.is_empty()
        });
        self.changed(changed);
    }

    /// Takes an event and all that are there with it, at once: what one transaction changed is seen together.
    fn take(&mut self, prefix: &str, events: &mut WatchStream, first: Event) -> Result<(), StoreError> {
        let (mut all, mut end) = (vec![first], Ok(()));
        while all.len() < TOGETHER_MAX
            && let Some(Some(next)) = events.next().now_or_never()
        {
            match next {
                Ok(event) => all.push(event),
                Err(e) => {
                    end = Err(e);
                    break;
                }
            }
        }
        let changed = self.content.write(|records| {
            let mut changed = false;
            for event in all {
                changed |= apply::<R>(records, prefix, event);
            }
            changed
        });
        self.changed(changed);
        end
    }

    fn changed(&mut self, changed: bool) {
        if changed && self.ledger.is_some() && self.ledger_due.is_none() {
            self.ledger_due = Some(Instant::now() + LEDGER_DELAY);
        }
    }

    async fn keep_ledger(&mut self) {
        self.ledger_due = None;
        if let Some(ledger) = &self.ledger {
            ledger.store(self.content.read(Records::clone)).await;
        }
    }
}

/// Does to the records what an event says; whether that changed them.
fn apply<R: Record>(records: &mut Records<R>, prefix: &str, event: Event) -> bool {
    let id = event.key()[prefix.len()..].to_owned();
    let Event::Put(entry) = event else { return records.remove(&id).is_some() };
    let known = records.remove(&id);
    let before = known.as_ref().map(|(at, _)| *at);
    let now = refresh::<R>(&entry, known);
    let after = now.as_ref().map(|(at, _)| *at);
    now.map(|now| records.insert(id, now));
    before != after
}

/// The record of an entry; if it cannot be read, the last that could. (The next release's agent will.)
fn refresh<R: Record>(entry: &Entry, known: Option<(Revision, Arc<R>)>) -> Option<(Revision, Arc<R>)> {
    if known.as_ref().is_some_and(|(at, _)| *at == entry.modified) {
        return known;
    }
    match record::decode::<R>(entry) {
        Ok(record) => Some((entry.modified, Arc::new(record))),
        Err(e) => {
            tracing::error!(kind = R::KIND, key = entry.key, error = %e, "a record cannot be read and is skipped");
            known
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
