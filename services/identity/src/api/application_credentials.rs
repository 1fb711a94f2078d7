//! `/users/{id}/application_credentials` and `/users/{id}/access_rules`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cairn_gateway::{ApiError, ApiResult, Body, Caller, Query};
use cairn_state::Tx;
use http::StatusCode;
use serde_json::{Value, json};

use super::Svc;
use super::attrs::{Attrs, NAME_MAX};
use super::trusts::named;
use super::wire::{Here, Holder, fits, listed};
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
        .route("/users/{id}/application_credentials", get(index).post(create))
        .route("/users/{id}/application_credentials/{credential}", get(show).delete(delete))
        .route("/users/{id}/access_rules", get(rules))
        .route("/users/{id}/access_rules/{rule}", get(show_rule).delete(delete_rule))
}

fn rule_view(rule: &AccessRule, here: &Here) -> Value {
    let link = format!("{}/users/{}/access_rules/{}", here.v3, rule.user_id, rule.id);
    json!({
        "id": rule.id, "service": rule.service, "method": rule.method, "path": rule.path,
        "links": {"self": link},
    })
}

fn view(tx: &mut Tx, c: &ApplicationCredential, here: &Here) -> ApiResult<Value> {
    let (mut roles, mut rules) = (Vec::new(), Vec::new());
    for id in &c.roles {
        let role = tx.get::<Role>(id)?;
        roles.extend(role.map(|r| json!({"id": r.id, "name": r.name, "domain_id": r.domain_id})));
    }
    for id in &c.access_rules {
        rules.extend(
            tx.get::<AccessRule>(id)?
                .map(|r| json!({"id": r.id, "service": r.service, "method": r.method, "path": r.path})),
        );
    }
    // Keystone shows this one time without its zone.
    let expires = c.expires_us.map(|us| clock::show_us(us).trim_end_matches('Z').to_owned());
    let link = format!("{}/users/{}/application_credentials/{}", here.v3, c.user_id, c.id);
    let mut shown = json!({
        "id": c.id, "name": c.name, "description": c.description, "user_id": c.user_id,
        "project_id": c.project_id, "roles": roles, "unrestricted": c.unrestricted, "system": null,
        "expires_at": expires, "links": {"self": link},
    });
    if !rules.is_empty() {
        shown["access_rules"] = rules.into();
    }
    Ok(shown)
}

async fn index(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    query: Query,
    Path(id): Path<String>,
) -> ApiResult<Json<Value>> {
    policy::require_self(&caller, &id)?;
    let shown = svc.store.read(|tx| {
        let all = tx.by_index::<ApplicationCredential>("user", &id)?;
        let fit = all.iter().filter(|c| fits(&query, "name", &c.name));
        fit.map(|c| view(tx, c, &here)).collect::<ApiResult<Vec<_>>>()
    })?;
    listed("application_credentials", shown, &query, &here)
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
    if credential.name.is_empty() {
        return Err(ApiError::bad_request("'name' is required."));
    }
    let (roles, rules) = (items(&mut attrs, "roles")?, items(&mut attrs, "access_rules")?);
    Ok(Wanted { credential, secret: attrs.text("secret")?, roles, rules })
}

