//! Disks that were put into other nodes: a node that has a disk which no live node has as its own, adopts it.
//!
//! The store decides, and leads: one transaction makes the disk that node's ([`DiskOwner`]), and puts all that the store
//! believes to be on it there, bound to the disk. Which replicas are in sync stays as it is: one that writes were
//! acknowledged without while it was away was called out of sync before, and gets what it missed. Whoever writes meanwhile
//! fails to change the record, or sees it changed, and begins anew. Only then the node makes the disk its own
//! ([`crate::ownership`]), so that whatever crashes in between is found undone.
//!
//! It must never take a disk from a live node that has it, nor say of a replica that it has more than it had.

use std::collections::{BTreeMap, BTreeSet};

use cairn_state::{Abort, LocalStore, Record, Tx};

use crate::backup::{BackupSpec, BackupStatus};
use crate::conductor::Nodes;
use crate::model::{DiskOwner, DiskStatus, Phase, ReplicaStatus, VolumeSpec, VolumeStatus};
use crate::replication::place;
use crate::replication::set::{Replica, ReplicaSet};

/// Has disks adopted that can be; true if there were any.
pub async fn pass(store: &LocalStore, nodes: &Nodes) -> Result<bool, Abort> {
    let disks: Vec<DiskStatus> = store.read(|tx| tx.list_unfenced())?;
    let visiting: BTreeSet<&str> =
        disks.iter().filter(|d| d.visiting.is_some()).map(|d| d.disk.as_str()).collect();
    let mut adopted = false;
    for disk in visiting {
        adopted |= store.transact(|tx| adopt(tx, disk, nodes)).await?;
    }
    Ok(adopted)
}

/// The report of the node that is to adopt a disk, if one is: it has it, no live node has it as its own, and all live
/// nodes know of disks that move.
fn adopter<'a>(
    disk: &str,
    reports: &'a [DiskStatus],
    owner: Option<&DiskOwner>,
    nodes: &Nodes,
) -> Option<&'a DiskStatus> {
    let alive = || reports.iter().filter(|d| nodes.alive.contains(&d.node));
    let mut of = alive().filter(|d| d.disk == disk && !d.gone);
    // Of two that have it one is a copy, and nobody knows which.
    let (here, other) = (of.next()?, of.next());
    let is_asked_for = other.is_none() && here.visiting.is_some() && alive().all(|d| d.knows_owners);
    let is_done = owner.is_some_and(|o| o.node == here.node);
    (is_asked_for && !is_done).then_some(here)
}

/// Makes a disk that of the node it is in, if that may be.
fn adopt(tx: &mut Tx, disk: &str, nodes: &Nodes) -> Result<bool, Abort> {
    let mut reports = Vec::new();
    for report in tx.list_unfenced::<DiskStatus>()? {
        match report.disk == disk {
            // What was said of this disk must be what is said when it becomes another's.
            true => reports.extend(tx.get::<DiskStatus>(&report.id())?),
            false => reports.push(report),
        }
    }
    let owner = tx.get::<DiskOwner>(disk)?;
    let Some(here) = adopter(disk, &reports, owner.as_ref(), nodes) else { return Ok(false) };
    let Some(visiting) = &here.visiting else { return Ok(false) };
    let believed = Believed::read(tx)?;
    let to =
        To { node: &here.node, disk, owner: &visiting.owner, unbound: visiting.unbound.iter().collect() };
    let mut count = 0;
    for id in &believed.volumes {
        count += usize::from(take_volume(tx, id, &to, &believed)?);
    }
    for id in &visiting.backups {
        take_backup(tx, id, &here.node)?;
    }
    for old in reports.iter().filter(|d| d.disk == disk && d.node != here.node) {
        tx.delete::<DiskStatus>(&old.id())?;
    }
    tracing::info!(
        disk,
        node = here.node,
        from = visiting.owner,
        volumes = count,
        "a disk is another node's now"
    );
    put_owner(tx, owner, disk, &here.node)?;
    Ok(true)
}

/// Whoever has this disk from now on must adopt it.
pub(crate) fn disown(tx: &mut Tx, disk: &str) -> Result<(), Abort> {
    let owner = tx.get::<DiskOwner>(disk)?;
    put_owner(tx, owner, disk, "")
}

fn put_owner(tx: &mut Tx, before: Option<DiskOwner>, disk: &str, node: &str) -> Result<(), Abort> {
    let adoption = before.map_or(0, |o| o.adoption) + 1;
    tx.put(&DiskOwner { disk: disk.into(), node: node.into(), adoption })
}

/// Where a disk is now.
struct To<'a> {
    node: &'a str,
    disk: &'a str,
    /// Whose it was.
    owner: &'a str,
    /// Volumes on it that are not bound to it.
    unbound: BTreeSet<&'a String>,
}

impl To<'_> {
    fn place(&self) -> String {
        place::on_disk(self.node, self.disk)
    }

    /// Whether what a node has of a volume, unbound, is on this disk: the store's word, or if it has none, the disk's.
    fn has_of(&self, volume: &String, node: &str, told: Option<&String>) -> bool {
        match told {
            Some(disk) => disk == self.disk,
            None => node == self.owner && self.unbound.contains(volume),
        }
    }
}

/// What the store believes of volumes, read at one moment: what a disk has is found by it, and then read to be changed.
struct Believed {
    volumes: Vec<String>,
    sets: BTreeMap<String, ReplicaSet>,
    /// The disks of replicas, and of volumes without a record of such.
    disks: BTreeMap<String, String>,
}

