//! What an operator wants of data disks: to see them, to have them emptied, to give them up, to keep them after all.
//!
//! It writes [`DiskWish`] records alone. The conductor moves what is on such a disk, and the agents put nothing new there.
//! It must never let a disk go that has the only copy of something, unless that was ordered in so many words.

use std::collections::{BTreeMap, BTreeSet};

use cairn_state::{Abort, Record, Tx};
use serde::{Deserialize, Serialize};

use crate::adoption;
use crate::health::Health;
use crate::model::{DiskStatus, DiskWish, ReplicaMove, ReplicaStatus, VolumeSpec, VolumeStatus};
use crate::replication::place;
use crate::replication::placement;
use crate::replication::set::ReplicaSet;

/// How many volumes are named when they stand against an order.
const NAMED_MAX: usize = 5;

/// How a disk is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskState {
    /// In use.
    Used,
    /// It cannot be written, or does not answer, or is not there.
    Lost,
    /// It is being emptied.
    Draining,
    /// It was to be emptied, and is. It may be kept, or retired.
    Drained,
    /// It is given up, and nothing is on it: it may be taken out.
    Retired,
    /// It belongs to another node: nothing on it is used here, until that node is known to be without it.
    Elsewhere,
}

/// A disk, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskView {
    /// The node it is in.
    pub node: String,
    /// Its id.
    pub disk: String,
    /// Where it is mounted.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// Bytes free.
    pub free: u64,
    /// How it is doing.
    pub state: DiskState,
    /// Volumes, or replicas of volumes, that are on it.
    pub volumes: usize,
    /// Replicas of those that come from fuller disks now, see [`crate::balance`].
    #[serde(default)]
    pub coming: usize,
    /// Replicas of those that go to emptier disks now.
    #[serde(default)]
    pub going: usize,
    /// Whether there are backups on it.
    pub backups: bool,
    /// What is wrong with it.
    pub error: Option<String>,
    /// What it says of itself, if it can be asked.
    #[serde(default)]
    pub health: Option<Health>,
}

/// An order about a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskOrder {
    /// The disk's id.
    pub disk: String,
    /// What is wanted.
    pub action: DiskAction,
    /// Whether what only this disk has may be lost, if the disk is gone already.
    #[serde(default)]
    pub lose_volumes: bool,
}

/// What is wanted of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskAction {
    /// To have it emptied.
    Drain,
    /// To have it emptied and forgotten.
    Retire,
    /// To use it as any other.
    Keep,
}

/// Why an order was not carried out.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No such disk.
    #[error("no disk {0} is known; see: cairn disk list")]
    Absent(String),
    /// Volumes would have no copy.
    #[error("the disk {disk} has the only whole copy of {volumes}; {why}")]
    Only {
        /// The disk.
        disk: String,
        /// Some of them.
        volumes: String,
        /// What could be done.
        why: &'static str,
    },
    /// The store could not be read or written.
    #[error(transparent)]
    Store(#[from] Abort),
}

/// The disks that nothing new is put on, by id.
pub fn spared(wishes: &[DiskWish]) -> BTreeSet<String> {
    wishes.iter().map(|w| w.disk.clone()).collect()
}

/// The disks that were given up and are gone, by id.
pub fn given_up(wishes: &[DiskWish], disks: &[DiskStatus]) -> BTreeSet<String> {
    let there: BTreeSet<&str> = disks.iter().filter(|d| d.healthy).map(|d| d.disk.as_str()).collect();
    let retired = wishes.iter().filter(|w| w.retire && !there.contains(w.disk.as_str()));
    retired.map(|w| w.disk.clone()).collect()
}

/// All disks. Reads all volumes: not for a request's path.
pub fn list(tx: &mut Tx) -> Result<Vec<DiskView>, Abort> {
    let wishes: BTreeMap<String, DiskWish> =
        tx.list_unfenced::<DiskWish>()?.into_iter().map(|w| (w.disk.clone(), w)).collect();
    let on = volumes_by_disk(tx)?;
    let moves = tx.list_unfenced::<ReplicaMove>()?;
    let disks = tx.list_unfenced::<DiskStatus>()?.into_iter();
    Ok(disks
        .map(|d| {
            let volumes = on.get(&d.disk).map_or(0, BTreeSet::len);
            let empty = volumes == 0 && !d.has_backups;
            let state = match wishes.get(&d.disk) {
                _ if d.visiting.is_some() => DiskState::Elsewhere,
                Some(wish) if empty => {
                    if wish.retire {
                        DiskState::Retired
                    } else {
                        DiskState::Drained
                    }
                }
                _ if !d.healthy => DiskState::Lost,
                Some(_) => DiskState::Draining,
                None => DiskState::Used,
            };
            let coming = moves.iter().filter(|m| m.to_disk == d.disk).count();
            let going = moves.iter().filter(|m| m.from_disk == d.disk).count();
            DiskView {
                node: d.node,
                disk: d.disk,
                path: d.path,
                size: d.size,
                free: d.free,
                state,
                volumes,
                coming,
                going,
                backups: d.has_backups,
                error: d.error,
                health: d.health,
            }
        })
        .collect())
}

