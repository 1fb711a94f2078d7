//! Disks that fill evenly: which replicas the controller moves for that, one after another, while all else is well.
//!
//! [`fill`] says what moves. A move is a record and one replica more; once that is in sync, the one that it replaces leaves.
//! It reads all volumes, but only when disks differ, nothing is being rebuilt, and disks are not as they were when nothing
//! could be done. It must never begin a move that leaves volumes fewer copies, or copies less far apart.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use cairn_state::{Abort, LocalStore, Record, Tx};

use crate::conductor::{Nodes, is_made};
use crate::disks;
use crate::model::{DiskStatus, ReplicaMove, ReplicaStatus, VolumeSpec, VolumeStatus};
use crate::replication::fill::{self, BEGIN, Disk, END, Volume};
use crate::replication::place;
use crate::replication::placement;
use crate::replication::set::ReplicaSet;

/// How many replicas move at a time.
const MOVES_MAX: usize = 2;
/// How many are moved until disks are asked again how full they are.
const ROUND_MAX: usize = 20;
/// How long nothing must have changed, so that what disks report is true: XFS gives back after five minutes what it had set
/// aside for files that grew.
const SETTLED: Duration = Duration::from_secs(330);
/// How long nothing is tried again while disks are as they were when nothing could be done.
const VAIN_PAUSE: Duration = Duration::from_secs(1800);
/// A volume moves if others have, at most, this part of what it takes in common with it: elsewhere that takes room again.
const SHARED_PART: u64 = 4;

/// What one controller remembers of evening out.
#[derive(Debug)]
pub(crate) struct Balance {
    /// How long it waits for disks' reports to become true.
    patience: Duration,
    /// Since when nothing has changed.
    rested: Option<Instant>,
    round: Round,
    /// How full disks were when nothing could be done, and when that was.
    vain: Option<(Instant, Vec<(String, u64)>)>,
}

/// Moves that follow each other, faster than disks' reports become true.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Round {
    /// The volumes that were moved since disks were last even: none moves twice.
    moved: BTreeSet<String>,
    /// How much of each disk is used, by what it was before and what was moved.
    used: BTreeMap<String, u64>,
    /// How many were moved since disks were asked.
    count: usize,
}

impl Round {
    /// Begins, or goes on, with disks as they report themselves.
    pub fn ask(&mut self, tx: &mut Tx, nodes: &Nodes) -> Result<(), Abort> {
        self.begin(&usable(tx, nodes)?);
        Ok(())
    }

    fn begin(&mut self, disks: &[Disk]) {
        self.used = disks.iter().map(|d| (d.disk.clone(), d.used)).collect();
        self.count = 0;
    }

    /// Counts what moves.
    pub fn note(&mut self, moves: &[ReplicaMove]) {
        for m in moves {
            self.moved.insert(m.volume.clone());
            self.used.entry(m.from_disk.clone()).and_modify(|used| *used = used.saturating_sub(m.bytes));
            self.used.entry(m.to_disk.clone()).and_modify(|used| *used = used.saturating_add(m.bytes));
        }
        self.count += moves.len();
    }

    /// How far apart disks must be for something to move.
    fn difference(&self) -> u64 {
        if self.moved.is_empty() { BEGIN } else { END }
    }

    fn is_over(&self) -> bool {
        self.used.is_empty() || self.count >= ROUND_MAX
    }

    fn end(&mut self) {
        self.used.clear();
    }
}

/// What came of a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Disks are about equally full.
    Even,
    /// Something moves, or is rebuilt, or waits for a disk or a node.
    Busy,
    /// Disks differ, and no replica can be moved so that they differ less.
    Vain,
    /// These replicas move from now on.
    Moves(Vec<ReplicaMove>),
}

impl Default for Balance {
    fn default() -> Balance {
        Balance { patience: SETTLED, rested: None, round: Round::default(), vain: None }
    }
}

impl Balance {
    /// Begins what can be begun. `rests`: the conductor found nothing to do.
    pub async fn look(&mut self, store: &LocalStore, nodes: &Nodes, rests: bool) -> Result<(), Abort> {
        if !rests {
            self.rested = None;
            return Ok(());
        }
        let settled = self.rested.get_or_insert_with(Instant::now).elapsed() >= self.patience;
        let disks = store.read(|tx| usable(tx, nodes))?;
        if settled {
            self.round.begin(&disks);
        }
        let fills: Vec<(String, u64)> = disks.iter().map(|d| (d.disk.clone(), d.fill())).collect();
        let tried = |(at, then): &(Instant, Vec<_>)| at.elapsed() < VAIN_PAUSE && are_alike(then, &fills);
        if self.round.is_over() || self.vain.as_ref().is_some_and(tried) {
            return Ok(());
        }
        let round = &self.round;
        match store.transact(|tx| even_out(tx, nodes, round)).await? {
            Found::Busy => {
                self.rested = None;
                self.round.end();
            }
            Found::Moves(moves) => {
                self.round.note(&moves);
                self.rested = None;
            }
            found if settled => {
                self.round = Round::default();
                self.vain = (found == Found::Vain).then(|| (Instant::now(), fills));
            }
            // That is by what was moved; disks will say.
            _ => self.round.end(),
        }
        Ok(())
    }
}

