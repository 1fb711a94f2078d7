//! Placement over disks: each history of disks and nodes that come and go ends with the copies there can be, never has fewer
//! whole ones on the way than it must, and moves no more than is lacking.

use super::*;

const GIB: u64 = 1 << 30;

fn disk(node: &str, disk: &str, free: u64) -> DiskStatus {
    DiskStatus {
        node: node.into(),
        disk: disk.into(),
        path: String::new(),
        size: 1000 * GIB,
        free: free * GIB,
        healthy: true,
        error: None,
        knows_places: true,
        has_backups: false,
        health: None,
        knows_owners: true,
        gone: false,
        visiting: None,
    }
}

fn set_of<const N: usize>(items: [&str; N]) -> BTreeSet<String> {
    items.map(String::from).into()
}

fn of(places: &[&str]) -> ReplicaSet {
    ReplicaSet::new("v", places.iter().map(|p| (*p).to_owned()))
}

/// Takes all steps there are, each replica becoming whole when it is added and going when it is to leave; answers the
/// places that were added.
fn settle(set: &mut ReplicaSet, disks: &[DiskStatus], lost: &Lost, located: Located<'_>) -> Vec<String> {
    let candidates = candidates(disks, &lost.draining);
    let mut added = Vec::new();
    for _ in 0..20 {
        let Some(next) = repair(set, "a", &candidates, lost, located, COPIES) else { return added };
        let whole = set.in_sync().count();
        for replica in &next.replicas {
            if set.on(&replica.place).is_none() {
                added.push(replica.place.clone());
            }
        }
        assert!(next.in_sync().count() >= whole.min(1), "the last one stays: {set:?}");
        *set = next;
        for place in set.replicas.iter().map(|r| r.place.clone()).collect::<Vec<_>>() {
            *set = set.with(&place).unwrap_or_else(|| set.clone());
            *set = set.left(&place);
        }
    }
    panic!("it never ends: {set:?}");
}

fn places(set: &ReplicaSet) -> Vec<&str> {
    let mut places: Vec<&str> = set.replicas.iter().map(|r| r.place.as_str()).collect();
    places.sort_unstable();
    places
}

const NOWHERE: Located<'_> = &|_| None;
const ON_X: Located<'_> = &|_| Some(String::from("x"));

#[test]
fn a_volume_of_one_node_has_two_disks_and_moves_to_a_second_node() {
    let mut disks = vec![disk("a", "x", 5), disk("a", "y", 9)];
    let spec = VolumeSpec::new("v", "a", 1);
    let mut set = initial(&spec, None, &candidates(&disks, &BTreeSet::new()), COPIES).unwrap();
    assert_eq!(places(&set), ["a/x", "a/y"]);
    assert_eq!(settle(&mut set, &disks, &Lost::default(), NOWHERE), [""; 0]);
    disks.push(disk("b", "z", 1));
    assert_eq!(settle(&mut set, &disks, &Lost::default(), NOWHERE), ["b"]);
    assert_eq!(places(&set), ["a/y", "b"], "the fuller disk is given back");
    disks.push(disk("c", "w", 1));
    assert_eq!(settle(&mut set, &disks, &Lost::default(), NOWHERE), ["c"]);
    // Nothing that was there moves for a disk more.
    disks.push(disk("b", "u", 1000));
    assert_eq!(settle(&mut set, &disks, &Lost::default(), NOWHERE), [""; 0]);
}

#[test]
fn what_is_anywhere_on_a_node_gets_a_second_disk_once_it_is_known_where_it_is() {
    let disks = [disk("a", "x", 5), disk("a", "y", 4)];
    let mut set = of(&["a"]);
    assert_eq!(settle(&mut set, &disks, &Lost::default(), NOWHERE), [""; 0]);
    assert_eq!(settle(&mut set, &disks, &Lost::default(), ON_X), ["a/y"]);
    assert_eq!(settle(&mut of(&["a"]), &disks[..1], &Lost::default(), ON_X), [""; 0]);
    let one = VolumeSpec { copies: Some(1), ..VolumeSpec::new("v", "a", 1) };
    assert_eq!(places(&initial(&one, None, &candidates(&disks, &BTreeSet::new()), 1).unwrap()), ["a/x"]);
}

