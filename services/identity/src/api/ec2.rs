//! `/users/{id}/credentials/OS-EC2`: a user's EC2 keys, kept as credentials of type `ec2`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use cairn_gateway::{ApiError, ApiResult, Body, Caller, Query};
use cairn_state::Tx;
use http::StatusCode;
use serde_json::{Value, json};

use super::Svc;
use super::wire::{Here, Holder, listed};
use crate::crypt;
use crate::effective;
use crate::model::{Credential, Target, User};
use crate::policy;
use crate::service::Service;

pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/users/{id}/credentials/OS-EC2", get(index).post(create))
        .route("/users/{id}/credentials/OS-EC2/{access}", get(show).delete(delete))
}

fn id_of(access: &str) -> String {
    hex::encode(crypt::sha256(access.as_bytes()))
}

fn shown(svc: &Service, credential: &Credential, here: &Here) -> ApiResult<Value> {
    let blob = svc.keyring.open_blob(&svc.store, &credential.id, &credential.sealed)?;
    let keys: Value = serde_json::from_str(&blob).map_err(ApiError::internal)?;
    let user = &credential.user_id;
    let link =
        format!("{}/users/{user}/credentials/OS-EC2/{}", here.v3, keys["access"].as_str().unwrap_or(""));
    Ok(json!({
        "access": keys["access"], "secret": keys["secret"], "user_id": user,
        "tenant_id": credential.project_id, "trust_id": null, "links": {"self": link},
    }))
}

async fn index(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    query: Query,
    Path(id): Path<String>,
) -> ApiResult<Json<Value>> {
    policy::require_self(&caller, &id)?;
    let all = svc.store.read(|tx| Ok::<_, ApiError>(tx.by_index::<Credential>("user", &id)?))?;
    let ec2 = all.iter().filter(|c| c.kind == "ec2");
    let items: ApiResult<Vec<Value>> = ec2.map(|c| shown(&svc, c, &here)).collect();
    listed("credentials", items?, &query, &here)
}

async fn create(
    State(svc): Svc,
    caller: Caller,
    Holder(token): Holder,
    here: Here,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    policy::require_self(&caller, &id)?;
    token.require_own()?;
    let project =
        body["tenant_id"].as_str().ok_or_else(|| ApiError::bad_request("'tenant_id' is required."))?;
    let (access, secret) = (hex::encode(crypt::random::<16>()?), hex::encode(crypt::random::<32>()?));
    let blob = json!({"access": access, "secret": secret}).to_string();
    let sealed = svc.keyring.seal_blob(&svc.store, &id_of(&access), &blob)?;
    let credential = Credential {
        id: id_of(&access),
        user_id: id.clone(),
        project_id: Some(project.to_owned()),
        kind: "ec2".into(),
        sealed,
        ..Credential::default()
    };
    svc.store
        .transact(|tx| {
            let user = tx.get::<User>(&id)?.ok_or_else(|| ApiError::not_found("user:", &id))?;
            let target = Target::Project(project.to_owned());
            if !caller.is_admin() && effective::roles(tx, &user.id, &target)?.is_empty() {
                return Err(ApiError::forbidden("The user has no role on the project."));
            }
            Ok(tx.put(&credential)?)
        })
        .await?;
    Ok((StatusCode::CREATED, Json(json!({"credential": shown(&svc, &credential, &here)?}))))
}

fn find(tx: &mut Tx, user: &str, access: &str) -> ApiResult<Credential> {
    let found = tx.get::<Credential>(&id_of(access))?.filter(|c| c.user_id == user && c.kind == "ec2");
    found.ok_or_else(|| ApiError::not_found("credential:", access))
}

async fn show(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    Path((id, access)): Path<(String, String)>,
) -> ApiResult<Json<Value>> {
    policy::require_self(&caller, &id)?;
    let credential = svc.store.read(|tx| find(tx, &id, &access))?;
    Ok(Json(json!({"credential": shown(&svc, &credential, &here)?})))
}

async fn delete(
    State(svc): Svc,
    caller: Caller,
    Path((id, access)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    policy::require_self(&caller, &id)?;
    svc.store
        .transact(|tx| {
            let credential = find(tx, &id, &access)?;
            Ok::<_, ApiError>(tx.delete::<Credential>(&credential.id).map(drop)?)
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
