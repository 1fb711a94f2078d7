//! The handlers that every resource shares: list, show, create (one or many), update, delete, and tags.
//!
//! Each changes the store in one transaction, so that a bulk request is done whole or not at all.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use cairn_gateway::{ApiError, ApiResult, BaseUrl, Body, Caller, Page, Query};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::attrs::Attrs;
use super::listing;
use super::resource::{self, Ctx, Resource, View};
use crate::service::Service;

/// The most resources one request makes.
const BULK_MAX: usize = 100;

/// The routes of a resource.
pub fn routes<R: Resource>() -> Router<Arc<Service>> {
    let collection = format!("/v2.0/{}", R::PATH);
    let item = format!("{collection}/{{id}}");
    Router::new()
        .route(&collection, get(list::<R>).post(create::<R>))
        .route(&item, get(show::<R>).put(update::<R>).delete(delete::<R>))
}

async fn list<R: Resource>(
    State(svc): State<Arc<Service>>,
    caller: Caller,
    base: BaseUrl,
    query: Query,
) -> ApiResult<Json<Value>> {
    if svc.store.read(|tx| R::unprepared(tx, &caller, &query))? {
        let ctx = Ctx { caller: &caller, now: Timestamp::now() };
        svc.store.transact(|tx| R::prepare(tx, ctx)).await?;
    }
    let mut views = svc.store.read(|tx| {
        let records = resource::candidates::<R>(tx, &caller, &query)?;
        let views = records.iter().map(|r| r.view(tx, &caller)).collect::<ApiResult<Vec<_>>>()?;
        ApiResult::Ok(views.into_iter().filter(|v| listing::matches(v, &query)).collect::<Vec<_>>())
    })?;
    listing::sort(&mut views, &query)?;
    let reverse = query.flag("page_reverse")?.unwrap_or(false);
    if reverse {
        views.reverse();
    }
    let mut page = Page::cut(views, &query, |v| v.get("id").and_then(Value::as_str).unwrap_or_default())?;
    if reverse {
        page.items.reverse();
    }
    let mut body = Map::new();
    let items: Vec<View> = page.items.into_iter().map(|v| listing::select(v, &query)).collect();
    body.insert(R::PLURAL.into(), json!(items));
    if let Some(next) = page.next {
        let href = next_page(&format!("{}/network/v2.0/{}", base.0, R::PATH), &query, &next);
        let rel = if reverse { "previous" } else { "next" };
        body.insert(format!("{}_links", R::PLURAL), json!([{"rel": rel, "href": href}]));
    }
    Ok(Json(Value::Object(body)))
}

fn next_page(path: &str, query: &Query, marker: &str) -> String {
    let mut text = url::form_urlencoded::Serializer::new(String::new());
    text.extend_pairs(query.0.iter().filter(|(k, _)| k != "marker"));
    text.append_pair("marker", marker);
    format!("{path}?{}", text.finish())
}

async fn show<R: Resource>(
    State(svc): State<Arc<Service>>,
    caller: Caller,
    Path(id): Path<String>,
    query: Query,
) -> ApiResult<Json<Value>> {
    let view = svc.store.read(|tx| resource::find::<R>(tx, &caller, &id)?.view(tx, &caller))?;
    Ok(wrapped::<R>(listing::select(view, &query)))
}

fn wrapped<R: Resource>(view: View) -> Json<Value> {
    let mut body = Map::new();
    body.insert(R::NAME.into(), Value::Object(view));
    Json(Value::Object(body))
}

async fn create<R: Resource>(
    State(svc): State<Arc<Service>>,
    caller: Caller,
    Body(body): Body<Value>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    caller.require_writer()?;
    let ctx = Ctx { caller: &caller, now: Timestamp::now() };
    let (many, bodies) = split::<R>(body)?;
    let views = svc
        .store
        .transact(|tx| {
            let made = bodies.iter().map(|attrs| {
                let mut attrs = attrs.clone();
                let record = R::create(tx, ctx, &mut attrs)?;
                attrs.finish()?;
                record.view(tx, &caller)
            });
            made.collect::<ApiResult<Vec<View>>>()
        })
        .await?;
    if many {
        let mut body = Map::new();
        body.insert(R::PLURAL.into(), json!(views));
        return Ok((StatusCode::CREATED, Json(Value::Object(body))));
    }
    let view = views.into_iter().next().unwrap_or_default();
    Ok((StatusCode::CREATED, wrapped::<R>(view)))
}

/// The bodies in `{"network": {...}}` or `{"networks": [...]}`, and whether it was the latter.
fn split<R: Resource>(mut body: Value) -> ApiResult<(bool, Vec<Attrs>)> {
    let attrs = |value| Attrs::new(value, R::NAME, R::READ_ONLY);
    if let Some(one) = body.get_mut(R::NAME) {
        return Ok((false, vec![attrs(one.take())?]));
    }
    match body.get_mut(R::PLURAL).map(Value::take) {
        Some(Value::Array(many)) if (1..=BULK_MAX).contains(&many.len()) => {
            Ok((true, many.into_iter().map(attrs).collect::<ApiResult<_>>()?))
        }
        Some(Value::Array(_)) => {
            Err(ApiError::bad_request(format!("A bulk request holds 1 to {BULK_MAX} resources.")))
        }
        _ => Err(ApiError::bad_request(format!("Unable to find '{}' in request body", R::NAME))),
    }
}

async fn update<R: Resource>(
    State(svc): State<Arc<Service>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    Body(mut body): Body<Value>,
) -> ApiResult<Json<Value>> {
    let value = body.get_mut(R::NAME).map(Value::take).unwrap_or_default();
    let attrs = Attrs::new(value, R::NAME, R::READ_ONLY)?;
    let ctx = Ctx { caller: &caller, now: Timestamp::now() };
    let view = svc
        .store
        .transact(|tx| {
            let mut record = resource::find_own::<R>(tx, &caller, &id)?;
            check_revision(&headers, record.stamp().revision)?;
            record.stamp().touch(ctx.now);
            let mut attrs = attrs.clone();
            let record = record.update(tx, ctx, &mut attrs)?;
            attrs.finish()?;
            record.view(tx, &caller)
        })
        .await?;
    Ok(wrapped::<R>(view))
}

/// `If-Match: revision_number=N` refuses a change of what was changed since it was read.
fn check_revision(headers: &HeaderMap, revision: u64) -> ApiResult<()> {
    let Some(wanted) = headers.get(http::header::IF_MATCH) else { return Ok(()) };
    let wanted =
        wanted.to_str().ok().and_then(|t| t.strip_prefix("revision_number=")?.trim().parse::<u64>().ok());
    match wanted {
        None => Err(ApiError::bad_request("If-Match takes the form revision_number=N.")),
        Some(wanted) if wanted == revision => Ok(()),
        Some(wanted) => {
            let message = format!("Constrained to revision {wanted}, but current revision is {revision}");
            let status = StatusCode::PRECONDITION_FAILED;
            Err(ApiError::new(status, message).with_code("RevisionNumberConstraintFailed"))
        }
    }
}

async fn delete<R: Resource>(
    State(svc): State<Arc<Service>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> ApiResult<StatusCode> {
    let ctx = Ctx { caller: &caller, now: Timestamp::now() };
    svc.store
        .transact(|tx| {
            let mut record = resource::find_own::<R>(tx, &caller, &id)?;
            check_revision(&headers, record.stamp().revision)?;
            record.remove(tx, ctx)
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
