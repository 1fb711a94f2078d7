//! `/endpoints`. Our own are stored as paths and shown with the URL the client used; others as they were given.

use std::sync::Arc;

use axum::Router;
use cairn_gateway::{ApiError, ApiResult};
use cairn_state::Tx;
use http::Uri;
use serde_json::{Value, json};

use super::ask::Ask;
use super::attrs::Attrs;
use super::resource::{self, Create, Delete, Managed, Update};
use super::wire::{Here, Resource, candidates, fits, over};
use crate::catalog;
use crate::model::{self, Endpoint, new_id};
use crate::service::Service;

pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/endpoints", resource::many::<Endpoint>())
        .route("/endpoints/{id}", resource::each::<Endpoint>())
}

impl Resource for Endpoint {
    const ONE: &'static str = "endpoint";
    const MANY: &'static str = "endpoints";

    fn path(&self) -> String {
        format!("endpoints/{}", self.id)
    }

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
        let mut view = self.linked(here);
        view["url"] = catalog::whole(&here.base, &self.url).into();
        view
    }
}

impl Managed for Endpoint {
    fn all(tx: &mut Tx, ask: &Ask) -> ApiResult<Vec<Endpoint>> {
        ask.caller.require_admin()?;
        let mut all = candidates::<Endpoint>(tx, "service", ask.query.get("service_id"))?;
        let region = ask.query.get("region_id").or(ask.query.get("region"));
        all.retain(|e| {
            let is_there = region.is_none_or(|r| e.region_id.as_deref() == Some(r));
            is_there && fits(&ask.query, "interface", &e.interface)
        });
        Ok(all)
    }

    fn one(tx: &mut Tx, ask: &Ask) -> ApiResult<Endpoint> {
        ask.caller.require_admin()?;
        Endpoint::find(tx, &ask.id)
    }
}

impl Create for Endpoint {
    fn create(tx: &mut Tx, ask: &Ask, attrs: Attrs) -> ApiResult<Endpoint> {
        Endpoint { id: new_id(), enabled: true, ..Endpoint::default() }.update(tx, ask, attrs)
    }
}

impl Update for Endpoint {
    /// Makes the region it names if need be.
    fn update(mut self, tx: &mut Tx, ask: &Ask, mut attrs: Attrs) -> ApiResult<Endpoint> {
        attrs.set_text("service_id", &mut self.service_id)?;
        attrs.set_text("interface", &mut self.interface)?;
        attrs.set_flag("enabled", &mut self.enabled)?;
        if let Some(url) = attrs.text("url")? {
            // What was shown whole comes back as the path it is.
            let own = url.strip_prefix(ask.here.base.0.as_str()).filter(|rest| rest.starts_with('/'));
            self.url = own.map_or(url.clone(), str::to_owned);
        }
        let region = attrs.optional("region")?;
        if let Some(region) = attrs.optional("region_id")?.or(region) {
            self.region_id = region;
        }
        if !["public", "internal", "admin"].contains(&self.interface.as_str()) {
            return Err(ApiError::bad_request("'interface' must be public, internal or admin."));
        }
        check_url(&self.url)?;
        let no_service = || ApiError::bad_request(format!("There is no service {}.", self.service_id));
        tx.get::<model::Service>(&self.service_id)?.ok_or_else(no_service)?;
        if let Some(region) = &self.region_id {
            super::regions::ensure(tx, region)?;
        }
        attrs.set_extra(&mut self.extra)?;
        tx.put(&self)?;
        Ok(self)
    }
}

impl Delete for Endpoint {
    fn delete(self, tx: &mut Tx, _: &Ask) -> ApiResult<()> {
        Ok(tx.delete::<Endpoint>(&self.id).map(drop)?)
    }
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
