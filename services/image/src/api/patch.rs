//! `PATCH /v2/images/{id}`: Glance's own dialects of JSON patch.
//!
//! `application/openstack-images-v2.1-json-patch` is RFC 6902 with one-element paths; v2.0 writes an operation
//! as `{"replace": "/name", "value": ...}`. All of a patch is done, or nothing.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use cairn_gateway::{ApiError, ApiResult, Body, Caller};
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{Svc, attributes, view};
use crate::access;
use crate::model::Image;

/// One change.
#[derive(Debug, Clone, PartialEq)]
enum Change {
    Add(String, Value),
    Replace(String, Value),
    Remove(String),
}

/// `PATCH /v2/images/{id}`
pub async fn update(
    State(svc): Svc,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    Body(patch): Body<Vec<Map<String, Value>>>,
) -> ApiResult<Json<Value>> {
    let changes = read(&headers, &patch)?;
    let image = svc
        .store
        .transact(|tx| {
            let mut image = access::writable(tx, &caller, &id)?;
            for change in &changes {
                apply(&mut image, &caller, change)?;
            }
            if !changes.is_empty() {
                image.updated_at = Timestamp::now();
                tx.put(&image)?;
            }
            Ok::<_, ApiError>(image)
        })
        .await?;
    Ok(Json(view::image(&image)))
}

fn read(headers: &HeaderMap, patch: &[Map<String, Value>]) -> ApiResult<Vec<Change>> {
    let media = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    match media.split(';').next().unwrap_or_default().trim() {
        "application/openstack-images-v2.1-json-patch" => patch.iter().map(rfc6902).collect(),
        "application/openstack-images-v2.0-json-patch" => patch.iter().map(old_style).collect(),
        _ => Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "The content type must be application/openstack-images-v2.1-json-patch.",
        )),
    }
}

fn bad(why: &str) -> ApiError {
    ApiError::bad_request(format!("Invalid JSON patch: {why}"))
}

fn rfc6902(item: &Map<String, Value>) -> ApiResult<Change> {
    let text = |key: &str| item.get(key).and_then(Value::as_str);
    let op = text("op").ok_or_else(|| bad("an operation needs a member 'op'"))?;
    let path = text("path").ok_or_else(|| bad("an operation needs a member 'path'"))?;
    change(op, path, item.get("value"))
}

fn old_style(item: &Map<String, Value>) -> ApiResult<Change> {
    let ops: Vec<_> = ["add", "replace", "remove"].into_iter().filter(|op| item.contains_key(*op)).collect();
    let [op] = ops.as_slice() else {
        return Err(bad("an operation needs one of 'add', 'replace', 'remove'"));
    };
    let path = item[*op].as_str().ok_or_else(|| bad("a path must be a text"))?;
    change(op, path, item.get("value"))
}

fn change(op: &str, path: &str, value: Option<&Value>) -> ApiResult<Change> {
    let key = key(path)?;
    let value = || value.cloned().ok_or_else(|| bad("an operation needs a member 'value'"));
    match op {
        "add" => Ok(Change::Add(key, value()?)),
        "replace" => Ok(Change::Replace(key, value()?)),
        "remove" => Ok(Change::Remove(key)),
        other => Err(bad(&format!("the operation '{other}' is not supported"))),
    }
}

/// The one element of a JSON pointer, its `~1` and `~0` undone.
fn key(path: &str) -> ApiResult<String> {
    let rest = path.strip_prefix('/').ok_or_else(|| bad("a path must begin with '/'"))?;
    if rest.is_empty() || rest.contains('/') {
        // Values are texts and whole lists: there is nothing below them to point at.
        let first = rest.split('/').next().unwrap_or_default();
        attributes::require_settable(first)?;
        return Err(bad("a path must have exactly one element"));
    }
    let escapes_ok = rest.split('~').skip(1).all(|s| s.starts_with(['0', '1']));
    if !escapes_ok {
        return Err(bad("'~' in a path must be followed by 0 or 1"));
    }
    Ok(rest.replace("~1", "/").replace("~0", "~"))
}

fn apply(image: &mut Image, caller: &Caller, change: &Change) -> ApiResult<()> {
    match change {
        Change::Add(key, value) => set(image, caller, key, value),
        Change::Replace(key, value) => {
            if !attributes::is_own(key) {
                attributes::require_settable(key)?;
                require_property(image, key)?;
            }
            set(image, caller, key, value)
        }
        Change::Remove(key) => {
            attributes::require_settable(key)?;
            if attributes::is_own(key) {
                return Err(ApiError::forbidden(format!("Property {key} may not be removed.")));
            }
            require_property(image, key)?;
            image.properties.remove(key);
            Ok(())
        }
    }
}

fn set(image: &mut Image, caller: &Caller, key: &str, value: &Value) -> ApiResult<()> {
    if key == "id" {
        return Err(ApiError::forbidden("Attribute 'id' is read-only."));
    }
    attributes::set(image, caller, key, value)
}

fn require_property(image: &Image, key: &str) -> ApiResult<()> {
    if image.properties.contains_key(key) {
        return Ok(());
    }
    Err(ApiError::conflict(format!("Property {key} does not exist.")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn changes(media: &'static str, patch: Value) -> Result<Vec<Change>, StatusCode> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(media));
        let patch: Vec<Map<String, Value>> = serde_json::from_value(patch).unwrap();
        read(&headers, &patch).map_err(|e| e.status)
    }

    #[test]
    fn both_dialects_say_the_same() {
        let new = changes(
            "application/openstack-images-v2.1-json-patch; charset=utf-8",
            json!([{"op": "replace", "path": "/name", "value": "n"}, {"op": "remove", "path": "/a~1b~0c"}]),
        );
        let old = changes(
            "application/openstack-images-v2.0-json-patch",
            json!([{"replace": "/name", "value": "n"}, {"remove": "/a~1b~0c"}]),
        );
        assert_eq!(new, Ok(vec![Change::Replace("name".into(), json!("n")), Change::Remove("a/b~c".into())]));
        assert_eq!(new, old);
    }

    #[test]
    fn bad_patches_are_refused() {
        const V21: &str = "application/openstack-images-v2.1-json-patch";
        for bad in [
            json!([{"op": "replace", "path": "/name"}]),
            json!([{"op": "replace", "value": "n"}]),
            json!([{"op": "move", "path": "/a", "value": "n"}]),
            json!([{"op": "add", "path": "a", "value": "n"}]),
            json!([{"op": "add", "path": "/a/b", "value": "n"}]),
            json!([{"op": "add", "path": "/a~2", "value": "n"}]),
        ] {
            assert_eq!(changes(V21, bad.clone()), Err(StatusCode::BAD_REQUEST), "{bad}");
        }
        assert_eq!(changes("application/json", json!([])), Err(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        let location = json!([{"op": "add", "path": "/locations/-", "value": "n"}]);
        assert_eq!(changes(V21, location), Err(StatusCode::FORBIDDEN));
    }
}
