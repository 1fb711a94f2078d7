//! What becomes of volumes and snapshots: growing, deleting, and what the storage agent's reports mean for them.
//! Functions of an open transaction; the API and the conductor call them.

use cairn_gateway::{ApiError, ApiResult};
use cairn_image::model::{Image, Status as ImageStatus};
use cairn_shards::model::{Phase, VolumeStatus};
use cairn_shards::volumes;
use cairn_state::{Abort, Tx};
use jiff::Timestamp;

use crate::messages::{self, Event};
use crate::model::{AttachedBy, BY_SOURCE, BY_VOLUME, GIB, Snapshot, Status, Volume};
use crate::quota::{self, Delta};
use crate::{create, elsewhere, groups, retype, transfers};

/// Asks for a volume's end. With `cascade`, its snapshots end with it; with `force`, whatever it is at.
pub fn delete_volume(tx: &mut Tx, volume: &mut Volume, cascade: bool, force: bool) -> ApiResult<()> {
    if let Some(group) = &volume.group_id {
        return Err(ApiError::bad_request(format!(
            "Invalid volume: Volume {} belongs to group {group}.",
            volume.id
        )));
    }
    end(tx, volume, cascade, force)
}

/// Asks for the end of a volume of a group that ends.
pub fn delete_member(tx: &mut Tx, volume: &mut Volume) -> ApiResult<()> {
    end(tx, volume, false, false)
}

fn end(tx: &mut Tx, volume: &mut Volume, cascade: bool, force: bool) -> ApiResult<()> {
    let ended = [
        Status::Available,
        Status::Error,
        Status::ErrorDeleting,
        Status::ErrorExtending,
        Status::ErrorRestoring,
    ];
    if !force && !ended.contains(&volume.status) {
        return Err(ApiError::bad_request(format!(
            "Invalid volume: Volume status must be available or error or error_deleting or error_extending \
             and must not be migrating, attached, belong to a group, have snapshots, awaiting a transfer, or be \
             disassociated from snapshots after volume transfer, but current status is: {}.",
            volume.status.name()
        )));
    }
    if !volume.attachments.is_empty() {
        return Err(ApiError::bad_request(format!("Invalid volume: Volume {} is attached.", volume.id)));
    }
    require_no_copying(tx, &volume.id)?;
    let snapshots = tx.by_index::<Snapshot>(BY_VOLUME, &volume.id)?;
    if !snapshots.is_empty() && !cascade {
        return Err(ApiError::bad_request(format!(
            "Invalid volume: Volume {} has dependent snapshots.",
            volume.id
        )));
    }
    for mut snapshot in snapshots {
        delete_snapshot(tx, &mut snapshot, true)?;
    }
    end_volume(tx, volume)?;
    Ok(())
}

/// Asks for a volume's end, its state being no obstacle (any more).
pub fn end_volume(tx: &mut Tx, volume: &mut Volume) -> Result<(), Abort> {
    volume.attachments.clear();
    volume.become_status(Status::Deleting);
    transfers::forget(tx, &volume.id)?;
    if volume.node.is_empty() {
        // No node was found for it: there is nothing to wait for.
        return purge_volume(tx, volume).map(drop);
    }
    volumes::delete(tx, &volume.id)?;
    tx.put(volume)
}

/// Asks for a snapshot's end.
pub fn delete_snapshot(tx: &mut Tx, snapshot: &mut Snapshot, force: bool) -> ApiResult<()> {
    let ended = [Status::Available, Status::Error, Status::ErrorDeleting];
    if !force && !ended.contains(&snapshot.status) {
        return Err(ApiError::bad_request(format!(
            "Invalid snapshot: Snapshot status must be available or error, but current status is: {}.",
            snapshot.status.name()
        )));
    }
    require_no_copying(tx, &snapshot.id)?;
    snapshot.status = Status::Deleting;
    snapshot.updated_at = Some(Timestamp::now());
    volumes::delete(tx, &snapshot.id)?;
    Ok(tx.put(snapshot)?)
}

/// Refuses to end what something is still being copied from.
pub(crate) fn require_no_copying(tx: &mut Tx, id: &str) -> ApiResult<()> {
    let copied = |v: &Volume| matches!(v.status, Status::Creating | Status::Reverting);
    let copies = tx.by_index::<Volume>(BY_SOURCE, id)?.into_iter().filter(copied);
    let copies = copies.count()
        + tx.by_index::<Snapshot>(BY_SOURCE, id)?.iter().filter(|s| s.status == Status::Creating).count();
    if copies == 0 {
        return Ok(());
    }
    Err(ApiError::bad_request(format!("Invalid volume: {id} is being copied; try again in a moment.")))
}

/// Grows a volume. The conductor puts its status back once it has grown.
pub fn extend(tx: &mut Tx, volume: &mut Volume, to_gb: u64) -> ApiResult<()> {
    if to_gb <= volume.size_gb {
        return Err(ApiError::bad_request(format!(
            "Invalid input received: New size for extend must be greater than current size. (current: {}, \
             extended: {to_gb}).",
            volume.size_gb
        )));
    }
    let by_gb = to_gb - volume.size_gb;
    if !volume.hidden {
        quota::check_size(tx, &volume.project_id, to_gb)?;
        quota::charge(
            tx,
            &volume.project_id,
            Delta { gigabytes: by_gb, of_type: &volume.type_id, ..Delta::default() },
        )?;
    }
    elsewhere::grow(tx, &volume.backend, &volume.node, to_gb, by_gb)?;
    volumes::resize(tx, &volume.id, to_gb * GIB)?;
    volume.size_gb = to_gb;
    volume.before = Some(volume.status);
    volume.become_status(Status::Extending);
    Ok(tx.put(volume)?)
}

