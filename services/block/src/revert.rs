//! A volume that goes back to its latest snapshot. What was written since goes; the snapshot stays.

use cairn_gateway::{ApiError, ApiResult};
use cairn_state::Tx;

use crate::lifecycle;
use crate::model::{BY_VOLUME, Snapshot, Status, Volume};

fn invalid(text: String) -> ApiError {
    ApiError::bad_request(format!("Invalid volume: {text}"))
}

/// Begins it, in [`Status::Reverting`].
pub fn begin(tx: &mut Tx, volume: &mut Volume, snapshot_id: &str) -> ApiResult<()> {
    let snapshots = tx.by_index::<Snapshot>(BY_VOLUME, &volume.id)?;
    let latest = snapshots.into_iter().max_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
    let Some(latest) = latest else {
        return Err(invalid(format!("Volume {} has no snapshot.", volume.id)));
    };
    if latest.id != snapshot_id {
        return Err(invalid(format!(
            "Can't revert volume {} to snapshot {snapshot_id}: its latest one is {}.",
            volume.id, latest.id
        )));
    }
    if volume.size_gb != latest.size_gb {
        return Err(invalid(format!(
            "Can't revert volume {} to its latest snapshot {}. The volume size must be equal to the snapshot size.",
            volume.id, latest.id
        )));
    }
    if volume.status != Status::Available || !volume.attachments.is_empty() {
        return Err(invalid(format!(
            "Can't revert volume {}: its status must be available, but is: {}.",
            volume.id,
            volume.status.name()
        )));
    }
    if latest.status != Status::Available {
        return Err(ApiError::bad_request(format!(
            "Invalid snapshot: Can't revert volume {} to its latest snapshot {}: that must be available, but is: {}.",
            volume.id,
            latest.id,
            latest.status.name()
        )));
    }
    lifecycle::require_no_copying(tx, &volume.id)?;
    Ok(lifecycle::refill(tx, volume, &latest.id, Status::Reverting)?)
}