#[test]
fn while_a_node_knows_no_places_nothing_is_bound() {
    let mut disks = [disk("a", "x", 5), disk("a", "y", 4), disk("b", "z", 4)];
    disks[2].knows_places = false;
    let candidates = candidates(&disks, &BTreeSet::new());
    assert!(candidates.iter().all(|c| c.disks.is_empty()));
    assert_eq!(choose("a", &candidates, 3), ["a", "b"]);
}

#[test]
fn a_lost_disk_is_replaced_and_given_up_only_for_another() {
    let lost = Lost { disks: set_of(["a/x"]), ..Lost::default() };
    let mut disks = vec![disk("a", "x", 0), disk("a", "y", 4)];
    disks[0].healthy = false;
    let mut set = of(&["a/x", "a/y"]).without(|at| at == "a/x").unwrap();
    assert_eq!(repair(&set, "a", &candidates(&disks, &BTreeSet::new()), &lost, NOWHERE, COPIES), None);
    disks.push(disk("a", "z", 4));
    let four = repair(&set, "a", &candidates(&disks, &BTreeSet::new()), &lost, NOWHERE, COPIES).unwrap();
    assert!(four.on("a/z").is_some_and(|r| !r.in_sync) && four.on("a/x").is_some_and(|r| !r.leaving));
    let whole = four.with("a/z").unwrap();
    let next = repair(&whole, "a", &candidates(&disks, &BTreeSet::new()), &lost, NOWHERE, COPIES).unwrap();
    assert!(next.on("a/x").is_some_and(|r| r.leaving));
    // One that was given up says nothing any more.
    let retired = Lost { retired: set_of(["x"]), draining: set_of(["x"]), ..Lost::default() };
    set = next;
    set = repair(&set, "a", &candidates(&disks, &BTreeSet::new()), &retired, NOWHERE, COPIES).unwrap();
    assert_eq!(places(&set), ["a/y", "a/z"]);
    let alone = of(&["a/x"]);
    assert_eq!(repair(&alone, "a", &[], &retired, NOWHERE, COPIES), None, "the last one is kept");
}

#[test]
fn a_drained_disk_is_left_after_what_it_has_is_elsewhere() {
    let draining = Lost { draining: set_of(["x"]), ..Lost::default() };
    let three = [disk("a", "x", 5), disk("a", "y", 4), disk("a", "z", 4)];
    let mut set = of(&["a/x", "a/y"]);
    assert_eq!(settle(&mut set, &three, &draining, NOWHERE), ["a/z"]);
    assert_eq!(places(&set), ["a/y", "a/z"]);
    // Where there is no third, the second is enough; the only copy waits for a place.
    let mut set = of(&["a/x", "a/y"]);
    assert_eq!(settle(&mut set, &three[..2], &draining, NOWHERE), [""; 0]);
    assert_eq!(places(&set), ["a/y"]);
    let mut set = of(&["a/x"]);
    assert_eq!(settle(&mut set, &three[..1], &draining, NOWHERE), [""; 0]);
    assert_eq!(settle(&mut set, &three[..2], &draining, NOWHERE), ["a/y"]);
    assert_eq!(places(&set), ["a/y"]);
    // Of a node of several disks in a cloud of several nodes, to another disk of it.
    let nodes = [disk("a", "x", 5), disk("a", "y", 4), disk("b", "z", 4), disk("c", "w", 4)];
    let mut set = of(&["a", "b", "c"]);
    let located: Located<'_> = &|at| (at == "a").then(|| "x".into());
    assert_eq!(settle(&mut set, &nodes, &draining, located), ["a/y"]);
    assert_eq!(places(&set), ["a/y", "b", "c"]);
}

#[test]
fn clones_begin_on_the_disks_of_their_source_and_images_where_they_were_put() {
    let disks = [disk("a", "x", 1), disk("a", "y", 5), disk("a", "z", 9)];
    let candidates = candidates(&disks, &BTreeSet::new());
    let clone = VolumeSpec { source: Some("s".into()), ..VolumeSpec::new("v", "a", 1) };
    let source =
        |places: &[&str], fixed| Source { in_sync: places.iter().map(|p| (*p).into()).collect(), fixed };
    let both = initial(&clone, Some(&source(&["a/x", "a/y"], true)), &candidates, COPIES).unwrap();
    assert_eq!(both.in_sync().collect::<BTreeSet<_>>(), ["a/x", "a/y"].into());
    let one = initial(&clone, Some(&source(&["a/x"], true)), &candidates, COPIES).unwrap();
    assert_eq!((one.in_sync().collect::<Vec<_>>(), one.replicas.len()), (vec!["a/x"], 2));
    let moving = initial(&clone, Some(&source(&["a/x", "a/y"], false)), &candidates, COPIES).unwrap();
    assert_eq!((moving.in_sync().count(), moving.replicas.len()), (1, 2));
    let image = VolumeSpec { read_only: true, ..VolumeSpec::new("i", "a", 1) };
    assert_eq!(initial(&image, None, &candidates, COPIES), None);
}

