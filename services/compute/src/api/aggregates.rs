//! Host aggregates: sets of hosts, which make availability zones by their metadata.

use axum::extract::{Path, State};
use axum::response::Response;
use axum::{Json, Router, routing};
use cairn_gateway::{ApiError, ApiResult, Body};
use cairn_state::Tx;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::Routes;
use super::ask::{Ask, Svc, empty};
use super::create_body::text;
use super::form::{self, invalid, is_key, micros};
use crate::model::{Aggregate, HostStatus, Server};

/// The routes.
pub fn routes() -> Routes {
    Router::new()
        .route("/os-aggregates", routing::get(list).post(create))
        .route("/os-aggregates/{id}", routing::get(show).put(update).delete(delete))
        .route("/os-aggregates/{id}/action", routing::post(act))
        .route("/os-aggregates/{id}/images", routing::post(images))
}

const ZONE: &str = "availability_zone";

fn body(a: &Aggregate, ask: &Ask, whole: bool) -> Value {
    let mut out = json!({
        "id": a.id, "name": a.name, "availability_zone": a.metadata.get(ZONE), "created_at": micros(a.created),
        "updated_at": a.updated.map(micros), "deleted": false, "deleted_at": null,
    });
    if whole {
        out["hosts"] = json!(a.hosts);
        out["metadata"] = json!(a.metadata);
    }
    if ask.mv.since(41) {
        out["uuid"] = json!(a.uuid);
    }
    out
}

fn rule(ask: &Ask, what: &str) -> ApiResult<()> {
    ask.admin(&format!("os_compute_api:os-aggregates:{what}"))
}

async fn list(State(svc): Svc, ask: Ask) -> ApiResult<Json<Value>> {
    rule(&ask, "index")?;
    let all = svc.store.read(|tx| tx.list_unfenced::<Aggregate>()).map_err(ApiError::from)?;
    Ok(Json(json!({"aggregates": all.iter().map(|a| body(a, &ask, true)).collect::<Vec<_>>()})))
}

fn find(tx: &mut Tx, id: &str) -> ApiResult<Aggregate> {
    let missing = || ApiError::new(StatusCode::NOT_FOUND, format!("Aggregate {id} could not be found."));
    let number = id.parse::<u64>().map_err(|_| missing())?;
    tx.get::<Aggregate>(&format!("{number:010}"))?.ok_or_else(missing)
}

async fn show(State(svc): Svc, ask: Ask, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    rule(&ask, "show")?;
    let found = svc.store.read(|tx| find(tx, &id))?;
    Ok(Json(json!({"aggregate": body(&found, &ask, true)})))
}

/// The name and zone of a body.
fn named(json: &Value) -> ApiResult<(Option<String>, Option<Option<String>>)> {
    let f = form::object(json, "aggregate")?;
    form::only(f.keys(), |k| ["name", ZONE].contains(&k))?;
    let name = text(f, "name")?.map(|n| form::name("name", &n)).transpose()?;
    let zone = match f.contains_key(ZONE) {
        true => Some(text(f, ZONE)?.map(|z| zone_name(&z)).transpose()?),
        false => None,
    };
    Ok((name, zone))
}

fn zone_name(text: &str) -> ApiResult<String> {
    match text.contains(':') {
        true => Err(invalid(ZONE, text, "is not a zone's name")),
        false => form::name(ZONE, text),
    }
}

async fn create(State(svc): Svc, ask: Ask, Body(json): Body<Value>) -> ApiResult<Json<Value>> {
    rule(&ask, "create")?;
    let (name, zone) = named(&json)?;
    let name = name.ok_or_else(|| ApiError::bad_request("'name' is a required property"))?;
    svc.store
        .transact(|tx| {
            let last = tx.list::<Aggregate>()?.last().map_or(0, |a| a.id);
            let aggregate = Aggregate {
                id: last + 1,
                uuid: uuid::Uuid::new_v4().to_string(),
                name: name.clone(),
                hosts: Default::default(),
                metadata: zone.clone().flatten().map(|z| (ZONE.to_owned(), z)).into_iter().collect(),
                created: Timestamp::now(),
                updated: None,
            };
            taken(tx, &name, aggregate.id)?;
            tx.put(&aggregate)?;
            Ok(Json(json!({"aggregate": body(&aggregate, &ask, false)})))
        })
        .await
}

fn taken(tx: &mut Tx, name: &str, id: u64) -> ApiResult<()> {
    match tx.by_unique::<Aggregate>("name", name)? {
        Some(other) if other.id != id => Err(ApiError::conflict(format!("Aggregate {name} already exists."))),
        _ => Ok(()),
    }
}

async fn update(
    State(svc): Svc,
    ask: Ask,
    Path(id): Path<String>,
    Body(json): Body<Value>,
) -> ApiResult<Json<Value>> {
    rule(&ask, "update")?;
    let (name, zone) = named(&json)?;
    change(&svc, &ask, &id, |tx, a| {
        if let Some(name) = &name {
            taken(tx, name, a.id)?;
            a.name.clone_from(name);
        }
        if let Some(zone) = &zone {
            set_metadata(tx, a, ZONE, zone.clone())?;
        }
        Ok(())
    })
    .await
}

async fn change(
    svc: &crate::Service,
    ask: &Ask,
    id: &str,
    how: impl Fn(&mut Tx, &mut Aggregate) -> ApiResult<()>,
) -> ApiResult<Json<Value>> {
    svc.store
        .transact(|tx| {
            let mut found = find(tx, id)?;
            how(tx, &mut found)?;
            found.updated = Some(Timestamp::now());
            tx.put(&found)?;
            Ok(Json(json!({"aggregate": body(&found, ask, true)})))
        })
        .await
}

