//! What the store says after a disk was adopted, by cases and for all small sets of replicas.

use super::*;
use crate::conductor::tests::alive;
use crate::disks;
use crate::model::{DiskWish, Visiting};

fn disk(node: &str, disk: &str) -> DiskStatus {
    DiskStatus { disk: disk.into(), ..crate::conductor::tests::disk(node) }
}

fn gone(node: &str, name: &str) -> DiskStatus {
    DiskStatus { healthy: false, gone: true, free: 0, ..disk(node, name) }
}

fn visiting(node: &str, name: &str, owner: &str) -> DiskStatus {
    let visiting = Some(Visiting { owner: owner.into(), unbound: Vec::new(), backups: Vec::new() });
    DiskStatus { healthy: false, visiting, ..disk(node, name) }
}

async fn put<R: Record>(store: &LocalStore, record: &R) {
    store.transact(|tx| tx.put(record)).await.unwrap();
}

fn get<R: Record>(store: &LocalStore, id: &str) -> Option<R> {
    store.read(|tx| tx.get::<R>(id)).unwrap()
}

fn replica(volume: &str, node: &str, disk: &str) -> ReplicaStatus {
    ReplicaStatus {
        volume: volume.into(),
        node: node.into(),
        bound: None,
        phase: Phase::Ready,
        error: None,
        disk: Some(disk.into()),
        allocated: 7,
    }
}

#[test]
fn a_disk_is_adopted_only_when_no_live_node_has_it() {
    let all = alive(&["a", "b", "c"]);
    let may =
        |reports: &[DiskStatus], nodes: &Nodes| adopter("x", reports, None, nodes).map(|d| d.node.clone());
    let guest = visiting("b", "x", "a");
    assert_eq!(may(&[disk("a", "x"), guest.clone()], &all), None, "a has it, too");
    let sick = DiskStatus { healthy: false, ..disk("a", "x") };
    assert_eq!(may(&[sick, guest.clone()], &all), None, "and be it sick");
    let b = Some("b".to_owned());
    assert_eq!(may(&[gone("a", "x"), guest.clone()], &all), b);
    assert_eq!(may(&[disk("a", "x"), guest.clone()], &alive(&["b", "c"])), b, "a is off");
    assert_eq!(may(std::slice::from_ref(&guest), &all), b, "nobody knows of a");
    assert_eq!(may(std::slice::from_ref(&guest), &alive(&["c"])), None, "b is off");
    assert_eq!(may(&[guest.clone(), visiting("c", "x", "a")], &all), None, "one is a copy");
    let older = DiskStatus { knows_owners: false, ..disk("c", "y") };
    assert_eq!(may(&[guest.clone(), older], &all), None, "a writer on c would not understand");
    let done = DiskOwner { disk: "x".into(), node: "b".into(), adoption: 1 };
    assert_eq!(adopter("x", &[guest], Some(&done), &all), None);
}

#[tokio::test]
async fn all_that_is_on_the_disk_comes_along_and_nothing_else() {
    let store = LocalStore::in_memory().unwrap();
    let mut guest = visiting("b", "x", "a");
    if let Some(v) = &mut guest.visiting {
        v.unbound.push("untold".into());
        v.backups.extend(["copy".to_owned(), "foreign".to_owned()]);
    }
    for report in [gone("a", "x"), disk("a", "y"), disk("b", "z"), guest] {
        put(&store, &report).await;
    }
    let spec = |id: &str| VolumeSpec::new(id, "a", 1024);
    let three =
        |id: &str, at: [&str; 3]| ReplicaSet { epoch: 3, ..ReplicaSet::new(id, at.map(String::from)) };
    let behind = three("behind", ["a/x", "b", "c"]).without(|at| at == "a/x").unwrap();
    for id in ["alone", "unbound", "behind", "other", "untold"] {
        put(&store, &spec(id)).await;
    }
    let at = |disk: &str| VolumeStatus {
        disk: Some(disk.into()),
        ..VolumeStatus::new(&spec("alone"), Phase::Ready)
    };
    put(&store, &at("x")).await;
    for set in [three("unbound", ["a", "b", "c"]), behind.clone(), three("other", ["a", "b", "c"])] {
        put(&store, &set).await;
    }
    for told in [replica("unbound", "a", "x"), replica("unbound", "b", "z"), replica("other", "a", "y")] {
        put(&store, &told).await;
    }
    store.transact(|tx| crate::backup::create(tx, "copy", "a", "alone", None)).await.unwrap();
    let copy = |phase| BackupStatus {
        id: "copy".into(),
        node: "a".into(),
        phase,
        error: None,
        chunks: 1,
        stored: 1,
    };
    put(&store, &copy(Phase::Ready)).await;

    assert!(pass(&store, &alive(&["a", "b", "c"])).await.unwrap());
    assert_eq!(get::<DiskOwner>(&store, "x").map(|o| (o.node, o.adoption)), Some(("b".into(), 1)));
    assert_eq!(get::<DiskStatus>(&store, "a/x"), None);
    let set = |id: &str| get::<ReplicaSet>(&store, id).unwrap();
    assert_eq!(set("unbound"), three("unbound", ["a", "b", "c"]).moved("a", "b/x"));
    assert_eq!(set("behind"), behind.moved("a/x", "b/x"), "what it lacks is as it was");
    assert_eq!(set("other"), three("other", ["a", "b", "c"]), "that is on another disk of a");
    for id in ["alone", "untold"] {
        let (set, spec) = (set(id), get::<VolumeSpec>(&store, id).unwrap());
        assert_eq!((set.in_sync().collect::<Vec<_>>(), set.epoch), (vec!["b/x"], 1), "{id}");
        assert!(spec.node == "b" && spec.epoch() > set.epoch, "{id}");
    }
    let told = get::<ReplicaStatus>(&store, "unbound/b/x").unwrap();
    assert_eq!((told.disk.as_deref(), told.phase), (Some("x"), Phase::Creating));
    assert_eq!(get::<ReplicaStatus>(&store, "unbound/a"), None);
    assert_eq!(get::<BackupSpec>(&store, "copy").unwrap().node, "b");
    // It is done once, and the disk goes back the same way.
    assert!(!pass(&store, &alive(&["a", "b", "c"])).await.unwrap());
    put(&store, &gone("b", "x")).await;
    put(&store, &visiting("a", "x", "b")).await;
    assert!(pass(&store, &alive(&["a", "b", "c"])).await.unwrap());
    assert_eq!(get::<DiskOwner>(&store, "x").map(|o| (o.node, o.adoption)), Some(("a".into(), 2)));
    assert_eq!(
        get::<ReplicaSet>(&store, "unbound"),
        Some(three("unbound", ["a", "b", "c"]).moved("a", "a/x"))
    );
}

