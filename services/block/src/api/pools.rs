//! `/scheduler-stats/get_pools` and `/capabilities`: what the nodes' disks hold. For administrators.

use axum::Json;
use axum::extract::{Path, State};
use cairn_gateway::{ApiError, ApiResult, Caller, Query};
use cairn_state::{Abort, Tx};
use serde_json::{Value, json};

use super::Svc;
use super::info;
use crate::capacity::{self, BACKENDS, CAPABILITIES, OVERCOMMIT, Pool};
use crate::elsewhere;
use crate::model::GIB;

fn capability(pool: &Shown, name: &str) -> &'static str {
    pool.capabilities.iter().find(|(k, _)| *k == name).map_or("", |(_, v)| v)
}

/// A pool as it is shown: of a node's backend, or of one elsewhere.
struct Shown {
    node: String,
    backend: String,
    capabilities: &'static [(&'static str, &'static str)],
    size: u64,
    free: u64,
    provisioned_gb: u64,
    up: bool,
}

/// All pools: those of nodes, then those elsewhere.
fn all(tx: &mut Tx) -> Result<Vec<Shown>, Abort> {
    let own = |pool: &Pool, backend: &str| Shown {
        node: pool.node.clone(),
        backend: backend.to_owned(),
        capabilities: &CAPABILITIES,
        size: pool.size,
        free: pool.free,
        provisioned_gb: pool.provisioned_gb,
        up: true,
    };
    let pools = capacity::pools(tx)?;
    let mut shown: Vec<Shown> =
        pools.iter().flat_map(|pool| BACKENDS.map(|backend| own(pool, backend))).collect();
    shown.extend(elsewhere::pools(tx)?.into_iter().map(|pool| Shown {
        node: elsewhere::HOST.to_owned(),
        backend: pool.backend,
        capabilities: &elsewhere::CAPABILITIES,
        size: pool.size,
        free: pool.free,
        provisioned_gb: pool.provisioned_gb,
        up: pool.up,
    }));
    Ok(shown)
}

fn detail(pool: &Shown) -> Value {
    json!({
        "name": capacity::host_name(&pool.node, &pool.backend),
        "capabilities": {
            "volume_backend_name": pool.backend,
            "vendor_name": capability(pool, "vendor_name"),
            "storage_protocol": capability(pool, "storage_protocol"),
            "driver_version": env!("CARGO_PKG_VERSION"),
            "total_capacity_gb": pool.size as f64 / GIB as f64,
            "free_capacity_gb": pool.free as f64 / GIB as f64,
            "provisioned_capacity_gb": pool.provisioned_gb,
            "backend_state": if pool.up { "up" } else { "down" },
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
    let pools = svc.store.read(all)?;
    let row = |pool: &Shown| match with_detail {
        true => detail(pool),
        false => json!({"name": capacity::host_name(&pool.node, &pool.backend)}),
    };
    let rows: Vec<_> = pools.iter().map(row).collect();
    Ok(Json(json!({"pools": rows})))
}

/// `GET /capabilities/{host}`
pub async fn capabilities(
    State(svc): Svc,
    caller: Caller,
    Path(host): Path<String>,
) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let pools = svc.store.read(all)?;
    let found = capacity::parse_host(&host)
        .and_then(|(node, backend)| pools.iter().find(|p| p.node == node && p.backend == backend));
    let pool = found.ok_or_else(|| ApiError::not_found("Service", &host))?;
    Ok(Json(json!({
        "namespace": format!("OS::Storage::Capabilities::{}", pool.node),
        "vendor_name": capability(pool, "vendor_name"),
        "volume_backend_name": pool.backend,
        "pool_name": pool.backend,
        "driver_version": env!("CARGO_PKG_VERSION"),
        "storage_protocol": capability(pool, "storage_protocol"),
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
