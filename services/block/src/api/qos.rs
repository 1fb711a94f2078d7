//! `/qos-specs`: limits on volumes by type. Administrators alone.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use cairn_gateway::{ApiError, ApiResult, Body, Query};
use serde_json::{Value, json};

use super::Svc;
use super::context::Context;
use super::input::{self, Fields};
use crate::model::{Metadata, QosSpecs, VolumeType};
use crate::qos::{self, CONSUMERS};
use crate::types;

fn view(q: &QosSpecs) -> Value {
    json!({"id": q.id, "name": q.name, "consumer": q.consumer, "specs": q.specs})
}

fn shown(ctx: &Context, q: &QosSpecs) -> Json<Value> {
    Json(json!({"qos_specs": view(q), "links": ctx.links("qos-specs", &q.id)}))
}

fn consumer(specs: &mut Metadata) -> ApiResult<Option<String>> {
    match specs.remove("consumer") {
        Some(name) if !CONSUMERS.contains(&name.as_str()) => {
            Err(input::invalid("consumer", "it must be one of front-end, back-end and both"))
        }
        known => Ok(known),
    }
}

/// The texts of a body; what they limit must be understood.
fn read(fields: &Fields) -> ApiResult<Metadata> {
    let specs = input::read_metadata(fields)?;
    qos::limits(&specs, 1)?;
    Ok(specs)
}

/// `POST /qos-specs`
pub async fn create(State(svc): Svc, ctx: Context, Body(body): Body<Value>) -> ApiResult<Json<Value>> {
    ctx.caller.require_admin()?;
    let mut specs = read(&input::inner(body, "qos_specs")?)?;
    let consumer = consumer(&mut specs)?.unwrap_or_else(|| "back-end".into());
    let name = specs.remove("name").map(|n| n.trim().to_owned()).filter(|n| !n.is_empty());
    let name = name.ok_or_else(|| input::invalid("name", "it is required"))?;
    let new = QosSpecs { id: uuid::Uuid::new_v4().to_string(), name, consumer, specs };
    svc.store
        .transact(|tx| {
            if tx.by_unique::<QosSpecs>("name", &new.name)?.is_some() {
                return Err(ApiError::conflict(format!("QoS Specs {} already exists.", new.name)));
            }
            Ok(tx.put(&new)?)
        })
        .await?;
    Ok(shown(&ctx, &new))
}

/// `GET /qos-specs`
pub async fn list(State(svc): Svc, ctx: Context) -> ApiResult<Json<Value>> {
    ctx.caller.require_admin()?;
    let all = svc.store.read(|tx| tx.list_unfenced::<QosSpecs>())?;
    Ok(Json(json!({"qos_specs": all.iter().map(view).collect::<Vec<_>>()})))
}

/// `GET /qos-specs/{id}`
pub async fn show(State(svc): Svc, ctx: Context, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    ctx.caller.require_admin()?;
    Ok(shown(&ctx, &svc.store.read(|tx| qos::find(tx, &id))?))
}

/// `PUT /qos-specs/{id}`: adds to the specs, or replaces some.
pub async fn update(
    State(svc): Svc,
    ctx: Context,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> ApiResult<Json<Value>> {
    ctx.caller.require_admin()?;
    let given = read(&input::inner(body, "qos_specs")?)?;
    let mut more = given.clone();
    let consumer = consumer(&mut more)?;
    svc.store
        .transact(|tx| {
            let mut found = qos::find(tx, &id)?;
            found.specs.extend(more.clone());
            if let Some(consumer) = &consumer {
                found.consumer.clone_from(consumer);
            }
            Ok::<_, ApiError>(tx.put(&found)?)
        })
        .await?;
    Ok(Json(json!({"qos_specs": given})))
}

/// `PUT /qos-specs/{id}/delete_keys`
pub async fn delete_keys(
    State(svc): Svc,
    ctx: Context,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> ApiResult<StatusCode> {
    ctx.caller.require_admin()?;
    let keys = input::texts(body.as_object().unwrap_or(&Fields::new()), "keys")?;
    svc.store
        .transact(|tx| {
            let mut found = qos::find(tx, &id)?;
            for key in &keys {
                let none = || ApiError::not_found("QoS spec key", key);
                found.specs.remove(key).ok_or_else(none)?;
            }
            Ok::<_, ApiError>(tx.put(&found)?)
        })
        .await?;
    Ok(StatusCode::ACCEPTED)
}

/// `DELETE /qos-specs/{id}[?force=true]`
pub async fn delete(
    State(svc): Svc,
    ctx: Context,
    Path(id): Path<String>,
    query: Query,
) -> ApiResult<StatusCode> {
    ctx.caller.require_admin()?;
    let force = query.flag("force")?.unwrap_or(false);
    svc.store.transact(|tx| qos::delete(tx, &id, force)).await?;
    Ok(StatusCode::ACCEPTED)
}

/// `GET /qos-specs/{id}/associations`
pub async fn associations(State(svc): Svc, ctx: Context, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    ctx.caller.require_admin()?;
    let with = svc.store.read(|tx| {
        qos::find(tx, &id)?;
        Ok::<_, ApiError>(qos::types_with(tx, &id)?)
    })?;
    let row = |t: &VolumeType| json!({"association_type": "volume_type", "id": t.id, "name": t.name});
    Ok(Json(json!({"qos_associations": with.iter().map(row).collect::<Vec<_>>()})))
}

fn type_id(query: &Query) -> ApiResult<String> {
    let id = query.get("vol_type_id").filter(|id| !id.is_empty());
    id.map(str::to_owned).ok_or_else(|| ApiError::bad_request("Volume Type id must not be None."))
}

/// `GET /qos-specs/{id}/associate?vol_type_id=TYPE`: a change, in spite of its verb.
pub async fn associate(
    State(svc): Svc,
    ctx: Context,
    Path(id): Path<String>,
    query: Query,
) -> ApiResult<StatusCode> {
    ctx.caller.require_admin()?;
    let of = type_id(&query)?;
    svc.store
        .transact(|tx| {
            let of = types::by_id(tx, &ctx.caller, &of)?;
            qos::associate(tx, &id, of)
        })
        .await?;
    Ok(StatusCode::ACCEPTED)
}

/// `GET /qos-specs/{id}/disassociate?vol_type_id=TYPE`
pub async fn part(
    State(svc): Svc,
    ctx: Context,
    Path(id): Path<String>,
    query: Query,
) -> ApiResult<StatusCode> {
    ctx.caller.require_admin()?;
    let from = type_id(&query)?;
    svc.store
        .transact(|tx| {
            let from = types::by_id(tx, &ctx.caller, &from)?;
            qos::part(tx, &id, from)
        })
        .await?;
    Ok(StatusCode::ACCEPTED)
}

/// `GET /qos-specs/{id}/disassociate_all`
pub async fn part_from_all(State(svc): Svc, ctx: Context, Path(id): Path<String>) -> ApiResult<StatusCode> {
    ctx.caller.require_admin()?;
    svc.store.transact(|tx| qos::part_from_all(tx, &id)).await?;
    Ok(StatusCode::ACCEPTED)
}