#[tokio::test]
async fn a_user_keeps_its_volume_under_its_epoch() {
    let store = LocalStore::in_memory().unwrap();
    for report in [gone("a", "x"), visiting("b", "x", "a")] {
        put(&store, &report).await;
    }
    let spec = VolumeSpec::new("v", "a", 1024);
    put(&store, &spec).await;
    put(&store, &VolumeStatus { disk: Some("x".into()), ..VolumeStatus::new(&spec, Phase::Ready) }).await;
    let epoch = store.transact(|tx| crate::volumes::export(tx, "v", "a", "server")).await.unwrap();
    assert!(pass(&store, &alive(&["a", "b"])).await.unwrap());
    let now = get::<VolumeSpec>(&store, "v").unwrap();
    assert_eq!((now.node.as_str(), now.lead(), now.epoch()), ("b", "a", epoch));
    assert_eq!(get::<ReplicaSet>(&store, "v").unwrap().epoch, epoch, "it may have been written");
}

#[tokio::test]
async fn a_disk_that_was_given_up_is_nobodys_when_it_comes_back() {
    let store = LocalStore::in_memory().unwrap();
    put(&store, &DiskWish { disk: "x".into(), retire: true }).await;
    store.transact(disks::sweep).await.unwrap();
    assert_eq!(get::<DiskWish>(&store, "x"), None);
    assert_eq!(get::<DiskOwner>(&store, "x").unwrap().node, "");
    put(&store, &visiting("a", "x", "")).await;
    assert!(pass(&store, &alive(&["a"])).await.unwrap());
    assert_eq!(get::<DiskOwner>(&store, "x").map(|o| (o.node, o.adoption)), Some(("a".into(), 2)));
}

/// Wherever replicas are and whatever is true of them: each stays what it was, and no place is taken twice.
#[tokio::test]
async fn replicas_that_move_stay_what_they_were() {
    let places = ["a", "b", "a/x", "b/x", "a/y", "c", "c/x"];
    let of = |bits: usize| {
        let chosen =
            places.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1).map(|(_, p)| (*p).to_owned());
        let set = ReplicaSet { epoch: 5, ..ReplicaSet::new(&format!("v{bits}"), chosen) };
        set.without(|at| at.len() % 2 == bits % 2).unwrap_or(set)
    };
    let sets: Vec<ReplicaSet> = (1..1 << places.len()).map(of).collect();
    let store = LocalStore::in_memory().unwrap();
    let all = |tx: &mut Tx| -> Result<(), Abort> {
        tx.put(&gone("a", "x"))?;
        tx.put(&visiting("b", "x", "a"))?;
        for set in &sets {
            tx.put(&VolumeSpec::new(&set.id, "a", 1024))?;
            tx.put(set)?;
            tx.put(&replica(&set.id, "a", "x"))?;
        }
        Ok(())
    };
    store.transact(all).await.unwrap();
    assert!(pass(&store, &alive(&["a", "b", "c"])).await.unwrap());
    for set in &sets {
        let moved = get::<ReplicaSet>(&store, &set.id).unwrap();
        let unique: BTreeSet<&str> = moved.replicas.iter().map(|r| r.place.as_str()).collect();
        assert_eq!(unique.len(), set.replicas.len(), "{set:?} {moved:?}");
        for (before, after) in set.replicas.iter().zip(&moved.replicas) {
            let same = Replica { place: before.place.clone(), ..after.clone() };
            let there = after.place == before.place || after.place == "b/x";
            assert!(same == *before && there, "{set:?} {moved:?}");
        }
        assert_eq!(&ReplicaSet { replicas: set.replicas.clone(), ..moved.clone() }, set);
    }
}
