//! Ports that follow their guests from one node to another.
//!
//! Three steps, each in the caller's transaction: the new node is asked to prepare (it reports
//! [`crate::model::PortPrepared`]), the port changes its node, or the whole is called off. All nodes send a port's
//! traffic where [`Port::host`] says, so that the second step is the moment at which it moves.

use cairn_gateway::{ApiError, ApiResult};
use cairn_state::Tx;
use jiff::Timestamp;

use super::{hosts, ports};
use crate::model::Port;

/// Asks a node to make everything ready for a port that is plugged elsewhere. 409 if it is plugged nowhere, there
/// already, or on its way to a third node. Asked twice it changes nothing.
pub fn prepare(tx: &mut Tx, port_id: &str, to: &str, now: Timestamp) -> ApiResult<Port> {
    let mut port = movable(tx, port_id)?;
    let refuse = |why: &str| Err(ApiError::conflict(format!("Port {port_id} cannot move to {to}: {why}.")));
    match (port.host.as_deref(), port.migrating_to.as_deref()) {
        (None, _) => return refuse("it is not plugged anywhere"),
        (Some(host), _) if host == to => return refuse("it is there already"),
        (_, Some(other)) if other == to => return Ok(port),
        (_, Some(_)) => return refuse("it is on its way to another node"),
        (Some(_), None) => {}
    }
    hosts::note(tx, &port.network_id, to)?;
    port.migrating_to = Some(to.to_owned());
    put(tx, port, now)
}

/// Moves a port to a node, prepared or not: from now on its traffic goes there. Done twice it changes nothing.
pub fn finish(tx: &mut Tx, port_id: &str, to: &str, now: Timestamp) -> ApiResult<Port> {
    let mut port = movable(tx, port_id)?;
    if port.host.as_deref() == Some(to) && port.migrating_to.is_none() {
        return Ok(port);
    }
    ports::bind(tx, &mut port, Some(to))?;
    put(tx, port, now)
}

/// Calls a move to a node off; nothing if there is none.
pub fn abort(tx: &mut Tx, port_id: &str, to: &str, now: Timestamp) -> ApiResult<Port> {
    let mut port = movable(tx, port_id)?;
    if port.migrating_to.as_deref() != Some(to) {
        return Ok(port);
    }
    port.migrating_to = None;
    put(tx, port, now)
}

fn movable(tx: &mut Tx, port_id: &str) -> ApiResult<Port> {
    let port = tx.get::<Port>(port_id)?.filter(|p| !p.deleted);
    let port = port.ok_or_else(|| ApiError::not_found("Port", port_id).with_code("PortNotFound"))?;
    if port.is_service_port() {
        return Err(ApiError::conflict(format!("Port {port_id} belongs to {}.", port.device_owner)));
    }
    Ok(port)
}

fn put(tx: &mut Tx, mut port: Port, now: Timestamp) -> ApiResult<Port> {
    port.stamp.touch(now);
    tx.put(&port)?;
    Ok(port)
}
