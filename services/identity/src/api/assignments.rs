//! `/role_assignments`: who has which role where, as stored or as it takes effect.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use cairn_gateway::{ApiError, ApiResult, Query};
use cairn_state::Tx;
use serde_json::{Value, json};

use super::ask::Ask;
use super::resource::Shown;
use super::wire::{Here, whole};
use crate::effective;
use crate::model::{Actor, Assignment, Group, Membership, Project, Role, Target, User};
use crate::policy;
use crate::service::Service;

pub fn routes() -> Router<Arc<Service>> {
    Router::new().route("/role_assignments", get(index))
}

/// What the query asks for.
struct Filter {
    actor: Option<Actor>,
    role_id: Option<String>,
    targets: Option<BTreeSet<Target>>,
    inherited: Option<bool>,
    effective: bool,
}

/// Given without a value, a flag of this API means true.
fn flag(query: &Query, key: &str) -> ApiResult<bool> {
    match query.get(key) {
        Some("") => Ok(true),
        _ => Ok(query.flag(key)?.unwrap_or(false)),
    }
}

impl Filter {
    fn of(tx: &mut Tx, query: &Query) -> ApiResult<Filter> {
        let user = query.get("user.id").map(|id| Actor::User(id.to_owned()));
        let group = query.get("group.id").map(|id| Actor::Group(id.to_owned()));
        let effective = flag(query, "effective")?;
        if user.is_some() && group.is_some() || effective && group.is_some() {
            return Err(ApiError::bad_request("A group cannot be asked for beside a user or 'effective'."));
        }
        let project = query.get("scope.project.id").map(|id| Target::Project(id.to_owned()));
        let domain = query.get("scope.domain.id").map(|id| Target::Domain(id.to_owned()));
        let system = query.get("scope.system").map(|_| Target::System);
        let mut targets: Option<BTreeSet<Target>> = project.clone().or(domain).or(system).map(|t| [t].into());
        if let (true, Some(project), Some(all)) = (flag(query, "include_subtree")?, project, &mut targets) {
            all.extend(effective::below(tx, &project)?.into_iter().map(Target::Project));
        }
        let inherited = query.get("scope.OS-INHERIT:inherited_to").map(|to| to == "projects");
        let role_id = query.get("role.id").map(str::to_owned);
        Ok(Filter { actor: user.or(group), role_id, targets, inherited, effective })
    }

    /// The fewest assignments that hold all that is asked for.
    fn candidates(&self, tx: &mut Tx) -> ApiResult<Vec<Assignment>> {
        let mut found = Vec::new();
        match (&self.actor, &self.targets, &self.role_id, self.effective) {
            (Some(Actor::User(id)), _, _, true) => {
                for actor in effective::actors(tx, id)? {
                    found.extend(tx.by_index::<Assignment>("actor", &actor.key())?);
                }
            }
            (Some(actor), ..) => found = tx.by_index("actor", &actor.key())?,
            (None, _, _, true) => found = tx.list_unfenced()?,
            (None, Some(targets), _, false) => {
                for target in targets {
                    found.extend(tx.by_index::<Assignment>("target", &target.key())?);
                }
            }
            (None, None, Some(role), false) => found = tx.by_index("role", role)?,
            (None, None, None, false) => found = tx.list_unfenced()?,
        }
        Ok(found)
    }

    fn fits(&self, a: &Assignment) -> bool {
        self.actor.as_ref().is_none_or(|actor| *actor == a.actor)
            && self.role_id.as_ref().is_none_or(|role| *role == a.role_id)
            && self.targets.as_ref().is_none_or(|targets| targets.contains(&a.target))
            && (self.effective || self.inherited.is_none_or(|i| i == a.inherited))
    }
}

async fn index(ask: Ask) -> Shown {
    let own = policy::listing_domain(&ask.caller)?;
    let with_names = flag(&ask.query, "include_names")?;
    let shown = ask.read(|tx| {
        let filter = Filter::of(tx, &ask.query)?;
        let mut all = filter.candidates(tx)?;
        if filter.effective {
            all = expand(tx, all)?;
        }
        all.retain(|a| filter.fits(a));
        let mut names = Names::default();
        let mut shown = Vec::new();
        for assignment in all {
            if own.is_none() || is_in(tx, &assignment.target, own)? {
                shown.push(view(tx, &assignment, &ask.here, with_names, &mut names)?);
            }
        }
        Ok(shown)
    })?;
    Ok(whole("role_assignments", shown.into(), &ask.here))
}

