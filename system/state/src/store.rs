//! The store as this node has it: a replica of the cloud's state in files of its own, and the whole of it to
//! whoever reads and writes here.
//!
//! Writes go through the group's leader, wherever it is; reads are of this replica. It owns the threads: one that
//! writes the log, one that writes the state, one for all that the group does, so that none waits for what else this
//! process is busy with.

use std::path::Path;
use std::sync::{Arc, Weak, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use redb::Database;
use tokio::sync::{Semaphore, oneshot, watch};

use crate::engine::disk::{self, gone};
use crate::engine::file::StateFile;
use crate::engine::{self, Clock, Command, Core, Limits, Reply, Snapshot};
use crate::kv::{Entry, LeaseId, Range, Revision, Store, StoreError, Txn, TxnOutcome, WatchStream};
use crate::media::{self, Media};
use crate::raft::{
    self, Birth, Caller, Change, Group, Member, Network, Nobody, NodeId, Replica, Runtime, Status, Timing,
    Tokio,
};
use crate::wal::{self, Log};

/// How many requests may wait for an answer; more wait for a place.
const PLACES: usize = 4096;

/// How a store is opened.
pub struct Options {
    /// Its sizes.
    pub limits: Limits,
    /// The group's times.
    pub timing: Timing,
    /// How the other replicas are reached.
    pub network: Arc<dyn Network>,
    birth: Birth,
    node: Option<NodeId>,
}

impl Options {
    /// A new file becomes the first voter of a group of its own.
    pub fn found(member: Member) -> Options {
        Options::new(Birth::Founds(member))
    }

    /// A new file waits for a group to take it in.
    pub fn join() -> Options {
        Options::new(Birth::Waits)
    }

    /// A new file waits for a group to take it in as its witness: it votes, and keeps of the log what it cannot read.
    pub fn witness() -> Options {
        Options::new(Birth::WaitsAsWitness)
    }

    /// Whether a new file becomes a witness's.
    pub fn is_witness(&self) -> bool {
        matches!(self.birth, Birth::WaitsAsWitness)
    }

    fn new(birth: Birth) -> Options {
        Options {
            limits: Limits::default(),
            timing: Timing::default(),
            network: Arc::new(Nobody),
            birth,
            node: None,
        }
    }

    /// With this network.
    pub fn network(mut self, network: Arc<dyn Network>) -> Options {
        self.network = network;
        self
    }

    /// With these times.
    pub fn timing(mut self, timing: Timing) -> Options {
        self.timing = timing;
        self
    }

    /// With this number for a new file, for simulations: they must be able to do the same again.
    pub fn node(mut self, node: NodeId) -> Options {
        self.node = Some(node);
        self
    }

    /// With these sizes.
    pub fn limits(mut self, limits: Limits) -> Options {
        self.limits = limits;
        self
    }
}

/// The store of this node. Cheap to clone; the file is closed when the last clone is dropped.
#[derive(Clone)]
pub struct LocalStore {
    inner: Arc<Inner>,
}

struct Inner {
    /// `None` only while being dropped, as `core`.
    replica: Option<Arc<dyn Replica>>,
    core: Option<Arc<Core>>,
    places: Semaphore,
    failure: watch::Receiver<Option<StoreError>>,
    /// Held by a transaction that has lost to others too often, see [`LocalStore::transact`].
    last_in_line: tokio::sync::Mutex<()>,
    /// Ends the group's thread.
    stop: Option<oneshot::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop = None;
        // The group's thread is the first, and ends by itself; the writer's ends when nobody can ask it any more.
        let mut threads = std::mem::take(&mut self.threads).into_iter();
        let group = threads.next();
        let join = |thread: JoinHandle<()>| {
            if thread.join().is_err() {
                tracing::error!("a thread of the store had panicked");
            }
        };
        group.into_iter().for_each(join);
        self.replica = None;
        self.core = None;
        threads.for_each(join);
    }
}

