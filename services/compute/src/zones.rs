//! Hosts and the zones they are in, as administrators arranged them.

use cairn_state::{Abort, RoleStatus, Tx};
use jiff::Timestamp;

use crate::model::{Aggregate, HostPolicy, HostStatus};

/// The zone of every host that no aggregate puts elsewhere.
pub const DEFAULT_ZONE: &str = "nova";
/// A compute agent that was silent for so long, in seconds, counts as down.
const DOWN_AFTER_S: i64 = 60;

/// A host and what is known of it.
#[derive(Debug, Clone)]
pub struct HostView {
    /// What its agent reports.
    pub status: HostStatus,
    /// What administrators said.
    pub policy: HostPolicy,
    /// Whether its agent is alive.
    pub up: bool,
    /// When its agent last spoke.
    pub heard: Option<Timestamp>,
    /// Its zone.
    pub zone: String,
}

/// Every host, by name.
pub fn hosts(tx: &mut Tx) -> Result<Vec<HostView>, Abort> {
    let aggregates = tx.list_unfenced::<Aggregate>()?;
    let all = tx.list_unfenced::<HostStatus>()?;
    all.into_iter().map(|status| view(tx, status, &aggregates)).collect()
}

/// One host.
pub fn host(tx: &mut Tx, node: &str) -> Result<Option<HostView>, Abort> {
    let aggregates = tx.list_unfenced::<Aggregate>()?;
    let status = tx.get::<HostStatus>(node)?;
    status.map(|status| view(tx, status, &aggregates)).transpose()
}

fn view(tx: &mut Tx, status: HostStatus, aggregates: &[Aggregate]) -> Result<HostView, Abort> {
    let policy = tx.get::<HostPolicy>(&status.node)?.unwrap_or_else(|| default_policy(&status.node));
    let heard = heard(tx, &status.node)?;
    let alive = heard.is_some_and(|t| Timestamp::now().as_second() - t.as_second() <= DOWN_AFTER_S);
    let zone = zone_of(&status.node, aggregates);
    Ok(HostView { up: alive && !policy.forced_down, heard, policy, zone, status })
}

/// What holds for a host nobody said anything about.
pub fn default_policy(node: &str) -> HostPolicy {
    HostPolicy { node: node.into(), ..HostPolicy::default() }
}

/// When the compute agent of a node last spoke.
fn heard(tx: &mut Tx, node: &str) -> Result<Option<Timestamp>, Abort> {
    Ok(tx.get::<RoleStatus>(&format!("{node}/compute"))?.map(|r| r.updated))
}

/// The zone of a host.
pub fn zone_of(node: &str, aggregates: &[Aggregate]) -> String {
    let named = aggregates
        .iter()
        .filter(|a| a.hosts.contains(node))
        .find_map(|a| a.metadata.get("availability_zone"));
    named.cloned().unwrap_or_else(|| DEFAULT_ZONE.into())
}

/// The zone a server is shown in: its host's, or the one it asked for, or none yet.
pub fn shown_zone(tx: &mut Tx, server: &crate::model::Server) -> Result<String, Abort> {
    match &server.host {
        Some(host) => Ok(zone_of(host, &tx.list_unfenced::<Aggregate>()?)),
        None => Ok(server.pinned_zone.clone().unwrap_or_default()),
    }
}
