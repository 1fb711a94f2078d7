//! `/traits` and `/resource_classes`: the names that are known. For administrators.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use cairn_gateway::{ApiError, ApiResult, Caller, Minor, Query};
use serde_json::{Value, json};

use super::Svc;
use crate::model::{ResourceProvider, STANDARD_CLASSES};

/// The traits that some node has. Nodes are few, so they are gathered when asked for.
fn known(svc: &Svc) -> ApiResult<BTreeSet<String>> {
    let all = svc.store.read(|tx| tx.list_unfenced::<ResourceProvider>())?;
    Ok(all.into_iter().flat_map(|p| p.traits).collect())
}

/// `GET /traits`, filtered by `name=in:A,B` or `name=startswith:A`. All of them are some node's.
pub async fn traits(State(svc): Svc, caller: Caller, minor: Minor, query: Query) -> ApiResult<Json<Value>> {
    minor.added_in(6)?;
    caller.require_admin()?;
    query.flag("associated")?;
    let mut names = known(&State(svc))?;
    if let Some(filter) = query.get("name") {
        match filter.split_once(':') {
            Some(("in", list)) => names.retain(|n| list.split(',').any(|l| l == n)),
            Some(("startswith", start)) => names.retain(|n| n.starts_with(start)),
            _ => {
                return Err(ApiError::bad_request(
                    "Badly formatted name parameter. Expected name query string parameter in form: \
                     ?name=[in|startswith]:[name1,name2|prefix].",
                ));
            }
        }
    }
    if query.flag("associated")? == Some(false) {
        names.clear();
    }
    Ok(Json(json!({"traits": names})))
}

/// `GET /traits/{name}`: 204 if some node has it.
pub async fn show_trait(
    State(svc): Svc,
    caller: Caller,
    minor: Minor,
    Path(name): Path<String>,
) -> ApiResult<StatusCode> {
    minor.added_in(6)?;
    caller.require_admin()?;
    if known(&State(svc))?.contains(&name) {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(ApiError::new(StatusCode::NOT_FOUND, format!("No such trait(s): {name}.")))
}

fn class_view(name: &str) -> Value {
    json!({"name": name, "links": [{"rel": "self", "href": format!("/placement/resource_classes/{name}")}]})
}

/// `GET /resource_classes`
pub async fn classes(caller: Caller, minor: Minor) -> ApiResult<Json<Value>> {
    minor.added_in(2)?;
    caller.require_admin()?;
    let all: Vec<_> = STANDARD_CLASSES.iter().map(|c| class_view(c)).collect();
    Ok(Json(json!({"resource_classes": all})))
}

/// `GET /resource_classes/{name}`
pub async fn show_class(caller: Caller, minor: Minor, Path(name): Path<String>) -> ApiResult<Json<Value>> {
    minor.added_in(2)?;
    caller.require_admin()?;
    if STANDARD_CLASSES.contains(&name.as_str()) {
        return Ok(Json(class_view(&name)));
    }
    Err(ApiError::new(StatusCode::NOT_FOUND, format!("No such resource class: {name}.")))
}
