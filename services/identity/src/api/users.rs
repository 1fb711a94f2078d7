//! `/users`, their passwords, projects and groups.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use cairn_gateway::{ApiError, ApiResult, Body};
use cairn_state::Tx;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Svc;
use super::ask::Ask;
use super::attrs::{Attrs, NAME_MAX, require_name};
use super::resource::{self, Delete, Made, Managed, Shown};
use super::wire::{Resource, candidates, fits, fits_flag, fitting, list, over, present};
use crate::cascade;
use crate::clock;
use crate::marks::MarkId;
use crate::model::{Group, Membership, User, new_id};
use crate::policy;
use crate::service::Service;

pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/users", get(resource::list::<User>).post(create))
        .route("/users/{id}", get(resource::show::<User>).patch(update).delete(resource::delete::<User>))
        .route("/users/{id}/password", post(change_password))
        .route("/users/{id}/projects", get(projects))
        .route("/users/{id}/groups", get(groups))
}

impl Resource for User {
    const ONE: &'static str = "user";
    const MANY: &'static str = "users";

    fn path(&self) -> String {
        format!("users/{}", self.id)
    }

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

impl Managed for User {
    fn all(tx: &mut Tx, ask: &Ask) -> ApiResult<Vec<User>> {
        let query = &ask.query;
        let domain = policy::listing_domain(&ask.caller)?.or(query.get("domain_id"));
        fitting(candidates(tx, "domain", domain)?, |u: &User| {
            let fit = fits(query, "name", &u.name) && fits(query, "domain_id", &u.domain_id);
            Ok(fit && fits_flag(query, "enabled", u.enabled)?)
        })
    }

    fn one(tx: &mut Tx, ask: &Ask) -> ApiResult<User> {
        let is_self = policy::require_self(&ask.caller, &ask.id);
        match User::find(tx, &ask.id) {
            Ok(user) => {
                is_self.or_else(|_| policy::require_domain_reader(&ask.caller, &user.domain_id))?;
                Ok(user)
            }
            // Who may not see users does not learn which there are.
            Err(e) => is_self.and(Err(e)),
        }
    }
}

impl Delete for User {
    fn delete(self, tx: &mut Tx, _: &Ask) -> ApiResult<()> {
        cascade::delete_user(tx, &self)
    }
}

/// What a body says of a user, but for the password: of that its hash, if there is one to be set.
async fn read(ask: &Ask, body: Value) -> ApiResult<(Attrs, Option<String>)> {
    ask.caller.require_admin()?;
    let mut attrs = Attrs::of(body, User::ONE)?;
    // What only the server sets is not taken from clients.
    attrs.value("password_expires_at");
    let hash = match attrs.text("password")? {
        None => None,
        Some(p) if p.is_empty() => return Err(ApiError::bad_request("A password cannot be empty.")),
        Some(p) => Some(ask.svc.passwords.hash(&p).await?),
    };
    Ok((attrs, hash))
}

/// Takes the attributes that can be changed.
fn apply(user: &mut User, mut attrs: Attrs) -> ApiResult<()> {
    attrs.set_name(&mut user.name, NAME_MAX)?;
    attrs.set_flag("enabled", &mut user.enabled)?;
    attrs.set_optional("default_project_id", &mut user.default_project_id)?;
    attrs.set_options(&mut user.options)?;
    attrs.set_extra(&mut user.extra)
}

async fn create(ask: Ask, Body(body): Body<Value>) -> Made {
    let (mut attrs, password) = read(&ask, body).await?;
    let domain_id = ask.domain_for(&mut attrs)?;
    let mut user = User { id: new_id(), enabled: true, domain_id, password, ..User::default() };
    apply(&mut user, attrs)?;
    require_name(&user.name)?;
    let make = |tx: &mut Tx| {
        super::domains::find(tx, &user.domain_id)?;
        tx.put(&user)?;
        MarkId::user(&user.id).touch(tx)?;
        Ok(user.clone())
    };
    resource::made(&ask, make).await
}

async fn update(ask: Ask, Body(body): Body<Value>) -> Shown {
    let (attrs, password) = read(&ask, body).await?;
    let change = |tx: &mut Tx| {
        let mut user = User::find(tx, &ask.id)?;
        let mut attrs = attrs.clone();
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
        MarkId::user(&ask.id).touch(tx)?;
        Ok(user)
    };
    resource::changed(&ask, change).await
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

async fn projects(ask: Ask) -> Shown {
    policy::require_self(&ask.caller, &ask.id)?;
    let projects = ask.read(|tx| {
        User::find(tx, &ask.id)?;
        super::auth::projects_of(tx, &ask.id)
    })?;
    list(&projects, &ask.query, &ask.here)
}

async fn groups(ask: Ask) -> Shown {
    policy::require_self(&ask.caller, &ask.id)?;
    let mut groups = ask.read(|tx| {
        User::find(tx, &ask.id)?;
        let memberships = tx.by_index::<Membership>("user", &ask.id)?;
        present::<Group>(tx, memberships.iter().map(|m| &m.group_id))
    })?;
    groups.retain(|g| fits(&ask.query, "name", &g.name));
    list(&groups, &ask.query, &ask.here)
}
