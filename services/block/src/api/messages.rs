//! `/messages`: what users are told of their volumes.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use cairn_gateway::{ApiResult, Query};
use serde_json::{Value, json};

use super::Svc;
use super::context::Context;
use super::listing::Wanted;
use super::view::time;
use super::volumes::page;
use crate::messages;
use crate::model::Message;

fn view(ctx: &Context, m: &Message) -> Value {
    json!({
        "id": m.id,
        "event_id": m.event_id,
        "user_message": m.text,
        "message_level": "ERROR",
        "resource_type": m.resource_type,
        "resource_uuid": m.resource_id,
        "request_id": m.request_id,
        "created_at": time(m.created_at),
        "guaranteed_until": time(m.kept_until),
        "links": ctx.links("messages", &m.id),
    })
}

/// `GET /messages`
pub async fn list(State(svc): Svc, ctx: Context, query: Query) -> ApiResult<Json<Value>> {
    let wanted = Wanted::read(&ctx, &query)?;
    let cut = wanted.cut(svc.store.read(|tx| wanted.gather::<Message>(tx, &ctx))?)?;
    let shown = cut.items.iter().map(|m| view(&ctx, m)).collect();
    Ok(Json(page(&ctx, &query, "messages", shown, &cut)))
}

/// `GET /messages/{id}`
pub async fn show(State(svc): Svc, ctx: Context, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    let found = svc.store.read(|tx| messages::find(tx, &ctx.caller, &id))?;
    Ok(Json(json!({"message": view(&ctx, &found)})))
}

/// `DELETE /messages/{id}`
pub async fn delete(State(svc): Svc, ctx: Context, Path(id): Path<String>) -> ApiResult<StatusCode> {
    svc.store
        .transact(|tx| {
            let found = messages::find(tx, &ctx.caller, &id)?;
            ctx.caller.require_writer()?;
            tx.delete::<Message>(&found.id)?;
            Ok(StatusCode::NO_CONTENT)
        })
        .await
}
