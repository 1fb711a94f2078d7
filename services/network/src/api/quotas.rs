//! Quotas as the API shows them: a project's limits, the defaults, and what is used.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use cairn_gateway::{ApiError, ApiResult, Body, Caller};
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::attrs;
use crate::logic::quotas::{self, DEFAULTS};
use crate::model::quota::Quota;
use crate::service::Service;

/// The routes of quotas.
pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/v2.0/quotas", get(list))
        .route("/v2.0/quotas/{project}", get(show).put(update).delete(reset))
        .route("/v2.0/quotas/{project}/default", get(defaults))
        .route("/v2.0/quotas/{project}/details", get(details))
        .route("/v2.0/quotas/{project}/details.json", get(details))
}

fn require_sight(caller: &Caller, project: &str) -> ApiResult<()> {
    if caller.sees(project) {
        Ok(())
    } else {
        Err(ApiError::forbidden("Only admin can see another project's quota."))
    }
}

async fn list(State(svc): State<Arc<Service>>, caller: Caller) -> ApiResult<Json<Value>> {
    let own = svc.store.read(|tx| ApiResult::Ok(tx.list_unfenced::<Quota>()?))?;
    let mut quotas = Vec::new();
    for quota in own.iter().filter(|q| caller.sees(&q.project_id)) {
        let mut limits = svc.store.read(|tx| quotas::limits(tx, &quota.project_id)).map(as_map)?;
        limits.insert("project_id".into(), json!(quota.project_id));
        limits.insert("tenant_id".into(), json!(quota.project_id));
        quotas.push(limits);
    }
    Ok(Json(json!({"quotas": quotas})))
}

fn as_map(limits: BTreeMap<String, i64>) -> Map<String, Value> {
    limits.into_iter().map(|(k, v)| (k, json!(v))).collect()
}

async fn show(
    State(svc): State<Arc<Service>>,
    caller: Caller,
    Path(project): Path<String>,
) -> ApiResult<Json<Value>> {
    require_sight(&caller, &project)?;
    Ok(Json(json!({"quota": svc.store.read(|tx| quotas::limits(tx, &project))?})))
}

async fn defaults(caller: Caller, Path(project): Path<String>) -> ApiResult<Json<Value>> {
    require_sight(&caller, &project)?;
    Ok(Json(json!({"quota": BTreeMap::from(DEFAULTS)})))
}

async fn details(
    State(svc): State<Arc<Service>>,
    caller: Caller,
    Path(project): Path<String>,
) -> ApiResult<Json<Value>> {
    require_sight(&caller, &project)?;
    let quota = svc.store.read(|tx| {
        let mut quota = Map::new();
        for (resource, limit) in quotas::limits(tx, &project)? {
            let used = quotas::used(tx, &project, &resource)?;
            quota.insert(resource, json!({"limit": limit, "used": used, "reserved": 0}));
        }
        ApiResult::Ok(quota)
    })?;
    Ok(Json(json!({"quota": quota})))
}

async fn update(
    State(svc): State<Arc<Service>>,
    caller: Caller,
    Path(project): Path<String>,
    Body(mut body): Body<Value>,
) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let changes = read_limits(body.get_mut("quota").map(Value::take).unwrap_or_default())?;
    let limits = svc
        .store
        .transact(|tx| {
            let found = tx.get::<Quota>(&project)?;
            let mut quota =
                found.unwrap_or_else(|| Quota { project_id: project.clone(), limits: BTreeMap::new() });
            quota.limits.extend(changes.clone());
            tx.put(&quota)?;
            quotas::limits(tx, &project)
        })
        .await?;
    Ok(Json(json!({"quota": limits})))
}

fn read_limits(value: Value) -> ApiResult<BTreeMap<String, i64>> {
    let Value::Object(given) = value else {
        return Err(ApiError::bad_request("Unable to find 'quota' in request body"));
    };
    let mut limits = BTreeMap::new();
    for (resource, value) in given {
        // Clients say what is checked, and for whom; neither is a limit.
        if ["tenant_id", "project_id", "force", "check_limit"].contains(&resource.as_str()) {
            continue;
        }
        if !DEFAULTS.iter().any(|(known, _)| *known == resource) {
            return Err(ApiError::bad_request(format!("Unrecognized attribute(s) '{resource}'")));
        }
        let limit = attrs::as_number(&value).filter(|n| (-1..=i64::from(i32::MAX)).contains(n));
        let limit = limit.ok_or_else(|| attrs::invalid(&resource, &format!("'{value}' is not a limit")))?;
        limits.insert(resource, limit);
    }
    Ok(limits)
}

async fn reset(
    State(svc): State<Arc<Service>>,
    caller: Caller,
    Path(project): Path<String>,
) -> ApiResult<StatusCode> {
    caller.require_admin()?;
    svc.store.transact(|tx| ApiResult::Ok(tx.delete::<Quota>(&project)?)).await?;
    Ok(StatusCode::NO_CONTENT)
}
