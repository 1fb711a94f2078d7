//! `/resource_providers`: the nodes, what they have, what of it is used and by whom. For administrators.

use axum::Json;
use axum::extract::{Path, State};
use cairn_gateway::{ApiError, ApiResult, Caller, Query};
use serde_json::{Map, Value, json};

use super::version::Minor;
use super::{Svc, parse_resources, traits_match};
use crate::model::{Allocation, InventoryRow, ResourceProvider};

fn load(svc: &Svc, id: &str) -> ApiResult<ResourceProvider> {
    svc.store.read(|tx| tx.get::<ResourceProvider>(id))?.ok_or_else(|| {
        ApiError::new(http::StatusCode::NOT_FOUND, format!("No resource provider with uuid {id} found"))
    })
}

/// A provider as the API shows it. Every node is the root of its own tree.
fn view(p: &ResourceProvider, Minor(minor): Minor) -> Value {
    let mut rels = vec!["inventories", "usages"];
    if minor >= 1 {
        rels.push("aggregates");
    }
    if minor >= 6 {
        rels.push("traits");
    }
    if minor >= 11 {
        rels.push("allocations");
    }
    let base = format!("/placement/resource_providers/{}", p.uuid);
    let mut links = vec![json!({"rel": "self", "href": base})];
    links.extend(rels.iter().map(|rel| json!({"rel": rel, "href": format!("{base}/{rel}")})));
    let mut body = json!({"uuid": p.uuid, "name": p.name, "generation": p.generation, "links": links});
    if minor >= 14 {
        body["parent_provider_uuid"] = Value::Null;
        body["root_provider_uuid"] = json!(p.uuid);
    }
    body
}

/// `GET /resource_providers`, filtered by name, uuid, in_tree, member_of, resources and required.
pub async fn list(State(svc): Svc, caller: Caller, minor: Minor, query: Query) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let wanted = query.get("resources").map(parse_resources).transpose()?.unwrap_or_default();
    let all = svc.store.read(|tx| tx.list_unfenced::<ResourceProvider>())?;
    let is = |key: &str, value: &str| query.get(key).is_none_or(|q| q == value);
    let found: Vec<_> = all
        .iter()
        .filter(|p| is("name", &p.name) && is("uuid", &p.uuid) && is("in_tree", &p.uuid))
        .filter(|_| query.all("member_of").all(|m| m.starts_with('!')))
        .filter(|p| p.misfit(&wanted).is_none() && traits_match(&query, "required", &p.traits))
        .map(|p| view(p, minor))
        .collect();
    Ok(Json(json!({"resource_providers": found})))
}

/// `GET /resource_providers/{id}`
pub async fn show(
    State(svc): Svc,
    caller: Caller,
    minor: Minor,
    Path(id): Path<String>,
) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    Ok(Json(view(&load(&State(svc), &id)?, minor)))
}

fn row_view(row: &InventoryRow) -> Value {
    json!({
        "total": row.total,
        "reserved": row.reserved,
        "min_unit": 1,
        "max_unit": row.total,
        "step_size": 1,
        "allocation_ratio": row.allocation_ratio,
    })
}

/// `GET /resource_providers/{id}/inventories`
pub async fn inventories(State(svc): Svc, caller: Caller, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let p = load(&State(svc), &id)?;
    let rows: Map<String, Value> = p.inventories.iter().map(|(c, row)| (c.clone(), row_view(row))).collect();
    Ok(Json(json!({"resource_provider_generation": p.generation, "inventories": rows})))
}

/// `GET /resource_providers/{id}/inventories/{class}`
pub async fn inventory(
    State(svc): Svc,
    caller: Caller,
    Path((id, class)): Path<(String, String)>,
) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let p = load(&State(svc), &id)?;
    let row = p.inventories.get(&class).ok_or_else(|| ApiError::not_found("Inventory of class", &class))?;
    let mut body = row_view(row);
    body["resource_provider_generation"] = json!(p.generation);
    Ok(Json(body))
}

/// `GET /resource_providers/{id}/usages`
pub async fn usages(State(svc): Svc, caller: Caller, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let p = load(&State(svc), &id)?;
    let used = |class: &String| (class.clone(), json!(p.used.get(class).copied().unwrap_or(0)));
    let rows: Map<String, Value> = p.inventories.keys().map(used).collect();
    Ok(Json(json!({"resource_provider_generation": p.generation, "usages": rows})))
}

/// `GET /resource_providers/{id}/allocations`: who holds what of it.
pub async fn allocations(
    State(svc): Svc,
    caller: Caller,
    minor: Minor,
    Path(id): Path<String>,
) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let svc = State(svc);
    let p = load(&svc, &id)?;
    let held = svc.store.read(|tx| tx.by_index::<Allocation>("provider", &p.uuid))?;
    let rows: Map<String, Value> = held
        .iter()
        .map(|a| {
            let mut row = json!({"resources": a.amounts.get(&p.uuid)});
            if minor >= Minor(28) {
                row["consumer_generation"] = json!(a.generation);
            }
            (a.consumer.clone(), row)
        })
        .collect();
    Ok(Json(json!({"resource_provider_generation": p.generation, "allocations": rows})))
}

/// `GET /resource_providers/{id}/traits`
pub async fn traits(State(svc): Svc, caller: Caller, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let p = load(&State(svc), &id)?;
    Ok(Json(json!({"resource_provider_generation": p.generation, "traits": p.traits})))
}

/// `GET /resource_providers/{id}/aggregates`: nodes are in none.
pub async fn aggregates(
    State(svc): Svc,
    caller: Caller,
    minor: Minor,
    Path(id): Path<String>,
) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let p = load(&State(svc), &id)?;
    let mut body = json!({"aggregates": []});
    if minor >= Minor(19) {
        body["resource_provider_generation"] = json!(p.generation);
    }
    Ok(Json(body))
}
