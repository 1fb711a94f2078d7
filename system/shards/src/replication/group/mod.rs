//! A volume's writer at work: does what the state machine says, and serves guests with what comes of it.
//!
//! Requests come on threads that may block; answers of other nodes on tasks that may not. The state machine is behind
//! one lock, which is never held during I/O. Steps on the replica of this node are done by the thread that has them.

mod comparing;
mod connections;
mod copying;
mod media;

pub use self::copying::Rebuilt;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use cairn_state::SharedStore;
use tokio::runtime::Handle;

use self::connections::{Connected, Copier};
use super::link::{Link, Opener};
use super::op::{Failure, Op};
use super::pace::Pace;
use super::records;
use super::set::ReplicaSet;
use super::writer::{Action, Phase, Reading, RequestId, Seq, Swapped, Term, Writer};
use crate::media::{End, Media, held};
use crate::model::VolumeSpec;

/// How often the writer is told the time.
const TICK: Duration = Duration::from_millis(100);
/// How long the requests under way may take when the volume is taken from its user.
const LAST_MAX: Duration = Duration::from_secs(2);

/// After so long without the cloud's word that this node is alive, another may be about to take its volumes over.
const SILENT_MAX: Duration = Duration::from_secs(15);

/// Tells how long ago the cloud last knew this node to be alive; `None` if that is not known. It must be cheap.
#[derive(Clone, Default)]
pub struct Renewed(pub Option<Arc<dyn Fn() -> Option<Duration> + Send + Sync>>);

impl std::fmt::Debug for Renewed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Renewed(told)" } else { "Renewed(untold)" })
    }
}

impl Renewed {
    /// Whether others may take over what this node does.
    fn is_fenced(&self) -> bool {
        self.0.as_ref().and_then(|ago| ago()).is_some_and(|ago| ago > SILENT_MAX)
    }
}

/// What a group works with.
#[derive(Clone)]
pub struct Means {
    /// The node this is.
    pub node: String,
    /// This boot of it.
    pub boot: String,
    /// The store.
    pub store: SharedStore,
    /// The way to replicas.
    pub opener: Arc<dyn Opener>,
    /// This node's standing.
    pub renewed: Renewed,
    /// How fast this node rebuilds replicas.
    pub pace: Arc<Pace>,
}

/// The writer of a volume and its connections. Dropping it ends them; nothing is completed any more.
pub struct Group {
    inner: Arc<Inner>,
    ticker: tokio::task::AbortHandle,
}

struct Inner {
    means: Means,
    volume: String,
    epoch: u64,
    read_only: bool,
    runtime: Handle,
    begun: Instant,
    state: Mutex<State>,
    /// Told of completions and of each change of phase.
    news: Condvar,
    links: Mutex<HashMap<String, Connected>>,
    links_made: AtomicU64,
    copies: Mutex<HashMap<Seq, Copier>>,
    /// What replicas took so far that are not in sync yet, by node, and all that are.
    rebuilding: Mutex<HashMap<String, Rebuilt>>,
    rebuilt: Mutex<Rebuilt>,
    interrupted: AtomicBool,
    /// Nothing is done for the guest: this node may not be the one to do it.
    silenced: AtomicBool,
    full: AtomicBool,
}

struct State {
    writer: Writer,
    awaited: HashMap<RequestId, Awaited>,
}

/// Who waits for the end of a request, and since when.
struct Awaited {
    end: End,
    begun: Instant,
}

impl Group {
    /// Starts the writer of a volume as this node shall write it now; `set` is its record, as it was just read from the
    /// store. Must be called on a runtime.
    pub fn start(means: Means, set: ReplicaSet, spec: &VolumeSpec) -> Group {
        let (volume, read_only, epoch) = (spec.id.clone(), spec.read_only, spec.epoch());
        let (node, boot) = (means.node.clone(), means.boot.clone());
        let term = Term { node, boot, epoch, user_since: spec.user_since };
        let writer = Writer::new(term, spec.size, set);
        let state = State { writer, awaited: HashMap::new() };
        let inner = Arc::new(Inner {
            means,
            volume,
            epoch,
            read_only,
            runtime: Handle::current(),
            begun: Instant::now(),
            state: Mutex::new(state),
            news: Condvar::new(),
            links: Mutex::default(),
            links_made: AtomicU64::new(0),
            copies: Mutex::default(),
            rebuilding: Mutex::default(),
            rebuilt: Mutex::default(),
            interrupted: AtomicBool::new(false),
            silenced: AtomicBool::new(false),
            full: AtomicBool::new(false),
        });
        let ticker = tokio::spawn(tick(Arc::downgrade(&inner))).abort_handle();
        Group { inner, ticker }
    }

    /// The epoch it writes under.
    pub fn epoch(&self) -> u64 {
        self.inner.epoch
    }

    /// How far it is.
    pub fn phase(&self) -> Phase {
        guard(&self.inner.state).writer.phase()
    }

