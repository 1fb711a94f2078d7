//! `/groups` and their members.

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, put};
use cairn_gateway::{ApiError, ApiResult};
use cairn_state::{Record, Tx};
use http::StatusCode;
use serde_json::{Value, json};

use super::ask::Ask;
use super::attrs::{Attrs, SHORT_NAME_MAX, require_name};
use super::resource::{self, Create, Delete, Managed, Shown, Update};
use super::wire::{Resource, candidates, fits, fits_flag, fitting, list, over, present};
use crate::cascade;
use crate::marks::MarkId;
use crate::model::{Group, Membership, User, new_id};
use crate::policy;
use crate::service::Service;

pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/groups", resource::many::<Group>())
        .route("/groups/{id}", resource::each::<Group>())
        .route("/groups/{id}/users", get(members))
        .route("/groups/{id}/users/{part}", put(add).get(check).delete(remove))
}

impl Resource for Group {
    const ONE: &'static str = "group";
    const MANY: &'static str = "groups";

    fn path(&self) -> String {
        format!("groups/{}", self.id)
    }

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

impl Managed for Group {
    fn all(tx: &mut Tx, ask: &Ask) -> ApiResult<Vec<Group>> {
        let domain = policy::listing_domain(&ask.caller)?.or(ask.query.get("domain_id"));
        let mut all = candidates::<Group>(tx, "domain", domain)?;
        all.retain(|g| fits(&ask.query, "name", &g.name) && fits(&ask.query, "domain_id", &g.domain_id));
        Ok(all)
    }

    fn one(tx: &mut Tx, ask: &Ask) -> ApiResult<Group> {
        policy::listing_domain(&ask.caller)?;
        let group = Group::find(tx, &ask.id)?;
        policy::require_domain_reader(&ask.caller, &group.domain_id)?;
        Ok(group)
    }
}

impl Create for Group {
    fn create(tx: &mut Tx, ask: &Ask, mut attrs: Attrs) -> ApiResult<Group> {
        let domain_id = ask.domain_for(&mut attrs)?;
        let mut group = Group { id: new_id(), domain_id, ..Group::default() };
        apply(&mut group, attrs)?;
        require_name(&group.name)?;
        super::domains::find(tx, &group.domain_id)?;
        tx.put(&group)?;
        Ok(group)
    }
}

impl Update for Group {
    fn update(mut self, tx: &mut Tx, _: &Ask, mut attrs: Attrs) -> ApiResult<Group> {
        if attrs.text("domain_id")?.is_some_and(|d| d != self.domain_id) {
            return Err(ApiError::bad_request("A group's domain cannot be changed."));
        }
        apply(&mut self, attrs)?;
        tx.put(&self)?;
        Ok(self)
    }
}

impl Delete for Group {
    fn delete(self, tx: &mut Tx, _: &Ask) -> ApiResult<()> {
        cascade::delete_group(tx, &self)
    }
}

async fn members(ask: Ask) -> Shown {
    let users = ask.read(|tx| {
        let group = Group::one(tx, &ask)?;
        let members = tx.by_index::<Membership>("group", &group.id)?;
        present::<User>(tx, members.iter().map(|m| &m.user_id))
    })?;
    let fit =
        |u: &User| Ok(fits(&ask.query, "name", &u.name) && fits_flag(&ask.query, "enabled", u.enabled)?);
    list(&fitting(users, fit)?, &ask.query, &ask.here)
}

async fn add(ask: Ask) -> ApiResult<StatusCode> {
    ask.caller.require_admin()?;
    ask.done(|tx| {
        let (group, user) = both(tx, &ask)?;
        tx.put(&Membership { group_id: group.id, user_id: user.id })?;
        MarkId::user(&ask.part).touch(tx)
    })
    .await
}

async fn check(ask: Ask) -> ApiResult<StatusCode> {
    policy::require_self(&ask.caller, &ask.part)?;
    ask.read(|tx| member(tx, &ask))?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove(ask: Ask) -> ApiResult<StatusCode> {
    ask.caller.require_admin()?;
    ask.done(|tx| {
        let membership = member(tx, &ask)?;
        tx.delete::<Membership>(&membership.id())?;
        MarkId::user(&ask.part).touch(tx)
    })
    .await
}

/// The group and the user that the path names; 404 for the one that is not there.
fn both(tx: &mut Tx, ask: &Ask) -> ApiResult<(Group, User)> {
    Ok((Group::find(tx, &ask.id)?, User::find(tx, &ask.part)?))
}

/// The membership; 404 for the group, the user, or the membership itself.
fn member(tx: &mut Tx, ask: &Ask) -> ApiResult<Membership> {
    both(tx, ask)?;
    let id = format!("{}/{}", ask.id, ask.part);
    tx.get::<Membership>(&id)?.ok_or_else(|| ApiError::not_found("The user in the group", &id))
}
