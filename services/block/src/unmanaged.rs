//! Content that block storage lets go of and takes over again: an administrator's way to put a volume or a snapshot aside
//! without losing it, and to give it to another project.
//!
//! What is not managed stays in the engine, under the id it had, with its copies and its room. Who takes it over gets a
//! clone of it, which shares its blocks, and the original goes.

use cairn_gateway::{ApiError, ApiResult, Caller};
use cairn_shards::model::VolumeSpec;
use cairn_shards::volumes;
use cairn_state::{Abort, Tx};

use crate::create::{self, NewSnapshot, NewVolume, Source};
use crate::model::{BY_VOLUME, Metadata, Snapshot, Status, Unmanaged, Volume};
use crate::quota::{self, Delta};
use crate::{capacity, elsewhere, lifecycle};

/// Lets go of a volume. What it is to others must have ended.
pub fn release_volume(tx: &mut Tx, volume: &Volume) -> ApiResult<()> {
    if volume.status != Status::Available || !volume.made || !volume.attachments.is_empty() {
        return Err(ApiError::bad_request(format!(
            "Invalid volume: Volume {} status must be available to be unmanaged, but current status is: {}.",
            volume.id,
            volume.status.name()
        )));
    }
    if volume.key.is_some() {
        return Err(ApiError::bad_request("Invalid volume: Unmanaging encrypted volumes is not supported."));
    }
    if volume.group_id.is_some() || !tx.by_index::<Snapshot>(BY_VOLUME, &volume.id)?.is_empty() {
        return Err(ApiError::bad_request(format!(
            "Invalid volume: Volume {} is in a group, or has snapshots.",
            volume.id
        )));
    }
    elsewhere::refuse(&volume.backend, "Unmanaging", &volume.id)?;
    lifecycle::require_no_copying(tx, &volume.id)?;
    quota::refund(tx, &volume.project_id, Delta::volume(volume.size_gb, &volume.type_id))?;
    tx.put(&Unmanaged {
        id: volume.id.clone(),
        of: None,
        size_gb: volume.size_gb,
        node: volume.node.clone(),
        backend: volume.backend.clone(),
        taken_by: None,
    })?;
    tx.delete::<Volume>(&volume.id)?;
    Ok(())
}

/// Lets go of a snapshot.
pub fn release_snapshot(tx: &mut Tx, snapshot: &Snapshot) -> ApiResult<()> {
    if snapshot.status != Status::Available || !snapshot.made || snapshot.group_snapshot_id.is_some() {
        return Err(ApiError::bad_request(format!(
            "Invalid snapshot: Snapshot {} must be available and in no group snapshot to be unmanaged.",
            snapshot.id
        )));
    }
    if tx.get::<VolumeSpec>(&snapshot.id)?.is_some_and(|spec| spec.key.is_some()) {
        return Err(ApiError::bad_request(
            "Invalid snapshot: Unmanaging encrypted snapshots is not supported.",
        ));
    }
    elsewhere::refuse(&snapshot.backend, "Unmanaging a snapshot of", &snapshot.volume_id)?;
    lifecycle::require_no_copying(tx, &snapshot.id)?;
    quota::refund(tx, &snapshot.project_id, Delta::snapshot(snapshot.size_gb, &snapshot.type_id))?;
    let backend = tx.get::<Volume>(&snapshot.volume_id)?.map(|v| v.backend);
    tx.put(&Unmanaged {
        id: snapshot.id.clone(),
        of: Some(snapshot.volume_id.clone()),
        size_gb: snapshot.size_gb,
        node: snapshot.node.clone(),
        backend: backend.unwrap_or_else(|| capacity::BACKEND.into()),
        taken_by: None,
    })?;
    tx.delete::<Snapshot>(&snapshot.id)?;
    Ok(())
}

/// What is there under this id to be taken over, a volume or a snapshot of one.
pub fn find(tx: &mut Tx, id: &str, of: Option<&str>) -> ApiResult<Unmanaged> {
    let found = tx.get::<Unmanaged>(id)?.filter(|u| u.of.as_deref() == of && u.taken_by.is_none());
    let spec = tx.get::<VolumeSpec>(id)?.filter(|s| !s.deleted);
    found.filter(|_| spec.is_some()).ok_or_else(|| {
        ApiError::bad_request(format!(
            "Failed to manage existing content {id}: there is none of that id that is not managed."
        ))
    })
}

/// What a volume or snapshot that takes content over shall be.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Its name.
    pub name: Option<String>,
    /// Its description.
    pub description: Option<String>,
    /// The user's own notes.
    pub metadata: Metadata,
    /// The id or name of a volume's type.
    pub volume_type: Option<String>,
    /// Whether a server can start from a volume.
    pub bootable: bool,
}

/// Makes a volume of content that was not managed.
pub fn take_volume(tx: &mut Tx, caller: &Caller, found: Unmanaged, wanted: Wanted) -> ApiResult<Volume> {
    let volume = NewVolume {
        name: wanted.name,
        description: wanted.description,
        size_gb: Some(found.size_gb),
        volume_type: wanted.volume_type,
        metadata: wanted.metadata,
        node: Some(found.node.clone()),
        ..NewVolume::of(Source::Kept(Box::new(found.clone())))
    };
    let mut volume = create::volume(tx, caller, volume)?;
    if volume.backend != found.backend {
        return Err(ApiError::bad_request(format!(
            "Failed to manage existing content {}: it is in the backend {}, which its type does not mean.",
            found.id, found.backend
        )));
    }
    volume.bootable = wanted.bootable;
    tx.put(&volume)?;
    give(tx, found, &volume.id)?;
    Ok(volume)
}

/// Makes a snapshot of content that was not managed. It goes on being one of the volume that it was of.
pub fn take_snapshot(
    tx: &mut Tx,
    caller: &Caller,
    volume: &Volume,
    found: Unmanaged,
    wanted: Wanted,
) -> ApiResult<Snapshot> {
    let new = NewSnapshot {
        name: wanted.name,
        description: wanted.description,
        metadata: wanted.metadata,
        force: true,
        content: Some((found.id.clone(), found.size_gb)),
        ..NewSnapshot::default()
    };
    let snapshot = create::snapshot(tx, caller, volume, new)?;
    give(tx, found, &snapshot.id)?;
    Ok(snapshot)
}

/// The original goes: the engine waits with that until the clone is made.
fn give(tx: &mut Tx, mut found: Unmanaged, to: &str) -> Result<(), Abort> {
    volumes::delete(tx, &found.id)?;
    found.taken_by = Some(to.to_owned());
    tx.put(&found)
}

/// Forgets content that was taken over once it is gone. False if there is nothing to do yet.
pub fn advance(tx: &mut Tx, id: &str) -> Result<bool, Abort> {
    let Some(found) = tx.get::<Unmanaged>(id)?.filter(|u| u.taken_by.is_some()) else { return Ok(false) };
    if !volumes::purge_if_gone(tx, id)? {
        return Ok(false);
    }
    elsewhere::release(tx, &found.backend, &found.node, found.size_gb)?;
    tx.delete::<Unmanaged>(id)
}
