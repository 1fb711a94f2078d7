//! Carries the steps of a move out, each in one transaction with all that goes along: claims, quota, ports, volumes,
//! the guest's metadata, and the record of the migration.

use cairn_gateway::ApiResult;
use cairn_placement::claims;
use cairn_state::Tx;
use jiff::Timestamp;

use super::decide::MoveStep;
use super::log;
use crate::model::{BootKind, MigrationKind, MigrationStatus, Moving, Power, Server, Stage};
use crate::{actions, create, nics, quota, reach, zones};

/// Carries a step out. The caller puts the server.
pub fn apply(tx: &mut Tx, server: &mut Server, step: MoveStep, now: Timestamp) -> ApiResult<()> {
    let Some(moving) = server.moving.clone() else { return Ok(()) };
    match step {
        MoveStep::Send => {
            enter(server, Stage::Running, now);
            log::mark(tx, &server.id, &moving, MigrationStatus::Running, None)?;
        }
        MoveStep::Switch if moving.live() => switch_live(tx, server, &moving)?,
        MoveStep::Switch => switch(tx, server, &moving, now)?,
        MoveStep::SwitchBack => switch_back(tx, server, &moving, now)?,
        MoveStep::Settle => settle(tx, server, &moving, now)?,
        MoveStep::Cancel { aborted, why } => cancel(tx, server, &moving, aborted, &why)?,
    }
    Ok(())
}

/// Enters a stage, which both nodes are to act on.
pub fn enter(server: &mut Server, stage: Stage, now: Timestamp) {
    if let Some(moving) = &mut server.moving {
        moving.stage = stage;
        moving.since = now;
    }
    server.touch();
}

/// Makes a server this node's, with its ports and volumes.
pub fn place(tx: &mut Tx, server: &mut Server, node: &str) -> ApiResult<()> {
    server.host = Some(node.to_owned());
    reach::hand_over(tx, server, node)?;
    let zone = zones::shown_zone(tx, server)?;
    nics::publish(tx, server, &zone)
}

/// A guest that is off is to be on again, if it is to be on at all.
fn start_again(server: &mut Server) {
    if server.power != Power::Stopped {
        server.order_boot(BootKind::Start);
    }
}

fn switch_live(tx: &mut Tx, server: &mut Server, moving: &Moving) -> ApiResult<()> {
    place(tx, server, &moving.to)?;
    // Whatever boot was ordered last, a guest that runs has had it.
    server.boot.kind = BootKind::Start;
    server.moving = None;
    server.touch();
    claims::release(tx, &moving.migration)?;
    Ok(log::mark(tx, &server.id, moving, MigrationStatus::Completed, None)?)
}

fn switch(tx: &mut Tx, server: &mut Server, moving: &Moving, now: Timestamp) -> ApiResult<()> {
    exchange_flavors(server);
    place(tx, server, &moving.to)?;
    start_again(server);
    enter(server, Stage::Arriving, now);
    Ok(log::mark(tx, &server.id, moving, MigrationStatus::PostMigrating, None)?)
}

fn switch_back(tx: &mut Tx, server: &mut Server, moving: &Moving, now: Timestamp) -> ApiResult<()> {
    quota::exchange(tx, &server.project_id, &server.flavor, &moving.flavor)?;
    exchange_flavors(server);
    claims::hand_over(tx, &moving.migration, &server.id)?;
    place(tx, server, &moving.from)?;
    start_again(server);
    enter(server, Stage::Returned, now);
    Ok(())
}

fn exchange_flavors(server: &mut Server) {
    if let Some(moving) = &mut server.moving {
        std::mem::swap(&mut server.flavor, &mut moving.flavor);
    }
}

fn settle(tx: &mut Tx, server: &mut Server, moving: &Moving, now: Timestamp) -> ApiResult<()> {
    match (moving.stage, moving.kind) {
        (Stage::Returned, _) => end(tx, server, MigrationStatus::Reverted, None),
        (_, MigrationKind::Evacuation) => end(tx, server, MigrationStatus::Done, None),
        _ if moving.verify => {
            enter(server, Stage::Verify, now);
            Ok(log::mark(tx, &server.id, moving, MigrationStatus::Finished, None)?)
        }
        _ => end(tx, server, MigrationStatus::Confirmed, None),
    }
}

/// Ends a move with the server where it is: its other side is given back.
pub fn end(
    tx: &mut Tx,
    server: &mut Server,
    status: MigrationStatus,
    message: Option<&str>,
) -> ApiResult<()> {
    let Some(moving) = server.moving.take() else { return Ok(()) };
    claims::release(tx, &moving.migration)?;
    server.touch();
    Ok(log::mark(tx, &server.id, &moving, status, message)?)
}

/// Calls a move off before the server has changed hands.
fn cancel(tx: &mut Tx, server: &mut Server, moving: &Moving, aborted: bool, why: &str) -> ApiResult<()> {
    if !moving.live() {
        quota::exchange(tx, &server.project_id, &moving.flavor, &server.flavor)?;
        start_again(server);
    }
    claims::hand_over(tx, &moving.migration, &server.id)?;
    reach::abandon(tx, server, &moving.to)?;
    if let Some(host) = server.host.clone() {
        reach::hand_over(tx, server, &host)?;
    }
    server.moving = None;
    server.touch();
    let (status, message) = match aborted {
        true => (MigrationStatus::Cancelled, None),
        false => (MigrationStatus::Error, Some(why)),
    };
    log::mark(tx, &server.id, moving, status, message)?;
    if !aborted {
        server.fault = Some(create::fault(why));
        actions::finish(tx, server, Some(why))?;
    }
    Ok(())
}
