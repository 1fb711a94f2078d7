//! What is on the disks, and whether it is at rest: all of it is looked at once in a while, else what a pass looks at.
//!
//! It reads the disks of the pool, and changes only what the reconciler knows of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use cairn_state::{Fault, Mirror};
use tokio::task::spawn_blocking;

use super::attention::Look;
use super::plan::Stored;
use super::reconcile::Volumes;
use crate::fsio;
use crate::model::{Phase, VolumeSpec};
use crate::pool::Pool;
use crate::replication::place;
use crate::replication::set::ReplicaSet;

/// How often the room that volumes take is read again.
const USAGE_INTERVAL: Duration = Duration::from_secs(60);

impl Volumes {
    /// Looks which volumes are on the disks.
    pub(super) async fn survey(&mut self) -> Result<(), Fault> {
        let (pool, known) = (self.pool.clone(), std::mem::take(&mut self.stored));
        let surveyed = spawn_blocking(move || survey(&pool, known)).await;
        (self.stored, self.unread) = surveyed.map_err(|e| Fault::new("the survey of the disks", e))?;
        let due = self.usage_read.is_none_or(|at| at.elapsed() >= USAGE_INTERVAL);
        let all: Vec<(String, String)> = self
            .stored
            .iter()
            .filter(|(id, _)| due || !self.usage.contains_key(*id))
            .map(|(id, stored)| (id.clone(), stored.disk.clone()))
            .collect();
        let pool = self.pool.clone();
        let read = spawn_blocking(move || usage(&pool, all)).await;
        self.usage.extend(read.map_err(|e| Fault::new("the survey of the disks", e))?);
        self.usage.retain(|id, _| self.stored.contains_key(id));
        if due {
            self.usage_read = Some(Instant::now());
        }
        Ok(())
    }

    /// Looks which of these volumes are on the disks.
    pub(super) async fn survey_some(&mut self, ids: &BTreeSet<String>) -> Result<(), Fault> {
        let (pool, ids) = (self.pool.clone(), ids.clone());
        let names: Vec<String> = ids.iter().flat_map(|id| names_of(&self.stored, id)).collect();
        let measured: BTreeSet<String> =
            names.iter().filter(|name| self.usage.contains_key(*name)).cloned().collect();
        let known = names.into_iter().filter_map(|name| Some((name.clone(), self.stored.remove(&name)?)));
        let mut known: BTreeMap<String, Stored> = known.collect();
        let surveyed = spawn_blocking(move || {
            let of = |name: String| {
                let disk = pool.find(&name)?;
                let stored = known.remove(&name).filter(|s| s.disk == disk.id());
                let stored = stored.or_else(|| read(&pool, disk.id(), &name))?;
                let directory = disk.volume(place::split(&name).0);
                let usage = (!measured.contains(&name)).then(|| fsio::allocated(&directory));
                Some((name, stored, usage))
            };
            let found: Vec<_> = ids.iter().flat_map(|id| names_on(&pool, id)).filter_map(of).collect();
            let unread = pool
                .disks()
                .into_iter()
                .find_map(|disk| Some(format!("disk {}: {}", disk.id(), disk.check_readable().err()?)));
            (found, unread.or_else(|| pool.unread()))
        });
        let (found, unread) = surveyed.await.map_err(|e| Fault::new("the survey of the disks", e))?;
        self.unread = unread;
        for (id, stored, usage) in found {
            self.usage.extend(usage.map(|bytes| (id.clone(), bytes)));
            self.stored.insert(id, stored);
        }
        Ok(())
    }

    /// Whether nothing is done with a volume and nothing is to be done, as long as no record of it changes.
    pub(super) fn rests(&self, id: &str) -> bool {
        let used = self.exports.contains_key(id) || self.groups.contains_key(id);
        if used || self.making.contains_key(id) || self.pool.is_claimed(id) {
            return false;
        }
        let is_well = |phase: Phase, error: &Option<String>| phase == Phase::Ready && error.is_none();
        let volume = self.reported.get(id).map(|s| is_well(s.phase, &s.error));
        let names = self.sets.get(id).map_or_else(|| vec![id.to_owned()], |set| self.names(&set));
        if names.iter().any(|name| self.making.contains_key(name)) {
            return false;
        }
        let told = names.iter().filter_map(|name| self.told_replicas.get(name));
        let replica = told.map(|s| is_well(s.phase, &s.error)).reduce(|all, one| all && one);
        // Of what was not reported there is more to come.
        volume.or(replica).is_some() && volume.unwrap_or(true) && replica.unwrap_or(true)
    }

    /// What this node's replicas of a volume go by.
    fn names(&self, set: &ReplicaSet) -> Vec<String> {
        set.on_node(&self.node).map(|r| place::name(&set.id, &r.place)).collect()
    }

