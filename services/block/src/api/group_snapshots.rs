//! `/group_snapshots`: snapshots of all volumes of a group.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use cairn_gateway::{ApiError, ApiResult, Body, Query};
use serde_json::{Map, Value, json};

use super::Svc;
use super::context::Context;
use super::groups::{one_action, status_to_set};
use super::input;
use super::listing::{Cut, Wanted};
use super::view::time;
use super::volumes::page;
use crate::groups;
use crate::model::{GroupSnapshot, Snapshot};

fn brief(s: &GroupSnapshot) -> Value {
    json!({"id": s.id, "name": s.name})
}

fn detail(s: &GroupSnapshot, parts: &[Snapshot]) -> Value {
    json!({
        "id": s.id,
        "name": s.name,
        "description": s.description,
        "group_id": s.group_id,
        "group_type_id": s.group_type,
        "status": groups::snapshot_status(s, parts).name(),
        "created_at": time(s.created_at),
    })
}

/// `GET /group_snapshots`
pub async fn list(State(svc): Svc, ctx: Context, query: Query) -> ApiResult<Json<Value>> {
    let (cut, _) = find_page(&State(svc), &ctx, &query)?;
    Ok(Json(page(&ctx, &query, "group_snapshots", cut.items.iter().map(brief).collect(), &cut)))
}

/// `GET /group_snapshots/detail`
pub async fn list_detail(State(svc): Svc, ctx: Context, query: Query) -> ApiResult<Json<Value>> {
    let (cut, parts) = find_page(&State(svc), &ctx, &query)?;
    let shown = cut.items.iter().zip(&parts).map(|(s, parts)| detail(s, parts)).collect();
    Ok(Json(page(&ctx, &query, "group_snapshots", shown, &cut)))
}

/// The page that was asked for, and the snapshots of each entry.
fn find_page(svc: &Svc, ctx: &Context, query: &Query) -> ApiResult<(Cut<GroupSnapshot>, Vec<Vec<Snapshot>>)> {
    let wanted = Wanted::read(ctx, query)?;
    svc.store.read(|tx| {
        let cut = wanted.cut(wanted.gather::<GroupSnapshot>(tx, ctx)?)?;
        let parts = cut.items.iter().map(|s| groups::snapshots(tx, &s.id)).collect::<Result<_, _>>()?;
        Ok((cut, parts))
    })
}

/// `GET /group_snapshots/{id}`
pub async fn show(State(svc): Svc, ctx: Context, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    let (found, parts) = svc.store.read(|tx| {
        let found = groups::find_snapshot(tx, &ctx.caller, &id)?;
        Ok::<_, ApiError>((found, groups::snapshots(tx, &id)?))
    })?;
    Ok(Json(json!({"group_snapshot": detail(&found, &parts)})))
}

/// `POST /group_snapshots`
pub async fn create(
    State(svc): Svc,
    ctx: Context,
    Body(body): Body<Value>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let fields = input::inner(body, "group_snapshot")?;
    let group = input::reference(&fields, "group_id")?;
    let group = group.ok_or_else(|| input::invalid("group_id", "it is required"))?;
    let (name, description) = (input::text(&fields, "name")?, input::text(&fields, "description")?);
    let make = |tx: &mut cairn_state::Tx| {
        groups::snapshot(tx, &ctx.caller, &group, name.clone(), description.clone())
    };
    let made = svc.store.transact(make).await?;
    let mut shown = brief(&made);
    shown["group_type_id"] = json!(made.group_type);
    Ok((StatusCode::ACCEPTED, Json(json!({"group_snapshot": shown}))))
}

/// `DELETE /group_snapshots/{id}`
pub async fn delete(State(svc): Svc, ctx: Context, Path(id): Path<String>) -> ApiResult<StatusCode> {
    svc.store.transact(|tx| groups::delete_snapshot(tx, &ctx.caller, &id)).await?;
    Ok(StatusCode::ACCEPTED)
}

/// `POST /group_snapshots/{id}/action`
pub async fn act(
    State(svc): Svc,
    ctx: Context,
    Path(id): Path<String>,
    Body(body): Body<Map<String, Value>>,
) -> ApiResult<StatusCode> {
    let (action, fields) = one_action(body)?;
    if action != "reset_status" || ctx.minor < 19 {
        return Err(ApiError::bad_request(format!("There is no such action, or it is not built: {action}.")));
    }
    let status = status_to_set(&ctx, &fields)?;
    svc.store
        .transact(|tx| {
            let mut found = groups::find_snapshot(tx, &ctx.caller, &id)?;
            found.status = status;
            Ok::<_, ApiError>(tx.put(&found)?)
        })
        .await?;
    Ok(StatusCode::ACCEPTED)
}
