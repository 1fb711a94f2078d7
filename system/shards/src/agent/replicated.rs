//! Acts on volumes that have several replicas: makes and destroys this node's, one on a disk at most, runs the writer
//! of those that are used or kept here, serves them, and reports.
//!
//! It writes [`ReplicaStatus`] and [`Prepared`] records of this node, and [`VolumeStatus`] ones of volumes that this
//! node leads. The record of a volume's replicas is changed by its writer alone.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_state::{Fault, StoreError, StoreExt};
use tokio::task::spawn_blocking;

use super::reconcile::{Volumes, blocking};
use super::replicated_plan::{Origin, Plan, Seen, Step, plan, plan_further};
use super::report;
use super::survey::names_of;
use crate::blk::Export;
use crate::media::{self, Media, Switch};
use crate::model::{Phase, Prepared, ReplicaStatus, VolumeSpec, VolumeStatus};
use crate::pool::NewVolume;
use crate::replication::group::Group;
use crate::replication::regions::REGION;
use crate::replication::set::{Replica, ReplicaSet};
use crate::replication::{place, records, writer};

/// How far this node's replicas of a volume are, and what stands in their way, by place.
type Phases = BTreeMap<String, (Phase, Option<String>)>;

/// How long the replicas of a new volume are waited for, once one is there.
const MAKING_PATIENCE: Duration = Duration::from_secs(10);

impl Volumes {
    /// One volume, on one of its nodes or where it is used.
    pub(super) async fn shared(
        &mut self,
        spec: &VolumeSpec,
        set: &ReplicaSet,
        clone_waits: bool,
        faults: &mut Vec<Fault>,
    ) {
        if let Some(group) = self.groups.get(&spec.id).filter(|g| g.set() != *set) {
            group.look().await;
        }
        let seen = self.shared_seen(spec, set, clone_waits);
        let mut phases = BTreeMap::new();
        let mut trouble = None;
        for (index, replica) in set.on_node(&self.node.clone()).enumerate() {
            let name = place::name(&spec.id, &replica.place);
            let failed = self.finished_making(&name).await;
            let seen = self.replica_seen(spec, replica, &name, &seen);
            let plan = match index {
                0 => plan(spec, set, &seen, &self.node),
                _ => plan_further(spec, set, replica, &seen),
            };
            let (phase, blocked) = self.carry_out(spec, set, &name, plan, failed).await;
            if let Some(phase) = phase {
                phases.insert(replica.place.clone(), (phase, blocked.clone()));
            }
            trouble = trouble.or(blocked);
        }
        self.forget_moved(set);
        if set.on_node(&self.node).next().is_none() {
            let plan = plan(spec, set, &seen, &self.node);
            trouble = self.carry_out(spec, set, &spec.id, plan, None).await.1;
        }
        if let Some(why) = &trouble {
            faults.push(Fault::new(format!("volume {}", spec.id), why));
        }
        if let Err(e) = self.shared_tell(spec, set, phases, trouble).await {
            faults.push(Fault::new(format!("the status of volume {}", spec.id), e));
        }
    }

    /// Does the steps of a plan for the replica that goes by this name; answers how far it is, and what stands in the way.
    async fn carry_out(
        &mut self,
        spec: &VolumeSpec,
        set: &ReplicaSet,
        name: &str,
        plan: Plan,
        failed: Option<String>,
    ) -> (Option<Phase>, Option<String>) {
        let Plan { steps, mut replica, mut blocked } = plan;
        let failed = self.failures.recent(name, failed, Instant::now());
        let waits = |step: &Step| failed.is_some() && matches!(step, Step::Create { .. });
        if let Some(e) = failed.clone().filter(|_| steps.iter().any(waits)) {
            (replica, blocked) = (replica.map(|_| Phase::Failed), Some(e));
        }
        for step in steps.into_iter().filter(|step| !waits(step)) {
            match self.shared_act(spec, set, name, &step).await {
                Ok(true) => {}
                Ok(false) => replica = Some(Phase::Creating),
                Err(e) => {
                    blocked = Some(e.to_string());
                    if matches!(step, Step::Create { .. } | Step::Destroy) {
                        replica = replica.map(|_| Phase::Failed);
                    }
                    break;
                }
            }
        }
        (replica, blocked)
    }