impl LocalStore {
    /// Opens (or creates) the store in this file, as a group of its own. Only one process can have it open. A crash
    /// before this has returned for the first time leaves no file.
    pub fn open(path: &Path) -> Result<LocalStore, StoreError> {
        LocalStore::open_with(path, Options::found(Member::default()))
    }

    /// Opens (or creates) the store in this file. Its log is in two files beside, which belong to it.
    pub fn open_with(path: &Path, options: Options) -> Result<LocalStore, StoreError> {
        if !path.exists() {
            let found = |db: &Database| raft::found(db, &options.birth, options.node).map(drop);
            media::create(path, options.limits.cache_bytes, found)?;
        }
        LocalStore::on(Media::at(path), options)
    }

    /// A store in memory, for tests.
    pub fn in_memory() -> Result<LocalStore, StoreError> {
        LocalStore::with_media(Media::in_memory(), Limits::default())
    }

    /// A store on anything that can hold bytes, for tests that break it or need small limits.
    pub fn with_media(media: Media, limits: Limits) -> Result<LocalStore, StoreError> {
        LocalStore::on(media, Options::found(Member::default()).limits(limits))
    }

    /// A store on anything that can hold bytes.
    pub fn on(media: Media, options: Options) -> Result<LocalStore, StoreError> {
        let started = tokio::time::Instant::now();
        let parts = Parts::open(media, &options, Box::new(move || started.elapsed()))?;
        let Parts { core, node, failure, state, log } = parts;
        let log = thread("store-log", || log.run())?;
        let disk = thread("store-disk", || state.run())?;
        let (told, replica) = mpsc::sync_channel(1);
        let (stop, stopped) = oneshot::channel();
        let theirs = core.clone();
        let failures = failure.clone();
        let group = thread("store-group", move || run_group(theirs, node, options, failures, told, stopped))?;
        let replica = replica.recv().unwrap_or_else(|_| Err(gone()));
        let (error, replica) = match replica {
            Ok(replica) => (None, Some(replica)),
            Err(e) => (Some(e), None),
        };
        let store = LocalStore::new(replica, core, failure, Some(stop), vec![group, log, disk]);
        error.map_or(Ok(store), Err)
    }

    /// Starts a replica on another runtime, in tasks of the caller's: for simulations. Each write of the files takes
    /// as long as `pace` says.
    pub async fn simulate<K: Runtime>(
        media: Media,
        options: Options,
        clock: Box<dyn Fn() -> Duration + Send + Sync>,
        pace: impl FnMut() -> Duration + Clone + Send + 'static,
    ) -> Result<LocalStore, StoreError> {
        use openraft::AsyncRuntime;
        let Parts { core, node, failure, state, log } = Parts::open(media, &options, clock)?;
        drop(K::Async::spawn(log.run_paced(pace.clone())));
        drop(K::Async::spawn(state.run_paced(pace)));
        let (network, timing) = (options.network, options.timing);
        let group = Group::<K>::start(core.clone(), node, network, timing, failure.clone(), None).await?;
        Ok(LocalStore::new(Some(group), core, failure, None, Vec::new()))
    }

    fn new(
        replica: Option<Arc<dyn Replica>>,
        core: Arc<Core>,
        failure: watch::Receiver<Option<StoreError>>,
        stop: Option<oneshot::Sender<()>>,
        threads: Vec<JoinHandle<()>>,
    ) -> LocalStore {
        let (core, places, last_in_line) =
            (Some(core), Semaphore::new(PLACES), tokio::sync::Mutex::default());
        LocalStore { inner: Arc::new(Inner { replica, core, places, failure, last_in_line, stop, threads }) }
    }

    fn core(&self) -> Result<&Arc<Core>, StoreError> {
        self.inner.core.as_ref().ok_or_else(gone)
    }

    fn replica(&self) -> Result<Arc<dyn Replica>, StoreError> {
        self.inner.replica.clone().ok_or_else(gone)
    }

