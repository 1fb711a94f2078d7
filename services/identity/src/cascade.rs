//! What goes when something goes: each function removes a record and all that would be left without meaning.

use cairn_gateway::ApiError;
use cairn_state::{Record, Tx};

use crate::marks::MarkId;
use crate::model::{
    AccessRule, Actor, ApplicationCredential, Assignment, Credential, Endpoint, Group, Implication,
    Membership, Project, Role, Service, Target, Trust, User,
};

/// The domain that is made with the cloud and cannot be deleted.
pub const DEFAULT_DOMAIN: &str = "default";

/// Removes a user, with what the user holds, owns and lent.
pub fn delete_user(tx: &mut Tx, user: &User) -> Result<(), ApiError> {
    drop_assignments(tx, "actor", &Actor::User(user.id.clone()).key())?;
    drop_all::<Membership>(tx, "user", &user.id)?;
    drop_all::<Credential>(tx, "user", &user.id)?;
    drop_all::<ApplicationCredential>(tx, "user", &user.id)?;
    drop_all::<AccessRule>(tx, "user", &user.id)?;
    for index in ["trustor", "trustee"] {
        for trust in tx.by_index::<Trust>(index, &user.id)? {
            delete_trust(tx, &trust)?;
        }
    }
    MarkId::user(&user.id).remove(tx)?;
    tx.delete::<User>(&user.id)?;
    Ok(())
}

/// Ends a trust, and its tokens.
pub fn delete_trust(tx: &mut Tx, trust: &Trust) -> Result<(), ApiError> {
    for user in [&trust.trustor_user_id, &trust.trustee_user_id] {
        touch_user(tx, user)?;
    }
    tx.delete::<Trust>(&trust.id)?;
    Ok(())
}

/// Removes a group; its members lose what it gave them.
pub fn delete_group(tx: &mut Tx, group: &Group) -> Result<(), ApiError> {
    for member in tx.by_index::<Membership>("group", &group.id)? {
        touch_user(tx, &member.user_id)?;
        tx.delete::<Membership>(&member.id())?;
    }
    drop_assignments(tx, "actor", &Actor::Group(group.id.clone()).key())?;
    tx.delete::<Group>(&group.id)?;
    Ok(())
}

/// Removes a project that has none below it; 403 otherwise.
pub fn delete_project(tx: &mut Tx, project: &Project) -> Result<(), ApiError> {
    if !tx.by_index::<Project>("parent", &project.id)?.is_empty() {
        return Err(ApiError::forbidden("The project has projects below it; delete them first."));
    }
    drop_place(tx, &project.id, &Target::Project(project.id.clone()))
}

/// Removes a disabled domain and all that it owns; 403 if it is enabled or the default one.
pub fn delete_domain(tx: &mut Tx, domain: &Project) -> Result<(), ApiError> {
    if domain.id == DEFAULT_DOMAIN {
        return Err(ApiError::forbidden("The default domain cannot be deleted."));
    }
    if domain.enabled {
        return Err(ApiError::forbidden("An enabled domain cannot be deleted; disable it first."));
    }
    for user in tx.by_index::<User>("domain", &domain.id)? {
        delete_user(tx, &user)?;
    }
    for group in tx.by_index::<Group>("domain", &domain.id)? {
        delete_group(tx, &group)?;
    }
    for project in tx.by_index::<Project>("domain", &domain.id)? {
        drop_place(tx, &project.id, &Target::Project(project.id.clone()))?;
    }
    for role in tx.list::<Role>()?.into_iter().filter(|r| r.domain_id.as_deref() == Some(&domain.id)) {
        delete_role(tx, &role)?;
    }
    MarkId::all().touch(tx)?;
    drop_place(tx, &domain.id, &Target::Domain(domain.id.clone()))
}

fn drop_place(tx: &mut Tx, id: &str, target: &Target) -> Result<(), ApiError> {
    drop_assignments(tx, "target", &target.key())?;
    drop_all::<Credential>(tx, "project", id)?;
    drop_all::<ApplicationCredential>(tx, "project", id)?;
    for trust in tx.by_index::<Trust>("project", id)? {
        delete_trust(tx, &trust)?;
    }
    MarkId::scope(id).remove(tx)?;
    tx.delete::<Project>(id)?;
    Ok(())
}

/// Removes a role wherever it is held, implied or lent.
pub fn delete_role(tx: &mut Tx, role: &Role) -> Result<(), ApiError> {
    drop_all::<Assignment>(tx, "role", &role.id)?;
    drop_all::<Implication>(tx, "prior", &role.id)?;
    drop_all::<Implication>(tx, "implied", &role.id)?;
    tx.delete::<Role>(&role.id)?;
    MarkId::all().touch(tx)
}

/// Removes a service and its endpoints.
pub fn delete_service(tx: &mut Tx, service: &Service) -> Result<(), ApiError> {
    drop_all::<Endpoint>(tx, "service", &service.id)?;
    tx.delete::<Service>(&service.id)?;
    Ok(())
}

/// Removes an assignment.
pub fn delete_assignment(tx: &mut Tx, assignment: &Assignment) -> Result<(), ApiError> {
    tx.delete::<Assignment>(&assignment.id())?;
    touch_for(tx, assignment)
}

/// Makes the tokens that an assignment concerns be looked at again.
pub fn touch_for(tx: &mut Tx, assignment: &Assignment) -> Result<(), ApiError> {
    match (&assignment.actor, &assignment.target) {
        _ if assignment.inherited => MarkId::all().touch(tx),
        (Actor::User(id), _) => touch_user(tx, id),
        (Actor::Group(_), Target::Project(id) | Target::Domain(id)) => touch_scope(tx, id),
        (Actor::Group(_), Target::System) => MarkId::all().touch(tx),
    }
}

/// Touches a user's mark, if there is such a user: a mark must not outlive its subject.
pub fn touch_user(tx: &mut Tx, id: &str) -> Result<(), ApiError> {
    match tx.get::<User>(id)? {
        Some(_) => MarkId::user(id).touch(tx),
        None => Ok(()),
    }
}

fn touch_scope(tx: &mut Tx, id: &str) -> Result<(), ApiError> {
    match tx.get::<Project>(id)? {
        Some(_) => MarkId::scope(id).touch(tx),
        None => Ok(()),
    }
}

fn drop_assignments(tx: &mut Tx, index: &str, value: &str) -> Result<(), ApiError> {
    for assignment in tx.by_index::<Assignment>(index, value)? {
        delete_assignment(tx, &assignment)?;
    }
    Ok(())
}

fn drop_all<R: Record>(tx: &mut Tx, index: &str, value: &str) -> Result<(), ApiError> {
    for record in tx.by_index::<R>(index, value)? {
        tx.delete::<R>(&record.id())?;
    }
    Ok(())
}
