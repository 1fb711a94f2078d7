//! The attributes of an image that clients may set, and what values they take. Used alike when an image is made
//! and when it is changed.

use std::collections::BTreeSet;

use cairn_gateway::{ApiError, ApiResult, Caller};
use serde_json::Value;

use crate::model::{Image, Status, Visibility};

/// The most custom properties an image may have.
const PROPERTIES_MAX: usize = 128;
/// The most tags an image may have.
const TAGS_MAX: usize = 128;
/// The most characters of a name, tag, or property's name.
pub const NAME_MAX: usize = 255;
/// The most bytes of a property's value.
const VALUE_BYTES_MAX: usize = 65_535;
/// The greatest `min_disk` and `min_ram`.
const MIN_MAX: u64 = i32::MAX as u64;

/// The formats whose content can be stored and booted.
pub const DISK_FORMATS: [&str; 3] = ["raw", "qcow2", "iso"];
/// The one form of container.
pub const CONTAINER_FORMATS: [&str; 1] = ["bare"];

const READ_ONLY: [&str; 13] = [
    "status",
    "checksum",
    "os_hash_algo",
    "os_hash_value",
    "size",
    "virtual_size",
    "created_at",
    "updated_at",
    "self",
    "file",
    "schema",
    "direct_url",
    "stores",
];
const RESERVED: [&str; 7] =
    ["deleted", "deleted_at", "is_public", "location", "locations", "image_id", "members"];

/// Refuses what no client may set.
pub fn require_settable(key: &str) -> ApiResult<()> {
    if READ_ONLY.contains(&key) {
        return Err(ApiError::forbidden(format!("Attribute '{key}' is read-only.")));
    }
    if RESERVED.contains(&key) || key.starts_with("os_glance_") {
        return Err(ApiError::forbidden(format!("Attribute '{key}' is reserved.")));
    }
    Ok(())
}

/// Whether this is one of an image's own attributes rather than a custom property.
pub fn is_own(key: &str) -> bool {
    matches!(
        key,
        "id" | "name"
            | "visibility"
            | "owner"
            | "disk_format"
            | "container_format"
            | "min_disk"
            | "min_ram"
            | "protected"
            | "os_hidden"
            | "tags"
    ) || READ_ONLY.contains(&key)
}

/// Sets an attribute or custom property (all but `id`).
pub fn set(image: &mut Image, caller: &Caller, key: &str, value: &Value) -> ApiResult<()> {
    require_settable(key)?;
    match key {
        "name" => image.name = optional_text(key, value)?,
        "visibility" => set_visibility(image, caller, value)?,
        "owner" => set_owner(image, caller, value)?,
        "disk_format" => {
            let wanted = format(image, key, value, &DISK_FORMATS, image.disk_format.as_ref())?;
            image.disk_format = wanted;
        }
        "container_format" => {
            let wanted = format(image, key, value, &CONTAINER_FORMATS, image.container_format.as_ref())?;
            image.container_format = wanted;
        }
        "min_disk" => image.min_disk = amount(key, value)?,
        "min_ram" => image.min_ram = amount(key, value)?,
        "protected" => image.protected = boolean(key, value)?,
        "os_hidden" => image.os_hidden = boolean(key, value)?,
        "tags" => image.tags = tags(value)?,
        _ => set_property(image, key, value)?,
    }
    Ok(())
}

fn wrong(key: &str, why: &str) -> ApiError {
    ApiError::bad_request(format!("Provided object does not match schema 'image': {key}: {why}"))
}

fn optional_text(key: &str, value: &Value) -> ApiResult<Option<String>> {
    match value {
        Value::Null => Ok(None),
        Value::String(s) if s.chars().count() <= NAME_MAX => Ok(Some(s.clone())),
        _ => Err(wrong(key, "must be a text of at most 255 characters, or null")),
    }
}

fn set_visibility(image: &mut Image, caller: &Caller, value: &Value) -> ApiResult<()> {
    let wanted = value
        .as_str()
        .and_then(Visibility::parse)
        .ok_or_else(|| wrong("visibility", "must be one of public, community, shared and private"))?;
    if wanted == Visibility::Public && image.visibility != wanted && !caller.is_admin() {
        return Err(ApiError::forbidden("You are not authorized to publicize an image."));
    }
    image.visibility = wanted;
    Ok(())
}

fn set_owner(image: &mut Image, caller: &Caller, value: &Value) -> ApiResult<()> {
    let wanted = value
        .as_str()
        .filter(|o| !o.is_empty() && o.chars().count() <= NAME_MAX)
        .ok_or_else(|| wrong("owner", "must be a project's id"))?;
    if wanted != image.owner && !caller.is_admin() {
        return Err(ApiError::forbidden("You are not permitted to set the owner of an image."));
    }
    image.owner = wanted.into();
    Ok(())
}

fn format(
    image: &Image,
    key: &str,
    value: &Value,
    known: &[&str],
    now: Option<&String>,
) -> ApiResult<Option<String>> {
    let wanted = match value {
        Value::Null => None,
        Value::String(s) if known.contains(&s.as_str()) => Some(s.clone()),
        _ => return Err(wrong(key, &format!("must be one of {}", known.join(", ")))),
    };
    if wanted.as_ref() != now && image.status != Status::Queued {
        return Err(ApiError::forbidden(format!("Attribute {key} can be only replaced for a queued image.")));
    }
    Ok(wanted)
}

fn amount(key: &str, value: &Value) -> ApiResult<u64> {
    value
        .as_u64()
        .filter(|n| *n <= MIN_MAX)
        .ok_or_else(|| wrong(key, "must be an integer from 0 to 2147483647"))
}

fn boolean(key: &str, value: &Value) -> ApiResult<bool> {
    value.as_bool().ok_or_else(|| wrong(key, "must be true or false"))
}

fn tags(value: &Value) -> ApiResult<BTreeSet<String>> {
    let list = value.as_array().ok_or_else(|| wrong("tags", "must be a list"))?;
    let mut tags = BTreeSet::new();
    for tag in list {
        let tag = tag.as_str().ok_or_else(|| wrong("tags", "must be a list of texts"))?;
        add_tag(&mut tags, tag)?;
    }
    Ok(tags)
}

/// Adds a tag, within the limits.
pub fn add_tag(tags: &mut BTreeSet<String>, tag: &str) -> ApiResult<()> {
    if tag.is_empty() || tag.chars().count() > NAME_MAX {
        return Err(wrong("tags", "a tag must have 1 to 255 characters"));
    }
    tags.insert(tag.to_owned());
    if tags.len() > TAGS_MAX {
        return Err(ApiError::too_large(format!("An image may have at most {TAGS_MAX} tags.")));
    }
    Ok(())
}

fn set_property(image: &mut Image, key: &str, value: &Value) -> ApiResult<()> {
    if key.is_empty() || key.chars().count() > NAME_MAX {
        return Err(wrong(key, "a property's name must have 1 to 255 characters"));
    }
    let value = value.as_str().ok_or_else(|| wrong(key, "must be a text"))?;
    if value.len() > VALUE_BYTES_MAX {
        return Err(wrong(key, "must have at most 65535 bytes"));
    }
    image.properties.insert(key.to_owned(), value.to_owned());
    if image.properties.len() > PROPERTIES_MAX {
        return Err(ApiError::too_large(format!("An image may have at most {PROPERTIES_MAX} properties.")));
    }
    Ok(())
}
