//! `/limits`, `/os-quota-sets` and `/os-quota-class-sets`: what projects may use and what they do use.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use cairn_gateway::{ApiError, ApiResult, Body, Caller, Query};
use serde_json::{Value, json};

use super::Svc;
use super::input::{self, Fields};
use crate::model::QuotaSet;
use crate::quota::{self, DEFAULT_CLASS};

type Limits = BTreeMap<String, i64>;

/// `GET /limits`
pub async fn limits(State(svc): Svc, caller: Caller, query: Query) -> ApiResult<Json<Value>> {
    let asked = query.get("project_id").filter(|_| caller.is_admin());
    let project = asked.unwrap_or(caller.require_project()?);
    let (limits, usage) =
        svc.store.read(|tx| Ok::<_, ApiError>((quota::limits(tx, project)?, quota::usage(tx, project)?)))?;
    let limit = |name: &str| limits.get(name).copied().unwrap_or(-1);
    Ok(Json(json!({"limits": {"rate": [], "absolute": {
        "maxTotalVolumes": limit("volumes"),
        "maxTotalSnapshots": limit("snapshots"),
        "maxTotalVolumeGigabytes": limit("gigabytes"),
        "maxTotalBackups": limit("backups"),
        "maxTotalBackupGigabytes": limit("backup_gigabytes"),
        "totalVolumesUsed": usage.volumes,
        "totalSnapshotsUsed": usage.snapshots,
        "totalGigabytesUsed": usage.gigabytes,
        "totalBackupsUsed": usage.backups,
        "totalBackupGigabytesUsed": usage.backup_gigabytes,
    }}})))
}

fn require_sight(caller: &Caller, project: &str) -> ApiResult<()> {
    if caller.sees(project) {
        return Ok(());
    }
    Err(ApiError::forbidden("Only the quota of one's own project may be read."))
}

fn set_view(project: &str, limits: &Limits) -> Value {
    let mut body = json!(limits);
    body["id"] = json!(project);
    json!({"quota_set": body})
}

fn usage_view(project: &str, limits: &Limits, used: &BTreeMap<String, u64>) -> Value {
    let in_use = |name: &str| used.get(name).copied().unwrap_or(0);
    let row = |(name, limit): (&String, &i64)| {
        (name.clone(), json!({"limit": limit, "in_use": in_use(name), "reserved": 0}))
    };
    let mut body: serde_json::Map<String, Value> = limits.iter().map(row).collect();
    body.insert("id".into(), json!(project));
    json!({"quota_set": body})
}

/// `GET /os-quota-sets/{project}[?usage=true]`
pub async fn show(
    State(svc): Svc,
    caller: Caller,
    Path(project): Path<String>,
    query: Query,
) -> ApiResult<Json<Value>> {
    require_sight(&caller, &project)?;
    let with_usage = query.flag("usage")?.unwrap_or(false);
    let (limits, used) = svc.store.read(|tx| {
        let usage = quota::usage(tx, &project)?;
        Ok::<_, ApiError>((quota::limits(tx, &project)?, quota::used(tx, &usage)?))
    })?;
    Ok(Json(if with_usage { usage_view(&project, &limits, &used) } else { set_view(&project, &limits) }))
}

/// `GET /os-quota-sets/{project}/defaults`
pub async fn defaults(
    State(svc): Svc,
    caller: Caller,
    Path(project): Path<String>,
) -> ApiResult<Json<Value>> {
    require_sight(&caller, &project)?;
    Ok(Json(set_view(&project, &svc.store.read(quota::defaults)?)))
}

/// The limits a body sets. Names that no limit has are refused.
fn read(svc: &Svc, fields: &Fields) -> ApiResult<Limits> {
    let known = svc.store.read(quota::defaults)?;
    let mut limits = Limits::new();
    for (name, value) in fields.iter().filter(|(k, _)| !matches!(k.as_str(), "tenant_id" | "id" | "force")) {
        if !known.contains_key(name) {
            return Err(ApiError::bad_request(format!("Bad key '{name}' in quota set.")));
        }
        let number = value.as_i64().or_else(|| value.as_str()?.parse().ok());
        let limit = number
            .filter(|n| (-1..=i64::from(i32::MAX)).contains(n))
            .ok_or_else(|| input::invalid(name, "it must be a whole number, -1 for no limit"))?;
        limits.insert(name.clone(), limit);
    }
    Ok(limits)
}

async fn store(svc: &Svc, id: &str, limits: &Limits) -> ApiResult<Limits> {
    svc.store
        .transact(|tx| {
            let mut set = tx.get::<QuotaSet>(id)?.unwrap_or_default();
            set.project_id = id.into();
            set.limits.extend(limits.clone());
            tx.put(&set)?;
            if id == DEFAULT_CLASS { Ok(quota::defaults(tx)?) } else { Ok(quota::limits(tx, id)?) }
        })
        .await
}

/// `PUT /os-quota-sets/{project}`
pub async fn update(
    State(svc): Svc,
    caller: Caller,
    Path(project): Path<String>,
    Body(body): Body<Value>,
) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let limits = read(&State(svc.clone()), &input::inner(body, "quota_set")?)?;
    let now = store(&State(svc), &project, &limits).await?;
    Ok(Json(json!({"quota_set": now})))
}

/// `DELETE /os-quota-sets/{project}`: the defaults hold again.
pub async fn delete(State(svc): Svc, caller: Caller, Path(project): Path<String>) -> ApiResult<StatusCode> {
    caller.require_admin()?;
    svc.store.transact(|tx| tx.delete::<QuotaSet>(&project).map_err(ApiError::from)).await?;
    Ok(StatusCode::OK)
}

fn require_default(class: &str) -> ApiResult<()> {
    if class == "default" { Ok(()) } else { Err(ApiError::not_found("Quota class", class)) }
}

/// `GET /os-quota-class-sets/default`
pub async fn show_class(
    State(svc): Svc,
    caller: Caller,
    Path(class): Path<String>,
) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    require_default(&class)?;
    let mut body = json!(svc.store.read(quota::defaults)?);
    body["id"] = json!(class);
    Ok(Json(json!({"quota_class_set": body})))
}

/// `PUT /os-quota-class-sets/default`
pub async fn update_class(
    State(svc): Svc,
    caller: Caller,
    Path(class): Path<String>,
    Body(body): Body<Value>,
) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    require_default(&class)?;
    let limits = read(&State(svc.clone()), &input::inner(body, "quota_class_set")?)?;
    let now = store(&State(svc), DEFAULT_CLASS, &limits).await?;
    Ok(Json(json!({"quota_class_set": now})))
}
