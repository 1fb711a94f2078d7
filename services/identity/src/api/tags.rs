//! `/projects/{id}/tags`, and tags in bodies and filters.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use cairn_gateway::{ApiError, ApiResult, Body, Query};
use http::{HeaderName, StatusCode, header};
use serde_json::Value;

use super::ask::Ask;
use super::resource::Shown;
use super::wire::{Resource, whole};
use crate::model::Project;
use crate::service::Service;

/// The most tags of a project, and the longest, in characters.
const TAGS_MAX: usize = 80;
const LENGTH_MAX: usize = 255;

pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/projects/{id}/tags", get(index).put(replace).delete(clear))
        .route("/projects/{id}/tags/{part}", get(check).put(add).delete(remove))
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

/// The project, for its own callers and admins.
fn readable(ask: &Ask) -> ApiResult<Project> {
    if ask.caller.project_id != ask.id {
        ask.caller.require_admin()?;
    }
    ask.read(|tx| Project::find(tx, &ask.id))
}

fn missing(tag: &str) -> ApiError {
    ApiError::not_found("project tag:", tag)
}

async fn index(ask: Ask) -> Shown {
    Ok(whole("tags", readable(&ask)?.tags.into(), &ask.here))
}

async fn check(ask: Ask) -> ApiResult<StatusCode> {
    match readable(&ask)?.tags.contains(&ask.part) {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(missing(&ask.part)),
    }
}

async fn replace(ask: Ask, Body(body): Body<Value>) -> Shown {
    let tags = parse(&body["tags"])?;
    let project = change(&ask, |_| Ok(tags.clone())).await?;
    Ok(whole("tags", project.tags.into(), &ask.here))
}

async fn clear(ask: Ask) -> ApiResult<StatusCode> {
    change(&ask, |_| Ok(vec![])).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn add(ask: Ask) -> ApiResult<(StatusCode, [(HeaderName, String); 1])> {
    check_tag(&ask.part)?;
    let with = |mut tags: Vec<String>| {
        if !tags.contains(&ask.part) {
            tags.push(ask.part.clone());
        }
        bounded(tags)
    };
    change(&ask, with).await?;
    Ok((StatusCode::CREATED, [(header::LOCATION, ask.here.this)]))
}

async fn remove(ask: Ask) -> ApiResult<StatusCode> {
    let without = |mut tags: Vec<String>| {
        let at = tags.iter().position(|t| *t == ask.part);
        tags.remove(at.ok_or_else(|| missing(&ask.part))?);
        Ok(tags)
    };
    change(&ask, without).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn change(ask: &Ask, with: impl Fn(Vec<String>) -> ApiResult<Vec<String>>) -> ApiResult<Project> {
    ask.caller.require_admin()?;
    ask.change(|tx| {
        let mut project = Project::find(tx, &ask.id)?;
        project.tags = with(std::mem::take(&mut project.tags))?;
        tx.put(&project)?;
        Ok(project)
    })
    .await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
