//! The volumes of a server: listed, given and taken back.

use axum::extract::{Path, State};
use axum::response::Response;
use axum::{Json, Router, routing};
use cairn_block::servers as block;
use cairn_gateway::{ApiError, ApiResult, Body, Minor, Page, Query};
use http::StatusCode;
use serde_json::{Value, json};

use super::Routes;
use super::ask::{Ask, Svc, change, empty, host, own_server, server, shown};
use super::create_body::{flag, text};
use super::form::{self, inner, uuid};
use crate::model::{Server, ServerVolume};
use crate::state;

/// The states in which volumes come and go.
const STATES: [&str; 3] = ["active", "paused", "stopped"];

/// The routes.
pub fn routes() -> Routes {
    Router::new()
        .route("/servers/{id}/os-volume_attachments", routing::get(list).post(attach))
        .route("/servers/{id}/os-volume_attachments/{volume}", routing::get(show).put(update).delete(detach))
}

/// An attachment; the id it had before 2.89 was the volume's.
fn body(server: &Server, v: &ServerVolume, mv: Minor, made: bool) -> Value {
    let mut out = json!({"serverId": server.id, "volumeId": v.volume_id, "device": v.device});
    if !mv.since(89) || made {
        out["id"] = json!(v.volume_id);
    }
    if mv.since(70) {
        out["tag"] = json!(v.tag);
    }
    if mv.since(79) {
        out["delete_on_termination"] = json!(v.delete_on_termination);
    }
    if mv.since(89) && !made {
        out["attachment_id"] = json!(v.attachment_id);
        out["bdm_uuid"] = json!(v.bdm_id);
    }
    out
}

async fn list(State(svc): Svc, ask: Ask, Path(id): Path<String>, query: Query) -> ApiResult<Json<Value>> {
    let found = svc.store.read(|tx| server(tx, &ask.caller, &id))?;
    let listed: Vec<_> = found.volumes.iter().filter(|v| v.listed).cloned().collect();
    let offset = query.parse::<usize>("offset")?.unwrap_or(0);
    let page = Page::cut(listed.into_iter().skip(offset).collect(), &query, |v| &v.volume_id)?;
    let shown: Vec<_> = page.items.iter().map(|v| body(&found, v, ask.mv, false)).collect();
    Ok(Json(json!({"volumeAttachments": shown})))
}

fn no_volume(server: &str, volume: &str) -> ApiError {
    let why = format!("Instance {server} is not attached to volume {volume}");
    ApiError::new(StatusCode::NOT_FOUND, why)
}

fn held<'a>(server: &'a Server, volume: &str) -> ApiResult<&'a ServerVolume> {
    server.volume(volume).filter(|v| v.listed).ok_or_else(|| no_volume(&server.id, volume))
}

async fn show(
    State(svc): Svc,
    ask: Ask,
    Path((id, volume)): Path<(String, String)>,
) -> ApiResult<Json<Value>> {
    let found = svc.store.read(|tx| server(tx, &ask.caller, &id))?;
    let shown = body(&found, held(&found, &volume)?, ask.mv, false);
    Ok(Json(json!({"volumeAttachment": shown})))
}

struct Wanted {
    volume: String,
    tag: Option<String>,
    delete_on_termination: bool,
}

fn wanted(body: &Value, mv: Minor) -> ApiResult<Wanted> {
    let f = form::object(body, "volumeAttachment")?;
    let known = |k: &str| match k {
        "volumeId" | "device" => true,
        "tag" => mv.since(49),
        "delete_on_termination" => mv.since(79),
        _ => false,
    };
    form::only(f.keys(), known)?;
    let volume =
        text(f, "volumeId")?.ok_or_else(|| ApiError::bad_request("'volumeId' is a required property"))?;
    Ok(Wanted {
        volume: uuid("volumeId", &volume)?,
        tag: text(f, "tag")?,
        delete_on_termination: flag(f, "delete_on_termination")?,
    })
}

/// POST: the volume is exported to the server's node at once; its guest gets it as soon as it is served there.
/// The device name is chosen here: names asked for have no meaning to a guest.
async fn attach(
    State(svc): Svc,
    ask: Ask,
    Path(id): Path<String>,
    Body(json): Body<Value>,
) -> ApiResult<Json<Value>> {
    let wanted = wanted(&json, ask.mv)?;
    change(&svc, &ask, &id, "attach_volume", |tx, found| {
        state::require(found, shown(tx, found)?, "attach_volume", &STATES)?;
        let host = host(found)?;
        let full = || ApiError::forbidden("The server has all the disks it can have.");
        let device = found.next_device().ok_or_else(full)?;
        let info = block::reserve(tx, &ask.caller, &wanted.volume, &id, &host, Some(&device))?;
        let volume = ServerVolume {
            volume_id: info.volume_id,
            attachment_id: info.attachment_id,
            bdm_id: uuid::Uuid::new_v4().to_string(),
            device,
            boot: false,
            listed: true,
            delete_on_termination: wanted.delete_on_termination,
            tag: wanted.tag.clone(),
            attached: false,
            detaching: false,
        };
        let shown = body(found, &volume, ask.mv, true);
        found.volumes.push(volume);
        found.touch();
        Ok(Json(json!({"volumeAttachment": shown})))
    })
    .await
}

/// PUT: since 2.85 whether the volume goes with its server; swapping for another volume is not built.
async fn update(
    State(svc): Svc,
    ask: Ask,
    Path((id, volume)): Path<(String, String)>,
    Body(json): Body<Value>,
) -> ApiResult<Response> {
    let f = inner(&json, "volumeAttachment")?;
    let to = f.get("volumeId").and_then(Value::as_str);
    let to = to.ok_or_else(|| ApiError::bad_request("'volumeId' is a required property"))?.to_owned();
    let goes = f.get("delete_on_termination").filter(|_| ask.mv.since(85)).and_then(Value::as_bool);
    svc.store
        .transact(|tx| {
            let mut found = own_server(tx, &ask.caller, &id)?;
            held(&found, &volume)?;
            if to != volume {
                return Err(ApiError::not_implemented(
                    "A volume in use cannot be exchanged for another one.",
                ));
            }
            let Some(goes) = goes else {
                return Err(ApiError::bad_request("Nothing of this attachment can be changed in this way."));
            };
            found
                .volumes
                .iter_mut()
                .filter(|v| v.volume_id == volume)
                .for_each(|v| v.delete_on_termination = goes);
            Ok(tx.put(&found)?)
        })
        .await?;
    Ok(empty(StatusCode::ACCEPTED))
}

/// DELETE: the guest is asked to give it back; it is free once the guest has.
async fn detach(
    State(svc): Svc,
    ask: Ask,
    Path((id, volume)): Path<(String, String)>,
) -> ApiResult<Response> {
    change(&svc, &ask, &id, "detach_volume", |tx, found| {
        let held = held(found, &volume)?;
        if held.boot {
            return Err(ApiError::forbidden("Cannot detach a root device volume"));
        }
        state::require(found, shown(tx, found)?, "detach_volume", &STATES)?;
        if held.detaching {
            return Err(ApiError::conflict(format!("Volume {volume} is being detached already.")));
        }
        block::begin_detach(tx, &ask.caller, &volume, &id)?;
        found.volumes.iter_mut().filter(|v| v.volume_id == volume).for_each(|v| {
            v.detaching = true;
            // The user takes it away alive.
            v.delete_on_termination = false;
        });
        found.touch();
        Ok(empty(StatusCode::ACCEPTED))
    })
    .await
}
