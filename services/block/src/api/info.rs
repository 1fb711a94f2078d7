//! What this deployment consists of: zones and extensions.

use axum::Json;
use cairn_gateway::Caller;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::view::time;
use crate::ZONE;

/// `GET /os-availability-zone`
pub async fn zones(_: Caller) -> Json<Value> {
    Json(json!({"availabilityZoneInfo": [{"zoneName": ZONE, "zoneState": {"available": true}}]}))
}

/// The parts of the API that were extensions once, and that are built.
const EXTENSIONS: [(&str, &str); 20] = [
    ("os-vol-tenant-attr", "VolumeTenantAttribute"),
    ("os-vol-host-attr", "VolumeHostAttribute"),
    ("os-vol-image-meta", "VolumeImageMetadata"),
    ("os-extended-snapshot-attributes", "ExtendedSnapshotAttributes"),
    ("os-admin-actions", "AdminActions"),
    ("os-volume-actions", "VolumeActions"),
    ("os-snapshot-actions", "SnapshotActions"),
    ("os-types-manage", "TypesManage"),
    ("os-types-extra-specs", "TypesExtraSpecs"),
    ("os-volume-type-access", "VolumeTypeAccess"),
    ("os-quota-sets", "Quotas"),
    ("os-services", "Services"),
    ("os-availability-zone", "AvailabilityZones"),
    ("os-hosts", "Hosts"),
    ("qos-specs", "Qos_specs_manage"),
    ("os-volume-transfer", "VolumeTransfer"),
    ("os-volume-manage", "VolumeManage"),
    ("os-snapshot-manage", "SnapshotManage"),
    ("encryption", "VolumeTypeEncryption"),
    ("backups", "Backups"),
];

/// `GET /extensions`
pub async fn extensions(_: Caller) -> Json<Value> {
    let rows: Vec<_> = EXTENSIONS
        .iter()
        .map(|(alias, name)| {
            json!({
                "alias": alias,
                "name": name,
                "description": format!("{name} support."),
                "updated": "2011-06-25T00:00:00+00:00",
                "links": [],
            })
        })
        .collect();
    Json(json!({"extensions": rows}))
}

/// This moment, as this API writes it.
pub fn now() -> String {
    time(Timestamp::now())
}
