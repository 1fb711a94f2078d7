//! `/projects`.

use std::sync::Arc;

use axum::routing::get;
use axum::{Json, Router};
use cairn_gateway::{ApiError, ApiResult, Body, Query};
use cairn_state::Tx;
use serde_json::{Value, json};

use super::ask::Ask;
use super::attrs::{Attrs, SHORT_NAME_MAX, require_name};
use super::resource::{self, Create, Delete, Managed, Shown};
use super::wire::{Here, Resource, candidates, fits, fits_flag, fitting, over, present};
use crate::cascade;
use crate::effective;
use crate::marks::MarkId;
use crate::model::{Project, Target, new_id};
use crate::policy;
use crate::service::Service;

pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/projects", resource::many::<Project>())
        .route("/projects/{id}", get(show).patch(update).delete(resource::delete::<Project>))
}

impl Resource for Project {
    const ONE: &'static str = "project";
    const MANY: &'static str = "projects";

    fn path(&self) -> String {
        format!("projects/{}", self.id)
    }

    /// Of a project, or of a domain as a project.
    fn view(&self) -> Value {
        let or_null = |s: &String| if s.is_empty() { Value::Null } else { s.clone().into() };
        over(
            &self.extra,
            json!({
                "id": self.id, "name": self.name, "domain_id": or_null(&self.domain_id),
                "parent_id": or_null(&self.parent_id), "is_domain": self.is_domain, "enabled": self.enabled,
                "description": self.description, "tags": self.tags, "options": self.options,
            }),
        )
    }
}

/// Takes the attributes that can be changed.
pub fn apply(p: &mut Project, mut attrs: Attrs) -> ApiResult<()> {
    attrs.set_name(&mut p.name, SHORT_NAME_MAX)?;
    attrs.set_text("description", &mut p.description)?;
    attrs.set_flag("enabled", &mut p.enabled)?;
    attrs.set_options(&mut p.options)?;
    if let Some(tags) = attrs.value("tags") {
        p.tags = super::tags::parse(&tags)?;
    }
    attrs.set_extra(&mut p.extra)
}

impl Managed for Project {
    fn all(tx: &mut Tx, ask: &Ask) -> ApiResult<Vec<Project>> {
        let query = &ask.query;
        let own = policy::listing_domain(&ask.caller)?;
        let domains = query.flag("is_domain")?.unwrap_or(false);
        fitting(hopeful(tx, own, domains, query)?, |p| {
            Ok(p.is_domain == domains
                && own.is_none_or(|d| p.domain_id == d || p.id == d)
                && fits(query, "name", &p.name)
                && fits(query, "domain_id", &p.domain_id)
                && fits(query, "parent_id", &p.parent_id)
                && fits_flag(query, "enabled", p.enabled)?
                && super::tags::fit(query, &p.tags))
        })
    }

    fn one(tx: &mut Tx, ask: &Ask) -> ApiResult<Project> {
        let project = Project::find(tx, &ask.id)?;
        let is_reader = policy::require_domain_reader(&ask.caller, &project.domain_id).is_ok();
        if ask.caller.project_id != ask.id && !is_reader {
            let held = effective::targets(tx, &ask.caller.user_id)?;
            if !held.contains(&Target::Project(ask.id.clone())) {
                return Err(ApiError::forbidden("You are not authorized to see this project."));
            }
        }
        Ok(project)
    }
}

/// The fewest records that hold all that the query asks for.
fn hopeful(tx: &mut Tx, own: Option<&str>, domains: bool, query: &Query) -> ApiResult<Vec<Project>> {
    if domains {
        return Ok(tx.by_index("is-domain", "true")?);
    }
    if let Some(parent) = query.get("parent_id") {
        return Ok(tx.by_index("parent", parent)?);
    }
    candidates(tx, "domain", own.or(query.get("domain_id")))
}

impl Create for Project {
    fn create(tx: &mut Tx, ask: &Ask, mut attrs: Attrs) -> ApiResult<Project> {
        let (domain_id, parent_id) = (attrs.text("domain_id")?, attrs.text("parent_id")?);
        let is_domain = attrs.flag("is_domain")?.unwrap_or(false);
        let mut project = Project { id: new_id(), enabled: true, is_domain, ..Project::default() };
        apply(&mut project, attrs)?;
        require_name(&project.name)?;
        if !is_domain {
            place(tx, &mut project, domain_id.as_deref(), parent_id.as_deref(), ask.own_domain())?;
        } else if domain_id.is_some() || parent_id.is_some() {
            return Err(ApiError::bad_request("A domain has neither a domain nor a parent."));
        }
        tx.put(&project)?;
        MarkId::scope(&project.id).touch(tx)?;
        Ok(project)
    }
}