async fn create(
    State(svc): Svc,
    Holder(token): Holder,
    here: Here,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    policy::require_exactly(&token.caller, &id)?;
    token.require_own()?;
    let Wanted { mut credential, secret, roles, rules } =
        parse(Attrs::of(body, "application_credential")?, &token)?;
    let secret = match secret {
        // A secret somebody thought of is guessed more easily than a random one, so its hash is a slow one.
        Some(chosen) if !chosen.is_empty() => {
            credential.secret_phc = Some(svc.passwords.hash(&chosen).await?);
            chosen
        }
        _ => {
            let random = URL_SAFE_NO_PAD.encode(crypt::random::<64>()?);
            credential.secret_sha256 = hex::encode(crypt::sha256(random.as_bytes()));
            random
        }
    };
    let mut shown = svc
        .store
        .transact(|tx| {
            credential.roles = chosen_roles(tx, &token, &roles)?;
            credential.access_rules = make_rules(tx, &id, &rules)?;
            tx.put(&credential)?;
            view(tx, &credential, &here)
        })
        .await?;
    shown["secret"] = secret.into();
    Ok((StatusCode::CREATED, Json(json!({"application_credential": shown}))))
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

/// The ids of the rules that are named, those made that are not there yet.
fn make_rules(tx: &mut Tx, user_id: &str, wanted: &[Value]) -> ApiResult<Vec<String>> {
    let mut known = tx.by_index::<AccessRule>("user", user_id)?;
    let mut ids = Vec::new();
    for rule in wanted {
        if let Some(id) = rule["id"].as_str() {
            let found = known.iter().find(|r| r.id == id);
            ids.push(found.ok_or_else(|| ApiError::not_found("access rule:", id))?.id.clone());
            continue;
        }
        let mut new = parse_rule(user_id, rule)?;
        let same =
            |r: &&AccessRule| (&r.service, &r.method, &r.path) == (&new.service, &new.method, &new.path);
        match known.iter().find(same) {
            Some(found) => new.id.clone_from(&found.id),
            None => {
                tx.put(&new)?;
                known.push(new.clone());
            }
        }
        ids.push(new.id);
    }
    Ok(ids)
}

fn parse_rule(user_id: &str, rule: &Value) -> ApiResult<AccessRule> {
    let text = |key: &str| {
        let text = rule[key].as_str().filter(|t| !t.is_empty() && t.len() <= 1024).map(str::to_owned);
        text.ok_or_else(|| ApiError::bad_request(format!("An access rule needs a text '{key}'.")))
    };
    let (service, method, path) = (text("service")?, text("method")?.to_uppercase(), text("path")?);
    if !["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"].contains(&method.as_str()) || !path.starts_with('/')
    {
        return Err(ApiError::bad_request("An access rule needs an HTTP method, and a path from '/' on."));
    }
    Ok(AccessRule { id: new_id(), user_id: user_id.to_owned(), service, method, path })
}

fn find(tx: &mut Tx, user: &str, id: &str) -> ApiResult<ApplicationCredential> {
    let found = tx.get::<ApplicationCredential>(id)?.filter(|c| c.user_id == user);
    found.ok_or_else(|| ApiError::not_found("application credential:", id))
}

async fn show(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    Path((user, id)): Path<(String, String)>,
) -> ApiResult<Json<Value>> {
    policy::require_self(&caller, &user)?;
    let shown = svc.store.read(|tx| {
        let credential = find(tx, &user, &id)?;
        view(tx, &credential, &here)
    })?;
    Ok(Json(json!({"application_credential": shown})))
}

async fn delete(
    State(svc): Svc,
    caller: Caller,
    Holder(token): Holder,
    Path((user, id)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    policy::require_self(&caller, &user)?;
    token.require_own()?;
    svc.store
        .transact(|tx| {
            find(tx, &user, &id)?;
            tx.delete::<ApplicationCredential>(&id)?;
            touch_user(tx, &user)
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn rules(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    query: Query,
    Path(user): Path<String>,
) -> ApiResult<Json<Value>> {
    policy::require_self(&caller, &user)?;
    let rules = svc.store.read(|tx| Ok::<_, ApiError>(tx.by_index::<AccessRule>("user", &user)?))?;
    listed("access_rules", rules.iter().map(|r| rule_view(r, &here)).collect(), &query, &here)
}

fn find_rule(tx: &mut Tx, user: &str, id: &str) -> ApiResult<AccessRule> {
    let found = tx.get::<AccessRule>(id)?.filter(|r| r.user_id == user);
    found.ok_or_else(|| ApiError::not_found("access rule:", id))
}

async fn show_rule(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    Path((user, id)): Path<(String, String)>,
) -> ApiResult<Json<Value>> {
    policy::require_self(&caller, &user)?;
    let rule = svc.store.read(|tx| find_rule(tx, &user, &id))?;
    Ok(Json(json!({"access_rule": rule_view(&rule, &here)})))
}

async fn delete_rule(
    State(svc): Svc,
    caller: Caller,
    Path((user, id)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    policy::require_self(&caller, &user)?;
    svc.store
        .transact(|tx| {
            find_rule(tx, &user, &id)?;
            let users = tx.by_index::<ApplicationCredential>("user", &user)?;
            if users.iter().any(|c| c.access_rules.contains(&id)) {
                return Err(ApiError::forbidden("The access rule is in use by an application credential."));
            }
            Ok(tx.delete::<AccessRule>(&id).map(drop)?)
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