/// Whether no disk came, went, or became fuller or emptier by more than a point.
fn are_alike(before: &[(String, u64)], now: &[(String, u64)]) -> bool {
    let same = |((a, then), (b, now)): (&(String, u64), &(String, u64))| {
        a == b && then.abs_diff(*now) <= fill::POINT
    };
    before.len() == now.len() && before.iter().zip(now).all(same)
}

/// Lets replicas move, if disks differ and all else is well. Once some have in this round, it goes on for longer than it
/// would begin.
pub fn even_out(tx: &mut Tx, nodes: &Nodes, round: &Round) -> Result<Found, Abort> {
    let difference = round.difference();
    let mut disks = usable(tx, nodes)?;
    for disk in &mut disks {
        disk.used = round.used.get(&disk.disk).copied().unwrap_or(disk.used);
    }
    if fill::spread(&disks) < difference {
        return Ok(Found::Even);
    }
    if !tx.list_unfenced::<ReplicaMove>()?.is_empty() {
        return Ok(Found::Busy);
    }
    let Some(mut volumes) = volumes(tx, &disks)? else { return Ok(Found::Busy) };
    volumes.retain(|v| !round.moved.contains(&v.id));
    let surplus = fill::surplus(&disks);
    let mut begun = Vec::new();
    for next in fill::plan(disks, &volumes, difference, MOVES_MAX) {
        let [from_disk, to_disk] = next.disks;
        let (volume, from, to, bytes) = (next.volume, next.from, next.to, next.bytes);
        let wanted = ReplicaMove { volume, from, to, from_disk, to_disk, bytes, copies: 0 };
        begun.extend(begin(tx, wanted)?);
    }
    for m in &begun {
        tracing::info!(
            m.volume,
            m.from,
            m.to,
            m.bytes,
            surplus,
            "a replica moves, so that disks fill evenly"
        );
    }
    Ok(if begun.is_empty() { Found::Vain } else { Found::Moves(begun) })
}

/// The disks that may get replicas; none while a node runs a release that knows of no disks as places.
fn usable(tx: &mut Tx, nodes: &Nodes) -> Result<Vec<Disk>, Abort> {
    let all = tx.list_unfenced::<DiskStatus>()?;
    if all.iter().any(|d| !d.knows_places) {
        return Ok(Vec::new());
    }
    let spared = disks::spared(&tx.list_unfenced()?);
    let candidates = placement::candidates(&all, &spared);
    let binds = |d: &DiskStatus| candidates.iter().any(|c| c.node == d.node && c.disks.contains_key(&d.disk));
    let may = |d: &&DiskStatus| d.healthy && !spared.contains(&d.disk) && nodes.alive.contains(&d.node);
    let disk = |d: &DiskStatus| Disk {
        node: d.node.clone(),
        disk: d.disk.clone(),
        size: d.size,
        used: d.size.saturating_sub(d.free),
        binds: binds(d),
    };
    Ok(all.iter().filter(may).map(disk).collect())
}

/// The volumes that may move; `None` while a replica of any is not where and as it should be.
fn volumes(tx: &mut Tx, disks: &[Disk]) -> Result<Option<Vec<Volume>>, Abort> {
    let usable: BTreeSet<(&str, &str)> = disks.iter().map(|d| (d.node.as_str(), d.disk.as_str())).collect();
    let sets = by_id(tx.list_unfenced::<ReplicaSet>()?);
    let replicas = by_id(tx.list_unfenced::<ReplicaStatus>()?);
    let statuses = by_id(tx.list_unfenced::<VolumeStatus>()?);
    let specs = tx.list_unfenced::<VolumeSpec>()?;
    let bytes = |id: &str| statuses.get(id).map_or(0, |s| s.allocated);
    let shared = shared(&specs, &bytes);
    let mut found = Vec::new();
    for spec in specs.into_iter().filter(|s| !s.deleted) {
        let places: Vec<(String, Option<String>)> = match sets.get(&spec.id) {
            Some(set) if set.replicas.iter().any(|r| !r.in_sync || r.leaving) => return Ok(None),
            Some(set) => {
                set.replicas.iter().map(|r| (r.place.clone(), disk_of(&replicas, set, &r.place))).collect()
            }
            None => vec![(spec.node.clone(), statuses.get(&spec.id).and_then(|s| s.disk.clone()))],
        };
        let Some(at) = places.into_iter().map(|(at, disk)| Some((at, disk?))).collect::<Option<Vec<_>>>()
        else {
            // Nobody has said yet where it is.
            continue;
        };
        if !at.iter().all(|(at, disk)| usable.contains(&(place::node_of(at), disk.as_str()))) {
            return Ok(None);
        }
        let (bytes, home) = (bytes(&spec.id), spec.lead().to_owned());
        let common = shared.get(&spec.id).copied().unwrap_or(0);
        if common.saturating_mul(SHARED_PART) <= bytes {
            found.push(Volume { id: spec.id, bytes, home, at });
        }
    }
    Ok(Some(found))
}

