//! Backups of volumes: copies of their content that outlive them, whole or what changed since an earlier one.
//!
//! Functions of an open transaction; the API and the conductor call them. A volume is frozen by a clone first (a snapshot
//! is frozen already), which the storage agent then copies. A restore makes a read-only volume of the backup, and the
//! wanted one is a clone of that, so that a volume which is restored has its old content until the new one is whole.

use cairn_gateway::{ApiError, ApiResult, Caller};
use cairn_shards::backup::{self, Restored};
use cairn_shards::model::{Phase, VolumeSpec};
use cairn_shards::volumes;
use cairn_state::{Abort, Tx};
use jiff::Timestamp;

use crate::create::{self, NewVolume, Source};
use crate::model::{
    BY_CONTENT, BY_PARENT, BY_VOLUME, Backup, Described, GIB, Metadata, Restore, Snapshot, Status, Volume,
};
use crate::quota::{self, Delta};
use crate::servers::visible;
use crate::{capacity, elsewhere, lifecycle};

/// What a new backup shall be.
#[derive(Debug, Clone, Default)]
pub struct NewBackup {
    /// The volume.
    pub volume_id: String,
    /// The snapshot of it, if not the volume as it is now.
    pub snapshot_id: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Its description.
    pub description: Option<String>,
    /// The user's own notes.
    pub metadata: Metadata,
    /// Where the user wants it.
    pub container: Option<String>,
    /// Whether it continues the last one.
    pub incremental: bool,
    /// Whether the volume may be in use.
    pub force: bool,
}

/// The backup with this id, if the caller may see it; 404 otherwise.
pub fn find(tx: &mut Tx, caller: &Caller, id: &str) -> ApiResult<Backup> {
    let found = tx.get::<Backup>(id)?.filter(|b| caller.sees(&b.project_id));
    found.ok_or_else(|| ApiError::not_found("Backup", id))
}

/// Whether another backup continues this one.
pub fn is_continued(tx: &mut Tx, id: &str) -> Result<bool, Abort> {
    Ok(!tx.by_index::<Backup>(BY_PARENT, id)?.is_empty())
}

/// Begins a backup, in [`Status::Creating`].
pub fn create(tx: &mut Tx, caller: &Caller, wanted: NewBackup) -> ApiResult<Backup> {
    let mut volume = visible(tx, caller, &wanted.volume_id)?;
    caller.require_writer()?;
    elsewhere::refuse(&volume.backend, "A backup of", &volume.id)?;
    let mut backup = Backup {
        id: uuid::Uuid::new_v4().to_string(),
        project_id: caller.require_writer()?.to_owned(),
        user_id: caller.user_id.clone(),
        name: wanted.name,
        description: wanted.description,
        volume_id: volume.id.clone(),
        snapshot_id: wanted.snapshot_id,
        size_gb: volume.size_gb,
        status: Status::Creating,
        fail_reason: None,
        parent: None,
        metadata: wanted.metadata,
        container: wanted.container,
        content: String::new(),
        node: None,
        made: false,
        frozen: false,
        objects: 0,
        of: Described {
            metadata: volume.metadata.clone(),
            image_metadata: volume.image_metadata.clone(),
            bootable: volume.bootable,
            type_id: volume.type_id.clone(),
            key: volume.key.clone(),
        },
        restore: None,
        created_at: Timestamp::now(),
        updated_at: None,
        data_timestamp: Timestamp::now(),
    };
    backup.content.clone_from(&backup.id);
    if wanted.incremental {
        backup.parent = Some(last(tx, &volume.id, &backup.project_id)?);
    }
    match backup.snapshot_id.clone() {
        Some(id) => hold(tx, caller, &volume, &id, &mut backup)?,
        None => freeze(tx, &mut volume, wanted.force, &mut backup)?,
    }
    quota::charge(tx, &backup.project_id, Delta::backup(backup.size_gb))?;
    tx.put(&backup)?;
    Ok(backup)
}

/// The backup that another one of the volume would continue.
fn last(tx: &mut Tx, volume_id: &str, project: &str) -> ApiResult<String> {
    let all = tx.by_index::<Backup>(BY_VOLUME, volume_id)?;
    let whole = all.into_iter().filter(|b| b.status == Status::Available && b.project_id == project);
    whole.max_by_key(|b| b.data_timestamp).map(|b| b.id).ok_or_else(|| {
        ApiError::bad_request(
            "Invalid backup: No backups available to do an incremental backup: make a full one first.",
        )
    })
}

