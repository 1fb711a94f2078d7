//! `/snapshots`: making, listing, showing, changing and deleting snapshots.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use cairn_gateway::{ApiError, ApiResult, Body, Caller, Query};
use cairn_state::Tx;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::Svc;
use super::context::Context;
use super::listing::{Cut, Wanted};
use super::volumes::page;
use super::{input, view};
use crate::create::{self, NewSnapshot};
use crate::model::{Snapshot, Status};
use crate::servers::visible;
use crate::{lifecycle, unmanaged};

/// The snapshot with this id, if the caller may see it; 404 otherwise.
pub fn find(tx: &mut Tx, caller: &Caller, id: &str) -> ApiResult<Snapshot> {
    tx.get::<Snapshot>(id)?
        .filter(|s| caller.sees(&s.project_id))
        .ok_or_else(|| ApiError::not_found("Snapshot", id))
}

/// `POST /snapshots`
pub async fn create(
    State(svc): Svc,
    ctx: Context,
    Body(body): Body<Value>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let fields = input::inner(body, "snapshot")?;
    if fields.get("volume_id") == Some(&Value::Null) {
        return Err(ApiError::not_found("Volume", "None"));
    }
    let volume_id = input::reference(&fields, "volume_id")?
        .ok_or_else(|| input::invalid("volume_id", "it is required"))?;
    let asked = input::flag(&fields, "force")?;
    if ctx.minor >= 66 && asked == Some(false) {
        return Err(ApiError::bad_request(
            "Since microversion 3.66, 'force' is always meant and cannot be false.",
        ));
    }
    let (name, description) = input::words(&fields)?;
    let wanted = NewSnapshot {
        name,
        description,
        metadata: input::metadata(&fields, "metadata")?.unwrap_or_default(),
        force: ctx.minor >= 66 || asked.unwrap_or(false),
        ..NewSnapshot::default()
    };
    let snapshot = svc
        .store
        .transact(|tx| {
            let volume = visible(tx, &ctx.caller, &volume_id)?;
            create::snapshot(tx, &ctx.caller, &volume, wanted.clone())
        })
        .await?;
    Ok((StatusCode::ACCEPTED, Json(json!({"snapshot": view::snapshot(&ctx, &snapshot)}))))
}

/// `GET /snapshots`
pub async fn list(State(svc): Svc, ctx: Context, query: Query) -> ApiResult<Json<Value>> {
    let cut = find_page(&State(svc), &ctx, &query)?;
    let shown = cut.items.iter().map(|s| view::snapshot(&ctx, s)).collect();
    Ok(Json(page(&ctx, &query, "snapshots", shown, &cut)))
}

/// `GET /snapshots/detail`
pub async fn list_detail(State(svc): Svc, ctx: Context, query: Query) -> ApiResult<Json<Value>> {
    let cut = find_page(&State(svc), &ctx, &query)?;
    let shown = cut.items.iter().map(|s| view::snapshot_detail(&ctx, s)).collect();
    Ok(Json(page(&ctx, &query, "snapshots", shown, &cut)))
}

fn find_page(svc: &Svc, ctx: &Context, query: &Query) -> ApiResult<Cut<Snapshot>> {
    let wanted = Wanted::read(ctx, query)?;
    wanted.cut(svc.store.read(|tx| wanted.gather(tx, ctx))?)
}

/// `GET /snapshots/{id}`
pub async fn show(State(svc): Svc, ctx: Context, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    let snapshot = svc.store.read(|tx| find(tx, &ctx.caller, &id))?;
    Ok(Json(json!({"snapshot": view::snapshot_detail(&ctx, &snapshot)})))
}

