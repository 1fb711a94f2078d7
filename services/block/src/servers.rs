//! What compute does with volumes, inside its own transaction: root disks, volumes to start from, attaching and
//! detaching.
//!
//! An attachment made here exports the volume to the server's node; only the functions here end it.

use cairn_gateway::{ApiError, ApiResult, Caller};
use cairn_image::Image;
use cairn_shards::volumes;
use cairn_state::{Abort, Tx, record};
use jiff::Timestamp;

use crate::create::{self, NewVolume, Source};
use crate::lifecycle;
use crate::model::{AttachedBy, Attachment, BY_NEWS, BY_SERVER, BY_VOLUME, GROWN, Snapshot, Status, Volume};
use crate::qos;

/// What compute needs to know of a volume that was given to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachInfo {
    /// The volume.
    pub volume_id: String,
    /// The attachment.
    pub attachment_id: String,
    /// The volume's size in GiB.
    pub size_gb: u64,
    /// The epoch under which the storage agent serves it.
    pub epoch: u64,
    /// Whether the guest must be given it read-only.
    pub read_only: bool,
}

/// Makes a server's root disk from an image: a volume that no list shows, exported to the server at once.
pub fn create_root(
    tx: &mut Tx,
    caller: &Caller,
    image: &Image,
    size_gb: u64,
    server_id: &str,
    node: &str,
) -> ApiResult<String> {
    let mut wanted = NewVolume::of(Source::Image(Box::new(image.clone())));
    wanted.hidden = true;
    wanted.name = Some(format!("root disk of {server_id}"));
    wanted.size_gb = Some(size_gb.max(image.disk_gb_min()));
    create_attached(tx, caller, wanted, server_id, node, None).map(|info| info.volume_id)
}

/// Grows a server's root disk; one that is as large already is left as it is.
pub fn grow_root(tx: &mut Tx, volume_id: &str, to_gb: u64) -> ApiResult<()> {
    match tx.get::<Volume>(volume_id)? {
        Some(volume) if volume.size_gb >= to_gb => Ok(()),
        Some(mut volume) if volume.status == Status::InUse => lifecycle::extend(tx, &mut volume, to_gb),
        Some(volume) => Err(wrong_status(&volume, "in-use")),
        None => Err(ApiError::not_found("Volume", volume_id)),
    }
}

/// Makes an empty disk of a server that no list shows (ephemeral or swap space), exported to it at once.
pub fn create_blank(
    tx: &mut Tx,
    caller: &Caller,
    size_gb: u64,
    server_id: &str,
    node: &str,
) -> ApiResult<String> {
    let mut wanted = NewVolume::of(Source::Empty);
    wanted.hidden = true;
    wanted.name = Some(format!("disk of {server_id}"));
    wanted.size_gb = Some(size_gb.max(1));
    create_attached(tx, caller, wanted, server_id, node, None).map(|info| info.volume_id)
}

/// Makes any volume and gives it to a server at once: it is `attaching` until compute says [`attached`].
pub fn create_attached(
    tx: &mut Tx,
    caller: &Caller,
    mut wanted: NewVolume,
    server_id: &str,
    node: &str,
    device: Option<&str>,
) -> ApiResult<AttachInfo> {
    wanted.node = Some(node.to_owned());
    let mut volume = create::volume(tx, caller, wanted)?;
    give(tx, &mut volume, server_id, node, device)
}

/// Gives an available volume to a server: `available` becomes `attaching`.
pub fn reserve(
    tx: &mut Tx,
    caller: &Caller,
    volume_id: &str,
    server_id: &str,
    node: &str,
    device: Option<&str>,
) -> ApiResult<AttachInfo> {
    let mut volume = visible(tx, caller, volume_id)?;
    caller.require_writer()?;
    if volume.status != Status::Available || !volume.made {
        return Err(wrong_status(&volume, "available"));
    }
    give(tx, &mut volume, server_id, node, device)
}

fn give(
    tx: &mut Tx,
    volume: &mut Volume,
    server_id: &str,
    node: &str,
    device: Option<&str>,
) -> ApiResult<AttachInfo> {
    let epoch = volumes::export(tx, &volume.id, node, server_id)?;
    qos::impose(tx, volume)?;
    let attachment = Attachment {
        id: uuid::Uuid::new_v4().to_string(),
        server_id: server_id.into(),
        host: Some(node.into()),
        device: device.map(str::to_owned),
        attached_at: Timestamp::now(),
        by: AttachedBy::Server,
    };
    let info = AttachInfo {
        volume_id: volume.id.clone(),
        attachment_id: attachment.id.clone(),
        size_gb: volume.size_gb,
        epoch,
        read_only: volume.read_only,
    };
    volume.attachments = vec![attachment];
    volume.become_status(Status::Attaching);
    tx.put(volume)?;
    Ok(info)
}

