//! `/v2/schemas/{name}`: JSON schemas of what this API shows, for clients that read them.

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use cairn_gateway::{ApiError, ApiResult, Caller};
use serde_json::{Value, json};

use super::attributes::{CONTAINER_FORMATS, DISK_FORMATS, NAME_MAX};

/// `GET /v2/schemas/{name}`: image, images, member, members.
pub async fn show(_: Caller, Path(name): Path<String>) -> ApiResult<Json<Value>> {
    let schema = match name.as_str() {
        "image" => image(),
        "images" => list("images", image(), true),
        "member" => member(),
        "members" => list("members", member(), false),
        _ => return Err(ApiError::new(StatusCode::NOT_FOUND, format!("There is no schema '{name}'."))),
    };
    Ok(Json(schema))
}

fn list(name: &str, item: Value, paged: bool) -> Value {
    let mut properties = json!({name: {"type": "array", "items": item}, "schema": {"type": "string"}});
    let mut links = vec![json!({"rel": "describedby", "href": "{schema}"})];
    if paged {
        properties["first"] = json!({"type": "string"});
        properties["next"] = json!({"type": "string"});
        links.push(json!({"rel": "first", "href": "{first}"}));
        links.push(json!({"rel": "next", "href": "{next}"}));
    }
    json!({"name": name, "properties": properties, "links": links})
}

fn image() -> Value {
    let text = || json!({"type": ["null", "string"], "maxLength": NAME_MAX});
    let read_only = |kind: Value| json!({"type": kind, "readOnly": true});
    let choice = |values: &[&str]| {
        let mut values: Vec<_> = values.iter().map(|v| json!(v)).collect();
        values.insert(0, Value::Null);
        json!({"type": ["null", "string"], "enum": values})
    };
    json!({
        "name": "image",
        "properties": {
            "id": {"type": "string", "pattern": "^([0-9a-f]){8}-([0-9a-f]){4}-([0-9a-f]){4}-([0-9a-f]){4}-([0-9a-f]){12}$"},
            "name": text(),
            "status": read_only(json!("string")),
            "visibility": {"type": "string", "enum": ["community", "public", "private", "shared"]},
            "protected": {"type": "boolean"},
            "os_hidden": {"type": "boolean"},
            "checksum": read_only(json!(["null", "string"])),
            "os_hash_algo": read_only(json!(["null", "string"])),
            "os_hash_value": read_only(json!(["null", "string"])),
            "owner": text(),
            "size": read_only(json!(["null", "integer"])),
            "virtual_size": read_only(json!(["null", "integer"])),
            "container_format": choice(&CONTAINER_FORMATS),
            "disk_format": choice(&DISK_FORMATS),
            "created_at": read_only(json!("string")),
            "updated_at": read_only(json!("string")),
            "tags": {"type": "array", "items": {"type": "string", "maxLength": NAME_MAX}},
            "min_ram": {"type": "integer"},
            "min_disk": {"type": "integer"},
            "self": read_only(json!("string")),
            "file": read_only(json!("string")),
            "schema": read_only(json!("string")),
        },
        "additionalProperties": {"type": "string"},
        "links": [
            {"rel": "self", "href": "{self}"},
            {"rel": "enclosure", "href": "{file}"},
            {"rel": "describedby", "href": "{schema}"},
        ],
    })
}

fn member() -> Value {
    json!({
        "name": "member",
        "properties": {
            "member_id": {"type": "string"},
            "image_id": {"type": "string"},
            "status": {"type": "string", "enum": ["pending", "accepted", "rejected"]},
            "created_at": {"type": "string"},
            "updated_at": {"type": "string"},
            "schema": {"readOnly": true, "type": "string"},
        },
    })
}
