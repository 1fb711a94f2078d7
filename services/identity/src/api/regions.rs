//! `/regions`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use cairn_gateway::{ApiError, ApiResult, Body, Caller, Query};
use cairn_state::Tx;
use http::StatusCode;
use serde_json::{Value, json};

use super::Svc;
use super::attrs::{Attrs, NAME_MAX};
use super::wire::{Here, Resource, list, over};
use crate::model::{Endpoint, Region, new_id};
use crate::service::Service;

pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/regions", get(index).post(create))
        .route("/regions/{id}", get(show).put(create_as).patch(update).delete(delete))
}

impl Resource for Region {
    const ONE: &'static str = "region";
    const MANY: &'static str = "regions";

    fn view(&self) -> Value {
        let (parent, about) = (&self.parent_region_id, &self.description);
        over(&self.extra, json!({"id": self.id, "parent_region_id": parent, "description": about}))
    }
}

fn apply(tx: &mut Tx, region: &mut Region, mut attrs: Attrs) -> ApiResult<()> {
    attrs.set_text("description", &mut region.description)?;
    attrs.set_optional("parent_region_id", &mut region.parent_region_id)?;
    refuse_circle(tx, region)?;
    attrs.set_extra(&mut region.extra)
}

/// The regions above must exist, and not be below.
fn refuse_circle(tx: &mut Tx, region: &Region) -> ApiResult<()> {
    let mut above = region.parent_region_id.clone();
    for _ in 0..64 {
        match above {
            None => return Ok(()),
            Some(id) if id == region.id => break,
            Some(id) => above = Region::find(tx, &id)?.parent_region_id,
        }
    }
    Err(ApiError::bad_request("The region would be part of itself."))
}

/// Makes a region that an endpoint names, if there is none of that name yet.
pub fn ensure(tx: &mut Tx, id: &str) -> ApiResult<()> {
    check_id(id)?;
    if tx.get::<Region>(id)?.is_none() {
        tx.put(&Region { id: id.to_owned(), ..Region::default() })?;
    }
    Ok(())
}

fn check_id(id: &str) -> ApiResult<()> {
    match !id.is_empty() && id.chars().count() <= NAME_MAX && !id.chars().any(char::is_control) {
        true => Ok(()),
        false => Err(ApiError::bad_request(format!("A region's id has 1 to {NAME_MAX} characters."))),
    }
}

async fn index(State(svc): Svc, _: Caller, here: Here, query: Query) -> ApiResult<Json<Value>> {
    let regions = svc.store.read(|tx| {
        Ok::<_, ApiError>(match query.get("parent_region_id") {
            Some(parent) => tx.by_index::<Region>("parent", parent)?,
            None => tx.list_unfenced::<Region>()?,
        })
    })?;
    list(regions, &query, &here)
}

async fn create(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    Body(body): Body<Value>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let id = Attrs::of(body.clone(), "region")?.text("id")?.unwrap_or_else(new_id);
    make(&svc, &caller, &here, id, body).await
}

async fn create_as(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let own = Attrs::of(body.clone(), "region")?.text("id")?;
    if own.is_some_and(|own| own != id) {
        return Err(ApiError::bad_request("The id in the body is not the one in the path."));
    }
    make(&svc, &caller, &here, id, body).await
}

async fn make(
    svc: &Service,
    caller: &Caller,
    here: &Here,
    id: String,
    body: Value,
) -> ApiResult<(StatusCode, Json<Value>)> {
    caller.require_admin()?;
    check_id(&id)?;
    let region = svc
        .store
        .transact(|tx| {
            if tx.get::<Region>(&id)?.is_some() {
                return Err(ApiError::conflict(format!("A region with the id {id} exists.")));
            }
            let mut region = Region { id: id.clone(), ..Region::default() };
            apply(tx, &mut region, Attrs::of(body.clone(), "region")?)?;
            tx.put(&region)?;
            Ok(region)
        })
        .await?;
    Ok((StatusCode::CREATED, region.body(here)))
}

async fn show(State(svc): Svc, _: Caller, here: Here, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    Ok(svc.store.read(|tx| Region::find(tx, &id))?.body(&here))
}

async fn update(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let region = svc
        .store
        .transact(|tx| {
            let mut region = Region::find(tx, &id)?;
            apply(tx, &mut region, Attrs::of(body.clone(), "region")?)?;
            tx.put(&region)?;
            Ok::<_, ApiError>(region)
        })
        .await?;
    Ok(region.body(&here))
}

async fn delete(State(svc): Svc, caller: Caller, Path(id): Path<String>) -> ApiResult<StatusCode> {
    caller.require_admin()?;
    svc.store
        .transact(|tx| {
            Region::find(tx, &id)?;
            if !tx.by_index::<Region>("parent", &id)?.is_empty() {
                return Err(ApiError::forbidden("The region has regions in it; delete them first."));
            }
            if !tx.by_index::<Endpoint>("region", &id)?.is_empty() {
                return Err(ApiError::conflict("The region has endpoints; delete or move them first."));
            }
            tx.delete::<Region>(&id)?;
            Ok(())
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
