//! Reading the fields of request bodies, each refused with a text that names it.

use cairn_gateway::{ApiError, ApiResult};
use serde_json::{Map, Value};

use crate::model::Metadata;

/// The most characters of names, descriptions, and metadata's keys and values.
const TEXT_MAX: usize = 255;
/// The largest size in GiB that makes sense.
const SIZE_GB_MAX: u64 = i32::MAX as u64;

/// A body's fields.
pub type Fields = Map<String, Value>;

/// The object under the body's one key (`{"volume": {...}}`).
pub fn inner(body: Value, key: &str) -> ApiResult<Fields> {
    match body {
        Value::Object(mut outer) => match outer.remove(key) {
            Some(Value::Object(fields)) => Ok(fields),
            _ => Err(ApiError::bad_request(format!("Missing required element '{key}' in request body."))),
        },
        _ => Err(ApiError::bad_request("The request body must be an object.")),
    }
}

/// 400 for a field's value.
pub fn invalid(key: &str, why: &str) -> ApiError {
    ApiError::bad_request(format!("Invalid input for field/attribute {key}: {why}."))
}

/// A text, if it is given and not null.
pub fn text(fields: &Fields, key: &str) -> ApiResult<Option<String>> {
    match fields.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(s)) if s.chars().count() <= TEXT_MAX => Ok(Some(s.clone())),
        Some(_) => Err(invalid(key, "it must be a text of at most 255 characters")),
    }
}

/// Name and description, each under its present key or its older one.
pub fn words(fields: &Fields) -> ApiResult<(Option<String>, Option<String>)> {
    let either = |key, old| ApiResult::Ok(text(fields, key)?.or(text(fields, old)?));
    Ok((either("name", "display_name")?, either("description", "display_description")?))
}

/// A text that is not empty.
pub fn reference(fields: &Fields, key: &str) -> ApiResult<Option<String>> {
    Ok(text(fields, key)?.filter(|t| !t.is_empty()))
}

/// A list of texts; none if it is not given.
pub fn texts(fields: &Fields, key: &str) -> ApiResult<Vec<String>> {
    let texts = match fields.get(key) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(values)) => values.iter().map(|v| v.as_str().map(str::to_owned)).collect(),
        Some(_) => None,
    };
    texts.ok_or_else(|| invalid(key, "it must be a list of texts"))
}

/// A boolean in any of the forms clients send.
pub fn flag(fields: &Fields, key: &str) -> ApiResult<Option<bool>> {
    match fields.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(b)) => Ok(Some(*b)),
        Some(Value::String(s)) => match s.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" | "t" | "y" => Ok(Some(true)),
            "false" | "0" | "no" | "off" | "f" | "n" => Ok(Some(false)),
            _ => Err(invalid(key, "it must be true or false")),
        },
        Some(_) => Err(invalid(key, "it must be true or false")),
    }
}

/// A size in GiB: a positive integer, or a text of one.
pub fn size(fields: &Fields, key: &str) -> ApiResult<Option<u64>> {
    let value = match fields.get(key) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(n)) => n.as_u64(),
        Some(Value::String(s)) => s.parse().ok(),
        Some(_) => None,
    };
    value
        .filter(|n| (1..=SIZE_GB_MAX).contains(n))
        .map(Some)
        .ok_or_else(|| invalid(key, "it must be a whole number of GiB, at least 1"))
}

/// Metadata: an object of texts.
pub fn metadata(fields: &Fields, key: &str) -> ApiResult<Option<Metadata>> {
    match fields.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(map)) => read_metadata(map).map(Some),
        Some(_) => Err(invalid(key, "it must be an object of texts")),
    }
}

/// The texts of an object, within the limits.
pub fn read_metadata(map: &Map<String, Value>) -> ApiResult<Metadata> {
    let mut metadata = Metadata::new();
    for (key, value) in map {
        let value = value.as_str().ok_or_else(|| invalid(key, "it must be a text"))?;
        if key.is_empty() || key.chars().count() > TEXT_MAX || value.chars().count() > TEXT_MAX {
            return Err(invalid("metadata", "keys must have 1 to 255 characters, values at most 255"));
        }
        metadata.insert(key.clone(), value.to_owned());
    }
    Ok(metadata)
}
