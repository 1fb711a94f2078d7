//! On which nodes a volume's replicas are. Pure: the same for the same input.

use std::collections::{BTreeMap, BTreeSet};

use super::set::ReplicaSet;
use crate::model::{DiskStatus, VolumeSpec};

/// The most replicas a volume has where nothing else is asked for: any one node may be lost while another is away.
pub const COPIES: usize = 3;

/// A node with room, as placement sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub node: String,
    /// Bytes free on its healthy disks.
    pub free: u64,
}

/// The nodes that may hold replicas: those with a healthy disk.
pub fn candidates(disks: &[DiskStatus]) -> Vec<Candidate> {
    let mut free: BTreeMap<&str, u64> = BTreeMap::new();
    for disk in disks.iter().filter(|d| d.healthy) {
        *free.entry(&disk.node).or_default() += disk.free;
    }
    free.into_iter().map(|(node, free)| Candidate { node: node.into(), free }).collect()
}

/// The nodes of a new volume of so many replicas, `home` (where it is used or made) the first, then the roomiest.
pub fn choose(home: &str, candidates: &[Candidate], copies: usize) -> Vec<String> {
    let mut others: Vec<&Candidate> = candidates.iter().filter(|c| c.node != home).collect();
    others.sort_by(|a, b| b.free.cmp(&a.free).then_with(|| a.node.cmp(&b.node)));
    let others = others.into_iter().map(|c| c.node.clone());
    std::iter::once(home.to_owned()).chain(others).take(copies.max(1)).collect()
}

/// Where the source of a clone is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The nodes whose replicas of it are in sync.
    pub in_sync: Vec<String>,
    /// Whether it never changes, so that clones of it are alike whenever they are made.
    pub fixed: bool,
}

/// The replicas of a new volume; `None` if there is but one, on the node of the spec.
pub fn initial(
    spec: &VolumeSpec,
    source: Option<&Source>,
    candidates: &[Candidate],
    copies: usize,
) -> Option<ReplicaSet> {
    let mut nodes = choose(&spec.node, candidates, copies);
    // Who has the content from the beginning: for a clone those that have its source.
    let origin = match source {
        Some(source) if source.fixed => source.in_sync.clone(),
        // One alone, since no two would see it at the same moment.
        Some(source) => source
            .in_sync
            .iter()
            .find(|n| **n == spec.node)
            .or(source.in_sync.first())
            .cloned()
            .into_iter()
            .collect(),
        None if spec.read_only => vec![spec.node.clone()],
        None => nodes.clone(),
    };
    if !origin.is_empty() && !nodes.iter().any(|n| origin.contains(n)) {
        nodes.truncate(copies.saturating_sub(1).max(1));
        nodes.push(origin[0].clone());
    }
    if nodes.len() < 2 {
        return None;
    }
    let mut set = ReplicaSet::new(&spec.id, nodes);
    if origin.is_empty() {
        return Some(set);
    }
    set.replicas.iter_mut().for_each(|r| r.in_sync = origin.contains(&r.node));
    Some(set)
}

/// Nodes that do not count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lost {
    /// Silent for long; they may come back.
    pub silent: BTreeSet<String>,
    /// Removed from the cloud.
    pub removed: BTreeSet<String>,
}

impl Lost {
    fn has(&self, node: &str) -> bool {
        self.silent.contains(node) || self.removed.contains(node)
    }
}

