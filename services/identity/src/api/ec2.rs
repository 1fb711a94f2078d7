//! `/users/{id}/credentials/OS-EC2`: a user's EC2 keys, kept as credentials of type `ec2`.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use cairn_gateway::{ApiError, ApiResult, Body};
use cairn_state::Tx;
use http::StatusCode;
use serde_json::{Value, json};

use super::ask::{Ask, Holder};
use super::credentials::{self, Opened, id_of};
use super::resource::{self, Made, Managed};
use super::wire::Resource;
use crate::crypt;
use crate::effective;
use crate::model::{Credential, Target, User};
use crate::policy;
use crate::service::Service;

pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/users/{id}/credentials/OS-EC2", get(resource::list::<Ec2>).post(create))
        .route("/users/{id}/credentials/OS-EC2/{part}", get(resource::show::<Ec2>).delete(delete))
}

/// A credential of type `ec2`, and the keys in its blob.
struct Ec2 {
    credential: Credential,
    keys: Value,
}

impl Ec2 {
    fn of(credential: Credential, ask: &Ask) -> ApiResult<Ec2> {
        let Opened { credential, blob } = Opened::of(credential, ask)?;
        let keys = serde_json::from_str(&blob).map_err(ApiError::internal)?;
        Ok(Ec2 { credential, keys })
    }
}

impl Resource for Ec2 {
    const ONE: &'static str = "credential";
    const MANY: &'static str = "credentials";

    fn path(&self) -> String {
        let access = self.keys["access"].as_str().unwrap_or("");
        format!("users/{}/credentials/OS-EC2/{access}", self.credential.user_id)
    }

    fn view(&self) -> Value {
        json!({
            "access": self.keys["access"], "secret": self.keys["secret"], "user_id": self.credential.user_id,
            "tenant_id": self.credential.project_id, "trust_id": null,
        })
    }
}

impl Managed for Ec2 {
    fn all(tx: &mut Tx, ask: &Ask) -> ApiResult<Vec<Ec2>> {
        policy::require_self(&ask.caller, &ask.id)?;
        let all = tx.by_index::<Credential>("user", &ask.id)?;
        all.into_iter().filter(|c| c.kind == "ec2").map(|c| Ec2::of(c, ask)).collect()
    }

    fn one(tx: &mut Tx, ask: &Ask) -> ApiResult<Ec2> {
        Ec2::of(own(tx, ask)?, ask)
    }
}

/// The user's credential with the access key in the path.
fn own(tx: &mut Tx, ask: &Ask) -> ApiResult<Credential> {
    policy::require_self(&ask.caller, &ask.id)?;
    let found = tx.get::<Credential>(&id_of(&ask.part))?;
    let found = found.filter(|c| c.user_id == ask.id && c.kind == "ec2");
    found.ok_or_else(|| ApiError::not_found("credential:", &ask.part))
}

async fn create(Holder(token): Holder, ask: Ask, Body(body): Body<Value>) -> Made {
    policy::require_self(&ask.caller, &ask.id)?;
    token.require_own()?;
    let missing = || ApiError::bad_request("'tenant_id' is required.");
    let project_id = body["tenant_id"].as_str().ok_or_else(missing)?.to_owned();
    let (access, secret) = (hex::encode(crypt::random::<16>()?), hex::encode(crypt::random::<32>()?));
    let keys = json!({"access": access, "secret": secret});
    let id = id_of(&access);
    let sealed = ask.svc.keyring.seal_blob(&ask.svc.store, &id, &keys.to_string())?;
    let (user_id, kind) = (ask.id.clone(), "ec2".to_owned());
    let target = Target::Project(project_id.clone());
    let project_id = Some(project_id);
    let credential = Credential { id, user_id, project_id, kind, sealed, ..Credential::default() };
    let make = |tx: &mut Tx| {
        User::find(tx, &ask.id)?;
        if !ask.caller.is_admin() && effective::roles(tx, &ask.id, &target)?.is_empty() {
            return Err(ApiError::forbidden("The user has no role on the project."));
        }
        tx.put(&credential)?;
        Ok(Ec2 { credential: credential.clone(), keys: keys.clone() })
    };
    resource::made(&ask, make).await
}

async fn delete(ask: Ask) -> ApiResult<StatusCode> {
    credentials::remove(&ask, |tx| own(tx, &ask)).await
}
