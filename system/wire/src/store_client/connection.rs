//! One connection to the controller: calls in flight by id, watches with credit, and a heartbeat.
//!
//! When it dies, for whatever reason, every call in flight and every watch ends with `Unavailable` at once.
//! A controller that hangs counts as dead: it is pinged when it has been silent.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cairn_state::kv::{Event, StoreError, WatchStream};
use futures_util::{SinkExt, StreamExt, stream};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::unexpected;
use crate::protocol::{
    self, Answer, Call, Hello, Request, Response, Sink, Source, VERSIONS, WATCH_CREDIT, Welcome,
};

const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// After this silence the server is pinged.
const PING_AFTER: Duration = Duration::from_secs(5);
/// After so many unanswered pings it counts as dead.
const PINGS_MAX: u32 = 3;
/// The id of pings; calls begin at 1.
const PING_ID: u64 = 0;

/// Who waits for the answers to which call.
type Waiters = HashMap<u64, mpsc::UnboundedSender<Response>>;

/// Who waits for answers; `None` once the connection is dead.
#[derive(Clone)]
struct Waiting(Arc<Mutex<Option<Waiters>>>);

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Option<Waiters>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands an answer to who waits for it. The queue has no limit of its own: a range is wanted whole, a
    /// watch is limited by its credit, and all else has one answer.
    fn deliver(&self, Answer { id, response }: Answer) {
        let last = !matches!(response, Response::RangePart(_) | Response::Watching | Response::Events(_));
        let mut waiting = self.lock();
        let Some(waiting) = waiting.as_mut() else { return };
        if let Some(waiter) = waiting.get(&id) {
            // Who no longer waits needs no answer.
            let _ = waiter.send(response);
        }
        if last {
            waiting.remove(&id);
        }
    }
}

/// A connection.
pub(super) struct Connection {
    frames: mpsc::UnboundedSender<Bytes>,
    waiting: Waiting,
    next_id: AtomicU64,
}

impl Connection {
    /// Connects and shakes hands. The connection lives until it breaks or nobody holds it.
    pub(super) async fn open(path: &Path) -> Result<Arc<Connection>, StoreError> {
        let unreachable = |e: std::io::Error| StoreError::Unavailable(format!("{}: {e}", path.display()));
        let stream = UnixStream::connect(path).await.map_err(unreachable)?;
        let (mut source, mut sink) = protocol::frames(stream);
        tokio::time::timeout(HELLO_TIMEOUT, greet(&mut source, &mut sink))
            .await
            .map_err(|_| StoreError::Unavailable(format!("{}: no welcome", path.display())))??;
        let (frames, queue) = mpsc::unbounded_channel();
        let waiting = Waiting(Arc::new(Mutex::new(Some(HashMap::new()))));
        let (pings, deliver) = (frames.downgrade(), waiting.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = write(queue, sink) => {}
                () = read(source, &deliver, pings) => {}
            }
            *deliver.lock() = None;
        });
        Ok(Arc::new(Connection { frames, waiting, next_id: AtomicU64::new(PING_ID + 1) }))
    }

    pub(super) fn alive(&self) -> bool {
        self.waiting.lock().is_some()
    }

    /// Sends a call; the answers come one by one.
    pub(super) fn start(self: &Arc<Self>, request: Request) -> Result<Answers, StoreError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let frame = protocol::encode(&Call { id, request })?;
        let (waiter, answers) = mpsc::unbounded_channel();
        self.waiting.lock().as_mut().ok_or_else(lost)?.insert(id, waiter);
        self.frames.send(frame).map_err(|_| lost())?;
        Ok(Answers { id, answers, connection: self.clone() })
    }

    /// A call with one answer.
    pub(super) async fn call(self: &Arc<Self>, request: Request) -> Result<Response, StoreError> {
        self.start(request)?.next().await
    }

    /// A watch, once the server has accepted it.
    pub(super) async fn watch(self: &Arc<Self>, request: Request) -> Result<WatchStream, StoreError> {
        // From here on it is cancelled when it is dropped, even before it is accepted.
        let mut watch = Watch { answers: self.start(request)?, ready: VecDeque::new(), taken: 0 };
        match watch.answers.next().await? {
            Response::Watching => {}
            other => return Err(unexpected(&other)),
        }
        watch.give_credit(WATCH_CREDIT);
        // `None` as the state ends the stream: nothing follows an error.
        Ok(Box::pin(stream::unfold(Some(watch), |watch| async {
            let mut watch = watch?;
            match watch.event().await {
                Ok(event) => Some((Ok(event), Some(watch))),
                Err(e) => Some((Err(e), None)),
            }
        })))
    }
}

