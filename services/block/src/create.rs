//! Making volumes and snapshots: one transaction that checks the source, counts the quota, promises the room,
//! asks the engine for the content and writes the record.

use axum::http::StatusCode;
use cairn_gateway::{ApiError, ApiResult, Caller};
use cairn_image::Image;
use cairn_shards::model::VolumeSpec;
use cairn_shards::volumes;
use cairn_state::{Abort, Tx};
use jiff::Timestamp;

use crate::messages::{self, Event};
use crate::model::{GIB, Metadata, Snapshot, Status, Unmanaged, Volume, VolumeType};
use crate::quota::{self, Delta};
use crate::{capacity, elsewhere, groups, keys, types};

/// The property of an image that names the type of volumes made of it.
const IMAGE_TYPE: &str = "cinder_img_volume_type";

/// What a new volume begins with.
#[derive(Debug, Clone)]
pub enum Source {
    /// Zeroes.
    Empty,
    /// An image's content.
    Image(Box<Image>),
    /// A snapshot's content.
    Snapshot(Box<Snapshot>),
    /// Another volume's content.
    Volume(Box<Volume>),
    /// What was not managed.
    Kept(Box<Unmanaged>),
}

/// What a new volume shall be.
#[derive(Debug, Clone)]
pub struct NewVolume {
    /// Its name.
    pub name: Option<String>,
    /// Its description.
    pub description: Option<String>,
    /// Its size in GiB; the source's if not given (an image needs it given).
    pub size_gb: Option<u64>,
    /// What it begins with.
    pub source: Source,
    /// The id or name of its type; the default one if not given.
    pub volume_type: Option<String>,
    /// The user's own notes.
    pub metadata: Metadata,
    /// The group it is in.
    pub group_id: Option<String>,
    /// The request that asks for it, if its user looks at the volume for how that went: one that no node can take is
    /// then made in error, and a message says why.
    pub request_id: Option<String>,
    /// The node it must be on, if it matters.
    pub node: Option<String>,
    /// Whether its content is put in later, by a backup's restore.
    pub content_comes: bool,
    /// A server's root disk, which counts for no quota of volumes and is shown in no list.
    pub hidden: bool,
}

impl NewVolume {
    /// A volume with only a source.
    pub fn of(source: Source) -> NewVolume {
        NewVolume {
            name: None,
            description: None,
            size_gb: None,
            source,
            volume_type: None,
            metadata: Metadata::new(),
            group_id: None,
            request_id: None,
            node: None,
            content_comes: false,
            hidden: false,
        }
    }
}

/// Makes a volume, in [`Status::Creating`].
pub fn volume(tx: &mut Tx, caller: &Caller, wanted: NewVolume) -> ApiResult<Volume> {
    let project = caller.require_writer()?.to_owned();
    let size_gb = size(&wanted)?;
    let volume_type = type_of(tx, caller, &wanted)?;
    if let Some(id) = &wanted.group_id {
        groups::require_fit(&groups::find(tx, caller, id)?, &volume_type.id)?;
    }
    if !wanted.hidden {
        quota::check_size(tx, &project, size_gb)?;
        quota::charge(tx, &project, Delta::volume(size_gb, &volume_type.id))?;
    }
    let source = origin(tx, &wanted.source)?;
    let key = keys::of_new(tx, &wanted, &volume_type, source.as_ref())?;
    // Where it is used; else where its source is, with which a clone shares blocks.
    let near = wanted.node.as_deref().or(source.as_ref().map(|s| s.node.as_str()));
    let asked = types::backend(tx, &volume_type)?;
    let backend = asked.as_ref().map_or(capacity::BACKEND, String::as_str).to_owned();
    let is_image = matches!(wanted.source, Source::Image(_));
    elsewhere::require_same(source.as_ref(), is_image, &backend, key.is_some())?;
    if wanted.group_id.is_some() {
        elsewhere::refuse(&backend, "A group with", "of this type")?;
    }
    if wanted.content_comes {
        elsewhere::refuse(&backend, "Restoring a backup into a new", "of this type")?;
    }
    let node = asked
        .and_then(|backend| elsewhere::place(tx, size_gb, near, &backend, !wanted.hidden, source.as_ref()));
    let (node, refused) = match (node, &wanted.request_id) {
        (Ok(node), _) => (node, None),
        (Err(e), Some(request)) if e.status == StatusCode::CONFLICT => {
            (String::new(), Some((e, request.clone())))
        }
        (Err(e), _) => return Err(e),
    };
    let multiattach = types::is_multiattach(&volume_type);
    let mut volume = record(&wanted, caller, project, size_gb, volume_type.id, node, source.map(|s| s.id));
    volume.backend = backend;
    (volume.key, volume.multiattach) = (key, multiattach);
    if let Some((e, request)) = refused {
        volume.status = Status::Error;
        volume.source = None;
        volume.error = Some(e.message.clone());
        messages::tell(tx, &volume, Event::NoBackend, &e.message, &request)?;
        tx.put(&volume)?;
        return Ok(volume);
    }
    if wanted.content_comes {
        volume.status = Status::RestoringBackup;
    } else {
        ask_for(tx, &volume)?;
    }
    tx.put(&volume)?;
    Ok(volume)
}