/// `PUT /snapshots/{id}`
pub async fn update(
    State(svc): Svc,
    ctx: Context,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> ApiResult<Json<Value>> {
    let fields = input::inner(body, "snapshot")?;
    let (name, description) = input::words(&fields)?;
    let snapshot = svc
        .store
        .transact(|tx| {
            let mut snapshot = find(tx, &ctx.caller, &id)?;
            ctx.caller.require_writer()?;
            if name.is_some() {
                snapshot.name.clone_from(&name);
            }
            if description.is_some() {
                snapshot.description.clone_from(&description);
            }
            snapshot.updated_at = Some(Timestamp::now());
            tx.put(&snapshot)?;
            Ok::<_, ApiError>(snapshot)
        })
        .await?;
    Ok(Json(json!({"snapshot": view::snapshot(&ctx, &snapshot)})))
}

/// `DELETE /snapshots/{id}`
pub async fn delete(State(svc): Svc, ctx: Context, Path(id): Path<String>) -> ApiResult<StatusCode> {
    svc.store
        .transact(|tx| {
            let mut snapshot = find(tx, &ctx.caller, &id)?;
            ctx.caller.require_writer()?;
            if let Some(whole) = &snapshot.group_snapshot_id {
                return Err(ApiError::bad_request(format!(
                    "Invalid snapshot: Snapshot {id} is part of group snapshot {whole}."
                )));
            }
            lifecycle::delete_snapshot(tx, &mut snapshot, false)?;
            Ok(StatusCode::ACCEPTED)
        })
        .await
}

/// `POST /snapshots/{id}/action`, for administrators but for `os-update_snapshot_status`.
pub async fn act(
    State(svc): Svc,
    ctx: Context,
    Path(id): Path<String>,
    Body(body): Body<Map<String, Value>>,
) -> ApiResult<StatusCode> {
    svc.store
        .transact(|tx| {
            let mut snapshot = find(tx, &ctx.caller, &id)?;
            ctx.caller.require_writer()?;
            let Some((action, arguments)) = body.iter().next() else {
                return Err(ApiError::bad_request("The request body must name an action."));
            };
            if action == "os-update_snapshot_status" {
                report(tx, &mut snapshot, arguments)?;
                return Ok(StatusCode::ACCEPTED);
            }
            ctx.caller.require_admin()?;
            match action.as_str() {
                "os-unmanage" => unmanaged::release_snapshot(tx, &snapshot)?,
                "os-force_delete" => lifecycle::delete_snapshot(tx, &mut snapshot, true)?,
                "os-reset_status" => {
                    let name = arguments.get("status").and_then(Value::as_str).unwrap_or_default();
                    let status = Status::parse(name);
                    snapshot.status =
                        status.ok_or_else(|| input::invalid("status", "there is no such status"))?;
                    snapshot.updated_at = Some(Timestamp::now());
                    tx.put(&snapshot)?;
                }
                other => {
                    return Err(ApiError::bad_request(format!(
                        "There is no such action, or it is not built: {other}."
                    )));
                }
            }
            Ok(StatusCode::ACCEPTED)
        })
        .await
}

/// Who makes or ends a snapshot says how that went.
fn report(tx: &mut Tx, snapshot: &mut Snapshot, arguments: &Value) -> ApiResult<()> {
    let fields = arguments.as_object().cloned().unwrap_or_default();
    let status =
        input::reference(&fields, "status")?.ok_or_else(|| input::invalid("status", "it is required"))?;
    let next = match (snapshot.status, Status::parse(&status)) {
        (Status::Creating, Some(s @ (Status::Creating | Status::Available | Status::Error))) => s,
        (Status::Deleting, Some(s @ (Status::Deleting | Status::ErrorDeleting))) => s,
        (now, _) => {
            return Err(ApiError::bad_request(format!(
                "Provided snapshot status {status} not allowed for snapshot with status {}.",
                now.name()
            )));
        }
    };
    if let Some(progress) = input::reference(&fields, "progress")? {
        let percent = progress.strip_suffix('%').and_then(|n| n.parse::<u8>().ok());
        if percent.is_none_or(|n| n > 100) {
            return Err(input::invalid("progress", "it must be a percentage, as '80%'"));
        }
        snapshot.progress = Some(progress);
    }
    snapshot.status = next;
    snapshot.updated_at = Some(Timestamp::now());
    Ok(tx.put(snapshot)?)
}
