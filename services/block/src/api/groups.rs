//! `/groups`: groups of volumes.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use cairn_gateway::{ApiError, ApiResult, Body, Query};
use cairn_state::Tx;
use serde_json::{Map, Value, json};

use super::Svc;
use super::context::Context;
use super::input::{self, Fields};
use super::listing::{Cut, Wanted};
use super::view::time;
use super::volumes::page;
use crate::ZONE;
use crate::groups::{self, Change, NewGroup};
use crate::model::{Group, Status, Volume};

fn brief(g: &Group) -> Value {
    json!({"id": g.id, "name": g.name})
}

fn detail(ctx: &Context, g: &Group, volumes: &[Volume], with_volumes: bool) -> Value {
    let mut body = json!({
        "id": g.id,
        "name": g.name,
        "description": g.description,
        "status": groups::status(g, volumes).name(),
        "availability_zone": ZONE,
        "created_at": time(g.created_at),
        "group_type": g.group_type,
        "volume_types": g.volume_types,
    });
    if ctx.minor >= 14 {
        body["group_snapshot_id"] = json!(g.group_snapshot_id);
        body["source_group_id"] = json!(g.source_group_id);
    }
    if ctx.minor >= 25 && with_volumes {
        body["volumes"] = volumes.iter().map(|v| json!(v.id)).collect();
    }
    if ctx.minor >= 38 {
        body["replication_status"] = Value::Null;
    }
    body
}

/// `GET /groups`
pub async fn list(State(svc): Svc, ctx: Context, query: Query) -> ApiResult<Json<Value>> {
    let (cut, _) = find_page(&State(svc), &ctx, &query)?;
    Ok(Json(page(&ctx, &query, "groups", cut.items.iter().map(brief).collect(), &cut)))
}

/// `GET /groups/detail`
pub async fn list_detail(State(svc): Svc, ctx: Context, query: Query) -> ApiResult<Json<Value>> {
    let with_volumes = query.flag("list_volume")?.unwrap_or(false);
    let (cut, volumes) = find_page(&State(svc), &ctx, &query)?;
    let shown = cut.items.iter().zip(&volumes).map(|(g, v)| detail(&ctx, g, v, with_volumes)).collect();
    Ok(Json(page(&ctx, &query, "groups", shown, &cut)))
}

/// The page that was asked for, and the volumes of each group on it.
fn find_page(svc: &Svc, ctx: &Context, query: &Query) -> ApiResult<(Cut<Group>, Vec<Vec<Volume>>)> {
    let wanted = Wanted::read(ctx, query)?;
    svc.store.read(|tx| {
        let cut = wanted.cut(wanted.gather::<Group>(tx, ctx)?)?;
        let volumes = cut.items.iter().map(|g| groups::volumes(tx, &g.id)).collect::<Result<_, _>>()?;
        Ok((cut, volumes))
    })
}

/// `GET /groups/{id}[?list_volume=true]`
pub async fn show(
    State(svc): Svc,
    ctx: Context,
    Path(id): Path<String>,
    query: Query,
) -> ApiResult<Json<Value>> {
    let with_volumes = query.flag("list_volume")?.unwrap_or(false);
    let (group, volumes) = svc.store.read(|tx| {
        let group = groups::find(tx, &ctx.caller, &id)?;
        Ok::<_, ApiError>((group, groups::volumes(tx, &id)?))
    })?;
    Ok(Json(json!({"group": detail(&ctx, &group, &volumes, with_volumes)})))
}

/// `POST /groups`
pub async fn create(
    State(svc): Svc,
    ctx: Context,
    Body(body): Body<Value>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let fields = input::inner(body, "group")?;
    if let Some(zone) = input::reference(&fields, "availability_zone")?.filter(|z| z != ZONE) {
        return Err(ApiError::bad_request(format!("Availability zone '{zone}' is invalid.")));
    }
    let wanted = NewGroup {
        name: input::text(&fields, "name")?,
        description: input::text(&fields, "description")?,
        group_type: input::reference(&fields, "group_type")?
            .ok_or_else(|| input::invalid("group_type", "it is required"))?,
        volume_types: input::texts(&fields, "volume_types")?,
    };
    let group = svc.store.transact(|tx| groups::create(tx, &ctx.caller, wanted.clone())).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({"group": brief(&group)}))))
}

