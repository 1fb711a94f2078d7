//! Groups of volumes, and snapshots of all volumes of a group.
//!
//! Functions of an open transaction. A group's volumes keep their own lives; what it is at is told by them where it is
//! not said. Its snapshots are taken one after the other: a type that asks for all at one moment is refused.

use std::collections::BTreeSet;

use cairn_gateway::{ApiError, ApiResult, Caller};
use cairn_state::{Abort, Tx};
use jiff::Timestamp;

use crate::create::{self, NewSnapshot, NewVolume, Source};
use crate::model::{BY_GROUP, BY_TYPE, Group, GroupSnapshot, GroupType, Snapshot, Status, Volume};
use crate::quota::{self, Delta};
use crate::servers::visible;
use crate::{elsewhere, lifecycle, types};

/// The spec by which a type of groups asks for snapshots of all volumes at one moment.
const CONSISTENT: &str = "consistent_group_snapshot_enabled";

/// What a new group shall be.
#[derive(Debug, Clone)]
pub struct NewGroup {
    /// Its name.
    pub name: Option<String>,
    /// Its description.
    pub description: Option<String>,
    /// The id or name of its type.
    pub group_type: String,
    /// The ids or names of the types its volumes may have.
    pub volume_types: Vec<String>,
}

/// What changes of a group.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// Its name.
    pub name: Option<String>,
    /// Its description.
    pub description: Option<String>,
    /// The volumes to take in.
    pub add: Vec<String>,
    /// The volumes to let go.
    pub remove: Vec<String>,
}

/// The type of groups with this id or name, if the caller may use it; 404 otherwise.
pub fn find_type(tx: &mut Tx, caller: &Caller, id_or_name: &str) -> ApiResult<GroupType> {
    let found = match tx.get::<GroupType>(id_or_name)? {
        None => tx.by_unique::<GroupType>("name", id_or_name)?,
        found => found,
    };
    let found = found.filter(|t| t.is_public || caller.is_admin());
    found.ok_or_else(|| ApiError::not_found("Group type", id_or_name))
}

/// Ends a type that no group has.
pub fn delete_type(tx: &mut Tx, caller: &Caller, id: &str) -> ApiResult<()> {
    let found = find_type(tx, caller, id)?;
    if !tx.by_index::<Group>(BY_TYPE, &found.id)?.is_empty() {
        return Err(ApiError::bad_request("Target group type is still in use."));
    }
    tx.delete::<GroupType>(&found.id)?;
    Ok(())
}

/// The group with this id, if the caller may see it; 404 otherwise.
pub fn find(tx: &mut Tx, caller: &Caller, id: &str) -> ApiResult<Group> {
    let found = tx.get::<Group>(id)?.filter(|g| caller.sees(&g.project_id));
    found.ok_or_else(|| ApiError::not_found("Group", id))
}

/// The volumes of a group.
pub fn volumes(tx: &mut Tx, id: &str) -> Result<Vec<Volume>, Abort> {
    tx.by_index::<Volume>(BY_GROUP, id)
}

/// What a group is at.
pub fn status(group: &Group, volumes: &[Volume]) -> Status {
    let from_source = group.source_group_id.is_some() || group.group_snapshot_id.is_some();
    group.status.unwrap_or_else(|| told(volumes.iter().filter(|_| from_source).map(|v| (v.status, v.made))))
}

fn told(parts: impl Iterator<Item = (Status, bool)>) -> Status {
    parts.fold(Status::Available, |so_far, part| match (so_far, part) {
        (Status::Error, _) | (_, (Status::Error, false)) => Status::Error,
        (_, (Status::Creating, _)) => Status::Creating,
        _ => so_far,
    })
}

/// Makes an empty group.
pub fn create(tx: &mut Tx, caller: &Caller, wanted: NewGroup) -> ApiResult<Group> {
    caller.require_writer()?;
    let group_type = find_type(tx, caller, &wanted.group_type)?;
    if group_type.group_specs.get(CONSISTENT).is_some_and(|spec| spec == "<is> True") {
        return Err(ApiError::bad_request(format!(
            "No valid backend was found: the type {} asks for {CONSISTENT}, which no backend meets.",
            group_type.name
        )));
    }
    if wanted.volume_types.is_empty() {
        return Err(ApiError::bad_request("volume_types must be provided to create group."));
    }
    let mut volume_types = BTreeSet::new();
    for name in &wanted.volume_types {
        volume_types.insert(types::find(tx, caller, name)?.id);
    }
    let group =
        Group { group_type: group_type.id, volume_types, ..empty(caller, wanted.name, wanted.description)? };
    put_new(tx, &group)?;
    Ok(group)
}

