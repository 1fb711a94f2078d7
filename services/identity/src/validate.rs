//! Whether a token is valid now, and for what: the path that every request of every service takes.
//!
//! A token seen before costs a digest and a point read per mark; the rest is looked up once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use cairn_gateway::{ApiError, Caller};
use cairn_state::Tx;

use crate::clock;
use crate::effective;
use crate::marks::{MarkId, Seen};
use crate::model::{AccessRule, ApplicationCredential, Project, Revocation, Role, Target, Trust, User};
use crate::token::{Payload, Scope};

/// A token that is valid, and what stands behind it.
#[derive(Debug)]
pub struct Validated {
    /// What the token says.
    pub payload: Payload,
    /// What services see of it.
    pub caller: Arc<Caller>,
    /// The user's domain.
    pub user_domain: Project,
    /// The project or domain it is scoped to.
    pub place: Option<Project>,
    /// The domain of that project.
    pub place_domain: Option<Project>,
    /// The roles in that scope, by id.
    pub roles: BTreeMap<String, Role>,
    /// The trust it was made with.
    pub trust: Option<Trust>,
    /// The application credential it was made with, and what it may be used for (nothing listed: anything).
    pub application_credential: Option<(ApplicationCredential, Vec<AccessRule>)>,
}

impl Validated {
    /// Refuses what a lent or restricted token must not do: lend on, or make secrets that outlive it.
    pub fn require_own(&self) -> Result<(), ApiError> {
        let restricted = self.application_credential.as_ref().is_some_and(|(c, _)| !c.unrestricted);
        if restricted || self.trust.is_some() {
            return Err(ApiError::forbidden(
                "a token from a trust or a restricted application credential may not do this",
            ));
        }
        Ok(())
    }
}

/// Looks up what a payload stands for; `None` if it is not (or no longer) valid.
pub fn inspect(tx: &mut Tx, payload: &Payload) -> Result<Option<Validated>, ApiError> {
    if payload.expires_s <= clock::now_s() || tx.get::<Revocation>(&payload.audit_id())?.is_some() {
        return Ok(None);
    }
    let Some((user, user_domain)) = live_user(tx, &payload.user_id)? else { return Ok(None) };
    if payload.issued_us <= user.tokens_after_us {
        return Ok(None);
    }
    let Some((place, place_domain)) = live_place(tx, &payload.scope)? else { return Ok(None) };
    let Some(lent) = delegation(tx, payload)? else { return Ok(None) };
    let mut roles = match target_of(&payload.scope) {
        Some(target) => effective::roles(tx, lent.roles_of.as_deref().unwrap_or(&user.id), &target)?,
        None => BTreeMap::new(),
    };
    if let Some(limit) = lent.limit {
        roles.retain(|id, _| limit.contains(id));
    }
    if payload.scope != Scope::Unscoped && roles.is_empty() {
        return Ok(None);
    }
    let caller = Arc::new(caller(payload, &user, place.as_ref(), &roles));
    let (trust, application_credential) = (lent.trust, lent.application_credential);
    let payload = payload.clone();
    Ok(Some(Validated {
        payload,
        caller,
        user_domain,
        place,
        place_domain,
        roles,
        trust,
        application_credential,
    }))
}

/// The marks that tell when this must be looked up again.
pub fn marks(payload: &Payload, trust: Option<&Trust>) -> Vec<MarkId> {
    let mut marks = vec![MarkId::all(), MarkId::user(&payload.user_id)];
    if let Scope::Project(id) | Scope::Domain(id) = &payload.scope {
        marks.push(MarkId::scope(id));
    }
    if let Some(trust) = trust {
        marks.extend([MarkId::user(&trust.trustor_user_id), MarkId::user(&trust.trustee_user_id)]);
    }
    marks
}

/// Where the roles of a scope are held.
pub fn target_of(scope: &Scope) -> Option<Target> {
    match scope {
        Scope::Unscoped => None,
        Scope::Project(id) => Some(Target::Project(id.clone())),
        Scope::Domain(id) => Some(Target::Domain(id.clone())),
        Scope::System => Some(Target::System),
    }
}

/// The user and the user's domain, if both are enabled.
pub fn live_user(tx: &mut Tx, id: &str) -> Result<Option<(User, Project)>, ApiError> {
    let Some(user) = tx.get::<User>(id)?.filter(|u| u.enabled) else { return Ok(None) };
    let domain = tx.get::<Project>(&user.domain_id)?.filter(|d| d.enabled && d.is_domain);
    Ok(domain.map(|d| (user, d)))
}