/// Makes a copy of the volume as it is now, under the backup's id.
fn freeze(tx: &mut Tx, volume: &mut Volume, force: bool, backup: &mut Backup) -> ApiResult<()> {
    let fit = volume.status == Status::Available || (volume.status == Status::InUse && force);
    if !fit || !volume.made {
        return Err(ApiError::bad_request(format!(
            "Invalid volume: Volume {} to be backed up must be available, or in-use with force, but the current \
             status is: {}.",
            volume.id,
            volume.status.name()
        )));
    }
    let spec = VolumeSpec::new(&backup.id, &volume.node, volume.size_gb * GIB);
    let copies = capacity::copies(&volume.backend);
    volumes::create(tx, VolumeSpec { source: Some(volume.id.clone()), read_only: true, copies, ..spec })?;
    backup.frozen = true;
    volume.before = Some(volume.status);
    volume.become_status(Status::BackingUp);
    Ok(tx.put(volume)?)
}

/// Keeps a snapshot as it is until it was copied.
fn hold(tx: &mut Tx, caller: &Caller, volume: &Volume, id: &str, backup: &mut Backup) -> ApiResult<()> {
    let mut snapshot = tx
        .get::<Snapshot>(id)?
        .filter(|s| caller.sees(&s.project_id))
        .ok_or_else(|| ApiError::not_found("Snapshot", id))?;
    if snapshot.volume_id != volume.id || snapshot.status != Status::Available {
        return Err(ApiError::bad_request(format!(
            "Invalid snapshot: Snapshot {id} must be one of volume {} and available, but its status is: {}.",
            volume.id,
            snapshot.status.name()
        )));
    }
    backup.size_gb = snapshot.size_gb;
    backup.data_timestamp = snapshot.created_at;
    snapshot.status = Status::BackingUp;
    Ok(tx.put(&snapshot)?)
}

/// Gives the volume or snapshot back that a backup was made of.
fn let_go(tx: &mut Tx, backup: &Backup) -> Result<(), Abort> {
    if let Some(id) = &backup.snapshot_id {
        if let Some(mut snapshot) = tx.get::<Snapshot>(id)?.filter(|s| s.status == Status::BackingUp) {
            snapshot.status = Status::Available;
            tx.put(&snapshot)?;
        }
        return Ok(());
    }
    if let Some(mut volume) = tx.get::<Volume>(&backup.volume_id)?.filter(|v| v.status == Status::BackingUp) {
        let before = volume.before.take().unwrap_or(Status::Available);
        volume.become_status(before);
        tx.put(&volume)?;
    }
    Ok(())
}

/// Asks for a backup's end.
pub fn delete(tx: &mut Tx, backup: &mut Backup, force: bool) -> ApiResult<()> {
    let ended = matches!(backup.status, Status::Available | Status::Error | Status::ErrorDeleting);
    if !ended && !force {
        return Err(ApiError::bad_request(format!(
            "Invalid backup: Backup status must be available or error, but current status is: {}.",
            backup.status.name()
        )));
    }
    if is_continued(tx, &backup.id)? {
        return Err(ApiError::bad_request(
            "Invalid backup: Incremental backups exist for this backup: delete them first.",
        ));
    }
    if backup.restore.as_ref().is_some_and(|r| !r.over) {
        return Err(ApiError::bad_request("Invalid backup: it is being restored."));
    }
    let_go(tx, backup)?;
    if backup.frozen {
        volumes::delete(tx, &backup.id)?;
    }
    // Another record with the same content, of an import, keeps it.
    if tx.by_index::<Backup>(BY_CONTENT, &backup.content)?.len() == 1 {
        backup::delete(tx, &backup.content)?;
    }
    backup.status = Status::Deleting;
    backup.updated_at = Some(Timestamp::now());
    Ok(tx.put(backup)?)
}

/// Begins to put a backup into a volume: the one given, whose content goes, or a new one.
pub fn restore(
    tx: &mut Tx,
    caller: &Caller,
    backup: &mut Backup,
    volume_id: Option<&str>,
    name: Option<String>,
) -> ApiResult<Volume> {
    caller.require_writer()?;
    let node = require_restorable(backup)?;
    let volume = match volume_id {
        Some(id) => overwrite(tx, caller, id, backup)?,
        None => {
            let name = name.unwrap_or_else(|| format!("restore_backup_{}", backup.id));
            let wanted = NewVolume {
                name: Some(name),
                metadata: backup.of.metadata.clone(),
                ..NewVolume::of(Source::Empty)
            };
            make(tx, caller, backup, wanted)?
        }
    };
    put_into(tx, backup, &volume.id, &node)?;
    Ok(volume)
}

