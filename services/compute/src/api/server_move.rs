//! Actions that move a server: migrate, resize and their confirmation, live migration, evacuation.
//!
//! Forms are checked here, at the client's microversion; the moves themselves begin in `moves`.

use axum::response::{IntoResponse, Response};
use axum::{Json, http};
use cairn_gateway::{ApiError, ApiResult};
use cairn_state::Tx;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::ask::{self, Ask, empty, own_server, shown};
use super::create_body::{disk_config, text};
use super::form::{self, boolean, invalid};
use crate::Service;
use crate::model::{Flavor, MigrationStatus, Server, Stage};
use crate::moves::{apply, begin, log};
use crate::{actions, advance, disks, state, zones};

/// An argument that is an object with no other keys than these.
fn fields<'a>(action: &str, argument: &'a Value, known: &[&str]) -> ApiResult<&'a Map<String, Value>> {
    let f = argument.as_object().ok_or_else(|| invalid(action, argument, "is not of type 'object'"))?;
    form::only(f.keys(), |k| known.contains(&k))?;
    Ok(f)
}

/// The node named, if one is.
fn host_of(f: &Map<String, Value>) -> ApiResult<Option<String>> {
    match text(f, "host")? {
        Some(host) if host.is_empty() || host.len() > 255 => Err(invalid("host", host, "is no host's name")),
        other => Ok(other),
    }
}

/// The node named must be there, and another than the server's.
fn check_host(tx: &mut Tx, server: &Server, host: Option<&str>, missing: StatusCode) -> ApiResult<()> {
    let Some(host) = host else { return Ok(()) };
    if zones::host(tx, host)?.is_none() {
        return Err(ApiError::new(missing, format!("Compute host {host} could not be found.")));
    }
    match server.host.as_deref() == Some(host) {
        true => Err(ApiError::bad_request(format!(
            "Unable to migrate instance ({}) to current host ({host}).",
            server.id
        ))),
        false => Ok(()),
    }
}

/// `migrate`: since 2.56 perhaps to a node that is named.
pub async fn migrate(svc: &Service, ask: &Ask, id: &str, argument: &Value) -> ApiResult<Response> {
    ask.admin("os_compute_api:os-migrate-server:migrate")?;
    let host = match argument {
        // Older clients say anything here.
        _ if !ask.mv.since(56) => None,
        Value::Null => None,
        other => host_of(fields("migrate", other, &["host"])?)?,
    };
    let plan =
        begin::Plan { host, user_id: ask.caller.user_id.clone(), verify: true, ..begin::Plan::default() };
    ask::change(svc, ask, id, "migrate", |tx, found| {
        state::require(found, shown(tx, found)?, "migrate", &["active", "stopped"])?;
        check_host(tx, found, plan.host.as_deref(), StatusCode::BAD_REQUEST)?;
        begin::cold(tx, found, &plan).map(drop)
    })
    .await?;
    Ok(empty(StatusCode::ACCEPTED))
}

/// `resize`.
pub async fn resize(svc: &Service, ask: &Ask, id: &str, argument: &Value) -> ApiResult<Response> {
    let f = fields("resize", argument, &["flavorRef", "OS-DCF:diskConfig"])?;
    let flavor_ref = match f.get("flavorRef") {
        Some(Value::String(s)) if !s.is_empty() => s.clone(),
        Some(Value::Number(n)) => n.to_string(),
        Some(other) => return Err(invalid("flavorRef", other, "is not of type 'string', 'integer'")),
        None => return Err(ApiError::bad_request("'flavorRef' is a required property")),
    };
    let disk_config = f.get("OS-DCF:diskConfig").map(|_| disk_config(f)).transpose()?;
    ask::change(svc, ask, id, "resize", |tx, found| {
        catch_up(svc, tx, found)?;
        state::require(found, shown(tx, found)?, "resize", &["active", "stopped"])?;
        let flavor = wanted_flavor(tx, ask, found, &flavor_ref)?;
        disks::grow_for(tx, found, &flavor)?;
        if let Some(config) = &disk_config {
            found.disk_config.clone_from(config);
        }
        let plan = begin::Plan {
            host: None,
            flavor: Some(flavor.snapshot()),
            user_id: ask.caller.user_id.clone(),
            verify: true,
        };
        begin::cold(tx, found, &plan).map(drop)
    })
    .await?;
    Ok(empty(StatusCode::ACCEPTED))
}

