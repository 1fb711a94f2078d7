//! What the controller does with volumes: small functions that take the open transaction, for the services that
//! own volumes (images, block storage, servers' root disks).
//!
//! They change [`VolumeSpec`]s alone, and each change raises the generation. They never touch a disk: the
//! storage agent sees the change and acts. [`purge_if_gone`] is the one place that removes an agent's record,
//! after the agent is done with it.

use cairn_state::{Abort, Record, StoreError, Tx, record};

use crate::crypt::keys::SealedKey;
use crate::disks;
use crate::model::{DiskStatus, Export, Phase, Recoded, ReplicaStatus, VolumeSpec, VolumeStatus};
use crate::replication::place;
use crate::replication::placement::{self, Source};
use crate::replication::set::ReplicaSet;
use crate::throttle::IoLimits;

/// Asks for a new volume, with replicas on as many nodes as there are and are wanted. Its generation is set here. A clone
/// is under its source's key. Refused with [`Abort::Taken`] if the id is in use, a tombstone included.
pub fn create(tx: &mut Tx, spec: VolumeSpec) -> Result<(), Abort> {
    let key = match &spec.source {
        Some(source) => tx.get::<VolumeSpec>(source)?.and_then(|s| s.key),
        None => spec.key.clone(),
    };
    create_under(tx, spec, key)
}

/// Like [`create`], under this key. What comes from under another one, or none, is copied, and its source must not change.
pub fn create_under(tx: &mut Tx, mut spec: VolumeSpec, key: Option<SealedKey>) -> Result<(), Abort> {
    if tx.get::<VolumeSpec>(&spec.id)?.is_some() {
        let (value, holder) = (spec.id.clone(), spec.id);
        return Err(Abort::Taken { kind: VolumeSpec::KIND, index: "id", value, holder });
    }
    spec.generation = 1;
    if let Some(source) = &spec.source {
        let from = tx.get::<VolumeSpec>(source)?.and_then(|s| s.key);
        spec.recoded = (from != key).then_some(Recoded { from });
    }
    spec.key = key;
    if spec.backend.is_some() {
        return tx.put(&spec);
    }
    let spared = disks::spared(&tx.list_unfenced()?);
    let candidates = placement::candidates(&tx.list_unfenced::<DiskStatus>()?, &spared);
    let source = match &spec.source {
        Some(source) => source_of(tx, source)?,
        None => None,
    };
    if let Some(set) = placement::initial(&spec, source.as_ref(), &candidates, spec.copies()) {
        tx.put(&set)?;
    }
    tx.put(&spec)
}

/// Where the source of a clone is.
fn source_of(tx: &mut Tx, id: &str) -> Result<Option<Source>, Abort> {
    let Some(spec) = tx.get::<VolumeSpec>(id)? else { return Ok(None) };
    let in_sync = match tx.get::<ReplicaSet>(id)? {
        Some(set) => {
            let places: Vec<&str> = set.in_sync().collect();
            places.into_iter().map(|at| located(tx, id, at)).collect::<Result<_, Abort>>()?
        }
        None => {
            let disk = disks::of_only_copy(tx, id)?;
            vec![disk.map_or_else(|| spec.node.clone(), |disk| place::on_disk(&spec.node, &disk))]
        }
    };
    Ok(Some(Source { in_sync, fixed: spec.read_only }))
}

/// The place of a replica with its disk, if that is known.
fn located(tx: &mut Tx, id: &str, at: &str) -> Result<String, Abort> {
    let disk = disks::of_replica(tx, id, at)?;
    Ok(disk.map_or_else(|| at.to_owned(), |disk| place::on_disk(place::node_of(at), &disk)))
}

/// Gives `owner` on `node` the use of the volume; answers the epoch under which it will be served. Whoever had
/// it before is cut off. Asking again for the same owner and node changes nothing. An owner for whom that node prepared
/// runs on, see [`begin_move`].
pub fn export(tx: &mut Tx, id: &str, node: &str, owner: &str) -> Result<u64, Abort> {
    let spec = require(tx, id)?;
    if let Some(now) = &spec.export
        && now.node == node
        && now.owner == owner
    {
        return Ok(now.epoch);
    }
    let moves = spec.moving.as_deref() == Some(node);
    let runs_on = moves && spec.export.as_ref().is_some_and(|now| now.owner == owner);
    take_over(tx, spec, node, owner, runs_on)
}

