//! Limits and quotas: what a project may have, and has.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::response::Response;
use axum::{Json, Router, routing};
use cairn_gateway::{ApiError, ApiResult, Body, Minor, Query};
use cairn_network::model::{FloatingIp, SecurityGroup};
use cairn_state::Tx;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::Routes;
use super::ask::{Ask, Svc, empty};
use super::form::{self, inner, integer};
use super::versions::SPOKEN;
use crate::model::{Keypair, Quota, ServerGroup};
use crate::quota::{self, CLASS, DEFAULTS};

/// The routes.
pub fn routes() -> Routes {
    Router::new()
        .route("/limits", routing::get(limits))
        .route("/os-quota-sets/{project}", routing::get(show).put(update).delete(reset))
        .route("/os-quota-sets/{project}/defaults", routing::get(defaults))
        .route("/os-quota-sets/{project}/detail", routing::get(detail))
        .route("/os-quota-class-sets/{class}", routing::get(class).put(update_class))
}

const OF_THE_NETWORK: [&str; 4] = ["floating_ips", "fixed_ips", "security_groups", "security_group_rules"];
const OF_FILES: [&str; 3] = ["injected_files", "injected_file_content_bytes", "injected_file_path_bytes"];

/// The resources whose quota a microversion shows.
fn resources(mv: Minor) -> impl Iterator<Item = &'static str> {
    let shown = move |name: &&str| {
        let gone =
            (mv.since(36) && OF_THE_NETWORK.contains(name)) || (mv.since(57) && OF_FILES.contains(name));
        !gone
    };
    DEFAULTS.into_iter().map(|(name, _)| name).filter(shown)
}

fn quota_set(limits: &BTreeMap<String, i64>, mv: Minor) -> Map<String, Value> {
    resources(mv).map(|name| (name.to_owned(), json!(limits.get(name)))).collect()
}

/// Refuses who asks about another project without being an administrator.
fn may_read(ask: &Ask, project: &str) -> ApiResult<()> {
    match ask.caller.sees(project) {
        true => Ok(()),
        false => ask.admin("os_compute_api:os-quota-sets:show"),
    }
}

async fn show(State(svc): Svc, ask: Ask, Path(project): Path<String>) -> ApiResult<Json<Value>> {
    may_read(&ask, &project)?;
    let limits = svc.store.read(|tx| quota::limits(tx, &project)).map_err(ApiError::from)?;
    let mut set = quota_set(&limits, ask.mv);
    set.insert("id".into(), json!(project));
    Ok(Json(json!({"quota_set": set})))
}

async fn defaults(State(svc): Svc, ask: Ask, Path(project): Path<String>) -> ApiResult<Json<Value>> {
    let limits = svc.store.read(quota::defaults).map_err(ApiError::from)?;
    let mut set = quota_set(&limits, ask.mv);
    set.insert("id".into(), json!(project));
    Ok(Json(json!({"quota_set": set})))
}

async fn detail(State(svc): Svc, ask: Ask, Path(project): Path<String>) -> ApiResult<Json<Value>> {
    may_read(&ask, &project)?;
    svc.store.read(|tx| {
        let limits = quota::limits(tx, &project)?;
        let used = used(tx, &project, &ask.caller.user_id)?;
        let row = |name: &str| {
            let in_use = used.get(name).copied().unwrap_or(0);
            json!({"limit": limits.get(name), "in_use": in_use, "reserved": 0})
        };
        let mut set: Map<String, Value> =
            resources(ask.mv).map(|name| (name.to_owned(), row(name))).collect();
        set.insert("id".into(), json!(project));
        Ok(Json(json!({"quota_set": set})))
    })
}

/// What a project has of each resource that is counted.
fn used(tx: &mut Tx, project: &str, user: &str) -> ApiResult<BTreeMap<&'static str, i64>> {
    let usage = quota::usage(tx, project)?;
    Ok(BTreeMap::from([
        ("instances", usage.instances),
        ("cores", usage.cores),
        ("ram", usage.ram_mb),
        ("server_groups", tx.by_index::<ServerGroup>("project", project)?.len() as i64),
        ("key_pairs", tx.by_index::<Keypair>("user", user)?.len() as i64),
    ]))
}

/// The limits in a body, -1 for none; what this microversion does not show is refused.
fn parse(set: &Value, mv: Minor) -> ApiResult<(BTreeMap<String, i64>, bool)> {
    let map = set.as_object().ok_or_else(|| ApiError::bad_request("A quota set is an object."))?;
    let mut limits = BTreeMap::new();
    let mut force = false;
    for (key, value) in map {
        match key.as_str() {
            "tenant_id" | "id" => {}
            "force" => force = form::boolean("force", value)?,
            name if resources(mv).any(|r| r == name) => {
                limits.insert(name.to_owned(), integer(name, value, -1, 0x7fff_ffff)?);
            }
            other => return Err(form::unexpected(other)),
        }
    }
    Ok((limits, force))
}

