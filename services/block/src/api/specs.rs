//! The specs of volume types and group types, one by one: `/types/{id}/extra_specs`, `/group_types/{id}/group_specs`.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use cairn_gateway::{ApiError, ApiResult, Body, Caller};
use cairn_state::{Record, Tx};
use serde_json::{Map, Value, json};
use std::sync::Arc;

use super::{Svc, input};
use crate::Service;
use crate::model::Metadata;

/// What has specs. Administrators alone change them.
pub trait Described: Record {
    /// What they are called.
    const KEY: &'static str;
    /// Those that users see; if there are none, it is not for users to ask.
    const SEEN: &[&str];
    /// What adding some is answered with.
    const MERGED: StatusCode;
    /// The one with this id; 404 if the caller sees none.
    fn find(tx: &mut Tx, caller: &Caller, id: &str) -> ApiResult<Self>;
    /// Its specs.
    fn specs(&mut self) -> &mut Metadata;
}

/// The routes of the specs of what is at `path`.
pub fn routes<T: Described>(path: &str) -> Router<Arc<Service>> {
    let all = format!("{path}/{{id}}/{}", T::KEY);
    Router::new()
        .route(&all, get(list::<T>).post(merge::<T>))
        .route(&format!("{all}/{{key}}"), get(show::<T>).put(put::<T>).delete(delete::<T>))
}

fn found<T: Described>(svc: &Svc, caller: &Caller, id: &str) -> ApiResult<Metadata> {
    if T::SEEN.is_empty() {
        caller.require_admin()?;
    }
    let mut specs =
        svc.store.read(|tx| Ok::<_, ApiError>(std::mem::take(T::find(tx, caller, id)?.specs())))?;
    specs.retain(|key, _| caller.is_admin() || T::SEEN.contains(&key.as_str()));
    Ok(specs)
}

async fn change<T: Described>(
    svc: &Svc,
    caller: &Caller,
    id: &str,
    edit: impl Fn(&mut Metadata) -> ApiResult<()>,
) -> ApiResult<()> {
    caller.require_admin()?;
    svc.store
        .transact(|tx| {
            let mut found = T::find(tx, caller, id)?;
            edit(found.specs())?;
            Ok(tx.put(&found)?)
        })
        .await
}

fn absent(key: &str) -> ApiError {
    ApiError::not_found("Extra spec", key)
}

async fn list<T: Described>(
    State(svc): Svc,
    caller: Caller,
    Path(id): Path<String>,
) -> ApiResult<Json<Value>> {
    Ok(Json(json!({T::KEY: found::<T>(&State(svc), &caller, &id)?})))
}

async fn merge<T: Described>(
    State(svc): Svc,
    caller: Caller,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let fields = body.as_object().cloned().unwrap_or_default();
    let more = input::metadata(&fields, T::KEY)?.ok_or_else(|| input::invalid(T::KEY, "it is required"))?;
    change::<T>(&State(svc), &caller, &id, |specs| {
        specs.extend(more.clone());
        Ok(())
    })
    .await?;
    Ok((T::MERGED, Json(json!({T::KEY: more}))))
}

async fn show<T: Described>(
    State(svc): Svc,
    caller: Caller,
    Path((id, key)): Path<(String, String)>,
) -> ApiResult<Json<Value>> {
    let specs = found::<T>(&State(svc), &caller, &id)?;
    let value = specs.get(&key).ok_or_else(|| absent(&key))?;
    Ok(Json(json!({key: value})))
}

async fn put<T: Described>(
    State(svc): Svc,
    caller: Caller,
    Path((id, key)): Path<(String, String)>,
    Body(body): Body<Map<String, Value>>,
) -> ApiResult<Json<Value>> {
    let new = input::read_metadata(&body)?;
    if new.len() != 1 || !new.contains_key(&key) {
        return Err(ApiError::bad_request("The request body must hold just the key that the path names."));
    }
    change::<T>(&State(svc), &caller, &id, |specs| {
        specs.extend(new.clone());
        Ok(())
    })
    .await?;
    Ok(Json(json!(new)))
}

async fn delete<T: Described>(
    State(svc): Svc,
    caller: Caller,
    Path((id, key)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    change::<T>(&State(svc), &caller, &id, |specs| specs.remove(&key).map(drop).ok_or_else(|| absent(&key)))
        .await?;
    Ok(StatusCode::ACCEPTED)
}
