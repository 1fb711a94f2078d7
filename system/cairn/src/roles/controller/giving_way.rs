//! A cloud that holds nothing of a user's gives way to a better one on the same wire, as [`founder`] decides: nodes that
//! did not see each other when they were switched on become one cloud nevertheless.
//!
//! Its leader asks the other cloud to be let in, and only then gives the cloud up, by a record. Every node of it that
//! sees the record lets go of its store when it starts anew, and looks for a way in like any other.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use cairn_cluster::founder::{self, Decision, Own, Standing};
use cairn_cluster::join::client;
use cairn_cluster::join::messages::{Answer, Application};
use cairn_cluster::membership::{Cloud, CloudState, change};
use cairn_node::{Paths, paths, told};
use cairn_state::LocalStore;
use cairn_wire::remote::Expect;

use super::cluster::Cluster;
use super::in_use::{in_use, in_use_in};
use super::kept;

/// How often it looks.
const LOOK: Duration = Duration::from_secs(3);
/// How long a node that has seen the record goes on, so that the others see it too.
const LINGER: Duration = Duration::from_secs(5);
/// Says which cloud was given up, until the node role has heard of it.
const GAVE_UP: &str = "gave-up";

/// Returns when this node's cloud has given way to another: the process is to start anew.
pub async fn given_up(cluster: Arc<Cluster>) -> String {
    loop {
        tokio::time::sleep(LOOK).await;
        match look(&cluster).await {
            Ok(Some(to)) => {
                tokio::time::sleep(LINGER).await;
                return to;
            }
            Ok(None) => {}
            Err(error) => {
                tracing::info!(error = format!("{error:#}"), "the cloud did not give way this time")
            }
        }
    }
}

/// The cloud that this one has given way to, if it has; a leader does what is to be done about it.
pub async fn look(cluster: &Cluster) -> Result<Option<String>> {
    let Some(cloud) = cloud_of(&cluster.store)? else { return Ok(None) };
    if let CloudState::Yielded { to } = cloud.state {
        return Ok(Some(to));
    }
    let own = Own::Member {
        leads: cluster.leads(),
        cloud: Standing {
            id: cloud.id,
            founded_s: cloud.founded.as_second(),
            in_use: in_use(&cluster.store)?,
        },
    };
    let seen = cluster.sight().seen().borrow().clone();
    let announced: Vec<_> = seen.iter().map(|s| s.announcement.clone()).collect();
    let Decision::GiveWay { cloud: other, nodes } = founder::decide(cluster.id, &own, &announced, 0) else {
        return Ok(None);
    };
    for node in seen.iter().filter(|s| nodes.contains(&s.announcement.node)) {
        if is_let_in(cluster, &other, &node.addresses, Expect::Stranger(node.announcement.node)).await? {
            tracing::info!(to = other, "this cloud holds nothing of a user's and gives way to another");
            cluster.store.transact(|tx| change::yield_to(tx, &other, in_use_in)).await?;
            return Ok(None);
        }
    }
    Ok(None)
}

/// Whether the other cloud lets this node in at once.
async fn is_let_in(
    cluster: &Cluster,
    cloud: &str,
    at: &[std::net::SocketAddr],
    expect: Expect,
) -> Result<bool> {
    let release = env!("CARGO_PKG_VERSION").to_owned();
    let application = Application { release, addresses: cluster.around().reachable_at() };
    let applied = client::apply(cluster.stranger(), at, expect, &application, None).await?;
    Ok(applied.offered.cloud() == cloud && matches!(applied.answer, Answer::Admitted { .. }))
}

fn cloud_of(store: &LocalStore) -> Result<Option<Cloud>> {
    Ok(store.read(|tx| Ok::<_, change::Error>(tx.get::<Cloud>(Cloud::ID)?))?)
}

/// Whether the cloud in this store was given up.
pub fn is_given_up(store: &LocalStore) -> Result<bool> {
    Ok(cloud_of(store)?.is_some_and(|cloud| cloud.state != CloudState::Active))
}

/// Lets go of the store of a cloud that was given up, which is closed. What is cut short is begun again.
pub fn let_go(paths: &Paths, cloud: &str) -> Result<()> {
    let dir = paths.role("controller");
    let done = || -> io::Result<()> {
        paths::write_file(&dir.join(GAVE_UP), cloud.as_bytes(), 0o600)?;
        let store = paths.store();
        if store.exists() {
            fs::rename(&store, store.with_extension("given-up"))?;
        }
        remove(&kept::file(paths))?;
        fs::File::open(&dir)?.sync_all()
    };
    done().context("the store of a cloud that was given up cannot be put aside")?;
    tell(paths)
}

/// Whether this cloud's store was begun to be let go of.
pub fn has_begun(paths: &Paths, cloud: &str) -> Result<bool> {
    Ok(gave_up(paths)?.as_deref() == Some(cloud))
}

/// A cloud of this id goes on: if it was given up once, that is over.
pub fn is_over(paths: &Paths, cloud: &str) -> Result<()> {
    if has_begun(paths, cloud)? {
        remove(&paths.role("controller").join(GAVE_UP))?;
    }
    Ok(())
}

/// Tells the node role which cloud was given up last, if one was: disks that carry its id and no volume may go to
/// another.
pub fn tell(paths: &Paths) -> Result<()> {
    gave_up(paths)?.map_or(Ok(()), |cloud| Ok(told::tell_gave_up(paths, &cloud)?))
}

fn gave_up(paths: &Paths) -> Result<Option<String>> {
    match fs::read_to_string(paths.role("controller").join(GAVE_UP)) {
        Ok(cloud) => Ok(Some(cloud.trim().to_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).context("what cloud was given up cannot be read"),
    }
}

fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
