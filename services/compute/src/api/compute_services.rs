//! The compute services of nodes, and the zones they are in: listed, disabled, declared down.

use axum::extract::{Path, State};
use axum::response::Response;
use axum::{Json, Router, routing};
use cairn_gateway::{ApiError, ApiResult, Body, Query};
use cairn_state::Tx;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::Routes;
use super::ask::{Ask, Svc};
use super::form::{self, boolean, invalid, micros};
use super::hypervisors::service_uuid;
use crate::model::{Aggregate, HostPolicy};
use crate::zones::{self, HostView};

/// The routes.
pub fn routes() -> Routes {
    Router::new()
        .route("/os-services", routing::get(list))
        .route("/os-services/{id}", routing::put(update).delete(delete))
        .route("/os-availability-zone", routing::get(zone_list))
        .route("/os-availability-zone/detail", routing::get(zone_detail))
}

const BINARY: &str = "nova-compute";

fn body(host: &HostView, at: usize, ask: &Ask) -> Value {
    let id = if ask.mv.since(53) { json!(service_uuid(&host.status.node)) } else { json!(at + 1) };
    let mut out = json!({
        "id": id, "binary": BINARY, "host": host.status.node, "zone": host.zone,
        "state": if host.up { "up" } else { "down" },
        "status": if host.policy.disabled { "disabled" } else { "enabled" },
        "updated_at": host.heard.map(micros), "disabled_reason": host.policy.disabled_reason,
    });
    if ask.mv.since(11) {
        out["forced_down"] = json!(host.policy.forced_down);
    }
    out
}

async fn list(State(svc): Svc, ask: Ask, query: Query) -> ApiResult<Json<Value>> {
    ask.admin("os_compute_api:os-services:list")?;
    if ask.mv.since(75) {
        form::only(query.0.iter().map(|(k, _)| k), |k| ["host", "binary"].contains(&k))?;
    }
    let hosts = svc.store.read(zones::hosts).map_err(ApiError::from)?;
    let wanted = |h: &HostView| query.get("host").is_none_or(|w| w == h.status.node);
    let binary = query.get("binary").is_none_or(|b| b == BINARY);
    let shown: Vec<_> = hosts
        .iter()
        .enumerate()
        .filter(|(_, h)| binary && wanted(h))
        .map(|(at, h)| body(h, at, &ask))
        .collect();
    Ok(Json(json!({"services": shown})))
}

fn no_service(what: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("Service {what} could not be found."))
}

/// PUT: by UUID since 2.53; by the words enable, disable, disable-log-reason and force-down before.
async fn update(
    State(svc): Svc,
    ask: Ask,
    Path(id): Path<String>,
    Body(json): Body<Value>,
) -> ApiResult<Json<Value>> {
    ask.admin("os_compute_api:os-services:update")?;
    let f = json.as_object().ok_or_else(|| invalid("body", &json, "is not of type 'object'"))?;
    svc.store
        .transact(|tx| match ask.mv.since(53) {
            true => by_uuid(tx, &ask, &id, f),
            false => by_word(tx, &ask, &id, f),
        })
        .await
        .map(Json)
}

fn by_uuid(tx: &mut Tx, ask: &Ask, id: &str, f: &Map<String, Value>) -> ApiResult<Value> {
    form::uuid("service_id", id)?;
    let hosts = zones::hosts(tx)?;
    let found = hosts.into_iter().enumerate().find(|(_, h)| service_uuid(&h.status.node) == id);
    let (at, host) = found.ok_or_else(|| no_service(id))?;
    if f.is_empty() || f.keys().any(|k| !["status", "disabled_reason", "forced_down"].contains(&k.as_str())) {
        return Err(ApiError::bad_request(
            "No updates were requested. Fields 'status' or 'forced_down' should be specified.",
        ));
    }
    let mut policy = host.policy.clone();
    if let Some(status) = f.get("status") {
        set_status(&mut policy, status)?;
    }
    if let Some(reason) = f.get("disabled_reason") {
        if !policy.disabled {
            return Err(ApiError::bad_request(
                "Specifying disabled_reason is only allowed when status is 'disabled'.",
            ));
        }
        policy.disabled_reason = reason.as_str().map(str::to_owned);
    }
    if let Some(forced) = f.get("forced_down") {
        policy.forced_down = boolean("forced_down", forced)?;
    }
    tx.put(&policy)?;
    let up = host.up && !policy.forced_down;
    Ok(json!({"service": body(&HostView { policy, up, ..host }, at, ask)}))
}

