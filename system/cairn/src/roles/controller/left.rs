//! A node that was removed from its cloud: how it hears of it, and that it then stops serving, for good.
//!
//! It hears of it by the record, if its replica still got that, or from any member that refuses its key: a member
//! whose own key is pinned, so nobody else can say it. What it has heard it keeps, so that the next start stays out too.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use cairn_cluster::alive;
use cairn_cluster::membership::{Member, MemberState, change};
use cairn_node::Paths;
use cairn_node::told::{self, Joining};
use cairn_wire::remote::Error;

use super::cluster::Cluster;
use super::kept::{self, Kept};

/// What its screen says.
pub const SAYS: &str = "This node was removed from its cloud. Reset it (erase its disks) to use it again.";

/// How often it looks.
const LOOK: Duration = Duration::from_secs(1);
/// How long a node may be out of touch before it asks whether it still belongs.
const OUT_OF_TOUCH: Duration = Duration::from_secs(4);
/// How long a member may take to answer.
const WITHIN: Duration = Duration::from_secs(3);

/// Returns when this node was removed, and has kept that: the process is to end.
pub async fn removed(cluster: Arc<Cluster>) -> Result<()> {
    loop {
        tokio::time::sleep(LOOK).await;
        if is_removed_here(&cluster)? || is_refused(&cluster).await {
            stay_away(cluster.paths(), cluster.kept())?;
            return Ok(());
        }
    }
}

fn is_removed_here(cluster: &Cluster) -> Result<bool> {
    let id = cluster.id.to_string();
    let mine = cluster.store.read(|tx| Ok::<_, change::Error>(tx.get::<Member>(&id)?))?;
    Ok(mine.is_some_and(|mine| mine.state == MemberState::Removed))
}

/// Whether a member says that this node's key was removed. Nobody is asked while all is well.
async fn is_refused(cluster: &Cluster) -> bool {
    if alive::since_renewal(&cluster.paths().alive()).is_some_and(|age| age < OUT_OF_TOUCH) {
        return false;
    }
    let members = cluster.kept().belonging.members;
    for pin in members.iter().filter(|pin| pin.id != cluster.id) {
        let asked = cluster.peers.call::<_, serde::de::IgnoredAny>(pin.id, "cluster/health", &(), WITHIN);
        if matches!(asked.await, Err(Error::Removed)) {
            tracing::warn!(node = pin.name, "a member says that this node was removed");
            return true;
        }
    }
    false
}

/// Keeps that it was removed, and makes the node's roles stop what others may have taken over.
fn stay_away(paths: &Paths, kept: Kept) -> Result<()> {
    kept::save(paths, &Kept { left: true, ..kept })?;
    say(paths)
}

/// Says so on the screen, and to the node's roles: it was last in touch when it was switched on, if ever.
fn say(paths: &Paths) -> Result<()> {
    alive::note(&paths.alive(), Duration::ZERO)?;
    Ok(told::tell_joining(paths, &Joining { state: SAYS.into(), ..Joining::default() })?)
}

/// What a node that was removed does when it is started: nothing.
pub async fn stay_out(paths: &Paths) -> Result<std::convert::Infallible> {
    tracing::warn!("this node was removed from its cloud: it serves nothing until it is reset");
    say(paths)?;
    std::future::pending().await
}
