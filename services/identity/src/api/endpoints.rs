//! `/endpoints`. Our own are stored as paths and shown with the URL the client used; others as they were given.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use cairn_gateway::{ApiError, ApiResult, Body, Caller, Query};
use cairn_state::Tx;
use http::{StatusCode, Uri};
use serde_json::{Value, json};

use super::Svc;
use super::attrs::Attrs;
use super::wire::{Here, Resource, fits, listed, over};
use crate::catalog;
use crate::model::{Endpoint, new_id};
use crate::service::Service;

pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/endpoints", get(index).post(create))
        .route("/endpoints/{id}", get(show).patch(update).delete(delete))
}

impl Resource for Endpoint {
    const ONE: &'static str = "endpoint";
    const MANY: &'static str = "endpoints";

    fn view(&self) -> Value {
        over(
            &self.extra,
            json!({
                "id": self.id, "service_id": self.service_id, "region_id": self.region_id,
                "region": self.region_id, "interface": self.interface, "url": self.url, "enabled": self.enabled,
            }),
        )
    }

    fn shown(&self, here: &Here) -> Value {
        let mut view = self.view();
        view["url"] = catalog::whole(&here.base, &self.url).into();
        view["links"] = json!({"self": format!("{}/endpoints/{}", here.v3, self.id)});
        view
    }
}

/// Takes what can be changed, checks it, and makes the region it names if need be.
fn apply(tx: &mut Tx, endpoint: &mut Endpoint, mut attrs: Attrs, here: &Here) -> ApiResult<()> {
    attrs.set_text("service_id", &mut endpoint.service_id)?;
    attrs.set_text("interface", &mut endpoint.interface)?;
    attrs.set_flag("enabled", &mut endpoint.enabled)?;
    if let Some(url) = attrs.text("url")? {
        // What was shown whole comes back as the path it is.
        let own = url.strip_prefix(here.base.0.as_str()).filter(|rest| rest.starts_with('/'));
        endpoint.url = own.map_or(url.clone(), str::to_owned);
    }
    let region = attrs.optional("region")?;
    if let Some(region) = attrs.optional("region_id")?.or(region) {
        endpoint.region_id = region;
    }
    if !["public", "internal", "admin"].contains(&endpoint.interface.as_str()) {
        return Err(ApiError::bad_request("'interface' must be public, internal or admin."));
    }
    check_url(&endpoint.url)?;
    let no_service = || ApiError::bad_request(format!("There is no service {}.", endpoint.service_id));
    tx.get::<crate::model::Service>(&endpoint.service_id)?.ok_or_else(no_service)?;
    if let Some(region) = &endpoint.region_id {
        super::regions::ensure(tx, region)?;
    }
    attrs.set_extra(&mut endpoint.extra)
}

/// A path, or an absolute HTTP URL; the ids to be filled in are known.
fn check_url(url: &str) -> ApiResult<()> {
    let filled = url.replace("$(", "%(");
    let filled = ["project_id", "tenant_id", "user_id"]
        .iter()
        .fold(filled, |u, name| u.replace(&format!("%({name})s"), "x"));
    let is_web = |u: &Uri| matches!(u.scheme_str(), Some("http" | "https")) && u.authority().is_some();
    let is_path = url.starts_with('/') && !url.starts_with("//");
    if !filled.contains("%(") && (is_path || filled.parse::<Uri>().is_ok_and(|u| is_web(&u))) {
        return Ok(());
    }
    Err(ApiError::bad_request("'url' must be an http or https URL, or a path under this cloud's endpoint."))
}

async fn index(State(svc): Svc, caller: Caller, here: Here, query: Query) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let all = svc.store.read(|tx| {
        Ok::<_, ApiError>(match query.get("service_id") {
            Some(service) => tx.by_index::<Endpoint>("service", service)?,
            None => tx.list_unfenced::<Endpoint>()?,
        })
    })?;
    let region = query.get("region_id").or(query.get("region"));
    let fit = |e: &&Endpoint| {
        fits(&query, "interface", &e.interface) && region.is_none_or(|r| e.region_id.as_deref() == Some(r))
    };
    listed("endpoints", all.iter().filter(fit).map(|e| e.shown(&here)).collect(), &query, &here)
}

async fn create(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    Body(body): Body<Value>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    caller.require_admin()?;
    let id = new_id();
    let endpoint = svc
        .store
        .transact(|tx| {
            let mut endpoint = Endpoint { id: id.clone(), enabled: true, ..Endpoint::default() };
            apply(tx, &mut endpoint, Attrs::of(body.clone(), "endpoint")?, &here)?;
            tx.put(&endpoint)?;
            Ok::<_, ApiError>(endpoint)
        })
        .await?;
    Ok((StatusCode::CREATED, endpoint.body(&here)))
}

async fn show(State(svc): Svc, caller: Caller, here: Here, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    Ok(svc.store.read(|tx| Endpoint::find(tx, &id))?.body(&here))
}

async fn update(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let endpoint = svc
        .store
        .transact(|tx| {
            let mut endpoint = Endpoint::find(tx, &id)?;
            apply(tx, &mut endpoint, Attrs::of(body.clone(), "endpoint")?, &here)?;
            tx.put(&endpoint)?;
            Ok::<_, ApiError>(endpoint)
        })
        .await?;
    Ok(endpoint.body(&here))
}

async fn delete(State(svc): Svc, caller: Caller, Path(id): Path<String>) -> ApiResult<StatusCode> {
    caller.require_admin()?;
    svc.store
        .transact(|tx| {
            Endpoint::find(tx, &id)?;
            Ok::<_, ApiError>(tx.delete::<Endpoint>(&id).map(drop)?)
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked() {
        for good in
            ["/compute/v2.1", "http://a.test:1/x", "https://a/AUTH_%(project_id)s", "/a/$(tenant_id)s"]
        {
            assert!(check_url(good).is_ok(), "{good}");
        }
        for bad in ["", "ftp://a/x", "compute", "//a/x", "http://", "http://a/%(password)s"] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
    }
}
