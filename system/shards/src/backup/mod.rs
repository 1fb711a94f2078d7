//! Backups: the content of a volume, copied to a target beside the volumes, with checksums, and read back into new ones.
//!
//! The controller says what is wanted by [`BackupSpec`] and [`RestoreSpec`], through the functions here; the storage agent
//! of the node named there does it ([`agent`]) and reports. [`store`] knows how a backup lies on its target, and nothing
//! of the store or of volumes' disks. A copy goes on where it was left, whichever process was killed.

pub mod agent;
mod relocate;
pub mod store;

use cairn_state::{Abort, Record, Tx};
use serde::{Deserialize, Serialize};

use crate::crypt::keys::SealedKey;
use crate::model::{Phase, VolumeSpec};
use crate::replication::place;
use crate::replication::set::ReplicaSet;
use crate::{removal, volumes};

/// A backup as it should be. Writer: the controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupSpec {
    /// Its id, a UUID.
    pub id: String,
    /// The node that makes and keeps it.
    pub node: String,
    /// The volume it is made of, which does not change meanwhile; empty if the backup is there already.
    pub volume: String,
    /// The backup it shares with what did not change since; on the same node.
    pub parent: Option<String>,
    /// A tombstone: the agent removes it and reports [`Phase::Gone`].
    pub deleted: bool,
}

impl Record for BackupSpec {
    const KIND: &'static str = "shards/backup";

    fn id(&self) -> String {
        self.id.clone()
    }
}

/// A backup as it is. Writer: the storage agent of `node`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupStatus {
    /// The backup's id.
    pub id: String,
    /// The node that reports.
    pub node: String,
    /// How far it has come. One that failed is not tried again.
    pub phase: Phase,
    /// Why it failed.
    pub error: Option<String>,
    /// How many chunks it has, its parents' included.
    pub chunks: u64,
    /// Bytes that it takes by itself.
    pub stored: u64,
}

impl Record for BackupStatus {
    const KIND: &'static str = "shards/backup-status";

    fn id(&self) -> String {
        self.id.clone()
    }
}

/// A read-only volume to be made of a backup. Writer: the controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreSpec {
    /// The volume's id. It has no [`VolumeSpec`] until it is whole.
    pub id: String,
    /// The backup.
    pub backup: String,
    /// The node that has the backup, and makes the volume.
    pub node: String,
    /// What the content is under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<SealedKey>,
}

impl Record for RestoreSpec {
    const KIND: &'static str = "shards/restore";

    fn id(&self) -> String {
        self.id.clone()
    }
}

/// How far the making of a volume of a backup has come. Writer: the storage agent of `node`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreStatus {
    /// The volume's id.
    pub id: String,
    /// The node that reports.
    pub node: String,
    /// How far it has come. One that failed is not tried again.
    pub phase: Phase,
    /// Why it failed.
    pub error: Option<String>,
    /// The volume's size in bytes.
    pub size: u64,
}

impl Record for RestoreStatus {
    const KIND: &'static str = "shards/restore-status";

    fn id(&self) -> String {
        self.id.clone()
    }
}

/// The node that can read the whole of a volume now: `wanted`, or if that is `None`, the one that keeps it.
pub fn reader(tx: &mut Tx, volume: &str, wanted: Option<&str>) -> Result<Option<String>, Abort> {
    let Some(spec) = tx.get::<VolumeSpec>(volume)? else { return Ok(None) };
    let node = wanted.unwrap_or(&spec.node).to_owned();
    Ok(match tx.get::<ReplicaSet>(volume)? {
        Some(set) if set.whole_on(&node).is_some() => Some(node),
        Some(set) if wanted.is_none() => set.in_sync().next().map(|at| place::node_of(at).to_owned()),
        Some(_) => None,
        None => (spec.node == node).then_some(node),
    })
}

