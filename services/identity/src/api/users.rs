//! `/users`, their passwords, projects and groups.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use cairn_gateway::{ApiError, ApiResult, Body, Caller, Query};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Svc;
use super::attrs::{Attrs, NAME_MAX};
use super::wire::{Here, Resource, fits, fits_flag, list, over};
use crate::cascade;
use crate::clock;
use crate::marks::MarkId;
use crate::model::{Group, Membership, User, new_id};
use crate::policy;
use crate::service::Service;

pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/users", get(index).post(create))
        .route("/users/{id}", get(show).patch(update).delete(delete))
        .route("/users/{id}/password", post(change_password))
        .route("/users/{id}/projects", get(projects))
        .route("/users/{id}/groups", get(groups))
}

impl Resource for User {
    const ONE: &'static str = "user";
    const MANY: &'static str = "users";

    fn view(&self) -> Value {
        let mut view = over(
            &self.extra,
            json!({
                "id": self.id, "name": self.name, "domain_id": self.domain_id, "enabled": self.enabled,
                "options": self.options, "password_expires_at": null,
            }),
        );
        if let Some(project) = &self.default_project_id {
            view["default_project_id"] = project.as_str().into();
        }
        view
    }
}

/// Takes the attributes that can be changed, and gives back the password if there is one to be set.
fn apply(user: &mut User, mut attrs: Attrs) -> ApiResult<()> {
    attrs.set_name(&mut user.name, NAME_MAX)?;
    attrs.set_flag("enabled", &mut user.enabled)?;
    attrs.set_optional("default_project_id", &mut user.default_project_id)?;
    attrs.set_options(&mut user.options)?;
    attrs.set_extra(&mut user.extra)
}

/// The hash of the password in a body, if there is one. The body keeps no password.
async fn hash_of(svc: &Service, attrs: &mut Attrs) -> ApiResult<Option<String>> {
    // What only the server sets is not taken from clients.
    attrs.value("password_expires_at");
    match attrs.text("password")? {
        None => Ok(None),
        Some(p) if p.is_empty() => Err(ApiError::bad_request("A password cannot be empty.")),
        Some(p) => svc.passwords.hash(&p).await.map(Some),
    }
}

async fn index(State(svc): Svc, caller: Caller, here: Here, query: Query) -> ApiResult<Json<Value>> {
    let own = policy::listing_domain(&caller)?;
    let users = svc.store.read(|tx| {
        Ok::<_, ApiError>(match own.or(query.get("domain_id")) {
            Some(domain) => tx.by_index::<User>("domain", domain)?,
            None => tx.list_unfenced::<User>()?,
        })
    })?;
    let mut found = Vec::new();
    for user in users {
        let fit = fits(&query, "name", &user.name) && fits(&query, "domain_id", &user.domain_id);
        if fit && fits_flag(&query, "enabled", user.enabled)? {
            found.push(user);
        }
    }
    list(found, &query, &here)
}

async fn create(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    Body(body): Body<Value>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    caller.require_admin()?;
    let mut attrs = Attrs::of(body, "user")?;
    let password = hash_of(&svc, &mut attrs).await?;
    let own = caller.domain_id.clone().unwrap_or(caller.project_domain_id);
    let domain_id = attrs.text("domain_id")?.unwrap_or(own);
    let mut user = User { id: new_id(), enabled: true, domain_id, password, ..User::default() };
    apply(&mut user, attrs)?;
    if user.name.is_empty() {
        return Err(ApiError::bad_request("'name' is required."));
    }
    svc.store
        .transact(|tx| {
            super::domains::find(tx, &user.domain_id)?;
            tx.put(&user)?;
            MarkId::user(&user.id).touch(tx)
        })
        .await?;
    Ok((StatusCode::CREATED, user.body(&here)))
}

async fn show(State(svc): Svc, caller: Caller, here: Here, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    let user = svc.store.read(|tx| User::find(tx, &id));
    match user {
        Ok(user) => {
            policy::require_self(&caller, &id)
                .or_else(|_| policy::require_domain_reader(&caller, &user.domain_id))?;
            Ok(user.body(&here))
        }
        // Who may not see users does not learn which there are.
        Err(e) => policy::require_self(&caller, &id).and(Err(e)),
    }
}

