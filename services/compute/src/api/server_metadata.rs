//! The metadata of servers: the user's own notes, which the guest is told as well.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::response::Response;
use axum::{Json, Router, routing};
use cairn_gateway::{ApiError, ApiResult, Body};
use cairn_state::Tx;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Routes;
use super::ask::{Ask, Svc, empty, own_server, server};
use super::form;
use super::servers::republish;
use crate::create::check_metadata_count;
use crate::model::Server;
use crate::{Service, actions, state};

type Items = BTreeMap<String, String>;

/// The routes.
pub fn routes() -> Routes {
    Router::new()
        .route("/servers/{id}/metadata", routing::get(list).put(replace).post(merge))
        .route("/servers/{id}/metadata/{key}", routing::get(show).put(set).delete(remove))
}

async fn list(State(svc): Svc, ask: Ask, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    let found = svc.store.read(|tx| server(tx, &ask.caller, &id))?;
    Ok(Json(json!({"metadata": found.metadata})))
}

async fn show(State(svc): Svc, ask: Ask, Path((id, key)): Path<(String, String)>) -> ApiResult<Json<Value>> {
    let found = svc.store.read(|tx| server(tx, &ask.caller, &id))?;
    match found.metadata.get(&key) {
        Some(value) => Ok(Json(json!({"meta": {key: value}}))),
        None => Err(no_item()),
    }
}

fn no_item() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "Metadata item was not found")
}

/// Changes the metadata of a server that the caller may change.
async fn change(
    svc: &Service,
    ask: &Ask,
    id: &str,
    how: impl Fn(&mut Items) -> ApiResult<()>,
) -> ApiResult<Items> {
    let actor = ask.actor();
    svc.store
        .transact(|tx: &mut Tx| {
            let mut found: Server = own_server(tx, &ask.caller, id)?;
            state::require_unlocked(&found, ask.caller.is_admin())?;
            how(&mut found.metadata)?;
            check_metadata_count(tx, &found.project_id, found.metadata.len())?;
            found.updated = Timestamp::now();
            tx.put(&found)?;
            actions::done(tx, &found, &actor, "update_metadata")?;
            republish(tx, &found)?;
            Ok(found.metadata)
        })
        .await
}

/// Takes the items of a body; who may not see the server learns only that, whatever the body says.
async fn take(
    svc: &Service,
    ask: &Ask,
    id: &str,
    body: &Value,
    how: impl Fn(&mut Items, Items),
) -> ApiResult<Json<Value>> {
    let items = form::inner(body, "metadata").and_then(form::metadata);
    let after = change(svc, ask, id, |metadata| {
        how(metadata, items.clone()?);
        Ok(())
    });
    Ok(Json(json!({"metadata": after.await?})))
}

async fn replace(
    State(svc): Svc,
    ask: Ask,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> ApiResult<Json<Value>> {
    take(&svc, &ask, &id, &body, |metadata, items| *metadata = items).await
}

async fn merge(
    State(svc): Svc,
    ask: Ask,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> ApiResult<Json<Value>> {
    take(&svc, &ask, &id, &body, |metadata, items| metadata.extend(items)).await
}

async fn set(
    State(svc): Svc,
    ask: Ask,
    Path((id, key)): Path<(String, String)>,
    Body(body): Body<Value>,
) -> ApiResult<Json<Value>> {
    let item = form::inner(&body, "meta").and_then(form::metadata).and_then(|items| {
        if items.len() != 1 {
            return Err(ApiError::bad_request("Request body contains too many items"));
        }
        items.get(&key).cloned().ok_or_else(|| ApiError::bad_request("Request body and URI mismatch"))
    });
    change(&svc, &ask, &id, |metadata| {
        metadata.insert(key.clone(), item.clone()?);
        Ok(())
    })
    .await?;
    Ok(Json(json!({"meta": {key.as_str(): item?}})))
}

async fn remove(State(svc): Svc, ask: Ask, Path((id, key)): Path<(String, String)>) -> ApiResult<Response> {
    change(&svc, &ask, &id, |metadata| metadata.remove(&key).map(drop).ok_or_else(no_item)).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}