/// Makes a volume of a backup, as else of an image.
pub fn restore_as(tx: &mut Tx, caller: &Caller, id: &str, wanted: NewVolume) -> ApiResult<Volume> {
    let mut backup = find(tx, caller, id)?;
    let node = require_restorable(&backup)?;
    let volume = make(tx, caller, &backup, wanted)?;
    put_into(tx, &mut backup, &volume.id, &node)?;
    Ok(volume)
}

/// The node that has the backup.
fn require_restorable(backup: &Backup) -> ApiResult<String> {
    let node = backup.node.clone().filter(|_| backup.status == Status::Available && backup.restore.is_none());
    node.ok_or_else(|| {
        ApiError::bad_request(format!(
            "Invalid backup: Backup status must be available, but current status is: {}.",
            backup.status.name()
        ))
    })
}

fn put_into(tx: &mut Tx, backup: &mut Backup, volume_id: &str, node: &str) -> Result<(), Abort> {
    let content = uuid::Uuid::new_v4().to_string();
    backup::restore(tx, &content, &backup.content, node, backup.of.key.clone())?;
    let restore =
        Restore { volume_id: volume_id.to_owned(), content, whole: false, given: false, over: false };
    backup.restore = Some(restore);
    backup.status = Status::Restoring;
    backup.updated_at = Some(Timestamp::now());
    tx.put(backup)
}

/// A volume whose content will be a backup's, with all that is known of the backup's volume.
fn make(tx: &mut Tx, caller: &Caller, backup: &Backup, wanted: NewVolume) -> ApiResult<Volume> {
    let size_gb = wanted.size_gb.unwrap_or(backup.size_gb);
    if size_gb < backup.size_gb {
        return Err(ApiError::bad_request(format!(
            "Invalid input received: the volume's size of {size_gb} GiB is smaller than its backup's, {} GiB.",
            backup.size_gb
        )));
    }
    let mut wanted = NewVolume { size_gb: Some(size_gb), content_comes: true, ..wanted };
    if backup.of.key.is_some() && wanted.volume_type.is_none() {
        // Another type would have it in plaintext.
        wanted.volume_type = Some(backup.of.type_id.clone());
    }
    let mut volume = create::volume(tx, caller, wanted)?;
    require_secret(backup, &volume)?;
    volume.bootable = backup.of.bootable;
    volume.image_metadata.clone_from(&backup.of.image_metadata);
    tx.put(&volume)?;
    Ok(volume)
}

/// Refuses to put what was encrypted where it would lie in plaintext.
fn require_secret(backup: &Backup, volume: &Volume) -> ApiResult<()> {
    if backup.of.key.is_none() || volume.key.is_some() {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "Invalid volume: Backup {} is of an encrypted volume: it is restored to one of an encrypted type.",
        backup.id
    )))
}

fn overwrite(tx: &mut Tx, caller: &Caller, id: &str, backup: &Backup) -> ApiResult<Volume> {
    let mut volume = visible(tx, caller, id)?;
    elsewhere::refuse(&volume.backend, "Restoring a backup into", id)?;
    if volume.status != Status::Available || !volume.attachments.is_empty() {
        return Err(ApiError::bad_request(format!(
            "Invalid volume: Volume to be restored to must be available, but current status is: {}.",
            volume.status.name()
        )));
    }
    if volume.size_gb < backup.size_gb {
        return Err(ApiError::bad_request(format!(
            "Invalid volume: volume size {} is too small to restore backup of size {}.",
            volume.size_gb, backup.size_gb
        )));
    }
    require_secret(backup, &volume)?;
    lifecycle::require_no_copying(tx, id)?;
    volume.bootable = backup.of.bootable;
    volume.become_status(Status::RestoringBackup);
    tx.put(&volume)?;
    Ok(volume)
}

/// Moves a backup on by what is known of its content. False if there is nothing to do yet.
pub fn advance(tx: &mut Tx, id: &str) -> Result<bool, Abort> {
    let Some(mut backup) = tx.get::<Backup>(id)? else { return Ok(false) };
    let before = backup.clone();
    if backup.status == Status::Deleting {
        return purge(tx, &backup);
    }
    if backup.status == Status::Creating && !backup.made {
        advance_copy(tx, &mut backup)?;
    }
    if backup.frozen && backup.status != Status::Creating && volumes::purge_if_gone(tx, id)? {
        backup.frozen = false;
    }
    if let Some(restore) = backup.restore.clone() {
        backup.restore = advance_restore(tx, &mut backup, restore)?;
    }
    if backup == before {
        return Ok(false);
    }
    backup.updated_at = Some(Timestamp::now());
    tx.put(&backup)?;
    Ok(true)
}