fn empty(caller: &Caller, name: Option<String>, description: Option<String>) -> ApiResult<Group> {
    Ok(Group {
        id: uuid::Uuid::new_v4().to_string(),
        project_id: caller.require_writer()?.to_owned(),
        name: name.unwrap_or_default(),
        description,
        group_type: String::new(),
        volume_types: BTreeSet::new(),
        status: None,
        group_snapshot_id: None,
        source_group_id: None,
        created_at: Timestamp::now(),
    })
}

fn put_new(tx: &mut Tx, group: &Group) -> ApiResult<()> {
    quota::charge(tx, &group.project_id, Delta::group())?;
    Ok(tx.put(group)?)
}

/// Makes a group with a copy of each volume of another.
pub fn copy(
    tx: &mut Tx,
    caller: &Caller,
    of: &Group,
    name: Option<String>,
    description: Option<String>,
) -> ApiResult<Group> {
    let sources = volumes(tx, &of.id)?.into_iter().map(|v| Source::Volume(Box::new(v))).collect();
    let group = Group { source_group_id: Some(of.id.clone()), ..like(caller, of, name, description)? };
    fill(tx, caller, group, sources)
}

/// Makes a group with a volume of each snapshot of a group snapshot.
pub fn restore(
    tx: &mut Tx,
    caller: &Caller,
    from: &GroupSnapshot,
    name: Option<String>,
    description: Option<String>,
) -> ApiResult<Group> {
    let of = find(tx, caller, &from.group_id)?;
    let sources = snapshots(tx, &from.id)?.into_iter().map(|s| Source::Snapshot(Box::new(s))).collect();
    let group = Group { group_snapshot_id: Some(from.id.clone()), ..like(caller, &of, name, description)? };
    fill(tx, caller, group, sources)
}

fn like(caller: &Caller, of: &Group, name: Option<String>, description: Option<String>) -> ApiResult<Group> {
    let (group_type, volume_types) = (of.group_type.clone(), of.volume_types.clone());
    Ok(Group { group_type, volume_types, ..empty(caller, name, description)? })
}

fn fill(tx: &mut Tx, caller: &Caller, group: Group, sources: Vec<Source>) -> ApiResult<Group> {
    if sources.is_empty() {
        return Err(ApiError::bad_request("Invalid group: its source has no volumes."));
    }
    put_new(tx, &group)?;
    for source in sources {
        let volume_type = match &source {
            Source::Volume(v) => Some(v.type_id.clone()),
            Source::Snapshot(s) => tx.get::<Volume>(&s.volume_id)?.map(|v| v.type_id),
            Source::Empty | Source::Image(_) | Source::Kept(_) => None,
        };
        let group_id = Some(group.id.clone());
        create::volume(tx, caller, NewVolume { volume_type, group_id, ..NewVolume::of(source) })?;
    }
    Ok(group)
}

/// Refuses a volume of this type for the group.
pub fn require_fit(group: &Group, type_id: &str) -> ApiResult<()> {
    if group.status.is_some_and(|status| status != Status::Available) {
        return Err(ApiError::bad_request(format!("Invalid group: Group {} is not available.", group.id)));
    }
    if !group.volume_types.contains(type_id) {
        return Err(ApiError::bad_request(format!(
            "Invalid volume type: the group {} is not of volumes of type {type_id}.",
            group.id
        )));
    }
    Ok(())
}

/// Changes a group.
pub fn update(tx: &mut Tx, caller: &Caller, id: &str, change: Change) -> ApiResult<()> {
    let mut group = find(tx, caller, id)?;
    caller.require_writer()?;
    for volume_id in &change.add {
        let mut volume = visible(tx, caller, volume_id)?;
        require_fit(&group, &volume.type_id)?;
        elsewhere::refuse(&volume.backend, "A group with", &volume.id)?;
        let fit = matches!(volume.status, Status::Available | Status::InUse);
        if !fit || volume.group_id.is_some() || volume.project_id != group.project_id {
            return Err(ApiError::bad_request(format!(
                "Cannot add volume {volume_id} to group {id}: it is {}, or in a group, or of another project.",
                volume.status.name()
            )));
        }
        volume.group_id = Some(id.to_owned());
        tx.put(&volume)?;
    }
    for volume_id in &change.remove {
        let mut volume = visible(tx, caller, volume_id)?;
        if volume.group_id.as_deref() != Some(id) {
            return Err(ApiError::bad_request(format!(
                "Cannot remove volume {volume_id} from group {id}: it is not in it."
            )));
        }
        volume.group_id = None;
        tx.put(&volume)?;
    }
    if let Some(name) = change.name {
        group.name = name;
    }
    group.description = change.description.or(group.description);
    Ok(tx.put(&group)?)
}

