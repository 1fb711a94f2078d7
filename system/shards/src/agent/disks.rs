//! Watches over the data disks: finds them, probes them, reports them.
//!
//! It writes [`DiskStatus`] records of this node, and no other. A disk that was once reported and is not there
//! any more stays reported, as not healthy: taking it out of the cloud is an operator's decision ([`DiskWish`]).

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cairn_state::{AgentArgs, Fault, Mirror, Reconciler, Record, SharedStore, StoreExt};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::backup::agent::FOLDER;
use crate::disk::Disk;
use crate::health::{self, Health};
use crate::model::{DiskStatus, DiskWish};
use crate::pool::Pool;

/// How long a probe may take before the disk counts as hanging.
const PROBE_PATIENCE: Duration = Duration::from_secs(15);
/// With less than this many bytes free a disk is reported full.
const FULL_BELOW: u64 = 64 << 20;
/// Changes of the free space below this share of the disk are not worth a write to the store.
const FREE_STEP_PERMILLE: u64 = 2;

/// The reconciler of disks.
pub struct Disks {
    node: String,
    store: SharedStore,
    pool: Arc<Pool>,
    /// Where it is left what disks say of themselves.
    health_dir: PathBuf,
    news: watch::Sender<u64>,
    probes: HashMap<String, JoinHandle<io::Result<()>>>,
    /// What is in the store, once it was read.
    reported: Option<BTreeMap<String, DiskStatus>>,
    /// What an operator wants of disks.
    wishes: Mirror<DiskWish>,
}

impl Disks {
    /// What wakes it.
    pub fn wake(&self) -> Vec<watch::Receiver<u64>> {
        vec![self.wishes.changes()]
    }

    /// Starts with no disk known.
    pub async fn new(args: &AgentArgs, pool: Arc<Pool>, news: watch::Sender<u64>) -> Disks {
        Disks {
            wishes: Mirror::start(args.store.clone(), None).await,
            node: args.node.clone(),
            store: args.store.clone(),
            pool,
            health_dir: args.run_dir.join(health::FOLDER),
            news,
            probes: HashMap::new(),
            reported: None,
        }
    }

    /// Puts nothing new on disks that shall be empty.
    fn heed_wishes(&self) {
        for disk in self.pool.disks() {
            disk.spare(self.wishes.get(disk.id()).is_some());
        }
    }

    async fn scan(&mut self) -> Result<(), Fault> {
        let pool = self.pool.clone();
        let before: Vec<String> = ids(&pool.disks());
        let scanned = spawn_blocking(move || pool.scan()).await;
        scanned.map_err(io::Error::other).flatten().map_err(|e| Fault::new("the search for disks", e))?;
        let disks = self.pool.disks();
        if ids(&disks) != before {
            self.news.send_modify(|n| *n += 1);
        }
        for disk in disks.into_iter().filter(|d| !before.iter().any(|b| b == d.id())) {
            spawn_blocking(move || disk.empty_trash());
        }
        Ok(())
    }

    /// Probes a disk. A probe that hangs is left alone, and no second one is sent after it.
    async fn probe(&mut self, disk: &Arc<Disk>) {
        let id = disk.id().to_owned();
        let probed = disk.clone();
        let probe = self.probes.entry(id.clone()).or_insert_with(|| spawn_blocking(move || probed.probe()));
        let health = match tokio::time::timeout(PROBE_PATIENCE, probe).await {
            Err(_) => Err("it does not answer".to_owned()),
            Ok(ended) => {
                self.probes.remove(&id);
                ended.map_err(io::Error::other).flatten().map_err(|e| format!("it cannot be written: {e}"))
            }
        };
        disk.set_health(health);
    }

    fn status(&self, disk: &Disk) -> DiskStatus {
        let (size, free) = disk.space().unwrap_or((0, 0));
        let health = Health::read(&self.health_dir, disk.id());
        let failing = health.as_ref().and_then(|h| h.failing.as_ref());
        let failing = failing.map(|why| format!("it says that it is failing: {why}"));
        DiskStatus {
            node: self.node.clone(),
            disk: disk.id().to_owned(),
            path: disk.path().display().to_string(),
            size,
            free,
            healthy: disk.health().is_ok(),
            error: trouble(disk.health(), free).or(failing),
            knows_places: true,
            has_backups: has_backups(disk),
            health,
        }
    }