/// Asks for a backup.
pub fn create(tx: &mut Tx, id: &str, node: &str, volume: &str, parent: Option<&str>) -> Result<(), Abort> {
    tx.put(&BackupSpec {
        id: id.into(),
        node: node.into(),
        volume: volume.into(),
        parent: parent.map(str::to_owned),
        deleted: false,
    })
}

/// Says that a backup is on a node already, which the store does not know (any more). The agent looks.
pub fn adopt(tx: &mut Tx, id: &str, node: &str) -> Result<(), Abort> {
    create(tx, id, node, "", None)
}

/// What the agent last said of a backup.
pub fn status(tx: &mut Tx, id: &str) -> Result<Option<BackupStatus>, Abort> {
    tx.get::<BackupStatus>(id)
}

/// Asks for a backup's end. One that is not there is left alone.
pub fn delete(tx: &mut Tx, id: &str) -> Result<(), Abort> {
    match tx.get::<BackupSpec>(id)? {
        Some(spec) if !spec.deleted => tx.put(&BackupSpec { deleted: true, ..spec }),
        _ => Ok(()),
    }
}

/// Removes the backup's records once its agent reported it gone, or its node left the cloud. True if nothing of it is left.
pub fn purge_if_gone(tx: &mut Tx, id: &str) -> Result<bool, Abort> {
    let Some(spec) = tx.get::<BackupSpec>(id)? else { return Ok(true) };
    let gone = status(tx, id)?.is_some_and(|s| s.phase == Phase::Gone);
    let goes = spec.deleted && (gone || !removal::knows_node(tx, &spec.node)?);
    if !goes {
        return Ok(false);
    }
    tx.delete::<BackupSpec>(id)?;
    tx.delete::<BackupStatus>(id)?;
    Ok(true)
}

/// Asks for a read-only volume made of a backup, on the node that has it: this one, unless its disk was moved since. Its
/// content is under this key.
pub fn restore(tx: &mut Tx, id: &str, backup: &str, node: &str, key: Option<SealedKey>) -> Result<(), Abort> {
    let node = tx.get::<BackupSpec>(backup)?.map_or_else(|| node.to_owned(), |spec| spec.node);
    tx.put(&RestoreSpec { id: id.into(), backup: backup.into(), node, key })
}

/// How a restore stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restored {
    /// It goes on.
    Not,
    /// The volume is there; it has its spec.
    Whole,
    /// It failed, with the reason; nothing is left.
    Failed(String),
}

/// Moves a restore on by what its agent reported: a volume that is whole gets its spec.
pub fn advance_restore(tx: &mut Tx, id: &str) -> Result<Restored, Abort> {
    let Some(spec) = tx.get::<RestoreSpec>(id)? else {
        let there = tx.get::<VolumeSpec>(id)?.is_some_and(|s| !s.deleted);
        let lost = || Restored::Failed("nothing is known of it".into());
        return Ok(if there { Restored::Whole } else { lost() });
    };
    let Some(status) = tx.get::<RestoreStatus>(id)? else {
        if removal::knows_node(tx, &spec.node)? {
            return Ok(Restored::Not);
        }
        tx.delete::<RestoreSpec>(id)?;
        return Ok(Restored::Failed("the node that had the backup is gone".into()));
    };
    let outcome = match status.phase {
        Phase::Ready => {
            let content = VolumeSpec::new(id, &spec.node, status.size);
            volumes::create_under(tx, VolumeSpec { read_only: true, ..content }, spec.key.clone())?;
            Restored::Whole
        }
        Phase::Failed => Restored::Failed(status.error.unwrap_or_else(|| "the storage agent failed".into())),
        Phase::Creating | Phase::Gone => return Ok(Restored::Not),
    };
    tx.delete::<RestoreSpec>(id)?;
    tx.delete::<RestoreStatus>(id)?;
    Ok(outcome)
}

