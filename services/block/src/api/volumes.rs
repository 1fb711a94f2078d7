//! `/volumes`: making, listing, showing, changing and deleting volumes.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use cairn_gateway::{ApiError, ApiResult, Body, Query};
use cairn_image::usable;
use cairn_state::Tx;
use serde_json::{Value, json};

use super::Svc;
use super::context::Context;
use super::input::{self, Fields};
use super::listing::{Cut, Wanted};
use super::view;
use crate::ZONE;
use crate::create::{self, NewVolume, Source};
use crate::model::{Status, Volume};
use crate::servers::visible;
use crate::{backups, lifecycle, types};

/// `POST /volumes`
pub async fn create(
    State(svc): Svc,
    ctx: Context,
    Body(body): Body<Value>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    if body.get("OS-SCH-HNT:scheduler_hints").is_some_and(|h| h.as_object().is_none_or(|h| !h.is_empty())) {
        return Err(ApiError::bad_request("Scheduler hints are not supported."));
    }
    let fields = input::inner(body, "volume")?;
    refuse_unbuilt(&fields)?;
    let (volume, type_name) = svc
        .store
        .transact(|tx| {
            let wanted = read(tx, &ctx, &fields)?;
            let volume = match input::reference(&fields, "backup_id")? {
                Some(id) if ctx.minor < 47 || !matches!(wanted.source, Source::Empty) => {
                    return Err(ApiError::bad_request(format!(
                        "A volume is made of the backup {id} from microversion 3.47 on, and of nothing else then."
                    )));
                }
                Some(id) => backups::restore_as(tx, &ctx.caller, &id, wanted)?,
                None => create::volume(tx, &ctx.caller, wanted)?,
            };
            let name = types::by_id(tx, &ctx.caller, &volume.type_id)?.name;
            Ok::<_, ApiError>((volume, name))
        })
        .await?;
    Ok((StatusCode::ACCEPTED, Json(json!({"volume": view::volume(&ctx, &volume, &type_name)}))))
}

fn refuse_unbuilt(fields: &Fields) -> ApiResult<()> {
    for key in ["consistencygroup_id", "source_replica", "cgsnapshot_id"] {
        if input::reference(fields, key)?.is_some() {
            return Err(ApiError::bad_request(format!("{key} is not supported here.")));
        }
    }
    if input::flag(fields, "multiattach")? == Some(true) {
        return Err(ApiError::bad_request("Volumes for several servers at once are not supported here."));
    }
    if let Some(zone) = input::reference(fields, "availability_zone")?.filter(|z| z != ZONE) {
        return Err(ApiError::bad_request(format!("Availability zone '{zone}' is invalid.")));
    }
    Ok(())
}

fn read(tx: &mut Tx, ctx: &Context, fields: &Fields) -> ApiResult<NewVolume> {
    let (name, description) = input::words(fields)?;
    Ok(NewVolume {
        name,
        description,
        size_gb: input::size(fields, "size")?,
        source: source(tx, ctx, fields)?,
        volume_type: input::reference(fields, "volume_type")?,
        metadata: input::metadata(fields, "metadata")?.unwrap_or_default(),
        group_id: input::reference(fields, "group_id")?.filter(|_| ctx.minor >= 13),
        request_id: Some(ctx.request_id.clone()),
        node: None,
        content_comes: false,
        hidden: false,
    })
}

fn source(tx: &mut Tx, ctx: &Context, fields: &Fields) -> ApiResult<Source> {
    let image = input::reference(fields, "imageRef")?.or(input::reference(fields, "image_id")?);
    let snapshot = input::reference(fields, "snapshot_id")?;
    let volume = input::reference(fields, "source_volid")?;
    match (image, snapshot, volume) {
        (None, None, None) => Ok(Source::Empty),
        (Some(id), None, None) => Ok(Source::Image(Box::new(usable(tx, &ctx.caller, &id)?))),
        (None, Some(id), None) => {
            let found = super::snapshots::find(tx, &ctx.caller, &id)?;
            if found.status != Status::Available {
                return Err(ApiError::bad_request(format!(
                    "Invalid snapshot: Originating snapshot status must be one of 'available' values, not {}.",
                    found.status.name()
                )));
            }
            Ok(Source::Snapshot(Box::new(found)))
        }
        (None, None, Some(id)) => {
            let found = visible(tx, &ctx.caller, &id)?;
            if !found.made || !matches!(found.status, Status::Available | Status::InUse) {
                return Err(ApiError::bad_request(format!(
                    "Invalid volume: Source volume status must be available or in-use, not {}.",
                    found.status.name()
                )));
            }
            Ok(Source::Volume(Box::new(found)))
        }
        _ => Err(ApiError::bad_request(
            "Invalid input received: a volume has one source at most: imageRef, snapshot_id or source_volid.",
        )),
    }
}