/// The copy of what is frozen: asked for where all of that is, then followed.
fn advance_copy(tx: &mut Tx, backup: &mut Backup) -> Result<(), Abort> {
    let source = backup.snapshot_id.clone().unwrap_or_else(|| backup.id.clone());
    if backup.node.is_none() {
        let seen = volumes::status(tx, &source)?;
        return match seen.map(|s| (s.phase, s.error)) {
            Some((Phase::Ready, _)) => begin_copy(tx, backup, &source),
            Some((Phase::Failed, why)) => {
                fail(tx, backup, why.unwrap_or_else(|| "the volume could not be frozen".into()))
            }
            _ => Ok(()),
        };
    }
    let Some(status) = backup::status(tx, &backup.content)? else { return Ok(()) };
    match status.phase {
        Phase::Ready => {
            backup.made = true;
            backup.objects = status.chunks;
            backup.status = Status::Available;
            thaw(tx, backup)
        }
        Phase::Failed => fail(tx, backup, status.error.unwrap_or_else(|| "the storage agent failed".into())),
        Phase::Creating | Phase::Gone => Ok(()),
    }
}

/// A backup that continues another lies where that is; it waits until the frozen content is there too.
fn begin_copy(tx: &mut Tx, backup: &mut Backup, source: &str) -> Result<(), Abort> {
    let parent = match &backup.parent {
        Some(parent) => tx.get::<Backup>(parent)?,
        None => None,
    };
    let wanted = parent.as_ref().and_then(|p| p.node.as_deref());
    let Some(node) = backup::reader(tx, source, wanted)? else { return Ok(()) };
    let parent = parent.as_ref().map(|p| p.content.as_str());
    backup::create(tx, &backup.content, &node, source, parent)?;
    backup.node = Some(node);
    Ok(())
}

fn fail(tx: &mut Tx, backup: &mut Backup, why: String) -> Result<(), Abort> {
    backup.status = Status::Error;
    backup.fail_reason = Some(why);
    thaw(tx, backup)
}

fn thaw(tx: &mut Tx, backup: &Backup) -> Result<(), Abort> {
    let_go(tx, backup)?;
    if backup.frozen { volumes::delete(tx, &backup.id) } else { Ok(()) }
}

/// Forgets a backup once nothing is left of it.
fn purge(tx: &mut Tx, backup: &Backup) -> Result<bool, Abort> {
    let alone = tx.by_index::<Backup>(BY_CONTENT, &backup.content)?.len() == 1;
    if alone && !backup::purge_if_gone(tx, &backup.content)? {
        return Ok(false);
    }
    if backup.frozen && !volumes::purge_if_gone(tx, &backup.id)? {
        return Ok(false);
    }
    if let Some(restore) = &backup.restore
        && !volumes::purge_if_gone(tx, &restore.content)?
    {
        return Ok(false);
    }
    quota::refund(tx, &backup.project_id, Delta::backup(backup.size_gb))?;
    tx.delete::<Backup>(&backup.id)
}

/// The next step of a restore; `None` when nothing is left of it.
fn advance_restore(tx: &mut Tx, backup: &mut Backup, mut restore: Restore) -> Result<Option<Restore>, Abort> {
    if restore.over {
        return Ok((!volumes::purge_if_gone(tx, &restore.content)?).then_some(restore));
    }
    let volume = tx.get::<Volume>(&restore.volume_id)?.filter(|v| v.status != Status::Deleting);
    let Some(mut volume) = volume else {
        backup::abandon_restore(tx, &restore.content)?;
        return Ok(Some(end(backup, restore)));
    };
    if !restore.whole {
        match backup::advance_restore(tx, &restore.content)? {
            Restored::Not => return Ok(Some(restore)),
            Restored::Whole => restore.whole = true,
            Restored::Failed(why) => {
                volume.error = Some(why.clone());
                volume.become_status(Status::ErrorRestoring);
                tx.put(&volume)?;
                backup.fail_reason = Some(why);
                backup::abandon_restore(tx, &restore.content)?;
                return Ok(Some(end(backup, restore)));
            }
        }
    }
    if !restore.given {
        lifecycle::refill(tx, &mut volume, &restore.content, Status::RestoringBackup)?;
        restore.given = true;
    } else if volume.refill.is_none() && volume.made {
        volumes::delete(tx, &restore.content)?;
        return Ok(Some(end(backup, restore)));
    } else if volume.status == Status::Error {
        volume.become_status(Status::ErrorRestoring);
        tx.put(&volume)?;
    }
    Ok(Some(restore))
}

fn end(backup: &mut Backup, restore: Restore) -> Restore {
    if backup.status == Status::Restoring {
        backup.status = Status::Available;
    }
    Restore { over: true, ..restore }
}
