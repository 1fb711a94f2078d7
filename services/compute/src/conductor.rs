//! Follows what nodes report, and advances servers and the inventory accordingly. It decides nothing itself (see
//! [`crate::advance`]), remembers nothing, and may be stopped anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cairn_gateway::ApiError;
use cairn_placement::claims::{self, Inventory, Ratios, Resources};
use cairn_shards::model::DiskStatus;
use cairn_state::{Abort, LocalStore, Mirror, Record, Store, StoreError, Tx, record};
use futures_util::StreamExt;
use jiff::Timestamp;

use crate::model::{
    HostStatus, INDEX_WORK, InstanceStatus, MoveStatus, Server, WORK_OPEN, flavor_seed, hypervisor_uuid,
};
use crate::moves::log;
use crate::{Service, actions, advance, drain, growth, takeover};

/// How often everything that is under way is looked at, whether anything was reported or not.
const SWEEP: Duration = Duration::from_secs(5);
/// How often old logs are looked for.
const PURGE: Duration = Duration::from_secs(3600);
/// Memory that a node keeps for itself, in MiB.
const RESERVED_MB: u64 = 1024;

/// Runs the conductor; never returns.
pub async fn conductor(svc: Arc<Service>) {
    if let Err(error) = svc.store.transact(seed).await {
        tracing::error!(%error, "the first flavors could not be made");
    }
    tokio::join!(
        reports::<InstanceStatus>(svc.clone()),
        reports::<MoveStatus>(svc.clone()),
        takeover::follow(svc.clone()),
        drain::follow(svc.clone()),
        growth::follow(svc.clone()),
        inventory(svc.store.clone()),
        purge(svc.store.clone()),
    );
}

/// Makes the first flavors of a new cloud, once: which are deleted later stay deleted.
fn seed(tx: &mut Tx) -> Result<(), Abort> {
    if tx.get::<Seeded>(SEEDED)?.is_some() {
        return Ok(());
    }
    for flavor in flavor_seed() {
        tx.put(&flavor)?;
    }
    tx.put(&Seeded { what: SEEDED.into() })
}

const SEEDED: &str = "flavors";

/// That something was made once. Writer: controller.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct Seeded {
    what: String,
}

impl Record for Seeded {
    const KIND: &'static str = "compute/seeded";

    fn id(&self) -> String {
        self.what.clone()
    }
}

/// Follows one kind of report about servers, whose id begins with the server's; what is under way is swept up as well.
async fn reports<R: Record>(svc: Arc<Service>) {
    loop {
        if let Err(error) = follow::<R>(&svc).await {
            tracing::debug!(%error, "following the reports anew");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

async fn follow<R: Record>(svc: &Service) -> Result<(), StoreError> {
    let prefix = record::prefix::<R>();
    let from = svc.store.snapshot()?.revision();
    let mut reports = svc.store.watch(&prefix, from).await?;
    sweep(svc).await;
    let mut ticks = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            event = reports.next() => match event {
                Some(event) => {
                    let event = event?;
                    let id = &event.key()[prefix.len()..];
                    advance_one(svc, id.split('/').next().unwrap_or_default()).await;
                    if R::KIND == MoveStatus::KIND {
                        forget(svc, id).await;
                    }
                }
                None => return Ok(()),
            },
            _ = ticks.tick() => sweep(svc).await,
        }
    }
}

/// Advances every server on which something is under way, and no other.
async fn sweep(svc: &Service) {
    let open = svc.store.read(|tx| tx.by_index::<Server>(INDEX_WORK, WORK_OPEN));
    match open {
        Ok(open) => {
            for server in open {
                advance_one(svc, &server.id).await;
            }
        }
        Err(error) => tracing::warn!(%error, "the servers under way could not be read"),
    }
}

async fn advance_one(svc: &Service, id: &str) {
    let done: Result<(), ApiError> = svc
        .store
        .transact(|tx| advance::advance(tx, id, Timestamp::now(), &|tx, node| svc.lost(tx, node)))
        .await;
    if let Err(error) = done {
        tracing::warn!(server = id, %error, "a server could not be advanced; it will be tried again");
    }
}

/// Removes what a node said of a migration that was over already.
async fn forget(svc: &Service, id: &str) {
    let done: Result<(), Abort> = svc.store.transact(|tx| log::forget(tx, id)).await;
    if let Err(error) = done {
        tracing::debug!(id, %error, "what a node said of a migration stays");
    }
}

/// Keeps placement's inventory as nodes report it.
async fn inventory(store: LocalStore) {
    let shared: cairn_state::SharedStore = Arc::new(store.clone());
    let hosts: Mirror<HostStatus> = Mirror::start(shared.clone(), None).await;
    let disks: Mirror<DiskStatus> = Mirror::start(shared, None).await;
    let (mut host_changes, mut disk_changes) = (hosts.changes(), disks.changes());
    let mut told: BTreeMap<String, Inventory> = BTreeMap::new();
    loop {
        let size_gb = |node: &str| disks.all().iter().filter(|d| d.node == node).map(|d| d.size >> 30).sum();
        for host in hosts.all() {
            let inventory = inventory_of(&host, size_gb(&host.node));
            if told.get(&host.node) == Some(&inventory) {
                continue;
            }
            match store.transact(|tx| note(tx, &inventory)).await {
                Ok(()) => drop(told.insert(host.node.clone(), inventory)),
                Err(error) => tracing::warn!(node = host.node, %error, "its inventory could not be written"),
            }
        }
        tokio::select! {
            _ = host_changes.changed() => {}
            _ = disk_changes.changed() => {}
            () = tokio::time::sleep(Duration::from_secs(60)) => {}
        }
    }
}

/// Writes down what a node has. One that was removed meanwhile has nothing.
fn note(tx: &mut Tx, inventory: &Inventory) -> Result<(), Abort> {
    match tx.get::<HostStatus>(&inventory.name)? {
        Some(_) => claims::upsert_provider(tx, inventory),
        None => Ok(()),
    }
}

fn inventory_of(host: &HostStatus, disk_gb: u64) -> Inventory {
    Inventory {
        provider: hypervisor_uuid(&host.node),
        name: host.node.clone(),
        vcpus: u64::from(host.vcpus),
        memory_mb: host.memory_mb,
        disk_gb,
        // A small machine keeps less: it must still be able to host something.
        reserved: Resources { vcpus: 0, memory_mb: RESERVED_MB.min(host.memory_mb / 4), disk_gb: 0 },
        ratios: Ratios::default(),
        traits: BTreeSet::from(["COMPUTE_NODE".to_owned()]),
    }
}

/// Removes the logs of servers that are long gone, and old migrations.
async fn purge(store: LocalStore) {
    loop {
        let old = |tx: &mut Tx| {
            actions::purge(tx, Timestamp::now()).and_then(|()| log::purge(tx, Timestamp::now()))
        };
        if let Err(error) = store.transact(old).await {
            tracing::warn!(%error, "old logs could not be removed");
        }
        tokio::time::sleep(PURGE).await;
    }
}