fn by_id<R: Record>(records: Vec<R>) -> BTreeMap<String, R> {
    records.into_iter().map(|r| (r.id(), r)).collect()
}

fn disk_of(replicas: &BTreeMap<String, ReplicaStatus>, set: &ReplicaSet, at: &str) -> Option<String> {
    let told = || replicas.get(&ReplicaStatus::id_of(&set.id, at)).and_then(|s| s.disk.clone());
    place::disk_of(at).map(str::to_owned).or_else(told)
}

/// The most bytes that volumes have in common with others, of those that have any: what they are clones of, or what is a
/// clone of them, takes. What the source was that is gone, nobody knows.
fn shared(specs: &[VolumeSpec], bytes: &dyn Fn(&str) -> u64) -> BTreeMap<String, u64> {
    let there: BTreeSet<&str> = specs.iter().map(|s| s.id.as_str()).collect();
    let mut found: BTreeMap<String, u64> = BTreeMap::new();
    let mut add = |id: &str, bytes: u64| {
        let sum = found.entry(id.to_owned()).or_default();
        *sum = sum.saturating_add(bytes);
    };
    for spec in specs.iter().filter(|s| s.recoded.is_none()) {
        let Some(source) = &spec.source else { continue };
        add(&spec.id, if there.contains(source.as_str()) { bytes(source) } else { u64::MAX });
        add(source, bytes(&spec.id));
    }
    found
}

/// Begins a move, unless the volume has changed meanwhile.
fn begin(tx: &mut Tx, wanted: ReplicaMove) -> Result<Option<ReplicaMove>, Abort> {
    let Some(spec) = tx.get::<VolumeSpec>(&wanted.volume)? else { return Ok(None) };
    let set = match tx.get::<ReplicaSet>(&spec.id)? {
        Some(set) => set,
        None if is_made(tx, &spec.id)? => ReplicaSet::new(&spec.id, [spec.node.clone()]),
        None => return Ok(None),
    };
    if spec.deleted || !set.is_in_sync(&wanted.from) || set.on(&wanted.to).is_some() {
        return Ok(None);
    }
    let begun = ReplicaMove { copies: set.replicas.len(), ..wanted };
    tx.put(&set.added(&begun.to))?;
    tx.put(&begun)?;
    Ok(Some(begun))
}

/// The set once the replica that was moved may leave, if that is now. Whoever moves into the way of a move, ends it.
pub(crate) fn step(tx: &mut Tx, spec: &VolumeSpec, set: &ReplicaSet) -> Result<Option<ReplicaSet>, Abort> {
    let Some(moves) = tx.get::<ReplicaMove>(&set.id)? else { return Ok(None) };
    let home = spec.lead();
    // Its user went where it would leave.
    let in_the_way = place::node_of(&moves.from) == home && place::node_of(&moves.to) != home;
    let to_stays = set.on(&moves.to).is_some_and(|r| !r.leaving);
    let is_over = !to_stays || set.on(&moves.from).is_none();
    // Another replica was lost meanwhile, and the two are wanted.
    let is_needed = set.replicas.len() <= moves.copies;
    if in_the_way || is_over || is_needed {
        tx.delete::<ReplicaMove>(&set.id)?;
        return Ok(None);
    }
    let whole = set.replicas.iter().all(|r| r.in_sync && !r.leaving);
    Ok(if whole { set.leaving(&moves.from) } else { None })
}

/// Forgets the move of a volume that is gone, or ends.
pub(crate) fn forget(tx: &mut Tx, ended: &ReplicaMove) -> Result<(), Abort> {
    match tx.get::<VolumeSpec>(&ended.volume)? {
        Some(spec) if !spec.deleted => Ok(()),
        _ => tx.delete::<ReplicaMove>(&ended.volume).map(drop),
    }
}

#[cfg(test)]
mod tests;
