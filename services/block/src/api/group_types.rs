//! `/group_types`: types of groups.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use cairn_gateway::{ApiError, ApiResult, Body, Caller, Query};
use cairn_state::Tx;
use serde_json::{Value, json};

use super::specs::Described;
use super::{Svc, input};
use crate::groups;
use crate::model::{GroupType, Metadata};

impl Described for GroupType {
    const KEY: &'static str = "group_specs";
    const SEEN: &[&str] = &[];
    const MERGED: StatusCode = StatusCode::ACCEPTED;

    fn find(tx: &mut Tx, caller: &Caller, id: &str) -> ApiResult<GroupType> {
        groups::find_type(tx, caller, id)
    }

    fn specs(&mut self) -> &mut Metadata {
        &mut self.group_specs
    }
}

fn view(caller: &Caller, t: &GroupType) -> Value {
    let mut body =
        json!({"id": t.id, "name": t.name, "description": t.description, "is_public": t.is_public});
    if caller.is_admin() {
        body["group_specs"] = json!(t.group_specs);
    }
    body
}

/// `GET /group_types[?is_public=None|true|false][&sort=name:asc]`
pub async fn list(State(svc): Svc, caller: Caller, query: Query) -> ApiResult<Json<Value>> {
    let wanted = match query.get("is_public") {
        _ if !caller.is_admin() => Some(true),
        None => Some(true),
        Some("None" | "none") => None,
        Some(_) => query.flag("is_public")?,
    };
    let mut all = svc.store.read(|tx| tx.list_unfenced::<GroupType>())?;
    all.retain(|t| wanted.is_none_or(|wanted| wanted == t.is_public));
    let (key, direction) = query.get("sort").and_then(|sort| sort.split_once(':')).unwrap_or(("name", "asc"));
    match key {
        "id" => all.sort_by(|a, b| a.id.cmp(&b.id)),
        "name" => all.sort_by(|a, b| a.name.cmp(&b.name)),
        other => return Err(ApiError::bad_request(format!("Invalid sort key: {other}."))),
    }
    match direction {
        "asc" => {}
        "desc" => all.reverse(),
        other => return Err(ApiError::bad_request(format!("Invalid sort direction: {other}."))),
    }
    Ok(Json(json!({"group_types": all.iter().map(|t| view(&caller, t)).collect::<Vec<_>>()})))
}

/// `GET /group_types/{id}`; there is no default one.
pub async fn show(State(svc): Svc, caller: Caller, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    let found = svc.store.read(|tx| groups::find_type(tx, &caller, &id))?;
    Ok(Json(json!({"group_type": view(&caller, &found)})))
}

fn name_of(fields: &input::Fields) -> ApiResult<Option<String>> {
    match input::text(fields, "name")?.map(|name| name.trim().to_owned()) {
        Some(name) if name.is_empty() => Err(input::invalid("name", "it must not be empty")),
        name => Ok(name),
    }
}

fn require_free_name(tx: &mut Tx, new: &GroupType) -> ApiResult<()> {
    match tx.by_unique::<GroupType>("name", &new.name)? {
        Some(other) if other.id != new.id => {
            Err(ApiError::conflict(format!("Group Type {} already exists.", new.name)))
        }
        _ => Ok(()),
    }
}

/// `POST /group_types`
pub async fn create(
    State(svc): Svc,
    caller: Caller,
    Body(body): Body<Value>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    caller.require_admin()?;
    let fields = input::inner(body, "group_type")?;
    let new = GroupType {
        id: uuid::Uuid::new_v4().to_string(),
        name: name_of(&fields)?.ok_or_else(|| input::invalid("name", "it is required"))?,
        description: input::text(&fields, "description")?,
        is_public: input::flag(&fields, "is_public")?.unwrap_or(true),
        group_specs: input::metadata(&fields, "group_specs")?.unwrap_or_default(),
    };
    svc.store
        .transact(|tx| {
            require_free_name(tx, &new)?;
            Ok::<_, ApiError>(tx.put(&new)?)
        })
        .await?;
    Ok((StatusCode::ACCEPTED, Json(json!({"group_type": view(&caller, &new)}))))
}

/// `PUT /group_types/{id}`
pub async fn update(
    State(svc): Svc,
    caller: Caller,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let fields = input::inner(body, "group_type")?;
    let (name, description) = (name_of(&fields)?, input::text(&fields, "description")?);
    let is_public = input::flag(&fields, "is_public")?;
    if name.is_none() && description.is_none() && is_public.is_none() {
        return Err(ApiError::bad_request("Specify group type name, description or is_public."));
    }
    let changed = svc
        .store
        .transact(|tx| {
            let mut found = groups::find_type(tx, &caller, &id)?;
            if let Some(name) = &name {
                found.name.clone_from(name);
            }
            if description.is_some() {
                found.description.clone_from(&description);
            }
            found.is_public = is_public.unwrap_or(found.is_public);
            require_free_name(tx, &found)?;
            tx.put(&found)?;
            Ok::<_, ApiError>(found)
        })
        .await?;
    Ok(Json(json!({"group_type": view(&caller, &changed)})))
}

/// `DELETE /group_types/{id}`
pub async fn delete(State(svc): Svc, caller: Caller, Path(id): Path<String>) -> ApiResult<StatusCode> {
    caller.require_admin()?;
    svc.store.transact(|tx| groups::delete_type(tx, &caller, &id)).await?;
    Ok(StatusCode::ACCEPTED)
}
