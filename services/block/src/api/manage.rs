//! `/manageable_volumes` and `/manageable_snapshots`, and the older names of both: what is on the nodes' disks that no
//! project manages, and taking it over. For administrators.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use cairn_gateway::{ApiError, ApiResult, Body, Query};
use serde_json::{Value, json};

use super::Svc;
use super::context::Context;
use super::input::{self, Fields};
use super::view;
use crate::capacity;
use crate::model::{BY_LISTED, LISTED, Unmanaged};
use crate::servers::visible;
use crate::types;
use crate::unmanaged::{self, Wanted};

/// What a reference may call content by: both are its id.
const NAMES: [&str; 2] = ["source-id", "source-name"];

fn reference(id: &str) -> Value {
    json!({"source-id": id})
}

fn row(found: &Unmanaged, with_detail: bool) -> Value {
    let mut body = json!({"reference": reference(&found.id), "size": found.size_gb, "safe_to_manage": true});
    if let Some(of) = &found.of {
        body["source_reference"] = reference(of);
    }
    if with_detail {
        body["reason_not_safe"] = Value::Null;
        body["cinder_id"] = Value::Null;
        body["extra_info"] = Value::Null;
    }
    body
}

/// What is there on a host, which a query must name.
fn list(
    svc: &Svc,
    ctx: &Context,
    query: &Query,
    snapshots: bool,
    with_detail: bool,
) -> ApiResult<Vec<Value>> {
    ctx.caller.require_admin()?;
    let host = query.get("host").ok_or_else(|| ApiError::bad_request("A host must be named."))?;
    let (node, backend) = place(host)?;
    let limit = query.parse::<usize>("limit")?.unwrap_or(usize::MAX);
    let offset = query.parse::<usize>("offset")?.unwrap_or(0);
    let all = svc.store.read(|tx| tx.by_index::<Unmanaged>(BY_LISTED, LISTED))?;
    let here = all.iter().filter(|u| u.node == node && u.backend == backend && u.taken_by.is_none());
    let kind = here.filter(|u| u.of.is_some() == snapshots);
    Ok(kind.skip(offset).take(limit).map(|u| row(u, with_detail)).collect())
}

fn place(host: &str) -> ApiResult<(&str, &str)> {
    let own = |(_, backend): &(&str, &str)| capacity::is_own(backend);
    capacity::parse_host(host)
        .filter(own)
        .ok_or_else(|| ApiError::bad_request(format!("There is no host {host}.")))
}

/// `GET /manageable_volumes?host=...`
pub async fn list_volumes(State(svc): Svc, ctx: Context, query: Query) -> ApiResult<Json<Value>> {
    Ok(Json(json!({"manageable-volumes": list(&State(svc), &ctx, &query, false, false)?})))
}

/// `GET /manageable_volumes/detail?host=...`
pub async fn list_volumes_detail(State(svc): Svc, ctx: Context, query: Query) -> ApiResult<Json<Value>> {
    Ok(Json(json!({"manageable-volumes": list(&State(svc), &ctx, &query, false, true)?})))
}

/// `GET /manageable_snapshots?host=...`
pub async fn list_snapshots(State(svc): Svc, ctx: Context, query: Query) -> ApiResult<Json<Value>> {
    Ok(Json(json!({"manageable-snapshots": list(&State(svc), &ctx, &query, true, false)?})))
}

/// `GET /manageable_snapshots/detail?host=...`
pub async fn list_snapshots_detail(State(svc): Svc, ctx: Context, query: Query) -> ApiResult<Json<Value>> {
    Ok(Json(json!({"manageable-snapshots": list(&State(svc), &ctx, &query, true, true)?})))
}

/// The id that a body's reference means.
fn referred(fields: &Fields) -> ApiResult<String> {
    let Some(Value::Object(given)) = fields.get("ref") else {
        return Err(input::invalid("ref", "it is required"));
    };
    for name in NAMES {
        if let Some(id) = input::reference(given, name)? {
            return Ok(id);
        }
    }
    Err(input::invalid("ref", "it must have a source-id"))
}

fn wanted(fields: &Fields) -> ApiResult<Wanted> {
    let (name, description) = input::words(fields)?;
    Ok(Wanted {
        name,
        description,
        metadata: input::metadata(fields, "metadata")?.unwrap_or_default(),
        volume_type: input::reference(fields, "volume_type")?,
        bootable: input::flag(fields, "bootable")?.unwrap_or(false),
    })
}

/// `POST /manageable_volumes`
pub async fn volume(
    State(svc): Svc,
    ctx: Context,
    Body(body): Body<Value>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    ctx.caller.require_admin()?;
    let fields = input::inner(body, "volume")?;
    let id = referred(&fields)?;
    let host = input::reference(&fields, "host")?.ok_or_else(|| input::invalid("host", "it is required"))?;
    let (node, backend) = place(&host)?;
    let wanted = wanted(&fields)?;
    let shown = svc
        .store
        .transact(|tx| {
            let found = unmanaged::find(tx, &id, None)?;
            if found.node != node || found.backend != backend {
                return Err(ApiError::bad_request(format!("{id} is not on {host}.")));
            }
            let volume = unmanaged::take_volume(tx, &ctx.caller, found, wanted.clone())?;
            let name = types::by_id(tx, &ctx.caller, &volume.type_id)?.name;
            Ok(view::volume(&ctx, &volume, &name))
        })
        .await?;
    Ok((StatusCode::ACCEPTED, Json(json!({"volume": shown}))))
}

/// `POST /manageable_snapshots`
pub async fn snapshot(
    State(svc): Svc,
    ctx: Context,
    Body(body): Body<Value>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    ctx.caller.require_admin()?;
    let fields = input::inner(body, "snapshot")?;
    let id = referred(&fields)?;
    let volume_id = input::reference(&fields, "volume_id")?;
    let volume_id = volume_id.ok_or_else(|| input::invalid("volume_id", "it is required"))?;
    let wanted = wanted(&fields)?;
    let snapshot = svc
        .store
        .transact(|tx| {
            let volume = visible(tx, &ctx.caller, &volume_id)?;
            let found = unmanaged::find(tx, &id, Some(&volume_id))?;
            unmanaged::take_snapshot(tx, &ctx.caller, &volume, found, wanted.clone())
        })
        .await?;
    Ok((StatusCode::ACCEPTED, Json(json!({"snapshot": view::snapshot(&ctx, &snapshot)}))))
}
