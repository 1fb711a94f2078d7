//! Compares the volumes wanted on this node with those there are, and acts: makes, grows, serves, destroys.
//!
//! It is the one owner of the exports. It writes [`VolumeStatus`] records of this node, and no other.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use cairn_state::{AgentArgs, Fault, Mirror, Reconciler, Reporter, SharedStore, StoreExt};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};

use super::attention::{Attention, Look};
use super::failures::Failures;
use super::plan::{Plan, Seen, Step, Stored, plan};
use super::report;
use super::survey::{concerns, disks, find};
use crate::blk::{Export, ServeOptions};
use crate::crypt::keys::Keyring;
use crate::disk::Disk;
use crate::format;
use crate::fsio;
use crate::media::Switch;
use crate::model::{Phase, ReplicaStatus, VolumeSpec, VolumeStatus};
use crate::pool::{NewVolume, Pool};
use crate::replication::group::{Group, Means};
use crate::replication::place;
use crate::replication::records;
use crate::replication::replica::Replicas;
use crate::replication::set::ReplicaSet;

/// How long a pass waits for the requests under way when it takes a volume from its user.
const UNEXPORT_PATIENCE: Duration = Duration::from_secs(3);

/// What the reconciler reads: mirrors of the store.
#[derive(Clone)]
pub struct Mirrors {
    /// What is wanted.
    pub specs: Mirror<VolumeSpec>,
    /// What was reported of volumes.
    pub statuses: Mirror<VolumeStatus>,
    /// Which replicas there are.
    pub sets: Mirror<ReplicaSet>,
    /// What was reported of them.
    pub replica_statuses: Mirror<ReplicaStatus>,
    /// What opens the keys of volumes.
    pub keys: Keyring,
}

/// The reconciler of volumes.
pub struct Volumes {
    pub(super) node: String,
    pub(super) store: SharedStore,
    reporter: Reporter,
    pub(super) pool: Arc<Pool>,
    pub(super) serve: ServeOptions,
    pub(super) specs: Mirror<VolumeSpec>,
    pub(super) statuses: Mirror<VolumeStatus>,
    pub(super) sets: Mirror<ReplicaSet>,
    pub(super) replica_statuses: Mirror<ReplicaStatus>,
    pub(super) keys: Keyring,
    /// What the writers of volumes work with.
    pub(super) means: Means,
    /// The replicas of this node.
    pub(super) replicas: Arc<Replicas>,
    /// Wakes the next pass when work in the background ends.
    pub(super) news: watch::Sender<u64>,
    pub(super) exports: HashMap<String, Export>,
    /// What is behind each export.
    pub(super) switches: HashMap<String, Arc<Switch>>,
    /// The writers of volumes with several replicas that run here.
    pub(super) groups: HashMap<String, Arc<Group>>,
    /// Volumes being made in the background.
    pub(super) making: HashMap<String, JoinHandle<io::Result<()>>>,
    /// Replicas that could not be made.
    pub(super) failures: Failures,
    /// Sizes of the volumes on disk, which only this reconciler changes.
    pub(super) stored: BTreeMap<String, Stored>,
    /// A disk that the last survey could not read.
    pub(super) unread: Option<String>,
    /// Bytes the volumes take on their disks, and when that was last looked at.
    pub(super) usage: HashMap<String, u64>,
    pub(super) usage_read: Option<Instant>,
    attention: Attention,
    /// Volumes on disks that no spec names.
    pub(super) orphans: BTreeSet<String>,
    /// What was written to the store; the mirror of it may lag behind.
    pub(super) reported: HashMap<String, VolumeStatus>,
    pub(super) told_replicas: BTreeMap<String, ReplicaStatus>,
    /// When a volume whose replicas are not made yet was first looked at.
    pub(super) first_seen: HashMap<String, Instant>,
    /// Volumes that were said to be ready to move here, each with the generation.
    pub(super) told_prepared: BTreeSet<(String, u64)>,
}

