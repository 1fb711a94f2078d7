//! A holder of leases: one at a time, kept alive wherever it can be, and a key that lives under it.
//!
//! While it has been told that its lease lives, the lease must not end (but for a leader whose clock jumps: then it
//! may); once nobody keeps it alive, its key must vanish.

use std::sync::Arc;
use std::time::Duration;

use cairn_state::{LeaseId, LocalStore, Op, Store, StoreError, Txn};
use tokio::time::Instant;

use crate::runtime::{below, live};
use crate::world::World;

/// How long a lease lives.
const TTL: Duration = Duration::from_millis(900);

/// How long to wait for an answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks a node; `None` if it is not known what became of it.
async fn ask<T, F>(world: &World, what: impl FnOnce(LocalStore) -> F) -> Option<Result<T, StoreError>>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let (store, life) = world.store(world.any())?;
    match tokio::time::timeout(PATIENCE, live(&life, what(store))).await {
        Ok(Err(StoreError::Unavailable(_)) | Err(StoreError::Storage(_))) | Err(_) => None,
        Ok(result) => Some(result),
    }
}

/// Holds leases until then.
pub async fn hold(world: Arc<World>, until: Instant) -> Result<(), String> {
    while Instant::now() < until {
        let begun = Instant::now();
        let granted = ask(&world, |store| async move { store.lease_grant(TTL.as_millis() as u64).await });
        match granted.await {
            Some(Ok(lease)) => keep(&world, lease, begun, until).await?,
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    Ok(())
}

fn key(lease: LeaseId) -> String {
    format!("l/{}", lease.0)
}

/// Keeps one alive, and looks whether it is.
async fn keep(world: &World, lease: LeaseId, mut heard: Instant, until: Instant) -> Result<(), String> {
    let put = Op::Put { key: key(lease), value: "held".into(), lease: Some(lease) };
    let put = Txn { compares: vec![], ops: vec![put] };
    if !matches!(ask(world, |store| async move { store.commit(put).await }).await, Some(Ok(_))) {
        return Ok(());
    }
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(below(500))).await;
        let begun = Instant::now();
        let alive = match below(2) {
            0 => ask(world, |store| async move { store.lease_keep_alive(lease).await.map(|()| true) }).await,
            _ => ask(world, |store| async move { Ok(store.get(&key(lease)).await?.map(|_| false)) })
                .await
                .map(|got| got.and_then(|found| found.ok_or(StoreError::LeaseExpired(lease)))),
        };
        match alive {
            Some(Ok(true)) => heard = begun,
            Some(Ok(false)) | None => {}
            Some(Err(_)) if world.jumps || heard.elapsed() >= TTL => return Ok(()),
            Some(Err(e)) => return Err(format!("{:?} after it was kept alive: {e}", heard.elapsed())),
        }
    }
    Ok(())
}

/// Waits until no key lives under a lease any more.
pub async fn all_end(world: &World) -> Result<(), String> {
    let (store, _) = world.store(0).ok_or("a node is down in the calm")?;
    loop {
        let left = store.range("l/", None, usize::MAX).await.map_err(|e| e.to_string())?;
        if left.entries.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(TTL / 4).await;
    }
}
