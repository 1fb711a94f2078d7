//! Volume types: which there are, and which a project may use.

use std::collections::BTreeSet;

use cairn_gateway::{ApiError, ApiResult, Caller};
use cairn_state::{Abort, Tx};

use crate::model::{Metadata, VolumeType};
use crate::{capacity, elsewhere, keys};

/// The id of the type that volumes get when none is named. It is there from the start, and stored only once an
/// administrator changes it.
pub const DEFAULT_ID: &str = "c1a1e000-0000-4000-8000-000000000001";
/// Its name at first.
const DEFAULT_NAME: &str = "cairn";

fn built_in() -> VolumeType {
    VolumeType {
        id: DEFAULT_ID.into(),
        name: DEFAULT_NAME.into(),
        description: Some("Volumes on the nodes' own disks".into()),
        is_public: true,
        extra_specs: Metadata::new(),
        projects: BTreeSet::new(),
        qos_id: None,
        encryption: None,
    }
}

/// The extra spec of types whose volumes are meant for several servers.
const MULTIATTACH: &str = "multiattach";

/// The extra specs that users see, beside administrators.
pub const SEEN: [&str; 3] = [MULTIATTACH, "RESKEY:availability_zones", "replication_enabled"];

/// Whether volumes of a type are meant for several servers.
pub fn is_multiattach(t: &VolumeType) -> bool {
    t.extra_specs.get(MULTIATTACH).is_some_and(|v| v.eq_ignore_ascii_case("<is> true"))
}

/// The default type.
pub fn default_type(tx: &mut Tx) -> Result<VolumeType, Abort> {
    Ok(tx.get::<VolumeType>(DEFAULT_ID)?.unwrap_or_else(built_in))
}

/// Every type, the default one first.
pub fn all(tx: &mut Tx) -> Result<Vec<VolumeType>, Abort> {
    let mut types = vec![default_type(tx)?];
    types.extend(tx.list_unfenced::<VolumeType>()?.into_iter().filter(|t| t.id != DEFAULT_ID));
    Ok(types)
}

/// Whether the caller may use this type.
pub fn may_use(caller: &Caller, t: &VolumeType) -> bool {
    t.is_public || caller.is_admin() || t.projects.contains(&caller.project_id)
}

/// The type with this id, if the caller may use it; 404 otherwise.
pub fn by_id(tx: &mut Tx, caller: &Caller, id: &str) -> ApiResult<VolumeType> {
    let found = if id == DEFAULT_ID { Some(default_type(tx)?) } else { tx.get::<VolumeType>(id)? };
    found.filter(|t| may_use(caller, t)).ok_or_else(|| ApiError::not_found("Volume type", id))
}

/// The type with this id or name, if the caller may use it; 404 otherwise.
pub fn find(tx: &mut Tx, caller: &Caller, id_or_name: &str) -> ApiResult<VolumeType> {
    if let Ok(found) = by_id(tx, caller, id_or_name) {
        return Ok(found);
    }
    let default = default_type(tx)?;
    if default.name == id_or_name {
        return Ok(default);
    }
    tx.by_unique::<VolumeType>("name", id_or_name)?
        .filter(|t| may_use(caller, t))
        .ok_or_else(|| ApiError::not_found("Volume type", id_or_name))
}

/// The backend for volumes of a type; 409 inside if there is none.
pub fn backend(tx: &mut Tx, t: &VolumeType) -> Result<ApiResult<String>, Abort> {
    Ok(backend_among(t, &elsewhere::names(tx)?))
}

fn backend_among(t: &VolumeType, elsewhere: &BTreeSet<String>) -> ApiResult<String> {
    if let Some(what) = t.encryption.as_ref().and_then(keys::unmet) {
        return Err(ApiError::conflict(format!(
            "No valid backend was found: the type {} asks for {what}, which no backend has.",
            t.name
        )));
    }
    capacity::backend_for(&t.extra_specs, elsewhere).map_err(|spec| {
        ApiError::conflict(format!(
            "No valid backend was found: the type {} asks for {spec}, which no backend meets.",
            t.name
        ))
    })
}

/// Refuses a name that another type has.
pub fn require_free_name(tx: &mut Tx, name: &str, own_id: &str) -> ApiResult<()> {
    let default = default_type(tx)?;
    let holder = tx.by_unique::<VolumeType>("name", name)?.or(Some(default).filter(|d| d.name == name));
    match holder {
        Some(other) if other.id != own_id => {
            Err(ApiError::conflict(format!("Volume Type {name} already exists.")))
        }
        _ => Ok(()),
    }
}

/// The type with this id, whoever may use it.
pub fn stored(tx: &mut Tx, id: &str) -> Result<Option<VolumeType>, Abort> {
    if id == DEFAULT_ID { default_type(tx).map(Some) } else { tx.get::<VolumeType>(id) }
}
