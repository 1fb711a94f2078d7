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
use crate::disk::{Disk, unbound_and_backups};
use crate::health::{self, Health};
use crate::model::{DiskOwner, DiskStatus, DiskWish, Visiting};
use crate::ownership::Belief;
use crate::pool::{Beliefs, Pool, Visitor};

/// How long a probe may take before the disk counts as hanging.
const PROBE_PATIENCE: Duration = Duration::from_secs(15);
/// How long the store is waited for where it alone can tell whose a disk is.
const BELIEF_PATIENCE: Duration = Duration::from_secs(3);
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
    /// Whose disks are, as far as they were ever adopted; what all nodes report of disks.
    owners: Mirror<DiskOwner>,
    statuses: Mirror<DiskStatus>,
}

impl Disks {
    /// What wakes it.
    pub fn wake(&self) -> Vec<watch::Receiver<u64>> {
        vec![self.wishes.changes(), self.owners.changes()]
    }

    /// Starts with no disk known.
    pub async fn new(
        args: &AgentArgs,
        pool: Arc<Pool>,
        owners: Mirror<DiskOwner>,
        news: watch::Sender<u64>,
    ) -> Disks {
        Disks {
            owners,
            statuses: Mirror::start(args.store.clone(), None).await,
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

    /// Has the pool know what the store says of disks.
    async fn believe(&self) {
        if !self.pool.undecided().is_empty() {
            let known = async { tokio::join!(self.owners.wait_synced(), self.statuses.wait_synced()) };
            let _ = tokio::time::timeout(BELIEF_PATIENCE, known).await;
        }
        let live = self.owners.synced() && self.statuses.synced();
        self.pool.believe(beliefs(&self.owners.all(), &self.statuses.all(), live));
    }

    async fn scan(&mut self) -> Result<(), Fault> {
        self.believe().await;
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
            knows_owners: true,
            gone: false,
            visiting: None,
        }
    }

    /// What is told of a disk of another node; `None` if it cannot be read. What is on it changes no more, and is looked at
    /// once.
    async fn visiting(&self, visitor: Visitor) -> Option<DiskStatus> {
        let Visitor { disk, owner, path } = visitor;
        let known = self.reported.as_ref().and_then(|all| all.get(&disk)?.visiting.clone());
        let (shown, of) = (path.display().to_string(), owner.clone());
        let found = match known.filter(|v| v.owner == owner) {
            Some(known) => known,
            None => {
                let looked =
                    spawn_blocking(move || unbound_and_backups(&path)).await.map_err(io::Error::other);
                let (unbound, backups) = looked
                    .flatten()
                    .inspect_err(
                        |e| tracing::warn!(disk, error = %e, "a disk of another node cannot be read"),
                    )
                    .ok()?;
                Visiting { owner, unbound, backups }
            }
        };
        let of = if of.is_empty() { "nobody knows which node".to_owned() } else { format!("node {of}") };
        Some(DiskStatus {
            node: self.node.clone(),
            disk,
            path: shown,
            size: 0,
            free: 0,
            healthy: false,
            error: Some(format!("it belongs to {of}, and is not used here yet")),
            knows_places: true,
            has_backups: false,
            knows_owners: true,
            gone: false,
            visiting: Some(found),
            health: None,
        })
    }

    /// All disks that are here.
    async fn here(&self) -> BTreeMap<String, DiskStatus> {
        let mut now: BTreeMap<String, DiskStatus> =
            self.pool.disks().iter().map(|d| (d.id().to_owned(), self.status(d))).collect();
        for visitor in self.pool.visitors() {
            if let Some(status) = self.visiting(visitor).await {
                now.entry(status.disk.clone()).or_insert(status);
            }
        }
        now
    }

    /// Whether what was told of a disk is to be forgotten once it is not there: it was given up, or was never this node's.
    fn is_forgotten(&self, status: &DiskStatus) -> bool {
        let given_up = self.wishes.get(&status.disk).is_some_and(|wish| wish.retire);
        given_up || status.visiting.is_some()
    }

    async fn report(&mut self) -> Result<(), cairn_state::StoreError> {
        if self.reported.is_none() {
            let all = self.store.list_records::<DiskStatus>().await?;
            let ours = all.into_iter().filter(|d| d.node == self.node);
            self.reported = Some(ours.map(|d| (d.disk.clone(), d)).collect());
        }
        let mut now = self.here().await;
        // What is said of these stands: by it the store tells whose they are.
        let undecided = self.pool.undecided();
        let away = |id: &String| !now.contains_key(id) && !undecided.contains(id);
        let known = self.reported.iter().flatten();
        let ended = known.filter(|(id, status)| away(id) && self.is_forgotten(status));
        let ended: Vec<String> = ended.map(|(id, _)| id.clone()).collect();
        let reported = self.reported.get_or_insert_default();
        for id in ended {
            if let Some(status) = reported.get(&id) {
                self.store.delete_record::<DiskStatus>(&status.id()).await?;
            }
            reported.remove(&id);
        }
        for (id, old) in reported.iter().filter(|(id, _)| away(id)).collect::<Vec<_>>() {
            let gone = DiskStatus {
                healthy: false,
                error: Some("it is not there".into()),
                free: 0,
                knows_places: true,
                health: None,
                knows_owners: true,
                gone: true,
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

/// What the store says of each disk. `live`: it is the store that says so.
pub(super) fn beliefs(owners: &[Arc<DiskOwner>], statuses: &[Arc<DiskStatus>], live: bool) -> Beliefs {
    let mut of: HashMap<String, Belief> = HashMap::new();
    for owner in owners {
        of.entry(owner.disk.clone()).or_default().owner = Some(DiskOwner::clone(owner));
    }
    for status in statuses.iter().filter(|s| s.visiting.is_none()) {
        of.entry(status.disk.clone()).or_default().reports.push((status.node.clone(), status.healthy));
    }
    of.values_mut().for_each(|belief| belief.live = live);
    Beliefs { of, live }
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
            knows_owners: true,
            gone: false,
            visiting: None,
        };
        assert!(!is_news(&disk(500_000), &disk(501_000)));
        assert!(is_news(&disk(500_000), &disk(510_000)));
        assert!(is_news(&disk(500_000), &DiskStatus { healthy: false, ..disk(500_000) }));
    }
}
