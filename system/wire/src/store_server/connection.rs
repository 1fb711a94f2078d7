//! One connection of the store's server: its calls, many at a time, and its watches.
//!
//! Every call is a task; what they answer goes through one bounded queue to the socket, so that a peer that
//! does not read stops its own calls and nobody else's.

use std::collections::HashMap;
use std::sync::Arc;

use cairn_state::kv::{Event, LeaseId, Op, Range, Revision, Store, StoreError, Txn};
use cairn_state::{LocalStore, WatchStream};
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};

use super::Role;
use crate::protocol::{
    self, Answer, CHUNK_BYTES, Call, Request, Response, Sink, Source, WATCH_CREDIT, entry_bytes, event_bytes,
};

/// How many calls of one peer are done at a time; more wait in its socket.
const CALLS_MAX: usize = 256;
/// How many watches one peer may have.
const WATCHES_MAX: usize = 1024;
/// How many answers may wait for the socket.
const ANSWERS_MAX: usize = 16;

struct Watch {
    credit: Arc<Semaphore>,
    task: AbortHandle,
}

/// A connection whose peer is known.
pub(super) struct Connection {
    store: LocalStore,
    role: Arc<Role>,
    calls: Arc<Semaphore>,
    watches: HashMap<u64, Watch>,
    /// Each task gives the id of its call.
    tasks: JoinSet<u64>,
}

impl Connection {
    pub(super) fn new(store: LocalStore, role: Role) -> Connection {
        let calls = Arc::new(Semaphore::new(CALLS_MAX));
        Connection { store, role: Arc::new(role), calls, watches: HashMap::new(), tasks: JoinSet::new() }
    }

    /// Serves until the peer is gone, then stops what it had begun. (A transaction that is with the writer
    /// is done nevertheless.)
    pub(super) async fn run(mut self, mut source: Source, sink: Sink) {
        let (answers, queue) = mpsc::channel(ANSWERS_MAX);
        // A set, so that it stops with us.
        let mut writer = JoinSet::from_iter([write(queue, sink)]);
        loop {
            tokio::select! {
                Some(Ok(id)) = self.tasks.join_next() => drop(self.watches.remove(&id)),
                _ = writer.join_next() => return,
                frame = source.next() => {
                    let Some(Ok(frame)) = frame else { break };
                    match protocol::decode(&frame) {
                        Ok(call) => self.start(call, &answers).await,
                        Err(e) => {
                            tracing::warn!(role = self.role.name, error = %e, "a peer of the store is cut off");
                            break;
                        }
                    }
                }
            }
        }
    }

    async fn start(&mut self, call: Call, answers: &mpsc::Sender<Answer>) {
        let id = call.id;
        match call.request {
            Request::Credit(n) => self.credit(id, n),
            Request::Cancel => {
                if let Some(watch) = self.watches.remove(&id) {
                    watch.task.abort();
                }
            }
            Request::Watch { prefix, after } => self.watch(id, prefix, after, answers.clone()),
            request => {
                // Waiting here leaves further calls in the socket; those begun end without us.
                let Ok(place) = self.calls.clone().acquire_owned().await else { return };
                let (store, role, answers) = (self.store.clone(), self.role.clone(), answers.clone());
                self.tasks.spawn(async move {
                    let _place = place;
                    let response = answer(&store, &role, request, id, &answers).await;
                    let response = response.unwrap_or_else(Response::Failed);
                    let _ = answers.send(Answer { id, response }).await;
                    id
                });
            }
        }
    }

    fn credit(&self, id: u64, n: u32) {
        // A watch that has ended meanwhile needs none, and no honest peer gives more than the window.
        if let Some(watch) = self.watches.get(&id)
            && watch.credit.available_permits() <= WATCH_CREDIT as usize
        {
            watch.credit.add_permits(n.min(WATCH_CREDIT) as usize);
        }
    }

    fn watch(&mut self, id: u64, prefix: String, after: Revision, answers: mpsc::Sender<Answer>) {
        let full = self.watches.len() >= WATCHES_MAX;
        let credit = Arc::new(Semaphore::new(0));
        let (store, role, window) = (self.store.clone(), self.role.clone(), credit.clone());
        let task = self.tasks.spawn(async move {
            let watching = match role.permit_read(&prefix) {
                Ok(()) => store.watch(&prefix, after).await,
                Err(e) => Err(e),
            };
            let end = match watching {
                _ if full => StoreError::TooLarge(format!("more than {WATCHES_MAX} watches")),
                Ok(events) => follow(events, id, &window, &answers).await,
                Err(e) => e,
            };
            let _ = answers.send(Answer { id, response: Response::Failed(end) }).await;
            id
        });
        self.watches.insert(id, Watch { credit, task });
    }
}