fn set_status(policy: &mut HostPolicy, status: &Value) -> ApiResult<()> {
    policy.disabled = match status.as_str() {
        Some("disabled") => true,
        Some("enabled") => {
            // Who enables it again does not want it emptied.
            policy.draining = None;
            false
        }
        _ => return Err(invalid("status", status, "is not one of ['enabled', 'disabled']")),
    };
    policy.disabled_reason = None;
    Ok(())
}

fn by_word(tx: &mut Tx, ask: &Ask, word: &str, f: &Map<String, Value>) -> ApiResult<Value> {
    let text = |key: &str| f.get(key).and_then(Value::as_str);
    let host = text("host").ok_or_else(|| ApiError::bad_request("'host' is a required property"))?;
    let binary = text("binary").ok_or_else(|| ApiError::bad_request("'binary' is a required property"))?;
    let found = zones::host(tx, host)?.filter(|_| binary == BINARY);
    let mut policy = found.ok_or_else(|| no_service(&format!("{binary} on {host}")))?.policy;
    let mut out = json!({"host": host, "binary": binary});
    match word {
        "enable" => {
            set_status(&mut policy, &json!("enabled"))?;
            out["status"] = json!("enabled");
        }
        "disable" => {
            set_status(&mut policy, &json!("disabled"))?;
            out["status"] = json!("disabled");
        }
        "disable-log-reason" => {
            let reason = text("disabled_reason").filter(|r| !r.is_empty() && r.len() <= 255);
            let reason =
                reason.ok_or_else(|| ApiError::bad_request("'disabled_reason' is a required property"))?;
            set_status(&mut policy, &json!("disabled"))?;
            policy.disabled_reason = Some(reason.to_owned());
            out["status"] = json!("disabled");
            out["disabled_reason"] = json!(reason);
        }
        "force-down" if ask.mv.since(11) => {
            policy.forced_down = boolean("forced_down", f.get("forced_down").unwrap_or(&Value::Null))?;
            out["forced_down"] = json!(policy.forced_down);
        }
        _ => return Err(ApiError::new(StatusCode::NOT_FOUND, "Unknown action")),
    }
    tx.put(&policy)?;
    Ok(json!({"service": out}))
}

/// A service goes with its node, not by this.
async fn delete(ask: Ask, Path(_): Path<String>) -> ApiResult<Response> {
    ask.admin("os_compute_api:os-services:delete")?;
    Err(ApiError::not_implemented("A node's compute service is removed by removing the node."))
}

async fn zone_list(State(svc): Svc, _: Ask) -> ApiResult<Json<Value>> {
    let hosts = svc.store.read(zones::hosts).map_err(ApiError::from)?;
    let shown: Vec<_> = zones_of(&hosts)
        .iter()
        .map(|zone| {
            let available = hosts.iter().any(|h| &h.zone == zone && h.up && !h.policy.disabled);
            json!({"zoneName": zone, "zoneState": {"available": available}, "hosts": null})
        })
        .collect();
    Ok(Json(json!({"availabilityZoneInfo": shown})))
}

fn zones_of(hosts: &[HostView]) -> Vec<String> {
    let mut names: Vec<_> = hosts.iter().map(|h| h.zone.clone()).collect();
    names.sort();
    names.dedup();
    if names.is_empty() {
        names.push(zones::DEFAULT_ZONE.into());
    }
    names
}

async fn zone_detail(State(svc): Svc, ask: Ask) -> ApiResult<Json<Value>> {
    ask.admin("os_compute_api:os-availability-zone:detail")?;
    let (hosts, _) =
        svc.store.read(|tx| Ok::<_, ApiError>((zones::hosts(tx)?, tx.list_unfenced::<Aggregate>()?)))?;
    let now = Timestamp::now();
    let shown: Vec<_> = zones_of(&hosts)
        .iter()
        .map(|zone| {
            let mut members = Map::new();
            for host in hosts.iter().filter(|h| &h.zone == zone) {
                let service = json!({
                    "available": host.up, "active": !host.policy.disabled,
                    "updated_at": micros(host.heard.unwrap_or(now)),
                });
                members.insert(host.status.node.clone(), json!({BINARY: service}));
            }
            json!({"zoneName": zone, "zoneState": {"available": true}, "hosts": members})
        })
        .collect();
    Ok(Json(json!({"availabilityZoneInfo": shown})))
}
