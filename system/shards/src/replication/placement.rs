//! Where a volume's replicas are: on nodes, and where there is but one, on disks of it. Pure: the same for the same input.
//!
//! A node is the better domain: as long as another has room, no two replicas stay on one. On a node with several disks a
//! new replica is bound to one of them ([`place`]), so that it is known what is lost with a disk.

use std::collections::{BTreeMap, BTreeSet};

use super::place;
use super::set::{Replica, ReplicaSet};
use crate::model::{DiskStatus, VolumeSpec};

/// The most replicas a volume has where nothing else is asked for: any one node may be lost while another is away.
pub const COPIES: usize = 3;
/// The most that it has on the disks of one node, while that is the only one: any one disk may be lost.
pub const COPIES_OF_NODE: usize = 2;

/// A node with room, as placement sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub node: String,
    /// Bytes free on its healthy disks.
    pub free: u64,
    /// Those disks and the bytes free on each, if replicas are bound to one of them there; else none.
    pub disks: BTreeMap<String, u64>,
}

impl Candidate {
    /// The place of a new replica here, on none of these disks; `None` if there is no other.
    fn place(&self, taken: &BTreeSet<String>) -> Option<String> {
        if self.disks.is_empty() {
            return Some(self.node.clone());
        }
        let free = self.disks.iter().filter(|(disk, _)| !taken.contains(*disk));
        free.max_by_key(|(disk, free)| (**free, std::cmp::Reverse(*disk)))
            .map(|(disk, _)| place::on_disk(&self.node, disk))
    }
}

/// The nodes that may hold replicas: those with a healthy disk that is not `spared`, by its id.
pub fn candidates(disks: &[DiskStatus], spared: &BTreeSet<String>) -> Vec<Candidate> {
    // While a node runs a release that knows of no disks as places, nothing is bound to one anywhere.
    let may_bind = disks.iter().all(|d| d.knows_places);
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    let own = disks.iter().filter(|d| d.visiting.is_none());
    own.for_each(|d| *count.entry(&d.node).or_default() += 1);
    let mut found: BTreeMap<&str, Candidate> = BTreeMap::new();
    for disk in disks.iter().filter(|d| d.healthy && !spared.contains(&d.disk)) {
        let empty = || Candidate { node: disk.node.clone(), free: 0, disks: BTreeMap::new() };
        let candidate = found.entry(&disk.node).or_insert_with(empty);
        candidate.free += disk.free;
        if may_bind && count.get(disk.node.as_str()).is_some_and(|n| *n > 1) {
            candidate.disks.insert(disk.disk.clone(), disk.free);
        }
    }
    found.into_values().collect()
}

/// The places of a new volume of so many replicas, on `home` (where it is used or made) the first, then on the roomiest
/// nodes; if there is no other node, on disks of it.
pub fn choose(home: &str, candidates: &[Candidate], copies: usize) -> Vec<String> {
    let mut others: Vec<&Candidate> = candidates.iter().filter(|c| c.node != home).collect();
    others.sort_by(|a, b| b.free.cmp(&a.free).then_with(|| a.node.cmp(&b.node)));
    let own = candidates.iter().find(|c| c.node == home);
    let none = BTreeSet::new();
    let first = own.and_then(|c| c.place(&none)).unwrap_or_else(|| home.to_owned());
    if let (true, Some(own), Some(disk)) = (others.is_empty() && copies > 1, own, place::disk_of(&first)) {
        let second = own.place(&[disk.to_owned()].into());
        return std::iter::once(first.clone()).chain(second).collect();
    }
    let others = others.into_iter().filter_map(|c| c.place(&none));
    std::iter::once(first).chain(others).take(copies.max(1)).collect()
}

/// Where the source of a clone is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The places whose replicas of it are in sync, with their disks where these are known.
    pub in_sync: Vec<String>,
    /// Whether it never changes, so that clones of it are alike whenever they are made.
    pub fixed: bool,
}

/// The replicas of a new volume; `None` if there is but one, anywhere on the node of the spec.
pub fn initial(
    spec: &VolumeSpec,
    source: Option<&Source>,
    candidates: &[Candidate],
    copies: usize,
) -> Option<ReplicaSet> {
    let mut places = choose(&spec.node, candidates, copies);
    if spec.read_only && spec.source.is_none() {
        // Its content is on some disk of the node already.
        places.retain(|at| place::node_of(at) != spec.node);
        places.insert(0, spec.node.clone());
    }
    if let Some(source) = source {
        beside(&mut places, source, candidates);
    }
    // Who has the content from the beginning: for a clone those that have its source.
    let has_source = |at: &str| match source {
        Some(source) => source.in_sync.iter().any(|of| is_beside(at, of)),
        None => true,
    };
    let mut origin: Vec<String> = match source {
        Some(source) if source.fixed => places.iter().filter(|at| has_source(at)).cloned().collect(),
        // One alone, since no two would see it at the same moment.
        Some(_) => places.iter().find(|at| has_source(at)).cloned().into_iter().collect(),
        None if spec.read_only => places[..1].to_vec(),
        None => places.clone(),
    };
    if let (true, Some(source)) = (origin.is_empty(), source)
        && let Some(first) = source.in_sync.first()
    {
        // It is made where its source is, and moves on from there.
        let binds = candidates.iter().any(|c| !c.disks.is_empty());
        let of = usable(first, candidates);
        let of = of.unwrap_or_else(|| if binds { first.clone() } else { place::node_of(first).into() });
        places.retain(|at| place::node_of(at) != place::node_of(&of));
        places.truncate(copies.saturating_sub(1).max(1));
        places.push(of.clone());
        origin.push(of);
    }
    if places.len() < 2 && places.iter().all(|at| *at == spec.node) {
        return None;
    }
    let mut set = ReplicaSet::new(&spec.id, places);
    if !origin.is_empty() {
        set.replicas.iter_mut().for_each(|r| r.in_sync = origin.contains(&r.place));
    }
    Some(set)
}