/// The project or domain of a scope, and a project's domain, if all are enabled; the outer `None` if not.
#[allow(clippy::type_complexity)]
fn live_place(tx: &mut Tx, scope: &Scope) -> Result<Option<(Option<Project>, Option<Project>)>, ApiError> {
    let (id, is_domain) = match scope {
        Scope::Unscoped | Scope::System => return Ok(Some((None, None))),
        Scope::Project(id) => (id, false),
        Scope::Domain(id) => (id, true),
    };
    let Some(place) = tx.get::<Project>(id)?.filter(|p| p.enabled && p.is_domain == is_domain) else {
        return Ok(None);
    };
    if is_domain {
        return Ok(Some((Some(place), None)));
    }
    let domain = tx.get::<Project>(&place.domain_id)?.filter(|d| d.enabled);
    Ok(domain.map(|d| (Some(place), Some(d))))
}

/// What a trust or application credential makes of a token.
#[derive(Default)]
struct Lent {
    /// Whose roles count, if not the token's user's.
    roles_of: Option<String>,
    /// The roles that are left of them.
    limit: Option<BTreeSet<String>>,
    trust: Option<Trust>,
    application_credential: Option<(ApplicationCredential, Vec<AccessRule>)>,
}

/// `None` if the token was lent and the loan has ended.
fn delegation(tx: &mut Tx, payload: &Payload) -> Result<Option<Lent>, ApiError> {
    let mut lent = Lent::default();
    let now = clock::now_s();
    if let Some(id) = &payload.trust_id {
        let Some(trust) = tx.get::<Trust>(id)?.filter(|t| t.expires_s.is_none_or(|e| e > now)) else {
            return Ok(None);
        };
        for user in [&trust.trustor_user_id, &trust.trustee_user_id] {
            if live_user(tx, user)?.is_none() {
                return Ok(None);
            }
        }
        lent.roles_of = Some(trust.trustor_user_id.clone());
        lent.limit = Some(effective::implied(tx, trust.roles.iter().cloned().collect())?);
        lent.trust = Some(trust);
    }
    if let Some(id) = &payload.application_credential_id {
        let found = tx.get::<ApplicationCredential>(id)?;
        let Some(credential) = found.filter(|c| c.expires_us.is_none_or(|e| e > clock::now_us())) else {
            return Ok(None);
        };
        let mut rules = Vec::new();
        for id in &credential.access_rules {
            rules.extend(tx.get::<AccessRule>(id)?);
        }
        lent.limit = Some(effective::implied(tx, credential.roles.iter().cloned().collect())?);
        lent.application_credential = Some((credential, rules));
    }
    Ok(Some(lent))
}

fn caller(payload: &Payload, user: &User, place: Option<&Project>, roles: &BTreeMap<String, Role>) -> Caller {
    let project = place.filter(|p| !p.is_domain);
    let text = |f: fn(&Project) -> &String| project.map(f).cloned().unwrap_or_default();
    Caller {
        user_id: user.id.clone(),
        user_name: user.name.clone(),
        user_domain_id: user.domain_id.clone(),
        project_id: text(|p| &p.id),
        project_name: text(|p| &p.name),
        project_domain_id: text(|p| &p.domain_id),
        domain_id: place.filter(|p| p.is_domain).map(|p| p.id.clone()),
        roles: roles.values().map(|r| r.name.clone()).collect(),
        audit_id: payload.audit_id(),
    }
}

/// How many tokens each of the cache's two halves holds.
const HALF_MAX: usize = 8192;

/// Tokens seen lately, by their digest, with the marks they rest on. Two halves: when one is full it becomes the old
/// one, and what is not asked for until the next change is forgotten.
#[derive(Default)]
pub struct Cache(Mutex<Halves>);

type Entry = (Arc<Validated>, Arc<Seen>);

#[derive(Default)]
struct Halves {
    new: HashMap<[u8; 32], Entry>,
    old: HashMap<[u8; 32], Entry>,
}

impl Cache {
    /// What is kept of a token. It may be out of date: the caller asks the marks.
    pub fn get(&self, digest: &[u8; 32]) -> Option<Entry> {
        let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = halves.new.get(digest) {
            return Some(found.clone());
        }
        let found = halves.old.remove(digest)?;
        halves.put(*digest, found.clone());
        Some(found)
    }

    /// Keeps a token.
    pub fn put(&self, digest: [u8; 32], validated: Arc<Validated>, seen: Seen) {
        let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        halves.put(digest, (validated, Arc::new(seen)));
    }

    /// Forgets a token.
    pub fn forget(&self, digest: &[u8; 32]) {
        let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        halves.new.remove(digest);
        halves.old.remove(digest);
    }
}

impl Halves {
    fn put(&mut self, digest: [u8; 32], entry: Entry) {
        if self.new.len() >= HALF_MAX {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(digest, entry);
    }
}