impl Volumes {
    /// Starts with nothing served.
    pub fn new(
        args: &AgentArgs,
        pool: Arc<Pool>,
        serve: ServeOptions,
        mirrors: Mirrors,
        means: Means,
        replicas: Arc<Replicas>,
        news: watch::Sender<u64>,
    ) -> Volumes {
        let attention = Attention::new(&mirrors);
        let Mirrors { specs, statuses, sets, replica_statuses, keys } = mirrors;
        Volumes {
            node: args.node.clone(),
            store: args.store.clone(),
            reporter: args.reporter.clone(),
            pool,
            serve,
            specs,
            statuses,
            sets,
            replica_statuses,
            keys,
            means,
            replicas,
            news,
            exports: HashMap::new(),
            switches: HashMap::new(),
            groups: HashMap::new(),
            making: HashMap::new(),
            failures: Failures::default(),
            stored: BTreeMap::new(),
            unread: None,
            usage: HashMap::new(),
            usage_read: None,
            attention,
            orphans: BTreeSet::new(),
            reported: HashMap::new(),
            told_replicas: BTreeMap::new(),
            first_seen: HashMap::new(),
            told_prepared: BTreeSet::new(),
        }
    }

    pub(super) fn live(&self) -> bool {
        let told = self.statuses.synced() && self.replica_statuses.synced();
        told && self.specs.synced() && self.sets.synced()
    }

    /// Whether a volume may be taken for one that has no other replica: its record may be on its way here.
    async fn is_alone(&self, id: &str) -> bool {
        if self.live()
            && let Ok(found) = records::read(&self.store, id).await
        {
            return found.is_none();
        }
        // Once there were others, this node's replica has made them a promise.
        let promised = |d: &Arc<Disk>| d.holds(id) && d.volume(id).join(format::REPLICA).exists();
        !self.pool.disks().iter().any(promised)
    }

    async fn one(&mut self, spec: &VolumeSpec, clone_waits: bool, faults: &mut Vec<Fault>) {
        let failed = self.finished_making(&spec.id).await;
        let seen = self.seen(spec, clone_waits);
        let Plan { steps, mut phase, mut blocked } = plan(spec, &seen, &self.node);
        if !steps.is_empty() && !self.is_alone(&spec.id).await {
            return; // It is one of those with several replicas, and what says so is on its way here.
        }
        if let Some(e) = failed {
            // The plan is to try again; the driver does so after a while.
            (phase, blocked) = (Phase::Failed, Some(e));
        } else {
            for step in steps {
                match self.act(spec, &step).await {
                    Ok(true) => {}
                    Ok(false) => {
                        phase = Phase::Creating;
                        break;
                    }
                    Err(e) => {
                        phase = if step == Step::Unexport { seen_phase(&seen) } else { Phase::Failed };
                        blocked = Some(e.to_string());
                        break;
                    }
                }
            }
        }
        if let Some(why) = &blocked {
            faults.push(Fault::new(format!("volume {}", spec.id), why));
        }
        if let Err(e) = self.tell(spec, &seen, phase, blocked).await {
            faults.push(Fault::new(format!("the status of volume {}", spec.id), e));
        }
    }

    fn seen(&self, spec: &VolumeSpec, clone_waits: bool) -> Seen {
        let reported = self.reported.get(&spec.id).cloned();
        let source = spec.source.as_ref();
        Seen {
            status: reported.or_else(|| self.statuses.get(&spec.id).map(|s| VolumeStatus::clone(&s))),
            stored: self.stored.get(&spec.id).cloned(),
            unread: self.unread.clone(),
            served: self.exports.get(&spec.id).filter(|e| e.is_serving()).map(Export::epoch),
            source_ready: source.is_some_and(|s| self.source(s, None).is_some_and(|(_, in_sync)| in_sync)),
            clone_waits,
            in_the_making: self.making.contains_key(&spec.id) || self.pool.is_claimed(&spec.id),
            live: self.live(),
        }
    }

    /// Does a step; false if it goes on in the background.
    async fn act(&mut self, spec: &VolumeSpec, step: &Step) -> io::Result<bool> {
        tracing::info!(volume = spec.id, ?step, "acting");
        match step {
            Step::Unexport => self.unexport(&spec.id).await?,
            Step::Create => {
                self.create(spec)?;
                return Ok(false);
            }
            Step::Grow => self.grow(spec).await?,
            Step::Export(epoch) => self.export(spec, *epoch).await?,
            Step::Destroy => self.destroy(&spec.id).await?,
        }
        Ok(true)
    }

    fn create(&mut self, spec: &VolumeSpec) -> io::Result<()> {
        let Some(recode) = self.known(self.recode(spec))? else { return Ok(()) };
        let new = NewVolume {
            id: spec.id.clone(),
            size: spec.size,
            read_only: spec.read_only,
            source: spec
                .source
                .as_ref()
                .map(|s| self.source(s, None).map_or_else(|| s.clone(), |(name, _)| name)),
        };
        let (pool, news) = (self.pool.clone(), self.news.clone());
        let task = spawn_blocking(move || {
            let made = pool.create_checked(&new, recode.as_ref(), || Ok(())).map(drop);
            news.send_modify(|n| *n += 1);
            made
        });
        self.making.insert(spec.id.clone(), task);
        Ok(())
    }