/// Puts a clone on the disks of its source, where it costs nothing.
fn beside(places: &mut [String], source: &Source, candidates: &[Candidate]) {
    let mut taken: BTreeSet<String> = places.iter().cloned().collect();
    for at in places {
        let fits = |of: &&String| place::node_of(of) == place::node_of(at) && !taken.contains(*of);
        if place::disk_of(at).is_none() || source.in_sync.contains(at) {
            continue;
        }
        let found =
            source.in_sync.iter().filter(fits).find_map(|of| usable(of, candidates).filter(|u| u == of));
        if let Some(of) = found {
            taken.insert(of.clone());
            *at = of;
        }
    }
}

/// The place as far as replicas are bound to disks there; `None` if nothing new is put there.
fn usable(at: &str, candidates: &[Candidate]) -> Option<String> {
    let candidate = candidates.iter().find(|c| c.node == place::node_of(at))?;
    match place::disk_of(at) {
        _ if candidate.disks.is_empty() => Some(candidate.node.clone()),
        Some(disk) => candidate.disks.contains_key(disk).then(|| at.to_owned()),
        None => None,
    }
}

/// Whether what is made at a place is made of a replica at the other, as one node has both, and the same disk if both are
/// bound to one.
fn is_beside(at: &str, of: &str) -> bool {
    let same_disk = match (place::disk_of(at), place::disk_of(of)) {
        (Some(at), Some(of)) => at == of,
        _ => true,
    };
    same_disk && place::node_of(at) == place::node_of(of)
}

/// What does not count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lost {
    /// Nodes that are silent for long; they may come back.
    pub silent: BTreeSet<String>,
    /// Nodes that were removed from the cloud.
    pub removed: BTreeSet<String>,
    /// Disks that are missing or broken for long, each as a place on the node that says so; they may come back.
    pub disks: BTreeSet<String>,
    /// Disks, by their ids, that nothing may be on any more.
    pub draining: BTreeSet<String>,
    /// Disks that were given up: nobody will say any more that nothing is on them.
    pub retired: BTreeSet<String>,
}

/// Says on which disk a replica is, by its place, as far as that is known.
pub type Located<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Lost {
    /// Whether there is any disk that does not count.
    pub fn names_disks(&self) -> bool {
        [&self.disks, &self.draining, &self.retired].into_iter().any(|disks| !disks.is_empty())
    }

    /// Whether nobody will hear of any of a volume's replicas again.
    pub fn has_all(&self, set: &ReplicaSet, located: Located<'_>) -> bool {
        let view = View { lost: self, located };
        set.replicas.iter().all(|r| view.is_removed(r))
    }

    /// The set of a volume that ends, without what nobody will say that it is gone; `None` if there is none.
    pub fn without_removed(&self, set: &ReplicaSet, located: Located<'_>) -> Option<ReplicaSet> {
        let view = View { lost: self, located };
        let mut next = set.clone();
        next.replicas.retain(|r| !view.is_removed(r));
        (next != *set).then_some(next)
    }
}

/// A volume's replicas as they are judged.
struct View<'a> {
    lost: &'a Lost,
    located: Located<'a>,
}

impl View<'_> {
    fn disk(&self, r: &Replica) -> Option<String> {
        place::disk_of(&r.place).map(str::to_owned).or_else(|| (self.located)(&r.place))
    }

    fn is_on(&self, r: &Replica, disks: &BTreeSet<String>) -> bool {
        !disks.is_empty() && self.disk(r).is_some_and(|disk| disks.contains(&disk))
    }

    /// Nobody will hear of it again.
    fn is_removed(&self, r: &Replica) -> bool {
        self.lost.removed.contains(r.node()) || self.is_on(r, &self.lost.retired)
    }

    fn is_lost(&self, r: &Replica) -> bool {
        let there = |disk: String| self.lost.disks.contains(&place::on_disk(r.node(), &disk));
        let on_lost = !self.lost.disks.is_empty() && self.disk(r).is_some_and(there);
        self.is_removed(r) || self.lost.silent.contains(r.node()) || on_lost
    }

    fn is_unwanted(&self, r: &Replica) -> bool {
        self.is_lost(r) || self.is_on(r, &self.lost.draining)
    }
}

