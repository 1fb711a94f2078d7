//! `/policies`: documents that remote services keep here. Identity itself does not read them.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use cairn_gateway::{ApiError, ApiResult, Body, Caller, Query};
use http::StatusCode;
use serde_json::{Value, json};

use super::Svc;
use super::attrs::{Attrs, NAME_MAX};
use super::wire::{Here, Resource, fits, list, over};
use crate::model::{Policy, new_id};
use crate::service::Service;

pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/policies", get(index).post(create))
        .route("/policies/{id}", get(show).patch(update).delete(delete))
}

impl Resource for Policy {
    const ONE: &'static str = "policy";
    const MANY: &'static str = "policies";

    fn view(&self) -> Value {
        over(&self.extra, json!({"id": self.id, "type": self.kind, "blob": self.blob}))
    }
}

fn apply(policy: &mut Policy, mut attrs: Attrs) -> ApiResult<()> {
    attrs.set_text("type", &mut policy.kind)?;
    attrs.set_text("blob", &mut policy.blob)?;
    if policy.kind.is_empty() || policy.kind.len() > NAME_MAX || policy.blob.is_empty() {
        return Err(ApiError::bad_request("A policy needs a 'type' and a 'blob'."));
    }
    attrs.set_extra(&mut policy.extra)
}

async fn index(State(svc): Svc, caller: Caller, here: Here, query: Query) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let all = svc.store.read(|tx| Ok::<_, ApiError>(tx.list_unfenced::<Policy>()?))?;
    list(all.into_iter().filter(|p| fits(&query, "type", &p.kind)).collect(), &query, &here)
}

async fn create(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    Body(body): Body<Value>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    caller.require_admin()?;
    let mut policy = Policy { id: new_id(), ..Policy::default() };
    apply(&mut policy, Attrs::of(body, "policy")?)?;
    svc.store.transact(|tx| Ok::<_, ApiError>(tx.put(&policy)?)).await?;
    Ok((StatusCode::CREATED, policy.body(&here)))
}

async fn show(State(svc): Svc, caller: Caller, here: Here, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    Ok(svc.store.read(|tx| Policy::find(tx, &id))?.body(&here))
}

async fn update(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let policy = svc
        .store
        .transact(|tx| {
            let mut policy = Policy::find(tx, &id)?;
            apply(&mut policy, Attrs::of(body.clone(), "policy")?)?;
            tx.put(&policy)?;
            Ok::<_, ApiError>(policy)
        })
        .await?;
    Ok(policy.body(&here))
}

async fn delete(State(svc): Svc, caller: Caller, Path(id): Path<String>) -> ApiResult<StatusCode> {
    caller.require_admin()?;
    svc.store
        .transact(|tx| {
            Policy::find(tx, &id)?;
            Ok::<_, ApiError>(tx.delete::<Policy>(&id).map(drop)?)
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
