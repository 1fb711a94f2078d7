//! Key pairs of users. Of a pair made here the private half is told once and kept nowhere.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing};
use cairn_gateway::{ApiError, ApiResult, Body, Page, Query};
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::Routes;
use super::ask::{Ask, Svc, empty};
use super::create_body::text;
use super::form::{self, invalid};
use crate::model::Keypair;
use crate::quota;
use crate::sshkey;

/// The routes.
pub fn routes() -> Routes {
    Router::new()
        .route("/os-keypairs", routing::get(list).post(create))
        .route("/os-keypairs/{name}", routing::get(show).delete(delete))
}

/// The user whose key pairs are meant: the caller, or (since 2.10, for administrators) another.
fn owner(ask: &Ask, named: Option<&str>) -> ApiResult<String> {
    match named {
        Some(user) if user != ask.caller.user_id => {
            ask.mv
                .added_in(10)
                .map_err(|_| ApiError::bad_request("Additional properties are not allowed ('user_id')"))?;
            ask.admin("os_compute_api:os-keypairs")?;
            Ok(user.to_owned())
        }
        _ => Ok(ask.caller.user_id.clone()),
    }
}

fn brief(key: &Keypair, ask: &Ask) -> Value {
    let mut out = json!({"name": key.name, "public_key": key.public_key, "fingerprint": key.fingerprint});
    if ask.mv.since(2) {
        out["type"] = json!(key.kind);
    }
    out
}

async fn list(State(svc): Svc, ask: Ask, query: Query) -> ApiResult<Json<Value>> {
    let user = owner(&ask, query.get("user_id").filter(|_| ask.mv.since(10)))?;
    let all = svc.store.read(|tx| tx.by_index::<Keypair>("user", &user)).map_err(ApiError::from)?;
    let (page, next) = match ask.mv.since(35) {
        true => {
            let page = Page::cut(all, &query, |k| &k.name)?;
            (page.items, page.next)
        }
        false => (all, None),
    };
    let shown: Vec<_> = page.iter().map(|k| json!({"keypair": brief(k, &ask)})).collect();
    let mut out = json!({"keypairs": shown});
    if let Some(next) = next {
        out["keypairs_links"] = form::next_link(&ask.base, "os-keypairs", &query, &next);
    }
    Ok(Json(out))
}

fn no_key(name: &str, user: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("Keypair {name} not found for user {user}"))
}

async fn show(State(svc): Svc, ask: Ask, Path(name): Path<String>, query: Query) -> ApiResult<Json<Value>> {
    let user = owner(&ask, query.get("user_id"))?;
    let found = svc.store.read(|tx| tx.get::<Keypair>(&format!("{user}/{name}"))).map_err(ApiError::from)?;
    let key = found.ok_or_else(|| no_key(&name, &user))?;
    let mut out = brief(&key, &ask);
    out["user_id"] = json!(key.user_id);
    out["id"] = json!(key.number());
    out["created_at"] = json!(form::micros(key.created));
    out["deleted"] = json!(false);
    out["deleted_at"] = Value::Null;
    out["updated_at"] = Value::Null;
    Ok(Json(json!({"keypair": out})))
}

/// A name: letters, digits, spaces, `_` and `-`; since 2.92 also `@` and `.`.
fn name(f: &Map<String, Value>, ask: &Ask) -> ApiResult<String> {
    let text = text(f, "name")?.ok_or_else(|| ApiError::bad_request("'name' is a required property"))?;
    let text = form::name("name", &text)?;
    let more = if ask.mv.since(92) { " _-@." } else { " _-" };
    let allowed = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
    match text.chars().all(allowed) {
        true => Ok(text),
        false => {
            Err(ApiError::bad_request("Keypair data is invalid: Keypair name contains unsafe characters"))
        }
    }
}

async fn create(State(svc): Svc, ask: Ask, Body(json): Body<Value>) -> ApiResult<Response> {
    let f = form::object(&json, "keypair")?;
    let known = |k: &str| match k {
        "name" | "public_key" => true,
        "type" => ask.mv.since(2),
        "user_id" => ask.mv.since(10),
        _ => false,
    };
    form::only(f.keys(), known)?;
    let user = owner(&ask, f.get("user_id").and_then(Value::as_str))?;
    let (key, private) = new_key(f, &ask, user)?;
    svc.store
        .transact(|tx| {
            if tx.get::<Keypair>(&format!("{}/{}", key.user_id, key.name))?.is_some() {
                return Err(ApiError::conflict(format!("Key pair '{}' already exists.", key.name)));
            }
            let have = tx.by_index::<Keypair>("user", &key.user_id)?.len();
            quota::admit_one(tx, &ask.caller.project_id, "key_pairs", have)?;
            Ok(tx.put(&key)?)
        })
        .await?;
    let mut out = brief(&key, &ask);
    out["user_id"] = json!(key.user_id);
    if let Some(private) = private {
        out["private_key"] = json!(private);
    }
    let status = if ask.mv.since(2) { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(json!({"keypair": out}))).into_response())
}

/// The pair as given, or a new one with its private half.
fn new_key(f: &Map<String, Value>, ask: &Ask, user_id: String) -> ApiResult<(Keypair, Option<String>)> {
    let name = name(f, ask)?;
    let kind = text(f, "type")?.unwrap_or_else(|| "ssh".into());
    match kind.as_str() {
        "ssh" => {}
        "x509" => return Err(ApiError::bad_request("Key pairs of the type x509 are not available here.")),
        other => return Err(invalid("type", other, "is not one of ['ssh', 'x509']")),
    }
    let (public_key, private) = match text(f, "public_key")? {
        Some(given) => (given, None),
        None if ask.mv.since(92) => return Err(ApiError::bad_request("'public_key' is a required property")),
        None => {
            let made = sshkey::generate(&format!("{user_id}@cairn")).map_err(ApiError::internal)?;
            (made.public, Some(made.private))
        }
    };
    let fingerprint = sshkey::fingerprint(&public_key)
        .ok_or_else(|| ApiError::bad_request("Keypair data is invalid: failed to generate fingerprint"))?;
    let key = Keypair { user_id, name, kind, public_key, fingerprint, created: Timestamp::now() };
    Ok((key, private))
}

async fn delete(State(svc): Svc, ask: Ask, Path(name): Path<String>, query: Query) -> ApiResult<Response> {
    let user = owner(&ask, query.get("user_id"))?;
    let id = format!("{user}/{name}");
    let deleted = svc.store.transact(|tx| tx.delete::<Keypair>(&id)).await.map_err(ApiError::from)?;
    match deleted {
        false => Err(no_key(&name, &user)),
        true if ask.mv.since(2) => Ok(empty(StatusCode::NO_CONTENT)),
        true => Ok(empty(StatusCode::ACCEPTED)),
    }
}
