//! What this deployment consists of: zones, extensions, services, hosts.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use cairn_gateway::{ApiError, ApiResult, Caller, Query};
use cairn_state::Tx;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Svc;
use super::view::time;
use crate::ZONE;
use crate::capacity::{self, BACKEND};
use crate::model::{BY_LISTED, LISTED, Snapshot, Volume};

/// `GET /os-availability-zone`
pub async fn zones(_: Caller) -> Json<Value> {
    Json(json!({"availabilityZoneInfo": [{"zoneName": ZONE, "zoneState": {"available": true}}]}))
}

/// The parts of the API that were extensions once, and that are built.
const EXTENSIONS: [(&str, &str); 16] = [
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

/// The services of the field's own names: one that schedules, and one for each node with disks.
fn rows(tx: &mut Tx) -> ApiResult<Vec<(&'static str, String)>> {
    let pools = capacity::pools(tx)?;
    let mut rows: Vec<_> = pools.iter().map(|p| ("cinder-volume", format!("{}@{BACKEND}", p.node))).collect();
    if let Some(first) = pools.first() {
        rows.insert(0, ("cinder-scheduler", first.node.clone()));
    }
    Ok(rows)
}

/// `GET /os-services[?binary=...][&host=...]`
pub async fn services(State(svc): Svc, caller: Caller, query: Query) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let matches = |binary: &str, host: &str| {
        let binary_ok = query.get("binary").is_none_or(|b| b == binary);
        binary_ok && query.get("host").is_none_or(|h| h == host || host.split('@').next() == Some(h))
    };
    let shown: Vec<_> = svc
        .store
        .read(rows)?
        .iter()
        .filter(|(binary, host)| matches(binary, host))
        .map(|(binary, host)| {
            json!({
                "binary": binary,
                "host": host,
                "zone": ZONE,
                "status": "enabled",
                "state": "up",
                "updated_at": now(),
                "disabled_reason": null,
            })
        })
        .collect();
    Ok(Json(json!({"services": shown})))
}

/// `GET /os-hosts`
pub async fn hosts(State(svc): Svc, caller: Caller) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let shown: Vec<_> = svc
        .store
        .read(rows)?
        .iter()
        .map(|(binary, host)| {
            json!({
                "service-status": "available",
                "service": binary,
                "zone": ZONE,
                "service-state": "enabled",
                "host_name": host,
                "last-update": now(),
            })
        })
        .collect();
    Ok(Json(json!({"hosts": shown})))
}

/// `GET /os-hosts/{host}`: what is on a node, in all and by project.
pub async fn show_host(State(svc): Svc, caller: Caller, Path(host): Path<String>) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let node = host.split('@').next().unwrap_or_default();
    let (volumes, snapshots) = svc.store.read(|tx| {
        if !capacity::pools(tx)?.iter().any(|p| p.node == node) {
            return Err(ApiError::not_found("Host", &host));
        }
        Ok((tx.by_index::<Volume>(BY_LISTED, LISTED)?, tx.by_index::<Snapshot>(BY_LISTED, LISTED)?))
    })?;
    let mut sums: BTreeMap<String, [u64; 4]> = BTreeMap::from([(TOTAL.to_owned(), [0; 4])]);
    let mut add = |project: &str, amounts: [u64; 4]| {
        for key in [TOTAL, project] {
            let sum = sums.entry(key.to_owned()).or_default();
            sum.iter_mut().zip(amounts).for_each(|(s, a)| *s += a);
        }
    };
    volumes.iter().filter(|v| v.node == node).for_each(|v| add(&v.project_id, [1, v.size_gb, 0, 0]));
    snapshots.iter().filter(|s| s.node == node).for_each(|s| add(&s.project_id, [0, 0, 1, s.size_gb]));
    let rows: Vec<_> = sums.iter().map(|(project, sum)| host_row(&host, project, *sum)).collect();
    Ok(Json(json!({"host": rows})))
}

/// The row that sums up all projects; it sorts before any project's id.
const TOTAL: &str = "(total)";

fn host_row(host: &str, project: &str, sum: [u64; 4]) -> Value {
    let [volumes, volume_gb, snapshots, snapshot_gb] = sum.map(|n| n.to_string());
    json!({"resource": {
        "host": host,
        "project": project,
        "volume_count": volumes,
        "total_volume_gb": volume_gb,
        "snapshot_count": snapshots,
        "total_snapshot_gb": snapshot_gb,
    }})
}