async fn write(mut queue: mpsc::Receiver<Answer>, mut sink: Sink) {
    while let Some(answer) = queue.recv().await {
        let Ok(frame) = protocol::encode(&answer) else { return };
        // Flushed once nothing more waits: many answers, one system call.
        let sent = if queue.is_empty() { sink.send(frame).await } else { sink.feed(frame).await };
        if sent.is_err() {
            return;
        }
    }
}

async fn answer(
    store: &LocalStore,
    role: &Role,
    request: Request,
    id: u64,
    answers: &mpsc::Sender<Answer>,
) -> Result<Response, StoreError> {
    Ok(match request {
        Request::Get { key } => {
            role.permit_read(&key)?;
            Response::Entry(store.get(&key).await?)
        }
        Request::Range { prefix, after, limit } => {
            role.permit_read(&prefix)?;
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let range = store.range(&prefix, after.as_deref(), limit).await?;
            send_parts(range, id, answers).await
        }
        Request::Txn(txn) => {
            permit_txn(role, &txn)?;
            Response::Txn(store.txn(txn).await?)
        }
        Request::LeaseGrant { ttl_ms } => Response::Lease(store.lease_grant(ttl_ms).await?),
        Request::LeaseKeepAlive(lease) => {
            store.lease_keep_alive(lease).await?;
            Response::Done
        }
        Request::LeaseRevoke(lease) => {
            permit_revoke(store, role, lease)?;
            store.lease_revoke(lease).await?;
            Response::Done
        }
        Request::Ping | Request::Watch { .. } | Request::Credit(_) | Request::Cancel => Response::Done,
    })
}

fn permit_txn(role: &Role, txn: &Txn) -> Result<(), StoreError> {
    for op in &txn.ops {
        if !role.permits(op, &txn.compares) {
            let (Op::Put { key, .. } | Op::Delete { key }) = op;
            return Err(role.forbidden(key));
        }
    }
    Ok(())
}

/// To end a lease removes its keys, so all of them must be the role's own.
fn permit_revoke(store: &LocalStore, role: &Role, lease: LeaseId) -> Result<(), StoreError> {
    match store.snapshot()?.lease_keys(lease)?.iter().find(|key| !role.may_write(key)) {
        Some(key) => Err(role.forbidden(key)),
        None => Ok(()),
    }
}

/// Sends all of a range but its end, in frames of bearable size.
async fn send_parts(range: Range, id: u64, answers: &mpsc::Sender<Answer>) -> Response {
    let Range { entries, at, more } = range;
    let mut entries = entries.into_iter().peekable();
    while entries.peek().is_some() {
        let mut bytes = 0;
        let part = std::iter::from_fn(|| {
            let entry = entries.next_if(|_| bytes < CHUNK_BYTES)?;
            bytes += entry_bytes(&entry);
            Some(entry)
        });
        let response = Response::RangePart(part.collect());
        if answers.send(Answer { id, response }).await.is_err() {
            break;
        }
    }
    Response::RangeEnd { at, more }
}

/// Sends the events of a watch as credit allows, until it ends; gives why it did.
async fn follow(
    mut events: WatchStream,
    id: u64,
    credit: &Semaphore,
    answers: &mpsc::Sender<Answer>,
) -> StoreError {
    let ended = || StoreError::Unavailable("the watch ended".into());
    let mut response = Response::Watching;
    loop {
        if answers.send(Answer { id, response }).await.is_err() {
            return ended();
        }
        let Ok(permit) = credit.acquire().await else { return ended() };
        permit.forget();
        let first = match events.next().await {
            Some(Ok(event)) => event,
            Some(Err(e)) => return e,
            None => return ended(),
        };
        let (batch, end) = gather(first, &mut events, credit);
        response = Response::Events(batch);
        if let Some(end) = end {
            let _ = answers.send(Answer { id, response }).await;
            return end;
        }
    }
}

/// This event and those behind it that are here already, and why the watch ended if it did meanwhile.
fn gather(first: Event, events: &mut WatchStream, credit: &Semaphore) -> (Vec<Event>, Option<StoreError>) {
    let mut bytes = event_bytes(&first);
    let mut batch = vec![first];
    while bytes < CHUNK_BYTES {
        let Ok(permit) = credit.try_acquire() else { break };
        match events.next().now_or_never() {
            Some(Some(Ok(event))) => {
                permit.forget();
                bytes += event_bytes(&event);
                batch.push(event);
            }
            Some(Some(Err(e))) => return (batch, Some(e)),
            Some(None) | None => break,
        }
    }
    (batch, None)
}