/// `PUT /groups/{id}`
pub async fn update(
    State(svc): Svc,
    ctx: Context,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> ApiResult<StatusCode> {
    let fields = input::inner(body, "group")?;
    let volumes = |key: &str| -> ApiResult<Vec<String>> {
        let ids = input::reference(&fields, key)?.unwrap_or_default();
        Ok(ids.split(',').map(str::trim).filter(|id| !id.is_empty()).map(str::to_owned).collect())
    };
    let change = Change {
        name: input::text(&fields, "name")?,
        description: input::text(&fields, "description")?,
        add: volumes("add_volumes")?,
        remove: volumes("remove_volumes")?,
    };
    if change.name.is_none()
        && change.description.is_none()
        && change.add.is_empty()
        && change.remove.is_empty()
    {
        return Err(ApiError::bad_request(
            "Name, description, add_volumes, and remove_volumes can not be all empty in the request body.",
        ));
    }
    svc.store.transact(|tx| groups::update(tx, &ctx.caller, &id, change.clone())).await?;
    Ok(StatusCode::ACCEPTED)
}

/// `POST /groups/action`: makes a group from another or from a group snapshot.
pub async fn create_from(
    State(svc): Svc,
    ctx: Context,
    Body(body): Body<Value>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let fields = input::inner(body, "create-from-src")?;
    let (name, description) = (input::text(&fields, "name")?, input::text(&fields, "description")?);
    let snapshot = input::reference(&fields, "group_snapshot_id")?;
    let source = input::reference(&fields, "source_group_id")?;
    let group = svc
        .store
        .transact(|tx| {
            let (caller, name, description) = (&ctx.caller, name.clone(), description.clone());
            match (&snapshot, &source) {
                (Some(id), None) => {
                    let from = groups::find_snapshot(tx, caller, id)?;
                    groups::restore(tx, caller, &from, name, description)
                }
                (None, Some(id)) => {
                    let of = groups::find(tx, caller, id)?;
                    groups::copy(tx, caller, &of, name, description)
                }
                _ => Err(ApiError::bad_request(
                    "Either group_snapshot_id or source_group_id must be provided, and not both.",
                )),
            }
        })
        .await?;
    Ok((StatusCode::ACCEPTED, Json(json!({"group": brief(&group)}))))
}

/// `POST /groups/{id}/action`
pub async fn act(
    State(svc): Svc,
    ctx: Context,
    Path(id): Path<String>,
    Body(body): Body<Map<String, Value>>,
) -> ApiResult<StatusCode> {
    let (action, fields) = one_action(body)?;
    svc.store
        .transact(|tx| match action.as_str() {
            "delete" => {
                let with_volumes = input::flag(&fields, "delete-volumes")?.unwrap_or(false);
                groups::delete(tx, &ctx.caller, &id, with_volumes)
            }
            "reset_status" if ctx.minor >= 20 => reset(tx, &ctx, &id, &fields),
            other => {
                Err(ApiError::bad_request(format!("There is no such action, or it is not built: {other}.")))
            }
        })
        .await?;
    Ok(StatusCode::ACCEPTED)
}

/// The action that a body names, and its arguments.
pub fn one_action(body: Map<String, Value>) -> ApiResult<(String, Fields)> {
    let mut entries = body.into_iter();
    match (entries.next(), entries.next()) {
        (Some((action, Value::Object(fields))), None) => Ok((action, fields)),
        (Some((action, Value::Null)), None) => Ok((action, Fields::new())),
        _ => Err(ApiError::bad_request("The request body must name exactly one action.")),
    }
}

/// The status that an administrator sets; none if that is told by the parts.
pub fn status_to_set(ctx: &Context, fields: &Fields) -> ApiResult<Option<Status>> {
    ctx.caller.require_admin()?;
    let name =
        input::reference(fields, "status")?.ok_or_else(|| input::invalid("status", "it is required"))?;
    let status = Status::parse(&name).ok_or_else(|| input::invalid("status", "there is no such status"))?;
    Ok(Some(status).filter(|status| *status != Status::Available))
}

fn reset(tx: &mut Tx, ctx: &Context, id: &str, fields: &Fields) -> ApiResult<()> {
    let status = status_to_set(ctx, fields)?;
    let mut group = groups::find(tx, &ctx.caller, id)?;
    group.status = status;
    Ok(tx.put(&group)?)
}
