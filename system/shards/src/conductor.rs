//! The controller's care for replicas: more of them when nodes come, others when nodes are lost, and a new keeper for a
//! volume whose keeper is lost. One runs on each controller; what two do at once, one of them finds done.
//!
//! It changes records of replicas only as [`placement::repair`], [`balance`] and [`adoption`] say, never which of them are in sync, and a
//! spec only to give it another keeper. It reads all volumes, at rest between looks: nobody waits for it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_state::{Abort, LocalStore, Tx};

use crate::adoption;
use crate::ailing;
use crate::balance::{self, Balance};
use crate::disks;
use crate::external::orders;
use crate::model::{DiskStatus, DiskWish, Phase, ReplicaMove, ReplicaStatus, VolumeSpec, VolumeStatus};
use crate::removal;
use crate::replication::place;
use crate::replication::placement::{self, Candidate, Lost};
use crate::replication::set::ReplicaSet;

/// How often it looks.
const INTERVAL: Duration = Duration::from_secs(10);
/// How long a node may be silent until its replicas are made elsewhere.
const SILENT_MAX: Duration = Duration::from_secs(600);
/// How long the keeper of a volume may be silent until another keeps it.
const KEEPER_SILENT_MAX: Duration = Duration::from_secs(30);

/// What the cloud knows of its nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nodes {
    /// Those that are alive.
    pub alive: BTreeSet<String>,
    /// Those that were removed.
    pub removed: BTreeSet<String>,
}

/// Asks what the cloud knows of its nodes; `None` while that cannot be said, and nothing is done then.
pub type Census = Arc<dyn Fn() -> Option<Nodes> + Send + Sync>;