    /// What is known of the volume, and of none of its replicas.
    fn shared_seen(&mut self, spec: &VolumeSpec, set: &ReplicaSet, clone_waits: bool) -> Seen {
        let made = self.is_made(set);
        let id = &spec.id;
        let group = self.groups.get(id).filter(|g| g.phase() != writer::Phase::Fenced);
        Seen {
            unread: self.unread.clone(),
            clone_waits,
            served: self.exports.get(id).filter(|e| e.is_serving()).map(Export::epoch),
            led: group.map(|g| g.epoch()),
            led_size: group.map_or(0, |g| g.size()),
            settled: group.is_some_and(|g| g.is_settled()),
            live: self.live(),
            made,
            ..Seen::default()
        }
    }

    fn replica_seen(&self, spec: &VolumeSpec, replica: &Replica, name: &str, seen: &Seen) -> Seen {
        let told = self.replica_status(&spec.id, &replica.place);
        let had_disk = told.filter(|s| s.phase != Phase::Gone).and_then(|s| s.disk);
        let bound = place::disk_of(&replica.place).map(str::to_owned);
        let stored = self.stored.get(name).cloned();
        let is_out = |disk: &String| self.pool.disk(disk).is_none();
        // One that cannot be read is on its way out, and what was not found may be on it.
        let unseen = stored.is_none() && self.unread.is_some();
        let disk_away = match &bound {
            Some(_) => bound.clone().filter(is_out),
            None => had_disk.clone().filter(|disk| unseen || is_out(disk)),
        };
        let source = spec.source.as_ref().and_then(|source| self.source(source, bound.as_deref()));
        Seen {
            disk_away,
            stored,
            had_disk,
            in_the_making: self.making.contains_key(name) || self.pool.is_claimed(&spec.id),
            source: match source {
                None => Origin::Absent,
                Some((_, true)) => Origin::InSync,
                Some((_, false)) => Origin::Behind,
            },
            ..seen.clone()
        }
    }

    /// Whether a volume that was never written can be: its replicas in sync are made, or one is and the others take
    /// too long.
    fn is_made(&mut self, set: &ReplicaSet) -> bool {
        if set.epoch > 0 {
            return true;
        }
        let first = *self.first_seen.entry(set.id.clone()).or_insert_with(Instant::now);
        let ready = |at: &str| match place::node_of(at) == self.node {
            true => {
                let name = place::name(&set.id, at);
                self.stored.contains_key(&name) && !self.making.contains_key(&name)
            }
            false => {
                let status = self.replica_statuses.get(&ReplicaStatus::id_of(&set.id, at));
                status.is_some_and(|s| s.phase == Phase::Ready)
            }
        };
        let late = first.elapsed() >= MAKING_PATIENCE;
        set.in_sync().all(ready) || (late && set.in_sync().any(ready))
    }

    fn replica_status(&self, id: &str, at: &str) -> Option<ReplicaStatus> {
        let told = self.told_replicas.get(&place::name(id, at)).cloned();
        let key = ReplicaStatus::id_of(id, at);
        told.or_else(|| self.replica_statuses.get(&key).map(|s| ReplicaStatus::clone(&s)))
    }

    /// What a clone's source goes by here, and whether that is in sync: one that is, and on the clone's disk, if possible.
    pub(super) fn source(&self, source: &str, disk: Option<&str>) -> Option<(String, bool)> {
        let here: Vec<(String, bool)> = match self.sets.get(source) {
            Some(set) => {
                set.on_node(&self.node).map(|r| (place::name(source, &r.place), r.in_sync)).collect()
            }
            None => vec![(source.to_owned(), true)],
        };
        let made = here.into_iter().filter(|(name, _)| !self.making.contains_key(name));
        let stored = made.filter_map(|(name, in_sync)| {
            let beside = disk == Some(self.stored.get(&name)?.disk.as_str());
            Some((in_sync, beside, name))
        });
        stored.max().map(|(in_sync, _, name)| (name, in_sync))
    }