/// One change that a volume's replicas need, if any: the set as it should be next.
pub fn repair(
    set: &ReplicaSet,
    home: &str,
    candidates: &[Candidate],
    lost: &Lost,
    copies: usize,
) -> Option<ReplicaSet> {
    // A removed node says nothing any more, not even that its replica is gone.
    let mut removed = set.replicas.iter().filter(|r| lost.removed.contains(&r.node));
    if let Some(next) = removed.find_map(|r| drop_removed(set, &r.node)) {
        return Some(next);
    }
    let counted = set.replicas.iter().filter(|r| !r.leaving && !lost.has(&r.node)).count();
    let free = candidates.iter().filter(|c| !lost.has(&c.node) && set.on(&c.node).is_none());
    if counted < copies {
        let best = free.clone().find(|c| c.node == home);
        return best.or_else(|| free.clone().max_by_key(|c| (c.free, &c.node))).map(|c| set.added(&c.node));
    }
    // One more than wanted goes, from the fullest node where the volume is not used.
    let sound = set.replicas.iter().filter(|r| r.in_sync && !r.leaving && !lost.has(&r.node));
    if sound.clone().count() > copies {
        let free = |node: &str| candidates.iter().find(|c| c.node == node).map_or(0, |c| c.free);
        let fullest = sound.filter(|r| r.node != home).min_by_key(|r| (free(&r.node), &r.node));
        return fullest.and_then(|r| set.leaving(&r.node));
    }
    // What is silent is let go when as many as wanted are whole without it: until then it may come back.
    let whole = set.in_sync().filter(|n| !lost.has(n)).count();
    let mut silent = set.replicas.iter().filter(|r| !r.leaving && lost.has(&r.node));
    if whole < copies { None } else { silent.find_map(|r| set.leaving(&r.node)) }
}