/// Takes in first what the server's node has reported: it is shown to users at once, and only noted a moment later.
fn catch_up(svc: &Service, tx: &mut Tx, server: &mut Server) -> ApiResult<()> {
    advance::advance(tx, &server.id, jiff::Timestamp::now(), &|tx, node| svc.lost(tx, node))?;
    if let Some(now) = tx.get::<Server>(&server.id)? {
        *server = now;
    }
    Ok(())
}

/// The flavor a server may be resized to.
fn wanted_flavor(tx: &mut Tx, ask: &Ask, server: &Server, id: &str) -> ApiResult<Flavor> {
    let open = |f: &Flavor| !f.disabled && (ask.caller.is_admin() || f.open_to(&server.project_id));
    let flavor = tx.get::<Flavor>(id)?.filter(open);
    let flavor = flavor.ok_or_else(|| ApiError::bad_request("Unable to locate requested flavor."))?;
    let (old, own_root) = (&server.flavor, server.root().is_some_and(|v| !v.listed));
    if flavor.id == old.id {
        return Err(ApiError::bad_request("When resizing, instances must change flavor!"));
    }
    if own_root && flavor.disk_gb == 0 && old.disk_gb != 0 {
        return Err(ApiError::bad_request("Resize to zero disk flavor is not allowed."));
    }
    if own_root && flavor.disk_gb < old.disk_gb {
        return Err(ApiError::bad_request(
            "Flavor's disk is smaller than the server's: disks can grow and not shrink.",
        ));
    }
    if (flavor.ephemeral_gb, flavor.swap_mb) != (old.ephemeral_gb, old.swap_mb) {
        return Err(ApiError::bad_request(
            "The flavor's ephemeral and swap disks must be the same as those the server has.",
        ));
    }
    Ok(flavor)
}