/// Puts a new project under its parent and into its domain.
fn place(
    tx: &mut Tx,
    p: &mut Project,
    domain_id: Option<&str>,
    parent_id: Option<&str>,
    own: &str,
) -> ApiResult<()> {
    let parent = match parent_id {
        Some(id) => Project::find(tx, id)?,
        None => super::domains::find(tx, domain_id.unwrap_or(own))?,
    };
    p.domain_id = if parent.is_domain { parent.id.clone() } else { parent.domain_id.clone() };
    p.parent_id.clone_from(&parent.id);
    if domain_id.is_some_and(|d| d != p.domain_id) {
        return Err(ApiError::bad_request("The parent project is in another domain."));
    }
    if !parent.enabled {
        return Err(ApiError::forbidden("The parent is disabled."));
    }
    if effective::ancestors(tx, p)?.len() >= effective::DEPTH_MAX {
        return Err(ApiError::forbidden(format!("Projects nest {} deep at most.", effective::DEPTH_MAX)));
    }
    Ok(())
}

async fn show(ask: Ask) -> Shown {
    let shown = ask.read(|tx| {
        let project = Project::one(tx, &ask)?;
        let mut shown = project.shown(&ask.here);
        hierarchy(tx, &project, &ask.query, &ask.here, &mut shown)?;
        Ok(shown)
    })?;
    Ok(Json(json!({Project::ONE: shown})))
}

/// Adds what the query asks of the projects above and below: as lists, or as nested ids.
fn hierarchy(tx: &mut Tx, project: &Project, query: &Query, here: &Here, shown: &mut Value) -> ApiResult<()> {
    let lists = |p: &Project| p.body(here).0;
    if query.get("parents_as_list").is_some() || query.get("parents_as_ids").is_some() {
        let above = effective::ancestors(tx, project)?;
        shown["parents"] = match query.get("parents_as_list") {
            Some(_) => above.iter().map(lists).collect(),
            None => {
                let top = json!({project.domain_id.as_str(): null});
                above.iter().rev().fold(top, |inner, p| json!({p.id.as_str(): inner}))
            }
        };
    }
    if query.get("subtree_as_list").is_some() {
        let below = effective::below(tx, &Target::Project(project.id.clone()))?;
        shown["subtree"] = present::<Project>(tx, below)?.iter().map(lists).collect();
    } else if query.get("subtree_as_ids").is_some() {
        shown["subtree"] = subtree(tx, &project.id)?;
    }
    Ok(())
}

/// The projects below as nested ids; null for none. As deep as projects may nest.
fn subtree(tx: &mut Tx, id: &str) -> ApiResult<Value> {
    let children = tx.by_index::<Project>("parent", id)?;
    let mut nested = serde_json::Map::new();
    for child in &children {
        nested.insert(child.id.clone(), subtree(tx, &child.id)?);
    }
    Ok(if nested.is_empty() { Value::Null } else { Value::Object(nested) })
}

/// The body is checked before the project is looked for, as clients are used to.
async fn update(ask: Ask, Body(body): Body<Value>) -> Shown {
    ask.caller.require_admin()?;
    let attrs = Attrs::of(body, Project::ONE)?;
    let change = |tx: &mut Tx| {
        let project = Project::find(tx, &ask.id)?;
        change(tx, project, attrs.clone())
    };
    resource::changed(&ask, change).await
}

/// Changes a project or domain, and makes its tokens be looked at again.
pub fn change(tx: &mut Tx, mut project: Project, mut attrs: Attrs) -> ApiResult<Project> {
    let fixed = [("domain_id", &project.domain_id), ("parent_id", &project.parent_id)];
    for (key, now) in fixed {
        if let Some(wanted) = attrs.text(key)?
            && wanted != *now
        {
            return Err(ApiError::forbidden(format!("'{key}' cannot be changed.")));
        }
    }
    if attrs.flag("is_domain")?.is_some_and(|d| d != project.is_domain) {
        return Err(ApiError::bad_request("'is_domain' cannot be changed."));
    }
    let was_enabled = project.enabled;
    apply(&mut project, attrs)?;
    if project.is_domain {
        MarkId::all().touch(tx)?;
        if !project.enabled && project.id == cascade::DEFAULT_DOMAIN {
            return Err(ApiError::forbidden("The default domain cannot be disabled."));
        }
    } else if was_enabled && !project.enabled {
        let below = tx.by_index::<Project>("parent", &project.id)?;
        if below.iter().any(|p| p.enabled) {
            return Err(ApiError::forbidden("The project has enabled projects below it."));
        }
    }
    tx.put(&project)?;
    MarkId::scope(&project.id).touch(tx)?;
    Ok(project)
}

impl Delete for Project {
    fn delete(self, tx: &mut Tx, _: &Ask) -> ApiResult<()> {
        match self.is_domain {
            true => cascade::delete_domain(tx, &self),
            false => cascade::delete_project(tx, &self),
        }
    }
}