/// Moves a volume on by what is known of its content. False if there is nothing to do yet.
pub fn advance_volume(tx: &mut Tx, id: &str) -> Result<bool, Abort> {
    let Some(mut volume) = tx.get::<Volume>(id)? else { return Ok(false) };
    if volume.status == Status::Deleting {
        return purge_volume(tx, &volume);
    }
    if let Some(source) = volume.refill.clone() {
        volume.source = Some(source);
        volume.refill = None;
        volume.made = false;
        let renewed = volumes::renew(tx, create::content(&volume))?;
        if renewed {
            tx.put(&volume)?;
        }
        return Ok(renewed);
    }
    if volume.retype.is_some() && retype::advance(tx, &mut volume)? {
        return Ok(true);
    }
    let before = volume.clone();
    let seen = volumes::status(tx, id)?;
    if !volume.made {
        note_made(&mut volume, seen.as_ref());
    }
    match volume.status {
        Status::Extending
            if seen.is_some_and(|s| s.size >= volume.size_gb * GIB && s.phase == Phase::Ready) =>
        {
            let next = volume.before.take().unwrap_or(Status::Available);
            volume.become_status(next);
            volume.grown = !volume.hidden && volume.attachments.iter().any(|a| a.by == AttachedBy::Server);
        }
        Status::Uploading if !is_saving(tx, volume.uploading_to.as_deref())? => {
            let next = volume.before.take().unwrap_or(Status::Available);
            volume.uploading_to = None;
            volume.become_status(next);
        }
        _ => {}
    }
    if volume == before {
        return Ok(false);
    }
    if volume.status == Status::Error && before.status == Status::Creating && !volume.hidden {
        let why = volume.error.clone().unwrap_or_default();
        messages::tell(tx, &volume, Event::NotMade, &why, "")?;
    }
    tx.put(&volume)?;
    Ok(true)
}

/// What the agent's word means for a volume that is not made yet. One that failed and comes to be after all (a
/// full disk was relieved) is available then.
fn note_made(volume: &mut Volume, seen: Option<&VolumeStatus>) {
    let Some(seen) = seen else { return };
    match seen.phase {
        Phase::Ready => {
            volume.made = true;
            volume.error = None;
            if matches!(volume.status, Status::Creating | Status::Error) || is_filled(volume) {
                volume.become_status(Status::Available);
            }
        }
        Phase::Failed if volume.status == Status::Creating || is_filled(volume) => {
            volume.error = Some(seen.error.clone().unwrap_or_else(|| "the storage agent failed".into()));
            volume.become_status(Status::Error);
        }
        Phase::Creating | Phase::Failed | Phase::Gone => {}
    }
}

/// Whether a volume gets its content from elsewhere, and it is on its way.
fn is_filled(volume: &Volume) -> bool {
    let filled = [Status::RestoringBackup, Status::Downloading, Status::Reverting, Status::Retyping];
    filled.contains(&volume.status) && volume.refill.is_none()
}

/// Replaces the content of a volume that nobody uses by that of `source`, in the engine's ids. What it had goes first.
pub fn refill(tx: &mut Tx, volume: &mut Volume, source: &str, status: Status) -> Result<(), Abort> {
    volumes::delete(tx, &volume.id)?;
    volume.refill = Some(source.to_owned());
    volume.become_status(status);
    tx.put(volume)
}

fn is_saving(tx: &mut Tx, image: Option<&str>) -> Result<bool, Abort> {
    let Some(id) = image else { return Ok(false) };
    Ok(tx.get::<Image>(id)?.is_some_and(|i| i.status == ImageStatus::Saving))
}

fn purge_volume(tx: &mut Tx, volume: &Volume) -> Result<bool, Abort> {
    if !retype::end(tx, volume)? || !volumes::purge_if_gone(tx, &volume.id)? {
        return Ok(false);
    }
    elsewhere::release(tx, &volume.backend, &volume.node, volume.size_gb)?;
    if !volume.hidden {
        quota::refund(tx, &volume.project_id, Delta::volume(volume.size_gb, &volume.type_id))?;
    }
    let deleted = tx.delete::<Volume>(&volume.id)?;
    if let Some(group) = &volume.group_id {
        groups::end_if_empty(tx, group)?;
    }
    Ok(deleted)
}

/// Moves a snapshot on by what is known of its content. False if there is nothing to do yet.
pub fn advance_snapshot(tx: &mut Tx, id: &str) -> Result<bool, Abort> {
    let Some(mut snapshot) = tx.get::<Snapshot>(id)? else { return Ok(false) };
    if snapshot.status == Status::Deleting {
        if !volumes::purge_if_gone(tx, id)? {
            return Ok(false);
        }
        elsewhere::release(tx, &snapshot.backend, &snapshot.node, snapshot.size_gb)?;
        quota::refund(tx, &snapshot.project_id, Delta::snapshot(snapshot.size_gb, &snapshot.type_id))?;
        let deleted = tx.delete::<Snapshot>(id)?;
        if let Some(whole) = &snapshot.group_snapshot_id {
            groups::end_snapshot_if_empty(tx, whole)?;
        }
        return Ok(deleted);
    }
    let phase = volumes::status(tx, id)?.map(|s| s.phase);
    match phase {
        Some(Phase::Ready) if !snapshot.made => {
            snapshot.made = true;
            if matches!(snapshot.status, Status::Creating | Status::Error) {
                snapshot.status = Status::Available;
            }
        }
        Some(Phase::Failed) if snapshot.status == Status::Creating => snapshot.status = Status::Error,
        _ => return Ok(false),
    }
    snapshot.updated_at = Some(Timestamp::now());
    tx.put(&snapshot)?;
    Ok(true)
}
