//! The actions that move a volume: to a type of another backend, and to another host.
//!
//! Backends of a node share its disks, so that nothing is copied to change between them: the engine makes or removes
//! copies on other nodes, and the volume is of use all the while. Only a change of encryption copies the content.

use cairn_gateway::{ApiError, ApiResult};
use cairn_shards::volumes;
use cairn_state::Tx;

use super::context::Context;
use super::input::{self, Fields};
use crate::model::{BY_VOLUME, Snapshot, Status, Volume};
use crate::quota::{self, Delta};
use crate::{capacity, elsewhere, qos, retype, types};

/// `os-retype`
pub fn retype(tx: &mut Tx, ctx: &Context, mut volume: Volume, fields: &Fields) -> ApiResult<()> {
    let wanted =
        input::reference(fields, "new_type")?.ok_or_else(|| input::invalid("new_type", "it is required"))?;
    let may_move = match input::reference(fields, "migration_policy")?.as_deref() {
        None | Some("never") => false,
        Some("on-demand") => true,
        Some(_) => return Err(input::invalid("migration_policy", "it must be 'on-demand' or 'never'")),
    };
    let wanted = types::find(tx, &ctx.caller, &wanted)?;
    if !matches!(volume.status, Status::Available | Status::InUse) {
        return Err(ApiError::bad_request(format!(
            "Invalid volume: Volume {} status must be available or in-use, but current status is: {}.",
            volume.id,
            volume.status.name()
        )));
    }
    if wanted.id == volume.type_id {
        return Err(ApiError::bad_request("Invalid volume: the new type is the one it has."));
    }
    let backend = types::backend(tx, &wanted)?.map_err(|e| ApiError::bad_request(e.message))?;
    if backend != volume.backend {
        elsewhere::refuse(&backend, "Moving to another backend of", &volume.id)?;
        elsewhere::refuse(&volume.backend, "Moving to another backend of", &volume.id)?;
    }
    if backend != volume.backend && !may_move {
        return Err(ApiError::bad_request(format!(
            "Invalid volume: Retype requires migration to the backend {backend}, but is not allowed."
        )));
    }
    let changes_key = retype::changes_key(&volume, &wanted);
    if changes_key {
        elsewhere::refuse(&volume.backend, "Encryption of", &volume.id)?;
    }
    if changes_key && !may_move {
        return Err(ApiError::bad_request(
            "Invalid volume: Retype to a type with another encryption requires migration, but is not allowed.",
        ));
    }
    let multiattach = types::is_multiattach(&wanted);
    if multiattach != volume.multiattach && volume.status != Status::Available {
        return Err(ApiError::bad_request(format!(
            "Invalid volume: Volume {} must be available to change whether it is meant for several servers, but its \
             status is: {}.",
            volume.id,
            volume.status.name()
        )));
    }
    count(tx, &volume, &wanted.id)?;
    volume.multiattach = multiattach;
    if changes_key {
        retype::begin(tx, &mut volume, &wanted)?;
    }
    volume.type_id = wanted.id;
    volume.migrated = false;
    qos::impose(tx, &volume)?;
    move_to(tx, &mut volume, &backend)?;
    volume.migrated |= changes_key;
    volume.become_status(volume.status);
    Ok(tx.put(&volume)?)
}

/// Counts a volume and its snapshots for their new type.
fn count(tx: &mut Tx, volume: &Volume, type_id: &str) -> ApiResult<()> {
    quota::refund(tx, &volume.project_id, Delta::volume(volume.size_gb, &volume.type_id))?;
    quota::charge(tx, &volume.project_id, Delta::volume(volume.size_gb, type_id))?;
    for mut snapshot in tx.by_index::<Snapshot>(BY_VOLUME, &volume.id)? {
        quota::refund(tx, &snapshot.project_id, Delta::snapshot(snapshot.size_gb, &snapshot.type_id))?;
        quota::charge(tx, &snapshot.project_id, Delta::snapshot(snapshot.size_gb, type_id))?;
        snapshot.type_id = type_id.to_owned();
        tx.put(&snapshot)?;
    }
    Ok(())
}

fn move_to(tx: &mut Tx, volume: &mut Volume, backend: &str) -> ApiResult<()> {
    if backend == volume.backend {
        return Ok(());
    }
    volumes::set_copies(tx, &volume.id, capacity::copies(backend))?;
    volume.backend = backend.to_owned();
    volume.migrated = true;
    Ok(())
}

/// `os-migrate_volume`, for administrators: to another backend of the node that has it. Which nodes have copies, the
/// engine decides, and the volume is served where it is used.
pub fn migrate(tx: &mut Tx, ctx: &Context, mut volume: Volume, fields: &Fields) -> ApiResult<()> {
    ctx.caller.require_admin()?;
    let host = input::reference(fields, "host")?.ok_or_else(|| input::invalid("host", "it is required"))?;
    if !matches!(volume.status, Status::Available | Status::InUse) {
        return Err(ApiError::bad_request(format!(
            "Invalid volume: Volume {} status must be available or in-use, but current status is: {}.",
            volume.id,
            volume.status.name()
        )));
    }
    elsewhere::refuse(&volume.backend, "Moving to another backend of", &volume.id)?;
    let there = capacity::parse_host(&host)
        .filter(|(node, backend)| *node == volume.node && capacity::is_own(backend));
    let Some((_, backend)) = there.filter(|(_, backend)| *backend != volume.backend) else {
        return Err(ApiError::bad_request(format!(
            "Invalid host: {host} is no other backend of the node {} that has the volume.",
            volume.node
        )));
    };
    let of_type = types::stored(tx, &volume.type_id)?;
    if of_type.is_some_and(|t| t.extra_specs.keys().any(|k| k.ends_with("volume_backend_name"))) {
        return Err(ApiError::bad_request(
            "Invalid volume: its type names the backend it must be in; retype it instead.",
        ));
    }
    move_to(tx, &mut volume, backend)?;
    volume.become_status(volume.status);
    Ok(tx.put(&volume)?)
}
