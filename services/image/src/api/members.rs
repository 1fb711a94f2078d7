//! `/v2/images/{id}/members`: the projects an image is shared with.
//!
//! The owner shares and withdraws; the other project accepts or rejects, for itself alone.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use cairn_gateway::{ApiError, ApiResult, Body, Caller};
use cairn_state::Tx;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Svc, attributes, view};
use crate::access;
use crate::model::{Image, Member, Visibility};

/// The most projects an image may be shared with.
const MEMBERS_MAX: usize = 128;

/// The body that names a member.
#[derive(Debug, Deserialize)]
pub struct NewMember {
    member: String,
}

/// The body that changes a member's status.
#[derive(Debug, Deserialize)]
pub struct NewStatus {
    status: String,
}

fn no_member() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "The image member could not be found.")
}

/// The image, if it is one that can have members.
fn shared(tx: &mut Tx, caller: &Caller, id: &str) -> ApiResult<Image> {
    let image = access::visible(tx, caller, id)?;
    if image.visibility == Visibility::Shared {
        return Ok(image);
    }
    Err(ApiError::forbidden("Only shared images have members."))
}

/// `GET /v2/images/{id}/members`: all for the owner, itself for a member.
pub async fn list(State(svc): Svc, caller: Caller, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    let members = svc.store.read(|tx| {
        let image = shared(tx, &caller, &id)?;
        let mut members = tx.by_index::<Member>("image", &id)?;
        if !caller.sees(&image.owner) {
            members.retain(|m| m.member_id == caller.project_id);
        }
        Ok::<_, ApiError>(members)
    })?;
    let members: Vec<_> = members.iter().map(view::member).collect();
    Ok(Json(json!({"members": members, "schema": "/v2/schemas/members"})))
}

/// `POST /v2/images/{id}/members`
pub async fn create(
    State(svc): Svc,
    caller: Caller,
    Path(id): Path<String>,
    Body(wanted): Body<NewMember>,
) -> ApiResult<Json<Value>> {
    let project = wanted.member;
    if project.is_empty() || project.contains('/') || project.chars().count() > attributes::NAME_MAX {
        return Err(ApiError::bad_request("The member must be a project's id."));
    }
    let member = svc
        .store
        .transact(|tx| {
            shared(tx, &caller, &id)?;
            let image = access::writable(tx, &caller, &id)?;
            let members = tx.by_index::<Member>("image", &id)?;
            if project == image.owner || members.iter().any(|m| m.member_id == project) {
                return Err(ApiError::conflict(format!("Image {id} is shared with {project} already.")));
            }
            if members.len() >= MEMBERS_MAX {
                return Err(ApiError::too_large(format!(
                    "An image may be shared with at most {MEMBERS_MAX} projects."
                )));
            }
            let now = Timestamp::now();
            let member = Member {
                image_id: id.clone(),
                member_id: project.clone(),
                status: "pending".into(),
                created_at: now,
                updated_at: now,
            };
            tx.put(&member)?;
            Ok(member)
        })
        .await?;
    Ok(Json(view::member(&member)))
}

fn load(tx: &mut Tx, caller: &Caller, id: &str, project: &str) -> ApiResult<Member> {
    let image = access::visible(tx, caller, id)?;
    if !caller.sees(&image.owner) && caller.project_id != project {
        return Err(no_member());
    }
    tx.get::<Member>(&Member::key(id, project))?.ok_or_else(no_member)
}

/// `GET /v2/images/{id}/members/{member}`
pub async fn show(
    State(svc): Svc,
    caller: Caller,
    Path((id, project)): Path<(String, String)>,
) -> ApiResult<Json<Value>> {
    let member = svc.store.read(|tx| load(tx, &caller, &id, &project))?;
    Ok(Json(view::member(&member)))
}

/// `PUT /v2/images/{id}/members/{member}`: accepts or rejects; the member's word alone.
pub async fn update(
    State(svc): Svc,
    caller: Caller,
    Path((id, project)): Path<(String, String)>,
    Body(wanted): Body<NewStatus>,
) -> ApiResult<Json<Value>> {
    if !["pending", "accepted", "rejected"].contains(&wanted.status.as_str()) {
        return Err(ApiError::bad_request("The status must be one of pending, accepted and rejected."));
    }
    let member = svc
        .store
        .transact(|tx| {
            let mut member = load(tx, &caller, &id, &project)?;
            if caller.require_writer()? != project && !caller.is_admin() {
                return Err(ApiError::forbidden("Only the member may accept or reject a shared image."));
            }
            member.status.clone_from(&wanted.status);
            member.updated_at = Timestamp::now();
            tx.put(&member)?;
            Ok(member)
        })
        .await?;
    Ok(Json(view::member(&member)))
}

/// `DELETE /v2/images/{id}/members/{member}`
pub async fn delete(
    State(svc): Svc,
    caller: Caller,
    Path((id, project)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    svc.store
        .transact(|tx| {
            shared(tx, &caller, &id)?;
            access::writable(tx, &caller, &id)?;
            match tx.delete::<Member>(&Member::key(&id, &project))? {
                true => Ok(StatusCode::NO_CONTENT),
                false => Err(no_member()),
            }
        })
        .await
}
