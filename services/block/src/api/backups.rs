//! `/backups`: making, listing, showing, changing, restoring and deleting backups, and the records of them that can be
//! taken elsewhere.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use cairn_gateway::{ApiError, ApiResult, Body, Query};
use cairn_state::Tx;
use serde_json::{Map, Value, json};

use super::Svc;
use super::context::Context;
use super::input;
use super::listing::{Cut, Wanted};
use super::view::time;
use super::volumes::page;
use crate::ZONE;
use crate::backups::{self, NewBackup};
use crate::model::{Backup, Status};

fn brief(ctx: &Context, b: &Backup) -> Value {
    json!({"id": b.id, "name": b.name, "links": ctx.links("backups", &b.id)})
}

/// The keys that making and changing answer with.
fn of_change(ctx: &Context, b: &Backup) -> Value {
    let mut body = brief(ctx, b);
    if ctx.minor >= 43 {
        body["metadata"] = json!(b.metadata);
    }
    body
}

fn detail(ctx: &Context, b: &Backup, continued: bool) -> Value {
    let mut body = of_change(ctx, b);
    let more = json!({
        "status": b.status.name(),
        "size": b.size_gb,
        "object_count": b.objects,
        "container": b.container,
        "description": b.description,
        "availability_zone": ZONE,
        "created_at": time(b.created_at),
        "updated_at": b.updated_at.map(time),
        "data_timestamp": time(b.data_timestamp),
        "volume_id": b.volume_id,
        "snapshot_id": b.snapshot_id,
        "fail_reason": b.fail_reason,
        "is_incremental": b.parent.is_some(),
        "has_dependent_backups": continued,
    });
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    if ctx.minor >= 18 && ctx.caller.is_admin() {
        body["os-backup-project-attr:project_id"] = json!(b.project_id);
    }
    if ctx.minor >= 56 {
        body["user_id"] = json!(b.user_id);
    }
    if let Some(key) = b.of.key.as_ref().filter(|_| ctx.minor >= 64) {
        body["encryption_key_id"] = json!(key.id);
    }
    body
}

/// `POST /backups`
pub async fn create(
    State(svc): Svc,
    ctx: Context,
    Body(body): Body<Value>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let fields = input::inner(body, "backup")?;
    let volume_id = input::reference(&fields, "volume_id")?;
    if let Some(zone) = input::reference(&fields, "availability_zone")?.filter(|z| z != ZONE) {
        return Err(ApiError::bad_request(format!("Availability zone '{zone}' is invalid.")));
    }
    let wanted = NewBackup {
        volume_id: volume_id.ok_or_else(|| input::invalid("volume_id", "it is required"))?,
        snapshot_id: input::reference(&fields, "snapshot_id")?,
        name: input::text(&fields, "name")?,
        description: input::text(&fields, "description")?,
        metadata: input::metadata(&fields, "metadata")?.filter(|_| ctx.minor >= 43).unwrap_or_default(),
        container: input::reference(&fields, "container")?,
        incremental: input::flag(&fields, "incremental")?.unwrap_or(false),
        force: input::flag(&fields, "force")?.unwrap_or(false),
    };
    let made = svc.store.transact(|tx| backups::create(tx, &ctx.caller, wanted.clone())).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({"backup": of_change(&ctx, &made)}))))
}

/// `GET /backups`
pub async fn list(State(svc): Svc, ctx: Context, query: Query) -> ApiResult<Json<Value>> {
    let (cut, _) = find_page(&State(svc), &ctx, &query)?;
    let shown = cut.items.iter().map(|b| brief(&ctx, b)).collect();
    Ok(Json(page(&ctx, &query, "backups", shown, &cut)))
}

/// `GET /backups/detail`
pub async fn list_detail(State(svc): Svc, ctx: Context, query: Query) -> ApiResult<Json<Value>> {
    let (cut, continued) = find_page(&State(svc), &ctx, &query)?;
    let shown = cut.items.iter().zip(continued).map(|(b, c)| detail(&ctx, b, c)).collect();
    Ok(Json(page(&ctx, &query, "backups", shown, &cut)))
}

/// The page that was asked for, and of each whether another continues it.
fn find_page(svc: &Svc, ctx: &Context, query: &Query) -> ApiResult<(Cut<Backup>, Vec<bool>)> {
    let wanted = Wanted::read(ctx, query)?;
    svc.store.read(|tx| {
        let cut = wanted.cut(wanted.gather::<Backup>(tx, ctx)?)?;
        let continued = cut.items.iter().map(|b| backups::is_continued(tx, &b.id));
        let continued = continued.collect::<Result<Vec<_>, _>>()?;
        Ok((cut, continued))
    })
}