    /// A view of what this replica has applied: all that was written through this store, and what others wrote up
    /// to a moment ago. After [`LocalStore::catch_up`], all that was acknowledged anywhere.
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        self.core()?.snapshot()
    }

    /// Waits until all that was acknowledged anywhere before this call is to be seen here. Reads after it are
    /// linearizable. In a group of one it costs nothing.
    pub async fn catch_up(&self) -> Result<(), StoreError> {
        self.replica()?.catch_up().await
    }

    /// Commits a transaction through the group. Once called it may be done even if the future is dropped.
    pub async fn commit(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        engine::check(&txn)?;
        match self.ask(Command::Txn(txn)).await? {
            Reply::Txn(outcome) => Ok(outcome),
            other => Err(misfit(other)),
        }
    }

    /// Waits until the store's disk has failed. Nothing can be written from then on: the process must end and
    /// be started anew, so that the file is opened and repaired.
    pub async fn failed(&self) -> StoreError {
        let mut failure = self.inner.failure.clone();
        match failure.wait_for(Option::is_some).await {
            Ok(found) => found.clone().unwrap_or_else(gone),
            Err(_) => gone(),
        }
    }

    /// Goes on without the group's majority: the replica in this file, which nobody has open, becomes the only member
    /// of the group's next generation, `generation`, with all that its log has. Others of the last one are refused from
    /// then on ([`LocalStore::left_behind`]). What only they had acknowledged is lost. A file that is of that
    /// generation already is left as it is.
    pub fn recover(path: &Path, member: Member, generation: u64) -> Result<(), StoreError> {
        let (db, log, _) = Parts::files(Media::at(path), Limits::default(), raft::number)?;
        raft::recover(&db, &log, member, generation)
    }

    /// Waits until this replica hears that its group was gone on with without it: what it holds is of the past, and it
    /// does nothing more.
    pub async fn left_behind(&self) {
        match self.core() {
            Ok(core) => core.standing.left_behind().await,
            Err(_) => std::future::pending().await,
        }
    }

    /// How the group looks from here.
    pub fn status(&self) -> Result<Status, StoreError> {
        Ok(self.replica()?.status())
    }

    /// Takes a replica into the group as a learner, or tells the group where it is now.
    pub async fn admit(&self, node: NodeId, member: Member) -> Result<(), StoreError> {
        self.replica()?.change(Change::Admit(node, member)).await
    }

    /// Makes these the group's voters. Each must be a member, and should be up to date; who is no longer named
    /// stays as a learner.
    pub async fn set_voters(&self, voters: impl IntoIterator<Item = NodeId>) -> Result<(), StoreError> {
        self.replica()?.change(Change::Voters(voters.into_iter().collect())).await
    }

    /// Lets a learner go.
    pub async fn dismiss(&self, node: NodeId) -> Result<(), StoreError> {
        self.replica()?.change(Change::Remove(node)).await
    }

    /// Asks the leader to hand over to this voter.
    pub async fn hand_over(&self, to: NodeId) -> Result<(), StoreError> {
        self.replica()?.change(Change::Lead(to)).await
    }

    /// With what is sealed that a witness is given, and opened when it gives it back: the same key on every member,
    /// and for the life of the witness. Without it nothing is sent to a witness.
    pub fn seal_with(&self, key: &[u8; 32]) -> Result<(), StoreError> {
        self.core()?.seal.set(key);
        Ok(())
    }

    /// Where the requests of other replicas are answered. It does not keep the store open.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint(Arc::downgrade(&self.inner))
    }

    /// Waits until no other transaction that has lost too often is being tried.
    pub(crate) async fn stand_in_line(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.inner.last_in_line.lock().await
    }

    async fn ask(&self, command: Command) -> Result<Reply, StoreError> {
        let _place = self.inner.places.acquire().await.map_err(|_| gone())?;
        match self.replica()?.propose(command).await? {
            Reply::Refused(e) => Err(e),
            reply => Ok(reply),
        }
    }
}

/// Answers the requests of other replicas.
#[derive(Clone)]
pub struct Endpoint(Weak<Inner>);

impl Endpoint {
    /// Answers a request, which the other's [`Network`] has carried here. `None` if the store is closed.
    pub async fn serve(&self, request: Bytes) -> Option<Bytes> {
        self.answer(request, Caller::Node).await
    }

