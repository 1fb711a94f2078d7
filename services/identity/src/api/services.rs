//! `/services`.

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
use crate::model;
use crate::service::Service;

pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/services", get(index).post(create))
        .route("/services/{id}", get(show).patch(update).delete(delete))
}

impl Resource for model::Service {
    const ONE: &'static str = "service";
    const MANY: &'static str = "services";

    fn view(&self) -> Value {
        let mut view = over(&self.extra, json!({"id": self.id, "type": self.kind, "enabled": self.enabled}));
        for (key, value) in [("name", &self.name), ("description", &self.description)] {
            if let Some(value) = value {
                view[key] = value.as_str().into();
            }
        }
        view
    }
}

fn apply(service: &mut model::Service, mut attrs: Attrs) -> ApiResult<()> {
    if let Some(kind) = attrs.text("type")? {
        service.kind = kind;
    }
    if service.kind.is_empty() || service.kind.len() > NAME_MAX {
        return Err(ApiError::bad_request(format!("'type' must have 1 to {NAME_MAX} characters.")));
    }
    attrs.set_optional("name", &mut service.name)?;
    attrs.set_optional("description", &mut service.description)?;
    attrs.set_flag("enabled", &mut service.enabled)?;
    attrs.set_extra(&mut service.extra)
}

async fn index(State(svc): Svc, caller: Caller, here: Here, query: Query) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let all = svc.store.read(|tx| Ok::<_, ApiError>(tx.list_unfenced::<model::Service>()?))?;
    let fit = |s: &model::Service| {
        fits(&query, "type", &s.kind) && fits(&query, "name", s.name.as_deref().unwrap_or(""))
    };
    list(all.into_iter().filter(fit).collect(), &query, &here)
}

async fn create(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    Body(body): Body<Value>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    caller.require_admin()?;
    let mut service = model::Service { id: model::new_id(), enabled: true, ..model::Service::default() };
    apply(&mut service, Attrs::of(body, "service")?)?;
    svc.store.transact(|tx| Ok::<_, ApiError>(tx.put(&service)?)).await?;
    Ok((StatusCode::CREATED, service.body(&here)))
}

async fn show(State(svc): Svc, caller: Caller, here: Here, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    Ok(svc.store.read(|tx| model::Service::find(tx, &id))?.body(&here))
}

async fn update(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let service = svc
        .store
        .transact(|tx| {
            let mut service = model::Service::find(tx, &id)?;
            apply(&mut service, Attrs::of(body.clone(), "service")?)?;
            tx.put(&service)?;
            Ok::<_, ApiError>(service)
        })
        .await?;
    Ok(service.body(&here))
}

async fn delete(State(svc): Svc, caller: Caller, Path(id): Path<String>) -> ApiResult<StatusCode> {
    caller.require_admin()?;
    svc.store
        .transact(|tx| {
            let service = model::Service::find(tx, &id)?;
            cascade::delete_service(tx, &service)
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