    /// Does a step; false if it goes on in the background.
    async fn shared_act(
        &mut self,
        spec: &VolumeSpec,
        set: &ReplicaSet,
        name: &str,
        step: &Step,
    ) -> io::Result<bool> {
        tracing::info!(volume = spec.id, name, ?step, "acting");
        match step {
            Step::Unexport => self.unexport(&spec.id).await?,
            Step::Unlead => drop(self.groups.remove(&spec.id)),
            Step::Create { source, exact } => {
                self.create_replica(spec, name, source.as_deref(), *exact)?;
                return Ok(false);
            }
            Step::Destroy => {
                self.replicas.forget(name);
                self.destroy(name).await?;
            }
            Step::Lead(_) => self.lead(spec).await?,
            Step::Grow => {
                let (group, size) = (self.groups.get(&spec.id).cloned(), spec.size);
                if let Some(group) = group {
                    // It may be held for as long as a node is away, which must hold up nothing else.
                    drop(spawn_blocking(move || group.grow(size)));
                }
            }
            Step::Export(epoch) => self.export_shared(spec, *epoch).await?,
            Step::Prepare => {
                let size = spec.size;
                let read_only = spec.read_only;
                tracing::debug!(volume = spec.id, replicas = set.replicas.len(), "a volume will move here");
                self.serve_media(spec, 0, Arc::new(media::Prepared { size, read_only })).await?;
            }
        }
        Ok(true)
    }

    fn create_replica(
        &mut self,
        spec: &VolumeSpec,
        name: &str,
        source: Option<&str>,
        exact: bool,
    ) -> io::Result<()> {
        let Some(recode) = self.known(self.recode(spec))? else { return Ok(()) };
        let source =
            source.and_then(|source| self.source(source, place::split(name).1)).map(|(name, _)| name);
        let new = NewVolume { id: name.into(), size: spec.size, read_only: spec.read_only, source };
        let (pool, news, means) = (self.pool.clone(), self.news.clone(), self.means.clone());
        let runtime = tokio::runtime::Handle::current();
        let task = spawn_blocking(move || {
            let source = new.source.clone().filter(|_| exact);
            let read = |name: &String| {
                let volume = place::split(name).0;
                runtime.block_on(records::read_at(&means.store, volume))
            };
            let before = source.as_ref().map(&read).transpose().map_err(io::Error::other)?.flatten();
            let made = pool.create_checked(&new, recode.as_ref(), || {
                let Some(source) = &source else { return Ok(()) };
                let after = read(source).map_err(io::Error::other)?;
                let here = |r: &Replica| {
                    r.in_sync
                        && r.node() == means.node
                        && place::name(place::split(source).0, &r.place) == *source
                };
                let in_sync = after.as_ref().is_none_or(|(set, _)| set.replicas.iter().any(here));
                // One that changes may have missed a write while it was copied, and have caught up since.
                let still = before == after || pool.open(source)?.read_only();
                if in_sync && still { Ok(()) } else { Err(media::held("its source is behind here")) }
            });
            news.send_modify(|n| *n += 1);
            made.map(drop)
        });
        self.making.insert(name.into(), task);
        Ok(())
    }

    /// Starts the writer of a volume.
    async fn lead(&mut self, spec: &VolumeSpec) -> io::Result<()> {
        let read = records::read(&self.means.store, &spec.id).await.map_err(io::Error::other)?;
        let Some(set) = read else { return Err(io::Error::other("its replicas are not known")) };
        let group = Arc::new(Group::start(self.means.clone(), set, spec));
        if let Some(switch) =
            self.switches.get(&spec.id).cloned().filter(|_| self.exports.contains_key(&spec.id))
        {
            let media = self.guarded(spec, group.clone())?;
            // Waits for requests under way, which may take as long as the disk does.
            spawn_blocking(move || switch.set(media)).await.map_err(io::Error::other)?;
        }
        self.groups.insert(spec.id.clone(), group);
        Ok(())
    }

