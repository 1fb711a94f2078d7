//! Keeps the lease by which others see that this node is in touch, and leaves word of each renewal for the node's own
//! roles ([`cairn_cluster::alive`] says what follows from it).
//!
//! A renewal counts from when it was asked for, never from when the answer came.

use std::sync::Arc;
use std::time::Duration;

use cairn_cluster::Alive;
use cairn_cluster::alive::{LEASE, RENEW, note, since_boot};
use cairn_state::{LeaseId, Op, Store, StoreError, Txn, record};

use super::cluster::Cluster;

/// How long one renewal may take before the next is tried.
const WITHIN: Duration = Duration::from_secs(4);

/// Runs for ever.
pub async fn run(cluster: Arc<Cluster>) {
    let (mut lease, mut in_touch) = (None, true);
    let mut ticks = tokio::time::interval(RENEW);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let renewed = renew(&cluster, &mut lease).await;
        match &renewed {
            Ok(()) if !in_touch => tracing::info!("this node is in touch with its cloud again"),
            Err(error) if in_touch => tracing::warn!(%error, "this node is not in touch with its cloud"),
            _ => {}
        }
        in_touch = renewed.is_ok();
    }
}

/// Renews the lease once, or takes a new one; there is none after a failure that may have ended it.
async fn renew(cluster: &Cluster, lease: &mut Option<LeaseId>) -> Result<(), StoreError> {
    let asked = since_boot().map_err(|e| StoreError::Unavailable(e.to_string()))?;
    let renewed = async {
        match *lease {
            Some(lease) => cluster.store.lease_keep_alive(lease).await.map(|()| lease),
            None => take(cluster).await,
        }
    };
    let late = || StoreError::Unavailable(format!("no answer within {WITHIN:?}"));
    match tokio::time::timeout(WITHIN, renewed).await.unwrap_or_else(|_| Err(late())) {
        Ok(renewed) => *lease = Some(renewed),
        // It is still there for all that is known, and the next renewal will tell.
        Err(e @ StoreError::Unavailable(_)) if lease.is_some() => return Err(e),
        Err(e) => {
            *lease = None;
            return Err(e);
        }
    }
    note(&cluster.paths().alive(), asked).map_err(|e| StoreError::Unavailable(e.to_string()))
}

async fn take(cluster: &Cluster) -> Result<LeaseId, StoreError> {
    let ttl = u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX);
    let lease = cluster.store.lease_grant(ttl).await?;
    let alive = Alive { node: cluster.name.clone(), id: cluster.id, run: cluster.run.clone() };
    let key = record::key::<Alive>(&alive.node);
    let op = Op::Put { key, value: record::encode(&alive)?, lease: Some(lease) };
    cluster.store.txn(Txn { compares: Vec::new(), ops: vec![op] }).await.map(|_| lease)
}
