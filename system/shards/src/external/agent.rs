//! Compares the volumes that other systems keep with what is wanted of them, and acts. Whatever speaks to a cluster runs in
//! the background, one thing at a time for a volume: a cluster that is down holds up its own volumes and nothing else.
//!
//! It is the one owner of these volumes' exports; how they are served and what is said of them is in [`super::serving`].

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use cairn_state::{AgentArgs, Fault, Mirror, Reconciler, Reporter, SharedStore};
use serde_json::json;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use super::driver::{Driver, Opened, Origin};
use super::family::Family;
use super::model::Backend;
use super::plan::{Plan, Seen, Step, plan};
use super::rbd;
use super::told::Told;
use crate::agent::report;
use crate::blk::{Export, ServeOptions};
use crate::crypt::keys::Keyring;
use crate::media::{self, Switch};
use crate::model::{Phase, VolumeSpec, VolumeStatus};
use crate::pool::Pool;
use crate::replication::set::ReplicaSet;

/// How many things are done at a time.
const AT_ONCE: usize = 4;
/// How long until something that failed is tried again: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long until it is looked again whether another node has made a volume.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the reconciler reads.
pub struct Mirrors {
    /// What is wanted.
    pub specs: Mirror<VolumeSpec>,
    /// What was reported of volumes.
    pub statuses: Mirror<VolumeStatus>,
    /// Where the replicas of images are.
    pub sets: Mirror<ReplicaSet>,
    /// The backends.
    pub backends: Mirror<Backend>,
    /// What opens their keys.
    pub keys: Keyring,
}

/// What ended in the background.
enum Done {
    Looked(Option<u64>),
    Made(u64),
    Grown(u64),
    Gone,
    Opened(u64, Arc<dyn Opened>),
}

pub(super) struct Served {
    pub(super) export: Export,
    pub(super) switch: Arc<Switch>,
    /// What it is served from; `None` while its user is on another node.
    pub(super) opened: Option<Arc<dyn Opened>>,
}

struct Failure {
    at: Instant,
    wait: Duration,
    why: String,
    /// Whether it may go well by itself: no answer, or somebody who has not been forgotten yet.
    passing: bool,
}

/// The reconciler of volumes that other systems keep.
pub struct External {
    pub(super) node: String,
    pub(super) store: SharedStore,
    reporter: Reporter,
    pub(super) serve: ServeOptions,
    pub(super) mirrors: Mirrors,
    pool: Arc<Pool>,
    family: Arc<Family>,
    told: Told,
    news: watch::Sender<u64>,
    turns: Arc<Semaphore>,
    pub(super) exports: HashMap<String, Served>,
    doing: HashMap<String, JoinHandle<io::Result<Done>>>,
    /// Bytes of volumes that were looked at, made or grown here, and when.
    known: HashMap<String, (Instant, Option<u64>)>,
    failures: HashMap<String, Failure>,
    pub(super) reported: HashMap<String, VolumeStatus>,
    pub(super) told_prepared: BTreeSet<(String, u64)>,
}

impl External {
    /// Starts with nothing served. `news` wakes the next pass.
    pub fn new(
        args: &AgentArgs,
        pool: Arc<Pool>,
        serve: ServeOptions,
        mirrors: Mirrors,
        family: Arc<Family>,
        news: watch::Sender<u64>,
    ) -> External {
        External {
            node: args.node.clone(),
            store: args.store.clone(),
            reporter: args.reporter.clone(),
            serve,
            mirrors,
            pool,
            family,
            told: Told::new(&args.node, args.store.clone(), news.clone()),
            news,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            exports: HashMap::new(),
            doing: HashMap::new(),
            known: HashMap::new(),
            failures: HashMap::new(),
            reported: HashMap::new(),
            told_prepared: BTreeSet::new(),
        }
    }

    /// What wakes a pass.
    pub fn wake(&self) -> Vec<watch::Receiver<u64>> {
        let Mirrors { specs, statuses, backends, keys, .. } = &self.mirrors;
        vec![specs.changes(), statuses.changes(), backends.changes(), keys.changes(), self.news.subscribe()]
    }

    pub(super) fn live(&self) -> bool {
        self.mirrors.specs.synced() && self.mirrors.statuses.synced() && self.mirrors.backends.synced()
    }

