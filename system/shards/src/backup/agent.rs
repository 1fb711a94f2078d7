//! Makes the backups that are wanted of this node, keeps them, and makes volumes of them.
//!
//! It writes [`BackupStatus`] and [`RestoreStatus`] records of this node, and no other. What it works on goes on in the
//! background, a few at a time; a process that is killed goes on with it at its next start.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use cairn_state::{AgentArgs, Fault, Mirror, Reconciler, Record, SharedStore, StoreError, StoreExt};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};

use super::relocate::relocate;
use super::store::Roots;
use super::{BackupSpec, BackupStatus, RestoreSpec, RestoreStatus};
use crate::disk::Disk;
use crate::format::Manifest;
use crate::fsio;
use crate::model::Phase;
use crate::pool::Pool;
use crate::replication::set::ReplicaSet;
use crate::volume::{self, Volume};

/// How many copies are made at once.
const AT_ONCE: usize = 2;
/// When a backup that could not be moved is tried again.
const MOVE_AGAIN: Duration = Duration::from_secs(60);
/// Where backups lie on a data disk.
pub const FOLDER: &str = crate::format::BACKUPS;

/// What a copy has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Done {
    chunks: u64,
    stored: u64,
    size: u64,
}

/// A copy under way.
struct Job {
    stop: Arc<AtomicBool>,
    task: JoinHandle<io::Result<Done>>,
}

/// The reconciler of backups.
pub struct Backups {
    node: String,
    store: SharedStore,
    pool: Arc<Pool>,
    sets: Mirror<ReplicaSet>,
    specs: Mirror<BackupSpec>,
    statuses: Mirror<BackupStatus>,
    restores: Mirror<RestoreSpec>,
    restore_statuses: Mirror<RestoreStatus>,
    /// Wakes the next pass when a copy ends.
    news: watch::Sender<u64>,
    jobs: HashMap<String, Job>,
    /// The backups that could not be moved to another disk, when, and why.
    stuck: HashMap<String, (Instant, String)>,
    /// What was written to the store; the mirror of it may lag behind.
    told: BTreeMap<String, BackupStatus>,
    told_restores: BTreeMap<String, RestoreStatus>,
}

impl Backups {
    /// Starts with nothing under way.
    pub async fn start(
        args: &AgentArgs,
        pool: Arc<Pool>,
        sets: Mirror<ReplicaSet>,
        news: watch::Sender<u64>,
    ) -> Backups {
        let store = args.store.clone();
        Backups {
            node: args.node.clone(),
            pool,
            sets,
            specs: Mirror::start(store.clone(), None).await,
            statuses: Mirror::start(store.clone(), None).await,
            restores: Mirror::start(store.clone(), None).await,
            restore_statuses: Mirror::start(store.clone(), None).await,
            store,
            news,
            jobs: HashMap::new(),
            stuck: HashMap::new(),
            told: BTreeMap::new(),
            told_restores: BTreeMap::new(),
        }
    }

    /// What wakes it.
    pub fn wake(&self) -> Vec<watch::Receiver<u64>> {
        vec![self.specs.changes(), self.restores.changes(), self.sets.changes(), self.news.subscribe()]
    }

    /// The places for backups: first that on the healthy disk with the most room which does not hold `beside`.
    fn roots(&self, beside: Option<&str>) -> Roots {
        let home = beside.and_then(|id| self.pool.find(id)).map(|disk| disk.id().to_owned());
        let mut disks = self.pool.disks();
        let free = |disk: &Arc<Disk>| {
            let usable = disk.health().is_ok().then(|| disk.space().map_or(0, |(_, free)| free));
            (usable.is_some(), !disk.is_spared(), home.as_deref() != Some(disk.id()), usable)
        };
        disks.sort_by_key(|disk| std::cmp::Reverse(free(disk)));
        Roots(disks.iter().map(|disk| disk.path().join(FOLDER)).collect())
    }

