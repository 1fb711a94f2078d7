//! A node leaves the cloud for good: which volumes would be lost with it, and what is forgotten of it.
//!
//! It may touch what the node's storage agent reported, and says what became of volumes that nobody else can say it of.
//! It must never change which replicas are in sync: the conductor gives volumes other replicas.

use cairn_state::{Abort, Record, Tx};

use crate::backup::BackupSpec;
use crate::external::orders;
use crate::model::{DiskStatus, Phase, Prepared, ReplicaStatus, VolumeSpec, VolumeStatus};
use crate::replication::place;
use crate::replication::set::ReplicaSet;

/// What became of a volume whose only whole copy was on a node that was removed.
const LOST: &str = "its only whole copy was on a node that was removed";

/// The volumes of which this node has the only whole copy, and its backups, which no other has.
pub fn only_on(tx: &mut Tx, node: &str) -> Result<Vec<String>, Abort> {
    let mut only = Vec::new();
    for spec in tx.list_unfenced::<VolumeSpec>()? {
        if is_only_on(tx, &spec, node)? {
            only.push(spec.id);
        }
    }
    let backups = tx.list_unfenced::<BackupSpec>()?.into_iter().filter(|b| b.node == node && !b.deleted);
    only.extend(backups.map(|b| format!("backup {}", b.id)));
    Ok(only)
}

fn is_only_on(tx: &mut Tx, spec: &VolumeSpec, node: &str) -> Result<bool, Abort> {
    if spec.backend.is_some() {
        return Ok(false); // Its content is on no node.
    }
    Ok(match tx.get::<ReplicaSet>(&spec.id)? {
        // A set that has nothing but leaving replicas is of a volume that ends.
        Some(set) => set.whole_on(node).is_some() && set.in_sync().all(|at| place::node_of(at) == node),
        None => spec.node == node,
    })
}

/// Whether anything is known of this node's disks.
pub fn knows_node(tx: &mut Tx, node: &str) -> Result<bool, Abort> {
    Ok(tx.list_unfenced::<DiskStatus>()?.iter().any(|d| d.node == node))
}

/// Forgets a node that was removed: its disks, and what it said of volumes. Volumes that only it had are said to be
/// lost, those that were to end, to be gone.
pub fn forget_node(tx: &mut Tx, node: &str) -> Result<(), Abort> {
    for disk in tx.list_unfenced::<DiskStatus>()?.into_iter().filter(|d| d.node == node) {
        tx.delete::<DiskStatus>(&disk.id())?;
    }
    for replica in tx.list_unfenced::<ReplicaStatus>()?.into_iter().filter(|r| r.node == node) {
        tx.delete::<ReplicaStatus>(&replica.id())?;
    }
    for ready in tx.list_unfenced::<Prepared>()?.into_iter().filter(|p| p.node == node) {
        tx.delete::<Prepared>(&ready.id())?;
    }
    orders::forget_node(tx, node)?;
    for spec in tx.list_unfenced::<VolumeSpec>()? {
        if is_only_on(tx, &spec, node)? {
            tx.put(&lost(&spec))?;
        }
    }
    Ok(())
}

/// What is said of a volume that only a removed node had. If it is to end, it has.
pub fn lost(spec: &VolumeSpec) -> VolumeStatus {
    match spec.deleted {
        true => VolumeStatus::new(spec, Phase::Gone),
        false => VolumeStatus { error: Some(LOST.into()), ..VolumeStatus::new(spec, Phase::Failed) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_state::LocalStore;

    fn disk(node: &str) -> DiskStatus {
        DiskStatus {
            node: node.into(),
            disk: "d".into(),
            path: "/d".into(),
            size: 10,
            free: 5,
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

    #[tokio::test]
    async fn what_only_one_node_has_is_named_and_then_said_to_be_lost() {
        let store = LocalStore::in_memory().unwrap();
        let spec = |id: &str| VolumeSpec::new(id, "a", 1024);
        let put = |tx: &mut Tx| -> Result<(), Abort> {
            tx.put(&disk("a"))?;
            tx.put(&disk("b"))?;
            tx.put(&spec("alone"))?;
            tx.put(&VolumeSpec { deleted: true, ..spec("ends") })?;
            tx.put(&spec("two"))?;
            tx.put(&ReplicaSet::new("two", ["a", "b"].map(String::from)))?;
            tx.put(&spec("behind"))?;
            let behind = ReplicaSet::new("behind", ["a", "b"].map(String::from)).without(|n| n == "b");
            tx.put(&behind.unwrap())?;
            crate::backup::create(tx, "copy", "a", "two", None)
        };
        store.transact(put).await.unwrap();
        let only = |node: &str| store.read(|tx| only_on(tx, node)).unwrap();
        assert_eq!(
            (only("a"), only("b").len()),
            (vec!["alone".into(), "behind".into(), "ends".into(), "backup copy".into()], 0)
        );
        store.transact(|tx| forget_node(tx, "a")).await.unwrap();
        let seen = |id: &str| store.read(|tx| tx.get::<VolumeStatus>(id)).unwrap();
        assert_eq!(seen("alone").map(|s| (s.phase, s.error)), Some((Phase::Failed, Some(LOST.into()))));
        assert_eq!(seen("ends").map(|s| s.phase), Some(Phase::Gone));
        assert_eq!(seen("two"), None);
        assert!(!store.read(|tx| knows_node(tx, "a")).unwrap());
        assert!(store.read(|tx| knows_node(tx, "b")).unwrap());
    }
}