/// Exports the volume to a node under the next epoch; `runs_on`: to the user it has.
fn take_over(
    tx: &mut Tx,
    mut spec: VolumeSpec,
    node: &str,
    owner: &str,
    runs_on: bool,
) -> Result<u64, Abort> {
    name_replicas(tx, &spec, node)?;
    // Generations of a spec never repeat, which is all that an epoch has to promise.
    let epoch = spec.generation + 1;
    if !runs_on {
        spec.user_since = epoch;
    }
    spec.export = Some(Export { node: node.into(), owner: owner.into(), epoch });
    spec.moving = None;
    put_next(tx, spec)?;
    Ok(epoch)
}

/// The record of the one replica of a volume that had none. If it was ever on a disk it counts as written: should that disk
/// be away now, no empty volume is made in its place.
fn only_copy(tx: &mut Tx, spec: &VolumeSpec) -> Result<ReplicaSet, Abort> {
    let was_there = disks::of_only_copy(tx, &spec.id)?.is_some();
    let epoch = if was_there { spec.epoch() } else { 0 };
    Ok(ReplicaSet { epoch, ..ReplicaSet::new(&spec.id, [spec.node.clone()]) })
}

/// Another node writes it from now on: its one replica must be named, so that it can be reached from there.
fn name_replicas(tx: &mut Tx, spec: &VolumeSpec, node: &str) -> Result<(), Abort> {
    let has_one = spec.backend.is_none() && spec.node != node;
    if has_one && tx.get::<ReplicaSet>(&spec.id)?.is_none() {
        let set = only_copy(tx, spec)?;
        tx.put(&set)?;
    }
    Ok(())
}

/// Lets `node` prepare to serve the volume to the owner it has, who moves there: the volume is reported
/// [`Prepared`](crate::model::Prepared).
/// Asking again changes nothing.
pub fn begin_move(tx: &mut Tx, id: &str, node: &str) -> Result<(), Abort> {
    let spec = require(tx, id)?;
    if spec.moving.as_deref() == Some(node) || spec.lead() == node {
        return Ok(());
    }
    name_replicas(tx, &spec, node)?;
    put_next(tx, VolumeSpec { moving: Some(node.into()), ..spec })
}

/// The owner is on the node it was moving to: the volume is written from there, under the epoch answered. Asking again
/// answers the same.
pub fn finish_move(tx: &mut Tx, id: &str, node: &str) -> Result<u64, Abort> {
    let spec = require(tx, id)?;
    let Some(export) = spec.export.clone() else {
        let why = "the volume is used by nobody, so nobody moves with it".into();
        return Err(StoreError::Decode { key: record::key::<VolumeSpec>(id), why }.into());
    };
    if export.node == node && spec.moving.is_none() {
        return Ok(export.epoch);
    }
    take_over(tx, spec, node, &export.owner, true)
}

/// The owner stays where it is. Without a move nothing changes.
pub fn abort_move(tx: &mut Tx, id: &str) -> Result<(), Abort> {
    match tx.get::<VolumeSpec>(id)? {
        Some(spec) if spec.moving.is_some() => put_next(tx, VolumeSpec { moving: None, ..spec }),
        _ => Ok(()),
    }
}

/// Takes the use of the volume away from whoever has it. A volume that is not there is left alone.
pub fn unexport(tx: &mut Tx, id: &str) -> Result<(), Abort> {
    match tx.get::<VolumeSpec>(id)? {
        Some(spec) if spec.export.is_some() => put_next(tx, kept(spec)),
        _ => Ok(()),
    }
}

/// The volume once nobody uses it: the node where it was used keeps it, if others may.
fn kept(spec: VolumeSpec) -> VolumeSpec {
    let (node, keeper_epoch) = (spec.lead().to_owned(), spec.generation + 1);
    VolumeSpec { export: None, moving: None, node, keeper_epoch, user_since: keeper_epoch, ..spec }
}

/// Grows the volume to `size` bytes; a smaller size changes nothing, since volumes never shrink.
pub fn resize(tx: &mut Tx, id: &str, size: u64) -> Result<(), Abort> {
    let mut spec = require(tx, id)?;
    if size <= spec.size {
        return Ok(());
    }
    spec.size = size;
    put_next(tx, spec)
}

/// Sets how many replicas the volume shall have. The conductor makes or removes some; what is there goes on meanwhile.
pub fn set_copies(tx: &mut Tx, id: &str, copies: Option<usize>) -> Result<(), Abort> {
    let spec = require(tx, id)?;
    if spec.copies == copies {
        return Ok(());
    }
    put_next(tx, VolumeSpec { copies, ..spec })
}

