//! Moves of servers from node to node: begun by a request or by the cloud itself, then carried on by what both nodes
//! report. A server is one node's at any moment, and changes hands in one transaction, with its ports, its volumes
//! and its claim.
//!
//! `begin` starts a move, `decide` says what follows (pure), `apply` writes it, `log` keeps the record that stays.
//! While a server is under way its new side is claimed under its own id and its old side under the migration's, as
//! Nova does it.

pub mod apply;
pub mod begin;
pub mod decide;
pub mod log;

use std::collections::BTreeMap;

use cairn_gateway::ApiResult;
use cairn_state::{Abort, Tx};
use jiff::Timestamp;

use crate::model::{InstanceStatus, MoveStatus, Server, move_status_id};

/// Whether a node is lost, so that its guests have stopped; asked within the transaction that acts on it.
pub type Lost<'a> = &'a dyn Fn(&mut Tx, &str) -> Result<bool, Abort>;

/// Decides and writes what follows for a server that moves. True if something did.
pub fn advance(tx: &mut Tx, server: &mut Server, now: Timestamp, lost: Lost<'_>) -> ApiResult<bool> {
    let Some(moving) = server.moving.clone() else { return Ok(false) };
    let step = {
        let gone: BTreeMap<&str, bool> =
            [(moving.from.as_str(), lost(tx, &moving.from)?), (moving.to.as_str(), lost(tx, &moving.to)?)]
                .into();
        let seen = tx.get::<InstanceStatus>(&server.id)?;
        let said = |tx: &mut Tx, node: &str| -> Result<Option<MoveStatus>, Abort> {
            let said = tx.get::<MoveStatus>(&move_status_id(&server.id, node))?;
            Ok(said.filter(|s| s.migration == moving.migration))
        };
        let (source, target) = (said(tx, &moving.from)?, said(tx, &moving.to)?);
        let report = decide::Report {
            seen: seen.as_ref(),
            source: source.as_ref(),
            target: target.as_ref(),
            lost: &|node| gone.get(node).copied().unwrap_or(false),
        };
        decide::step(server, &moving, &report, now)
    };
    match step {
        Some(step) => apply::apply(tx, server, step, now).map(|()| true),
        None => Ok(false),
    }
}