/// Ends a group; `with_volumes`, its volumes too.
pub fn delete(tx: &mut Tx, caller: &Caller, id: &str, with_volumes: bool) -> ApiResult<()> {
    let mut group = find(tx, caller, id)?;
    caller.require_writer()?;
    if !tx.by_index::<GroupSnapshot>(BY_GROUP, id)?.is_empty() {
        return Err(ApiError::bad_request(format!(
            "Invalid group: Group {id} has dependent group snapshots."
        )));
    }
    let volumes = volumes(tx, id)?;
    if !volumes.is_empty() && !with_volumes {
        return Err(ApiError::bad_request(format!(
            "Invalid group: Group {id} still contains volumes. The delete-volumes flag is required to delete it."
        )));
    }
    for mut volume in volumes {
        lifecycle::delete_member(tx, &mut volume)?;
    }
    group.status = Some(Status::Deleting);
    tx.put(&group)?;
    Ok(end_if_empty(tx, id)?)
}

/// Forgets a group that is being deleted once its last volume is gone.
pub fn end_if_empty(tx: &mut Tx, id: &str) -> Result<(), Abort> {
    let Some(group) = tx.get::<Group>(id)?.filter(|g| g.status == Some(Status::Deleting)) else {
        return Ok(());
    };
    if volumes(tx, id)?.is_empty() {
        quota::refund(tx, &group.project_id, Delta::group())?;
        tx.delete::<Group>(id)?;
    }
    Ok(())
}

/// The group snapshot with this id, if the caller may see it; 404 otherwise.
pub fn find_snapshot(tx: &mut Tx, caller: &Caller, id: &str) -> ApiResult<GroupSnapshot> {
    let found = tx.get::<GroupSnapshot>(id)?.filter(|s| caller.sees(&s.project_id));
    found.ok_or_else(|| ApiError::not_found("Group snapshot", id))
}

/// The snapshots of a group snapshot.
pub fn snapshots(tx: &mut Tx, id: &str) -> Result<Vec<Snapshot>, Abort> {
    tx.by_index::<Snapshot>(BY_GROUP, id)
}

/// What a group snapshot is at.
pub fn snapshot_status(of: &GroupSnapshot, snapshots: &[Snapshot]) -> Status {
    of.status.unwrap_or_else(|| told(snapshots.iter().map(|s| (s.status, s.made))))
}

/// Makes a snapshot of each volume of a group.
pub fn snapshot(
    tx: &mut Tx,
    caller: &Caller,
    group_id: &str,
    name: Option<String>,
    description: Option<String>,
) -> ApiResult<GroupSnapshot> {
    let group = find(tx, caller, group_id)?;
    caller.require_writer()?;
    let of = volumes(tx, group_id)?;
    if of.is_empty() {
        return Err(ApiError::bad_request(format!("Invalid group: Group {group_id} has no volumes.")));
    }
    let whole = GroupSnapshot {
        id: uuid::Uuid::new_v4().to_string(),
        group_id: group.id,
        group_type: group.group_type,
        project_id: group.project_id,
        name: name.unwrap_or_default(),
        description,
        status: None,
        created_at: Timestamp::now(),
    };
    for volume in of {
        let part = NewSnapshot {
            name: Some(whole.name.clone()),
            force: true,
            group_snapshot_id: Some(whole.id.clone()),
            ..NewSnapshot::default()
        };
        create::snapshot(tx, caller, &volume, part)?;
    }
    tx.put(&whole)?;
    Ok(whole)
}

/// Ends a group snapshot with its snapshots.
pub fn delete_snapshot(tx: &mut Tx, caller: &Caller, id: &str) -> ApiResult<()> {
    let mut whole = find_snapshot(tx, caller, id)?;
    caller.require_writer()?;
    for mut part in snapshots(tx, id)? {
        lifecycle::delete_snapshot(tx, &mut part, false)?;
    }
    whole.status = Some(Status::Deleting);
    tx.put(&whole)?;
    Ok(end_snapshot_if_empty(tx, id)?)
}

/// Forgets a group snapshot that is being deleted once its last snapshot is gone.
pub fn end_snapshot_if_empty(tx: &mut Tx, id: &str) -> Result<(), Abort> {
    let deleting = tx.get::<GroupSnapshot>(id)?.is_some_and(|s| s.status == Some(Status::Deleting));
    if deleting && snapshots(tx, id)?.is_empty() {
        tx.delete::<GroupSnapshot>(id)?;
    }
    Ok(())
}
