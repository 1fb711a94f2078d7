//! Makes tokens: who is asking (methods), for what (scope), and the payload that follows.
//!
//! Every refusal is the same 401 (but for a token that is not valid), so that nobody learns which users and
//! projects exist. Passwords and secrets that come in here go nowhere but to their check.

use std::net::IpAddr;

use cairn_gateway::{ApiError, ApiResult};
use cairn_state::Tx;
use http::StatusCode;
use serde::Deserialize;

use crate::clock;
use crate::crypt;
use crate::effective;
use crate::model::{ApplicationCredential, Project, Target, Trust, User};
use crate::service::Service;
use crate::token::{Payload, Scope, methods};
use crate::validate::{self, Validated};

/// `auth` of the request.
#[derive(Deserialize)]
pub struct Auth {
    identity: Identity,
    #[serde(default)]
    scope: Option<ScopeRequest>,
}

#[derive(Deserialize)]
struct Identity {
    methods: Vec<String>,
    password: Option<PasswordRequest>,
    token: Option<TokenRequest>,
    application_credential: Option<CredentialRequest>,
}

#[derive(Deserialize)]
struct PasswordRequest {
    user: UserRequest,
}

#[derive(Deserialize)]
struct UserRequest {
    #[serde(flatten)]
    who: Named,
    #[serde(default)]
    password: String,
}

#[derive(Deserialize)]
struct TokenRequest {
    id: String,
}

#[derive(Deserialize)]
struct CredentialRequest {
    id: Option<String>,
    name: Option<String>,
    user: Option<Named>,
    secret: String,
}

/// Something by id, or by name and domain.
#[derive(Deserialize)]
struct Named {
    id: Option<String>,
    name: Option<String>,
    domain: Option<DomainRef>,
}

