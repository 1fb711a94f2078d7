//! What falls to the replica that leads: to end the leases whose time has run out. What falls to a witness is in
//! `witness`.
//!
//! It acts by proposing, so what a replica does that no longer leads has no effect.

use std::sync::Weak;
use std::time::Duration;

use openraft::AsyncRuntime;
use openraft::async_runtime::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use openraft::type_config::alias::WatchReceiverOf;

use super::group::Group;
use super::types::{LeaderId, Runtime, Types};
use super::witness;
use crate::engine::Command;

/// How long to sleep when no lease is near its end.
const IDLE: Duration = Duration::from_secs(3600);

/// Runs until the replica is gone.
pub(super) async fn run<K: Runtime>(
    group: Weak<Group<K>>,
    mut metrics: WatchReceiverOf<Types<K>, RaftServerMetrics<Types<K>>>,
) {
    loop {
        let wait = {
            let Some(group) = group.upgrade() else { return };
            let wait = if group.core.witness { witness::act(&group).await } else { lead(&group).await };
            let Some(wait) = wait else { return };
            wait
        };
        let Some(core) = group.upgrade().map(|group| group.core.clone()) else { return };
        let sleep = K::Async::sleep(wait);
        let woken = K::Async::select3(metrics.changed(), core.leases.changed(), sleep).await;
        if let openraft::async_runtime::Select3::First(Err(_)) = woken {
            return;
        }
    }
}

/// Does what falls to a leader, if this is one, and says how long until it should look again.
async fn lead<K: Runtime>(group: &Group<K>) -> Option<Duration> {
    match group.lessor() {
        Ok(Some(leader)) => Some(end_leases(group, leader).await),
        Ok(None) => Some(IDLE),
        Err(e) => {
            tracing::error!(error = %e, "the leases cannot be read");
            None
        }
    }
}

/// Ends the leases that are over, and says how long until the next may be. Nothing comes of it if this replica has
/// lost the lead since, even if it has it again: then they may have been kept alive by others, and each begins a
/// full term.
async fn end_leases<K: Runtime>(group: &Group<K>, leader: LeaderId) -> Duration {
    for lease in group.core.leases.take_expired() {
        if group.raft.write(Command::Revoke(lease)).with_leader(leader).await.is_err() {
            // The replica has stopped.
            return IDLE;
        }
    }
    group.core.leases.next_in().unwrap_or(IDLE)
}
