//! `/users/{id}/application_credentials`.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cairn_gateway::{ApiError, ApiResult, Body};
use cairn_state::Tx;
use http::StatusCode;
use serde_json::{Value, json};

use super::access_rules;
use super::ask::{Ask, Holder};
use super::attrs::{Attrs, NAME_MAX, require_name};
use super::resource::{self, Delete, Made, Managed};
use super::trusts::named;
use super::wire::{Resource, fits, present};
use crate::cascade::touch_user;
use crate::clock;
use crate::crypt;
use crate::model::{AccessRule, ApplicationCredential, Role, new_id};
use crate::policy;
use crate::service::Service;
use crate::validate::Validated;

/// The most access rules of a credential.
const RULES_MAX: usize = 100;

pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/users/{id}/application_credentials", get(resource::list::<Whole>).post(create))
        .route("/users/{id}/application_credentials/{part}", get(resource::show::<Whole>).delete(delete))
}

/// An application credential with its roles and rules, as far as they are still there.
struct Whole {
    credential: ApplicationCredential,
    roles: Vec<Role>,
    rules: Vec<AccessRule>,
    /// Its secret, which is shown when it is made and never again.
    secret: Option<String>,
}

impl Whole {
    fn of(tx: &mut Tx, credential: ApplicationCredential) -> ApiResult<Whole> {
        let roles = present(tx, &credential.roles)?;
        let rules = present(tx, &credential.access_rules)?;
        Ok(Whole { credential, roles, rules, secret: None })
    }
}

impl Resource for Whole {
    const ONE: &'static str = "application_credential";
    const MANY: &'static str = "application_credentials";

    fn path(&self) -> String {
        format!("users/{}/application_credentials/{}", self.credential.user_id, self.credential.id)
    }

    fn view(&self) -> Value {
        let c = &self.credential;
        let role = |r: &Role| json!({"id": r.id, "name": r.name, "domain_id": r.domain_id});
        let roles: Vec<Value> = self.roles.iter().map(role).collect();
        // Keystone shows this one time without its zone.
        let expires = c.expires_us.map(|us| clock::show_us(us).trim_end_matches('Z').to_owned());
        let mut view = json!({
            "id": c.id, "name": c.name, "description": c.description, "user_id": c.user_id,
            "project_id": c.project_id, "roles": roles, "unrestricted": c.unrestricted, "system": null,
            "expires_at": expires,
        });
        if !self.rules.is_empty() {
            view["access_rules"] = self.rules.iter().map(Resource::view).collect();
        }
        if let Some(secret) = &self.secret {
            view["secret"] = secret.as_str().into();
        }
        view
    }
}

impl Managed for Whole {
    fn all(tx: &mut Tx, ask: &Ask) -> ApiResult<Vec<Whole>> {
        policy::require_self(&ask.caller, &ask.id)?;
        let mut all = tx.by_index::<ApplicationCredential>("user", &ask.id)?;
        all.retain(|c| fits(&ask.query, "name", &c.name));
        all.into_iter().map(|c| Whole::of(tx, c)).collect()
    }

    fn one(tx: &mut Tx, ask: &Ask) -> ApiResult<Whole> {
        policy::require_self(&ask.caller, &ask.id)?;
        let found = tx.get::<ApplicationCredential>(&ask.part)?.filter(|c| c.user_id == ask.id);
        Whole::of(tx, found.ok_or_else(|| ApiError::not_found("application credential:", &ask.part))?)
    }

    fn require_writer(ask: &Ask) -> ApiResult<()> {
        policy::require_self(&ask.caller, &ask.id)
    }
}

/// What a request asks for, its roles and rules still as they were named.
struct Wanted {
    credential: ApplicationCredential,
    secret: Option<String>,
    roles: Vec<Value>,
    rules: Vec<Value>,
}

fn items(attrs: &mut Attrs, key: &str) -> ApiResult<Vec<Value>> {
    match attrs.value(key) {
        None | Some(Value::Null) => Ok(vec![]),
        Some(Value::Array(items)) if items.len() <= RULES_MAX => Ok(items),
        Some(_) => Err(ApiError::bad_request(format!("'{key}' must be a list of at most {RULES_MAX}."))),
    }
}

fn parse(mut attrs: Attrs, token: &Validated) -> ApiResult<Wanted> {
    let expires_us = clock::parse_end_us(attrs.text("expires_at")?)?;
    let mut credential = ApplicationCredential {
        id: new_id(),
        user_id: token.caller.user_id.clone(),
        project_id: token.caller.require_project()?.to_owned(),
        description: attrs.text("description")?,
        unrestricted: attrs.flag("unrestricted")?.unwrap_or(false),
        expires_us,
        ..ApplicationCredential::default()
    };
    attrs.set_name(&mut credential.name, NAME_MAX)?;
    require_name(&credential.name)?;
    let (roles, rules) = (items(&mut attrs, "roles")?, items(&mut attrs, "access_rules")?);
    Ok(Wanted { credential, secret: attrs.text("secret")?, roles, rules })
}

async fn create(Holder(token): Holder, ask: Ask, Body(body): Body<Value>) -> Made {
    policy::require_exactly(&ask.caller, &ask.id)?;
    token.require_own()?;
    let Wanted { mut credential, secret, roles, rules } = parse(Attrs::of(body, Whole::ONE)?, &token)?;
    let secret = match secret {
        // A secret somebody thought of is guessed more easily than a random one, so its hash is a slow one.
        Some(chosen) if !chosen.is_empty() => {
            credential.secret_phc = Some(ask.svc.passwords.hash(&chosen).await?);
            chosen
        }
        _ => {
            let random = URL_SAFE_NO_PAD.encode(crypt::random::<64>()?);
            credential.secret_sha256 = hex::encode(crypt::sha256(random.as_bytes()));
            random
        }
    };
    let make = |tx: &mut Tx| {
        credential.roles = chosen_roles(tx, &token, &roles)?;
        credential.access_rules = access_rules::make(tx, &ask.id, &rules)?;
        tx.put(&credential)?;
        Ok(Whole { secret: Some(secret.clone()), ..Whole::of(tx, credential.clone())? })
    };
    resource::made(&ask, make).await
}

/// The roles that are named, or all that the token has; only what the token has can be given.
fn chosen_roles(tx: &mut Tx, token: &Validated, wanted: &[Value]) -> ApiResult<Vec<String>> {
    if wanted.is_empty() {
        return Ok(token.roles.keys().cloned().collect());
    }
    let mut chosen = Vec::new();
    for role in wanted {
        let role = named(tx, role)?;
        if !token.roles.contains_key(&role.id) {
            return Err(ApiError::bad_request(format!("You do not have the role {} here.", role.name)));
        }
        chosen.push(role.id);
    }
    Ok(chosen)
}

async fn delete(Holder(token): Holder, ask: Ask) -> ApiResult<StatusCode> {
    Whole::require_writer(&ask)?;
    token.require_own()?;
    resource::delete::<Whole>(ask).await
}

impl Delete for Whole {
    fn delete(self, tx: &mut Tx, _: &Ask) -> ApiResult<()> {
        tx.delete::<ApplicationCredential>(&self.credential.id)?;
        touch_user(tx, &self.credential.user_id)
    }
}
