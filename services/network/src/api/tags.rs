//! Tags: words that users put on resources (`standard-attr-tag`).

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use cairn_gateway::{ApiError, ApiResult, Body, Caller};
use http::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::resource::{self, Resource, TAGS_MAX};
use crate::service::Service;

/// The routes of a resource's tags.
pub fn routes<R: Resource>() -> Router<Arc<Service>> {
    let all = format!("/v2.0/{}/{{id}}/tags", R::PATH);
    let one = format!("{all}/{{tag}}");
    Router::new()
        .route(&all, get(list::<R>).put(replace::<R>).delete(clear::<R>))
        .route(&one, get(check::<R>).put(add::<R>).delete(remove::<R>))
}

/// A body of `PUT .../tags`.
#[derive(Debug, Deserialize)]
struct Tags {
    tags: Vec<String>,
}

fn read<R: Resource>(svc: &Service, caller: &Caller, id: &str) -> ApiResult<BTreeSet<String>> {
    let mut record = svc.store.read(|tx| resource::find::<R>(tx, caller, id))?;
    Ok(record.tags().cloned().unwrap_or_default())
}

async fn change<R: Resource>(
    svc: &Service,
    caller: &Caller,
    id: &str,
    change: impl Fn(&mut BTreeSet<String>) -> ApiResult<()>,
) -> ApiResult<()> {
    let now = Timestamp::now();
    svc.store
        .transact(|tx| {
            let mut record = resource::find_own::<R>(tx, caller, id)?;
            if let Some(tags) = record.tags() {
                change(tags)?;
                if tags.len() > TAGS_MAX {
                    return Err(ApiError::bad_request(format!("A resource has at most {TAGS_MAX} tags.")));
                }
            }
            record.stamp().touch(now);
            tx.put(&record).map_err(ApiError::from)
        })
        .await
}

fn no_tag(tag: &str) -> ApiError {
    ApiError::not_found("Tag", tag).with_code("TagNotFound")
}

async fn list<R: Resource>(
    State(svc): State<Arc<Service>>,
    caller: Caller,
    Path(id): Path<String>,
) -> ApiResult<Json<Value>> {
    Ok(Json(json!({"tags": read::<R>(&svc, &caller, &id)?})))
}

async fn replace<R: Resource>(
    State(svc): State<Arc<Service>>,
    caller: Caller,
    Path(id): Path<String>,
    Body(body): Body<Tags>,
) -> ApiResult<Json<Value>> {
    let wanted: BTreeSet<String> =
        body.tags.into_iter().map(resource::check_tag).collect::<ApiResult<_>>()?;
    change::<R>(&svc, &caller, &id, |tags| {
        tags.clone_from(&wanted);
        Ok(())
    })
    .await?;
    Ok(Json(json!({"tags": wanted})))
}

async fn clear<R: Resource>(
    State(svc): State<Arc<Service>>,
    caller: Caller,
    Path(id): Path<String>,
) -> ApiResult<StatusCode> {
    change::<R>(&svc, &caller, &id, |tags| {
        tags.clear();
        Ok(())
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn check<R: Resource>(
    State(svc): State<Arc<Service>>,
    caller: Caller,
    Path((id, tag)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    if read::<R>(&svc, &caller, &id)?.contains(&tag) {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(no_tag(&tag))
}

async fn add<R: Resource>(
    State(svc): State<Arc<Service>>,
    caller: Caller,
    Path((id, tag)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    let tag = resource::check_tag(tag)?;
    change::<R>(&svc, &caller, &id, |tags| {
        tags.insert(tag.clone());
        Ok(())
    })
    .await?;
    Ok(StatusCode::CREATED)
}

async fn remove<R: Resource>(
    State(svc): State<Arc<Service>>,
    caller: Caller,
    Path((id, tag)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    change::<R>(&svc, &caller, &id, |tags| if tags.remove(&tag) { Ok(()) } else { Err(no_tag(&tag)) })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