/// `confirmResize`: the server stays as it is now.
pub async fn confirm(svc: &Service, ask: &Ask, id: &str) -> ApiResult<Response> {
    change_resized(svc, ask, id, "confirmResize", |tx, found| {
        apply::end(tx, found, MigrationStatus::Confirmed, None)
    })
    .await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// `revertResize`: it goes back to where, and what, it was.
pub async fn revert(svc: &Service, ask: &Ask, id: &str) -> ApiResult<Response> {
    change_resized(svc, ask, id, "revertResize", |tx, found| {
        let Some(moving) = found.moving.clone() else { return Ok(()) };
        apply::enter(found, Stage::Returning, jiff::Timestamp::now());
        Ok(log::mark(tx, &found.id, &moving, MigrationStatus::Reverting, None)?)
    })
    .await?;
    Ok(empty(StatusCode::ACCEPTED))
}

async fn change_resized(
    svc: &Service,
    ask: &Ask,
    id: &str,
    action: &str,
    mut how: impl FnMut(&mut Tx, &mut Server) -> ApiResult<()>,
) -> ApiResult<()> {
    ask::change(svc, ask, id, action, |tx, found| {
        state::require(found, shown(tx, found)?, action, &["resized"])?;
        how(tx, found)
    })
    .await
}

/// What a live migration asks for.
struct Live {
    host: Option<String>,
    block: bool,
}

/// The body of `os-migrateLive`: 2.25 brought `auto` and dropped `disk_over_commit`, 2.30 brought `force`, 2.68
/// dropped it.
fn live_body(ask: &Ask, argument: &Value) -> ApiResult<Live> {
    let f =
        argument.as_object().ok_or_else(|| invalid("os-migrateLive", argument, "is not of type 'object'"))?;
    let (auto, force) = (ask.mv.since(25), ask.mv.since(30) && !ask.mv.since(68));
    form::only(f.keys(), |k| match k {
        "host" | "block_migration" => true,
        "disk_over_commit" => !auto,
        "force" => force,
        _ => false,
    })?;
    let needed: &[&str] = match auto {
        true => &["host", "block_migration"],
        false => &["host", "block_migration", "disk_over_commit"],
    };
    if let Some(missing) = needed.iter().find(|k| !f.contains_key(**k)) {
        return Err(ApiError::bad_request(format!("'{missing}' is a required property")));
    }
    for key in ["disk_over_commit", "force"] {
        f.get(key).map(|v| boolean(key, v)).transpose()?;
    }
    let block = match &f["block_migration"] {
        Value::String(s) if auto && s == "auto" => false,
        other => boolean("block_migration", other)?,
    };
    let host = host_of(f)?;
    if host.is_none() && f.get("force").map(|v| boolean("force", v)).transpose()? == Some(true) {
        return Err(ApiError::bad_request("Can't force to a non-provided destination"));
    }
    Ok(Live { host, block })
}

/// `os-migrateLive`. A node that is named is checked like any other, forced or not: a guest that could not run there
/// would be lost.
pub async fn live(svc: &Service, ask: &Ask, id: &str, argument: &Value) -> ApiResult<Response> {
    ask.admin("os_compute_api:os-migrate-server:migrate_live")?;
    let wanted = live_body(ask, argument)?;
    let plan =
        begin::Plan { host: wanted.host, user_id: ask.caller.user_id.clone(), ..begin::Plan::default() };
    let actor = ask.actor();
    svc.store
        .transact(|tx| {
            let mut found = own_server(tx, &ask.caller, id)?;
            state::require_unlocked(&found, ask.caller.is_admin())?;
            state::require(&found, shown(tx, &found)?, "os-migrateLive", &["active", "paused"])?;
            check_host(tx, &found, plan.host.as_deref(), StatusCode::BAD_REQUEST)?;
            if wanted.block {
                return Err(ApiError::bad_request(format!(
                    "Instance {id}: block migration can not be used with shared storage, and every node reaches \
                     every disk here."
                )));
            }
            let begun = begin::live(tx, &mut found, &plan);
            actions::begin(tx, &mut found, &actor, "live-migration")?;
            match begun {
                // Since 2.34 the client has its answer before a node is looked for.
                Err(e) if e.message == crate::create::NO_HOST && ask.mv.since(34) => {
                    actions::finish(tx, &mut found, Some(&e.message))?;
                }
                other => drop(other?),
            }
            Ok(tx.put(&found)?)
        })
        .await?;
    Ok(empty(StatusCode::ACCEPTED))
}

/// `evacuate`: a server of a dead node runs on elsewhere. It is moved once its old node has stopped it, by its own
/// word or because it is lost.
pub async fn evacuate(svc: &Service, ask: &Ask, id: &str, argument: &Value) -> ApiResult<Response> {
    ask.admin("os_compute_api:os-evacuate")?;
    let f = argument.as_object().ok_or_else(|| invalid("evacuate", argument, "is not of type 'object'"))?;
    form::only(f.keys(), |k| match k {
        "host" | "adminPass" => true,
        "onSharedStorage" => !ask.mv.since(14),
        "force" => ask.mv.since(29) && !ask.mv.since(68),
        _ => false,
    })?;
    if !ask.mv.since(14) {
        let shared = f.get("onSharedStorage");
        boolean(
            "onSharedStorage",
            shared.ok_or_else(|| ApiError::bad_request("'onSharedStorage' is a required property"))?,
        )?;
    }
    f.get("force").map(|v| boolean("force", v)).transpose()?;
    let plan =
        begin::Plan { host: host_of(f)?, user_id: ask.caller.user_id.clone(), ..begin::Plan::default() };
    ask::change(svc, ask, id, "evacuate", |tx, found| {
        state::require(found, shown(tx, found)?, "evacuate", &["active", "stopped", "error"])?;
        let host = ask::host(found)?;
        check_host(tx, found, plan.host.as_deref(), StatusCode::NOT_FOUND)?;
        if zones::host(tx, &host)?.is_some_and(|h| h.up) {
            return Err(ApiError::bad_request(format!("Compute service of {host} is still in use.")));
        }
        let begun = begin::evacuate(tx, found, &plan)?;
        begun.map(drop).ok_or_else(|| ApiError::bad_request(crate::create::NO_HOST))
    })
    .await?;
    match ask.mv.since(14) {
        true => Ok(empty(StatusCode::OK)),
        // No guest has a password that could be set from outside; the form is kept.
        false => Ok(Json(json!({"adminPass": text(f, "adminPass")?.unwrap_or_default()})).into_response()),
    }
}
