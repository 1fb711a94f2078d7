//! Removes a node from the cloud, dead or alive: what stands against it, the steps of it, and what is forgotten of it
//! afterwards. It needs a majority and never the node.
//!
//! First the node is on its way out, so that the group's leader lets another vote in its place; then, in one
//! transaction, it is removed, together with what would still send anything to it. The rest is forgotten once it has
//! stepped back by itself ([`sweep`], the leader's duty), so that nobody does what it still does.
//!
//! It must never remove a node that servers are on, nor one with the only whole copy of a volume unless that was
//! ordered in so many words.

use std::time::Duration;

use cairn_cluster::Alive;
use cairn_cluster::membership::{Member, change};
use cairn_gateway::{ApiError, ApiResult};
use cairn_state::{Abort, LocalStore, RoleStatus, Tx};
use cairn_wire::remote::PeerId;
use tokio::time::Instant;

use super::cluster::Cluster;
use super::liveness;

/// How often a removal is tried when other nodes are removed at the same moment.
const TRIES: usize = 5;
/// How long the leader may take to let others vote in the node's place.
const VOTES_MAX: Duration = Duration::from_secs(30);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How often the leader looks for what is left of nodes that were removed.
const SWEEP: Duration = Duration::from_secs(5);
/// How many things are named when they stand against a removal.
const NAMED_MAX: usize = 5;
/// The roles that report of a node.
const ROLES: [&str; 5] = ["controller", "compute", "network", "storage", "node"];

/// Why a node was not removed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Membership does not allow it.
    #[error(transparent)]
    Member(#[from] change::Error),
    /// A service could not say or forget.
    #[error("{}", .0.message)]
    Service(ApiError),
    /// Servers are on it.
    #[error("servers are on {node}, or hold a place there: {}; move them to another node or delete them first", named(.servers))]
    Occupied {
        /// The node.
        node: String,
        /// Their ids.
        servers: Vec<String>,
    },
    /// Volumes would be lost.
    #[error(
        "{node} has the only whole copy of these volumes: {}; wait until others have one (cairn status), or remove it \
         with --lose-volumes, and they are lost for ever",
        named(.volumes)
    )]
    LosesData {
        /// The node.
        node: String,
        /// Their ids.
        volumes: Vec<String>,
    },
    /// The node votes, and nobody else could in its place.
    #[error(
        "{0} votes, and no other member is ready to vote in its place; nothing was changed. Is another one switched on?"
    )]
    Votes(String),
}

impl From<Abort> for Error {
    fn from(e: Abort) -> Error {
        Error::Member(e.into())
    }
}

impl From<ApiError> for Error {
    fn from(e: ApiError) -> Error {
        Error::Service(e)
    }
}

fn named(all: &[String]) -> String {
    let some = all.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(NAMED_MAX) {
        0 => some,
        more => format!("{some} and {more} more"),
    }
}

/// Removes the node; it is done when this returns.
pub async fn remove(cluster: &Cluster, id: PeerId, lose_volumes: bool) -> Result<(), Error> {
    let store = &cluster.store;
    store.transact(|tx| begin(tx, id, lose_volumes)).await?;
    if let Err(e) = finish(cluster, id, lose_volumes).await {
        // As if it had not been asked for. That this may fail too is why a node on its way out can be removed again.
        drop(store.transact(|tx| change::stay(tx, id)).await);
        return Err(e);
    }
    Ok(())
}

fn begin(tx: &mut Tx, id: PeerId, lose_volumes: bool) -> Result<(), Error> {
    let name = change::member(tx, id)?.name;
    admissible(tx, &name, lose_volumes)?;
    Ok(change::leave(tx, id)?)
}

/// Whether nothing stands against removing the node of this name.
fn admissible(tx: &mut Tx, node: &str, lose_volumes: bool) -> Result<(), Error> {
    let node = node.to_owned();
    let servers = cairn_compute::removal::guests(tx, &node)?;
    if !servers.is_empty() {
        return Err(Error::Occupied { node, servers });
    }
    let volumes = if lose_volumes { Vec::new() } else { cairn_shards::removal::only_on(tx, &node)? };
    match volumes.is_empty() {
        true => Ok(()),
        false => Err(Error::LosesData { node, volumes }),
    }
}

async fn finish(cluster: &Cluster, id: PeerId, lose_volumes: bool) -> Result<(), Error> {
    let name = votes_no_more(cluster, id).await?;
    for _ in 0..TRIES {
        let successor = cluster.store.read(change::authority)?.successor().map_err(change::Error::Key)?;
        let removed = cluster.store.transact(|tx| {
            admissible(tx, &name, lose_volumes)?;
            change::remove(tx, id, &successor)?;
            // Nothing new comes to be there.
            cairn_compute::removal::forget_host(tx, &name)?;
            cairn_shards::removal::forget_node(tx, &name)?;
            Ok::<_, Error>(())
        });
        match removed.await {
            Err(Error::Member(change::Error::Overtaken)) => {}
            done => return done,
        }
    }
    Err(change::Error::Overtaken.into())
}