    /// The record of its replicas, as it knows it.
    pub fn set(&self) -> ReplicaSet {
        guard(&self.inner.state).writer.set().clone()
    }

    /// Regions that replicas lack, in all.
    pub fn behind(&self) -> u64 {
        guard(&self.inner.state).writer.behind()
    }

    /// Whether all replicas are whole and nothing is under way.
    pub fn is_settled(&self) -> bool {
        guard(&self.inner.state).writer.is_settled()
    }

    /// The record may have changed: reads it anew.
    pub async fn look(&self) {
        self.inner.look().await;
    }

    /// Makes the volume grow on all replicas. Blocks.
    pub fn grow(&self, size: u64) -> io::Result<()> {
        if size <= self.size() { Ok(()) } else { self.inner.request(Op::Grow(size)) }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.ticker.abort();
        self.inner.interrupted.store(true, SeqCst);
        self.inner.handle(false, Writer::fence);
    }
}

async fn tick(group: Weak<Inner>) {
    let mut interval = tokio::time::interval(TICK);
    loop {
        interval.tick().await;
        let Some(group) = group.upgrade() else { return };
        group.heed_standing().await;
        let now = group.begun.elapsed();
        group.handle(false, |writer| writer.tick(now));
        group.give_up();
        group.pace();
    }
}

impl Inner {
    /// Tells the writer of something, and does what it says. `inline`: this thread may do I/O.
    fn handle(self: &Arc<Inner>, inline: bool, event: impl FnOnce(&mut Writer) -> Vec<Action>) {
        let actions = event(&mut guard(&self.state).writer);
        self.perform(inline, actions);
    }

    /// Reads the record; false if the store cannot be reached.
    async fn look(self: &Arc<Inner>) -> bool {
        let version = guard(&self.state).writer.version();
        let Ok(found) = records::read(&self.means.store, &self.volume).await else { return false };
        self.handle(false, |writer| match found {
            Some(set) => writer.seen(set, version),
            None => writer.fence(),
        });
        true
    }

    /// Stops while this node is not heard of, and goes on only when it is known that nobody has taken over.
    async fn heed_standing(self: &Arc<Inner>) {
        let fenced = self.means.renewed.is_fenced();
        let before = self.silenced.load(SeqCst);
        if fenced != before && (fenced || self.look().await) {
            tracing::warn!(volume = self.volume, held = fenced, "this node's standing has changed");
            self.silenced.store(fenced, SeqCst);
        }
    }

    fn perform(self: &Arc<Inner>, inline: bool, actions: Vec<Action>) {
        let mut queue: VecDeque<Action> = actions.into();
        // What others do while this node's disk is at work is asked of them first.
        let mut own = VecDeque::new();
        loop {
            match queue.pop_front() {
                Some(Action::Send { node, seq, op }) => match self.link(&node) {
                    Some(link) if link.local().is_some() => own.push_back((node, seq, op, link)),
                    Some(link) => link.send(seq, op),
                    None => {}
                },
                Some(Action::Complete { request, result }) => self.complete(request, result),
                other => {
                    // In order with what is done to connections.
                    while let Some((node, seq, op, link)) = own.pop_front() {
                        // The disks of this node flush at the same time.
                        let here = inline && (own.is_empty() || op != Op::Flush);
                        self.send_own(here, node, seq, op, &link)
                            .into_iter()
                            .rev()
                            .for_each(|a| queue.push_front(a));
                    }
                    match other {
                        Some(action) => self.perform_other(action),
                        None if queue.is_empty() => break,
                        None => {}
                    }
                }
            }
        }
        self.news.notify_all();
    }

    fn perform_other(self: &Arc<Inner>, action: Action) {
        match action {
            Action::Open(node) => self.in_background(move |this| this.open(node)),
            Action::Close(node) => self.close(&node),
            Action::Copy { from, to, region, seq, witnesses } => {
                self.in_background(move |this| this.make_alike(&from, &to, region, seq, &witnesses));
            }
            Action::Swap { expect, new } => self.swap(expect, new),
            Action::Send { .. } | Action::Complete { .. } => {}
        }
    }

    fn in_background(self: &Arc<Inner>, f: impl FnOnce(&Arc<Inner>) + Send + 'static) {
        let this = self.clone();
        drop(self.runtime.spawn_blocking(move || f(&this)));
    }

    /// Does a step on the replica of this node.
    fn send_own(
        self: &Arc<Inner>,
        inline: bool,
        node: String,
        seq: Seq,
        op: Op,
        link: &Arc<dyn Link>,
    ) -> Vec<Action> {
        if !inline {
            let link = link.clone();
            self.in_background(move |this| {
                let actions = this.send_own(true, node, seq, op, &link);
                this.perform(true, actions);
            });
            return Vec::new();
        }
        let Some(local) = link.local() else { return Vec::new() };
        let result = local.apply(seq, &op);
        guard(&self.state).writer.done(&node, seq, result)
    }

