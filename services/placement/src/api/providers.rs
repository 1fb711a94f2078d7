//! `/resource_providers`: the nodes, what they have, what of it is used and by whom. For administrators.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use cairn_gateway::{ApiError, ApiResult, Caller, Minor, Query};
use http::StatusCode;
use http::request::Parts;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Svc, parse_resources, traits_match};
use crate::Service;
use crate::model::{Allocation, InventoryRow, ResourceProvider};

/// The provider that the path names, for an administrator.
pub struct Provider(ResourceProvider);

#[derive(Deserialize)]
struct Named {
    id: String,
}

impl FromRequestParts<Arc<Service>> for Provider {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, svc: &Arc<Service>) -> ApiResult<Self> {
        Caller::from_request_parts(parts, svc).await?.require_admin()?;
        let path = Path::<Named>::from_request_parts(parts, svc).await;
        let Path(Named { id }) = path.map_err(|e| ApiError::new(e.status(), e.body_text()))?;
        let found = svc.store.read(|tx| tx.get::<ResourceProvider>(&id))?;
        let missing = || format!("No resource provider with uuid {id} found");
        found.map(Provider).ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, missing()))
    }
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
pub async fn show(minor: Minor, Provider(p): Provider) -> Json<Value> {
    Json(view(&p, minor))
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
pub async fn inventories(Provider(p): Provider) -> Json<Value> {
    let rows: Map<String, Value> = p.inventories.iter().map(|(c, row)| (c.clone(), row_view(row))).collect();
    of(&p, "inventories", json!(rows))
}

/// `GET /resource_providers/{id}/inventories/{class}`
pub async fn inventory(
    Provider(p): Provider,
    Path((_, class)): Path<(String, String)>,
) -> ApiResult<Json<Value>> {
    let row = p.inventories.get(&class).ok_or_else(|| ApiError::not_found("Inventory of class", &class))?;
    let mut body = row_view(row);
    body["resource_provider_generation"] = json!(p.generation);
    Ok(Json(body))
}

/// `GET /resource_providers/{id}/usages`
pub async fn usages(Provider(p): Provider) -> Json<Value> {
    let used = |class: &String| (class.clone(), json!(p.used.get(class).copied().unwrap_or(0)));
    let rows: Map<String, Value> = p.inventories.keys().map(used).collect();
    of(&p, "usages", json!(rows))
}

/// `GET /resource_providers/{id}/allocations`: who holds what of it.
pub async fn allocations(State(svc): Svc, minor: Minor, Provider(p): Provider) -> ApiResult<Json<Value>> {
    let held = svc.store.read(|tx| tx.by_index::<Allocation>("provider", &p.uuid))?;
    let rows: Map<String, Value> = held
        .iter()
        .map(|a| {
            let mut row = json!({"resources": a.amounts.get(&p.uuid)});
            if minor.since(28) {
                row["consumer_generation"] = json!(a.generation);
            }
            (a.consumer.clone(), row)
        })
        .collect();
    Ok(of(&p, "allocations", json!(rows)))
}

/// `GET /resource_providers/{id}/traits`
pub async fn traits(Provider(p): Provider) -> Json<Value> {
    of(&p, "traits", json!(p.traits))
}

/// `GET /resource_providers/{id}/aggregates`: nodes are in none.
pub async fn aggregates(minor: Minor, Provider(p): Provider) -> Json<Value> {
    match minor.since(19) {
        true => of(&p, "aggregates", json!([])),
        false => Json(json!({"aggregates": []})),
    }
}

/// One aspect of a provider, with the generation it was read at.
fn of(p: &ResourceProvider, aspect: &str, rows: Value) -> Json<Value> {
    Json(json!({"resource_provider_generation": p.generation, aspect: rows}))
}
