//! The interfaces of a server: listed, plugged and unplugged.

use axum::extract::{Path, State};
use axum::response::Response;
use axum::{Json, Router, routing};
use cairn_gateway::{ApiError, ApiResult, Body, Minor};
use cairn_network::model::{Port, PortStatus};
use cairn_state::Tx;
use http::StatusCode;
use serde_json::{Value, json};

use super::Routes;
use super::ask::{Ask, Svc, change, empty, host, server, shown};
use super::create_body::text;
use super::form::{self, invalid, uuid};
use super::servers::republish;
use crate::model::Server;
use crate::order::{NicOrder, NicWanted};
use crate::{nics, state};

/// The states in which interfaces come and go.
const STATES: [&str; 3] = ["active", "paused", "stopped"];

/// The routes.
pub fn routes() -> Routes {
    Router::new()
        .route("/servers/{id}/os-interface", routing::get(list).post(plug))
        .route("/servers/{id}/os-interface/{port}", routing::get(show).delete(unplug))
}

fn body(tx: &mut Tx, server: &Server, port: &Port, mv: Minor) -> ApiResult<Value> {
    let up = tx.get::<PortStatus>(&port.id)?.is_some_and(|s| s.up);
    let ips: Vec<_> = port
        .fixed_ips
        .iter()
        .map(|f| json!({"subnet_id": f.subnet_id, "ip_address": f.ip.to_string()}))
        .collect();
    let mut out = json!({
        "port_state": if up { "ACTIVE" } else { "DOWN" },
        "fixed_ips": ips, "port_id": port.id, "net_id": port.network_id, "mac_addr": port.mac,
    });
    if mv.since(70) {
        out["tag"] = json!(server.ports.iter().find(|p| p.port_id == port.id).and_then(|p| p.tag.clone()));
    }
    Ok(out)
}

async fn list(State(svc): Svc, ask: Ask, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    svc.store.read(|tx| {
        let found = server(tx, &ask.caller, &id)?;
        let ports = nics::ports(tx, &found)?;
        let shown = ports.iter().map(|p| body(tx, &found, p, ask.mv)).collect::<ApiResult<Vec<_>>>()?;
        Ok(Json(json!({"interfaceAttachments": shown})))
    })
}

async fn show(State(svc): Svc, ask: Ask, Path((id, port)): Path<(String, String)>) -> ApiResult<Json<Value>> {
    svc.store.read(|tx| {
        let found = server(tx, &ask.caller, &id)?;
        let ports = nics::ports(tx, &found)?;
        let held = ports.iter().find(|p| p.id == port).ok_or_else(|| no_port(&id, &port))?;
        Ok(Json(json!({"interfaceAttachment": body(tx, &found, held, ask.mv)?})))
    })
}

fn no_port(server: &str, port: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("Instance {server} does not have port {port}"))
}

fn wanted(body: &Value, mv: Minor) -> ApiResult<NicWanted> {
    let empty = json!({});
    let f = body.get("interfaceAttachment").unwrap_or(&empty);
    let f = f.as_object().ok_or_else(|| invalid("interfaceAttachment", f, "is not of type 'object'"))?;
    let known = |k: &str| ["port_id", "net_id", "fixed_ips"].contains(&k) || (k == "tag" && mv.since(49));
    form::only(f.keys(), known)?;
    let id = |key: &str| text(f, key)?.map(|v| uuid(key, &v)).transpose();
    let ip =
        f.get("fixed_ips").and_then(|v| v.get(0)).and_then(|v| v.get("ip_address")).and_then(Value::as_str);
    let ip =
        ip.map(|ip| ip.parse().map_err(|_| invalid("ip_address", ip, "is not an IP address"))).transpose()?;
    let wanted =
        NicWanted { network: id("net_id")?, port: id("port_id")?, fixed_ip: ip, tag: text(f, "tag")? };
    if wanted.network.is_some() && wanted.port.is_some() {
        return Err(ApiError::bad_request("Must not input both network_id and port_id"));
    }
    if wanted.network.is_none() && wanted.fixed_ip.is_some() {
        return Err(ApiError::bad_request("Must input network_id when request IP address"));
    }
    Ok(wanted)
}

async fn plug(
    State(svc): Svc,
    ask: Ask,
    Path(id): Path<String>,
    Body(json): Body<Value>,
) -> ApiResult<Json<Value>> {
    let wanted = wanted(&json, ask.mv)?;
    change(&svc, &ask, &id, "attach_interface", |tx, found| {
        state::require(found, shown(tx, found)?, "attach_interface", &STATES)?;
        let host = host(found)?;
        let nic = match (&wanted.network, &wanted.port) {
            (None, None) => nics::wanted(tx, &ask.caller, &NicOrder::Auto)?.pop(),
            _ => Some(wanted.clone()),
        };
        let nic = nic.ok_or_else(|| ApiError::bad_request("No network is there to plug the server into."))?;
        let port = nics::plug(tx, &ask.caller, found, &host, &nic, &[])?;
        found.touch();
        republish(tx, found)?;
        Ok(Json(json!({"interfaceAttachment": body(tx, found, &port, ask.mv)?})))
    })
    .await
}

/// The guest is asked to give it back; the port is free once the guest has.
async fn unplug(State(svc): Svc, ask: Ask, Path((id, port)): Path<(String, String)>) -> ApiResult<Response> {
    change(&svc, &ask, &id, "detach_interface", |tx, found| {
        state::require(found, shown(tx, found)?, "detach_interface", &STATES)?;
        let held = found.ports.iter_mut().find(|p| p.port_id == port).ok_or_else(|| no_port(&id, &port))?;
        held.detaching = true;
        found.touch();
        Ok(empty(StatusCode::ACCEPTED))
    })
    .await
}
