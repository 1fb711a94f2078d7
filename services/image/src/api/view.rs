//! How images and members look in answers.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::model::{Image, Member};

/// A time as Glance writes it.
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// An image. Custom properties stand beside its own attributes; they can never take those' names.
pub fn image(i: &Image) -> Value {
    let mut body: Map<String, Value> = i.properties.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
    let own = json!({
        "id": i.id,
        "name": i.name,
        "status": i.status.name(),
        "visibility": i.visibility.name(),
        "owner": i.owner,
        "disk_format": i.disk_format,
        "container_format": i.container_format,
        "size": i.size,
        "virtual_size": i.virtual_size,
        "checksum": i.checksum,
        "os_hash_algo": i.os_hash_value.as_ref().map(|_| "sha512"),
        "os_hash_value": i.os_hash_value,
        "min_disk": i.min_disk,
        "min_ram": i.min_ram,
        "protected": i.protected,
        "os_hidden": i.os_hidden,
        "tags": i.tags,
        "created_at": time(i.created_at),
        "updated_at": time(i.updated_at),
        "self": format!("/v2/images/{}", i.id),
        "file": format!("/v2/images/{}/file", i.id),
        "schema": "/v2/schemas/image",
    });
    if let Value::Object(own) = own {
        body.extend(own);
    }
    Value::Object(body)
}

/// A member.
pub fn member(m: &Member) -> Value {
    json!({
        "image_id": m.image_id,
        "member_id": m.member_id,
        "status": m.status,
        "created_at": time(m.created_at),
        "updated_at": time(m.updated_at),
        "schema": "/v2/schemas/member",
    })
}