    fn begin(&mut self, id: &str, copy: impl FnOnce(&AtomicBool) -> io::Result<Done> + Send + 'static) {
        if self.jobs.len() >= AT_ONCE {
            return;
        }
        tracing::info!(id, "a backup is copied");
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, news) = (stop.clone(), self.news.clone());
        let task = spawn_blocking(move || {
            let done = copy(&stopped);
            news.send_modify(|n| *n += 1);
            done
        });
        self.jobs.insert(id.to_owned(), Job { stop, task });
    }

    /// The outcome of a copy that has ended.
    async fn ended(&mut self, id: &str) -> Option<io::Result<Done>> {
        if !self.jobs.get(id)?.task.is_finished() {
            return None;
        }
        let job = self.jobs.remove(id)?;
        Some(job.task.await.unwrap_or_else(|e| Err(io::Error::other(e))))
    }

    /// What a volume goes by here, if all of it is on a disk of this node.
    fn whole(&self, volume: &str) -> Option<String> {
        let name = match self.sets.get(volume) {
            Some(set) => set.whole_on(&self.node)?,
            None => volume.to_owned(),
        };
        self.pool.find(&name).map(|_| name)
    }

    /// What was last reported of a backup.
    fn seen(&self, id: &str) -> Option<BackupStatus> {
        let told = self.told.get(id).cloned();
        told.or_else(|| self.statuses.get(id).map(|s| BackupStatus::clone(&s)))
    }

    async fn backup(&mut self, spec: &BackupSpec) -> Result<(), StoreError> {
        let seen = self.seen(&spec.id);
        let node = self.node.clone();
        let told = |phase, error: Option<String>, done: Option<Done>| BackupStatus {
            id: spec.id.clone(),
            node: node.clone(),
            phase,
            error,
            chunks: done.map_or(0, |d| d.chunks),
            stored: done.map_or(0, |d| d.stored),
        };
        let next = if spec.deleted {
            if let Some(job) = self.jobs.get(&spec.id) {
                job.stop.store(true, SeqCst);
                if !job.task.is_finished() {
                    return Ok(());
                }
            }
            self.jobs.remove(&spec.id);
            if seen.as_ref().is_some_and(|s| s.phase == Phase::Gone) {
                return Ok(());
            }
            let (roots, id) = (self.roots(None), spec.id.clone());
            match spawn_blocking(move || roots.remove(&id)).await.map_err(io::Error::other).flatten() {
                Ok(()) => told(Phase::Gone, None, None),
                Err(e) => told(Phase::Failed, Some(fsio::reason(&e)), None),
            }
        } else if seen.is_some_and(|s| matches!(s.phase, Phase::Ready | Phase::Failed)) {
            return Ok(());
        } else {
            match self.ended(&spec.id).await {
                Some(Ok(done)) => told(Phase::Ready, None, Some(done)),
                Some(Err(e)) => told(Phase::Failed, Some(fsio::reason(&e)), None),
                None => {
                    self.copy_out(spec);
                    return Ok(());
                }
            }
        };
        self.store.put_record(&next).await?;
        self.told.insert(spec.id.clone(), next);
        Ok(())
    }

    /// Begins to copy a volume to its backup, once all of it is here.
    fn copy_out(&mut self, spec: &BackupSpec) {
        let there = spec.volume.is_empty();
        let volume = if there { None } else { self.whole(&spec.volume) };
        if self.jobs.contains_key(&spec.id) || !(there || volume.is_some()) {
            return;
        }
        let (roots, pool, of) = (self.roots(volume.as_deref()), self.pool.clone(), spec.clone());
        self.begin(&spec.id, move |stop| {
            let Some(volume) = volume else {
                let made = roots.whole(&of.id)?;
                return Ok(Done { chunks: made.chunks, stored: made.stored, size: made.size });
            };
            let source = pool.open(&volume)?;
            let made = roots.write(&of.id, of.parent.as_deref(), &source, stop).inspect_err(|e| {
                // What was begun is of no use to anyone, and may be what fills the disk.
                if e.kind() != io::ErrorKind::Interrupted
                    && let Err(e) = roots.remove(&of.id)
                {
                    tracing::warn!(id = of.id, "what a failed backup left stays until it is deleted: {e}");
                }
            })?;
            Ok(Done { chunks: made.chunks, stored: made.stored, size: made.size })
        });
    }

    /// Takes a whole backup from a disk that shall be empty to another of this node. Answers why it stays, if it has to.
    async fn move_on(&mut self, spec: &BackupSpec) -> Option<String> {
        if spec.deleted || self.seen(&spec.id).is_none_or(|s| s.phase != Phase::Ready) {
            return None;
        }
        match self.ended(&spec.id).await {
            Some(Err(e)) => drop(self.stuck.insert(spec.id.clone(), (Instant::now(), fsio::reason(&e)))),
            Some(Ok(_)) => drop(self.stuck.remove(&spec.id)),
            None => {}
        }
        let disks = self.pool.disks();
        let folder = |disk: &Arc<Disk>| disk.path().join(FOLDER);
        let from = disks.iter().find(|d| d.is_spared() && folder(d).join(&spec.id).is_dir()).map(folder)?;
        if let Some((_, why)) = self.stuck.get(&spec.id).filter(|(at, _)| at.elapsed() < MOVE_AGAIN) {
            return Some(format!("it cannot be moved to another disk: {why}"));
        }
        let to = self.pool.roomiest().ok().filter(|d| !d.is_spared());
        let Some(to) = to else { return Some("there is no other disk to move it to".into()) };
        if !self.jobs.contains_key(&spec.id) {
            let (id, to) = (spec.id.clone(), folder(&to));
            self.begin(&spec.id, move |stop| {
                relocate(&id, &from, &to, stop).map(|()| Done { chunks: 0, stored: 0, size: 0 })
            });
        }
        None
    }

    async fn restore(&mut self, spec: &RestoreSpec) -> Result<(), StoreError> {
        let seen = self.told_restores.get(&spec.id).cloned();
        if seen.is_some() || self.restore_statuses.get(&spec.id).is_some() {
            return Ok(());
        }
        let Some(ended) = self.ended(&spec.id).await else {
            if !self.jobs.contains_key(&spec.id) {
                let (roots, pool, of) = (self.roots(None), self.pool.clone(), spec.clone());
                self.begin(&spec.id, move |stop| copy_in(&roots, &pool, &of, stop));
            }
            return Ok(());
        };
        let (phase, error, size) = match ended {
            Ok(done) => (Phase::Ready, None, done.size),
            Err(e) => (Phase::Failed, Some(fsio::reason(&e)), 0),
        };
        let next = RestoreStatus { id: spec.id.clone(), node: self.node.clone(), phase, error, size };
        self.store.put_record(&next).await?;
        self.told_restores.insert(spec.id.clone(), next);
        Ok(())
    }

    /// Lets go of what is wanted no more.
    async fn forget(&mut self) -> Result<(), StoreError> {
        let wanted = |id: &str| self.specs.get(id).is_some() || self.restores.get(id).is_some();
        self.jobs.iter().filter(|(id, _)| !wanted(id)).for_each(|(_, job)| job.stop.store(true, SeqCst));
        self.jobs.retain(|id, job| wanted(id) || !job.task.is_finished());
        self.stuck.retain(|id, _| wanted(id));
        self.told.retain(|id, _| wanted(id));
        self.told_restores.retain(|id, _| wanted(id));
        for status in self.statuses.all() {
            if status.node == self.node && self.specs.get(&status.id).is_none() {
                self.store.delete_record::<BackupStatus>(&status.id()).await?;
            }
        }
        for status in self.restore_statuses.all() {
            if status.node == self.node && self.restores.get(&status.id).is_none() {
                self.store.delete_record::<RestoreStatus>(&status.id()).await?;
            }
        }
        Ok(())
    }
}