/// Carries out an order.
pub fn order(tx: &mut Tx, order: &DiskOrder) -> Result<(), Error> {
    let disks = tx.list_unfenced::<DiskStatus>()?;
    let there: Vec<&DiskStatus> = disks.iter().filter(|d| d.disk == order.disk).collect();
    if there.is_empty() && tx.get::<DiskWish>(&order.disk)?.is_none() {
        return Err(Error::Absent(order.disk.clone()));
    }
    if order.action == DiskAction::Keep {
        tx.delete::<DiskWish>(&order.disk)?;
        return Ok(());
    }
    let only = only_on(tx, &order.disk)?;
    let healthy = there.iter().any(|d| d.healthy);
    let may_lose = order.lose_volumes && !healthy;
    if !(only.is_empty() || may_lose) {
        refuse_loss(tx, &order.disk, healthy, &disks, &only)?;
    }
    Ok(tx.put(&DiskWish { disk: order.disk.clone(), retire: order.action == DiskAction::Retire })?)
}

/// Has a disk emptied of what other disks can take.
pub(crate) fn empty(tx: &mut Tx, disk: &str) -> Result<(), Abort> {
    tx.put(&DiskWish { disk: disk.into(), retire: false })
}

/// Refuses to let go what no other disk can take.
fn refuse_loss(
    tx: &mut Tx,
    disk: &str,
    healthy: bool,
    disks: &[DiskStatus],
    only: &BTreeMap<String, (String, u64)>,
) -> Result<(), Error> {
    let refused = |why| {
        let named: Vec<&str> = only.keys().take(NAMED_MAX).map(String::as_str).collect();
        let more = match only.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Err(Error::Only { disk: disk.into(), volumes: named.join(", ") + &more, why })
    };
    if !healthy {
        return refused("bring it back, or retire it with --lose-volumes, and they are lost for ever");
    }
    let mut spared = spared(&tx.list_unfenced()?);
    spared.insert(disk.into());
    let candidates = placement::candidates(disks, &spared);
    // A replica beside another of its node is bound to its disk.
    let takes = |node: &str| candidates.iter().any(|c| c.node != node || !c.disks.is_empty());
    if only.values().any(|(node, _)| !takes(node)) {
        return refused("there is no other disk for them: add one first");
    }
    let needed: u64 = only.values().map(|(_, bytes)| bytes).sum();
    if needed > candidates.iter().map(|c| c.free).sum() {
        return refused("there is not enough room for them on other disks: make some first");
    }
    Ok(())
}

/// Forgets wishes about disks of which nothing is left.
pub fn sweep(tx: &mut Tx) -> Result<(), Abort> {
    let wishes: Vec<DiskWish> = tx.list_unfenced::<DiskWish>()?.into_iter().filter(|w| w.retire).collect();
    let known: BTreeSet<String> = tx.list_unfenced::<DiskStatus>()?.into_iter().map(|d| d.disk).collect();
    let on = volumes_by_disk(tx)?;
    let ended = wishes.iter().filter(|w| !known.contains(&w.disk) && !on.contains_key(&w.disk));
    for wish in ended {
        tx.delete::<DiskWish>(&wish.id())?;
        // What is on it was made anew elsewhere: if it ever comes back, nothing there may be taken for that.
        adoption::disown(tx, &wish.disk)?;
    }
    Ok(())
}

/// The volumes of which a disk has the only whole copy, each with its node and the bytes it takes.
fn only_on(tx: &mut Tx, disk: &str) -> Result<BTreeMap<String, (String, u64)>, Abort> {
    let mut only = BTreeMap::new();
    for spec in tx.list_unfenced::<VolumeSpec>()?.into_iter().filter(|s| !s.deleted) {
        let whole: Vec<(String, Option<String>)> = copies(tx, &spec, true)?;
        let status = tx.get::<VolumeStatus>(&spec.id)?;
        if let Some((node, _)) =
            whole.first().filter(|_| whole.iter().all(|(_, on)| on.as_deref() == Some(disk)))
        {
            only.insert(spec.id.clone(), (node.clone(), status.map_or(0, |s| s.allocated)));
        }
    }
    Ok(only)
}

/// The volumes on each disk.
fn volumes_by_disk(tx: &mut Tx) -> Result<BTreeMap<String, BTreeSet<String>>, Abort> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for spec in tx.list_unfenced::<VolumeSpec>()? {
        for disk in copies(tx, &spec, false)?.into_iter().filter_map(|(_, disk)| disk) {
            found.entry(disk).or_default().insert(spec.id.clone());
        }
    }
    Ok(found)
}

/// The disk of a replica: the one its place names, else the one its node has told of, if any.
pub(crate) fn of_replica(tx: &mut Tx, volume: &str, at: &str) -> Result<Option<String>, Abort> {
    match place::disk_of(at) {
        Some(disk) => Ok(Some(disk.to_owned())),
        None => Ok(tx.get::<ReplicaStatus>(&ReplicaStatus::id_of(volume, at))?.and_then(|s| s.disk)),
    }
}

/// The disk of a volume without a record of replicas, if it is known.
pub(crate) fn of_only_copy(tx: &mut Tx, volume: &str) -> Result<Option<String>, Abort> {
    Ok(tx.get::<VolumeStatus>(volume)?.and_then(|s| s.disk))
}

/// The nodes that a volume is on, each with the disk there if it is known; those alone that have all of it if `whole`.
fn copies(tx: &mut Tx, spec: &VolumeSpec, whole: bool) -> Result<Vec<(String, Option<String>)>, Abort> {
    let Some(set) = tx.get::<ReplicaSet>(&spec.id)? else {
        return Ok(vec![(spec.node.clone(), of_only_copy(tx, &spec.id)?)]);
    };
    let mut found = Vec::new();
    for replica in set.replicas.iter().filter(|r| !whole || r.in_sync) {
        found.push((replica.node().to_owned(), of_replica(tx, &set.id, &replica.place)?));
    }
    Ok(found)
}