    async fn report(&mut self) -> Result<(), cairn_state::StoreError> {
        if self.reported.is_none() {
            let all = self.store.list_records::<DiskStatus>().await?;
            let ours = all.into_iter().filter(|d| d.node == self.node);
            self.reported = Some(ours.map(|d| (d.disk.clone(), d)).collect());
        }
        let mut now: BTreeMap<String, DiskStatus> =
            self.pool.disks().iter().map(|d| (d.id().to_owned(), self.status(d))).collect();
        let reported = self.reported.get_or_insert_default();
        // One that was given up is forgotten once it is gone.
        let given_up = |id: &String| self.wishes.get(id).is_some_and(|wish| wish.retire);
        let ended: Vec<String> =
            reported.keys().filter(|id| !now.contains_key(*id) && given_up(id)).cloned().collect();
        for id in ended {
            if let Some(status) = reported.get(&id) {
                self.store.delete_record::<DiskStatus>(&status.id()).await?;
            }
            reported.remove(&id);
        }
        for (id, old) in reported.iter().filter(|(id, _)| !now.contains_key(*id)).collect::<Vec<_>>() {
            let gone = DiskStatus {
                healthy: false,
                error: Some("it is not there".into()),
                free: 0,
                knows_places: true,
                health: None,
                ..old.clone()
            };
            now.insert(id.clone(), gone);
        }
        for (id, status) in now {
            if reported.get(&id).is_none_or(|old| is_news(old, &status)) {
                self.store.put_record(&status).await?;
                reported.insert(id, status);
            }
        }
        Ok(())
    }
}

fn has_backups(disk: &Disk) -> bool {
    std::fs::read_dir(disk.path().join(FOLDER)).is_ok_and(|mut entries| entries.next().is_some())
}

fn ids(disks: &[Arc<Disk>]) -> Vec<String> {
    disks.iter().map(|d| d.id().to_owned()).collect()
}

/// What a person must be told of a disk with so many bytes free.
fn trouble(health: Result<(), String>, free: u64) -> Option<String> {
    let full = (free < FULL_BELOW).then(|| "disk full: writes that need room wait".to_owned());
    health.err().or(full)
}

fn is_news(old: &DiskStatus, new: &DiskStatus) -> bool {
    let step = new.size / 1000 * FREE_STEP_PERMILLE;
    DiskStatus { free: new.free, health: new.health.clone(), ..old.clone() } != *new
        || Health::is_news(old.health.as_ref(), new.health.as_ref())
        || old.free.abs_diff(new.free) > step
}

#[async_trait]
impl Reconciler for Disks {
    fn name(&self) -> &'static str {
        "disks"
    }

    async fn pass(&mut self) -> Vec<Fault> {
        let mut faults = Vec::new();
        faults.extend(self.scan().await.err());
        self.heed_wishes();
        for disk in self.pool.disks() {
            self.probe(&disk).await;
            let trouble = self.status(&disk).error;
            faults.extend(trouble.map(|e| Fault::new(format!("disk {}", disk.id()), e)));
        }
        faults.extend(
            self.pool.refused().into_iter().map(|(path, why)| Fault::new(format!("disk at {path}"), why)),
        );
        if let Err(e) = self.report().await {
            faults.push(Fault::new("the status of disks", e));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_of_but_not_sick() {
        assert_eq!(trouble(Ok(()), FULL_BELOW), None);
        assert!(trouble(Ok(()), FULL_BELOW - 1).unwrap().contains("disk full"));
        assert_eq!(trouble(Err("gone".into()), 0).as_deref(), Some("gone"));
    }

    #[test]
    fn small_changes_of_free_space_are_no_news() {
        let disk = |free| DiskStatus {
            node: "n".into(),
            disk: "d".into(),
            path: "/d".into(),
            size: 1_000_000,
            free,
            healthy: true,
            error: None,
            knows_places: true,
            has_backups: false,
            health: None,
        };
        assert!(!is_news(&disk(500_000), &disk(501_000)));
        assert!(is_news(&disk(500_000), &disk(510_000)));
        assert!(is_news(&disk(500_000), &DiskStatus { healthy: false, ..disk(500_000) }));
    }
}
