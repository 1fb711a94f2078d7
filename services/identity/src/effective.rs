//! Which roles a user really has somewhere: direct ones, those of groups, inherited ones, and what they imply.
//!
//! Reads by index only: the cost grows with the user's own groups and assignments, never with the cloud.

use std::collections::{BTreeMap, BTreeSet};

use cairn_gateway::ApiError;
use cairn_state::Tx;

use crate::model::{Actor, Assignment, Implication, Membership, Project, Role, Target};

/// The most levels of projects: what is deeper is refused at creation.
pub const DEPTH_MAX: usize = 8;

/// The user and the user's groups.
pub fn actors(tx: &mut Tx, user_id: &str) -> Result<Vec<Actor>, ApiError> {
    let groups = tx.by_index::<Membership>("user", user_id)?;
    let groups = groups.into_iter().map(|m| Actor::Group(m.group_id));
    Ok(std::iter::once(Actor::User(user_id.to_owned())).chain(groups).collect())
}

/// The projects above this one, nearest first, without the domain.
pub fn ancestors(tx: &mut Tx, project: &Project) -> Result<Vec<Project>, ApiError> {
    let mut above = Vec::new();
    let mut parent_id = project.parent_id.clone();
    while above.len() < DEPTH_MAX
        && let Some(parent) = tx.get::<Project>(&parent_id)?
        && !parent.is_domain
    {
        parent_id.clone_from(&parent.parent_id);
        above.push(parent);
    }
    Ok(above)
}

/// Where an assignment has to be to hold on this target: there itself, or inherited from above.
fn sources(tx: &mut Tx, target: &Target) -> Result<Vec<(Target, bool)>, ApiError> {
    let mut from = vec![(target.clone(), false)];
    if let Target::Project(id) = target
        && let Some(project) = tx.get::<Project>(id)?
    {
        let above = ancestors(tx, &project)?.into_iter().map(|p| (Target::Project(p.id), true));
        from.extend(above);
        from.push((Target::Domain(project.domain_id), true));
    }
    Ok(from)
}

/// The ids of the roles that assignments give a user on a target, without what they imply.
pub fn assigned(tx: &mut Tx, user_id: &str, target: &Target) -> Result<BTreeSet<String>, ApiError> {
    let mut found = BTreeSet::new();
    let actors = actors(tx, user_id)?;
    for (source, inherited) in sources(tx, target)? {
        for actor in &actors {
            let here = tx.by_index::<Assignment>("pair", &Assignment::pair(actor, &source))?;
            found.extend(here.into_iter().filter(|a| a.inherited == inherited).map(|a| a.role_id));
        }
    }
    Ok(found)
}

/// These roles and all that they imply.
pub fn implied(tx: &mut Tx, roles: BTreeSet<String>) -> Result<BTreeSet<String>, ApiError> {
    let mut todo: Vec<String> = roles.iter().cloned().collect();
    let mut all = roles;
    while let Some(prior) = todo.pop() {
        for rule in tx.by_index::<Implication>("prior", &prior)? {
            if all.insert(rule.implied.clone()) {
                todo.push(rule.implied);
            }
        }
    }
    Ok(all)
}

/// The roles that a token of this user for this target has, by id. A domain's own roles are left out: they only
/// stand for what they imply.
pub fn roles(tx: &mut Tx, user_id: &str, target: &Target) -> Result<BTreeMap<String, Role>, ApiError> {
    let assigned = assigned(tx, user_id, target)?;
    let ids = implied(tx, assigned)?;
    let mut roles = BTreeMap::new();
    for id in ids {
        if let Some(role) = tx.get::<Role>(&id)?
            && role.domain_id.is_none()
        {
            roles.insert(id, role);
        }
    }
    Ok(roles)
}

/// The targets on which a user has any role, the projects below an inherited one included.
pub fn targets(tx: &mut Tx, user_id: &str) -> Result<BTreeSet<Target>, ApiError> {
    let mut found = BTreeSet::new();
    for actor in actors(tx, user_id)? {
        for assignment in tx.by_index::<Assignment>("actor", &actor.key())? {
            match (assignment.inherited, assignment.target) {
                (false, target) => drop(found.insert(target)),
                (true, above) => found.extend(below(tx, &above)?.into_iter().map(Target::Project)),
            }
        }
    }
    Ok(found)
}

/// The ids of the projects below a domain or project.
pub fn below(tx: &mut Tx, target: &Target) -> Result<Vec<String>, ApiError> {
    match target {
        Target::System => Ok(vec![]),
        Target::Domain(id) => Ok(tx.by_index::<Project>("domain", id)?.into_iter().map(|p| p.id).collect()),
        Target::Project(id) => {
            let mut found: Vec<String> = Vec::new();
            let mut todo = vec![id.clone()];
            while let Some(parent) = todo.pop() {
                let children = tx.by_index::<Project>("parent", &parent)?;
                todo.extend(children.iter().map(|p| p.id.clone()));
                found.extend(children.into_iter().map(|p| p.id));
            }
            Ok(found)
        }
    }
}
