//! `/projects`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use cairn_gateway::{ApiError, ApiResult, Body, Caller, Query};
use cairn_state::Tx;
use http::StatusCode;
use serde_json::{Value, json};

use super::Svc;
use super::attrs::{Attrs, SHORT_NAME_MAX};
use super::wire::{Here, Resource, fits, fits_flag, list, over};
use crate::cascade;
use crate::effective;
use crate::marks::MarkId;
use crate::model::{Project, Target, new_id};
use crate::policy;
use crate::service::Service;

pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/projects", get(index).post(create))
        .route("/projects/{id}", get(show).patch(update).delete(delete))
}

/// Attributes of a project, or of a domain as a project.
pub fn view(p: &Project) -> Value {
    let or_null = |s: &String| if s.is_empty() { Value::Null } else { s.clone().into() };
    over(
        &p.extra,
        json!({
            "id": p.id, "name": p.name, "domain_id": or_null(&p.domain_id), "parent_id": or_null(&p.parent_id),
            "is_domain": p.is_domain, "enabled": p.enabled, "description": p.description, "tags": p.tags,
            "options": p.options,
        }),
    )
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

async fn index(State(svc): Svc, caller: Caller, here: Here, query: Query) -> ApiResult<Json<Value>> {
    let own_domain = policy::listing_domain(&caller)?;
    let wants_domains = query.flag("is_domain")?.unwrap_or(false);
    let candidates = svc.store.read(|tx| candidates(tx, own_domain, wants_domains, &query))?;
    let mut found = Vec::new();
    for p in candidates {
        let fit = p.is_domain == wants_domains
            && own_domain.is_none_or(|d| p.domain_id == d || p.id == d)
            && fits(&query, "name", &p.name)
            && fits(&query, "domain_id", &p.domain_id)
            && fits(&query, "parent_id", &p.parent_id)
            && fits_flag(&query, "enabled", p.enabled)?
            && super::tags::fit(&query, &p.tags);
        if fit {
            found.push(p);
        }
    }
    list(found, &query, &here)
}

/// The fewest records that hold all that the query asks for.
fn candidates(tx: &mut Tx, own: Option<&str>, domains: bool, query: &Query) -> ApiResult<Vec<Project>> {
    if domains {
        return Ok(tx.by_index("is-domain", "true")?);
    }
    if let Some(parent) = query.get("parent_id") {
        return Ok(tx.by_index("parent", parent)?);
    }
    match own.or(query.get("domain_id")) {
        Some(domain) => Ok(tx.by_index("domain", domain)?),
        None => Ok(tx.list_unfenced()?),
    }
}

async fn create(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    Body(body): Body<Value>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    caller.require_admin()?;
    let mut attrs = Attrs::of(body, "project")?;
    let (domain_id, parent_id) = (attrs.text("domain_id")?, attrs.text("parent_id")?);
    let is_domain = attrs.flag("is_domain")?.unwrap_or(false);
    let mut project = Project { id: new_id(), enabled: true, is_domain, ..Project::default() };
    apply(&mut project, attrs)?;
    if project.name.is_empty() {
        return Err(ApiError::bad_request("'name' is required."));
    }
    // Without a domain: the token's, as Keystone does.
    let own = caller.domain_id.clone().unwrap_or(caller.project_domain_id);
    svc.store
        .transact(|tx| {
            if !is_domain {
                place(tx, &mut project, domain_id.as_deref(), parent_id.as_deref(), &own)?;
            } else if domain_id.is_some() || parent_id.is_some() {
                return Err(ApiError::bad_request("A domain has neither a domain nor a parent."));
            }
            tx.put(&project)?;
            MarkId::scope(&project.id).touch(tx)
        })
        .await?;
    Ok((StatusCode::CREATED, project.body(&here)))
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

async fn show(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    query: Query,
    Path(id): Path<String>,
) -> ApiResult<Json<Value>> {
    let shown = svc.store.read(|tx| {
        let project = Project::find(tx, &id)?;
        if caller.project_id != id && policy::require_domain_reader(&caller, &project.domain_id).is_err() {
            let has_role = effective::targets(tx, &caller.user_id)?.contains(&Target::Project(id.clone()));
            if !has_role {
                return Err(ApiError::forbidden("You are not authorized to see this project."));
            }
        }
        let mut shown = project.shown(&here);
        hierarchy(tx, &project, &query, &here, &mut shown)?;
        Ok::<_, ApiError>(shown)
    })?;
    Ok(Json(json!({"project": shown})))
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
        let mut below = Vec::new();
        for id in effective::below(tx, &Target::Project(project.id.clone()))? {
            below.extend(tx.get::<Project>(&id)?);
        }
        shown["subtree"] = below.iter().map(lists).collect();
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

async fn update(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let body_of = |body: &Value| Attrs::of(body.clone(), "project");
    body_of(&body)?;
    let project = svc.store.transact(|tx| change(tx, &id, body_of(&body)?)).await?;
    Ok(project.body(&here))
}

/// Changes a project or domain, and makes its tokens be looked at again.
pub fn change(tx: &mut Tx, id: &str, mut attrs: Attrs) -> ApiResult<Project> {
    let mut project = Project::find(tx, id)?;
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
        let below = tx.by_index::<Project>("parent", id)?;
        if below.iter().any(|p| p.enabled) {
            return Err(ApiError::forbidden("The project has enabled projects below it."));
        }
    }
    tx.put(&project)?;
    MarkId::scope(id).touch(tx)?;
    Ok(project)
}

async fn delete(State(svc): Svc, caller: Caller, Path(id): Path<String>) -> ApiResult<StatusCode> {
    caller.require_admin()?;
    svc.store
        .transact(|tx| {
            let project = Project::find(tx, &id)?;
            match project.is_domain {
                true => cascade::delete_domain(tx, &project),
                false => cascade::delete_project(tx, &project),
            }
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
