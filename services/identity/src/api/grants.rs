//! Giving and taking roles: `/{projects,domains,system}/.../{users,groups}/.../roles/...`, and the same below
//! `/OS-INHERIT` with `inherited_to_projects`.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::routing::{MethodRouter, put};
use cairn_gateway::{ApiError, ApiResult};
use cairn_state::{Record, Tx};
use http::StatusCode;

use super::ask::Ask;
use super::resource::Shown;
use super::wire::{Resource, list, present};
use crate::cascade;
use crate::model::{Actor, Assignment, Group, Project, Role, Target, User};
use crate::policy;
use crate::service::Service;

pub fn routes() -> Router<Arc<Service>> {
    let mut router = Router::new();
    for actor in ["users", "groups"] {
        for target in ["/projects/{id}", "/domains/{id}", "/system"] {
            let place = format!("{target}/{actor}/{{actor}}/roles");
            router =
                router.route(&place, axum::routing::get(index)).route(&format!("{place}/{{role}}"), one());
        }
        for target in ["/projects/{id}", "/domains/{id}"] {
            let place = format!("/OS-INHERIT{target}/{actor}/{{actor}}/roles");
            router = router
                .route(&format!("{place}/inherited_to_projects"), axum::routing::get(index))
                .route(&format!("{place}/{{role}}/inherited_to_projects"), one());
        }
    }
    router
}

fn one() -> MethodRouter<Arc<Service>> {
    put(grant).get(check).delete(revoke)
}

/// What a path names.
#[derive(Debug, Clone, PartialEq)]
struct Grant {
    actor: Actor,
    target: Target,
    role_id: Option<String>,
    inherited: bool,
}

/// Reads the path below `/v3`; `None` if it names no grant.
fn parse(path: &str) -> Option<Grant> {
    let mut elements: Vec<&str> = path.split('/').filter(|e| !e.is_empty()).collect();
    let inherited = elements.first() == Some(&"OS-INHERIT");
    if inherited {
        elements.remove(0);
        (elements.pop()? == "inherited_to_projects").then_some(())?;
    }
    let (target, rest) = match elements.as_slice() {
        ["projects", id, rest @ ..] => (Target::Project((*id).to_owned()), rest),
        ["domains", id, rest @ ..] => (Target::Domain((*id).to_owned()), rest),
        ["system", rest @ ..] => (Target::System, rest),
        _ => return None,
    };
    let (actor, role_id) = match rest {
        ["users", id, "roles", role @ ..] => (Actor::User((*id).to_owned()), role),
        ["groups", id, "roles", role @ ..] => (Actor::Group((*id).to_owned()), role),
        _ => return None,
    };
    Some(Grant { actor, target, role_id: role_id.first().map(|r| (*r).to_owned()), inherited })
}

impl Grant {
    fn of(request: &Request) -> ApiResult<Grant> {
        let missing = || ApiError::new(StatusCode::NOT_FOUND, "The resource could not be found.");
        parse(request.uri().path()).ok_or_else(missing)
    }

    /// The assignment, if actor, target and role exist; 404 for the one that does not.
    fn assignment(self, tx: &mut Tx) -> ApiResult<Assignment> {
        exists(tx, &self.actor, &self.target)?;
        let role_id = self.role_id.unwrap_or_default();
        Role::find(tx, &role_id)?;
        Ok(Assignment { actor: self.actor, target: self.target, role_id, inherited: self.inherited })
    }
}

fn exists(tx: &mut Tx, actor: &Actor, target: &Target) -> ApiResult<()> {
    match actor {
        Actor::User(id) => drop(User::find(tx, id)?),
        Actor::Group(id) => drop(Group::find(tx, id)?),
    }
    match target {
        Target::Project(id) => drop(Project::find(tx, id)?),
        Target::Domain(id) => drop(super::domains::find(tx, id)?),
        Target::System => {}
    }
    Ok(())
}

async fn index(ask: Ask, request: Request) -> Shown {
    policy::listing_domain(&ask.caller)?;
    let grant = Grant::of(&request)?;
    if let Target::Domain(id) = &grant.target {
        policy::require_domain_reader(&ask.caller, id)?;
    } else {
        ask.caller.require_admin()?;
    }
    let roles = ask.read(|tx| {
        exists(tx, &grant.actor, &grant.target)?;
        let pair = Assignment::pair(&grant.actor, &grant.target);
        let mut held = tx.by_index::<Assignment>("pair", &pair)?;
        held.retain(|a| a.inherited == grant.inherited);
        present::<Role>(tx, held.iter().map(|a| &a.role_id))
    })?;
    list(&roles, &ask.query, &ask.here)
}

async fn grant(ask: Ask, request: Request) -> ApiResult<StatusCode> {
    ask.caller.require_admin()?;
    let grant = Grant::of(&request)?;
    ask.done(|tx| {
        let assignment = grant.clone().assignment(tx)?;
        refuse_foreign(tx, &assignment)?;
        tx.put(&assignment)?;
        cascade::touch_for(tx, &assignment)
    })
    .await
}

/// A domain's own role is good in that domain only.
fn refuse_foreign(tx: &mut Tx, assignment: &Assignment) -> ApiResult<()> {
    let Some(domain) = Role::find(tx, &assignment.role_id)?.domain_id else { return Ok(()) };
    let place = match &assignment.target {
        Target::Project(id) => Project::find(tx, id)?.domain_id,
        Target::Domain(id) => id.clone(),
        Target::System => String::new(),
    };
    match place == domain {
        true => Ok(()),
        false => Err(ApiError::forbidden("The role belongs to another domain.")),
    }
}

async fn check(ask: Ask, request: Request) -> ApiResult<StatusCode> {
    ask.caller.require_admin()?;
    let grant = Grant::of(&request)?;
    ask.read(|tx| held(tx, grant))?;
    Ok(StatusCode::NO_CONTENT)
}

async fn revoke(ask: Ask, request: Request) -> ApiResult<StatusCode> {
    ask.caller.require_admin()?;
    let grant = Grant::of(&request)?;
    ask.done(|tx| {
        let assignment = held(tx, grant.clone())?;
        cascade::delete_assignment(tx, &assignment)
    })
    .await
}

/// The assignment as it is stored; 404 if there is none.
fn held(tx: &mut Tx, grant: Grant) -> ApiResult<Assignment> {
    let wanted = grant.assignment(tx)?;
    let missing = || ApiError::not_found("The role assignment", &wanted.role_id);
    tx.get::<Assignment>(&wanted.id())?.ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_grants() {
        let grant = |actor, target, role: Option<&str>, inherited| {
            Some(Grant { actor, target, role_id: role.map(str::to_owned), inherited })
        };
        let (user, group) = (Actor::User("u".into()), Actor::Group("g".into()));
        assert_eq!(
            parse("/projects/p/users/u/roles/r"),
            grant(user.clone(), Target::Project("p".into()), Some("r"), false)
        );
        assert_eq!(parse("/system/groups/g/roles/"), grant(group.clone(), Target::System, None, false));
        assert_eq!(
            parse("/OS-INHERIT/domains/d/users/u/roles/inherited_to_projects"),
            grant(user, Target::Domain("d".into()), None, true)
        );
        assert_eq!(
            parse("/OS-INHERIT/projects/p/groups/g/roles/r/inherited_to_projects"),
            grant(group, Target::Project("p".into()), Some("r"), true)
        );
        assert_eq!(parse("/projects/p/tags/t"), None);
    }
}