/// Ends a restore, and whatever it has made.
pub fn abandon_restore(tx: &mut Tx, id: &str) -> Result<(), Abort> {
    match tx.get::<RestoreSpec>(id)? {
        Some(spec) => {
            tx.delete::<RestoreSpec>(id)?;
            tx.delete::<RestoreStatus>(id)?;
            volumes::abandon(tx, id, &spec.node)
        }
        None => volumes::delete(tx, id),
    }
}

#[cfg(test)]
mod tests {
    use cairn_state::LocalStore;

    use super::*;
    use crate::model::DiskStatus;

    async fn change<T>(store: &LocalStore, mut f: impl FnMut(&mut Tx) -> Result<T, Abort>) -> T {
        store.transact(|tx| f(tx)).await.unwrap()
    }

    async fn store() -> LocalStore {
        let store = LocalStore::in_memory().unwrap();
        let disk = DiskStatus {
            node: "n".into(),
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
        };
        change(&store, |tx| tx.put(&disk)).await;
        store
    }

    fn told(phase: Phase) -> BackupStatus {
        BackupStatus { id: "b".into(), node: "n".into(), phase, error: None, chunks: 0, stored: 0 }
    }

    #[tokio::test]
    async fn a_backup_is_forgotten_when_its_agent_is_done_or_its_node_has_left() {
        let store = store().await;
        change(&store, |tx| create(tx, "b", "n", "v", None)).await;
        change(&store, |tx| tx.put(&told(Phase::Gone))).await;
        assert!(!change(&store, |tx| purge_if_gone(tx, "b")).await, "its end was not asked for");
        change(&store, |tx| delete(tx, "b").and_then(|()| tx.put(&told(Phase::Ready)))).await;
        assert!(!change(&store, |tx| purge_if_gone(tx, "b")).await);
        change(&store, |tx| tx.put(&told(Phase::Gone))).await;
        assert!(change(&store, |tx| purge_if_gone(tx, "b")).await);
        assert_eq!(change(&store, |tx| status(tx, "b")).await, None);
        change(&store, |tx| create(tx, "b", "left", "v", None).and_then(|()| delete(tx, "b"))).await;
        assert!(change(&store, |tx| purge_if_gone(tx, "b")).await);
    }

    #[tokio::test]
    async fn a_restored_volume_gets_its_spec_when_it_is_whole() {
        let store = store().await;
        change(&store, |tx| restore(tx, "v", "b", "n", None)).await;
        assert_eq!(change(&store, |tx| advance_restore(tx, "v")).await, Restored::Not);
        let (id, node) = ("v".to_owned(), "n".to_owned());
        let done = RestoreStatus { id, node, phase: Phase::Ready, error: None, size: 1024 };
        change(&store, |tx| tx.put(&done)).await;
        assert_eq!(change(&store, |tx| advance_restore(tx, "v")).await, Restored::Whole);
        let spec = store.read(|tx| tx.get::<VolumeSpec>("v")).unwrap().unwrap();
        assert!(spec.read_only && spec.size == 1024);
        assert_eq!(change(&store, |tx| advance_restore(tx, "v")).await, Restored::Whole, "and again");
        change(&store, |tx| restore(tx, "w", "b", "left", None)).await;
        assert!(matches!(change(&store, |tx| advance_restore(tx, "w")).await, Restored::Failed(_)));
    }

    #[tokio::test]
    async fn what_is_copied_is_read_where_all_of_it_is() {
        let store = store().await;
        change(&store, |tx| tx.put(&VolumeSpec::new("v", "a", 1))).await;
        let at = async |wanted: Option<&'static str>| change(&store, |tx| reader(tx, "v", wanted)).await;
        assert_eq!((at(None).await.as_deref(), at(Some("b")).await), (Some("a"), None));
        let set = ReplicaSet::new("v", ["a", "b", "c"].map(String::from)).without(|n| n != "b").unwrap();
        change(&store, |tx| tx.put(&set)).await;
        assert_eq!((at(None).await.as_deref(), at(Some("b")).await.as_deref()), (Some("b"), Some("b")));
        assert_eq!(at(Some("a")).await, None, "it is behind");
    }
}