/// The type of a new volume: the one named; else what its source says.
fn type_of(tx: &mut Tx, caller: &Caller, wanted: &NewVolume) -> ApiResult<VolumeType> {
    let of_image = |image: &Image| image.properties.get(IMAGE_TYPE).cloned();
    let named = match &wanted.source {
        _ if wanted.volume_type.is_some() => wanted.volume_type.clone(),
        Source::Image(image) if !wanted.hidden => of_image(image),
        _ => None,
    };
    if let Some(name) = named {
        return types::find(tx, caller, &name);
    }
    let same = match &wanted.source {
        Source::Volume(v) => types::stored(tx, &v.type_id)?,
        Source::Snapshot(s) => types::stored(tx, &s.type_id)?,
        Source::Empty | Source::Image(_) | Source::Kept(_) => None,
    };
    Ok(match same {
        Some(same) => same,
        None => types::default_type(tx)?,
    })
}

/// The engine's volume that a source stands for; it must be there and stay there.
fn origin(tx: &mut Tx, source: &Source) -> ApiResult<Option<VolumeSpec>> {
    let id = match source {
        Source::Empty => return Ok(None),
        Source::Image(i) => &i.id,
        Source::Snapshot(s) => &s.id,
        Source::Volume(v) => &v.id,
        Source::Kept(k) => &k.id,
    };
    let spec = tx.get::<VolumeSpec>(id)?.filter(|s| !s.deleted);
    spec.map(Some).ok_or_else(|| ApiError::bad_request(format!("The content of {id} is no longer there.")))
}

fn size(wanted: &NewVolume) -> ApiResult<u64> {
    let (least, what) = match &wanted.source {
        Source::Empty => (1, "the least size"),
        Source::Image(i) => (i.disk_gb_min(), "the size its image needs"),
        Source::Snapshot(s) => (s.size_gb, "the size of its snapshot"),
        Source::Volume(v) => (v.size_gb, "the size of its source"),
        Source::Kept(k) => (k.size_gb, "the size it has"),
    };
    let size = match (wanted.size_gb, &wanted.source) {
        (Some(size), _) => size,
        (None, Source::Snapshot(_) | Source::Volume(_)) => least,
        (None, _) => return Err(ApiError::bad_request("Invalid input received: the volume needs a size.")),
    };
    if size < least {
        return Err(ApiError::bad_request(format!(
            "Invalid input received: the volume's size of {size} GiB is smaller than {what}, {least} GiB."
        )));
    }
    Ok(size)
}

fn record(
    wanted: &NewVolume,
    caller: &Caller,
    project_id: String,
    size_gb: u64,
    type_id: String,
    node: String,
    source: Option<String>,
) -> Volume {
    let (bootable, image_metadata) = match &wanted.source {
        Source::Image(image) => (true, describe(image)),
        Source::Volume(v) => (v.bootable, v.image_metadata.clone()),
        Source::Empty | Source::Snapshot(_) | Source::Kept(_) => (false, Metadata::new()),
    };
    let mut volume = Volume {
        id: uuid::Uuid::new_v4().to_string(),
        project_id,
        user_id: caller.user_id.clone(),
        name: wanted.name.clone(),
        description: wanted.description.clone(),
        size_gb,
        status: Status::Creating,
        before: None,
        error: None,
        made: false,
        bootable,
        read_only: false,
        metadata: wanted.metadata.clone(),
        image_metadata,
        type_id,
        group_id: wanted.group_id.clone(),
        node,
        backend: String::new(),
        migrated: false,
        source,
        key: None,
        retype: None,
        multiattach: false,
        refill: None,
        grown: false,
        snapshot_id: None,
        source_volid: None,
        uploading_to: None,
        attachments: Vec::new(),
        hidden: wanted.hidden,
        created_at: Timestamp::now(),
        updated_at: None,
    };
    match &wanted.source {
        Source::Snapshot(s) => volume.snapshot_id = Some(s.id.clone()),
        Source::Volume(v) => volume.source_volid = Some(v.id.clone()),
        Source::Empty | Source::Image(_) | Source::Kept(_) => {}
    }
    volume
}