/// Runs for ever.
pub async fn conductor(store: LocalStore, census: Census) {
    let (mut absences, mut balance) = (Absences::default(), Balance::default());
    loop {
        if let Some(nodes) = census() {
            let absent = absences.note(&store, &nodes);
            let looked = async {
                let rests = pass(&store, &nodes, &absent).await?;
                balance.look(&store, &nodes, rests).await
            };
            if let Err(e) = looked.await {
                tracing::warn!(error = %e, "replicas could not be looked after");
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Since when nodes are silent, and disks not well, as this controller saw it.
#[derive(Debug, Default)]
struct Absences {
    nodes: HashMap<String, Instant>,
    disks: HashMap<String, Instant>,
}

/// Nodes that are silent now, and disks that are not well.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Absent {
    /// For a while.
    pub briefly: BTreeSet<String>,
    /// For long.
    pub long: BTreeSet<String>,
    /// Disks that their nodes, which are alive, have called missing or broken for long, as places.
    pub disks: BTreeSet<String>,
}

impl Absences {
    fn note(&mut self, store: &LocalStore, nodes: &Nodes) -> Absent {
        let disks: Vec<DiskStatus> =
            store.read(|tx| tx.list_unfenced()).unwrap_or_else(|_: Abort| Vec::new());
        let ill = disks.iter().filter(|d| nodes.alive.contains(&d.node) && !d.healthy);
        let ill: BTreeSet<String> = ill.map(|d| place::on_disk(&d.node, &d.disk)).collect();
        self.disks.retain(|disk, _| ill.contains(disk));
        let mut absent = Absent::default();
        for disk in ill {
            if self.disks.entry(disk.clone()).or_insert_with(Instant::now).elapsed() >= SILENT_MAX {
                absent.disks.insert(disk);
            }
        }
        let silent: BTreeSet<String> =
            disks.into_iter().map(|d| d.node).filter(|n| !nodes.alive.contains(n)).collect();
        self.nodes.retain(|node, _| silent.contains(node));
        for node in silent {
            let since = self.nodes.entry(node.clone()).or_insert_with(Instant::now).elapsed();
            if since >= KEEPER_SILENT_MAX {
                absent.briefly.insert(node.clone());
            }
            if since >= SILENT_MAX {
                absent.long.insert(node);
            }
        }
        absent
    }
}

/// Takes one step for each volume that needs one; true if none did.
pub async fn pass(store: &LocalStore, nodes: &Nodes, absent: &Absent) -> Result<bool, Abort> {
    let adopted = adoption::pass(store, nodes).await?;
    let disks: Vec<DiskStatus> = store.read(|tx| tx.list_unfenced())?;
    ailing::pass(store, &disks).await?;
    let wishes: Vec<DiskWish> = store.read(|tx| tx.list_unfenced())?;
    let spared = disks::spared(&wishes);
    let mut candidates = placement::candidates(&disks, &spared);
    candidates.retain(|c| nodes.alive.contains(&c.node));
    let lost = Lost {
        silent: absent.long.clone(),
        removed: nodes.removed.clone(),
        disks: absent.disks.clone(),
        retired: disks::given_up(&wishes, &disks),
        draining: spared,
    };
    let specs: Vec<VolumeSpec> = store.read(|tx| tx.list_unfenced())?;
    let moves: Vec<ReplicaMove> = store.read(|tx| tx.list_unfenced())?;
    let mut rests = moves.is_empty() && !adopted;
    let moving: BTreeSet<&str> = moves.iter().map(|m| m.volume.as_str()).collect();
    for spec in specs {
        let moves = moving.contains(spec.id.as_str());
        rests &= store.transact(|tx| one(tx, &spec.id, moves, &candidates, &lost, absent)).await?;
    }
    if wishes.iter().any(|wish| wish.retire) {
        store.transact(disks::sweep).await?;
    }
    for ended in moves {
        store.transact(|tx| balance::forget(tx, &ended)).await?;
    }
    Ok(rests)
}

/// Takes one step for a volume, of which a replica moves or not; true if it needs none.
fn one(
    tx: &mut Tx,
    id: &str,
    moves: bool,
    candidates: &[Candidate],
    lost: &Lost,
    absent: &Absent,
) -> Result<bool, Abort> {
    let Some(spec) = tx.get::<VolumeSpec>(id)? else { return Ok(true) };
    if spec.backend.is_some() {
        let away = |node: &str| absent.briefly.contains(node) || lost.removed.contains(node);
        return Ok(!orders::give_keeper(tx, spec, &away)?);
    }
    let kept = tx.get::<ReplicaSet>(id)?;
    if spec.deleted && kept.is_none() && is_on_lost(tx, &spec, lost)? {
        // Nobody is left to say so.
        tx.put(&removal::lost(&spec))?;
        return Ok(false);
    }
    let set = match &kept {
        Some(set) => set.clone(),
        // Only what is there can have a second replica: until then it has one place to be made in.
        None if is_made(tx, id)? && !spec.deleted => ReplicaSet::new(id, [spec.node.clone()]),
        None => return Ok(true),
    };
    // Where all is as it should be, nobody asks on which disk.
    let asked = candidates.iter().any(|c| !c.disks.is_empty()) || lost.names_disks();
    let located = if asked { locate(tx, &set, kept.is_some())? } else { BTreeMap::new() };
    let at = |place: &str| located.get(place).cloned();
    if spec.deleted && !set.replicas.is_empty() && lost.has_all(&set, &at) {
        tx.put(&removal::lost(&spec))?;
        return Ok(false);
    }
    let mut next = match gone(tx, &set)? {
        Some(next) => Some(next),
        None if spec.deleted => lost.without_removed(&set, &at),
        None => None,
    };
    if next.is_none() && !spec.deleted {
        let moved = if moves { balance::step(tx, &spec, &set)? } else { None };
        let repair = || placement::repair(&set, spec.lead(), candidates, lost, &at, spec.copies());
        next = moved.or_else(repair);
    }
    if let Some(next) = &next {
        tx.put(next)?;
    }
    let gave = give_keeper(tx, spec, next.as_ref().or(kept.as_ref()), absent, lost)?;
    Ok(next.is_none() && !gave)
}

/// The disks of replicas whose places name none.
fn locate(tx: &mut Tx, set: &ReplicaSet, kept: bool) -> Result<BTreeMap<String, String>, Abort> {
    let mut found = BTreeMap::new();
    for replica in set.replicas.iter().filter(|r| place::disk_of(&r.place).is_none()) {
        let disk = match kept {
            true => disks::of_replica(tx, &set.id, &replica.place)?,
            false => disks::of_only_copy(tx, &set.id)?,
        };
        found.extend(disk.map(|disk| (replica.place.clone(), disk)));
    }
    Ok(found)
}

/// Whether the one copy of a volume without a record of replicas went with a node that was removed, or with a disk that
/// was given up.
fn is_on_lost(tx: &mut Tx, spec: &VolumeSpec, lost: &Lost) -> Result<bool, Abort> {
    let disk = disks::of_only_copy(tx, &spec.id)?;
    Ok(lost.removed.contains(&spec.node) || disk.is_some_and(|disk| lost.retired.contains(&disk)))
}

pub(crate) fn is_made(tx: &mut Tx, id: &str) -> Result<bool, Abort> {
    Ok(tx.get::<VolumeStatus>(id)?.is_some_and(|s| s.phase == Phase::Ready))
}

/// The set without a replica that has left.
fn gone(tx: &mut Tx, set: &ReplicaSet) -> Result<Option<ReplicaSet>, Abort> {
    for replica in set.replicas.iter().filter(|r| r.leaving) {
        let id = ReplicaStatus::id_of(&set.id, &replica.place);
        if tx.get::<ReplicaStatus>(&id)?.is_some_and(|s| s.phase == Phase::Gone) {
            tx.delete::<ReplicaStatus>(&id)?;
            return Ok(Some(set.left(&replica.place)));
        }
    }
    Ok(None)
}

/// A volume that nobody uses is kept by a node that lives and has all of it; true if another was found for that.
fn give_keeper(
    tx: &mut Tx,
    spec: VolumeSpec,
    set: Option<&ReplicaSet>,
    absent: &Absent,
    lost: &Lost,
) -> Result<bool, Abort> {
    let away = |node: &str| absent.briefly.contains(node) || lost.removed.contains(node);
    let keeper = set.and_then(|set| set.in_sync().map(place::node_of).find(|n| !away(n)).map(str::to_owned));
    match keeper.filter(|_| spec.export.is_none() && away(&spec.node)) {
        Some(node) => {
            let (generation, keeper_epoch) = (spec.generation + 1, spec.generation + 1);
            tx.put(&VolumeSpec { node, generation, keeper_epoch, ..spec })?;
            Ok(true)
        }
        None => Ok(false),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn disk(node: &str) -> DiskStatus {
        DiskStatus {
            node: node.into(),
            disk: format!("disk-{node}"),
            path: "/d".into(),
            size: 1000,
            free: 500,
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

    pub(crate) fn alive(nodes: &[&str]) -> Nodes {
        Nodes { alive: nodes.iter().map(|n| (*n).to_owned()).collect(), ..Nodes::default() }
    }

    async fn store() -> LocalStore {
        let store = LocalStore::in_memory().unwrap();
        let spec = VolumeSpec::new("v", "a", 1024);
        let put = |tx: &mut Tx| -> Result<(), Abort> {
            ["a", "b", "c"].iter().try_for_each(|n| tx.put(&disk(n)))?;
            tx.put(&spec)?;
            tx.put(&VolumeStatus::new(&spec, Phase::Ready))
        };
        store.transact(put).await.unwrap();
        store
    }

    fn set(store: &LocalStore) -> Option<ReplicaSet> {
        store.read(|tx| tx.get::<ReplicaSet>("v")).unwrap()
    }

    #[tokio::test]
    async fn a_volume_of_one_node_gets_replicas_when_others_are_there() {
        let store = store().await;
        pass(&store, &alive(&["a"]), &Absent::default()).await.unwrap();
        assert_eq!(set(&store), None, "one node: all is as it was");
        for _ in 0..4 {
            pass(&store, &alive(&["a", "b", "c"]), &Absent::default()).await.unwrap();
        }
        let set = set(&store).unwrap();
        assert_eq!((set.replicas.len(), set.in_sync().collect::<Vec<_>>()), (3, vec!["a"]));
    }

    #[tokio::test]
    async fn a_volume_whose_keeper_is_silent_gets_another_and_one_that_ends_waits_for_no_removed_node() {
        let store = store().await;
        let three = ReplicaSet::new("v", ["a", "b", "c"].map(String::from));
        store.transact(|tx| tx.put(&three)).await.unwrap();
        let absent = Absent { briefly: ["a".to_owned()].into(), ..Absent::default() };
        pass(&store, &alive(&["b", "c"]), &absent).await.unwrap();
        let spec = store.read(|tx| tx.get::<VolumeSpec>("v")).unwrap().unwrap();
        assert_eq!((spec.node.as_str(), spec.epoch()), ("b", 2));
        store.transact(|tx| tx.put(&VolumeSpec { deleted: true, ..spec.clone() })).await.unwrap();
        let nodes = Nodes { removed: ["a".to_owned()].into(), ..alive(&["b", "c"]) };
        pass(&store, &nodes, &Absent::default()).await.unwrap();
        assert_eq!(set(&store).unwrap().replicas.len(), 2);
    }
}
