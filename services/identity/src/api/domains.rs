//! `/domains`: the projects that are domains, with the attributes that domains have.

use std::sync::Arc;

use axum::Router;
use cairn_gateway::{ApiError, ApiResult};
use cairn_state::Tx;
use serde_json::{Value, json};

use super::ask::Ask;
use super::attrs::{Attrs, require_name};
use super::projects;
use super::resource::{self, Create, Delete, Managed, Update};
use super::wire::{Resource, fits, fits_flag, fitting, over};
use crate::cascade;
use crate::marks::MarkId;
use crate::model::{Project, new_id};
use crate::policy;
use crate::service::Service;

pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/domains", resource::many::<Domain>())
        .route("/domains/{id}", resource::each::<Domain>())
}

/// A project that is a domain, as `/domains` shows it.
pub struct Domain(pub Project);

impl Resource for Domain {
    const ONE: &'static str = "domain";
    const MANY: &'static str = "domains";

    fn path(&self) -> String {
        format!("domains/{}", self.0.id)
    }

    fn view(&self) -> Value {
        let d = &self.0;
        over(
            &d.extra,
            json!({
                "id": d.id, "name": d.name, "enabled": d.enabled, "description": d.description, "tags": d.tags,
                "options": d.options,
            }),
        )
    }
}

/// The domain with this id; 404 if there is none.
pub fn find(tx: &mut Tx, id: &str) -> ApiResult<Project> {
    let found = tx.get::<Project>(id)?.filter(|d| d.is_domain);
    found.ok_or_else(|| ApiError::not_found("domain:", id))
}

impl Managed for Domain {
    fn all(tx: &mut Tx, ask: &Ask) -> ApiResult<Vec<Domain>> {
        let own = policy::listing_domain(&ask.caller)?;
        let all = tx.by_index::<Project>("is-domain", "true")?;
        let fit = |d: &Project| {
            let is_seen = own.is_none_or(|o| d.id == o) && fits(&ask.query, "name", &d.name);
            Ok(is_seen && fits_flag(&ask.query, "enabled", d.enabled)?)
        };
        Ok(fitting(all, fit)?.into_iter().map(Domain).collect())
    }

    fn one(tx: &mut Tx, ask: &Ask) -> ApiResult<Domain> {
        let domain = find(tx, &ask.id)?;
        let is_own = [&ask.caller.user_domain_id, &ask.caller.project_domain_id].contains(&&ask.id);
        if !is_own {
            policy::require_domain_reader(&ask.caller, &ask.id)?;
        }
        Ok(Domain(domain))
    }
}

impl Create for Domain {
    fn create(tx: &mut Tx, _: &Ask, mut attrs: Attrs) -> ApiResult<Domain> {
        let id = match attrs.text("explicit_domain_id")? {
            Some(id) if id.len() == 32 && id.chars().all(|c| c.is_ascii_hexdigit()) => id.to_lowercase(),
            Some(_) => return Err(ApiError::bad_request("'explicit_domain_id' must have 32 hex digits.")),
            None => new_id(),
        };
        let mut domain = Project { id, is_domain: true, enabled: true, ..Project::default() };
        projects::apply(&mut domain, attrs)?;
        require_name(&domain.name)?;
        if tx.get::<Project>(&domain.id)?.is_some() {
            return Err(ApiError::conflict("The id is already in use."));
        }
        tx.put(&domain)?;
        MarkId::scope(&domain.id).touch(tx)?;
        Ok(Domain(domain))
    }
}

impl Update for Domain {
    fn update(self, tx: &mut Tx, _: &Ask, attrs: Attrs) -> ApiResult<Domain> {
        projects::change(tx, self.0, attrs).map(Domain)
    }
}

impl Delete for Domain {
    fn delete(self, tx: &mut Tx, _: &Ask) -> ApiResult<()> {
        cascade::delete_domain(tx, &self.0)
    }
}