    fn concerns(&self, spec: &VolumeSpec) -> bool {
        let here = |node: &str| node == self.node;
        spec.backend.is_some()
            && (here(&spec.node) || here(spec.lead()) || spec.moving.as_deref().is_some_and(here))
    }

    fn status(&self, id: &str) -> Option<VolumeStatus> {
        let told = self.mirrors.statuses.get(id).map(|s| VolumeStatus::clone(&s));
        // The node that led it before may have had the last word.
        let own = self.reported.get(id).filter(|_| told.as_ref().is_none_or(|s| s.node == self.node));
        own.cloned().or(told)
    }

    /// One volume.
    async fn one(&mut self, spec: &VolumeSpec, wanted: &BTreeSet<String>, faults: &mut Vec<Fault>) {
        let (id, Some(backend)) = (&spec.id, &spec.backend) else { return };
        self.finished(spec).await;
        let seen = self.seen(spec, backend, wanted.contains(id));
        let Plan { steps, mut phase, mut blocked } = plan(spec, &seen, &self.node);
        for step in steps {
            match self.act(spec, backend, &step).await {
                Ok(true) => {}
                // It ends in the background, and so does this plan.
                Ok(false) => {
                    phase = if seen.stored.is_some() { Phase::Ready } else { Phase::Creating };
                    break;
                }
                Err(e) => {
                    blocked = Some(e.to_string());
                    phase = seen.status.as_ref().map_or(Phase::Creating, |s| s.phase);
                    break;
                }
            }
        }
        if let Some(failure) = self.failures.get(id) {
            blocked = Some(failure.why.clone());
            if !failure.passing && seen.stored.is_none() && !spec.deleted {
                phase = Phase::Failed;
            }
        }
        if !self.known.contains_key(id) && seen.stored.is_none() && seen.unreachable.is_none() {
            self.look(spec, backend);
        }
        if let Some(why) = &blocked {
            faults.push(Fault::new(format!("volume {id}"), why));
        }
        if let Err(e) = self.tell(spec, &seen, phase, blocked).await {
            faults.push(Fault::new(format!("the status of volume {id}"), e));
        }
    }

    fn seen(&self, spec: &VolumeSpec, backend: &str, clone_waits: bool) -> Seen {
        let status = self.status(&spec.id);
        let ready = status.as_ref().filter(|s| s.phase == Phase::Ready && s.disk.is_some()).map(|s| s.size);
        let known = self.known.get(&spec.id).and_then(|(_, size)| *size);
        let away = self.told.objection(backend);
        // Until it was looked, nobody knows whether it is there.
        let unsure =
            known.is_none() && ready.is_none() && !self.known.contains_key(&spec.id) && !spec.deleted;
        Seen {
            unreachable: away,
            stored: known.or(ready),
            served: self.exports.get(&spec.id).filter(|s| s.export.is_serving()).map(|s| s.export.epoch()),
            source_lacks: self.source_lacks(spec),
            clone_waits,
            busy: self.doing.contains_key(&spec.id) || self.rests(&spec.id) || unsure,
            live: self.live(),
            status,
        }
    }

    /// Whether what failed last is to be left for a while.
    fn rests(&self, id: &str) -> bool {
        self.failures.get(id).is_some_and(|f| f.at.elapsed() < f.wait)
    }

    fn source_lacks(&self, spec: &VolumeSpec) -> Option<String> {
        let source = spec.source.as_ref()?;
        let waits = || Some("its source is not there yet".to_owned());
        match self.mirrors.specs.get(source) {
            None => waits(),
            Some(of) if of.backend == spec.backend => {
                let ready = self.mirrors.statuses.get(source).is_some_and(|s| s.phase == Phase::Ready);
                if ready { None } else { waits() }
            }
            Some(_) => self.image(source).map_or_else(waits, |_| None),
        }
    }

    /// What an image of this cloud goes by on this node, if it is here.
    fn image(&self, id: &str) -> Option<String> {
        let name = match self.mirrors.sets.get(id) {
            Some(set) => set.whole_on(&self.node)?,
            None => id.to_owned(),
        };
        self.pool.find(&name).map(|_| name)
    }