    fn complete(&self, request: RequestId, result: Result<(), Failure>) {
        self.full.store(result == Err(Failure::Full), SeqCst);
        let awaited = guard(&self.state).awaited.remove(&request);
        if let Some(Awaited { end, begun }) = awaited {
            self.means.pace.served(begun.elapsed());
            end(result.map_err(|e| error(&e)));
        }
    }

    fn swap(self: &Arc<Inner>, expect: ReplicaSet, new: ReplicaSet) {
        let this = self.clone();
        drop(self.runtime.spawn(async move {
            let swapped = records::swap(&this.means.store, &expect, &new).await;
            tracing::info!(volume = this.volume, ?swapped, in_sync = ?new.in_sync().collect::<Vec<_>>(), "replicas");
            if swapped == Swapped::Done {
                this.note_rebuilt(new.in_sync().filter(|n| !expect.is_in_sync(n)).map(str::to_owned));
            }
            this.handle(false, |writer| writer.swapped(swapped));
        }));
    }

    /// Whether anything may be done for the guest.
    fn is_heard(&self) -> bool {
        !self.silenced.load(SeqCst)
    }

    /// Waits while nothing may be done for the guest.
    fn wait_heard(&self) -> io::Result<()> {
        while !self.is_heard() {
            if self.interrupted.load(SeqCst) {
                return Err(held("the cloud does not hear this node"));
            }
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    /// Does a request and waits for its end.
    fn request(self: &Arc<Inner>, op: Op) -> io::Result<()> {
        self.ask(|writer| writer.request(op))
    }

    fn ask(
        self: &Arc<Inner>,
        request: impl FnOnce(&mut Writer) -> (RequestId, Vec<Action>),
    ) -> io::Result<()> {
        self.wait_heard()?;
        let (tell, told) = channel();
        self.begin(true, request, Box::new(move |result| drop(tell.send(result))));
        told.recv().unwrap_or_else(|_| Err(held("the volume's writer has ended")))
    }

    /// Takes a request on, whose end is told. `inline`: this thread may do I/O.
    fn begin(
        self: &Arc<Inner>,
        inline: bool,
        request: impl FnOnce(&mut Writer) -> (RequestId, Vec<Action>),
        end: End,
    ) {
        let actions = {
            let mut state = guard(&self.state);
            let (id, actions) = request(&mut state.writer);
            state.awaited.insert(id, Awaited { end, begun: Instant::now() });
            actions
        };
        self.perform(inline, actions);
    }

    /// When the volume is taken from its user, what does not end soon is not waited for.
    fn give_up(&self) {
        if !self.interrupted.load(SeqCst) {
            return;
        }
        let mut state = guard(&self.state);
        let serves = state.writer.phase() == Phase::Serving;
        let late = |_: &RequestId, a: &mut Awaited| !serves || a.begun.elapsed() >= LAST_MAX;
        let given_up: Vec<Awaited> = state.awaited.extract_if(late).map(|(_, awaited)| awaited).collect();
        drop(state);
        for awaited in given_up {
            (awaited.end)(Err(held("the volume is taken from its user")));
        }
    }

    /// The connection to read this range from, if there is one now.
    fn reader_now(&self, range: &Range<u64>) -> Option<Arc<dyn Link>> {
        if !self.is_heard() {
            return None;
        }
        let state = guard(&self.state);
        match state.writer.read_from(range) {
            Reading::From(node) if range.end <= state.writer.size() => self.link(node),
            _ => None,
        }
    }

    /// The connection to read this range from; waits until there is one.
    fn reader(&self, range: &Range<u64>) -> io::Result<(String, Arc<dyn Link>)> {
        let mut state = guard(&self.state);
        loop {
            let node = match state.writer.read_from(range) {
                Reading::From(node) => Some(node.to_owned()),
                Reading::Nowhere => None,
                Reading::Lost => {
                    return Err(io::Error::other("what was written there was lost with its nodes' power"));
                }
            };
            if let Some(found) = node.and_then(|node| self.link(&node).map(|link| (node, link))) {
                return Ok(found);
            }
            if self.interrupted.load(SeqCst) || state.writer.phase() == Phase::Fenced {
                return Err(held("no replica in sync can be reached"));
            }
            state = self.news.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn writable(&self) -> io::Result<()> {
        if self.read_only { Err(io::ErrorKind::ReadOnlyFilesystem.into()) } else { Ok(()) }
    }

    fn check(&self, offset: u64, len: u64) -> io::Result<()> {
        let size = guard(&self.state).writer.size();
        match offset.checked_add(len).is_some_and(|end| end <= size) {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "beyond the end of the volume")),
        }
    }
}

fn error(failure: &Failure) -> io::Error {
    match failure {
        Failure::Fenced => held("another writer has the volume"),
        Failure::Full => io::Error::from_raw_os_error(libc::ENOSPC),
        Failure::Broken(why) | Failure::Corrupt(why) => io::Error::other(why.clone()),
    }
}

// The state machine is whole between events, and no event panics.
fn guard<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