fn is_in(tx: &mut Tx, target: &Target, domain: Option<&str>) -> ApiResult<bool> {
    Ok(match target {
        Target::Domain(id) => Some(id.as_str()) == domain,
        Target::Project(id) => tx.get::<Project>(id)?.is_some_and(|p| Some(p.domain_id.as_str()) == domain),
        Target::System => false,
    })
}

/// What assignments come to: groups as their members, inherited ones as the projects below, roles with those they
/// imply.
fn expand(tx: &mut Tx, stored: Vec<Assignment>) -> ApiResult<Vec<Assignment>> {
    let mut all = BTreeSet::new();
    for assignment in stored {
        let actors = match &assignment.actor {
            Actor::User(_) => vec![assignment.actor.clone()],
            Actor::Group(id) => {
                let members = tx.by_index::<Membership>("group", id)?;
                members.into_iter().map(|m| Actor::User(m.user_id)).collect()
            }
        };
        let targets: Vec<Target> = match assignment.inherited {
            false => vec![assignment.target.clone()],
            true => effective::below(tx, &assignment.target)?.into_iter().map(Target::Project).collect(),
        };
        let roles = effective::implied(tx, [assignment.role_id.clone()].into())?;
        for actor in &actors {
            for target in &targets {
                all.extend(roles.iter().map(|role_id| Assignment {
                    actor: actor.clone(),
                    target: target.clone(),
                    role_id: role_id.clone(),
                    inherited: false,
                }));
            }
        }
    }
    // A domain's own role never takes effect, only what it implies does.
    let mut effective = Vec::new();
    for assignment in all {
        if tx.get::<Role>(&assignment.role_id)?.is_some_and(|r| r.domain_id.is_none()) {
            effective.push(assignment);
        }
    }
    Ok(effective)
}

/// Names looked up once per answer.
#[derive(Default)]
struct Names(BTreeMap<String, Value>);

impl Names {
    /// `{id, name, domain}` of something; only the id if it has gone.
    fn of(
        &mut self,
        tx: &mut Tx,
        id: &str,
        find: impl FnOnce(&mut Tx) -> ApiResult<Option<(String, String)>>,
    ) -> ApiResult<Value> {
        if let Some(known) = self.0.get(id) {
            return Ok(known.clone());
        }
        let mut shown = json!({"id": id});
        if let Some((name, domain_id)) = find(tx)? {
            shown["name"] = name.into();
            if !domain_id.is_empty() {
                let domain = tx.get::<Project>(&domain_id)?.map(|d| d.name);
                shown["domain"] = json!({"id": domain_id, "name": domain});
            }
        }
        self.0.insert(id.to_owned(), shown.clone());
        Ok(shown)
    }
}

fn view(tx: &mut Tx, a: &Assignment, here: &Here, with_names: bool, names: &mut Names) -> ApiResult<Value> {
    let mut named = |tx: &mut Tx, kind: &str, id: &str| {
        if !with_names {
            return Ok(json!({"id": id}));
        }
        names.of(tx, id, |tx| {
            Ok(match kind {
                "user" => tx.get::<User>(id)?.map(|u| (u.name, u.domain_id)),
                "group" => tx.get::<Group>(id)?.map(|g| (g.name, g.domain_id)),
                "role" => tx.get::<Role>(id)?.map(|r| (r.name, r.domain_id.unwrap_or_default())),
                _ => tx.get::<Project>(id)?.map(|p| (p.name, p.domain_id)),
            })
        })
    };
    let role = named(tx, "role", &a.role_id)?;
    let (actor_kind, actor_id) = match &a.actor {
        Actor::User(id) => ("user", id),
        Actor::Group(id) => ("group", id),
    };
    let actor = named(tx, actor_kind, actor_id)?;
    let (path, mut scope) = match &a.target {
        Target::Project(id) => (format!("projects/{id}"), json!({"project": named(tx, "project", id)?})),
        Target::Domain(id) => (format!("domains/{id}"), json!({"domain": named(tx, "domain", id)?})),
        Target::System => ("system".into(), json!({"system": {"all": true}})),
    };
    let (mut before, mut after) = ("", "");
    if a.inherited {
        scope["OS-INHERIT:inherited_to"] = "projects".into();
        (before, after) = ("OS-INHERIT/", "/inherited_to_projects");
    }
    let link = format!("{}/{before}{path}/{actor_kind}s/{actor_id}/roles/{}{after}", here.v3, a.role_id);
    Ok(json!({"role": role, actor_kind: actor, "scope": scope, "links": {"assignment": link}}))
}
