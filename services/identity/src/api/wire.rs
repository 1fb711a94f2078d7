//! What is shown: names, links and lists of resources, and the filters of lists. Pure, but for the look-ups at the end.

use axum::Json;
use axum::extract::OriginalUri;
use cairn_gateway::{ApiError, ApiResult, BaseUrl, Page, Query};
use cairn_state::{Record, Tx};
use http::request::Parts;
use serde_json::{Map, Value, json};

use crate::model::Extra;

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

impl Here {
    /// Of a request that came in under `base`.
    pub fn of(base: BaseUrl, parts: &Parts) -> Here {
        let uri = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |u| &u.0);
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        Here { v3: format!("{}/identity/v3", base.0), this: format!("{}{path}", base.0), base }
    }
}

/// Something that the API shows.
pub trait Resource: Sized + Send + 'static {
    /// Its name in bodies, as `user`.
    const ONE: &'static str;
    /// The name of a list of it, as `users`.
    const MANY: &'static str;

    /// Its own path below v3, as `users/ID`.
    fn path(&self) -> String;

    /// Its attributes, without links.
    fn view(&self) -> Value;

    /// Its attributes and the link to itself.
    fn linked(&self, here: &Here) -> Value {
        let mut view = self.view();
        view["links"] = json!({"self": format!("{}/{}", here.v3, self.path())});
        view
    }

    /// How it is shown alone.
    fn shown(&self, here: &Here) -> Value {
        self.linked(here)
    }

    /// How lists show it.
    fn item(&self, here: &Here) -> Value {
        self.shown(here)
    }

    /// The body that shows it alone.
    fn body(&self, here: &Here) -> Json<Value> {
        Json(json!({Self::ONE: self.shown(here)}))
    }

    /// The record with this id; 404 if there is none.
    fn find(tx: &mut Tx, id: &str) -> ApiResult<Self>
    where
        Self: Record,
    {
        tx.get::<Self>(id)?.ok_or_else(|| ApiError::not_found(&format!("{}:", Self::ONE), id))
    }
}

/// A list of resources, cut into pages if the client asks for that.
pub fn list<R: Resource>(found: &[R], query: &Query, here: &Here) -> ApiResult<Json<Value>> {
    let items: Vec<Value> = found.iter().map(|r| r.item(here)).collect();
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
    Ok(Json(json!({R::MANY: items, "links": {"self": here.this, "next": next, "previous": null}})))
}

/// A body whose `key` is a whole list, never cut.
pub fn whole(key: &str, items: Value, here: &Here) -> Json<Value> {
    Json(json!({key: items, "links": {"self": here.this, "next": null, "previous": null}}))
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

/// Those that fit, where telling so may fail: a flag in the query is read only when it matters.
pub fn fitting<R>(all: Vec<R>, fits: impl Fn(&R) -> ApiResult<bool>) -> ApiResult<Vec<R>> {
    let judged = all.into_iter().map(|r| fits(&r).map(|fit| fit.then_some(r)));
    judged.filter_map(Result::transpose).collect()
}

/// The records with this value in a shared index, or all if there is no value to go by.
pub fn candidates<R: Record>(tx: &mut Tx, index: &str, value: Option<&str>) -> ApiResult<Vec<R>> {
    match value {
        Some(value) => Ok(tx.by_index(index, value)?),
        None => Ok(tx.list_unfenced()?),
    }
}

/// The records with these ids that are there.
pub fn present<R: Record>(tx: &mut Tx, ids: impl IntoIterator<Item: AsRef<str>>) -> ApiResult<Vec<R>> {
    let mut found = Vec::new();
    for id in ids {
        found.extend(tx.get::<R>(id.as_ref())?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(key: &str, value: &str) -> Query {
        Query(vec![(key.into(), value.into())])
    }

    #[test]
    fn a_text_fits_by_equality_or_a_part_of_it() {
        let fit = |key, value| fits(&query(key, value), "name", "Home");
        assert!(fit("name", "Home") && !fit("name", "home") && fit("other", "x"));
        assert!(fit("name__contains", "om") && !fit("name__contains", "OM") && fit("name__icontains", "OM"));
        assert!(fit("name__startswith", "Ho") && !fit("name__startswith", "ho"));
        assert!(fit("name__istartswith", "ho") && !fit("name__istartswith", "me"));
    }

    #[test]
    fn a_bad_flag_is_refused_when_it_matters() {
        let flag = |value, all: Vec<bool>| {
            fitting(all, |on| fits_flag(&query("enabled", value), "enabled", *on)).ok()
        };
        assert_eq!(flag("true", vec![true, false]), Some(vec![true]));
        assert_eq!(flag("", vec![true, false]), Some(vec![true]));
        assert_eq!(flag("perhaps", vec![]), Some(vec![]));
        assert_eq!(flag("perhaps", vec![true]), None);
    }
}
