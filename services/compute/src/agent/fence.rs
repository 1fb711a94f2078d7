//! Stops this node's guests when others may start them, and starts none that others may have.
//!
//! It rests on nothing but the age of the node's lease, by the node's own clock, so it works when nobody can be
//! reached. A node that is the only host stops nothing: nobody could take over.

use std::sync::Arc;
use std::time::Duration;

use cairn_state::{Mirror, Reporter, SharedStore, StoreExt};

use super::libvirt::Libvirt;
use crate::liveness::{Standing, standing};
use crate::model::{HostStatus, Server};

/// How long ago this node's lease was last renewed; none if it never was since the node was switched on.
pub type Renewal = Arc<dyn Fn() -> Option<Duration> + Send + Sync>;

/// How often the lease's age is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What keeps a guest from being started.
const OUT_OF_TOUCH: &str = "this node is not in touch with its cloud, where others may run the guest";

/// Knows what this node may do with guests.
pub struct Guard {
    node: String,
    store: SharedStore,
    renewal: Renewal,
    hosts: Mirror<HostStatus>,
}

impl Guard {
    /// The guard of this node.
    pub fn new(node: String, store: SharedStore, renewal: Renewal, hosts: Mirror<HostStatus>) -> Guard {
        Guard { node, store, renewal, hosts }
    }

    /// Whether no other host is known. Before anything is known that is not so.
    fn alone(&self) -> bool {
        let hosts = self.hosts.all();
        (self.hosts.synced() || !hosts.is_empty()) && hosts.iter().all(|h| h.node == self.node)
    }

    /// What it may do now.
    pub fn standing(&self) -> Standing {
        standing(self.alone(), (self.renewal)())
    }

    /// What keeps any guest from being started now.
    pub fn lacks(&self) -> Option<String> {
        (self.standing() != Standing::Clear).then(|| OUT_OF_TOUCH.to_owned())
    }

    /// Whether this guest may be started (or let go on) now: its server is this node's by the store's own word, and
    /// not only by what was heard last.
    pub async fn admit(&self, server: &Server) -> Result<(), String> {
        if self.alone() {
            return Ok(());
        }
        if let Some(lack) = self.lacks() {
            return Err(lack);
        }
        let now = self.store.get_record::<Server>(&server.id).await.map_err(|e| e.to_string())?;
        match now {
            Some(now) if now.host == server.host && now.generation == server.generation => Ok(()),
            _ => Err("the server has changed meanwhile".into()),
        }
    }

    /// Whether a guest that is here belongs elsewhere, by the store's own word.
    pub async fn foreign(&self, server_id: &str) -> Result<(), String> {
        let now = self.store.get_record::<Server>(server_id).await.map_err(|e| e.to_string())?;
        match now {
            Some(now) if belongs_elsewhere(&now, &self.node) => Ok(()),
            _ => Err("the guest may belong here".into()),
        }
    }
}

/// Whether a guest on this node is one too many: its server is another node's, and not on its way here.
pub fn belongs_elsewhere(server: &Server, node: &str) -> bool {
    let comes = server.comes_live_to(node) && !server.deleted;
    server.host.as_deref() != Some(node) && !comes
}

/// Stops guests in time, apart from everything else the agent does; never returns.
pub async fn watch(guard: Arc<Guard>, libvirt: Arc<Libvirt>, reporter: Reporter) {
    let mut before = None;
    loop {
        let now = guard.standing();
        if before != Some(now) {
            tracing::info!(from = ?before, to = ?now, "what this node may do with guests has changed");
            reporter.set_fact("standing", serde_json::json!(format!("{now:?}")));
            before = Some(now);
        }
        if now == Standing::Cut {
            stop_all(&libvirt).await;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Turns off every guest of ours; what cannot be now is tried again with the next look.
async fn stop_all(libvirt: &Arc<Libvirt>) {
    let all = libvirt.clone();
    let seen = match tokio::task::spawn_blocking(move || all.domains()).await {
        Ok(Ok(seen)) => seen,
        Ok(Err(error)) => return tracing::error!(%error, "the guests to stop cannot be listed"),
        Err(error) => return tracing::error!(%error, "the guests to stop cannot be listed"),
    };
    let stops = seen.into_iter().filter(|d| d.state.active()).map(|domain| {
        let libvirt = libvirt.clone();
        tokio::task::spawn_blocking(move || {
            tracing::warn!(server = domain.server_id, "stopping a guest that others may start");
            if let Err(error) = libvirt.destroy(&domain.server_id) {
                tracing::error!(server = domain.server_id, %error, "a guest could not be stopped");
            }
        })
    });
    futures_util::future::join_all(stops).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{MigrationKind, Moving, Stage};
    use crate::testing::{NODE, server};

    #[test]
    fn a_guest_is_one_too_many_only_where_its_server_neither_is_nor_comes_to() {
        let mut s = server("s1");
        assert!(!belongs_elsewhere(&s, NODE) && belongs_elsewhere(&s, "other"));
        s.moving = Some(Moving {
            number: 1,
            migration: "m".into(),
            kind: MigrationKind::Live,
            from: NODE.into(),
            to: "other".into(),
            stage: Stage::Running,
            flavor: s.flavor.clone(),
            verify: false,
            since: jiff::Timestamp::UNIX_EPOCH,
            abort: false,
            force: false,
        });
        assert!(!belongs_elsewhere(&s, "other") && belongs_elsewhere(&s, "third"));
        s.deleted = true;
        assert!(belongs_elsewhere(&s, "other"), "nothing is to come any more");
    }
}
