//! The block storage service's own work: moving volumes and snapshots on when the storage agents report, and
//! dropping the records of what they have destroyed.
//!
//! It is driven by state: each pass reads the (short) index of records that wait for something.

use std::sync::Arc;

use cairn_image::model::{INDEX_WORK, Image, WORK_SAVING};
use cairn_shards::backup::{BackupStatus, RestoreStatus};
use cairn_shards::model::VolumeStatus;
use cairn_state::{Abort, conduct, record};
use jiff::Timestamp;

use crate::Service;
use crate::model::{BUSY, BY_WORK, Backup, Message, Snapshot, Unmanaged, Volume};
use crate::{backups, lifecycle, messages, unmanaged};

/// Runs for ever.
pub async fn conductor(svc: Arc<Service>) {
    let prefixes = [
        record::index_prefix::<Volume>(BY_WORK, BUSY),
        record::index_prefix::<Snapshot>(BY_WORK, BUSY),
        record::index_prefix::<Image>(INDEX_WORK, WORK_SAVING),
        record::index_prefix::<Backup>(BY_WORK, BUSY),
        record::index_prefix::<Unmanaged>(BY_WORK, BUSY),
        record::prefix::<VolumeStatus>(),
        record::prefix::<BackupStatus>(),
        record::prefix::<RestoreStatus>(),
    ];
    // All messages are looked at: not with each change of a volume.
    let told = [record::prefix::<Message>()];
    let forget = || svc.store.transact(|tx| messages::forget_old(tx, Timestamp::now()));
    tokio::join!(
        conduct(&svc.store, "block storage", &prefixes, || pass(&svc)),
        conduct(&svc.store, "messages of block storage", &told, forget),
    );
}

/// Moves on what can be moved on now. One record in trouble does not hold up the others.
async fn pass(svc: &Arc<Service>) -> Result<(), Abort> {
    let mut failed = None;
    for volume in svc.store.read(|tx| tx.by_index::<Volume>(BY_WORK, BUSY))? {
        if let Err(e) = svc.store.transact(|tx| lifecycle::advance_volume(tx, &volume.id)).await {
            failed = Some(e);
        }
    }
    for snapshot in svc.store.read(|tx| tx.by_index::<Snapshot>(BY_WORK, BUSY))? {
        if let Err(e) = svc.store.transact(|tx| lifecycle::advance_snapshot(tx, &snapshot.id)).await {
            failed = Some(e);
        }
    }
    for backup in svc.store.read(|tx| tx.by_index::<Backup>(BY_WORK, BUSY))? {
        if let Err(e) = svc.store.transact(|tx| backups::advance(tx, &backup.id)).await {
            failed = Some(e);
        }
    }
    for kept in svc.store.read(|tx| tx.by_index::<Unmanaged>(BY_WORK, BUSY))? {
        if let Err(e) = svc.store.transact(|tx| unmanaged::advance(tx, &kept.id)).await {
            failed = Some(e);
        }
    }
    failed.map_or(Ok(()), Err)
}
