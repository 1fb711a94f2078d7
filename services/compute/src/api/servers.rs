//! Servers: create, show, update, delete. (Lists are in `server_list`, what can be done to one in `server_action`.)

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Json, http};
use base64::Engine as _;
use cairn_gateway::{ApiError, ApiResult, Body, Minor};
use cairn_state::Tx;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::ask::{Ask, Svc, empty, own_server, server, shown, view};
use super::create_body::{self, access, text};
use super::form::{self, invalid};
use super::view;
use crate::model::Server;
use crate::{actions, advance, create, nics, state, zones};

/// POST /servers
pub async fn create(State(svc): Svc, ask: Ask, Body(body): Body<Value>) -> ApiResult<Response> {
    ask.caller.require_writer()?;
    let creation = create_body::parse(&body, ask.mv)?;
    if creation.order.config_drive {
        return Err(ApiError::not_implemented(
            "Configuration drives are not available here; guests get the same from the metadata service.",
        ));
    }
    let actor = ask.actor();
    let made = svc.store.transact(|tx| create::create(tx, &ask.caller, &actor, &creation.order)).await?;
    let Some(first) = made.first() else { return Err(ApiError::internal("an order made no server")) };
    if creation.return_reservation_id {
        let body = json!({"reservation_id": first.reservation_id});
        return Ok((http::StatusCode::ACCEPTED, Json(body)).into_response());
    }
    let links = form::links(&ask.base, "servers", &first.id);
    let location = links[0]["href"].as_str().unwrap_or_default().to_owned();
    let groups = groups_shown(&creation.order.groups);
    let body = json!({"server": {
        "id": first.id, "links": links, "OS-DCF:diskConfig": first.disk_config, "security_groups": groups,
        "adminPass": creation.admin_pass.unwrap_or_else(password),
    }});
    Ok((http::StatusCode::ACCEPTED, [(http::header::LOCATION, location)], Json(body)).into_response())
}

fn groups_shown(groups: &[String]) -> Value {
    match groups {
        [] => json!([{"name": "default"}]),
        names => names.iter().map(|name| json!({"name": name})).collect(),
    }
}

/// A password of twelve characters.
fn password() -> String {
    let random = uuid::Uuid::new_v4();
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&random.as_bytes()[7..])
}

/// GET /servers/{id}
pub async fn show(State(svc): Svc, ask: Ask, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    svc.store.read(|tx| {
        let found = server(tx, &ask.caller, &id)?;
        let view = view(tx, found)?;
        Ok(Json(json!({"server": view::full(&view, ask.look(), false)})))
    })
}

