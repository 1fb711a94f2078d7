//! What a witness does by itself: it looks for a leader when nobody else does, and hands over as soon as it can.
//!
//! It has the log and no state, so it can bring another up to date and answer nothing. It campaigns only when no voter
//! that has the state did for a while: then it may be the only one left with what was acknowledged last.

use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::{AsyncRuntime, Instant, RaftState};

use super::group::Group;
use super::types::{NodeId, Runtime, Types, is_witness};

/// How many election times without a word of a leader it lets the others look for one.
const PATIENCE: u32 = 4;

/// Does what falls to it now, and says how long until it should look again; `None` if the replica has stopped.
pub(super) async fn act<K: Runtime>(group: &Group<K>) -> Option<Duration> {
    if group.leads().is_some() { stand_aside(group).await } else { look(group).await }
}

/// Hands over to the voter that has all the log, if there is one yet.
async fn stand_aside<K: Runtime>(group: &Group<K>) -> Option<Duration> {
    if let Some(next) = heir(group) {
        tracing::info!(next, "this witness leads and hands over");
        group.raft.trigger().transfer_leader(next).await.ok()?;
    }
    Some(group.timing.heartbeat)
}

/// The voter with a state whose log is this one's.
fn heir<K: Runtime>(group: &Group<K>) -> Option<NodeId> {
    let metrics = group.raft.metrics();
    let metrics = metrics.borrow_watched();
    let voters: Vec<_> = metrics.membership_config.voter_ids().collect();
    let matched = metrics.replication.as_ref()?.iter();
    let matched = matched.filter(|(node, _)| voters.contains(node) && !is_witness(**node));
    let (node, upto) = matched.max_by_key(|(_, upto)| upto.as_ref().map(|at| at.index))?;
    (upto.as_ref().map(|at| at.index) >= metrics.last_log_index).then_some(*node)
}

/// Campaigns if it votes and has heard of no leader nor candidate for long.
async fn look<K: Runtime>(group: &Group<K>) -> Option<Duration> {
    let me = group.me;
    let quiet = group.timing.election * PATIENCE;
    let due = move |state: &RaftState<Types<K>>| {
        let votes = state.membership_state.effective().voter_ids().any(|voter| voter == me);
        let now = <K::Async as AsyncRuntime>::Instant::now();
        votes && state.vote_last_modified().is_none_or(|at| now.saturating_duration_since(at) >= quiet)
    };
    if group.raft.with_raft_state(due).await.ok()? {
        group.raft.trigger().elect(true).await.ok()?;
    }
    Some(group.timing.election)
}
