//! Restarts the guests of a node that is lost on others. A node is lost when its lease has been gone for so long that
//! it has stopped its guests by itself (see `liveness`).
//!
//! It remembers only since when leases have been gone, which begins anew with its process: that makes it wait longer,
//! never shorter.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_gateway::{ApiError, ApiResult};
use cairn_state::{Abort, Tx};
use jiff::Timestamp;

use crate::actions::Actor;
use crate::model::{HostStatus, MigrationStatus, Server, Stage};
use crate::moves::{self, Lost, apply, begin};
use crate::{Service, actions};

/// How often leases are looked at: several times in the life of one.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Follows the leases of all nodes and takes over from those that are lost; never returns.
pub async fn follow(svc: Arc<Service>) {
    loop {
        match svc.note_leases() {
            Ok(lost) => {
                for node in lost {
                    take_over(&svc, &node).await;
                }
            }
            Err(error) => tracing::warn!(%error, "the leases of nodes could not be read"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl Service {
    /// Notes which leases are there; the nodes that are lost.
    fn note_leases(&self) -> Result<Vec<String>, Abort> {
        let leases = self.store.read(|tx| {
            let mut leases = Vec::new();
            for host in tx.list_unfenced::<HostStatus>()? {
                let alive = (self.alive)(tx, &host.node)?;
                leases.push((host.node, alive));
            }
            Ok::<_, Abort>(leases)
        })?;
        let now = Instant::now();
        let mut absences = self.absences();
        for (node, alive) in &leases {
            absences.note(node, *alive, now);
        }
        absences.keep_only(|node| leases.iter().any(|(n, _)| n == node));
        Ok(leases.into_iter().map(|(node, _)| node).filter(|node| absences.lost(node, now)).collect())
    }

    /// Whether a node is lost. Its lease is read in the transaction that acts on that, so a renewal in the same moment
    /// makes it run again.
    pub(crate) fn lost(&self, tx: &mut Tx, node: &str) -> Result<bool, Abort> {
        Ok(!(self.alive)(tx, node)? && self.absences().lost(node, Instant::now()))
    }
}

async fn take_over(svc: &Service, node: &str) {
    let servers = match svc.store.read(|tx| tx.by_index::<Server>("host", node)) {
        Ok(servers) => servers,
        Err(error) => return tracing::warn!(node, %error, "the servers of a lost node could not be read"),
    };
    for server in servers {
        let done: Result<(), ApiError> =
            svc.store.transact(|tx| restart(tx, &server.id, node, &|tx, node| svc.lost(tx, node))).await;
        if let Err(error) = done {
            tracing::warn!(server = server.id, node, %error, "a server could not leave a lost node yet");
        }
    }
}

/// Moves one server from a lost node, if another has room for it. Its disks and ports go along in the same
/// transaction, and what its old node still writes is refused from then on.
fn restart(tx: &mut Tx, id: &str, node: &str, lost: Lost<'_>) -> ApiResult<()> {
    let Some(mut server) = tx.get::<Server>(id)? else { return Ok(()) };
    if server.host.as_deref() != Some(node) || server.deleted || !lost(tx, node)? {
        return Ok(());
    }
    let now = Timestamp::now();
    if !carries_on(tx, &mut server)? {
        if begin::evacuate(tx, &mut server, &begin::Plan::default())?.is_none() {
            return Ok(());
        }
        tracing::warn!(server = id, from = node, to = ?server.moving.as_ref().map(|m| &m.to), "taking over");
        if server.open_action.is_none() {
            actions::begin(tx, &mut server, &Actor::cloud(), "evacuate")?;
        }
    }
    moves::advance(tx, &mut server, now, lost)?;
    Ok(tx.put(&server)?)
}

/// Whether the move a server makes takes it from its node by itself; one that has brought it there is over.
fn carries_on(tx: &mut Tx, server: &mut Server) -> ApiResult<bool> {
    let status = match server.moving.as_ref().map(|m| m.stage) {
        None => return Ok(false),
        Some(Stage::Preparing | Stage::Running | Stage::Leaving | Stage::Returning) => return Ok(true),
        Some(Stage::Arriving) => MigrationStatus::Error,
        Some(Stage::Verify) => MigrationStatus::Confirmed,
        Some(Stage::Returned) => MigrationStatus::Reverted,
    };
    apply::end(tx, server, status, Some("its node was lost"))?;
    Ok(false)
}