/// PUT /servers/{id}
pub async fn update(
    State(svc): Svc,
    ask: Ask,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> ApiResult<Json<Value>> {
    let changes = changes(&body, ask.mv);
    let actor = ask.actor();
    svc.store
        .transact(|tx| {
            // Who may not see it learns no more than that.
            let mut found = own_server(tx, &ask.caller, &id)?;
            let changes = changes.as_ref().map_err(Clone::clone)?;
            apply(&mut found, changes);
            found.updated = Timestamp::now();
            tx.put(&found)?;
            actions::done(tx, &found, &actor, "update")?;
            republish(tx, &found)?;
            let view = view(tx, found)?;
            Ok(Json(json!({"server": view::updated(&view, ask.look())})))
        })
        .await
}

/// Tells the guest what has changed of its metadata.
pub fn republish(tx: &mut Tx, server: &Server) -> ApiResult<()> {
    if server.host.is_none() || server.deleted {
        return Ok(());
    }
    let zone = zones::shown_zone(tx, server)?;
    nics::publish(tx, server, &zone)
}

/// What an update changes.
#[derive(Debug, Clone, Default)]
struct Changes {
    name: Option<String>,
    hostname: Option<String>,
    description: Option<Option<String>>,
    access_ipv4: Option<String>,
    access_ipv6: Option<String>,
    disk_config: Option<String>,
}

fn changes(body: &Value, mv: Minor) -> ApiResult<Changes> {
    let f = form::object(body, "server")?;
    let known = |k: &str| match k {
        "name" | "accessIPv4" | "accessIPv6" | "OS-DCF:diskConfig" => true,
        "description" => mv.since(19),
        "hostname" => mv.since(90),
        _ => false,
    };
    form::only(f.keys(), known)?;
    read_changes(f, mv)
}

fn read_changes(f: &Map<String, Value>, mv: Minor) -> ApiResult<Changes> {
    let given = |key: &str| f.contains_key(key);
    let mut changes = Changes::default();
    if given("name") {
        changes.name = Some(form::name("name", &text(f, "name")?.unwrap_or_default())?);
    }
    if given("hostname") {
        let hostname = text(f, "hostname")?.unwrap_or_default();
        changes.hostname = Some(create_body::hostname(&hostname, mv)?);
    }
    if given("description") {
        let description = text(f, "description")?;
        check_description(description.as_deref())?;
        changes.description = Some(description);
    }
    if given("accessIPv4") {
        changes.access_ipv4 = Some(access::<std::net::Ipv4Addr>(f, "accessIPv4")?);
    }
    if given("accessIPv6") {
        changes.access_ipv6 = Some(access::<std::net::Ipv6Addr>(f, "accessIPv6")?);
    }
    if given("OS-DCF:diskConfig") {
        changes.disk_config = Some(create_body::disk_config(f)?);
    }
    Ok(changes)
}

/// A description has at most 255 printable characters.
pub fn check_description(description: Option<&str>) -> ApiResult<()> {
    match description {
        Some(d) if d.chars().count() > 255 || d.chars().any(|c| c.is_control() && !c.is_whitespace()) => {
            Err(invalid("description", d, "is too long or not printable"))
        }
        _ => Ok(()),
    }
}

fn apply(server: &mut Server, changes: &Changes) {
    let c = changes.clone();
    if let Some(name) = c.name {
        server.name = name;
    }
    if let Some(hostname) = c.hostname {
        server.hostname = hostname;
    }
    if let Some(description) = c.description {
        server.description = description;
    }
    server.access_ipv4 = c.access_ipv4.unwrap_or(std::mem::take(&mut server.access_ipv4));
    server.access_ipv6 = c.access_ipv6.unwrap_or(std::mem::take(&mut server.access_ipv6));
    server.disk_config = c.disk_config.unwrap_or(std::mem::take(&mut server.disk_config));
}

/// DELETE /servers/{id}
pub async fn delete(State(svc): Svc, ask: Ask, Path(id): Path<String>) -> ApiResult<Response> {
    let actor = ask.actor();
    svc.store
        .transact(|tx| {
            let mut found = own_server(tx, &ask.caller, &id)?;
            state::require_unlocked(&found, ask.caller.is_admin())?;
            doom(tx, &mut found, &actor)
        })
        .await?;
    Ok(empty(http::StatusCode::NO_CONTENT))
}

/// Orders a server's end. One that no node has is gone at once; ordering it again changes nothing.
pub fn doom(tx: &mut Tx, server: &mut Server, actor: &actions::Actor) -> ApiResult<()> {
    if server.deleted {
        return Ok(());
    }
    actions::begin(tx, server, actor, "delete")?;
    server.deleted = true;
    server.touch();
    match server.host {
        None => advance::remove(tx, server),
        Some(_) => Ok(tx.put(server)?),
    }
}

/// GET /servers/{id}/ips
pub async fn addresses(State(svc): Svc, ask: Ask, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    let found = svc.store.read(|tx| {
        let found = server(tx, &ask.caller, &id)?;
        nics::addresses(tx, &found)
    })?;
    Ok(Json(json!({"addresses": view::addresses(&found, false)})))
}

/// GET /servers/{id}/ips/{network}
pub async fn addresses_of_network(
    State(svc): Svc,
    ask: Ask,
    Path((id, network)): Path<(String, String)>,
) -> ApiResult<Json<Value>> {
    let mut found = svc.store.read(|tx| {
        let found = server(tx, &ask.caller, &id)?;
        nics::addresses(tx, &found)
    })?;
    found.retain(|a| a.network == network);
    match found.is_empty() {
        true => Err(ApiError::new(http::StatusCode::NOT_FOUND, "Network not found")),
        false => Ok(Json(view::addresses(&found, false))),
    }
}

/// GET /servers/{id}/diagnostics
pub async fn diagnostics(State(svc): Svc, ask: Ask, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    ask.admin("os_compute_api:os-server-diagnostics")?;
    let (found, now) = svc.store.read(|tx| {
        let found = server(tx, &ask.caller, &id)?;
        let now = shown(tx, &found)?;
        Ok::<_, ApiError>((found, now))
    })?;
    state::require(&found, now, "get_diagnostics", &["active", "paused"])?;
    let load = svc.node.diagnostics(&found).await?;
    Ok(Json(super::diagnostics::body(&found, now, &load, ask.mv)))
}