    /// Does a step; false if it goes on in the background.
    async fn act(&mut self, spec: &VolumeSpec, backend: &str, step: &Step) -> io::Result<bool> {
        tracing::info!(volume = spec.id, backend, ?step, "acting");
        match step {
            Step::Unexport => {
                self.unexport(&spec.id).await?;
                Ok(true)
            }
            Step::Prepare => {
                let prepared = media::Prepared { size: spec.size, read_only: spec.read_only };
                self.serve(spec, 0, Arc::new(prepared), None).await?;
                Ok(true)
            }
            Step::Create | Step::Grow | Step::Export(_) | Step::Destroy => {
                let Some(driver) = self.family.get(backend) else {
                    return Err(media::held(&format!("the backend {backend} is not known here yet")));
                };
                let work = self.work(spec, driver, step)?;
                self.begin(&spec.id, work);
                Ok(false)
            }
        }
    }

    fn work(
        &self,
        spec: &VolumeSpec,
        driver: Arc<dyn Driver>,
        step: &Step,
    ) -> io::Result<impl Future<Output = io::Result<Done>> + Send + 'static> {
        let origin = match (&spec.source, step) {
            (Some(source), Step::Create) => self.origin(spec, source)?,
            _ => Origin::Empty,
        };
        let (spec, step) = (spec.clone(), step.clone());
        let dir = rbd::home(&self.serve.dir, ".open");
        let served_size = self.known.get(&spec.id).and_then(|(_, size)| *size).unwrap_or(spec.size);
        Ok(async move {
            let id = &spec.id;
            match step {
                Step::Create => driver.create(id, spec.size, origin).await.map(|()| Done::Made(spec.size)),
                Step::Grow => driver.grow(id, spec.size).await.map(|()| Done::Grown(spec.size)),
                Step::Destroy => driver.destroy(id, spec.source.as_deref()).await.map(|()| Done::Gone),
                Step::Export(epoch) => {
                    private(&dir)?;
                    let opened = driver.open(id, served_size, spec.read_only, &dir).await?;
                    Ok(Done::Opened(epoch, opened))
                }
                Step::Unexport | Step::Prepare => Ok(Done::Looked(None)),
            }
        })
    }

    fn origin(&self, spec: &VolumeSpec, source: &str) -> io::Result<Origin> {
        let same = self.mirrors.specs.get(source).is_some_and(|of| of.backend == spec.backend);
        if same {
            return Ok(Origin::Clone(source.to_owned()));
        }
        let name = self.image(source).ok_or_else(|| media::held("its source is not there yet"))?;
        Ok(Origin::Content(self.pool.open(&name)?))
    }

    fn look(&mut self, spec: &VolumeSpec, backend: &str) {
        let Some(driver) = self.family.get(backend).filter(|_| !self.doing.contains_key(&spec.id)) else {
            return;
        };
        if self.rests(&spec.id) {
            return;
        }
        let id = spec.id.clone();
        self.begin(&spec.id, async move { driver.size(&id).await.map(Done::Looked) });
    }

    fn begin(&mut self, id: &str, work: impl Future<Output = io::Result<Done>> + Send + 'static) {
        let (turns, news) = (self.turns.clone(), self.news.clone());
        let task = tokio::spawn(async move {
            let _turn = turns.acquire().await;
            let done = work.await;
            news.send_modify(|n| *n += 1);
            done
        });
        self.doing.insert(id.to_owned(), task);
    }

    /// Takes note of what has ended in the background.
    async fn finished(&mut self, spec: &VolumeSpec) {
        let id = &spec.id;
        // One that is to be made elsewhere is looked for again.
        let waits = self.known.get(id).is_some_and(|(at, size)| size.is_none() && at.elapsed() >= LOOK_EVERY);
        if waits && spec.node != self.node {
            self.known.remove(id);
        }
        if !self.doing.get(id).is_some_and(JoinHandle::is_finished) {
            return;
        }
        let Some(task) = self.doing.remove(id) else { return };
        let ended = match task.await.unwrap_or_else(|e| Err(io::Error::other(e))) {
            Ok(Done::Opened(epoch, opened)) => self.opened(spec, epoch, opened).await,
            Ok(done) => {
                self.note(id, &done);
                Ok(())
            }
            Err(e) => Err(e),
        };
        match ended {
            Ok(()) => drop(self.failures.remove(id)),
            Err(e) => {
                let before = self.failures.get(id).map_or(RETRY.0 / 2, |f| f.wait);
                let passing = media::wait_of(&e).is_some() || e.kind() == io::ErrorKind::TimedOut;
                let (at, wait, why) = (Instant::now(), (before * 2).min(RETRY.1), e.to_string());
                self.failures.insert(id.clone(), Failure { at, wait, why, passing });
            }
        }
    }

    fn note(&mut self, id: &str, done: &Done) {
        let now = Instant::now();
        match done {
            Done::Looked(size) => drop(self.known.insert(id.to_owned(), (now, *size))),
            Done::Made(size) => drop(self.known.insert(id.to_owned(), (now, Some(*size)))),
            Done::Grown(size) => {
                self.known.insert(id.to_owned(), (now, Some(*size)));
                if let Some(opened) = self.exports.get(id).and_then(|s| s.opened.as_ref()) {
                    opened.grown(*size);
                }
            }
            Done::Gone => {
                self.known.remove(id);
                let gone = self.status(id).map(|s| VolumeStatus { phase: Phase::Gone, ..s });
                self.reported.extend(gone.map(|s| (id.to_owned(), s)));
            }
            Done::Opened(..) => {}
        }
    }

    /// Lets go of what is no concern of this node's any more.
    async fn forget(&mut self, faults: &mut Vec<Fault>) {
        let wanted: BTreeSet<String> = self.concerned().iter().map(|s| s.id.clone()).collect();
        let served: Vec<String> = self.exports.keys().filter(|id| !wanted.contains(*id)).cloned().collect();
        for id in served {
            if let Err(e) = self.unexport(&id).await {
                faults.push(Fault::new(format!("volume {id}"), e));
            }
        }
        self.known.retain(|id, _| wanted.contains(id));
        self.failures.retain(|id, _| wanted.contains(id));
        self.reported.retain(|id, _| wanted.contains(id));
        self.doing.retain(|id, task| wanted.contains(id) || !task.is_finished());
    }

    fn concerned(&self) -> Vec<Arc<VolumeSpec>> {
        self.mirrors.specs.all().into_iter().filter(|s| self.concerns(s)).collect()
    }

    /// What is still to be cloned.
    fn sources(&self) -> BTreeSet<String> {
        let made = |id: &str| self.mirrors.statuses.get(id).is_some_and(|s| s.phase == Phase::Ready);
        let waits =
            |s: &&Arc<VolumeSpec>| s.source.is_some() && !s.deleted && s.backend.is_some() && !made(&s.id);
        self.mirrors.specs.all().iter().filter(waits).filter_map(|s| s.source.clone()).collect()
    }
}