impl Believed {
    fn read(tx: &mut Tx) -> Result<Believed, Abort> {
        let sets = tx.list_unfenced::<ReplicaSet>()?;
        let mut disks = BTreeMap::new();
        for status in tx.list_unfenced::<VolumeStatus>()?.into_iter().filter(|s| s.phase != Phase::Gone) {
            let at = ReplicaStatus::id_of(&status.id, &status.node);
            disks.extend(status.disk.map(|disk| (at, disk)));
        }
        // Of a volume with several replicas the one that leads it tells of any, each of its own.
        for set in &sets {
            set.replicas.iter().for_each(|r| drop(disks.remove(&ReplicaStatus::id_of(&set.id, r.node()))));
        }
        for status in tx.list_unfenced::<ReplicaStatus>()?.into_iter().filter(|s| s.phase != Phase::Gone) {
            let at = status.id();
            disks.extend(status.disk.map(|disk| (at, disk)));
        }
        let volumes = tx.list_unfenced::<VolumeSpec>()?.into_iter().map(|s| s.id).collect();
        let sets = sets.into_iter().map(|set| (set.id.clone(), set)).collect();
        Ok(Believed { volumes, sets, disks })
    }

    /// The disk of what is unbound of a volume on a node.
    fn disk(&self, volume: &str, node: &str) -> Option<&String> {
        self.disks.get(&ReplicaStatus::id_of(volume, node))
    }

    /// The place of the replica that is on a disk.
    fn place_of(&self, set: &ReplicaSet, to: &To<'_>) -> Option<String> {
        let is_there = |r: &&Replica| match place::disk_of(&r.place) {
            Some(disk) => disk == to.disk,
            None => to.has_of(&set.id, r.node(), self.disk(&set.id, r.node())),
        };
        set.replicas.iter().find(is_there).map(|r| r.place.clone())
    }
}

/// Puts what a disk has of a volume where the disk is; true if it has something.
fn take_volume(tx: &mut Tx, id: &String, to: &To<'_>, believed: &Believed) -> Result<bool, Abort> {
    let at = to.place();
    let Some(from) = (match believed.sets.get(id) {
        Some(set) => believed.place_of(set, to).filter(|from| *from != at && set.on(&at).is_none()),
        None => None,
    }) else {
        return match believed.sets.contains_key(id) {
            true => Ok(false),
            false => take_only_copy(tx, id, to, believed),
        };
    };
    let (Some(spec), Some(set)) = (tx.get::<VolumeSpec>(id)?, tx.get::<ReplicaSet>(id)?) else {
        return Ok(false);
    };
    if set.on(&from).is_none() || set.on(&at).is_some() {
        return Ok(false);
    }
    let moved = set.moved(&from, &at);
    tx.put(&moved)?;
    let told = ReplicaStatus::id_of(id, &from);
    let old = tx.get::<ReplicaStatus>(&told)?;
    tx.delete::<ReplicaStatus>(&told)?;
    tell(tx, id, to, old)?;
    let has_none = moved.on_node(&spec.node).next().is_none();
    if spec.export.is_none() && has_none && moved.is_in_sync(&at) && place::node_of(&from) == spec.node {
        keep_on(tx, spec, to.node)?;
    }
    Ok(true)
}

/// The same for a volume of which there is one copy and no record of replicas. It gets one, which names the disk.
fn take_only_copy(tx: &mut Tx, id: &String, to: &To<'_>, believed: &Believed) -> Result<bool, Abort> {
    let Some(spec) = tx.get::<VolumeSpec>(id)? else { return Ok(false) };
    if tx.get::<ReplicaSet>(id)?.is_some() || !to.has_of(id, &spec.node, believed.disk(id, &spec.node)) {
        return Ok(false);
    }
    // It was written, under the last epoch: whatever is missing is never made anew.
    let set = ReplicaSet { epoch: spec.epoch(), ..ReplicaSet::new(id, [to.place()]) };
    tx.put(&set)?;
    tell(tx, id, to, None)?;
    match spec.export.is_some() {
        // Its user stays where it is, or is started elsewhere, and reaches it there.
        true => tx.put(&VolumeSpec { node: to.node.into(), generation: spec.generation + 1, ..spec })?,
        false => keep_on(tx, spec, to.node)?,
    }
    Ok(true)
}

/// Says of a replica where it is, until its new node does: what was there once is never made anew.
fn tell(tx: &mut Tx, id: &str, to: &To<'_>, old: Option<ReplicaStatus>) -> Result<(), Abort> {
    tx.put(&ReplicaStatus {
        volume: id.into(),
        node: to.node.into(),
        bound: Some(to.disk.into()),
        phase: Phase::Creating,
        error: Some(format!("its disk {} was put into another node", to.disk)),
        disk: Some(to.disk.into()),
        allocated: old.map_or(0, |s| s.allocated),
    })
}

/// A volume that nobody uses is kept by another node.
fn keep_on(tx: &mut Tx, spec: VolumeSpec, node: &str) -> Result<(), Abort> {
    let (generation, keeper_epoch) = (spec.generation + 1, spec.generation + 1);
    tx.put(&VolumeSpec { node: node.into(), generation, keeper_epoch, ..spec })
}

/// A whole backup that is on the disk is this node's from now on.
fn take_backup(tx: &mut Tx, id: &str, node: &str) -> Result<(), Abort> {
    let (Some(spec), Some(status)) = (tx.get::<BackupSpec>(id)?, tx.get::<BackupStatus>(id)?) else {
        return Ok(());
    };
    if status.phase != Phase::Ready || spec.node == node {
        return Ok(());
    }
    tx.put(&BackupSpec { node: node.into(), ..spec })?;
    tx.put(&BackupStatus { node: node.into(), ..status })
}

#[cfg(test)]
mod tests;
