//! `/attachments` (from 3.27 on): who uses which volume. Attachments are made and ended by attaching and
//! detaching through compute; the ones noted by this API itself can be ended here.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use cairn_gateway::{ApiError, ApiResult, Query};
use cairn_state::Tx;
use serde_json::{Value, json};

use super::Svc;
use super::context::Context;
use super::view::time;
use crate::model::{AttachedBy, Attachment, BY_ATTACHMENT, BY_LISTED, BY_PROJECT, LISTED, Status, Volume};

fn require(ctx: &Context) -> ApiResult<()> {
    if ctx.minor >= 27 {
        return Ok(());
    }
    Err(ApiError::new(StatusCode::NOT_FOUND, "The resource could not be found."))
}

fn brief(v: &Volume, a: &Attachment) -> Value {
    let status = match v.status {
        Status::Attaching => "attaching",
        Status::Detaching => "detaching",
        _ => "attached",
    };
    json!({"id": a.id, "instance": a.server_id, "volume_id": v.id, "status": status})
}

fn detail(v: &Volume, a: &Attachment) -> Value {
    let mut body = brief(v, a);
    body["attach_mode"] = json!(if v.read_only { "ro" } else { "rw" });
    body["attached_at"] = json!(time(a.attached_at));
    body["detached_at"] = Value::Null;
    body["connection_info"] = json!({});
    body
}

fn gather(tx: &mut Tx, ctx: &Context, query: &Query) -> ApiResult<Vec<Volume>> {
    let everywhere = ctx.caller.is_admin() && query.flag("all_tenants")?.unwrap_or(false);
    let mut volumes: Vec<Volume> = match everywhere {
        true => tx.by_index(BY_LISTED, LISTED)?,
        false => tx.by_index(BY_PROJECT, ctx.caller.require_project()?)?,
    };
    let is = |key: &str, value: &str| query.get(key).is_none_or(|q| q == value);
    volumes.retain(|v| is("volume_id", &v.id));
    volumes.iter_mut().for_each(|v| v.attachments.retain(|a| is("instance_id", &a.server_id)));
    Ok(volumes)
}

fn shown(
    svc: &Svc,
    ctx: &Context,
    query: &Query,
    view: fn(&Volume, &Attachment) -> Value,
) -> ApiResult<Json<Value>> {
    require(ctx)?;
    let volumes = svc.store.read(|tx| gather(tx, ctx, query))?;
    let rows: Vec<_> = volumes.iter().flat_map(|v| v.attachments.iter().map(move |a| view(v, a))).collect();
    Ok(Json(json!({"attachments": rows})))
}

/// `GET /attachments`
pub async fn list(State(svc): Svc, ctx: Context, query: Query) -> ApiResult<Json<Value>> {
    shown(&State(svc), &ctx, &query, brief)
}

/// `GET /attachments/detail`
pub async fn list_detail(State(svc): Svc, ctx: Context, query: Query) -> ApiResult<Json<Value>> {
    shown(&State(svc), &ctx, &query, detail)
}

fn find(tx: &mut Tx, ctx: &Context, id: &str) -> ApiResult<(Volume, Attachment)> {
    let gone = || ApiError::not_found("Volume attachment", id);
    let volume = tx.by_index::<Volume>(BY_ATTACHMENT, id)?.pop().filter(|v| ctx.caller.sees(&v.project_id));
    let volume = volume.ok_or_else(gone)?;
    let attachment = volume.attachments.iter().find(|a| a.id == id).cloned().ok_or_else(gone)?;
    Ok((volume, attachment))
}

/// `GET /attachments/{id}`
pub async fn show(State(svc): Svc, ctx: Context, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    require(&ctx)?;
    let (volume, attachment) = svc.store.read(|tx| find(tx, &ctx, &id))?;
    Ok(Json(json!({"attachment": detail(&volume, &attachment)})))
}

/// `DELETE /attachments/{id}`
pub async fn delete(State(svc): Svc, ctx: Context, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    require(&ctx)?;
    svc.store
        .transact(|tx| {
            let (mut volume, attachment) = find(tx, &ctx, &id)?;
            ctx.caller.require_writer()?;
            if attachment.by == AttachedBy::Server {
                return Err(ApiError::conflict(format!(
                    "The attachment {id} is a server's: detach the volume with the compute API."
                )));
            }
            volume.attachments.retain(|a| a.id != id);
            volume.become_status(Status::Available);
            tx.put(&volume)?;
            Ok(Json(json!({"attachments": []})))
        })
        .await
}
