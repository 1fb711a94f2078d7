//! `GET /v2/images`: which images, in which order, which page of them.

mod filter;
mod order;

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use cairn_gateway::{ApiError, ApiResult, Caller, Page, Query};
use cairn_state::Tx;
use serde_json::{Value, json};

use self::filter::Filter;
use super::{Svc, view};
use crate::model::{Image, Member, Visibility};

/// How many images an answer holds if the client names no limit.
const LIMIT_DEFAULT: usize = 100;

/// `GET /v2/images`
pub async fn list(State(svc): Svc, caller: Caller, query: Query) -> ApiResult<Json<Value>> {
    let filter = Filter::read(&query)?;
    let keys = order::read(&query)?;
    let mut images = svc.store.read(|tx| gather(tx, &caller, &filter))?;
    images.retain(|i| filter.takes(i));
    order::sort(&mut images, &keys);
    let mut paged = query.clone();
    if paged.get("limit").is_none() {
        paged.0.push(("limit".into(), LIMIT_DEFAULT.to_string()));
    }
    let page = Page::cut(images, &paged, |i| &i.id)?;
    let shown: Vec<_> = page.items.iter().map(view::image).collect();
    let mut body = json!({
        "images": shown,
        "first": link(&query, None),
        "schema": "/v2/schemas/images",
    });
    if let Some(marker) = page.next {
        body["next"] = json!(link(&query, Some(&marker)));
    }
    Ok(Json(body))
}

/// The path of a page of this list, as clients follow it: without the service's prefix.
fn link(query: &Query, marker: Option<&str>) -> String {
    let kept = query.0.iter().filter(|(k, _)| k != "marker").map(|(k, v)| (k.as_str(), v.as_str()));
    let pairs = kept.chain(marker.map(|m| ("marker", m)));
    let text = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    if text.is_empty() { "/v2/images".into() } else { format!("/v2/images?{text}") }
}

/// The images this caller may list, before the filters on attributes. Found by index, but for administrators,
/// whose list is all there are.
fn gather(tx: &mut Tx, caller: &Caller, filter: &Filter) -> ApiResult<Vec<Image>> {
    if let Some(ids) = filter.ids() {
        return by_id(tx, caller, filter, ids);
    }
    if caller.is_admin() {
        let mut all = tx.list_unfenced::<Image>()?;
        all.retain(|i| filter.visibility_takes(i, caller, None));
        return Ok(all);
    }
    let mut found = BTreeMap::new();
    let mut take = |image: Image, member: Option<&Member>| {
        if filter.visibility_takes(&image, caller, member) {
            found.insert(image.id.clone(), image);
        }
    };
    if !caller.project_id.is_empty() {
        for image in tx.by_index::<Image>("owner", &caller.project_id)? {
            take(image, None);
        }
        for member in tx.by_index::<Member>("project", &caller.project_id)? {
            if let Some(image) = tx.get::<Image>(&member.image_id)? {
                take(image, Some(&member));
            }
        }
    }
    for visibility in [Visibility::Public, Visibility::Community] {
        if filter.wants(visibility) {
            for image in tx.by_index::<Image>("visibility", visibility.name())? {
                take(image, None);
            }
        }
    }
    Ok(found.into_values().collect())
}

fn by_id(tx: &mut Tx, caller: &Caller, filter: &Filter, ids: &[String]) -> Result<Vec<Image>, ApiError> {
    let mut found = Vec::new();
    for id in ids {
        let Some(image) = tx.get::<Image>(id)? else { continue };
        let member = tx.get::<Member>(&Member::key(id, &caller.project_id))?;
        if filter.visibility_takes(&image, caller, member.as_ref()) {
            found.push(image);
        }
    }
    Ok(found)
}