async fn update(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let mut body = body;
    let password = {
        let mut attrs = Attrs::of(json!({"user": body["user"]}), "user")?;
        hash_of(&svc, &mut attrs).await?
    };
    if let Some(user) = body["user"].as_object_mut() {
        user.remove("password");
        user.remove("password_expires_at");
    }
    let user = svc
        .store
        .transact(|tx| {
            let mut user = User::find(tx, &id)?;
            let mut attrs = Attrs::of(body.clone(), "user")?;
            if attrs.text("domain_id")?.is_some_and(|d| d != user.domain_id) {
                return Err(ApiError::bad_request("A user's domain cannot be changed."));
            }
            let was_enabled = user.enabled;
            apply(&mut user, attrs)?;
            if password.is_some() {
                user.password.clone_from(&password);
            }
            if password.is_some() || (was_enabled && !user.enabled) {
                user.tokens_after_us = clock::now_us();
            }
            tx.put(&user)?;
            MarkId::user(&id).touch(tx)?;
            Ok(user)
        })
        .await?;
    Ok(user.body(&here))
}

async fn delete(State(svc): Svc, caller: Caller, Path(id): Path<String>) -> ApiResult<StatusCode> {
    caller.require_admin()?;
    svc.store
        .transact(|tx| {
            let user = User::find(tx, &id)?;
            cascade::delete_user(tx, &user)
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct PasswordChange {
    user: Passwords,
}

#[derive(Deserialize)]
struct Passwords {
    original_password: String,
    password: String,
}

/// A user's own change: the old password is the proof, no token is needed. All the user's tokens end.
async fn change_password(
    State(svc): Svc,
    Path(id): Path<String>,
    Body(body): Body<PasswordChange>,
) -> ApiResult<StatusCode> {
    let subject = format!("{id}@password");
    if body.user.password.is_empty() {
        return Err(ApiError::bad_request("A password cannot be empty."));
    }
    if svc.throttle.is_locked(&subject) {
        return Err(ApiError::unauthorized());
    }
    let user = svc.store.read(|tx| Ok::<_, ApiError>(tx.get::<User>(&id)?))?.filter(|u| u.enabled);
    let old = user.as_ref().and_then(|u| u.password.clone());
    if !svc.passwords.verify(&body.user.original_password, old.as_deref()).await? {
        svc.throttle.failed(&subject);
        return Err(ApiError::unauthorized());
    }
    svc.throttle.succeeded(&subject);
    if body.user.password == body.user.original_password {
        return Err(ApiError::bad_request("The new password must differ from the old one."));
    }
    let new = svc.passwords.hash(&body.user.password).await?;
    svc.store
        .transact(|tx| {
            let mut user = User::find(tx, &id)?;
            if user.password != old {
                return Err(ApiError::conflict("The password was changed meanwhile."));
            }
            user.password = Some(new.clone());
            user.tokens_after_us = clock::now_us();
            tx.put(&user)?;
            MarkId::user(&id).touch(tx)
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn projects(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    query: Query,
    Path(id): Path<String>,
) -> ApiResult<Json<Value>> {
    policy::require_self(&caller, &id)?;
    let projects = svc.store.read(|tx| {
        User::find(tx, &id)?;
        super::auth::projects_of(tx, &id)
    })?;
    list(projects, &query, &here)
}

async fn groups(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    query: Query,
    Path(id): Path<String>,
) -> ApiResult<Json<Value>> {
    policy::require_self(&caller, &id)?;
    let groups = svc.store.read(|tx| {
        User::find(tx, &id)?;
        let mut groups = Vec::new();
        for membership in tx.by_index::<Membership>("user", &id)? {
            groups.extend(tx.get::<Group>(&membership.group_id)?);
        }
        Ok::<_, ApiError>(groups)
    })?;
    list(groups.into_iter().filter(|g| fits(&query, "name", &g.name)).collect(), &query, &here)
}