    async fn export_shared(&mut self, spec: &VolumeSpec, epoch: u64) -> io::Result<()> {
        let Some(group) = self.groups.get(&spec.id).cloned() else {
            return Err(io::Error::other("its writer does not run"));
        };
        match self.exports.get(&spec.id).filter(|e| e.is_serving()) {
            // It serves the group since that was started.
            Some(export) => export.set_epoch(epoch),
            None => self.serve_media(spec, epoch, group).await?,
        }
        Ok(())
    }

    /// Serves whatever it is; it may become something else.
    pub(super) async fn serve_media(
        &mut self,
        spec: &VolumeSpec,
        epoch: u64,
        media: Arc<dyn Media>,
    ) -> io::Result<()> {
        let id = &spec.id;
        let media = self.guarded(spec, media)?;
        self.unexport(id).await?; // one whose thread died
        let (serve, volume, switch) = (self.serve.clone(), id.clone(), Arc::new(Switch::new(media)));
        switch.limit(&spec.limits);
        let served = switch.clone();
        let export = blocking(move || {
            serve.prepare()?;
            Export::start(&volume, epoch, served, &serve)
        });
        self.exports.insert(id.clone(), export.await?);
        self.switches.insert(id.clone(), switch);
        Ok(())
    }

    async fn shared_tell(
        &mut self,
        spec: &VolumeSpec,
        set: &ReplicaSet,
        replicas: Phases,
        blocked: Option<String>,
    ) -> Result<(), StoreError> {
        if !self.live() {
            return Ok(());
        }
        for (at, (phase, error)) in &replicas {
            self.tell_replica(spec, at, *phase, error.clone()).await?;
        }
        self.tell_prepared(spec).await?;
        if spec.lead() == self.node {
            self.tell_volume(spec, set, &replicas, blocked).await?;
        }
        Ok(())
    }

    async fn tell_replica(
        &mut self,
        spec: &VolumeSpec,
        at: &str,
        phase: Phase,
        error: Option<String>,
    ) -> Result<(), StoreError> {
        let name = place::name(&spec.id, at);
        let known = self.replica_status(&spec.id, at);
        let stored = self.stored.get(&name);
        let usage = stored.map(|_| self.usage.get(&name).copied().unwrap_or(0));
        let before = known.as_ref().filter(|_| phase != Phase::Gone);
        let status = ReplicaStatus {
            volume: spec.id.clone(),
            node: self.node.clone(),
            bound: place::disk_of(at).map(str::to_owned),
            phase,
            error,
            disk: stored.map(|s| s.disk.clone()).or_else(|| before.and_then(|s| s.disk.clone())),
            allocated: report::allocated(before.map_or(0, |s| s.allocated), usage),
        };
        if known.as_ref() != Some(&status) {
            self.store.put_record(&status).await?;
        }
        self.told_replicas.insert(name, status);
        Ok(())
    }

    /// What was told of replicas that are in no place of this node any more is told anew if they come back.
    fn forget_moved(&mut self, set: &ReplicaSet) {
        let here: Vec<String> = set.on_node(&self.node).map(|r| place::name(&set.id, &r.place)).collect();
        for name in names_of(&self.told_replicas, &set.id).iter().filter(|name| !here.contains(name)) {
            self.told_replicas.remove(name);
        }
    }

    async fn tell_prepared(&mut self, spec: &VolumeSpec) -> Result<(), StoreError> {
        let key = (spec.id.clone(), spec.generation);
        let export = self.exports.get(&spec.id).filter(|e| e.is_serving());
        let moves_here = spec.moving.as_ref() == Some(&self.node);
        match export.filter(|_| moves_here) {
            Some(export) if !self.told_prepared.contains(&key) => {
                let (volume, node) = (spec.id.clone(), self.node.clone());
                let socket = export.socket().display().to_string();
                let prepared = Prepared { volume, node, generation: spec.generation, socket };
                self.store.put_record(&prepared).await?;
                self.told_prepared.insert(key);
            }
            None if self.told_prepared.iter().any(|(id, _)| *id == spec.id) => {
                let id = format!("{}/{}", spec.id, self.node);
                self.store.delete_record::<Prepared>(&id).await?;
                self.told_prepared.retain(|(id, _)| *id != spec.id);
            }
            _ => {}
        }
        Ok(())
    }