async fn update(
    State(svc): Svc,
    ask: Ask,
    Path(project): Path<String>,
    Body(json): Body<Value>,
) -> ApiResult<Json<Value>> {
    ask.admin("os_compute_api:os-quota-sets:update")?;
    let (wanted, force) = parse(inner(&json, "quota_set")?, ask.mv)?;
    svc.store
        .transact(|tx| {
            let used = used(tx, &project, "")?;
            let short = |(name, limit): (&String, &i64)| {
                let in_use = used.get(name.as_str()).copied().unwrap_or(0);
                (*limit >= 0 && *limit < in_use).then(|| {
                    ApiError::bad_request(format!("Quota limit {limit} for {name} must be greater than or equal to already used and reserved {in_use}."))
                })
            };
            if let Some(e) = wanted.iter().find_map(short).filter(|_| !force) {
                return Err(e);
            }
            change(tx, &project, &wanted)?;
            let limits = quota::limits(tx, &project)?;
            Ok(Json(json!({"quota_set": quota_set(&limits, ask.mv)})))
        })
        .await
}

fn change(tx: &mut Tx, id: &str, wanted: &BTreeMap<String, i64>) -> ApiResult<()> {
    let mut quota = tx.get::<Quota>(id)?.unwrap_or_default();
    quota.project_id = id.to_owned();
    quota.limits.extend(wanted.clone());
    Ok(tx.put(&quota)?)
}

async fn reset(State(svc): Svc, ask: Ask, Path(project): Path<String>) -> ApiResult<Response> {
    ask.admin("os_compute_api:os-quota-sets:delete")?;
    svc.store.transact(|tx| tx.delete::<Quota>(&project)).await.map_err(ApiError::from)?;
    Ok(empty(StatusCode::ACCEPTED))
}

/// The resources of a quota class: since 2.50 like those of a quota set.
fn class_set(limits: &BTreeMap<String, i64>, mv: Minor) -> Map<String, Value> {
    let mut set = quota_set(limits, if mv.since(50) { Minor(mv.0.max(36)) } else { mv });
    if !mv.since(50) {
        set.retain(|k, _| !k.starts_with("server_group"));
        set.extend(OF_THE_NETWORK.map(|name| (name.to_owned(), json!(limits.get(name)))));
    }
    set
}

async fn class(State(svc): Svc, ask: Ask, Path(class): Path<String>) -> ApiResult<Json<Value>> {
    ask.admin("os_compute_api:os-quota-class-sets:show")?;
    let limits = svc.store.read(quota::defaults).map_err(ApiError::from)?;
    let mut set = class_set(&limits, ask.mv);
    set.insert("id".into(), json!(class));
    Ok(Json(json!({"quota_class_set": set})))
}

async fn update_class(
    State(svc): Svc,
    ask: Ask,
    Path(class): Path<String>,
    Body(json): Body<Value>,
) -> ApiResult<Json<Value>> {
    ask.admin("os_compute_api:os-quota-class-sets:update")?;
    let (wanted, _) =
        parse(inner(&json, "quota_class_set")?, if ask.mv.since(50) { ask.mv } else { Minor(SPOKEN.min) })?;
    if class != "default" {
        return Err(ApiError::bad_request("The only quota class is 'default'."));
    }
    svc.store
        .transact(|tx| {
            change(tx, CLASS, &wanted)?;
            let limits = quota::defaults(tx)?;
            Ok(Json(json!({"quota_class_set": class_set(&limits, ask.mv)})))
        })
        .await
}

/// GET /limits
async fn limits(State(svc): Svc, ask: Ask, query: Query) -> ApiResult<Json<Value>> {
    let project = match query.get("tenant_id") {
        Some(other) => {
            may_read(&ask, other)?;
            other.to_owned()
        }
        None => ask.caller.require_project()?.to_owned(),
    };
    svc.store.read(|tx| {
        let limits = quota::limits(tx, &project)?;
        let limit = |name: &str| json!(limits.get(name));
        let used = used(tx, &project, &ask.caller.user_id)?;
        let mut absolute = json!({
            "maxTotalInstances": limit("instances"), "maxTotalCores": limit("cores"), "maxTotalRAMSize": limit("ram"),
            "maxTotalKeypairs": limit("key_pairs"), "maxServerMeta": limit("metadata_items"),
            "maxServerGroups": limit("server_groups"), "maxServerGroupMembers": limit("server_group_members"),
            "totalInstancesUsed": used["instances"], "totalCoresUsed": used["cores"], "totalRAMUsed": used["ram"],
            "totalServerGroupsUsed": used["server_groups"],
        });
        if !ask.mv.since(36) {
            absolute["maxTotalFloatingIps"] = limit("floating_ips");
            absolute["maxSecurityGroups"] = limit("security_groups");
            absolute["maxSecurityGroupRules"] = limit("security_group_rules");
            absolute["totalFloatingIpsUsed"] = json!(tx.by_index::<FloatingIp>("project", &project)?.len());
            absolute["totalSecurityGroupsUsed"] = json!(tx.by_index::<SecurityGroup>("project", &project)?.len());
        }
        if !ask.mv.since(39) {
            absolute["maxImageMeta"] = limit("metadata_items");
        }
        if !ask.mv.since(57) {
            absolute["maxPersonality"] = limit("injected_files");
            absolute["maxPersonalitySize"] = limit("injected_file_content_bytes");
        }
        Ok(Json(json!({"limits": {"rate": [], "absolute": absolute}})))
    })
}