/// `GET /backups/{id}`
pub async fn show(State(svc): Svc, ctx: Context, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    let (found, continued) = svc.store.read(|tx| {
        let found = backups::find(tx, &ctx.caller, &id)?;
        let continued = backups::is_continued(tx, &id)?;
        Ok::<_, ApiError>((found, continued))
    })?;
    Ok(Json(json!({"backup": detail(&ctx, &found, continued)})))
}

async fn change<T>(
    svc: &Svc,
    ctx: &Context,
    id: &str,
    edit: impl Fn(&mut Tx, &mut Backup) -> ApiResult<T>,
) -> ApiResult<T> {
    svc.store
        .transact(|tx| {
            let mut found = backups::find(tx, &ctx.caller, id)?;
            ctx.caller.require_writer()?;
            edit(tx, &mut found)
        })
        .await
}

/// `PUT /backups/{id}` (from 3.9 on)
pub async fn update(
    State(svc): Svc,
    ctx: Context,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> ApiResult<Json<Value>> {
    if ctx.minor < 9 {
        return Err(ApiError::not_found("Resource", &format!("PUT /backups/{id}")));
    }
    let fields = input::inner(body, "backup")?;
    let (name, description) = (input::text(&fields, "name")?, input::text(&fields, "description")?);
    let metadata = input::metadata(&fields, "metadata")?.filter(|_| ctx.minor >= 43);
    if name.is_none() && description.is_none() && metadata.is_none() {
        return Err(ApiError::bad_request("A name, a description or metadata must be given."));
    }
    let changed = change(&State(svc), &ctx, &id, |tx, backup| {
        backup.name = name.clone().or(backup.name.take());
        backup.description = description.clone().or(backup.description.take());
        if let Some(metadata) = &metadata {
            backup.metadata.clone_from(metadata);
        }
        tx.put(backup)?;
        Ok(backup.clone())
    })
    .await?;
    Ok(Json(json!({"backup": of_change(&ctx, &changed)})))
}

/// `DELETE /backups/{id}`
pub async fn delete(State(svc): Svc, ctx: Context, Path(id): Path<String>) -> ApiResult<StatusCode> {
    change(&State(svc), &ctx, &id, |tx, backup| backups::delete(tx, backup, false)).await?;
    Ok(StatusCode::ACCEPTED)
}

/// `POST /backups/{id}/restore`
pub async fn restore(
    State(svc): Svc,
    ctx: Context,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let fields = input::inner(body, "restore")?;
    let (volume_id, name) = (input::reference(&fields, "volume_id")?, input::reference(&fields, "name")?);
    let volume = change(&State(svc), &ctx, &id, |tx, backup| {
        backups::restore(tx, &ctx.caller, backup, volume_id.as_deref(), name.clone())
    })
    .await?;
    let shown =
        json!({"backup_id": id, "volume_id": volume.id, "volume_name": volume.name.unwrap_or_default()});
    Ok((StatusCode::ACCEPTED, Json(json!({"restore": shown}))))
}

/// `POST /backups/{id}/action`, for administrators.
pub async fn act(
    State(svc): Svc,
    ctx: Context,
    Path(id): Path<String>,
    Body(body): Body<Map<String, Value>>,
) -> ApiResult<StatusCode> {
    ctx.caller.require_admin()?;
    let Some((action, arguments)) = body.iter().next() else {
        return Err(ApiError::bad_request("The request body must name an action."));
    };
    change(&State(svc), &ctx, &id, |tx, backup| match action.as_str() {
        "os-force_delete" => backups::delete(tx, backup, true),
        "os-reset_status" => {
            let status = arguments.get("status").and_then(Value::as_str).and_then(Status::parse);
            let status = status.filter(|s| matches!(s, Status::Available | Status::Error));
            let status = status.ok_or_else(|| input::invalid("status", "it must be available or error"))?;
            if status == Status::Available && !backup.made {
                return Err(ApiError::bad_request("Invalid backup: its content was never made."));
            }
            backup.status = status;
            Ok(tx.put(backup)?)
        }
        other => Err(ApiError::bad_request(format!("There is no such action: {other}."))),
    })
    .await?;
    Ok(StatusCode::ACCEPTED)
}
