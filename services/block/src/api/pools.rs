//! `/scheduler-stats/get_pools` and `/capabilities`: what the nodes' disks hold. For administrators.

use axum::Json;
use axum::extract::{Path, State};
use cairn_gateway::{ApiError, ApiResult, Caller, Query};
use serde_json::{Value, json};

use super::Svc;
use super::info;
use crate::capacity::{self, BACKENDS, CAPABILITIES, OVERCOMMIT, Pool};
use crate::model::GIB;

fn capability(name: &str) -> &'static str {
    CAPABILITIES.iter().find(|(k, _)| *k == name).map_or("", |(_, v)| v)
}

fn detail(pool: &Pool, backend: &str) -> Value {
    json!({
        "name": capacity::host_name(&pool.node, backend),
        "capabilities": {
            "volume_backend_name": backend,
            "vendor_name": capability("vendor_name"),
            "storage_protocol": capability("storage_protocol"),
            "driver_version": env!("CARGO_PKG_VERSION"),
            "total_capacity_gb": pool.size as f64 / GIB as f64,
            "free_capacity_gb": pool.free as f64 / GIB as f64,
            "provisioned_capacity_gb": pool.provisioned_gb,
            "max_over_subscription_ratio": OVERCOMMIT.to_string(),
            "thin_provisioning_support": true,
            "reserved_percentage": 0,
            "QoS_support": true,
            "timestamp": info::now(),
        },
    })
}

/// `GET /scheduler-stats/get_pools[?detail=true]`
pub async fn list(State(svc): Svc, caller: Caller, query: Query) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let with_detail = query.flag("detail")?.unwrap_or(false);
    let pools = svc.store.read(capacity::pools)?;
    let row = |pool: &Pool, backend: &str| match with_detail {
        true => detail(pool, backend),
        false => json!({"name": capacity::host_name(&pool.node, backend)}),
    };
    let rows: Vec<_> = pools.iter().flat_map(|pool| BACKENDS.map(|backend| row(pool, backend))).collect();
    Ok(Json(json!({"pools": rows})))
}

/// `GET /capabilities/{host}`
pub async fn capabilities(
    State(svc): Svc,
    caller: Caller,
    Path(host): Path<String>,
) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let pools = svc.store.read(capacity::pools)?;
    let found = capacity::parse_host(&host)
        .and_then(|(node, backend)| Some((pools.iter().find(|p| p.node == node)?, backend)));
    let (pool, backend) = found.ok_or_else(|| ApiError::not_found("Service", &host))?;
    Ok(Json(json!({
        "namespace": format!("OS::Storage::Capabilities::{}", pool.node),
        "vendor_name": capability("vendor_name"),
        "volume_backend_name": backend,
        "pool_name": backend,
        "driver_version": env!("CARGO_PKG_VERSION"),
        "storage_protocol": capability("storage_protocol"),
        "display_name": null,
        "description": null,
        "visibility": "public",
        "replication_targets": [],
        "properties": {
            "thin_provisioning": {
                "title": "Thin Provisioning",
                "description": "Volumes take room as they are written.",
                "type": "boolean",
            },
        },
    })))
}