    /// Whether something of a volume is still to be made here of its source.
    pub(super) fn is_unmade(&self, spec: &VolumeSpec) -> bool {
        let lacks = |name: &String| !self.stored.contains_key(name);
        match self.sets.get(&spec.id) {
            Some(set) => set.on_node(&self.node).any(|r| {
                let wants = !r.leaving && (r.in_sync || set.epoch == 0);
                wants && lacks(&place::name(&set.id, &r.place))
            }),
            None => lacks(&spec.id),
        }
    }

    pub(super) fn note_orphans(&mut self, look: &Look) {
        let orphan = |name: &&String| {
            let spec = self.specs.get(place::split(name).0);
            !spec.is_some_and(|s| concerns(&s, &self.sets, &self.node))
        };
        match look {
            Look::All => self.orphans = self.stored.keys().filter(orphan).cloned().collect(),
            Look::At(ids) => {
                let names: Vec<String> = ids.iter().flat_map(|id| names_of(&self.stored, id)).collect();
                let found: Vec<String> = names.iter().filter(orphan).cloned().collect();
                self.orphans.retain(|name| !ids.contains(place::split(name).0));
                self.orphans.extend(found);
            }
        }
    }
}

/// Whether a node has to do with a volume that this engine keeps.
pub(super) fn concerns(spec: &VolumeSpec, sets: &Mirror<ReplicaSet>, node: &str) -> bool {
    if spec.backend.is_some() {
        return false;
    }
    let used = spec.lead() == node || spec.moving.as_deref() == Some(node);
    used || spec.node == node || sets.get(&spec.id).is_some_and(|set| set.on_node(node).next().is_some())
}

/// What there is of a volume in what is known by what replicas go by, by that.
pub(super) fn names_of<T>(stored: &BTreeMap<String, T>, id: &str) -> Vec<String> {
    let (first, end) = (place::on_disk(id, ""), place::on_disk(id, "\u{7f}"));
    let bound = stored.range(first..end).map(|(name, _)| name.clone());
    stored.contains_key(id).then(|| id.to_owned()).into_iter().chain(bound).collect()
}

/// What there is of a volume on the disks, by what it goes by.
pub(super) fn names_on(pool: &Pool, id: &str) -> Vec<String> {
    let holders = pool.disks().into_iter().filter(|disk| disk.holds(id));
    let names = holders.map(|d| if d.is_pinned(id) { place::on_disk(id, d.id()) } else { id.to_owned() });
    names.collect::<BTreeSet<String>>().into_iter().collect()
}

/// The disks in use, and what is wrong with others.
pub(super) fn disks(pool: &Pool) -> Vec<String> {
    pool.disks().iter().map(|d| d.id().to_owned()).chain(pool.unread()).collect()
}

/// The volumes on the disks (sizes are read only of those not known), and a disk of ours that could not be read.
fn survey(pool: &Pool, mut known: BTreeMap<String, Stored>) -> (BTreeMap<String, Stored>, Option<String>) {
    let (mut found, mut unread) = (BTreeMap::new(), pool.unread());
    for disk in pool.disks() {
        let volumes = disk.replicas().unwrap_or_else(|e| {
            unread = Some(format!("disk {}: {e}", disk.id()));
            Vec::new()
        });
        for id in volumes {
            let stored = known.remove(&id).filter(|s| s.disk == disk.id());
            if let Some(stored) = stored.or_else(|| read(pool, disk.id(), &id)) {
                found.insert(id, stored);
            }
        }
    }
    // Asked again: a disk that came or went meanwhile is not missed.
    (found, unread.or_else(|| pool.unread()))
}

/// Bytes that volumes (each with its disk) take.
fn usage(pool: &Pool, volumes: Vec<(String, String)>) -> Vec<(String, u64)> {
    let disks = pool.disks();
    let of = |id: &str, disk: &str| {
        let disk = disks.iter().find(|d| d.id() == disk);
        disk.map_or(0, |d| fsio::allocated(&d.volume(place::split(id).0)))
    };
    volumes.into_iter().map(|(id, disk)| (of(&id, &disk), id)).map(|(bytes, id)| (id, bytes)).collect()
}

pub(super) fn find(pool: &Pool, id: &str) -> Option<Stored> {
    pool.find(id).and_then(|disk| read(pool, disk.id(), id))
}

fn read(pool: &Pool, disk: &str, id: &str) -> Option<Stored> {
    match pool.open(id) {
        Ok(volume) => Some(Stored { disk: disk.to_owned(), size: volume.size() }),
        Err(e) => {
            tracing::warn!(volume = id, disk, error = %e, "a volume's directory cannot be read");
            None
        }
    }
}
