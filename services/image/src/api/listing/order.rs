//! The order of an image list: `sort=name:asc,size:desc`, or the older `sort_key` and `sort_dir`.

use std::cmp::Ordering;

use cairn_gateway::{ApiError, ApiResult, Query};

use crate::model::Image;

/// A key and whether it ascends.
pub type SortKey = (String, bool);

const KEYS: [&str; 8] =
    ["name", "status", "container_format", "disk_format", "size", "id", "created_at", "updated_at"];

/// Reads the order. Newest first if none is given; the id decides between equals.
pub fn read(query: &Query) -> ApiResult<Vec<SortKey>> {
    let old: Vec<_> = query.all("sort_key").collect();
    let mut keys = match query.get("sort") {
        Some(_) if !old.is_empty() || query.get("sort_dir").is_some() => {
            return Err(ApiError::bad_request("Old and new sorting syntax cannot be combined"));
        }
        Some(text) => text.split(',').map(new_style).collect::<ApiResult<Vec<_>>>()?,
        None => old_style(&old, &query.all("sort_dir").collect::<Vec<_>>())?,
    };
    for default in ["created_at", "id"] {
        if !keys.iter().any(|(k, _)| k == default) {
            let ascending = keys.first().is_some_and(|(_, up)| *up);
            keys.push((default.into(), ascending));
        }
    }
    Ok(keys)
}

fn new_style(text: &str) -> ApiResult<SortKey> {
    let (key, direction) = text.split_once(':').unwrap_or((text, "desc"));
    Ok((known(key)?, ascends(direction)?))
}

fn old_style(keys: &[&str], directions: &[&str]) -> ApiResult<Vec<SortKey>> {
    if directions.len() > 1 && directions.len() != keys.len() {
        return Err(ApiError::bad_request("Number of sort dirs does not match the number of sort keys"));
    }
    let direction = |n: usize| directions.get(n).or(directions.first()).copied().unwrap_or("desc");
    if keys.is_empty() {
        return Ok(vec![("created_at".into(), ascends(direction(0))?)]);
    }
    keys.iter().enumerate().map(|(n, key)| Ok((known(key)?, ascends(direction(n))?))).collect()
}

fn known(key: &str) -> ApiResult<String> {
    if KEYS.contains(&key) {
        return Ok(key.into());
    }
    Err(ApiError::bad_request(format!("Invalid sort key: {key}. It must be one of {}.", KEYS.join(", "))))
}

fn ascends(direction: &str) -> ApiResult<bool> {
    match direction {
        "asc" => Ok(true),
        "desc" => Ok(false),
        other => Err(ApiError::bad_request(format!("Invalid sort direction: {other}."))),
    }
}

/// Sorts by the keys, the first one first.
pub fn sort(images: &mut [Image], keys: &[SortKey]) {
    images.sort_by(|a, b| {
        let orders = keys.iter().map(|(key, up)| if *up { by(key, a, b) } else { by(key, b, a) });
        orders.fold(Ordering::Equal, Ordering::then)
    });
}

fn by(key: &str, a: &Image, b: &Image) -> Ordering {
    match key {
        "name" => a.name.cmp(&b.name),
        "status" => a.status.name().cmp(b.status.name()),
        "container_format" => a.container_format.cmp(&b.container_format),
        "disk_format" => a.disk_format.cmp(&b.disk_format),
        "size" => a.size.cmp(&b.size),
        "created_at" => a.created_at.cmp(&b.created_at),
        "updated_at" => a.updated_at.cmp(&b.updated_at),
        _ => a.id.cmp(&b.id),
    }
}
