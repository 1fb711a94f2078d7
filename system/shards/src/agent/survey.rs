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
        let unmeasured: BTreeSet<String> =
            ids.iter().filter(|id| !self.usage.contains_key(*id)).cloned().collect();
        let known = ids.iter().filter_map(|id| Some((id.clone(), self.stored.remove(id)?)));
        let mut known: BTreeMap<String, Stored> = known.collect();
        let surveyed = spawn_blocking(move || {
            let of = |id: &String| {
                let disk = pool.find(id)?;
                let stored = known.remove(id).filter(|s| s.disk == disk.id());
                let stored = stored.or_else(|| read(&pool, disk.id(), id))?;
                let usage = unmeasured.contains(id).then(|| fsio::allocated(&disk.volume(id)));
                Some((id.clone(), stored, usage))
            };
            let found: Vec<_> = ids.iter().filter_map(of).collect();
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
        let replica = self.told_replicas.get(id).map(|s| is_well(s.phase, &s.error));
        // Of what was not reported there is more to come.
        volume.or(replica).is_some() && volume.unwrap_or(true) && replica.unwrap_or(true)
    }

    pub(super) fn note_orphans(&mut self, look: &Look) {
        let orphan = |id: &&String| {
            let spec = self.specs.get(id);
            self.stored.contains_key(*id) && !spec.is_some_and(|s| concerns(&s, &self.sets, &self.node))
        };
        match look {
            Look::All => self.orphans = self.stored.keys().filter(orphan).cloned().collect(),
            Look::At(ids) => {
                let found: Vec<String> = ids.iter().filter(orphan).cloned().collect();
                self.orphans.retain(|id| !ids.contains(id));
                self.orphans.extend(found);
            }
        }
    }
}

/// Whether a node has to do with a volume.
pub(super) fn concerns(spec: &VolumeSpec, sets: &Mirror<ReplicaSet>, node: &str) -> bool {
    let used = spec.lead() == node || spec.moving.as_deref() == Some(node);
    used || spec.node == node || sets.get(&spec.id).is_some_and(|set| set.on(node).is_some())
}

/// The disks in use, and what is wrong with others.
pub(super) fn disks(pool: &Pool) -> Vec<String> {
    pool.disks().iter().map(|d| d.id().to_owned()).chain(pool.unread()).collect()
}

/// The volumes on the disks (sizes are read only of those not known), and a disk of ours that could not be read.
fn survey(pool: &Pool, mut known: BTreeMap<String, Stored>) -> (BTreeMap<String, Stored>, Option<String>) {
    let (mut found, mut unread) = (BTreeMap::new(), pool.unread());
    for disk in pool.disks() {
        let volumes = disk.volumes().unwrap_or_else(|e| {
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
        disk.map_or(0, |d| fsio::allocated(&d.volume(id)))
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
