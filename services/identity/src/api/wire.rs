//! What all resources share on the wire: links, lists, look-ups.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, OriginalUri};
use cairn_gateway::{ApiError, ApiResult, BaseUrl, Caller, Page, Query};
use cairn_state::{Record, Tx};
use http::request::Parts;
use serde_json::{Map, Value, json};

use crate::model::Extra;
use crate::service::Service;
use crate::validate::Validated;

/// Where the request came in: what links are made of.
#[derive(Debug, Clone)]
pub struct Here {
    /// The endpoint's own URL.
    pub base: BaseUrl,
    /// The root of v3, without a slash at its end.
    pub v3: String,
    /// This request's own URL.
    pub this: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Here {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let base = BaseUrl::from_request_parts(parts, state).await?;
        let uri = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |u| &u.0);
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        Ok(Here { v3: format!("{}/identity/v3", base.0), this: format!("{}{path}", base.0), base })
    }
}

/// A record that the API shows.
pub trait Resource: Record {
    /// Its name in bodies, as `user`.
    const ONE: &'static str;
    /// The name of a list of it, as `users`; also its path under v3.
    const MANY: &'static str;

    /// Its attributes, without links.
    fn view(&self) -> Value;

    /// Its attributes and the link to itself.
    fn shown(&self, here: &Here) -> Value {
        let mut view = self.view();
        view["links"] = json!({"self": format!("{}/{}/{}", here.v3, Self::MANY, self.id())});
        view
    }

    /// The body that shows it alone.
    fn body(&self, here: &Here) -> Json<Value> {
        Json(json!({Self::ONE: self.shown(here)}))
    }

    /// The record with this id; 404 if there is none.
    fn find(tx: &mut Tx, id: &str) -> ApiResult<Self> {
        tx.get::<Self>(id)?.ok_or_else(|| ApiError::not_found(&format!("{}:", Self::ONE), id))
    }
}

/// A list of records, cut into pages if the client asks for that.
pub fn list<R: Resource>(records: Vec<R>, query: &Query, here: &Here) -> ApiResult<Json<Value>> {
    listed(R::MANY, records.iter().map(|r| r.shown(here)).collect(), query, here)
}

/// A list of anything that has ids.
pub fn listed(many: &str, items: Vec<Value>, query: &Query, here: &Here) -> ApiResult<Json<Value>> {
    let (items, next) = match query.get("limit") {
        None => (items, None),
        Some(_) => {
            let page = Page::cut(items, query, |v| v["id"].as_str().unwrap_or(""))?;
            (page.items, page.next)
        }
    };
    let next = next.map(|marker| {
        let path = here.this.split('?').next().unwrap_or(&here.this);
        format!("{path}?limit={}&marker={marker}", query.get("limit").unwrap_or("1000"))
    });
    Ok(Json(json!({many: items, "links": {"self": here.this, "next": next, "previous": null}})))
}

/// Extras with the attributes of the API over them.
pub fn over(extra: &Extra, attributes: Value) -> Value {
    let mut all: Map<String, Value> = extra.clone();
    if let Value::Object(attributes) = attributes {
        all.extend(attributes);
    }
    Value::Object(all)
}

/// Whether a text attribute fits the query's filters of that name: equality, and the `__contains`, `__icontains`,
/// `__startswith` and `__istartswith` forms.
pub fn fits(query: &Query, key: &str, value: &str) -> bool {
    let given = |suffix: &str| query.get(&format!("{key}{suffix}"));
    let lower = value.to_lowercase();
    query.get(key).is_none_or(|v| v == value)
        && given("__contains").is_none_or(|v| value.contains(v))
        && given("__icontains").is_none_or(|v| lower.contains(&v.to_lowercase()))
        && given("__startswith").is_none_or(|v| value.starts_with(v))
        && given("__istartswith").is_none_or(|v| lower.starts_with(&v.to_lowercase()))
}

/// Whether a boolean attribute fits the query. `enabled` with no value, as some clients send it, means true.
pub fn fits_flag(query: &Query, key: &str, value: bool) -> ApiResult<bool> {
    if query.get(key) == Some("") {
        return Ok(value);
    }
    Ok(query.flag(key)?.is_none_or(|wanted| wanted == value))
}

/// The whole of the caller's token, for handlers that must know how it was come by.
pub struct Holder(pub Arc<Validated>);

impl FromRequestParts<Arc<Service>> for Holder {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, svc: &Arc<Service>) -> Result<Self, ApiError> {
        // The gateway has let the caller in; an access rule may yet have refused the token for this request.
        parts.extensions.get::<Arc<Caller>>().ok_or_else(ApiError::unauthorized)?;
        let token = parts.headers.get("x-auth-token").and_then(|t| t.to_str().ok());
        let validated = svc.validate(token.unwrap_or(""))?;
        validated.map(Holder).ok_or_else(ApiError::unauthorized)
    }
}
