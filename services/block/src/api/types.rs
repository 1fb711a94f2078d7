//! `/types`: volume types, their extra specs, and which projects may use those that are not public.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use cairn_gateway::{ApiError, ApiResult, Body, Caller, Query};
use cairn_state::Tx;
use serde_json::{Map, Value, json};

use super::Svc;
use super::input::{self, Fields};
use super::specs::Described;
use crate::model::{BY_TYPE, Metadata, Volume, VolumeType};
use crate::types;

fn view(caller: &Caller, t: &VolumeType) -> Value {
    let mut specs = t.extra_specs.clone();
    specs.retain(|key, _| caller.is_admin() || types::SEEN.contains(&key.as_str()));
    let mut body = json!({
        "id": t.id,
        "name": t.name,
        "description": t.description,
        "is_public": t.is_public,
        "os-volume-type-access:is_public": t.is_public,
        "extra_specs": specs,
    });
    if caller.is_admin() {
        body["qos_specs_id"] = json!(t.qos_id);
    }
    body
}

/// The keys that creating and updating answer with.
fn view_of_change(t: &VolumeType, with_access: bool) -> Value {
    let mut body = json!({
        "id": t.id,
        "name": t.name,
        "description": t.description,
        "is_public": t.is_public,
        "extra_specs": t.extra_specs,
    });
    if with_access {
        body["os-volume-type-access:is_public"] = json!(t.is_public);
    }
    body
}

/// `GET /types`; administrators may ask for `is_public=None` (all) or `false`.
pub async fn list(State(svc): Svc, caller: Caller, query: Query) -> ApiResult<Json<Value>> {
    let wanted = match query.get("is_public") {
        None => (!caller.is_admin()).then_some(true),
        Some(_) => query.flag("is_public")?,
    };
    let all = svc.store.read(types::all)?;
    let shown: Vec<_> = all
        .iter()
        .filter(|t| {
            types::may_use(&caller, t) && (!caller.is_admin() || wanted.is_none_or(|w| w == t.is_public))
        })
        .map(|t| view(&caller, t))
        .collect();
    Ok(Json(json!({"volume_types": shown})))
}

/// `GET /types/{id}`; `default` is the default type.
pub async fn show(State(svc): Svc, caller: Caller, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    let found = svc.store.read(|tx| match id.as_str() {
        "default" => Ok(types::default_type(tx)?),
        id => types::by_id(tx, &caller, id),
    })?;
    Ok(Json(json!({"volume_type": view(&caller, &found)})))
}

fn name_of(fields: &Fields) -> ApiResult<Option<String>> {
    let name = input::text(fields, "name")?;
    if name.as_ref().is_some_and(|n| n.trim().is_empty()) {
        return Err(input::invalid("name", "it must not be empty"));
    }
    Ok(name)
}

/// `POST /types`
pub async fn create(State(svc): Svc, caller: Caller, Body(body): Body<Value>) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let fields = input::inner(body, "volume_type")?;
    let new = VolumeType {
        id: uuid::Uuid::new_v4().to_string(),
        name: name_of(&fields)?.ok_or_else(|| input::invalid("name", "it is required"))?,
        description: input::text(&fields, "description")?,
        is_public: input::flag(&fields, "os-volume-type-access:is_public")?.unwrap_or(true),
        extra_specs: input::metadata(&fields, "extra_specs")?.unwrap_or_default(),
        projects: BTreeSet::new(),
        qos_id: None,
        encryption: None,
    };
    svc.store
        .transact(|tx| {
            types::require_free_name(tx, &new.name, &new.id)?;
            Ok::<_, ApiError>(tx.put(&new)?)
        })
        .await?;
    Ok(Json(json!({"volume_type": view_of_change(&new, true)})))
}