    /// Answers a request of the group's witness, which may do little.
    pub async fn serve_witness(&self, request: Bytes) -> Option<Bytes> {
        self.answer(request, Caller::Witness).await
    }

    async fn answer(&self, request: Bytes, caller: Caller) -> Option<Bytes> {
        let replica = self.0.upgrade()?.replica.clone()?;
        Some(replica.serve(request, caller).await)
    }
}

fn misfit(reply: Reply) -> StoreError {
    StoreError::Unavailable(format!("an answer that does not fit: {reply:?}"))
}

fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    let started = std::thread::Builder::new().name(name.into()).spawn(body);
    started.map_err(|e| StoreError::Storage(format!("no thread for the store: {e}")))
}

type Started = Result<Arc<dyn Replica>, StoreError>;

/// The group's thread: starts the replica, and ends it when it is told to.
fn run_group(
    core: Arc<Core>,
    node: NodeId,
    options: Options,
    failure: watch::Receiver<Option<StoreError>>,
    told: mpsc::SyncSender<Started>,
    stopped: oneshot::Receiver<()>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return drop(told.send(Err(StoreError::Storage(format!("no runtime for the store: {e}"))))),
    };
    let handle = Some(runtime.handle().clone());
    runtime.block_on(async {
        let (network, timing) = (options.network, options.timing);
        match Group::<Tokio>::start(core, node, network, timing, failure, handle).await {
            Ok(group) => {
                drop(told.send(Ok(group.clone())));
                drop(stopped.await);
                group.stop().await;
            }
            Err(e) => drop(told.send(Err(e))),
        }
    });
}

/// What a store is made of before anything runs.
pub(crate) struct Parts {
    pub core: Arc<Core>,
    pub node: NodeId,
    pub failure: watch::Receiver<Option<StoreError>>,
    pub state: disk::Writer,
    pub log: wal::Writer,
}

impl Parts {
    /// Opens state and log of the replica whose number `number` finds.
    fn files(
        media: Media,
        limits: Limits,
        number: impl FnOnce(&Database) -> Result<NodeId, StoreError>,
    ) -> Result<(Database, Log, NodeId), StoreError> {
        let (db, files) = media.open(limits.cache_bytes)?;
        let node = number(&db)?;
        let log = Log::open(files, node, limits.log_file_bytes)?;
        Ok((db, log, node))
    }

    pub(crate) fn open(media: Media, options: &Options, clock: Clock) -> Result<Parts, StoreError> {
        let limits = options.limits;
        let found = |db: &Database| raft::found(db, &options.birth, options.node);
        let (db, log, node) = Parts::files(media, limits, found)?;
        let saved = raft::open(&db, &log)?;
        let (failures, failure) = watch::channel(None);
        let log = Arc::new(log);
        let file = StateFile::new(db, log.clone(), failures.clone(), &limits)?;
        let file = Arc::new(file);
        let (state, jobs) = disk::writer(file.clone());
        let (writer, appends) = wal::writer(log.clone(), failures, file.clone());
        let core = Arc::new(Core::new(file, jobs, log, appends, clock, &saved, limits)?);
        Ok(Parts { core, node, failure, state, log: writer })
    }
}

#[async_trait]
impl Store for LocalStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.catch_up().await?;
        self.snapshot()?.get(key)
    }

    async fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Range, StoreError> {
        self.catch_up().await?;
        self.snapshot()?.range(prefix, after, limit)
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        self.commit(txn).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, StoreError> {
        // Who comes from another replica may have seen more than there is here yet.
        if after > self.snapshot()?.revision() {
            self.catch_up().await?;
        }
        self.core()?.watch(prefix, after)
    }

    async fn lease_grant(&self, ttl_ms: u64) -> Result<LeaseId, StoreError> {
        match self.ask(Command::Grant { ttl_ms }).await? {
            Reply::Granted(lease) => Ok(lease),
            other => Err(misfit(other)),
        }
    }

    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.replica()?.keep_alive(lease).await
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.ask(Command::Revoke(lease)).await.map(drop)
    }
}
