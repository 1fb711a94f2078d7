//! Flavors: listed for all, made and changed by administrators.

use axum::extract::{Path, State};
use axum::response::Response;
use axum::{Json, Router, routing};
use cairn_gateway::{ApiError, ApiResult, Body, Minor, Page, Query};
use cairn_state::Tx;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::Routes;
use super::ask::{Ask, Svc, empty};
use super::form::{self, boolean, inner, integer, invalid};
use crate::model::Flavor;

/// The routes.
pub fn routes() -> Routes {
    Router::new()
        .route("/flavors", routing::get(list).post(create))
        .route("/flavors/detail", routing::get(detail))
        .route("/flavors/{id}", routing::get(show).put(update).delete(delete))
}

/// A flavor as its microversion shows it.
fn body(f: &Flavor, ask: &Ask) -> Value {
    let mv = ask.mv;
    let swap = if f.swap_mb == 0 && !mv.since(75) { json!("") } else { json!(f.swap_mb) };
    let mut out = json!({
        "id": f.id, "name": f.name, "ram": f.ram_mb, "disk": f.disk_gb, "vcpus": f.vcpus, "swap": swap,
        "OS-FLV-EXT-DATA:ephemeral": f.ephemeral_gb, "OS-FLV-DISABLED:disabled": f.disabled,
        "os-flavor-access:is_public": f.is_public, "rxtx_factor": f.rxtx_factor,
        "links": form::links(&ask.base, "flavors", &f.id),
    });
    if mv.since(55) {
        out["description"] = json!(f.description);
    }
    if mv.since(61) {
        out["extra_specs"] = json!(f.extra_specs);
    }
    out
}

/// The error for a flavor that is not there, or not for this caller.
pub fn no_flavor(id: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("Flavor {id} could not be found."))
}

/// The flavor with this id, if the caller may see it; 404 otherwise.
pub fn find(tx: &mut Tx, ask: &Ask, id: &str) -> ApiResult<Flavor> {
    let seen = |f: &Flavor| ask.caller.is_admin() || f.open_to(&ask.caller.project_id);
    tx.get::<Flavor>(id)?.filter(seen).ok_or_else(|| no_flavor(id))
}

fn page(tx: &mut Tx, ask: &Ask, query: &Query) -> ApiResult<Page<Flavor>> {
    let least = |key: &str| match query.get(key) {
        None => Ok(0),
        Some(text) => {
            text.parse::<u64>().map_err(|_| ApiError::bad_request(format!("Invalid {key} filter [{text}]")))
        }
    };
    let (ram, disk) = (least("minRam")?, least("minDisk")?);
    let public = match query.get("is_public") {
        // Others see what is theirs to use; only administrators see by this filter.
        _ if !ask.caller.is_admin() => None,
        None => Some(true),
        Some(_) => query.flag("is_public").map_err(|_| ApiError::bad_request("Invalid is_public filter"))?,
    };
    let mut all = tx.list_unfenced::<Flavor>()?;
    all.retain(|f| {
        let open = ask.caller.is_admin() || f.open_to(&ask.caller.project_id);
        open && public.is_none_or(|p| f.is_public == p) && f.ram_mb >= ram && f.disk_gb >= disk
    });
    sort(&mut all, query)?;
    Page::cut(all, query, |f| &f.id)
}

fn sort(flavors: &mut [Flavor], query: &Query) -> ApiResult<()> {
    let key: fn(&Flavor) -> (u64, String) = match query.get("sort_key").unwrap_or("flavorid") {
        "flavorid" | "id" => |f| (0, f.id.clone()),
        "name" => |f| (0, f.name.clone()),
        "memory_mb" => |f| (f.ram_mb, f.id.clone()),
        "root_gb" => |f| (f.disk_gb, f.id.clone()),
        "vcpus" => |f| (u64::from(f.vcpus), f.id.clone()),
        "swap" => |f| (f.swap_mb, f.id.clone()),
        "ephemeral_gb" => |f| (f.ephemeral_gb, f.id.clone()),
        "created_at" | "updated_at" | "disabled" | "is_public" | "rxtx_factor" | "vcpu_weight"
        | "description" => |f| (0, f.id.clone()),
        other => return Err(ApiError::bad_request(format!("Invalid sort_key {other}"))),
    };
    flavors.sort_by_key(key);
    match query.get("sort_dir") {
        None | Some("asc") => {}
        Some("desc") => flavors.reverse(),
        Some(other) => return Err(ApiError::bad_request(format!("Invalid sort_dir {other}"))),
    }
    Ok(())
}

fn listed(flavors: Vec<Value>, next: Option<String>, ask: &Ask, query: &Query, path: &str) -> Json<Value> {
    let mut out = json!({"flavors": flavors});
    if let Some(next) = next {
        out["flavors_links"] = form::next_link(&ask.base, path, query, &next);
    }
    Json(out)
}

async fn list(State(svc): Svc, ask: Ask, query: Query) -> ApiResult<Json<Value>> {
    let page = svc.store.read(|tx| page(tx, &ask, &query))?;
    let brief = |f: &Flavor| {
        let mut out = json!({"id": f.id, "name": f.name, "links": form::links(&ask.base, "flavors", &f.id)});
        if ask.mv.since(55) {
            out["description"] = json!(f.description);
        }
        out
    };
    Ok(listed(page.items.iter().map(brief).collect(), page.next, &ask, &query, "flavors"))
}

async fn detail(State(svc): Svc, ask: Ask, query: Query) -> ApiResult<Json<Value>> {
    let page = svc.store.read(|tx| page(tx, &ask, &query))?;
    let shown = page.items.iter().map(|f| body(f, &ask)).collect();
    Ok(listed(shown, page.next, &ask, &query, "flavors/detail"))
}