#[test]
fn a_new_disk_gets_only_what_is_lacking() {
    let mut moved = 0;
    let mut lacking = 0;
    for n in 0u64..200 {
        let size = 1 + n * 7 % 13;
        let disks = [disk("a", "x", 5), disk("a", "y", 5 + n % 3), disk("a", "z", 400)];
        // Every third has but one copy, as after a disk was lost.
        let mut set = if n % 3 == 0 { of(&["a/x"]) } else { of(&["a/x", "a/y"]) };
        lacking += if n % 3 == 0 { size } else { 0 };
        let added = settle(&mut set, &disks, &Lost::default(), NOWHERE);
        moved += added.len() as u64 * size;
        assert!(set.is_in_sync("a/x") && set.in_sync().count() == COPIES_OF_NODE);
    }
    assert_eq!(moved, lacking, "the optimum");
}

#[test]
fn any_history_ends_with_all_copies_apart() {
    let all = [("a", "p"), ("a", "q"), ("a", "r"), ("b", "s"), ("b", "t"), ("c", "u"), ("d", "v")];
    let mut state = 7u64;
    let mut next = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for _ in 0..300 {
        let mut set = of(&["a/p"]);
        for _ in 0..12 {
            let mut lost = Lost::default();
            let mut disks = Vec::new();
            for (node, id) in all {
                match next(6) {
                    0 => drop(lost.disks.insert(place::on_disk(node, id))),
                    1 => drop(lost.draining.insert(id.to_owned())),
                    _ => {}
                }
                let healthy = !lost.disks.contains(&place::on_disk(node, id));
                disks.push(DiskStatus { healthy, ..disk(node, id, 1 + next(50)) });
            }
            // A writer calls out of sync what is lost, but the last.
            let gone = |at: &str| lost.disks.contains(at);
            let before = set.without(gone).unwrap_or_else(|| set.clone());
            if before.in_sync().all(gone) {
                continue; // Nobody can read it now.
            }
            set = before;
            settle_but(&mut set, &disks, &lost, &gone);
            let sound: Vec<&str> = set.in_sync().filter(|at| !gone(at)).collect();
            let nodes: BTreeSet<&str> = sound.iter().map(|at| place::node_of(at)).collect();
            let usable = candidates(&disks, &lost.draining);
            let on_one = usable.first().map_or(0, |c| c.disks.len().max(1)).min(COPIES_OF_NODE);
            let least = if usable.len() > 1 { usable.len().min(COPIES) } else { on_one };
            assert!(sound.len() >= least, "{sound:?} of {usable:?}");
            assert!(usable.len() < 2 || nodes.len() == sound.len(), "apart: {sound:?}");
            let drained = |at: &&&str| place::disk_of(at).is_some_and(|d| lost.draining.contains(d));
            assert!(usable.is_empty() || !sound.iter().any(|at| drained(&at)), "{sound:?} of {lost:?}");
        }
    }
}

/// Like [`settle`], but what is lost can neither become whole nor be heard to have gone.
fn settle_but(set: &mut ReplicaSet, disks: &[DiskStatus], lost: &Lost, gone: &dyn Fn(&str) -> bool) {
    let candidates = candidates(disks, &lost.draining);
    for _ in 0..40 {
        for place in set.replicas.iter().map(|r| r.place.clone()).filter(|at| !gone(at)).collect::<Vec<_>>() {
            *set = set.with(&place).unwrap_or_else(|| set.clone());
            *set = set.left(&place);
        }
        let Some(next) = repair(set, "a", &candidates, lost, NOWHERE, COPIES) else { return };
        let sound = |set: &ReplicaSet| set.in_sync().filter(|at| !gone(at)).count();
        assert!(sound(&next) >= 1 && sound(&next) + 1 >= sound(set));
        *set = next;
    }
    panic!("it never ends: {set:?}");
}