/// The server has it: `attaching` becomes `in-use`. Saying so again changes nothing.
pub fn attached(tx: &mut Tx, volume_id: &str, server_id: &str) -> Result<(), Abort> {
    step(tx, volume_id, server_id, Status::Attaching, Status::InUse)
}

/// The user wants it back: `in-use` becomes `detaching`. The server keeps it until compute says [`detached`].
pub fn begin_detach(tx: &mut Tx, caller: &Caller, volume_id: &str, server_id: &str) -> ApiResult<()> {
    let volume = visible(tx, caller, volume_id)?;
    caller.require_writer()?;
    if !is_attached(&volume, server_id) {
        return Err(ApiError::not_found("Volume attachment of volume", volume_id));
    }
    if volume.status != Status::InUse {
        return Err(wrong_status(&volume, "in-use"));
    }
    Ok(step(tx, volume_id, server_id, Status::InUse, Status::Detaching)?)
}

fn step(tx: &mut Tx, volume_id: &str, server_id: &str, from: Status, to: Status) -> Result<(), Abort> {
    match tx.get::<Volume>(volume_id)? {
        Some(mut volume) if volume.status == from && is_attached(&volume, server_id) => {
            volume.become_status(to);
            tx.put(&volume)
        }
        _ => Ok(()),
    }
}

/// The server no longer has it: the export ends, and it is `available`. For a volume that is not this server's
/// (any more) nothing changes.
pub fn detached(tx: &mut Tx, volume_id: &str, server_id: &str) -> Result<(), Abort> {
    let Some(mut volume) = tx.get::<Volume>(volume_id)? else { return Ok(()) };
    if !is_attached(&volume, server_id) {
        return Ok(());
    }
    volumes::unexport(tx, volume_id)?;
    volume.attachments.clear();
    match volume.status {
        Status::Deleting => {}
        // It is available once that is done.
        Status::Extending | Status::Uploading | Status::BackingUp => volume.before = Some(Status::Available),
        _ if volume.made => volume.become_status(Status::Available),
        _ => volume.become_status(Status::Creating),
    }
    tx.put(&volume)
}

/// Takes a volume from its server and ends it (a root disk, or one that goes with its server). One that lists
/// show and that has snapshots stays, available. Repeating it, or ending what is not there, changes nothing.
pub fn delete_root(tx: &mut Tx, volume_id: &str) -> Result<(), Abort> {
    let Some(mut volume) = tx.get::<Volume>(volume_id)? else { return Ok(()) };
    if volume.status == Status::Deleting {
        return Ok(());
    }
    if !volume.hidden && !tx.by_index::<Snapshot>(BY_VOLUME, volume_id)?.is_empty() {
        let owner = volume.attachments.first().map(|a| a.server_id.clone());
        return owner.map_or(Ok(()), |server| detached(tx, volume_id, &server));
    }
    lifecycle::end_volume(tx, &mut volume)
}

/// Where a volume is listed while servers are to be told that it has grown.
pub fn grown_prefix() -> String {
    record::index_prefix::<Volume>(BY_NEWS, GROWN)
}

/// The volumes that have grown while servers had them.
pub fn grown(tx: &mut Tx) -> Result<Vec<Volume>, Abort> {
    tx.by_index::<Volume>(BY_NEWS, GROWN)
}

/// The servers that have a volume which has grown; each is named once only.
pub fn take_grown(tx: &mut Tx, volume_id: &str) -> Result<Vec<String>, Abort> {
    let Some(mut volume) = tx.get::<Volume>(volume_id)?.filter(|v| v.grown) else { return Ok(Vec::new()) };
    volume.grown = false;
    tx.put(&volume)?;
    let servers = volume.attachments.into_iter().filter(|a| a.by == AttachedBy::Server);
    Ok(servers.map(|a| a.server_id).collect())
}

/// The volumes a server has, root disks included.
pub fn volumes_of(tx: &mut Tx, server_id: &str) -> Result<Vec<Volume>, Abort> {
    tx.by_index::<Volume>(BY_SERVER, server_id)
}

/// The volume with this id, if the caller may see it; 404 otherwise.
pub fn visible(tx: &mut Tx, caller: &Caller, id: &str) -> ApiResult<Volume> {
    tx.get::<Volume>(id)?
        .filter(|v| !v.hidden && caller.sees(&v.project_id))
        .ok_or_else(|| ApiError::not_found("Volume", id))
}

fn is_attached(volume: &Volume, server_id: &str) -> bool {
    volume.attachments.iter().any(|a| a.server_id == server_id && a.by == AttachedBy::Server)
}

fn wrong_status(volume: &Volume, wanted: &str) -> ApiError {
    ApiError::bad_request(format!(
        "Invalid volume: Volume {} status must be {wanted}, but current status is: {}.",
        volume.id,
        volume.status.name()
    ))
}