/// Sets how much of the volume its user may ask for.
pub fn limit(tx: &mut Tx, id: &str, limits: &IoLimits) -> Result<(), Abort> {
    let mut spec = require(tx, id)?;
    if spec.limits == *limits {
        return Ok(());
    }
    spec.limits.clone_from(limits);
    put_next(tx, spec)
}

/// Asks for the volume's end: it is taken from its owner and destroyed. A volume that is not there (any more),
/// or is ending already, is left alone.
pub fn delete(tx: &mut Tx, id: &str) -> Result<(), Abort> {
    match tx.get::<VolumeSpec>(id)? {
        Some(spec) if !spec.deleted => put_next(tx, VolumeSpec { deleted: true, ..kept(spec) }),
        _ => Ok(()),
    }
}

/// Asks for the end of data that may or may not be on `node` without a spec: an image whose import was cut off
/// after its data was stored and before its record was committed. If there is a spec, this is [`delete`].
pub fn abandon(tx: &mut Tx, id: &str, node: &str) -> Result<(), Abort> {
    if tx.get::<VolumeSpec>(id)?.is_some() {
        return delete(tx, id);
    }
    tx.put(&VolumeSpec { read_only: true, deleted: true, ..VolumeSpec::new(id, node, 0) })
}

/// Makes the volume `spec`, under its key, in the place of one of the same id whose end was asked for, once that is
/// destroyed. True if it was asked for.
pub fn renew(tx: &mut Tx, spec: VolumeSpec) -> Result<bool, Abort> {
    let before = tx.get::<VolumeSpec>(&spec.id)?.map_or(0, |s| s.generation);
    let id = spec.id.clone();
    if !purge_if_gone(tx, &id)? {
        return Ok(false);
    }
    let key = spec.key.clone();
    create_under(tx, spec, key)?;
    // Agents remember the generations of an id.
    let made = require(tx, &id)?;
    put_next(tx, VolumeSpec { generation: before, ..made })?;
    Ok(true)
}

/// Removes the volume's records once its agent reported it destroyed. True if nothing of it is left.
pub fn purge_if_gone(tx: &mut Tx, id: &str) -> Result<bool, Abort> {
    let Some(spec) = tx.get::<VolumeSpec>(id)? else { return Ok(true) };
    let gone = status(tx, id)?.is_some_and(|s| s.phase == Phase::Gone && s.generation >= spec.generation);
    if !spec.deleted || !gone {
        return Ok(false);
    }
    if let Some(set) = tx.get::<ReplicaSet>(id)? {
        for replica in &set.replicas {
            tx.delete::<ReplicaStatus>(&ReplicaStatus::id_of(id, &replica.place))?;
        }
        tx.delete::<ReplicaSet>(id)?;
    }
    tx.delete::<VolumeSpec>(id)?;
    tx.delete::<VolumeStatus>(id)?;
    Ok(true)
}

/// What the agent last said of the volume.
pub fn status(tx: &mut Tx, id: &str) -> Result<Option<VolumeStatus>, Abort> {
    tx.get::<VolumeStatus>(id)
}

/// The spec of a volume that must be there; its absence is a fault of the caller's records, not of a user.
fn require(tx: &mut Tx, id: &str) -> Result<VolumeSpec, Abort> {
    match tx.get::<VolumeSpec>(id)? {
        Some(spec) if !spec.deleted => Ok(spec),
        found => {
            let why = if found.is_some() { "the volume is being deleted" } else { "there is no such volume" };
            Err(StoreError::Decode { key: record::key::<VolumeSpec>(id), why: why.into() }.into())
        }
    }
}

fn put_next(tx: &mut Tx, mut spec: VolumeSpec) -> Result<(), Abort> {
    spec.generation += 1;
    tx.put(&spec)
}

#[cfg(test)]
mod tests {
    use cairn_state::LocalStore;

    use super::*;

    fn spec(id: &str) -> VolumeSpec {
        VolumeSpec::new(id, "n", 1024)
    }

    async fn change<T>(store: &LocalStore, mut f: impl FnMut(&mut Tx) -> Result<T, Abort>) -> T {
        store.transact(|tx| f(tx)).await.unwrap()
    }

