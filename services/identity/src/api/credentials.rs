//! `/credentials`: blobs kept for a user, sealed in the store.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use cairn_gateway::{ApiError, ApiResult, Body, Caller, Query};
use cairn_state::Tx;
use http::StatusCode;
use serde_json::{Value, json};

use super::Svc;
use super::attrs::Attrs;
use super::wire::{Here, Holder, Resource, fits, listed, over};
use crate::crypt;
use crate::model::{Credential, Project, User, new_id};
use crate::policy;
use crate::service::Service;

pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/credentials", get(index).post(create))
        .route("/credentials/{id}", get(show).patch(update).delete(delete))
}

impl Resource for Credential {
    const ONE: &'static str = "credential";
    const MANY: &'static str = "credentials";

    /// Without the blob, which has to be opened.
    fn view(&self) -> Value {
        let (user, project) = (&self.user_id, &self.project_id);
        over(&self.extra, json!({"id": self.id, "user_id": user, "project_id": project, "type": self.kind}))
    }
}

fn shown(svc: &Service, credential: &Credential, here: &Here) -> ApiResult<Value> {
    let mut view = credential.shown(here);
    view["blob"] = svc.keyring.open_blob(&svc.store, &credential.id, &credential.sealed)?.into();
    Ok(view)
}

fn body(svc: &Service, credential: &Credential, here: &Here) -> ApiResult<Json<Value>> {
    Ok(Json(json!({"credential": shown(svc, credential, here)?})))
}

/// The blob as text; some clients send it as an object.
fn blob_of(attrs: &mut Attrs) -> ApiResult<Option<String>> {
    match attrs.value("blob") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(object @ Value::Object(_)) => Ok(Some(object.to_string())),
        Some(_) => Err(ApiError::bad_request("'blob' must be a text.")),
    }
}

async fn index(State(svc): Svc, caller: Caller, here: Here, query: Query) -> ApiResult<Json<Value>> {
    let user = if caller.is_admin() { query.get("user_id") } else { Some(caller.user_id.as_str()) };
    let all = svc.store.read(|tx| {
        Ok::<_, ApiError>(match user {
            Some(user) => tx.by_index::<Credential>("user", user)?,
            None => tx.list_unfenced::<Credential>()?,
        })
    })?;
    let fit = |c: &&Credential| fits(&query, "type", &c.kind) && fits(&query, "user_id", &c.user_id);
    let shown: ApiResult<Vec<Value>> = all.iter().filter(fit).map(|c| shown(&svc, c, &here)).collect();
    listed("credentials", shown?, &query, &here)
}

async fn create(
    State(svc): Svc,
    caller: Caller,
    Holder(token): Holder,
    here: Here,
    Body(request): Body<Value>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    token.require_own()?;
    let mut attrs = Attrs::of(request, "credential")?;
    let user_id = attrs.text("user_id")?.unwrap_or_else(|| caller.user_id.clone());
    policy::require_self(&caller, &user_id)?;
    let (project_id, kind) = (attrs.text("project_id")?, attrs.required("type")?);
    let blob = blob_of(&mut attrs)?.ok_or_else(|| ApiError::bad_request("'blob' is required."))?;
    let id = id_for(&kind, &blob, project_id.as_deref())?;
    let sealed = svc.keyring.seal_blob(&svc.store, &id, &blob)?;
    let mut credential = Credential { id, user_id, project_id, kind, sealed, ..Credential::default() };
    attrs.set_extra(&mut credential.extra)?;
    svc.store
        .transact(|tx| {
            check_owners(tx, &credential)?;
            if tx.get::<Credential>(&credential.id)?.is_some() {
                return Err(ApiError::conflict("There is a credential with this access key."));
            }
            Ok::<_, ApiError>(tx.put(&credential)?)
        })
        .await?;
    Ok((StatusCode::CREATED, body(&svc, &credential, &here)?))
}

/// EC2 credentials are found by their access key, so its digest is the id.
fn id_for(kind: &str, blob: &str, project_id: Option<&str>) -> ApiResult<String> {
    if kind != "ec2" {
        return Ok(new_id());
    }
    let bad = || ApiError::bad_request("The blob of an ec2 credential is JSON with 'access' and 'secret'.");
    let parsed: Value = serde_json::from_str(blob).map_err(|_| bad())?;
    let access = parsed["access"].as_str().ok_or_else(bad)?;
    if project_id.is_none() {
        return Err(ApiError::bad_request("An ec2 credential needs a project_id."));
    }
    Ok(hex::encode(crypt::sha256(access.as_bytes())))
}

fn check_owners(tx: &mut Tx, credential: &Credential) -> ApiResult<()> {
    User::find(tx, &credential.user_id)?;
    if let Some(project) = &credential.project_id {
        Project::find(tx, project)?;
    }
    Ok(())
}

/// The credential, if it is the caller's to handle.
fn own(tx: &mut Tx, caller: &Caller, id: &str) -> ApiResult<Credential> {
    match Credential::find(tx, id) {
        Ok(credential) => policy::require_self(caller, &credential.user_id).map(|()| credential),
        Err(e) => Err(e),
    }
}

async fn show(State(svc): Svc, caller: Caller, here: Here, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    let credential = svc.store.read(|tx| own(tx, &caller, &id))?;
    body(&svc, &credential, &here)
}

async fn update(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    Path(id): Path<String>,
    Body(request): Body<Value>,
) -> ApiResult<Json<Value>> {
    let credential = svc
        .store
        .transact(|tx| {
            let mut credential = own(tx, &caller, &id)?;
            let mut attrs = Attrs::of(request.clone(), "credential")?;
            attrs.set_text("type", &mut credential.kind)?;
            attrs.set_optional("project_id", &mut credential.project_id)?;
            attrs.set_text("user_id", &mut credential.user_id)?;
            policy::require_self(&caller, &credential.user_id)?;
            if let Some(blob) = blob_of(&mut attrs)? {
                credential.sealed = svc.keyring.seal_blob(&svc.store, &id, &blob)?;
            }
            attrs.set_extra(&mut credential.extra)?;
            check_owners(tx, &credential)?;
            tx.put(&credential)?;
            Ok::<_, ApiError>(credential)
        })
        .await?;
    body(&svc, &credential, &here)
}

async fn delete(State(svc): Svc, caller: Caller, Path(id): Path<String>) -> ApiResult<StatusCode> {
    svc.store
        .transact(|tx| {
            own(tx, &caller, &id)?;
            Ok::<_, ApiError>(tx.delete::<Credential>(&id).map(drop)?)
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