    /// Takes note of a volume whose making has ended; answers why it failed, if it did.
    pub(super) async fn finished_making(&mut self, id: &str) -> Option<String> {
        if !self.making.get(id)?.is_finished() {
            return None;
        }
        let made = self.making.remove(id)?.await.unwrap_or_else(|e| Err(io::Error::other(e)));
        if let Some(found) = find(&self.pool, id) {
            self.stored.insert(id.to_owned(), found);
        }
        made.err().as_ref().map(fsio::reason)
    }

    async fn grow(&mut self, spec: &VolumeSpec) -> io::Result<()> {
        let (pool, id, size) = (self.pool.clone(), spec.id.clone(), spec.size);
        let size = blocking(move || pool.open(&id).and_then(|v| v.grow(size).map(|()| v.size()))).await?;
        if let Some(stored) = self.stored.get_mut(&spec.id) {
            stored.size = size;
        }
        Ok(())
    }

    async fn export(&mut self, spec: &VolumeSpec, epoch: u64) -> io::Result<()> {
        let (pool, volume) = (self.pool.clone(), spec.id.clone());
        let volume = blocking(move || pool.open(&volume)).await?;
        self.serve_media(spec, epoch, volume).await
    }

    pub(super) async fn unexport(&mut self, id: &str) -> io::Result<()> {
        let Some(mut export) = self.exports.remove(id) else { return Ok(()) };
        let stopped = spawn_blocking(move || (export.stop(UNEXPORT_PATIENCE), export)).await;
        match stopped.map_err(io::Error::other)? {
            (true, _) => Ok(()),
            (false, export) => {
                self.exports.insert(id.to_owned(), export);
                Err(io::Error::new(io::ErrorKind::TimedOut, "a request of its last user is still under way"))
            }
        }
    }

    /// Frees in the background what was destroyed.
    pub(super) fn empty_trash(&self) {
        for disk in self.pool.disks() {
            spawn_blocking(move || {
                if let Err(e) = disk.empty_trash() {
                    tracing::warn!(disk = disk.id(), error = %e, "the trash was not emptied");
                }
            });
        }
    }

    /// Reports a volume, if there is news of it.
    async fn tell(
        &mut self,
        spec: &VolumeSpec,
        seen: &Seen,
        phase: Phase,
        blocked: Option<String>,
    ) -> Result<(), cairn_state::StoreError> {
        if !self.live() {
            return Ok(());
        }
        let export = self.exports.get(&spec.id).filter(|e| e.is_serving());
        let open = export.and_then(|_| self.pool.open(&spec.id).ok());
        let full = open.as_ref().is_some_and(|v| v.is_full()).then(|| "disk full".to_owned());
        let stored = self.stored.get(&spec.id);
        let known = seen.status.as_ref().filter(|_| phase != Phase::Gone);
        let before = known.map_or(0, |s| s.allocated);
        let status = VolumeStatus {
            id: spec.id.clone(),
            node: self.node.clone(),
            generation: spec.generation.max(known.map_or(0, |s| s.generation)),
            phase,
            error: blocked.or(full),
            socket: export.map(|e| e.socket().display().to_string()),
            epoch: export.map_or(0, Export::epoch),
            size: stored.map_or(0, |s| s.size),
            allocated: report::allocated(
                before,
                stored.map(|_| self.usage.get(&spec.id).copied().unwrap_or(0)),
            ),
            disk: stored.map(|s| s.disk.clone()).or_else(|| known.and_then(|s| s.disk.clone())),
            behind: 0,
            rebuilt: 0,
            compared: 0,
            corrupt: open.map_or(0, |v| v.findings().corrupt),
        };
        if seen.status.as_ref() != Some(&status) {
            self.store.put_record(&status).await?;
        }
        self.reported.insert(spec.id.clone(), status);
        Ok(())
    }

    /// What volumes that are kept elsewhere are still to be made of.
    fn taken_elsewhere(&self) -> Vec<String> {
        let made = |id: &str| self.statuses.get(id).is_some_and(|s| s.phase == Phase::Ready);
        let waits = |s: &&Arc<VolumeSpec>| s.backend.is_some() && !s.deleted && !made(&s.id);
        self.specs.all().iter().filter(waits).filter_map(|s| s.source.clone()).collect()
    }