/// A zone cannot change under the servers that are in it.
fn set_metadata(tx: &mut Tx, a: &mut Aggregate, key: &str, value: Option<String>) -> ApiResult<()> {
    if key == ZONE && a.metadata.get(ZONE) != value.as_ref() {
        for host in &a.hosts {
            if !tx.by_index::<Server>("host", host)?.is_empty() {
                let why = format!("Cannot update aggregate {}: host {host} has servers in its zone.", a.id);
                return Err(ApiError::bad_request(why));
            }
        }
    }
    match value {
        Some(value) => drop(a.metadata.insert(key.to_owned(), value)),
        None => drop(a.metadata.remove(key)),
    }
    Ok(())
}

async fn delete(State(svc): Svc, ask: Ask, Path(id): Path<String>) -> ApiResult<Response> {
    rule(&ask, "delete")?;
    svc.store
        .transact(|tx| {
            let found = find(tx, &id)?;
            if !found.hosts.is_empty() {
                return Err(ApiError::bad_request(format!("Cannot remove aggregate {id}: it has hosts.")));
            }
            Ok(tx.delete::<Aggregate>(&format!("{:010}", found.id)).map(drop)?)
        })
        .await?;
    Ok(empty(StatusCode::OK))
}

/// The actions add_host, remove_host and set_metadata.
async fn act(
    State(svc): Svc,
    ask: Ask,
    Path(id): Path<String>,
    Body(json): Body<Value>,
) -> ApiResult<Json<Value>> {
    rule(&ask, "update")?;
    let one = json.as_object().filter(|f| f.len() == 1).and_then(|f| f.iter().next());
    let (action, argument) = one.ok_or_else(|| ApiError::bad_request("Name one action."))?;
    let argument =
        argument.as_object().ok_or_else(|| invalid(action, argument, "is not of type 'object'"))?;
    match action.as_str() {
        "add_host" => {
            let host = host(argument)?;
            change(&svc, &ask, &id, |tx, a| add_host(tx, a, &host)).await
        }
        "remove_host" => {
            let host = host(argument)?;
            change(&svc, &ask, &id, |tx, a| remove_host(tx, a, &host)).await
        }
        "set_metadata" => {
            let items = metadata(argument)?;
            change(&svc, &ask, &id, |tx, a| {
                items.iter().try_for_each(|(k, v)| set_metadata(tx, a, k, v.clone()))
            })
            .await
        }
        other => Err(ApiError::bad_request(format!("There is no such action: {other}"))),
    }
}

fn host(f: &Map<String, Value>) -> ApiResult<String> {
    text(f, "host")?
        .filter(|h| !h.is_empty())
        .ok_or_else(|| ApiError::bad_request("'host' is a required property"))
}

type Items = Vec<(String, Option<String>)>;

fn metadata(f: &Map<String, Value>) -> ApiResult<Items> {
    let map = f.get("metadata").and_then(Value::as_object);
    let map = map
        .filter(|m| !m.is_empty())
        .ok_or_else(|| ApiError::bad_request("'metadata' is a required property"))?;
    map.iter()
        .map(|(k, v)| match v {
            Value::Null if is_key(k) => Ok((k.clone(), None)),
            Value::String(s) if is_key(k) && s.len() <= 255 => Ok((k.clone(), Some(s.clone()))),
            _ => Err(invalid(k, v, "is not a text of up to 255 characters")),
        })
        .collect()
}

fn add_host(tx: &mut Tx, a: &mut Aggregate, host: &str) -> ApiResult<()> {
    if tx.get::<HostStatus>(host)?.is_none() {
        return Err(ApiError::new(StatusCode::NOT_FOUND, format!("Compute host {host} could not be found.")));
    }
    if let Some(zone) = a.metadata.get(ZONE) {
        let elsewhere = |o: &Aggregate| {
            o.id != a.id && o.hosts.contains(host) && o.metadata.get(ZONE).is_some_and(|z| z != zone)
        };
        if tx.list::<Aggregate>()?.iter().any(elsewhere) {
            return Err(ApiError::conflict(format!(
                "Cannot add host {host}: it is in another zone already."
            )));
        }
    }
    match a.hosts.insert(host.to_owned()) {
        true => Ok(()),
        false => Err(ApiError::conflict(format!("Aggregate {} already has host {host}.", a.id))),
    }
}

fn remove_host(tx: &mut Tx, a: &mut Aggregate, host: &str) -> ApiResult<()> {
    if !a.hosts.contains(host) {
        let why = format!("Aggregate {} has no host {host}.", a.id);
        return Err(ApiError::new(StatusCode::NOT_FOUND, why));
    }
    if a.metadata.contains_key(ZONE) && !tx.by_index::<Server>("host", host)?.is_empty() {
        return Err(ApiError::conflict(format!("Cannot remove host {host}: it has servers in the zone.")));
    }
    a.hosts.remove(host);
    Ok(())
}

/// Warming image caches is not needed: disks are clones.
async fn images(ask: Ask, Path(_): Path<String>) -> ApiResult<Response> {
    ask.mv.added_in(81)?;
    rule(&ask, "images")?;
    Err(ApiError::not_implemented("There is no image cache to warm: disks are clones of images."))
}