/// Waits until the node's vote is not needed any more; its name.
async fn votes_no_more(cluster: &Cluster, id: PeerId) -> Result<String, Error> {
    let deadline = Instant::now() + VOTES_MAX;
    loop {
        let member = cluster.store.read(|tx| change::member(tx, id))?;
        let status = cluster.store.status().map_err(Abort::from)?;
        let votes = member.voter || member.replica.is_some_and(|replica| status.voters.contains(&replica));
        if !votes {
            return Ok(member.name);
        }
        if Instant::now() > deadline {
            return Err(Error::Votes(member.name));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Forgets what is left of nodes that were removed and have stepped back. The leader's duty; runs for ever.
pub async fn sweep(store: LocalStore) {
    let fallen = liveness::fallen();
    loop {
        if let Err(error) = sweep_once(&store, &*fallen).await {
            tracing::warn!(error = error.message, "what is left of removed nodes could not be forgotten");
        }
        tokio::time::sleep(SWEEP).await;
    }
}

async fn sweep_once(
    store: &LocalStore,
    fallen: &(dyn Fn(&mut Tx, &str) -> ApiResult<bool> + Send + Sync),
) -> ApiResult<()> {
    let members = store.read(|tx| Ok::<_, ApiError>(tx.list_unfenced::<Member>()?))?;
    for node in members.iter().filter(|m| !m.is_trusted()).map(|m| m.name.as_str()) {
        let left = store.read(|tx| Ok::<_, ApiError>(fallen(tx, node)? && is_left(tx, node)?))?;
        if left {
            store.transact(|tx| forget(tx, node)).await?;
            tracing::info!(node, "what was left of a removed node is forgotten");
        }
    }
    Ok(())
}

/// Whether anything but its member's record is left of a node.
fn is_left(tx: &mut Tx, node: &str) -> ApiResult<bool> {
    let roles = |tx: &mut Tx| -> ApiResult<bool> {
        for role in ROLES {
            if tx.get::<RoleStatus>(&format!("{node}/{role}"))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    };
    Ok(roles(tx)?
        || cairn_compute::removal::knows_host(tx, node)?
        || cairn_network::servers::knows_host(tx, node)?
        || cairn_shards::removal::knows_node(tx, node)?)
}

fn forget(tx: &mut Tx, node: &str) -> ApiResult<()> {
    if tx.get::<Alive>(node)?.is_some() {
        return Ok(());
    }
    cairn_compute::removal::forget_host(tx, node)?;
    cairn_network::servers::forget_host(tx, node)?;
    cairn_shards::removal::forget_node(tx, node)?;
    for role in ROLES {
        tx.delete::<RoleStatus>(&format!("{node}/{role}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_shards::model::{DiskStatus, VolumeSpec};

    fn disk() -> DiskStatus {
        DiskStatus {
            node: "n1".into(),
            disk: "d".into(),
            path: "/d".into(),
            size: 10,
            free: 5,
            healthy: true,
            error: None,
            knows_places: true,
            has_backups: false,
            health: None,
            knows_owners: true,
            gone: false,
            visiting: None,
        }
    }

    #[tokio::test]
    async fn a_node_that_would_take_data_along_stays_unless_that_is_ordered() {
        let store = LocalStore::in_memory().unwrap();
        store.transact(|tx| tx.put(&VolumeSpec::new("v1", "n1", 1024))).await.unwrap();
        let refused = store.read(|tx| admissible(tx, "n1", false)).unwrap_err();
        assert!(refused.to_string().contains("only whole copy of these volumes: v1"), "{refused}");
        assert!(store.read(|tx| admissible(tx, "n1", true)).is_ok());
        assert!(store.read(|tx| admissible(tx, "n2", false)).is_ok());
    }

    #[tokio::test]
    async fn what_is_left_is_forgotten_once_the_node_has_stepped_back() {
        let store = LocalStore::in_memory().unwrap();
        store.transact(|tx| tx.put(&disk())).await.unwrap();
        assert!(store.read(|tx| is_left(tx, "n1")).unwrap());
        store.transact(|tx| forget(tx, "n1")).await.unwrap();
        assert!(!store.read(|tx| is_left(tx, "n1")).unwrap());
    }

    #[test]
    fn a_long_list_is_cut_short() {
        let all: Vec<_> = (0..7).map(|n| n.to_string()).collect();
        assert_eq!((named(&all), named(&all[..1])), ("0, 1, 2, 3, 4 and 2 more".into(), "0".into()));
    }
}