#[async_trait]
impl Reconciler for External {
    fn name(&self) -> &'static str {
        "volumes kept elsewhere"
    }

    async fn pass(&mut self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let (backends, live) = (self.mirrors.backends.all(), self.live());
        for (name, e) in self.family.follow(&backends, &self.mirrors.keys) {
            faults.push(Fault::new(format!("backend {name}"), e));
        }
        if let Err(e) = self.told.look(&self.family, live).await {
            faults.push(Fault::new("the status of backends", e));
        }
        let (all, sources) = (self.concerned(), self.sources());
        for spec in &all {
            self.one(spec, &sources, &mut faults).await;
            if let Some(served) = self.exports.get(&spec.id) {
                served.switch.limit(&spec.limits);
                served.export.heed_size();
            }
        }
        self.forget(&mut faults).await;
        let ours = |id: &str| self.mirrors.specs.get(id).is_some_and(|spec| spec.backend.is_some());
        let exports = || self.exports.values().map(|s| &s.export).collect();
        report::clear_sockets(&self.serve.dir, exports, ours);
        let served: Vec<_> =
            self.exports.iter().map(|(id, s)| json!({"volume": id, "epoch": s.export.epoch()})).collect();
        self.reporter.set_fact("exports_of_backends", served.into_iter().collect());
        faults
    }
}

/// A directory for sockets that are nobody else's.
fn private(dir: &std::path::Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}