    #[tokio::test]
    async fn epochs_only_grow() {
        let store = LocalStore::in_memory().unwrap();
        change(&store, |tx| create(tx, spec("v"))).await;
        let first = change(&store, |tx| export(tx, "v", "n", "a")).await;
        assert_eq!(change(&store, |tx| export(tx, "v", "n", "a")).await, first);
        let second = change(&store, |tx| export(tx, "v", "n", "b")).await;
        change(&store, |tx| unexport(tx, "v")).await;
        let third = change(&store, |tx| export(tx, "v", "n", "b")).await;
        assert!(first < second && second < third);
    }

    #[tokio::test]
    async fn a_volume_is_purged_only_when_its_agent_is_done() {
        let store = LocalStore::in_memory().unwrap();
        change(&store, |tx| create(tx, spec("v"))).await;
        assert!(store.transact(|tx| create(tx, spec("v"))).await.is_err());
        change(&store, |tx| delete(tx, "v")).await;
        assert!(store.transact(|tx| export(tx, "v", "n", "a")).await.is_err());
        let told = |phase, generation| VolumeStatus { generation, ..VolumeStatus::new(&spec("v"), phase) };
        for early in [told(Phase::Ready, 2), told(Phase::Gone, 1)] {
            change(&store, |tx| tx.put(&early)).await;
            assert!(!change(&store, |tx| purge_if_gone(tx, "v")).await);
        }
        change(&store, |tx| tx.put(&told(Phase::Gone, 2))).await;
        assert!(change(&store, |tx| purge_if_gone(tx, "v")).await);
        assert!(change(&store, |tx| status(tx, "v")).await.is_none());
        assert!(change(&store, |tx| purge_if_gone(tx, "v")).await, "and again");
    }

    #[tokio::test]
    async fn another_takes_the_place_of_one_that_is_gone_and_counts_on() {
        let store = LocalStore::in_memory().unwrap();
        change(&store, |tx| create(tx, spec("v"))).await;
        let next = VolumeSpec { source: Some("s".into()), ..spec("v") };
        assert!(!change(&store, |tx| renew(tx, next.clone())).await, "it was not to end");
        change(&store, |tx| delete(tx, "v")).await;
        assert!(!change(&store, |tx| renew(tx, next.clone())).await, "it is still there");
        let gone = VolumeStatus { generation: 2, ..VolumeStatus::new(&spec("v"), Phase::Gone) };
        change(&store, |tx| tx.put(&gone)).await;
        assert!(change(&store, |tx| renew(tx, next.clone())).await);
        let now = store.read(|tx| tx.get::<VolumeSpec>("v")).unwrap().unwrap();
        assert_eq!((now.generation, now.deleted, now.source.as_deref()), (3, false, Some("s")));
    }

    #[tokio::test]
    async fn volumes_never_shrink() {
        let store = LocalStore::in_memory().unwrap();
        change(&store, |tx| create(tx, spec("v"))).await;
        change(&store, |tx| resize(tx, "v", 4096).and_then(|()| resize(tx, "v", 512))).await;
        let spec = store.read(|tx| tx.get::<VolumeSpec>("v")).unwrap().unwrap();
        assert_eq!((spec.size, spec.generation), (4096, 2));
    }

    #[tokio::test]
    async fn a_volume_that_was_on_a_disk_is_not_made_anew_when_another_node_uses_it() {
        let store = LocalStore::in_memory().unwrap();
        for (id, disk) in [("v", Some("d")), ("w", None)] {
            change(&store, |tx| create(tx, spec(id))).await;
            let told =
                VolumeStatus { disk: disk.map(Into::into), ..VolumeStatus::new(&spec(id), Phase::Failed) };
            change(&store, |tx| tx.put(&told)).await;
            change(&store, |tx| export(tx, id, "m", "server")).await;
        }
        let epoch = |id: &str| store.read(|tx| tx.get::<ReplicaSet>(id)).unwrap().unwrap().epoch;
        assert_eq!((epoch("v"), epoch("w")), (1, 0));
    }

    #[tokio::test]
    async fn what_may_be_without_a_spec_gets_a_tombstone() {
        let store = LocalStore::in_memory().unwrap();
        change(&store, |tx| abandon(tx, "img", "n")).await;
        assert!(store.read(|tx| tx.get::<VolumeSpec>("img")).unwrap().unwrap().deleted);
        change(&store, |tx| create(tx, spec("v")).and_then(|()| abandon(tx, "v", "n"))).await;
        assert!(store.read(|tx| tx.get::<VolumeSpec>("v")).unwrap().unwrap().deleted);
    }
}
