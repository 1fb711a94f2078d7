//! Content that comes under another key, or out of one, because its volume's type changes: it is frozen by a clone, goes,
//! and is made anew of the clone, which goes last. So there is a whole copy of it at any moment.

use cairn_gateway::{ApiError, ApiResult};
use cairn_shards::crypt::keys;
use cairn_shards::model::{Phase, VolumeSpec};
use cairn_shards::volumes;
use cairn_state::{Abort, Tx};

use crate::model::{BY_VOLUME, GIB, Retype, Snapshot, Status, Volume, VolumeType};
use crate::{capacity, lifecycle};

/// Whether a type's volumes are encrypted and this one is not, or the other way round.
pub fn changes_key(volume: &Volume, wanted: &VolumeType) -> bool {
    volume.key.is_some() != wanted.encryption.is_some()
}

/// Begins it, in [`Status::Retyping`].
pub fn begin(tx: &mut Tx, volume: &mut Volume, wanted: &VolumeType) -> ApiResult<()> {
    if volume.status != Status::Available || !volume.made || !volume.attachments.is_empty() {
        return Err(ApiError::bad_request(format!(
            "Invalid volume: Volume {} must be available to come under another encryption, but its status is: {}.",
            volume.id,
            volume.status.name()
        )));
    }
    if volume.group_id.is_some() || !tx.by_index::<Snapshot>(BY_VOLUME, &volume.id)?.is_empty() {
        return Err(ApiError::bad_request(format!(
            "Invalid volume: Volume {} is in a group or has snapshots, which would stay under the old encryption.",
            volume.id
        )));
    }
    lifecycle::require_no_copying(tx, &volume.id)?;
    let copy = uuid::Uuid::new_v4().to_string();
    let spec = VolumeSpec::new(&copy, &volume.node, volume.size_gb * GIB);
    let copies = capacity::copies(&volume.backend);
    volumes::create(tx, VolumeSpec { source: Some(volume.id.clone()), read_only: true, copies, ..spec })?;
    let key = wanted.encryption.as_ref().map(|_| keys::generate(tx)).transpose()?;
    volume.retype = Some(Retype { copy, key });
    volume.become_status(Status::Retyping);
    Ok(())
}

/// Moves it on; false if there is nothing to do yet.
pub fn advance(tx: &mut Tx, volume: &mut Volume) -> Result<bool, Abort> {
    let Some(Retype { copy, key }) = volume.retype.clone() else { return Ok(false) };
    let frozen = volumes::status(tx, &copy)?.is_some_and(|s| s.phase == Phase::Ready);
    if volume.status == Status::Retyping && volume.key != key && frozen {
        volume.key = key;
        lifecycle::refill(tx, volume, &copy, Status::Retyping)?;
        return Ok(true);
    }
    if !volume.made || volume.status == Status::Retyping {
        return Ok(false);
    }
    volumes::delete(tx, &copy)?;
    if !volumes::purge_if_gone(tx, &copy)? {
        return Ok(false);
    }
    volume.retype = None;
    tx.put(volume)?;
    Ok(true)
}

/// Ends what is left of it, with its volume. True if nothing is.
pub fn end(tx: &mut Tx, volume: &Volume) -> Result<bool, Abort> {
    let Some(Retype { copy, .. }) = &volume.retype else { return Ok(true) };
    volumes::delete(tx, copy)?;
    volumes::purge_if_gone(tx, copy)
}
