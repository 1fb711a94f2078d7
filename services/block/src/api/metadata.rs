//! `/volumes/{id}/metadata` and `/snapshots/{id}/metadata`: the user's own notes, whole or by key.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use cairn_gateway::{ApiError, ApiResult, Body, Caller};
use cairn_state::{Record, Tx};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Svc;
use super::{input, snapshots};
use crate::Service;
use crate::model::{Metadata, Snapshot, Volume};
use crate::servers::visible;

/// A record with metadata.
pub trait Noted: Record {
    /// Where its collection is.
    const PATH: &'static str;
    /// The one with this id, if the caller may see it; 404 otherwise.
    fn find(tx: &mut Tx, caller: &Caller, id: &str) -> ApiResult<Self>;
    /// Its metadata.
    fn notes(&mut self) -> &mut Metadata;
    /// Notes that it was changed now.
    fn touch(&mut self);
}

impl Noted for Volume {
    const PATH: &'static str = "/volumes";

    fn find(tx: &mut Tx, caller: &Caller, id: &str) -> ApiResult<Self> {
        visible(tx, caller, id)
    }

    fn notes(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    fn touch(&mut self) {
        self.updated_at = Some(Timestamp::now());
    }
}

impl Noted for Snapshot {
    const PATH: &'static str = "/snapshots";

    fn find(tx: &mut Tx, caller: &Caller, id: &str) -> ApiResult<Self> {
        snapshots::find(tx, caller, id)
    }

    fn notes(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    fn touch(&mut self) {
        self.updated_at = Some(Timestamp::now());
    }
}

/// The routes of a collection's metadata.
pub fn routes<R: Noted>() -> Router<Arc<Service>> {
    let all = format!("{}/{{id}}/metadata", R::PATH);
    let one = format!("{all}/{{key}}");
    Router::new()
        .route(&all, get(show::<R>).post(merge::<R>).put(replace::<R>))
        .route(&one, get(show_item::<R>).put(put_item::<R>).delete(delete_item::<R>))
}

fn read<R: Noted>(svc: &Service, caller: &Caller, id: &str) -> ApiResult<Metadata> {
    svc.store.read(|tx| Ok(R::find(tx, caller, id)?.notes().clone()))
}

async fn change<R: Noted>(
    svc: &Service,
    caller: &Caller,
    id: &str,
    edit: impl Fn(&mut Metadata) -> ApiResult<()>,
) -> ApiResult<Metadata> {
    svc.store
        .transact(|tx| {
            let mut record = R::find(tx, caller, id)?;
            caller.require_writer()?;
            edit(record.notes())?;
            record.touch();
            tx.put(&record)?;
            Ok(record.notes().clone())
        })
        .await
}

async fn show<R: Noted>(State(svc): Svc, caller: Caller, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    Ok(Json(json!({"metadata": read::<R>(&svc, &caller, &id)?})))
}

/// Adds to it.
async fn merge<R: Noted>(
    State(svc): Svc,
    caller: Caller,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> ApiResult<Json<Value>> {
    store::<R>(&svc, &caller, &id, &body, true).await
}

/// The body is all of it.
async fn replace<R: Noted>(
    State(svc): Svc,
    caller: Caller,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> ApiResult<Json<Value>> {
    store::<R>(&svc, &caller, &id, &body, false).await
}

async fn store<R: Noted>(
    svc: &Service,
    caller: &Caller,
    id: &str,
    body: &Value,
    merge: bool,
) -> ApiResult<Json<Value>> {
    let fields = body.as_object().cloned().unwrap_or_default();
    let new =
        input::metadata(&fields, "metadata")?.ok_or_else(|| input::invalid("metadata", "it is required"))?;
    let now = change::<R>(svc, caller, id, |notes| {
        if !merge {
            notes.clear();
        }
        notes.extend(new.clone());
        Ok(())
    })
    .await?;
    Ok(Json(json!({"metadata": now})))
}

async fn show_item<R: Noted>(
    State(svc): Svc,
    caller: Caller,
    Path((id, key)): Path<(String, String)>,
) -> ApiResult<Json<Value>> {
    let notes = read::<R>(&svc, &caller, &id)?;
    let value = notes.get(&key).ok_or_else(|| no_item(&key))?;
    Ok(Json(json!({"meta": {key: value}})))
}

async fn put_item<R: Noted>(
    State(svc): Svc,
    caller: Caller,
    Path((id, key)): Path<(String, String)>,
    Body(body): Body<Value>,
) -> ApiResult<Json<Value>> {
    let fields = body.as_object().cloned().unwrap_or_default();
    let new = input::metadata(&fields, "meta")?.ok_or_else(|| input::invalid("meta", "it is required"))?;
    if new.len() != 1 || !new.contains_key(&key) {
        return Err(ApiError::bad_request("The request body must hold just the key that the path names."));
    }
    change::<R>(&svc, &caller, &id, |notes| {
        notes.extend(new.clone());
        Ok(())
    })
    .await?;
    Ok(Json(json!({"meta": new})))
}

async fn delete_item<R: Noted>(
    State(svc): Svc,
    caller: Caller,
    Path((id, key)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    change::<R>(&svc, &caller, &id, |notes| notes.remove(&key).map(drop).ok_or_else(|| no_item(&key)))
        .await?;
    Ok(StatusCode::OK)
}

fn no_item(key: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("Metadata item {key} was not found."))
}