/// `GET /volumes`
pub async fn list(State(svc): Svc, ctx: Context, query: Query) -> ApiResult<Json<Value>> {
    let (cut, _) = find_page(&State(svc), &ctx, &query)?;
    let shown = cut.items.iter().map(|v| view::volume_brief(&ctx, v)).collect();
    Ok(Json(page(&ctx, &query, "volumes", shown, &cut)))
}

/// `GET /volumes/detail`
pub async fn list_detail(State(svc): Svc, ctx: Context, query: Query) -> ApiResult<Json<Value>> {
    let (cut, names) = find_page(&State(svc), &ctx, &query)?;
    let name = |v: &Volume| names.get(&v.type_id).map_or("", String::as_str);
    let shown = cut.items.iter().map(|v| view::volume_detail(&ctx, v, name(v))).collect();
    Ok(Json(page(&ctx, &query, "volumes", shown, &cut)))
}

/// The page that was asked for, and the names of all types.
fn find_page(svc: &Svc, ctx: &Context, query: &Query) -> ApiResult<(Cut<Volume>, BTreeMap<String, String>)> {
    let wanted = Wanted::read(ctx, query)?;
    svc.store.read(|tx| {
        let names = types::all(tx)?.into_iter().map(|t| (t.id, t.name)).collect();
        Ok((wanted.cut(wanted.gather(tx, ctx)?)?, names))
    })
}

/// The body of a page.
pub fn page<T>(ctx: &Context, query: &Query, key: &str, shown: Vec<Value>, cut: &Cut<T>) -> Value {
    let mut body = json!({key: shown});
    if let Some(marker) = &cut.next {
        body[format!("{key}_links")] = ctx.next_link(&query.0, marker);
    }
    if let Some(total) = cut.total {
        body["count"] = json!(total);
    }
    body
}

/// `GET /volumes/summary` (from 3.12 on)
pub async fn summary(State(svc): Svc, ctx: Context, query: Query) -> ApiResult<Json<Value>> {
    if ctx.minor < 12 {
        return Err(ApiError::not_found("Volume", "summary"));
    }
    let mut wanted = Wanted::read(&ctx, &query)?;
    wanted.project = None;
    let all: Vec<Volume> = svc.store.read(|tx| wanted.gather(tx, &ctx))?;
    let size: u64 = all.iter().map(|v| v.size_gb).sum();
    let mut body = json!({"total_count": all.len(), "total_size": size});
    if ctx.minor >= 36 {
        let mut metadata: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (key, value) in all.iter().flat_map(|v| &v.metadata) {
            let values = metadata.entry(key).or_default();
            if !values.contains(&value.as_str()) {
                values.push(value);
            }
        }
        body["metadata"] = json!(metadata);
    }
    Ok(Json(json!({"volume-summary": body})))
}

/// `GET /volumes/{id}`
pub async fn show(State(svc): Svc, ctx: Context, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    let (volume, name) = svc.store.read(|tx| {
        let volume = visible(tx, &ctx.caller, &id)?;
        let name = type_name(tx, &volume)?;
        Ok::<_, ApiError>((volume, name))
    })?;
    Ok(Json(json!({"volume": view::volume_detail(&ctx, &volume, &name)})))
}

fn type_name(tx: &mut Tx, volume: &Volume) -> ApiResult<String> {
    Ok(types::stored(tx, &volume.type_id)?.map(|t| t.name).unwrap_or_default())
}

/// `PUT /volumes/{id}`
pub async fn update(
    State(svc): Svc,
    ctx: Context,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> ApiResult<Json<Value>> {
    let fields = input::inner(body, "volume")?;
    let (name, description) = input::words(&fields)?;
    let metadata = input::metadata(&fields, "metadata")?;
    let (volume, type_name) = svc
        .store
        .transact(|tx| {
            let mut volume = visible(tx, &ctx.caller, &id)?;
            ctx.caller.require_writer()?;
            if name.is_some() {
                volume.name.clone_from(&name);
            }
            if description.is_some() {
                volume.description.clone_from(&description);
            }
            if let Some(metadata) = &metadata {
                volume.metadata.clone_from(metadata);
            }
            volume.become_status(volume.status);
            tx.put(&volume)?;
            let name = type_name(tx, &volume)?;
            Ok::<_, ApiError>((volume, name))
        })
        .await?;
    Ok(Json(json!({"volume": view::volume(&ctx, &volume, &type_name)})))
}

/// `DELETE /volumes/{id}[?cascade=true][&force=true]`
pub async fn delete(
    State(svc): Svc,
    ctx: Context,
    Path(id): Path<String>,
    query: Query,
) -> ApiResult<StatusCode> {
    let cascade = query.flag("cascade")?.unwrap_or(false);
    let force = ctx.minor >= 23 && query.flag("force")?.unwrap_or(false);
    if force {
        ctx.caller.require_admin()?;
    }
    svc.store
        .transact(|tx| {
            let mut volume = visible(tx, &ctx.caller, &id)?;
            ctx.caller.require_writer()?;
            lifecycle::delete_volume(tx, &mut volume, cascade, force)?;
            Ok(StatusCode::ACCEPTED)
        })
        .await
}