/// Makes the volume of a restore; one that is there already was made before a restart.
fn copy_in(roots: &Roots, pool: &Arc<Pool>, spec: &RestoreSpec, stop: &AtomicBool) -> io::Result<Done> {
    if pool.find(&spec.id).is_some() {
        let size = pool.open(&spec.id)?.size();
        return Ok(Done { chunks: 0, stored: 0, size });
    }
    let manifest = roots.whole(&spec.backup)?;
    let claim = pool.claim(&spec.id).ok_or(io::ErrorKind::AlreadyExists)?;
    let staging = pool.roomiest()?.stage(&spec.id)?;
    let content = Manifest::new(&spec.id, manifest.size, false);
    volume::write_manifest(staging.path(), &content)?;
    let volume = Volume::open_as(staging.path(), &spec.id)?;
    roots.read(&spec.backup, stop, |offset, bytes| volume.write_slice(offset, bytes))?;
    volume.flush()?;
    drop(volume);
    volume::write_manifest(staging.path(), &Manifest { read_only: true, ..content })?;
    staging.publish(&spec.id)?;
    drop(claim);
    Ok(Done { chunks: manifest.chunks, stored: manifest.stored, size: manifest.size })
}

#[async_trait]
impl Reconciler for Backups {
    fn name(&self) -> &'static str {
        "backups"
    }

    async fn pass(&mut self) -> Vec<Fault> {
        let told = self.statuses.synced() && self.restore_statuses.synced() && self.sets.synced();
        if !told || !self.specs.synced() || !self.restores.synced() {
            return Vec::new(); // Nothing is made or removed by what the store may have said before.
        }
        let mut faults = Vec::new();
        let node = self.node.clone();
        for spec in self.specs.all().into_iter().filter(|s| s.node == node) {
            if let Err(e) = self.backup(&spec).await {
                faults.push(Fault::new(format!("backup {}", spec.id), e));
            }
            let stays = self.move_on(&spec).await;
            faults.extend(stays.map(|why| Fault::new(format!("backup {}", spec.id), why)));
        }
        for spec in self.restores.all().into_iter().filter(|s| s.node == node) {
            if let Err(e) = self.restore(&spec).await {
                faults.push(Fault::new(format!("restore {}", spec.id), e));
            }
        }
        if let Err(e) = self.forget().await {
            faults.push(Fault::new("backups that are wanted no more", e));
        }
        faults
    }
}
