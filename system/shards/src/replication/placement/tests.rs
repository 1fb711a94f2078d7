//! Placement over nodes; over disks it is tested in `disk_tests`.

use super::*;

fn nodes(free: &[(&str, u64)]) -> Vec<Candidate> {
    free.iter()
        .map(|(node, free)| Candidate { node: (*node).into(), free: *free, disks: BTreeMap::new() })
        .collect()
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
    assert_eq!(set.replicas.iter().map(|r| r.place.as_str()).collect::<Vec<_>>(), ["a", "c", "d"]);
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
    let two = repair(&one, "a", &all, &lost(&[]), &|_| None, 3).unwrap();
    assert!(two.on("c").is_some_and(|r| !r.in_sync));
    let three = repair(&two, "a", &all, &lost(&[]), &|_| None, 3).unwrap();
    assert_eq!(repair(&three, "a", &all, &lost(&[]), &|_| None, 3), None);
}

#[test]
fn what_is_more_than_wanted_goes_but_not_from_where_it_is_used() {
    let three = ReplicaSet::new("v", ["a", "b", "c"].map(String::from));
    let all = nodes(&[("a", 1), ("b", 5), ("c", 9)]);
    let two = repair(&three, "a", &all, &lost(&[]), &|_| None, 1).unwrap();
    assert!(two.on("b").is_some_and(|r| r.leaving));
    let one = repair(&two, "a", &all, &lost(&[]), &|_| None, 1).unwrap();
    assert!(one.on("c").is_some_and(|r| r.leaving) && one.is_in_sync("a"));
    assert_eq!(repair(&one, "a", &all, &lost(&[]), &|_| None, 1), None);
    let silent = repair(&three, "a", &all, &lost(&["b", "c"]), &|_| None, 1).unwrap();
    assert!(silent.is_in_sync("a"), "the one that is left stays");
}

/// Takes all steps there are; answers the bytes that are copied to nodes.
fn settled(sets: &mut [(ReplicaSet, u64)], candidates: &[Candidate]) -> u64 {
    let mut moved = 0;
    for (set, size) in sets {
        let home = set.replicas[0].place.clone();
        while let Some(next) = repair(set, &home, candidates, &Lost::default(), &|_| None, COPIES) {
            let come: Vec<String> = next
                .replicas
                .iter()
                .filter(|r| set.on(&r.place).is_none())
                .map(|r| r.place.clone())
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
            before.replicas.iter().all(|r| now.is_in_sync(&r.place))
        };
        assert!(before.iter().zip(&sets).all(|(before, (now, _))| stays(before, now)));
    }
}

#[test]
fn a_lost_replica_goes_only_when_another_has_its_place() {
    let three = ReplicaSet::new("v", ["a", "b", "c"].map(String::from));
    let all = nodes(&[("a", 1), ("b", 1), ("d", 1)]);
    let four = repair(&three, "a", &all, &lost(&["c"]), &|_| None, 3).unwrap();
    assert!(four.on("d").is_some());
    assert_eq!(repair(&four, "a", &all, &lost(&["c"]), &|_| None, 3), None, "the new one is not whole yet");
    let whole = four.with("d").unwrap();
    let left = repair(&whole, "a", &all, &lost(&["c"]), &|_| None, 3).unwrap();
    assert!(left.on("c").is_some_and(|r| r.leaving && !r.in_sync));
    let two = nodes(&[("a", 1), ("b", 1)]);
    assert_eq!(repair(&three, "a", &two, &lost(&["c"]), &|_| None, 3), None, "it may come back");
    let removed = Lost { removed: ["c".to_owned()].into(), ..Lost::default() };
    assert_eq!(repair(&three, "a", &two, &removed, &|_| None, 3).unwrap().replicas.len(), 2);
    // The last one is kept, whatever is lost.
    assert_eq!(repair(&ReplicaSet::new("v", ["c".into()]), "c", &[], &lost(&["c"]), &|_| None, 3), None);
}