async fn show(State(svc): Svc, ask: Ask, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    let found = svc.store.read(|tx| find(tx, &ask, &id))?;
    Ok(Json(json!({"flavor": body(&found, &ask)})))
}

const KEYS: [&str; 10] = [
    "name",
    "id",
    "ram",
    "vcpus",
    "disk",
    "OS-FLV-EXT-DATA:ephemeral",
    "swap",
    "rxtx_factor",
    "os-flavor-access:is_public",
    "description",
];

fn parse(value: &Value, mv: Minor) -> ApiResult<Flavor> {
    let f = form::object(value, "flavor")?;
    let known = |k: &str| KEYS.contains(&k) && (k != "description" || mv.since(55));
    form::only(f.keys(), known)?;
    let required = |key: &str| {
        f.get(key).ok_or_else(|| ApiError::bad_request(format!("'{key}' is a required property")))
    };
    let number = |key: &str, min: i64| -> ApiResult<u64> {
        f.get(key).map_or(Ok(0), |v| integer(key, v, min, 0x7fff_ffff).map(|n| n as u64))
    };
    for key in ["ram", "vcpus", "disk"] {
        required(key)?;
    }
    let name = required("name")?;
    Ok(Flavor {
        id: id(f.get("id"))?,
        name: form::name(
            "name",
            name.as_str().ok_or_else(|| invalid("name", name, "is not of type 'string'"))?,
        )?,
        vcpus: number("vcpus", 1)? as u32,
        ram_mb: number("ram", 1)?,
        disk_gb: number("disk", 0)?,
        ephemeral_gb: number("OS-FLV-EXT-DATA:ephemeral", 0)?,
        swap_mb: number("swap", 0)?,
        rxtx_factor: rxtx_factor(f.get("rxtx_factor"))?,
        is_public: f.get("os-flavor-access:is_public").map_or(Ok(true), |v| boolean("is_public", v))?,
        disabled: false,
        description: description(f)?,
        extra_specs: Default::default(),
        projects: Default::default(),
    })
}

fn id(value: Option<&Value>) -> ApiResult<String> {
    let text = match value {
        None | Some(Value::Null) => "auto".to_owned(),
        Some(Value::Number(n)) => n.to_string(),
        Some(Value::String(s)) => s.clone(),
        Some(other) => return Err(invalid("id", other, "is not a flavor's id")),
    };
    if text == "auto" {
        return Ok(uuid::Uuid::new_v4().to_string());
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || ". _-".contains(c);
    if text.is_empty() || text.len() > 255 || text.trim() != text || !text.chars().all(allowed) {
        return Err(invalid("id", text, "is not a flavor's id"));
    }
    Ok(text)
}

fn rxtx_factor(value: Option<&Value>) -> ApiResult<f64> {
    let number = match value {
        None => return Ok(1.0),
        Some(Value::String(s)) => s.parse().ok(),
        Some(v) => v.as_f64(),
    };
    let fit = |n: &f64| *n > 0.0 && n.is_finite();
    number.filter(fit).ok_or_else(|| invalid("rxtx_factor", json!(value), "is not a number above 0"))
}

fn description(f: &Map<String, Value>) -> ApiResult<Option<String>> {
    match f.get("description") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(s)) if s.len() <= 65_535 => Ok(Some(s.clone())),
        Some(other) => Err(invalid("description", other, "is not a text of up to 65535 characters")),
    }
}

async fn create(State(svc): Svc, ask: Ask, Body(json): Body<Value>) -> ApiResult<Json<Value>> {
    ask.admin("os_compute_api:os-flavor-manage:create")?;
    let flavor = parse(&json, ask.mv)?;
    svc.store
        .transact(|tx| {
            if tx.get::<Flavor>(&flavor.id)?.is_some() {
                return Err(ApiError::conflict(format!("Flavor with ID {} already exists.", flavor.id)));
            }
            if tx.by_unique::<Flavor>("name", &flavor.name)?.is_some() {
                return Err(ApiError::conflict(format!("Flavor with name {} already exists.", flavor.name)));
            }
            tx.put(&flavor)?;
            Ok(Json(json!({"flavor": body(&flavor, &ask)})))
        })
        .await
}

async fn update(
    State(svc): Svc,
    ask: Ask,
    Path(id): Path<String>,
    Body(json): Body<Value>,
) -> ApiResult<Json<Value>> {
    ask.mv.added_in(55)?;
    ask.admin("os_compute_api:os-flavor-manage:update")?;
    let f = inner(&json, "flavor")?.as_object().filter(|f| f.len() == 1 && f.contains_key("description"));
    let f = f.ok_or_else(|| ApiError::bad_request("Only the description of a flavor can be changed."))?;
    let description = description(f)?;
    svc.store
        .transact(|tx| {
            let mut flavor = find(tx, &ask, &id)?;
            flavor.description.clone_from(&description);
            tx.put(&flavor)?;
            Ok(Json(json!({"flavor": body(&flavor, &ask)})))
        })
        .await
}

async fn delete(State(svc): Svc, ask: Ask, Path(id): Path<String>) -> ApiResult<Response> {
    ask.admin("os_compute_api:os-flavor-manage:delete")?;
    let deleted = svc.store.transact(|tx| tx.delete::<Flavor>(&id)).await.map_err(ApiError::from)?;
    match deleted {
        true => Ok(empty(StatusCode::ACCEPTED)),
        false => Err(no_flavor(&id)),
    }
}
