//! `/os-volume-transfer`, and `/volume-transfers` as it is called from 3.55 on: offers of volumes to other projects.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use cairn_gateway::{ApiResult, Body, Query};
use serde_json::{Value, json};

use super::Svc;
use super::context::Context;
use super::listing::{Cut, Wanted};
use super::volumes::page;
use super::{input, view};
use crate::model::Transfer;
use crate::transfers::{self, Offer};

fn brief(ctx: &Context, t: &Transfer) -> Value {
    json!({
        "id": t.id,
        "name": t.name,
        "volume_id": t.volume_id,
        "links": ctx.links("os-volume-transfer", &t.id),
    })
}

fn detail(ctx: &Context, t: &Transfer) -> Value {
    let mut body = brief(ctx, t);
    body["created_at"] = json!(view::time(t.created_at));
    if ctx.minor >= 55 {
        body["no_snapshots"] = json!(t.no_snapshots);
    }
    if ctx.minor >= 57 {
        body["source_project_id"] = json!(t.project_id);
        // One that was accepted is no more.
        body["destination_project_id"] = Value::Null;
        body["accepted"] = json!(false);
    }
    body
}

/// `POST /os-volume-transfer`
pub async fn create(
    State(svc): Svc,
    ctx: Context,
    Body(body): Body<Value>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let fields = input::inner(body, "transfer")?;
    let offer = Offer {
        volume_id: input::reference(&fields, "volume_id")?
            .ok_or_else(|| input::invalid("volume_id", "it is required"))?,
        name: input::text(&fields, "name")?,
        encrypted: ctx.minor >= 70,
        no_snapshots: ctx.minor >= 55 && input::flag(&fields, "no_snapshots")?.unwrap_or(false),
    };
    let (transfer, key) = svc.store.transact(|tx| transfers::offer(tx, &ctx.caller, offer.clone())).await?;
    let mut shown = detail(&ctx, &transfer);
    shown["auth_key"] = json!(key);
    Ok((StatusCode::ACCEPTED, Json(json!({"transfer": shown}))))
}

/// `GET /os-volume-transfer`
pub async fn list(State(svc): Svc, ctx: Context, query: Query) -> ApiResult<Json<Value>> {
    let cut = find_page(&State(svc), &ctx, &query)?;
    let shown = cut.items.iter().map(|t| brief(&ctx, t)).collect();
    Ok(Json(page(&ctx, &query, "transfers", shown, &cut)))
}

/// `GET /os-volume-transfer/detail`
pub async fn list_detail(State(svc): Svc, ctx: Context, query: Query) -> ApiResult<Json<Value>> {
    let cut = find_page(&State(svc), &ctx, &query)?;
    let shown = cut.items.iter().map(|t| detail(&ctx, t)).collect();
    Ok(Json(page(&ctx, &query, "transfers", shown, &cut)))
}

fn find_page(svc: &Svc, ctx: &Context, query: &Query) -> ApiResult<Cut<Transfer>> {
    let wanted = Wanted::read(ctx, query)?;
    wanted.cut(svc.store.read(|tx| wanted.gather(tx, ctx))?)
}

/// `GET /os-volume-transfer/{id}`
pub async fn show(State(svc): Svc, ctx: Context, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    let transfer = svc.store.read(|tx| transfers::find(tx, &ctx.caller, &id))?;
    Ok(Json(json!({"transfer": detail(&ctx, &transfer)})))
}

/// `DELETE /os-volume-transfer/{id}`
pub async fn delete(State(svc): Svc, ctx: Context, Path(id): Path<String>) -> ApiResult<StatusCode> {
    svc.store.transact(|tx| transfers::withdraw(tx, &ctx.caller, &id)).await?;
    Ok(StatusCode::ACCEPTED)
}

/// `POST /os-volume-transfer/{id}/accept`
pub async fn accept(
    State(svc): Svc,
    ctx: Context,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let fields = input::inner(body, "accept")?;
    let key = input::reference(&fields, "auth_key")?;
    let key = key.ok_or_else(|| input::invalid("auth_key", "it is required"))?;
    let transfer = svc.store.transact(|tx| transfers::accept(tx, &ctx.caller, &id, &key)).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({"transfer": brief(&ctx, &transfer)}))))
}
