//! `/credentials`: blobs kept for a user, sealed in the store.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use cairn_gateway::{ApiError, ApiResult, Body};
use cairn_state::Tx;
use http::StatusCode;
use serde_json::{Value, json};

use super::ask::{Ask, Holder};
use super::attrs::Attrs;
use super::resource::{self, Create, Made, Managed, Shown};
use super::wire::{Resource, candidates, fits, over};
use crate::crypt;
use crate::model::{Credential, Project, User, new_id};
use crate::policy;
use crate::service::Service;

pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/credentials", get(resource::list::<Opened>).post(create))
        .route("/credentials/{id}", get(resource::show::<Opened>).patch(update).delete(delete))
}

/// A credential and its blob, opened.
pub struct Opened {
    /// As it is stored.
    pub credential: Credential,
    /// What its owner keeps in it: a secret.
    pub blob: String,
}

impl Opened {
    /// Opens a credential. Who may see it has been asked already.
    pub fn of(credential: Credential, ask: &Ask) -> ApiResult<Opened> {
        let Service { keyring, store, .. } = &*ask.svc;
        let blob = keyring.open_blob(store, &credential.id, &credential.sealed)?;
        Ok(Opened { credential, blob })
    }
}

impl Resource for Opened {
    const ONE: &'static str = "credential";
    const MANY: &'static str = "credentials";

    fn path(&self) -> String {
        format!("credentials/{}", self.credential.id)
    }

    fn view(&self) -> Value {
        let Credential { id, user_id, project_id, kind, extra, .. } = &self.credential;
        let blob = &self.blob;
        over(
            extra,
            json!({"id": id, "user_id": user_id, "project_id": project_id, "type": kind, "blob": blob}),
        )
    }
}

impl Managed for Opened {
    fn all(tx: &mut Tx, ask: &Ask) -> ApiResult<Vec<Opened>> {
        let own = Some(ask.caller.user_id.as_str());
        let user = if ask.caller.is_admin() { ask.query.get("user_id") } else { own };
        let mut all = candidates::<Credential>(tx, "user", user)?;
        all.retain(|c| fits(&ask.query, "type", &c.kind) && fits(&ask.query, "user_id", &c.user_id));
        all.into_iter().map(|c| Opened::of(c, ask)).collect()
    }

    fn one(tx: &mut Tx, ask: &Ask) -> ApiResult<Opened> {
        Opened::of(own(tx, ask)?, ask)
    }

    /// Whose it is decides, not a role.
    fn require_writer(_: &Ask) -> ApiResult<()> {
        Ok(())
    }
}

async fn create(Holder(token): Holder, ask: Ask, body: Body<Value>) -> Made {
    token.require_own()?;
    resource::create::<Opened>(ask, body).await
}

impl Create for Opened {
    fn create(tx: &mut Tx, ask: &Ask, mut attrs: Attrs) -> ApiResult<Opened> {
        let user_id = attrs.text("user_id")?.unwrap_or_else(|| ask.caller.user_id.clone());
        policy::require_self(&ask.caller, &user_id)?;
        let (project_id, kind) = (attrs.text("project_id")?, attrs.required("type")?);
        let blob = blob_of(&mut attrs)?.ok_or_else(|| ApiError::bad_request("'blob' is required."))?;
        let id = id_for(&kind, &blob, project_id.as_deref())?;
        let sealed = ask.svc.keyring.seal_blob(&ask.svc.store, &id, &blob)?;
        let mut credential = Credential { id, user_id, project_id, kind, sealed, ..Credential::default() };
        attrs.set_extra(&mut credential.extra)?;
        check_owners(tx, &credential)?;
        if tx.get::<Credential>(&credential.id)?.is_some() {
            return Err(ApiError::conflict("There is a credential with this access key."));
        }
        tx.put(&credential)?;
        Ok(Opened { credential, blob })
    }
}

async fn update(ask: Ask, Body(body): Body<Value>) -> Shown {
    let change = |tx: &mut Tx| {
        let mut credential = own(tx, &ask)?;
        let mut attrs = Attrs::of(body.clone(), Opened::ONE)?;
        attrs.set_text("type", &mut credential.kind)?;
        attrs.set_optional("project_id", &mut credential.project_id)?;
        attrs.set_text("user_id", &mut credential.user_id)?;
        policy::require_self(&ask.caller, &credential.user_id)?;
        if let Some(blob) = blob_of(&mut attrs)? {
            credential.sealed = ask.svc.keyring.seal_blob(&ask.svc.store, &ask.id, &blob)?;
        }
        attrs.set_extra(&mut credential.extra)?;
        check_owners(tx, &credential)?;
        tx.put(&credential)?;
        Opened::of(credential, &ask)
    };
    resource::changed(&ask, change).await
}

/// Without opening the blob: a damaged one can be removed.
async fn delete(ask: Ask) -> ApiResult<StatusCode> {
    remove(&ask, |tx| own(tx, &ask)).await
}

/// Removes the credential that is found.
pub async fn remove(ask: &Ask, find: impl Fn(&mut Tx) -> ApiResult<Credential>) -> ApiResult<StatusCode> {
    ask.done(|tx| {
        let found = find(tx)?;
        Ok(tx.delete::<Credential>(&found.id).map(drop)?)
    })
    .await
}

/// The credential, if it is the caller's to handle.
fn own(tx: &mut Tx, ask: &Ask) -> ApiResult<Credential> {
    let missing = || ApiError::not_found("credential:", &ask.id);
    let credential = tx.get::<Credential>(&ask.id)?.ok_or_else(missing)?;
    policy::require_self(&ask.caller, &credential.user_id)?;
    Ok(credential)
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
    Ok(id_of(access))
}

/// The id of the EC2 credential with this access key.
pub fn id_of(access: &str) -> String {
    hex::encode(crypt::sha256(access.as_bytes()))
}

fn check_owners(tx: &mut Tx, credential: &Credential) -> ApiResult<()> {
    User::find(tx, &credential.user_id)?;
    if let Some(project) = &credential.project_id {
        Project::find(tx, project)?;
    }
    Ok(())
}
