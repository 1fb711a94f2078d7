//! Reads the disks of a server's creation (`block_device_mapping_v2`, and the older `block_device_mapping`). Pure.

use cairn_gateway::{ApiError, ApiResult, Minor};
use serde_json::{Map, Value};

use super::create_body::{flag, text};
use super::form::{integer, invalid, only, uuid};
use crate::order::{DiskOrder, DiskSource};

/// The most disks one server may be made with.
const DISKS_MAX: usize = 26;

const KEYS: [&str; 13] = [
    "boot_index",
    "delete_on_termination",
    "destination_type",
    "device_name",
    "device_type",
    "disk_bus",
    "guest_format",
    "no_device",
    "source_type",
    "tag",
    "uuid",
    "volume_size",
    "volume_type",
];

/// The disks named, the root disk first. A root disk that only the image names is added.
pub fn parse(f: &Map<String, Value>, mv: Minor, image: Option<&str>) -> ApiResult<Vec<DiskOrder>> {
    let (old, new) = (given(f, "block_device_mapping"), given(f, "block_device_mapping_v2"));
    let list = match (old, new) {
        (Some(_), Some(_)) => {
            let both = "Using different block_device_mapping syntaxes is not allowed in the same request.";
            return Err(ApiError::bad_request(both));
        }
        (Some(old), None) => read(old, legacy)?,
        (None, Some(new)) => read(new, |m| mapping(m, mv))?,
        (None, None) => Vec::new(),
    };
    with_root(list.into_iter().flatten().collect(), image)
}

fn given<'a>(f: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    f.get(key).filter(|v| !v.is_null() && v.as_array().is_none_or(|a| !a.is_empty()))
}

fn read(
    value: &Value,
    one: impl Fn(&Map<String, Value>) -> ApiResult<Option<DiskOrder>>,
) -> ApiResult<Vec<Option<DiskOrder>>> {
    let list = value
        .as_array()
        .ok_or_else(|| invalid("block_device_mapping_v2", value, "is not of type 'array'"))?;
    if list.len() > DISKS_MAX {
        return Err(ApiError::bad_request(format!("A server can be made with at most {DISKS_MAX} disks.")));
    }
    let object = |v: &Value| match v.as_object() {
        Some(map) => one(map),
        None => Err(invalid("block_device_mapping_v2", v, "is not of type 'object'")),
    };
    list.iter().map(object).collect()
}

fn legacy(m: &Map<String, Value>) -> ApiResult<Option<DiskOrder>> {
    if m.get("no_device").is_some_and(|v| !v.is_null()) {
        return Ok(None);
    }
    let source = match (text(m, "volume_id")?, text(m, "snapshot_id")?) {
        (Some(id), None) => DiskSource::Volume { id: uuid("volume_id", &id)? },
        (None, Some(snapshot)) => DiskSource::SnapshotVolume { snapshot, size_gb: size(m)? },
        _ => {
            return Err(ApiError::bad_request(
                "Block Device Mapping is Invalid: name one volume or snapshot.",
            ));
        }
    };
    let first = text(m, "device_name")?.is_some_and(|d| d.ends_with("da"));
    Ok(Some(DiskOrder {
        source,
        boot_index: first.then_some(0),
        delete_on_termination: flag(m, "delete_on_termination")?,
        tag: None,
    }))
}

fn mapping(m: &Map<String, Value>, mv: Minor) -> ApiResult<Option<DiskOrder>> {
    let tags = mv.0 == 32 || mv.since(42);
    let known = |k: &str| KEYS.contains(&k) && (k != "tag" || tags) && (k != "volume_type" || mv.since(67));
    only(m.keys(), known)?;
    if m.get("no_device").is_some_and(|v| !v.is_null()) && flag(m, "no_device").unwrap_or(true) {
        return Ok(None);
    }
    let boot_index = match m.get("boot_index") {
        None | Some(Value::Null) => None,
        Some(v) => Some(integer("boot_index", v, -1, 100)?),
    };
    Ok(Some(DiskOrder {
        source: source(m)?,
        boot_index: boot_index.filter(|i| *i >= 0),
        delete_on_termination: flag(m, "delete_on_termination")?,
        tag: text(m, "tag")?,
    }))
}

fn size(m: &Map<String, Value>) -> ApiResult<Option<u64>> {
    match m.get("volume_size") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(s)) if s.is_empty() => Ok(None),
        Some(v) => integer("volume_size", v, 1, 1 << 20).map(|n| Some(n as u64)),
    }
}

fn source(m: &Map<String, Value>) -> ApiResult<DiskSource> {
    let bad = |why: &str| ApiError::bad_request(format!("Block Device Mapping is Invalid: {why}"));
    let id = || {
        let id = text(m, "uuid")?.ok_or_else(|| bad("'uuid' is missing."))?;
        uuid("uuid", &id)
    };
    let needed = || size(m)?.ok_or_else(|| bad("'volume_size' is missing."));
    let kind = text(m, "source_type")?
        .unwrap_or_else(|| if m.contains_key("uuid") { "volume" } else { "blank" }.into());
    let destination = text(m, "destination_type")?;
    match (kind.as_str(), destination.as_deref()) {
        ("image", Some("local") | None) => Ok(DiskSource::Local { image: id()? }),
        ("image", Some("volume")) => Ok(DiskSource::ImageVolume { image: id()?, size_gb: needed()? }),
        ("volume", Some("volume") | None) => Ok(DiskSource::Volume { id: id()? }),
        ("snapshot", Some("volume") | None) => {
            Ok(DiskSource::SnapshotVolume { snapshot: id()?, size_gb: size(m)? })
        }
        ("blank", Some("volume")) => Ok(DiskSource::BlankVolume { size_gb: needed()? }),
        ("blank", Some("local") | None) => Ok(DiskSource::BlankLocal { size_gb: needed()? }),
        (kind, to) => {
            Err(bad(&format!("source '{kind}' to destination '{}' is not possible.", to.unwrap_or("none"))))
        }
    }
}

fn with_root(mut disks: Vec<DiskOrder>, image: Option<&str>) -> ApiResult<Vec<DiskOrder>> {
    disks.sort_by_key(|d| d.boot_index.unwrap_or(i64::MAX));
    let roots = disks.iter().filter(|d| d.boot_index == Some(0)).count();
    match (roots, image) {
        (0, Some(image)) => disks.insert(0, own_root(image)),
        // Older clients name the only volume, and mean to boot from it.
        (0, None) if disks.len() == 1 => disks[0].boot_index = Some(0),
        (0, None) => {
            return Err(ApiError::bad_request(
                "Block Device Mapping is Invalid: Boot sequence for the instance and image/block device mapping \
                 combination is not valid.",
            ));
        }
        (1, _) => {}
        _ => {
            return Err(ApiError::bad_request(
                "Block Device Mapping is Invalid: more than one disk has boot_index 0.",
            ));
        }
    }
    Ok(disks)
}

fn own_root(image: &str) -> DiskOrder {
    DiskOrder {
        source: DiskSource::Local { image: image.to_owned() },
        boot_index: Some(0),
        delete_on_termination: true,
        tag: None,
    }
}