fn drop_removed(set: &ReplicaSet, node: &str) -> Option<ReplicaSet> {
    let leaving = set.on(node).is_some_and(|r| r.leaving);
    let left = if leaving { Some(set.clone()) } else { set.leaving(node) };
    left.map(|set| set.left(node))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(free: &[(&str, u64)]) -> Vec<Candidate> {
        free.iter().map(|(node, free)| Candidate { node: (*node).into(), free: *free }).collect()
    }

    fn lost(nodes: &[&str]) -> Lost {
        Lost { silent: nodes.iter().map(|n| (*n).to_owned()).collect(), ..Lost::default() }
    }

    #[test]
    fn home_comes_first_then_the_roomiest() {
        let all = nodes(&[("a", 1), ("b", 5), ("c", 9), ("d", 5)]);
        assert_eq!(choose("a", &all, 3), ["a", "c", "b"]);
        assert_eq!(choose("a", &all[..1], 3), ["a"]);
        assert_eq!(choose("x", &[], 3), ["x"]);
    }

    #[test]
    fn a_clone_begins_where_its_source_is() {
        let all = nodes(&[("a", 1), ("b", 5), ("c", 9)]);
        let in_sync =
            |set: Option<ReplicaSet>| -> Vec<String> { set.unwrap().in_sync().map(str::to_owned).collect() };
        let clone = VolumeSpec { source: Some("s".into()), ..VolumeSpec::new("v", "a", 1) };
        let image = Source { in_sync: vec!["a".into(), "b".into()], fixed: true };
        assert_eq!(in_sync(initial(&clone, Some(&image), &all, 3)), ["a", "b"]);
        let volume = Source { fixed: false, ..image };
        assert_eq!(in_sync(initial(&clone, Some(&volume), &all, 3)), ["a"]);
        let elsewhere = Source { in_sync: vec!["d".into()], fixed: true };
        let set = initial(&clone, Some(&elsewhere), &all, 3).unwrap();
        assert_eq!(set.replicas.iter().map(|r| r.node.as_str()).collect::<Vec<_>>(), ["a", "c", "d"]);
        assert_eq!(in_sync(Some(set)), ["d"]);
        let image = VolumeSpec { read_only: true, ..VolumeSpec::new("i", "b", 1) };
        assert_eq!(in_sync(initial(&image, None, &all, 3)), ["b"]);
        assert_eq!(in_sync(initial(&VolumeSpec::new("v", "a", 1), None, &all, 3)), ["a", "c", "b"]);
        assert_eq!(initial(&VolumeSpec::new("v", "a", 1), None, &all[..1], 3), None);
    }

    #[test]
    fn replicas_grow_with_the_nodes() {
        let one = ReplicaSet::new("v", ["a".into()]);
        let all = nodes(&[("a", 1), ("b", 5), ("c", 9)]);
        let two = repair(&one, "a", &all, &lost(&[]), 3).unwrap();
        assert!(two.on("c").is_some_and(|r| !r.in_sync));
        let three = repair(&two, "a", &all, &lost(&[]), 3).unwrap();
        assert_eq!(repair(&three, "a", &all, &lost(&[]), 3), None);
    }

    #[test]
    fn what_is_more_than_wanted_goes_but_not_from_where_it_is_used() {
        let three = ReplicaSet::new("v", ["a", "b", "c"].map(String::from));
        let all = nodes(&[("a", 1), ("b", 5), ("c", 9)]);
        let two = repair(&three, "a", &all, &lost(&[]), 1).unwrap();
        assert!(two.on("b").is_some_and(|r| r.leaving));
        let one = repair(&two, "a", &all, &lost(&[]), 1).unwrap();
        assert!(one.on("c").is_some_and(|r| r.leaving) && one.is_in_sync("a"));
        assert_eq!(repair(&one, "a", &all, &lost(&[]), 1), None);
        let silent = repair(&three, "a", &all, &lost(&["b", "c"]), 1).unwrap();
        assert!(silent.is_in_sync("a"), "the one that is left stays");
    }

    /// Takes all steps there are; answers the bytes that are copied to nodes.
    fn settled(sets: &mut [(ReplicaSet, u64)], candidates: &[Candidate]) -> u64 {
        let mut moved = 0;
        for (set, size) in sets {
            let home = set.replicas[0].node.clone();
            while let Some(next) = repair(set, &home, candidates, &Lost::default(), COPIES) {
                let come: Vec<String> = next
                    .replicas
                    .iter()
                    .filter(|r| set.on(&r.node).is_none())
                    .map(|r| r.node.clone())
                    .collect();
                moved += come.len() as u64 * *size;
                *set = come.iter().fold(next, |set, node| set.with(node).unwrap());
            }
        }
        moved
    }

    #[test]
    fn a_new_node_gets_only_what_has_too_few_replicas() {
        let names = ["a", "b", "c", "d", "e"];
        let mut sets: Vec<(ReplicaSet, u64)> = (0u64..200)
            .map(|n| (ReplicaSet::new(&n.to_string(), [names[0].to_owned()]), 1 + n * 7 % 13))
            .collect();
        let all: u64 = sets.iter().map(|(_, size)| size).sum();
        for count in 1..=names.len() {
            let free: Vec<(&str, u64)> =
                names[..count].iter().zip(1..).map(|(n, free)| (*n, free * 100)).collect();
            let before = sets.clone();
            let moved = settled(&mut sets, &nodes(&free));
            // The optimum: what is wanted and has no replica. Nothing is moved that has.
            let lacking = if (2..=COPIES).contains(&count) { all } else { 0 };
            assert_eq!(moved, lacking, "{count} nodes");
            let stays = |(before, _): &(ReplicaSet, u64), now: &ReplicaSet| {
                before.replicas.iter().all(|r| now.is_in_sync(&r.node))
            };
            assert!(before.iter().zip(&sets).all(|(before, (now, _))| stays(before, now)));
        }
    }

    #[test]
    fn a_lost_replica_goes_only_when_another_has_its_place() {
        let three = ReplicaSet::new("v", ["a", "b", "c"].map(String::from));
        let all = nodes(&[("a", 1), ("b", 1), ("d", 1)]);
        let four = repair(&three, "a", &all, &lost(&["c"]), 3).unwrap();
        assert!(four.on("d").is_some());
        assert_eq!(repair(&four, "a", &all, &lost(&["c"]), 3), None, "the new one is not whole yet");
        let whole = four.with("d").unwrap();
        let left = repair(&whole, "a", &all, &lost(&["c"]), 3).unwrap();
        assert!(left.on("c").is_some_and(|r| r.leaving && !r.in_sync));
        let two = nodes(&[("a", 1), ("b", 1)]);
        assert_eq!(repair(&three, "a", &two, &lost(&["c"]), 3), None, "it may come back");
        let removed = Lost { removed: ["c".to_owned()].into(), ..Lost::default() };
        assert_eq!(repair(&three, "a", &two, &removed, 3).unwrap().replicas.len(), 2);
        // The last one is kept, whatever is lost.
        assert_eq!(repair(&ReplicaSet::new("v", ["c".into()]), "c", &[], &lost(&["c"]), 3), None);
    }
}