#[derive(Deserialize)]
struct DomainRef {
    id: Option<String>,
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ScopeRequest {
    Word(String),
    Of(ScopeOf),
}

#[derive(Deserialize)]
struct ScopeOf {
    project: Option<Named>,
    domain: Option<DomainRef>,
    system: Option<SystemRef>,
    #[serde(rename = "OS-TRUST:trust")]
    trust: Option<TokenRequest>,
}

#[derive(Deserialize)]
struct SystemRef {
    all: bool,
}

/// Who was found to be asking, and what of the proof goes into the token.
struct Proven {
    user_id: String,
    methods: u8,
    /// The end that the token must not outlive.
    expires_s: i64,
    chain: Option<[u8; 16]>,
    credential: Option<ApplicationCredential>,
}

/// A new token for a request from this address.
pub async fn issue(svc: &Service, auth: &Auth, peer: IpAddr) -> ApiResult<(String, Validated)> {
    let proven = prove(svc, &auth.identity, peer).await?;
    let validated = svc.store.transact(|tx| build(tx, &proven, auth.scope.as_ref())).await?;
    let token = svc.keyring.seal(&svc.store, &validated.payload)?;
    Ok((token, validated))
}

async fn prove(svc: &Service, identity: &Identity, peer: IpAddr) -> ApiResult<Proven> {
    let mut all: Option<Proven> = None;
    for method in &identity.methods {
        let missing = || ApiError::bad_request(format!("auth.identity.{method} is missing."));
        let one = match method.as_str() {
            "password" => {
                by_password(svc, &identity.password.as_ref().ok_or_else(missing)?.user, peer).await?
            }
            "token" => by_token(svc, &identity.token.as_ref().ok_or_else(missing)?.id)?,
            "application_credential" => {
                let request = identity.application_credential.as_ref().ok_or_else(missing)?;
                by_application_credential(svc, request, peer).await?
            }
            _ => return Err(ApiError::unauthorized()),
        };
        all = Some(match all {
            None => one,
            Some(before) => both(before, one)?,
        });
    }
    all.ok_or_else(|| ApiError::bad_request("auth.identity.methods is empty."))
}

/// Two methods must have found the same user; the stricter of their bounds hold.
fn both(a: Proven, b: Proven) -> ApiResult<Proven> {
    if a.user_id != b.user_id {
        return Err(ApiError::unauthorized());
    }
    Ok(Proven {
        user_id: a.user_id,
        methods: a.methods | b.methods,
        expires_s: a.expires_s.min(b.expires_s),
        chain: a.chain.or(b.chain),
        credential: a.credential.or(b.credential),
    })
}

async fn by_password(svc: &Service, request: &UserRequest, peer: IpAddr) -> ApiResult<Proven> {
    let user = svc.store.read(|tx| find_user(tx, &request.who))?;
    let subject = match &user {
        Some(user) => format!("{}@{peer}", user.id),
        None => format!("nobody@{peer}"),
    };
    let phc = user.as_ref().and_then(|u| u.password.as_deref());
    check(svc, &subject, &request.password, phc).await?;
    let user = user.ok_or_else(ApiError::unauthorized)?;
    Ok(svc.proven(user.id, methods::PASSWORD))
}

/// Checks a secret against its hash, within what the throttle allows.
async fn check(svc: &Service, subject: &str, secret: &str, phc: Option<&str>) -> ApiResult<()> {
    if svc.throttle.is_locked(subject) {
        tracing::warn!(subject, "authentication is locked after too many failures");
        return Err(ApiError::unauthorized());
    }
    if svc.passwords.verify(secret, phc).await? {
        svc.throttle.succeeded(subject);
        return Ok(());
    }
    svc.throttle.failed(subject);
    tracing::warn!(subject, "authentication failed");
    Err(ApiError::unauthorized())
}

fn by_token(svc: &Service, token: &str) -> ApiResult<Proven> {
    // 404, as Keystone has it: the token is what is asked about.
    let gone = || ApiError::new(StatusCode::NOT_FOUND, "The token is not valid.");
    let validated = svc.validate(token)?.ok_or_else(gone)?;
    let payload = &validated.payload;
    if payload.trust_id.is_some() || payload.application_credential_id.is_some() {
        return Err(ApiError::forbidden(
            "A token from a trust or an application credential cannot be rescoped.",
        ));
    }
    Ok(Proven {
        user_id: payload.user_id.clone(),
        methods: payload.methods | methods::TOKEN,
        expires_s: payload.expires_s,
        chain: Some(payload.chain.unwrap_or(payload.audit)),
        credential: None,
    })
}

async fn by_application_credential(
    svc: &Service,
    request: &CredentialRequest,
    peer: IpAddr,
) -> ApiResult<Proven> {
    let found = svc.store.read(|tx| find_credential(tx, request))?;
    let Some(credential) = found else {
        // As long as for one that exists.
        check(svc, &format!("nobody@{peer}"), &request.secret, None).await?;
        return Err(ApiError::unauthorized());
    };
    let subject = format!("{}@{peer}", credential.id);
    let digest = hex::encode(crypt::sha256(request.secret.as_bytes()));
    if credential.secret_phc.is_some() {
        check(svc, &subject, &request.secret, credential.secret_phc.as_deref()).await?;
    } else if !crypt::same(digest.as_bytes(), credential.secret_sha256.as_bytes()) {
        check(svc, &subject, &request.secret, None).await?;
    }
    let mut proven = svc.proven(credential.user_id.clone(), methods::APPLICATION_CREDENTIAL);
    proven.expires_s = proven.expires_s.min(credential.expires_us.map_or(i64::MAX, |us| us / 1_000_000));
    proven.credential = Some(credential);
    Ok(proven)
}

impl Service {
    fn proven(&self, user_id: String, methods: u8) -> Proven {
        let expires_s = clock::now_s() + self.options.token_ttl_s;
        Proven { user_id, methods, expires_s, chain: None, credential: None }
    }
}

/// The token's payload and what it stands for; 401 if the user has no business there. Counts a trust's use.
fn build(tx: &mut Tx, proven: &Proven, request: Option<&ScopeRequest>) -> ApiResult<Validated> {
    let no = ApiError::unauthorized;
    let (user, _) = validate::live_user(tx, &proven.user_id)?.ok_or_else(no)?;
    let trust = requested_trust(tx, request, &user)?;
    let scope = match (&proven.credential, &trust) {
        (Some(credential), _) => {
            let own = Scope::Project(credential.project_id.clone());
            let asked = scope_of(tx, request, &user)?;
            if request.is_some() && asked != own {
                return Err(no());
            }
            own
        }
        (None, Some(trust)) => trust.project_id.clone().map_or(Scope::Unscoped, Scope::Project),
        (None, None) => scope_of(tx, request, &user)?,
    };
    let bearer = match &trust {
        Some(trust) if trust.impersonation => trust.trustor_user_id.clone(),
        _ => user.id.clone(),
    };
    let after = tx.get::<User>(&bearer)?.map_or(0, |u| u.tokens_after_us);
    let payload = Payload {
        user_id: bearer,
        scope,
        issued_us: clock::now_us().max(after + 1),
        expires_s: proven.expires_s.min(trust.as_ref().and_then(|t| t.expires_s).unwrap_or(i64::MAX)),
        audit: crypt::random()?,
        chain: proven.chain,
        methods: proven.methods,
        trust_id: trust.as_ref().map(|t| t.id.clone()),
        application_credential_id: proven.credential.as_ref().map(|c| c.id.clone()),
    };
    let validated = validate::inspect(tx, &payload)?.ok_or_else(no)?;
    if let Some(mut trust) = trust
        && let Some(left) = trust.remaining_uses
    {
        trust.remaining_uses = Some(left.checked_sub(1).ok_or_else(no)?);
        tx.put(&trust)?;
    }
    Ok(validated)
}

fn requested_trust(tx: &mut Tx, request: Option<&ScopeRequest>, user: &User) -> ApiResult<Option<Trust>> {
    let Some(ScopeRequest::Of(ScopeOf { trust: Some(wanted), .. })) = request else { return Ok(None) };
    let trust = tx.get::<Trust>(&wanted.id)?.filter(|t| t.trustee_user_id == user.id);
    trust.map(Some).ok_or_else(|| ApiError::forbidden("The trust cannot be used by this user."))
}

fn scope_of(tx: &mut Tx, request: Option<&ScopeRequest>, user: &User) -> ApiResult<Scope> {
    let of = match request {
        None => return default_scope(tx, user),
        Some(ScopeRequest::Word(word)) if word == "unscoped" => return Ok(Scope::Unscoped),
        Some(ScopeRequest::Word(_)) => return Err(ApiError::bad_request("auth.scope is not known.")),
        Some(ScopeRequest::Of(of)) => of,
    };
    match of {
        ScopeOf { project: Some(project), .. } => {
            let found = find_project(tx, project)?.ok_or_else(ApiError::unauthorized)?;
            Ok(Scope::Project(found))
        }
        ScopeOf { domain: Some(domain), .. } => {
            let found = find_domain(tx, domain)?.ok_or_else(ApiError::unauthorized)?;
            Ok(Scope::Domain(found.id))
        }
        ScopeOf { system: Some(SystemRef { all: true }), .. } => Ok(Scope::System),
        ScopeOf { trust: Some(_), .. } => Ok(Scope::Unscoped),
        _ => Err(ApiError::bad_request("auth.scope names neither a project nor a domain nor the system.")),
    }
}

/// A request without a scope gets the user's default project, if a token for it can be had.
fn default_scope(tx: &mut Tx, user: &User) -> ApiResult<Scope> {
    let Some(id) = &user.default_project_id else { return Ok(Scope::Unscoped) };
    let enabled = tx.get::<Project>(id)?.is_some_and(|p| p.enabled && !p.is_domain);
    let target = Target::Project(id.clone());
    match enabled && !effective::roles(tx, &user.id, &target)?.is_empty() {
        true => Ok(Scope::Project(id.clone())),
        false => Ok(Scope::Unscoped),
    }
}

fn find_user(tx: &mut Tx, who: &Named) -> ApiResult<Option<User>> {
    let found = match (&who.id, &who.name) {
        (Some(id), _) => tx.get::<User>(id)?,
        (None, Some(name)) => match named_domain(tx, who)? {
            Some(domain) => tx.by_unique::<User>("name", &crate::model::scoped(&domain.id, name))?,
            None => None,
        },
        (None, None) => {
            return Err(ApiError::bad_request("auth.identity.password.user has neither id nor name."));
        }
    };
    // A disabled user, or one of a disabled domain, is as good as none.
    match found {
        Some(user) => Ok(validate::live_user(tx, &user.id)?.map(|(user, _)| user)),
        None => Ok(None),
    }
}

fn find_project(tx: &mut Tx, wanted: &Named) -> ApiResult<Option<String>> {
    match (&wanted.id, &wanted.name) {
        (Some(id), _) => Ok(Some(id.clone())),
        (None, Some(name)) => {
            let Some(domain) = named_domain(tx, wanted)? else { return Ok(None) };
            let found = tx.by_unique::<Project>("name", &crate::model::scoped(&domain.id, name))?;
            Ok(found.map(|p| p.id))
        }
        (None, None) => Err(ApiError::bad_request("auth.scope.project has neither id nor name.")),
    }
}

fn named_domain(tx: &mut Tx, named: &Named) -> ApiResult<Option<Project>> {
    let domain = named.domain.as_ref();
    find_domain(tx, domain.ok_or_else(|| ApiError::bad_request("A name needs a domain beside it."))?)
}

fn find_domain(tx: &mut Tx, wanted: &DomainRef) -> ApiResult<Option<Project>> {
    let found = match (&wanted.id, &wanted.name) {
        (Some(id), _) => tx.get::<Project>(id)?,
        (None, Some(name)) => tx.by_unique::<Project>("name", &crate::model::scoped("", name))?,
        (None, None) => return Err(ApiError::bad_request("A domain has neither id nor name.")),
    };
    Ok(found.filter(|d| d.is_domain))
}

fn find_credential(tx: &mut Tx, wanted: &CredentialRequest) -> ApiResult<Option<ApplicationCredential>> {
    match (&wanted.id, &wanted.name, &wanted.user) {
        (Some(id), _, _) => Ok(tx.get::<ApplicationCredential>(id)?),
        (None, Some(name), Some(user)) => match find_user(tx, user)? {
            Some(user) => Ok(tx.by_unique("name", &format!("{}:{name}", user.id))?),
            None => Ok(None),
        },
        _ => Err(ApiError::bad_request(
            "An application credential is named by its id, or by its name and user.",
        )),
    }
}
