//! Disks that say of themselves that they are failing are emptied, without being told to, while there is another to take
//! what is on them. An operator may keep one after all: it is not begun again for as long as it goes on saying so.
//!
//! It writes [`DiskWarning`] records, and has [`disks`] write a [`DiskWish`] with each.

use std::collections::BTreeSet;

use cairn_state::{Abort, LocalStore, Record, Tx};
use serde::{Deserialize, Serialize};

use crate::disks;
use crate::model::{DiskStatus, DiskWish};

/// That a disk has said that it is failing, and was heard. Writer: the controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskWarning {
    /// The disk's id.
    pub disk: String,
    /// What it said.
    pub says: String,
}

impl Record for DiskWarning {
    const KIND: &'static str = "shards/disk-warning";

    fn id(&self) -> String {
        self.disk.clone()
    }
}

/// Hears what these disks say.
pub async fn pass(store: &LocalStore, disks: &[DiskStatus]) -> Result<(), Abort> {
    let heard: Vec<DiskWarning> = store.read(|tx| tx.list_unfenced())?;
    let due = !heard.is_empty() || disks.iter().any(|d| failing(d).is_some());
    if due { store.transact(heed).await } else { Ok(()) }
}

fn failing(disk: &DiskStatus) -> Option<&str> {
    disk.health.as_ref()?.failing.as_deref()
}

/// Wants those emptied that say for the first time that they are failing; forgets what one has said that does not any more.
fn heed(tx: &mut Tx) -> Result<(), Abort> {
    let all = tx.list_unfenced::<DiskStatus>()?;
    let heard: BTreeSet<String> = tx.list_unfenced::<DiskWarning>()?.into_iter().map(|w| w.disk).collect();
    let wished: BTreeSet<String> = tx.list_unfenced::<DiskWish>()?.into_iter().map(|w| w.disk).collect();
    let takes = |d: &DiskStatus| d.healthy && failing(d).is_none() && !wished.contains(&d.disk);
    let has_others = all.iter().any(takes);
    for disk in all.iter().filter(|d| has_others && !heard.contains(&d.disk)) {
        let Some(says) = failing(disk) else { continue };
        tracing::warn!(node = disk.node, disk = disk.disk, says, "a disk is failing, and is emptied");
        tx.put(&DiskWarning { disk: disk.disk.clone(), says: says.into() })?;
        if !wished.contains(&disk.disk) {
            disks::empty(tx, &disk.disk)?;
        }
    }
    // One that cannot be asked, or is not there for now, has not taken anything back.
    let is_over = |disk: &str| {
        let mut there = all.iter().filter(|d| d.disk == disk).peekable();
        there.peek().is_none() || there.any(|d| d.health.as_ref().is_some_and(|h| h.failing.is_none()))
    };
    for disk in heard.iter().filter(|disk| is_over(disk)) {
        tx.delete::<DiskWarning>(disk)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Health;

    fn disk(id: &str, says: Option<&str>) -> DiskStatus {
        let health = Health { failing: says.map(str::to_owned), ..Health::default() };
        DiskStatus {
            node: "n".into(),
            disk: id.into(),
            path: format!("/disks/{id}"),
            size: 1 << 40,
            free: 1 << 39,
            healthy: true,
            error: None,
            knows_places: true,
            has_backups: false,
            knows_owners: true,
            gone: false,
            visiting: None,
            health: Some(health),
        }
    }

    /// What is wanted to be emptied after these disks were heard.
    async fn hear(store: &LocalStore, disks: &[DiskStatus]) -> Vec<String> {
        for disk in disks {
            store.transact(|tx| tx.put(disk)).await.unwrap();
        }
        pass(store, disks).await.unwrap();
        let wishes = store.read(|tx| tx.list_unfenced::<DiskWish>()).unwrap();
        wishes.into_iter().map(|w| w.disk).collect()
    }

    #[tokio::test]
    async fn a_failing_disk_is_emptied_once_if_another_can_take_it() {
        let store = LocalStore::in_memory().unwrap();
        assert!(hear(&store, &[disk("a", Some("worn"))]).await.is_empty(), "there is nothing better");
        assert!(hear(&store, &[disk("a", Some("worn")), disk("b", Some("worn"))]).await.is_empty());
        let all = [disk("a", Some("worn")), disk("b", None), disk("c", None)];
        assert_eq!(hear(&store, &all).await, ["a"]);
        // Kept after all, it is left in peace.
        store.transact(|tx| tx.delete::<DiskWish>("a")).await.unwrap();
        assert!(hear(&store, &all).await.is_empty());
        // Until it has said that it is well.
        assert!(hear(&store, &[disk("a", None)]).await.is_empty());
        assert_eq!(hear(&store, &[disk("a", Some("worn"))]).await, ["a"]);
        // Being silent is not that, and one that is emptied already takes nothing.
        store.transact(|tx| tx.delete::<DiskWish>("a")).await.unwrap();
        assert!(hear(&store, &[DiskStatus { health: None, ..disk("a", None) }]).await.is_empty());
        assert!(hear(&store, &[disk("a", Some("worn"))]).await.is_empty());
        assert_eq!(hear(&store, &[disk("b", Some("worn")), disk("c", None)]).await, ["b"]);
        assert_eq!(
            hear(&store, &[disk("c", Some("worn"))]).await,
            ["b"],
            "nothing is left that could take it"
        );
    }
}
