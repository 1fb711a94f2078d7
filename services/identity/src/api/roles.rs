//! `/roles`.

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
use crate::cascade;
use crate::marks::MarkId;
use crate::model::{Role, new_id};
use crate::policy;
use crate::service::Service;

pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/roles", get(index).post(create))
        .route("/roles/{id}", get(show).patch(update).delete(delete))
}

impl Resource for Role {
    const ONE: &'static str = "role";
    const MANY: &'static str = "roles";

    fn view(&self) -> Value {
        over(
            &self.extra,
            json!({
                "id": self.id, "name": self.name, "domain_id": self.domain_id, "description": self.description,
                "options": self.options,
            }),
        )
    }
}

fn apply(role: &mut Role, mut attrs: Attrs) -> ApiResult<()> {
    attrs.set_name(&mut role.name, NAME_MAX)?;
    attrs.set_optional("description", &mut role.description)?;
    attrs.set_options(&mut role.options)?;
    attrs.set_extra(&mut role.extra)
}

async fn index(State(svc): Svc, caller: Caller, here: Here, query: Query) -> ApiResult<Json<Value>> {
    policy::listing_domain(&caller)?;
    let roles = svc.store.read(|tx| Ok::<_, ApiError>(tx.list_unfenced::<Role>()?))?;
    let wanted = query.get("domain_id");
    let fit = |r: &Role| fits(&query, "name", &r.name) && r.domain_id.as_deref() == wanted;
    list(roles.into_iter().filter(fit).collect(), &query, &here)
}

async fn create(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    Body(body): Body<Value>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    caller.require_admin()?;
    let mut attrs = Attrs::of(body, "role")?;
    let mut role = Role { id: new_id(), domain_id: attrs.text("domain_id")?, ..Role::default() };
    apply(&mut role, attrs)?;
    if role.name.is_empty() {
        return Err(ApiError::bad_request("'name' is required."));
    }
    svc.store
        .transact(|tx| {
            if let Some(domain) = &role.domain_id {
                super::domains::find(tx, domain)?;
            }
            Ok::<_, ApiError>(tx.put(&role)?)
        })
        .await?;
    Ok((StatusCode::CREATED, role.body(&here)))
}

async fn show(State(svc): Svc, caller: Caller, here: Here, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    policy::listing_domain(&caller)?;
    Ok(svc.store.read(|tx| Role::find(tx, &id))?.body(&here))
}

async fn update(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let role = svc
        .store
        .transact(|tx| {
            let mut role = Role::find(tx, &id)?;
            let mut attrs = Attrs::of(body.clone(), "role")?;
            if attrs.optional("domain_id")?.is_some_and(|d| d != role.domain_id) {
                return Err(ApiError::bad_request("A role's domain cannot be changed."));
            }
            apply(&mut role, attrs)?;
            tx.put(&role)?;
            MarkId::all().touch(tx)?;
            Ok::<_, ApiError>(role)
        })
        .await?;
    Ok(role.body(&here))
}

async fn delete(State(svc): Svc, caller: Caller, Path(id): Path<String>) -> ApiResult<StatusCode> {
    caller.require_admin()?;
    svc.store
        .transact(|tx| {
            let role = Role::find(tx, &id)?;
            cascade::delete_role(tx, &role)
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
