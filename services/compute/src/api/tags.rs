//! The tags of servers, since 2.26.

use std::collections::BTreeSet;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing};
use cairn_gateway::{ApiError, ApiResult, Body};
use http::{StatusCode, header};
use serde_json::{Value, json};

use super::Routes;
use super::ask::{Ask, Svc, empty, own_server, server};
use super::form::{inner, invalid};
use crate::Service;

/// The first microversion that has tags.
const SINCE: u32 = 26;
/// The most tags of one server.
const TAGS_MAX: usize = 50;

/// The routes.
pub fn routes() -> Routes {
    Router::new()
        .route("/servers/{id}/tags", routing::get(list).put(replace).delete(clear))
        .route("/servers/{id}/tags/{tag}", routing::get(check).put(add).delete(remove))
}

/// One tag: 1 to 60 characters, neither comma nor slash among them.
fn parse(tag: &str) -> ApiResult<String> {
    let length = tag.chars().count();
    if length == 0 || length > 60 || tag.contains([',', '/']) {
        return Err(invalid("tag", tag, "is not a tag: 1 to 60 characters, no comma, no slash"));
    }
    Ok(tag.to_owned())
}

/// A list of tags.
pub fn parse_all(value: &Value) -> ApiResult<BTreeSet<String>> {
    let list = value.as_array().ok_or_else(|| invalid("tags", value, "is not of type 'array'"))?;
    if list.len() > TAGS_MAX {
        return Err(ApiError::bad_request(format!(
            "The number of tags exceeded the per-server limit {TAGS_MAX}"
        )));
    }
    list.iter()
        .map(|t| parse(t.as_str().ok_or_else(|| invalid("tags", t, "is not of type 'string'"))?))
        .collect()
}

async fn change<T>(
    svc: &Service,
    ask: &Ask,
    id: &str,
    how: impl Fn(&mut BTreeSet<String>) -> ApiResult<T>,
) -> ApiResult<T> {
    ask.mv.added_in(SINCE)?;
    svc.store
        .transact(|tx| {
            let mut found = own_server(tx, &ask.caller, id)?;
            let result = how(&mut found.tags)?;
            tx.put(&found)?;
            Ok(result)
        })
        .await
}

async fn list(State(svc): Svc, ask: Ask, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    ask.mv.added_in(SINCE)?;
    let found = svc.store.read(|tx| server(tx, &ask.caller, &id))?;
    Ok(Json(json!({"tags": found.tags})))
}

async fn check(State(svc): Svc, ask: Ask, Path((id, tag)): Path<(String, String)>) -> ApiResult<Response> {
    ask.mv.added_in(SINCE)?;
    let found = svc.store.read(|tx| server(tx, &ask.caller, &id))?;
    match found.tags.contains(&tag) {
        true => Ok(empty(StatusCode::NO_CONTENT)),
        false => Err(no_tag(&id, &tag)),
    }
}

fn no_tag(id: &str, tag: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("Server {id} has no tag '{tag}'"))
}

async fn replace(
    State(svc): Svc,
    ask: Ask,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> ApiResult<Json<Value>> {
    let tags = parse_all(inner(&body, "tags")?)?;
    change(&svc, &ask, &id, |held| {
        held.clone_from(&tags);
        Ok(())
    })
    .await?;
    Ok(Json(json!({"tags": tags})))
}

async fn clear(State(svc): Svc, ask: Ask, Path(id): Path<String>) -> ApiResult<Response> {
    change(&svc, &ask, &id, |held| {
        held.clear();
        Ok(())
    })
    .await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

async fn add(State(svc): Svc, ask: Ask, Path((id, tag)): Path<(String, String)>) -> ApiResult<Response> {
    let tag = parse(&tag)?;
    let new = change(&svc, &ask, &id, |held| {
        if !held.contains(&tag) && held.len() >= TAGS_MAX {
            return Err(ApiError::bad_request(format!(
                "The number of tags exceeded the per-server limit {TAGS_MAX}"
            )));
        }
        Ok(held.insert(tag.clone()))
    })
    .await?;
    let location = format!("{}/compute/v2.1/servers/{id}/tags/{tag}", ask.base.0);
    let status = if new { StatusCode::CREATED } else { StatusCode::NO_CONTENT };
    Ok((status, [(header::LOCATION, location)]).into_response())
}

async fn remove(State(svc): Svc, ask: Ask, Path((id, tag)): Path<(String, String)>) -> ApiResult<Response> {
    change(&svc, &ask, &id, |held| held.remove(&tag).then_some(()).ok_or_else(|| no_tag(&id, &tag))).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}