    /// Lets go of what no spec names any more.
    async fn forget(&mut self, faults: &mut Vec<Fault>) {
        let (specs, sets, node) = (self.specs.clone(), self.sets.clone(), self.node.clone());
        let wanted = move |id: &String| specs.get(id).is_some_and(|spec| concerns(&spec, &sets, &node));
        let served: Vec<String> = self.exports.keys().filter(|id| !wanted(id)).cloned().collect();
        for id in served {
            if let Err(e) = self.unexport(&id).await {
                faults.push(Fault::new(format!("volume {id}"), e));
            }
        }
        self.groups.retain(|id, _| wanted(id));
        self.switches.retain(|id, _| self.exports.contains_key(id));
        let wanted_here = |name: &String| wanted(&place::split(name).0.to_owned());
        self.told_replicas.retain(|name, _| wanted_here(name));
        self.failures.retain(wanted_here);
        self.first_seen.retain(|id, _| wanted(id));
        self.reported.retain(|id, _| wanted(id));
        if !self.live() {
            return;
        }
        // One that another node reports by now is not ours to remove.
        let ended = |s: &VolumeStatus| s.node == self.node && self.specs.get(&s.id).is_none();
        for status in self.statuses.all().iter().filter(|s| ended(s)) {
            if let Err(e) = self.store.delete_record::<VolumeStatus>(&status.id).await {
                faults.push(Fault::new(format!("the status of volume {}", status.id), e));
            }
        }
    }
}

#[async_trait]
impl Reconciler for Volumes {
    fn name(&self) -> &'static str {
        "volumes"
    }

    async fn pass(&mut self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let look = self.attention.next(disks(&self.pool), self.live());
        let surveyed = match &look {
            Look::All => self.survey().await,
            Look::At(ids) => self.survey_some(ids).await,
        };
        if let Err(fault) = surveyed {
            self.attention.forget();
            return vec![fault];
        }
        let all: Vec<Arc<VolumeSpec>> = match &look {
            Look::All => self.specs.all(),
            Look::At(ids) => ids.iter().filter_map(|id| self.specs.get(id)).collect(),
        };
        let concerned = |s: &Arc<VolumeSpec>| concerns(s, &self.sets, &self.node);
        let all: Vec<Arc<VolumeSpec>> = all.into_iter().filter(concerned).collect();
        let all_are_ours = matches!(&look, Look::At(ids) if ids.len() == all.len());
        if !all_are_ours {
            self.forget(&mut faults).await;
        }
        self.note_orphans(&look);
        let mut sources: BTreeSet<String> =
            all.iter().filter(|s| !s.deleted && self.is_unmade(s)).filter_map(|s| s.source.clone()).collect();
        if all.iter().any(|s| s.deleted) {
            sources.extend(self.taken_elsewhere());
        }
        for spec in &all {
            let (clone_waits, before) = (sources.contains(&spec.id), faults.len());
            match self.sets.get(&spec.id) {
                Some(set) => self.shared(spec, &set, clone_waits, &mut faults).await,
                None if spec.node == self.node => self.one(spec, clone_waits, &mut faults).await,
                None => {} // The record of its replicas is on its way here.
            }
            if let Some(switch) = self.switches.get(&spec.id) {
                switch.limit(&spec.limits);
            }
            if let Some(export) = self.exports.get(&spec.id) {
                export.heed_size();
            }
            if faults.len() > before || !self.rests(&spec.id) {
                self.attention.again(&spec.id);
            }
        }
        let ours = |id: &str| self.specs.get(id).is_none_or(|spec| spec.backend.is_none());
        report::clear_sockets(&self.serve.dir, || self.exports.values().collect(), ours);
        let orphans = self.live().then(|| self.orphans.iter().collect());
        report::facts(
            &self.reporter,
            &self.pool,
            &self.serve.dir,
            &self.exports,
            self.stored.keys(),
            orphans,
        );
        faults
    }
}

fn seen_phase(seen: &Seen) -> Phase {
    seen.status.as_ref().map_or(Phase::Failed, |s| s.phase)
}

pub(super) async fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(f).await.map_err(io::Error::other)?
}

/// Whether a file is a socket of a volume.
pub fn is_socket(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "sock")
}
