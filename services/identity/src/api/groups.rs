//! `/groups` and their members.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::{get, put};
use axum::{Json, Router};
use cairn_gateway::{ApiError, ApiResult, Body, Caller, Query};
use cairn_state::Record;
use http::StatusCode;
use serde_json::{Value, json};

use super::Svc;
use super::attrs::{Attrs, SHORT_NAME_MAX};
use super::wire::{Here, Resource, fits, fits_flag, list, over};
use crate::cascade;
use crate::marks::MarkId;
use crate::model::{Group, Membership, User, new_id};
use crate::policy;
use crate::service::Service;

pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/groups", get(index).post(create))
        .route("/groups/{id}", get(show).patch(update).delete(delete))
        .route("/groups/{id}/users", get(members))
        .route("/groups/{id}/users/{user}", put(add).get(check).delete(remove))
}

impl Resource for Group {
    const ONE: &'static str = "group";
    const MANY: &'static str = "groups";

    fn view(&self) -> Value {
        over(
            &self.extra,
            json!({
                "id": self.id, "name": self.name, "domain_id": self.domain_id, "description": self.description,
            }),
        )
    }
}

fn apply(group: &mut Group, mut attrs: Attrs) -> ApiResult<()> {
    attrs.set_name(&mut group.name, SHORT_NAME_MAX)?;
    attrs.set_text("description", &mut group.description)?;
    attrs.set_extra(&mut group.extra)
}

async fn index(State(svc): Svc, caller: Caller, here: Here, query: Query) -> ApiResult<Json<Value>> {
    let own = policy::listing_domain(&caller)?;
    let groups = svc.store.read(|tx| {
        Ok::<_, ApiError>(match own.or(query.get("domain_id")) {
            Some(domain) => tx.by_index::<Group>("domain", domain)?,
            None => tx.list_unfenced::<Group>()?,
        })
    })?;
    let fit = |g: &Group| fits(&query, "name", &g.name) && fits(&query, "domain_id", &g.domain_id);
    list(groups.into_iter().filter(fit).collect(), &query, &here)
}

async fn create(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    Body(body): Body<Value>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    caller.require_admin()?;
    let mut attrs = Attrs::of(body, "group")?;
    let own = caller.domain_id.clone().unwrap_or(caller.project_domain_id);
    let domain_id = attrs.text("domain_id")?.unwrap_or(own);
    let mut group = Group { id: new_id(), domain_id, ..Group::default() };
    apply(&mut group, attrs)?;
    if group.name.is_empty() {
        return Err(ApiError::bad_request("'name' is required."));
    }
    svc.store
        .transact(|tx| {
            super::domains::find(tx, &group.domain_id)?;
            Ok::<_, ApiError>(tx.put(&group)?)
        })
        .await?;
    Ok((StatusCode::CREATED, group.body(&here)))
}

async fn show(State(svc): Svc, caller: Caller, here: Here, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    policy::listing_domain(&caller)?;
    let group = svc.store.read(|tx| Group::find(tx, &id))?;
    policy::require_domain_reader(&caller, &group.domain_id)?;
    Ok(group.body(&here))
}

async fn update(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let group = svc
        .store
        .transact(|tx| {
            let mut group = Group::find(tx, &id)?;
            let mut attrs = Attrs::of(body.clone(), "group")?;
            if attrs.text("domain_id")?.is_some_and(|d| d != group.domain_id) {
                return Err(ApiError::bad_request("A group's domain cannot be changed."));
            }
            apply(&mut group, attrs)?;
            tx.put(&group)?;
            Ok::<_, ApiError>(group)
        })
        .await?;
    Ok(group.body(&here))
}

async fn delete(State(svc): Svc, caller: Caller, Path(id): Path<String>) -> ApiResult<StatusCode> {
    caller.require_admin()?;
    svc.store
        .transact(|tx| {
            let group = Group::find(tx, &id)?;
            cascade::delete_group(tx, &group)
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn members(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    query: Query,
    Path(id): Path<String>,
) -> ApiResult<Json<Value>> {
    policy::listing_domain(&caller)?;
    let (group, users) = svc.store.read(|tx| {
        let group = Group::find(tx, &id)?;
        let mut users = Vec::new();
        for membership in tx.by_index::<Membership>("group", &id)? {
            users.extend(tx.get::<User>(&membership.user_id)?);
        }
        Ok::<_, ApiError>((group, users))
    })?;
    policy::require_domain_reader(&caller, &group.domain_id)?;
    let mut found = Vec::new();
    for user in users.into_iter().filter(|u| fits(&query, "name", &u.name)) {
        if fits_flag(&query, "enabled", user.enabled)? {
            found.push(user);
        }
    }
    list(found, &query, &here)
}

async fn add(
    State(svc): Svc,
    caller: Caller,
    Path((group, user)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    caller.require_admin()?;
    svc.store
        .transact(|tx| {
            Group::find(tx, &group)?;
            User::find(tx, &user)?;
            tx.put(&Membership { group_id: group.clone(), user_id: user.clone() })?;
            MarkId::user(&user).touch(tx)
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn check(
    State(svc): Svc,
    caller: Caller,
    Path((group, user)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    policy::require_self(&caller, &user)?;
    svc.store.read(|tx| member(tx, &group, &user))?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove(
    State(svc): Svc,
    caller: Caller,
    Path((group, user)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    caller.require_admin()?;
    svc.store
        .transact(|tx| {
            let membership = member(tx, &group, &user)?;
            tx.delete::<Membership>(&membership.id())?;
            MarkId::user(&user).touch(tx)
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The membership; 404 for the group, the user, or the membership itself.
fn member(tx: &mut cairn_state::Tx, group: &str, user: &str) -> ApiResult<Membership> {
    Group::find(tx, group)?;
    User::find(tx, user)?;
    let id = format!("{group}/{user}");
    tx.get::<Membership>(&id)?.ok_or_else(|| ApiError::not_found("The user in the group", &id))
}
