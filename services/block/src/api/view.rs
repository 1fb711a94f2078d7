//! How volumes and snapshots look in answers, by microversion and by who asks.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::context::Context;
use crate::ZONE;
use crate::elsewhere;
use crate::model::{Attachment, Metadata, Snapshot, Volume};

/// A time as Cinder writes it.
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6f").to_string()
}

/// A volume in a list without details.
pub fn volume_brief(ctx: &Context, v: &Volume) -> Value {
    json!({"id": v.id, "name": v.name, "links": ctx.links("volumes", &v.id)})
}

/// A volume as creating and updating answer with it: without what only showing tells.
pub fn volume(ctx: &Context, v: &Volume, type_name: &str) -> Value {
    let attachments: Vec<_> = v.attachments.iter().map(|a| attachment(ctx, v, a)).collect();
    let mut body = json!({
        "id": v.id,
        "name": v.name,
        "description": v.description,
        "size": v.size_gb,
        "status": v.status.name(),
        "bootable": if v.bootable { "true" } else { "false" },
        "availability_zone": ZONE,
        "attachments": attachments,
        "metadata": metadata(v),
        "volume_type": type_name,
        "snapshot_id": v.snapshot_id,
        "source_volid": v.source_volid,
        "user_id": v.user_id,
        "consistencygroup_id": null,
        "encrypted": v.key.is_some(),
        "multiattach": v.multiattach,
        "replication_status": null,
        "created_at": time(v.created_at),
        "updated_at": v.updated_at.map(time),
        "links": ctx.links("volumes", &v.id),
    });
    if ctx.caller.is_admin() {
        body["migration_status"] = migration(v);
    }
    by_version(ctx, v, &mut body);
    body
}

/// The keys that microversions added.
fn by_version(ctx: &Context, v: &Volume, body: &mut Value) {
    let admin = ctx.caller.is_admin();
    let added = [
        (13, true, "group_id", json!(v.group_id)),
        (21, admin, "provider_id", Value::Null),
        (48, true, "shared_targets", json!(false)),
        (48, true, "service_uuid", Value::Null),
        (61, admin, "cluster_name", Value::Null),
        (63, true, "volume_type_id", json!(v.type_id)),
        (65, true, "consumes_quota", json!(true)),
    ];
    if let Some(key) = v.key.as_ref().filter(|_| ctx.minor >= 64) {
        body["encryption_key_id"] = json!(key.id);
    }
    for (since, shown, key, value) in added {
        if ctx.minor >= since && shown {
            body[key] = value;
        }
    }
}

/// A volume as it is shown, alone or in a detailed list.
pub fn volume_detail(ctx: &Context, v: &Volume, type_name: &str) -> Value {
    let mut body = volume(ctx, v, type_name);
    body["os-vol-tenant-attr:tenant_id"] = json!(v.project_id);
    if !v.image_metadata.is_empty() {
        body["volume_image_metadata"] = json!(v.image_metadata);
    }
    if ctx.caller.is_admin() {
        // One that no node can take is nowhere.
        let host = (!v.node.is_empty()).then(|| elsewhere::host_of(v));
        body["os-vol-host-attr:host"] = json!(host);
        body["os-vol-mig-status-attr:migstat"] = migration(v);
        body["os-vol-mig-status-attr:name_id"] = Value::Null;
    }
    body
}

fn migration(v: &Volume) -> Value {
    if v.migrated { json!("success") } else { Value::Null }
}

/// The user's notes, and whether the volume may only be read.
fn metadata(v: &Volume) -> Metadata {
    let mut shown = v.metadata.clone();
    if v.read_only {
        shown.insert("readonly".into(), "True".into());
    } else if !shown.contains_key("readonly") && !v.attachments.is_empty() {
        shown.insert("readonly".into(), "False".into());
    }
    shown
}

fn attachment(ctx: &Context, v: &Volume, a: &Attachment) -> Value {
    json!({
        "id": v.id,
        "attachment_id": a.id,
        "volume_id": v.id,
        "server_id": a.server_id,
        "host_name": a.host.as_ref().filter(|_| ctx.caller.is_admin()),
        "device": a.device,
        "attached_at": time(a.attached_at),
    })
}

/// A snapshot, without details.
pub fn snapshot(ctx: &Context, s: &Snapshot) -> Value {
    let mut body = json!({
        "id": s.id,
        "name": s.name,
        "description": s.description,
        "volume_id": s.volume_id,
        "size": s.size_gb,
        "status": s.status.name(),
        "metadata": s.metadata,
        "created_at": time(s.created_at),
        "updated_at": s.updated_at.map(time),
    });
    if ctx.minor >= 41 {
        body["user_id"] = json!(s.user_id);
    }
    if ctx.minor >= 65 {
        body["consumes_quota"] = json!(true);
    }
    body
}

/// A snapshot with details.
pub fn snapshot_detail(ctx: &Context, s: &Snapshot) -> Value {
    let mut body = snapshot(ctx, s);
    let progress = s.progress.as_deref().unwrap_or(if s.made { "100%" } else { "0%" });
    body["os-extended-snapshot-attributes:progress"] = json!(progress);
    body["os-extended-snapshot-attributes:project_id"] = json!(s.project_id);
    if ctx.minor >= 14 {
        body["group_snapshot_id"] = json!(s.group_snapshot_id);
    }
    body
}
