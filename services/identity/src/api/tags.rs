//! `/projects/{id}/tags`, and tags in bodies and filters.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use cairn_gateway::{ApiError, ApiResult, Body, Caller, Query};
use http::{HeaderName, StatusCode, header};
use serde_json::{Value, json};

use super::Svc;
use super::wire::{Here, Resource};
use crate::model::Project;
use crate::service::Service;

/// The most tags of a project, and the longest, in characters.
const TAGS_MAX: usize = 80;
const LENGTH_MAX: usize = 255;

pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/projects/{id}/tags", get(index).put(replace).delete(clear))
        .route("/projects/{id}/tags/{tag}", get(check).put(add).delete(remove))
}

/// Tags as they come in a body.
pub fn parse(value: &Value) -> ApiResult<Vec<String>> {
    let list = value.as_array().ok_or_else(|| ApiError::bad_request("'tags' must be a list of texts."))?;
    let mut tags: Vec<String> = Vec::new();
    for tag in list {
        let tag = tag.as_str().ok_or_else(|| ApiError::bad_request("A tag must be a text."))?;
        check_tag(tag)?;
        if tags.iter().any(|t| t == tag) {
            return Err(ApiError::bad_request(format!("The tag '{tag}' is there twice.")));
        }
        tags.push(tag.to_owned());
    }
    bounded(tags)
}

fn check_tag(tag: &str) -> ApiResult<()> {
    let is_plain = !tag.is_empty() && tag.chars().count() <= LENGTH_MAX && !tag.contains(['/', ',']);
    if is_plain {
        return Ok(());
    }
    Err(ApiError::bad_request(format!("A tag has 1 to {LENGTH_MAX} characters, and no '/' or ','.")))
}

fn bounded(tags: Vec<String>) -> ApiResult<Vec<String>> {
    match tags.len() <= TAGS_MAX {
        true => Ok(tags),
        false => Err(ApiError::bad_request(format!("A project has at most {TAGS_MAX} tags."))),
    }
}

/// Whether tags fit the filters `tags`, `tags-any`, `not-tags` and `not-tags-any`.
pub fn fit(query: &Query, tags: &[String]) -> bool {
    let has = |wanted: &str| tags.iter().any(|t| t == wanted);
    let all = |key: &str| query.get(key).map(|list| list.split(',').all(has));
    let any = |key: &str| query.get(key).map(|list| list.split(',').any(has));
    all("tags").unwrap_or(true)
        && any("tags-any").unwrap_or(true)
        && !all("not-tags").unwrap_or(false)
        && !any("not-tags-any").unwrap_or(false)
}

async fn index(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    Path(id): Path<String>,
) -> ApiResult<Json<Value>> {
    readable(&caller, &id)?;
    let project = svc.store.read(|tx| Project::find(tx, &id))?;
    Ok(Json(json!({"tags": project.tags, "links": {"self": here.this, "next": null, "previous": null}})))
}

async fn check(
    State(svc): Svc,
    caller: Caller,
    Path((id, tag)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    readable(&caller, &id)?;
    let project = svc.store.read(|tx| Project::find(tx, &id))?;
    match project.tags.contains(&tag) {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(ApiError::not_found("project tag:", &tag)),
    }
}

fn readable(caller: &Caller, id: &str) -> ApiResult<()> {
    if caller.project_id == id { Ok(()) } else { caller.require_admin() }
}

async fn replace(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> ApiResult<Json<Value>> {
    let tags = parse(&body["tags"])?;
    let project = change(&svc, &caller, &id, |_| Ok(tags.clone())).await?;
    Ok(Json(json!({"tags": project.tags, "links": {"self": here.this, "next": null, "previous": null}})))
}

async fn clear(State(svc): Svc, caller: Caller, Path(id): Path<String>) -> ApiResult<StatusCode> {
    change(&svc, &caller, &id, |_| Ok(vec![])).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn add(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    Path((id, tag)): Path<(String, String)>,
) -> ApiResult<(StatusCode, [(HeaderName, String); 1])> {
    check_tag(&tag)?;
    let with = |mut tags: Vec<String>| {
        if !tags.contains(&tag) {
            tags.push(tag.clone());
        }
        bounded(tags)
    };
    change(&svc, &caller, &id, with).await?;
    Ok((StatusCode::CREATED, [(header::LOCATION, here.this)]))
}

async fn remove(
    State(svc): Svc,
    caller: Caller,
    Path((id, tag)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    let without = |mut tags: Vec<String>| {
        let at = tags.iter().position(|t| *t == tag);
        tags.remove(at.ok_or_else(|| ApiError::not_found("project tag:", &tag))?);
        Ok(tags)
    };
    change(&svc, &caller, &id, without).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn change(
    svc: &Service,
    caller: &Caller,
    id: &str,
    with: impl Fn(Vec<String>) -> ApiResult<Vec<String>>,
) -> ApiResult<Project> {
    caller.require_admin()?;
    svc.store
        .transact(|tx| {
            let mut project = Project::find(tx, id)?;
            project.tags = with(std::mem::take(&mut project.tags))?;
            tx.put(&project)?;
            Ok(project)
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_unique_plain_texts() {
        assert_eq!(parse(&json!(["a", "b"])).unwrap(), ["a", "b"]);
        for bad in [json!(["a", "a"]), json!(["a/b"]), json!([""]), json!([1]), json!("a"), json!(null)] {
            assert!(parse(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn filters_combine() {
        let fits =
            |key: &str, value: &str| fit(&Query(vec![(key.into(), value.into())]), &["a".into(), "b".into()]);
        assert!(fits("tags", "a,b") && !fits("tags", "a,c") && fits("tags-any", "c,a"));
        assert!(!fits("not-tags", "a,b") && fits("not-tags", "a,c") && !fits("not-tags-any", "c,a"));
    }
}