fn lost() -> StoreError {
    StoreError::Unavailable("the connection was lost".into())
}

/// The answers to one call.
pub(super) struct Answers {
    id: u64,
    answers: mpsc::UnboundedReceiver<Response>,
    connection: Arc<Connection>,
}

impl Answers {
    pub(super) async fn next(&mut self) -> Result<Response, StoreError> {
        match self.answers.recv().await {
            Some(Response::Failed(e)) => Err(e),
            Some(response) => Ok(response),
            None => Err(lost()),
        }
    }

    fn say(&self, request: Request) {
        if let Ok(frame) = protocol::encode(&Call { id: self.id, request }) {
            // If the connection is dead, the next answer says so.
            let _ = self.connection.frames.send(frame);
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        if let Some(waiting) = self.connection.waiting.lock().as_mut() {
            waiting.remove(&self.id);
        }
    }
}

/// A watch in progress.
struct Watch {
    answers: Answers,
    ready: VecDeque<Event>,
    /// Events handed on for which no credit was given back yet.
    taken: u32,
}

impl Watch {
    fn give_credit(&self, n: u32) {
        self.answers.say(Request::Credit(n));
    }

    async fn event(&mut self) -> Result<Event, StoreError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.taken += 1;
                if self.taken >= WATCH_CREDIT / 2 {
                    self.give_credit(self.taken);
                    self.taken = 0;
                }
                return Ok(event);
            }
            match self.answers.next().await? {
                Response::Events(events) => self.ready.extend(events),
                other => return Err(unexpected(&other)),
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.answers.say(Request::Cancel);
    }
}

async fn greet(source: &mut Source, sink: &mut Sink) -> Result<(), StoreError> {
    let broken = |e: std::io::Error| StoreError::Unavailable(e.to_string());
    sink.send(protocol::encode(&Hello { versions: VERSIONS.to_vec() })?).await.map_err(broken)?;
    let frame = source.next().await.ok_or_else(lost)?.map_err(broken)?;
    match protocol::decode(&frame)? {
        Welcome::Version(_) => Ok(()),
        Welcome::Refused(why) => Err(StoreError::Unavailable(format!("the controller refused us: {why}"))),
    }
}

async fn write(mut queue: mpsc::UnboundedReceiver<Bytes>, mut sink: Sink) {
    while let Some(frame) = queue.recv().await {
        let sent = if queue.is_empty() { sink.send(frame).await } else { sink.feed(frame).await };
        if sent.is_err() {
            return;
        }
    }
}

async fn read(mut source: Source, waiting: &Waiting, pings: mpsc::WeakUnboundedSender<Bytes>) {
    let mut unanswered = 0;
    loop {
        match tokio::time::timeout(PING_AFTER, source.next()).await {
            Ok(Some(Ok(frame))) => match protocol::decode(&frame) {
                Ok(answer) => {
                    unanswered = 0;
                    waiting.deliver(answer);
                }
                Err(e) => return tracing::warn!(error = %e, "the controller is not understood"),
            },
            Ok(Some(Err(e))) => return tracing::warn!(error = %e, "the controller's socket failed"),
            Ok(None) => return,
            Err(_) if unanswered == PINGS_MAX => {
                return tracing::warn!("the controller does not answer");
            }
            Err(_) => {
                unanswered += 1;
                let Some(pings) = pings.upgrade() else { return };
                let Ok(ping) = protocol::encode(&Call { id: PING_ID, request: Request::Ping }) else {
                    return;
                };
                let _ = pings.send(ping);
            }
        }
    }
}