/// What a volume remembers of its image.
pub fn describe(image: &Image) -> Metadata {
    let mut known = image.properties.clone();
    let texts = [
        ("image_id", Some(image.id.clone())),
        ("image_name", image.name.clone()),
        ("disk_format", image.disk_format.clone()),
        ("container_format", image.container_format.clone()),
        ("checksum", image.checksum.clone()),
        ("size", image.size.map(|s| s.to_string())),
        ("min_disk", Some(image.min_disk.to_string())),
        ("min_ram", Some(image.min_ram.to_string())),
    ];
    known.extend(texts.into_iter().filter_map(|(k, v)| Some((k.to_owned(), v?))));
    known
}

/// What a new snapshot shall be.
#[derive(Debug, Clone, Default)]
pub struct NewSnapshot {
    /// Its name.
    pub name: Option<String>,
    /// Its description.
    pub description: Option<String>,
    /// The user's own notes.
    pub metadata: Metadata,
    /// Whether the volume may be in use: the snapshot is then as after a power cut.
    pub force: bool,
    /// The snapshot of a group that it is part of.
    pub group_snapshot_id: Option<String>,
    /// The engine's content that it is made of, with its size in GiB; the volume's if not given.
    pub content: Option<(String, u64)>,
}

/// Makes a snapshot, in [`Status::Creating`].
pub fn snapshot(tx: &mut Tx, caller: &Caller, volume: &Volume, wanted: NewSnapshot) -> ApiResult<Snapshot> {
    caller.require_writer()?;
    let fit = volume.status == Status::Available || (volume.status == Status::InUse && wanted.force);
    if !fit || !volume.made {
        return Err(ApiError::bad_request(format!(
            "Invalid volume: Volume {} status must be available, but current status is: {}.",
            volume.id,
            volume.status.name()
        )));
    }
    let (source, size_gb) = wanted.content.unwrap_or_else(|| (volume.id.clone(), volume.size_gb));
    quota::charge(tx, &volume.project_id, Delta::snapshot(size_gb, &volume.type_id))?;
    let node = elsewhere::place(tx, size_gb, Some(&volume.node), &volume.backend, false, None)?;
    let snapshot = Snapshot {
        id: uuid::Uuid::new_v4().to_string(),
        volume_id: volume.id.clone(),
        project_id: volume.project_id.clone(),
        user_id: caller.user_id.clone(),
        name: wanted.name,
        description: wanted.description,
        size_gb,
        type_id: volume.type_id.clone(),
        status: Status::Creating,
        made: false,
        progress: None,
        metadata: wanted.metadata,
        group_snapshot_id: wanted.group_snapshot_id,
        node,
        backend: volume.backend.clone(),
        created_at: Timestamp::now(),
        updated_at: None,
    };
    let spec = VolumeSpec::new(&snapshot.id, &snapshot.node, snapshot.size_gb * GIB);
    let copies = capacity::copies(&volume.backend);
    let backend = elsewhere::keeper(&volume.backend);
    volumes::create(tx, VolumeSpec { source: Some(source), read_only: true, copies, backend, ..spec })?;
    tx.put(&snapshot)?;
    Ok(snapshot)
}

/// Asks the engine for a volume's content.
fn ask_for(tx: &mut Tx, volume: &Volume) -> Result<(), Abort> {
    volumes::create_under(tx, content(volume), volume.key.clone())
}

/// A volume as the engine shall have it when it is made.
pub fn content(volume: &Volume) -> VolumeSpec {
    let spec = VolumeSpec::new(&volume.id, &volume.node, volume.size_gb * GIB);
    let (source, key) = (volume.source.clone(), volume.key.clone());
    let backend = elsewhere::keeper(&volume.backend);
    VolumeSpec { source, key, copies: capacity::copies(&volume.backend), backend, ..spec }
}