/// One change that a volume's replicas need, if any: the set as it should be next.
pub fn repair(
    set: &ReplicaSet,
    home: &str,
    candidates: &[Candidate],
    lost: &Lost,
    located: Located<'_>,
    copies: usize,
) -> Option<ReplicaSet> {
    let view = View { lost, located };
    // What is removed says nothing any more, not even that its replica is gone.
    let mut removed = set.replicas.iter().filter(|r| view.is_removed(r));
    if let Some(next) = removed.find_map(|r| drop_removed(set, &r.place)) {
        return Some(next);
    }
    let nodes: Vec<&Candidate> = candidates
        .iter()
        .filter(|c| !lost.silent.contains(&c.node) && !lost.removed.contains(&c.node))
        .collect();
    let counted: Vec<&Replica> = set.replicas.iter().filter(|r| !r.leaving && !view.is_unwanted(r)).collect();
    if let Some(at) = addition(set, home, &nodes, &view, &counted, copies) {
        return Some(set.added(&at));
    }
    let whole: Vec<&Replica> = counted.iter().copied().filter(|r| r.in_sync).collect();
    let on_whole: BTreeSet<&str> = whole.iter().map(|r| r.node()).collect();
    let known: BTreeSet<&str> =
        nodes.iter().map(|c| c.node.as_str()).chain(set.replicas.iter().map(Replica::node)).collect();
    let free = |r: &Replica| room(r, candidates, &view);
    // One more than wanted goes, from the fullest place where the volume is not used; of two on a node, one.
    let twice = |r: &&&Replica| whole.iter().filter(|o| o.node() == r.node()).count() > 1;
    let better = on_whole.len() > 1 && whole.len() == counted.len();
    if better && let Some(extra) = whole.iter().filter(twice).min_by_key(|r| (free(r), &r.place)) {
        return set.leaving(&extra.place);
    }
    let enough = if known.len() > 1 { copies } else { copies.min(COPIES_OF_NODE) };
    if whole.len() > enough {
        let away = whole.iter().filter(|r| r.node() != home);
        let fullest = away.min_by_key(|r| (free(r), &r.place));
        let fullest = fullest.or_else(|| whole.iter().min_by_key(|r| (free(r), &r.place)));
        return fullest.and_then(|r| set.leaving(&r.place));
    }
    // What is on a disk that is drained goes once all others are whole; more of them cannot be had now.
    let mut drained = set.replicas.iter().filter(|r| !r.leaving && !view.is_lost(r) && view.is_unwanted(r));
    if !whole.is_empty()
        && whole.len() == counted.len()
        && let Some(next) = drained.find_map(|r| set.leaving(&r.place))
    {
        return Some(next);
    }
    // What is silent is let go when as many as wanted are whole without it: until then it may come back.
    let mut silent = set.replicas.iter().filter(|r| !r.leaving && view.is_lost(r));
    if whole.len() < enough { None } else { silent.find_map(|r| set.leaving(&r.place)) }
}

/// Where one more replica is wanted: on another node, or if there is none, on another disk.
fn addition(
    set: &ReplicaSet,
    home: &str,
    nodes: &[&Candidate],
    view: &View<'_>,
    counted: &[&Replica],
    copies: usize,
) -> Option<String> {
    let covered: BTreeSet<&str> = counted.iter().map(|r| r.node()).collect();
    let place_on = |c: &Candidate| -> Option<String> {
        let here: Vec<&Replica> = set.on_node(&c.node).collect();
        if here.is_empty() {
            return c.place(&BTreeSet::new());
        }
        // Beside what is there already, if it is known where that is.
        let taken: Option<BTreeSet<String>> = here.iter().map(|r| view.disk(r)).collect();
        taken.filter(|_| !c.disks.is_empty()).and_then(|taken| c.place(&taken))
    };
    if covered.len() < copies {
        let others = nodes.iter().filter(|c| !covered.contains(c.node.as_str()));
        let places: Vec<(&&Candidate, String)> = others.filter_map(|c| Some((c, place_on(c)?))).collect();
        let best = places.iter().max_by_key(|(c, _)| (c.node == home, c.free, &c.node));
        if let Some((_, at)) = best {
            return Some(at.clone());
        }
    }
    let alone = covered.len() == 1 && counted.len() < copies.min(COPIES_OF_NODE);
    let only = nodes.iter().find(|c| covered.contains(c.node.as_str())).filter(|_| alone)?;
    place_on(only)
}

/// Bytes free where a replica is.
fn room(r: &Replica, candidates: &[Candidate], view: &View<'_>) -> u64 {
    let Some(candidate) = candidates.iter().find(|c| c.node == r.node()) else { return 0 };
    let on_disk = view.disk(r).and_then(|disk| candidate.disks.get(&disk).copied());
    on_disk.unwrap_or(candidate.free)
}

fn drop_removed(set: &ReplicaSet, at: &str) -> Option<ReplicaSet> {
    let leaving = set.on(at).is_some_and(|r| r.leaving);
    let left = if leaving { Some(set.clone()) } else { set.leaving(at) };
    left.map(|set| set.left(at))
}

#[cfg(test)]
mod disk_tests;
#[cfg(test)]
mod tests;
