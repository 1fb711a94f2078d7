//! What a new cloud starts with: the default domain, the admin, the roles and the catalog. Run at every start: it
//! adds what is missing and changes nothing that is there.

use cairn_gateway::ApiError;
use cairn_state::{LocalStore, Tx};

use crate::cascade::DEFAULT_DOMAIN;
use crate::keyring;
use crate::marks::MarkId;
use crate::model::{
    Actor, Assignment, Endpoint, Implication, Project, Region, Role, Service, Target, User, new_id, scoped,
};
use crate::password;

/// Each implies the next, the first four.
const ROLES: [&str; 6] = ["admin", "manager", "member", "reader", "ResellerAdmin", "service"];

/// Type, name and path of each service. Block storage has two types, for older clients.
const SERVICES: [(&str, &str, &str); 7] = [
    ("identity", "keystone", "/identity"),
    ("image", "glance", "/image"),
    ("compute", "nova", "/compute/v2.1"),
    ("placement", "placement", "/placement"),
    ("network", "neutron", "/network"),
    ("block-storage", "cinder", "/volume/v3"),
    ("volumev3", "cinderv3", "/volume/v3"),
];

/// Prepares the store. `admin_password_hash` is an argon2id PHC string; it is used when the user `admin` is made, and
/// never again.
pub async fn bootstrap(
    store: &LocalStore,
    admin_password_hash: Option<String>,
    region: &str,
) -> Result<(), ApiError> {
    if let Some(hash) = &admin_password_hash
        && !password::is_phc(hash)
    {
        return Err(ApiError::internal("the admin's password hash is not an argon2id PHC string"));
    }
    store
        .transact(|tx| {
            keyring::ensure(tx)?;
            ensure_places(tx)?;
            let roles = ensure_roles(tx)?;
            ensure_admin(tx, admin_password_hash.as_deref(), &roles)?;
            ensure_catalog(tx, region)
        })
        .await
}

fn ensure_places(tx: &mut Tx) -> Result<(), ApiError> {
    if tx.get::<Project>(DEFAULT_DOMAIN)?.is_none() {
        let description = "The domain that this cloud started with".to_owned();
        let (id, name) = (DEFAULT_DOMAIN.to_owned(), "Default".to_owned());
        tx.put(&Project { id, name, is_domain: true, enabled: true, description, ..Project::default() })?;
        MarkId::scope(DEFAULT_DOMAIN).touch(tx)?;
        MarkId::all().touch(tx)?;
        for name in ["admin", "service"] {
            let project = Project {
                id: new_id(),
                name: name.to_owned(),
                domain_id: DEFAULT_DOMAIN.to_owned(),
                parent_id: DEFAULT_DOMAIN.to_owned(),
                enabled: true,
                ..Project::default()
            };
            tx.put(&project)?;
            MarkId::scope(&project.id).touch(tx)?;
        }
    }
    Ok(())
}

/// The ids of the roles, in the order of [`ROLES`].
fn ensure_roles(tx: &mut Tx) -> Result<Vec<String>, ApiError> {
    let mut ids = Vec::new();
    let mut made = Vec::new();
    for name in ROLES {
        ids.push(match tx.by_unique::<Role>("name", &scoped("", name))? {
            Some(role) => role.id,
            None => {
                let role = Role { id: new_id(), name: name.to_owned(), ..Role::default() };
                tx.put(&role)?;
                made.push(role.id.clone());
                role.id
            }
        });
    }
    for pair in ids[..4].windows(2).filter(|p| made.contains(&p[0])) {
        tx.put(&Implication { prior: pair[0].clone(), implied: pair[1].clone() })?;
    }
    Ok(ids)
}

fn ensure_admin(tx: &mut Tx, hash: Option<&str>, roles: &[String]) -> Result<(), ApiError> {
    let name = scoped(DEFAULT_DOMAIN, "admin");
    let (None, Some(hash)) = (tx.by_unique::<User>("name", &name)?, hash) else { return Ok(()) };
    let admin = User {
        id: new_id(),
        name: "admin".into(),
        domain_id: DEFAULT_DOMAIN.into(),
        enabled: true,
        password: Some(hash.to_owned()),
        ..User::default()
    };
    tx.put(&admin)?;
    MarkId::user(&admin.id).touch(tx)?;
    let project = tx.by_unique::<Project>("name", &name)?;
    let targets = [Some(Target::System), project.map(|p| Target::Project(p.id))];
    for target in targets.into_iter().flatten().chain([Target::Domain(DEFAULT_DOMAIN.into())]) {
        let actor = Actor::User(admin.id.clone());
        tx.put(&Assignment { actor, target, role_id: roles[0].clone(), inherited: false })?;
    }
    Ok(())
}

fn ensure_catalog(tx: &mut Tx, region: &str) -> Result<(), ApiError> {
    if tx.get::<Region>(region)?.is_none() {
        tx.put(&Region { id: region.to_owned(), ..Region::default() })?;
    }
    let present: Vec<String> = tx.list::<Service>()?.into_iter().map(|s| s.kind).collect();
    for (kind, name, url) in SERVICES.into_iter().filter(|(kind, _, _)| !present.iter().any(|p| p == kind)) {
        let service = Service {
            id: new_id(),
            kind: kind.to_owned(),
            name: Some(name.to_owned()),
            enabled: true,
            ..Service::default()
        };
        for interface in ["public", "internal", "admin"] {
            tx.put(&Endpoint {
                id: new_id(),
                service_id: service.id.clone(),
                region_id: Some(region.to_owned()),
                interface: interface.to_owned(),
                url: url.to_owned(),
                enabled: true,
                ..Endpoint::default()
            })?;
        }
        tx.put(&service)?;
    }
    Ok(())
}