    async fn tell_volume(
        &mut self,
        spec: &VolumeSpec,
        set: &ReplicaSet,
        own: &Phases,
        blocked: Option<String>,
    ) -> Result<(), StoreError> {
        let of = |at: &str| -> Option<ReplicaStatus> {
            let key = ReplicaStatus::id_of(&spec.id, at);
            self.replica_statuses.get(&key).map(|s| ReplicaStatus::clone(&s))
        };
        let phase_of = |at: &str| match own.get(at) {
            Some((phase, _)) => *phase,
            None => of(at).map_or(Phase::Creating, |s| s.phase),
        };
        let phase = volume_phase(spec, set, phase_of);
        let export = self.exports.get(&spec.id).filter(|e| e.is_serving() && e.epoch() > 0);
        let group = self.groups.get(&spec.id);
        let told = self.statuses.get(&spec.id).map(|s| VolumeStatus::clone(&s));
        // The node that led it before may have had the last word.
        let overwritten = told.as_ref().is_some_and(|s| s.node != self.node);
        let known = self.reported.get(&spec.id).cloned().filter(|_| !overwritten).or(told);
        let replicas: Vec<ReplicaStatus> = set.in_sync().filter_map(of).collect();
        let status = VolumeStatus {
            id: spec.id.clone(),
            node: self.node.clone(),
            generation: spec.generation,
            phase,
            error: blocked.or_else(|| group.filter(|g| g.is_full()).map(|_| "disk full".to_owned())),
            socket: export.map(|e| e.socket().display().to_string()),
            epoch: export.map_or(0, Export::epoch),
            size: match phase {
                Phase::Ready => group.map_or(spec.size, |g| g.size()),
                _ => 0,
            },
            allocated: replicas.iter().map(|s| s.allocated).max().unwrap_or(0),
            disk: replicas.iter().find_map(|s| s.disk.clone()),
            behind: group.map_or(0, |g| report::rounded(g.behind() * REGION)),
            rebuilt: group.map_or(0, |g| g.rebuilt().moved),
            compared: group.map_or(0, |g| g.rebuilt().compared),
            corrupt: own
                .keys()
                .filter_map(|at| self.replicas.volume(&place::name(&spec.id, at)))
                .map(|v| v.findings().corrupt)
                .sum(),
        };
        if known.as_ref() != Some(&status) {
            self.store.put_record(&status).await?;
        }
        self.reported.insert(spec.id.clone(), status);
        Ok(())
    }

    /// Destroys what is on a disk here.
    pub(super) async fn destroy(&mut self, name: &str) -> io::Result<()> {
        let (pool, doomed) = (self.pool.clone(), name.to_owned());
        blocking(move || pool.destroy(&doomed)).await?;
        self.stored.remove(name);
        self.empty_trash();
        Ok(())
    }
}

/// How far a volume is, given how far its replicas are: there when one in sync is, gone when all are.
fn volume_phase(spec: &VolumeSpec, set: &ReplicaSet, of: impl Fn(&str) -> Phase) -> Phase {
    if spec.deleted {
        let gone = set.replicas.iter().all(|r| of(&r.place) == Phase::Gone);
        return if gone { Phase::Gone } else { Phase::Ready };
    }
    let phases: Vec<Phase> = set.in_sync().map(of).collect();
    match phases.contains(&Phase::Ready) {
        true => Phase::Ready,
        false if phases.iter().all(|p| *p == Phase::Failed) => Phase::Failed,
        false => Phase::Creating,
    }
}