/// `PUT /types/{id}`
pub async fn update(
    State(svc): Svc,
    caller: Caller,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> ApiResult<Json<Value>> {
    let fields = input::inner(body, "volume_type")?;
    let name = name_of(&fields)?;
    let description = input::text(&fields, "description")?;
    let is_public = input::flag(&fields, "is_public")?;
    if name.is_none() && description.is_none() && is_public.is_none() {
        return Err(ApiError::bad_request(
            "Specify volume type name, description, is_public or a combination thereof.",
        ));
    }
    let changed = change(&State(svc), &caller, &id, |tx, t| {
        if let Some(name) = &name {
            types::require_free_name(tx, name, &t.id)?;
            t.name.clone_from(name);
        }
        if description.is_some() {
            t.description.clone_from(&description);
        }
        t.is_public = is_public.unwrap_or(t.is_public);
        Ok(())
    })
    .await?;
    Ok(Json(json!({"volume_type": view_of_change(&changed, false)})))
}

async fn change(
    svc: &Svc,
    caller: &Caller,
    id: &str,
    edit: impl Fn(&mut Tx, &mut VolumeType) -> ApiResult<()>,
) -> ApiResult<VolumeType> {
    caller.require_admin()?;
    svc.store
        .transact(|tx| {
            let mut found = types::by_id(tx, caller, id)?;
            edit(tx, &mut found)?;
            tx.put(&found)?;
            Ok(found)
        })
        .await
}

/// `DELETE /types/{id}`: not of the default type, nor of one that volumes have.
pub async fn delete(State(svc): Svc, caller: Caller, Path(id): Path<String>) -> ApiResult<StatusCode> {
    caller.require_admin()?;
    svc.store
        .transact(|tx| {
            let found = types::by_id(tx, &caller, &id)?;
            if found.id == types::DEFAULT_ID {
                return Err(ApiError::bad_request("The default volume type cannot be deleted."));
            }
            if !tx.by_index::<Volume>(BY_TYPE, &found.id)?.is_empty() {
                return Err(ApiError::bad_request("Target volume type is still in use."));
            }
            tx.delete::<VolumeType>(&found.id)?;
            Ok(StatusCode::ACCEPTED)
        })
        .await
}

impl Described for VolumeType {
    const KEY: &'static str = "extra_specs";
    const SEEN: &[&str] = &types::SEEN;
    const MERGED: StatusCode = StatusCode::OK;

    fn find(tx: &mut Tx, caller: &Caller, id: &str) -> ApiResult<VolumeType> {
        types::by_id(tx, caller, id)
    }

    fn specs(&mut self) -> &mut Metadata {
        &mut self.extra_specs
    }
}

/// `GET /types/{id}/os-volume-type-access`
pub async fn access(State(svc): Svc, caller: Caller, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let found = svc.store.read(|tx| types::by_id(tx, &caller, &id))?;
    if found.is_public {
        return Err(ApiError::new(
            StatusCode::NOT_FOUND,
            "Access list not available for public volume types.",
        ));
    }
    let rows: Vec<_> =
        found.projects.iter().map(|p| json!({"volume_type_id": found.id, "project_id": p})).collect();
    Ok(Json(json!({"volume_type_access": rows})))
}

/// `POST /types/{id}/action`: opens a type to a project, or closes it.
pub async fn act(
    State(svc): Svc,
    caller: Caller,
    Path(id): Path<String>,
    Body(body): Body<Map<String, Value>>,
) -> ApiResult<StatusCode> {
    let (action, arguments) =
        body.iter().next().ok_or_else(|| ApiError::bad_request("The request body must name an action."))?;
    let project = arguments.get("project").and_then(Value::as_str).filter(|p| !p.is_empty());
    let project = project.ok_or_else(|| input::invalid("project", "it is required"))?;
    change(&State(svc), &caller, &id, |_, t| {
        if t.is_public {
            return Err(ApiError::conflict(
                "Type access modification is not applicable to public volume type.",
            ));
        }
        let done = match action.as_str() {
            "addProjectAccess" => t.projects.insert(project.to_owned()),
            "removeProjectAccess" => t.projects.remove(project),
            other => return Err(ApiError::bad_request(format!("There is no such action: {other}."))),
        };
        match (done, action.as_str()) {
            (true, _) => Ok(()),
            (false, "addProjectAccess") => Err(ApiError::conflict("The project has access already.")),
            (false, _) => Err(ApiError::new(StatusCode::NOT_FOUND, "The project has no access.")),
        }
    })
    .await?;
    Ok(StatusCode::ACCEPTED)
}
