//! `POST /volumes/{id}/action`: what is done to a volume besides changing its texts.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use cairn_gateway::{ApiError, ApiResult, Body};
use cairn_image::capture::{self, Capture};
use cairn_image::model::Visibility;
use cairn_image::usable;
use cairn_state::Tx;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::Svc;
use super::context::Context;
use super::input::{self, Fields};
use super::{migrate, view};
use crate::model::{AttachedBy, Attachment, Status, Volume};
use crate::servers::visible;
use crate::{create, keys, lifecycle, revert, types, unmanaged};

/// `POST /volumes/{id}/action`
pub async fn act(
    State(svc): Svc,
    ctx: Context,
    Path(id): Path<String>,
    Body(body): Body<Map<String, Value>>,
) -> ApiResult<Response> {
    let mut entries = body.into_iter();
    let (Some((action, arguments)), None) = (entries.next(), entries.next()) else {
        return Err(ApiError::bad_request("The request body must name exactly one action."));
    };
    let fields = match arguments {
        Value::Object(fields) => fields,
        Value::Null => Fields::new(),
        _ => return Err(ApiError::bad_request(format!("The arguments of {action} must be an object."))),
    };
    svc.store
        .transact(|tx| {
            let volume = visible(tx, &ctx.caller, &id)?;
            if action == "os-show_image_metadata" {
                return Ok(Json(json!({"metadata": volume.image_metadata})).into_response());
            }
            ctx.caller.require_writer()?;
            run(tx, &ctx, volume, &action, &fields)
        })
        .await
}

fn run(tx: &mut Tx, ctx: &Context, volume: Volume, action: &str, fields: &Fields) -> ApiResult<Response> {
    let accepted = StatusCode::ACCEPTED.into_response();
    match action {
        "os-extend" => extend(tx, ctx, volume, fields)?,
        "os-reset_status" => reset_status(tx, ctx, volume, fields)?,
        "os-set_bootable" => {
            set_bootable(tx, volume, fields)?;
            return Ok(StatusCode::OK.into_response());
        }
        "os-update_readonly_flag" => set_read_only(tx, volume, fields)?,
        "os-reserve" => step(tx, volume, Status::Available, Status::Attaching)?,
        "os-unreserve" => unreserve(tx, volume)?,
        "os-begin_detaching" => step(tx, not_compute(volume)?, Status::InUse, Status::Detaching)?,
        "os-roll_detaching" => step(tx, not_compute(volume)?, Status::Detaching, Status::InUse)?,
        "os-attach" => attach(tx, volume, fields)?,
        "os-detach" => detach(tx, not_compute(volume)?)?,
        "os-force_detach" => {
            ctx.caller.require_admin()?;
            detach(tx, not_compute(volume)?)?;
        }
        "os-force_delete" => force_delete(tx, ctx, volume)?,
        "os-retype" => migrate::retype(tx, ctx, volume, fields)?,
        "os-migrate_volume" => migrate::migrate(tx, ctx, volume, fields)?,
        "os-unmanage" => {
            ctx.caller.require_admin()?;
            unmanaged::release_volume(tx, &volume)?;
        }
        "revert" if ctx.minor >= 40 => {
            let mut volume = volume;
            let wanted = input::reference(fields, "snapshot_id")?;
            let wanted = wanted.ok_or_else(|| input::invalid("snapshot_id", "it is required"))?;
            revert::begin(tx, &mut volume, &wanted)?;
        }
        "os-reimage" if ctx.minor >= 68 => reimage(tx, ctx, volume, fields)?,
        "os-extend_volume_completion" if ctx.minor >= 71 => {
            ctx.caller.require_admin()?;
            let text = format!("Invalid volume: Volume {} waits for nobody to complete it.", volume.id);
            return Err(ApiError::bad_request(text));
        }
        "os-set_image_metadata" => return set_image_metadata(tx, volume, fields),
        "os-unset_image_metadata" => return unset_image_metadata(tx, volume, fields),
        "os-volume_upload_image" => return upload_image(tx, ctx, volume, fields),
        other => {
            return Err(ApiError::bad_request(format!(
                "There is no such action, or it is not built: {other}."
            )));
        }
    }
    Ok(accepted)
}

fn save(tx: &mut Tx, mut volume: Volume, status: Status) -> ApiResult<()> {
    volume.become_status(status);
    Ok(tx.put(&volume)?)
}

fn wrong_status(volume: &Volume, wanted: &str) -> ApiError {
    ApiError::bad_request(format!(
        "Invalid volume: Volume {} status must be {wanted}, but current status is: {}.",
        volume.id,
        volume.status.name()
    ))
}

fn extend(tx: &mut Tx, ctx: &Context, mut volume: Volume, fields: &Fields) -> ApiResult<()> {
    let wanted =
        input::size(fields, "new_size")?.ok_or_else(|| input::invalid("new_size", "it is required"))?;
    let fit = volume.status == Status::Available || (volume.status == Status::InUse && ctx.minor >= 42);
    if !fit {
        return Err(wrong_status(&volume, "available to extend"));
    }
    lifecycle::extend(tx, &mut volume, wanted)
}

fn reset_status(tx: &mut Tx, ctx: &Context, mut volume: Volume, fields: &Fields) -> ApiResult<()> {
    ctx.caller.require_admin()?;
    if let Some(attach) = input::text(fields, "attach_status")? {
        if attach != "detached" || volume.attachments.iter().any(|a| a.by == AttachedBy::Server) {
            return Err(ApiError::bad_request("Only a server's end, or its detaching, ends its attachment."));
        }
        volume.attachments.clear();
    }
    if input::reference(fields, "migration_status")?.is_some_and(|m| m != "none") {
        return Err(ApiError::bad_request("Volume migration is not supported here."));
    }
    let status = match input::text(fields, "status")? {
        Some(name) => {
            Status::parse(&name).ok_or_else(|| input::invalid("status", "there is no such status"))?
        }
        None => volume.status,
    };
    save(tx, volume, status)
}

fn set_bootable(tx: &mut Tx, mut volume: Volume, fields: &Fields) -> ApiResult<()> {
    let wanted = input::flag(fields, "bootable")?;
    volume.bootable = wanted.ok_or_else(|| input::invalid("bootable", "it is required"))?;
    let status = volume.status;
    save(tx, volume, status)
}

fn set_read_only(tx: &mut Tx, mut volume: Volume, fields: &Fields) -> ApiResult<()> {
    let wanted =
        input::flag(fields, "readonly")?.ok_or_else(|| input::invalid("readonly", "it is required"))?;
    if volume.status != Status::Available {
        return Err(wrong_status(&volume, "available"));
    }
    volume.read_only = wanted;
    let word = if wanted { "True" } else { "False" };
    volume.metadata.insert("readonly".into(), word.into());
    save(tx, volume, Status::Available)
}

fn step(tx: &mut Tx, volume: Volume, from: Status, to: Status) -> ApiResult<()> {
    if volume.status != from {
        return Err(wrong_status(&volume, from.name()));
    }
    save(tx, volume, to)
}

fn unreserve(tx: &mut Tx, volume: Volume) -> ApiResult<()> {
    let volume = not_compute(volume)?;
    let to = if volume.attachments.is_empty() { Status::Available } else { Status::InUse };
    step(tx, volume, Status::Attaching, to)
}

/// Refuses what would pull a disk out from under a running server.
fn not_compute(volume: Volume) -> ApiResult<Volume> {
    if volume.attachments.iter().any(|a| a.by == AttachedBy::Server) {
        return Err(ApiError::conflict(format!(
            "Volume {} is attached to a server: detach it with the compute API.",
            volume.id
        )));
    }
    Ok(volume)
}

/// Notes that something outside uses the volume; nothing is exported.
fn attach(tx: &mut Tx, mut volume: Volume, fields: &Fields) -> ApiResult<()> {
    let host = input::reference(fields, "host_name")?;
    let server = input::reference(fields, "instance_uuid")?;
    if server.is_none() && host.is_none() {
        return Err(ApiError::bad_request("Invalid request: instance_uuid or host_name is required."));
    }
    match input::reference(fields, "mode")?.as_deref() {
        None | Some("rw") if !volume.read_only => {}
        Some("ro") => {}
        _ => {
            return Err(ApiError::bad_request(
                "Invalid request: the mode must be 'ro', or 'rw' if the volume may be written.",
            ));
        }
    }
    if !matches!(volume.status, Status::Available | Status::Attaching) || !volume.attachments.is_empty() {
        return Err(wrong_status(&volume, "available"));
    }
    volume.attachments = vec![Attachment {
        id: uuid::Uuid::new_v4().to_string(),
        server_id: server.unwrap_or_default(),
        host,
        device: input::reference(fields, "mountpoint")?,
        attached_at: Timestamp::now(),
        by: AttachedBy::Api,
    }];
    save(tx, volume, Status::InUse)
}

/// Forgets who uses it outside. One that nobody uses may be left so by a detaching that was repeated.
fn detach(tx: &mut Tx, mut volume: Volume) -> ApiResult<()> {
    if volume.attachments.is_empty() && !matches!(volume.status, Status::InUse | Status::Detaching) {
        return if volume.status == Status::Available {
            Ok(())
        } else {
            Err(wrong_status(&volume, "in-use"))
        };
    }
    volume.attachments.clear();
    save(tx, volume, Status::Available)
}

fn force_delete(tx: &mut Tx, ctx: &Context, volume: Volume) -> ApiResult<()> {
    ctx.caller.require_admin()?;
    let mut volume = not_compute(volume)?;
    volume.attachments.clear();
    lifecycle::delete_volume(tx, &mut volume, false, true)
}

/// Replaces a volume's content by that of an image.
fn reimage(tx: &mut Tx, ctx: &Context, mut volume: Volume, fields: &Fields) -> ApiResult<()> {
    let id =
        input::reference(fields, "image_id")?.ok_or_else(|| input::invalid("image_id", "it is required"))?;
    if volume.status != Status::Available || !volume.attachments.is_empty() {
        return Err(wrong_status(&volume, "available, and nobody use it"));
    }
    let image = usable(tx, &ctx.caller, &id)?;
    if image.disk_gb_min() > volume.size_gb {
        return Err(ApiError::bad_request(format!(
            "Invalid input received: the image needs {} GiB, the volume has {}.",
            image.disk_gb_min(),
            volume.size_gb
        )));
    }
    keys::require_secret(tx, &image.id, &volume)?;
    lifecycle::require_no_copying(tx, &volume.id)?;
    volume.image_metadata = create::describe(&image);
    volume.bootable = true;
    Ok(lifecycle::refill(tx, &mut volume, &image.id, Status::Downloading)?)
}

fn set_image_metadata(tx: &mut Tx, mut volume: Volume, fields: &Fields) -> ApiResult<Response> {
    let more = input::metadata(fields, "metadata")?;
    volume.image_metadata.extend(more.ok_or_else(|| input::invalid("metadata", "it is required"))?);
    let shown = json!({"metadata": volume.image_metadata});
    let status = volume.status;
    save(tx, volume, status)?;
    Ok(Json(shown).into_response())
}

fn unset_image_metadata(tx: &mut Tx, mut volume: Volume, fields: &Fields) -> ApiResult<Response> {
    let key = input::reference(fields, "key")?.ok_or_else(|| input::invalid("key", "it is required"))?;
    if volume.image_metadata.remove(&key).is_none() {
        return Err(ApiError::not_found("Image metadata", &key));
    }
    let status = volume.status;
    save(tx, volume, status)?;
    Ok(StatusCode::OK.into_response())
}

/// Makes an image of the volume. The conductors do the rest: the image's takes the content, ours puts the
/// volume's status back when that is over.
fn upload_image(tx: &mut Tx, ctx: &Context, mut volume: Volume, fields: &Fields) -> ApiResult<Response> {
    let name = input::reference(fields, "image_name")?
        .ok_or_else(|| input::invalid("image_name", "it is required"))?;
    for (key, only) in [("disk_format", "raw"), ("container_format", "bare")] {
        if input::reference(fields, key)?.is_some_and(|f| f != only) {
            return Err(ApiError::bad_request(format!(
                "Invalid input for {key}: a volume can be made an image with '{only}' alone."
            )));
        }
    }
    let force = input::flag(fields, "force")?.unwrap_or(false);
    if volume.status != Status::Available && !(force && volume.status == Status::InUse) {
        return Err(wrong_status(&volume, "available"));
    }
    let visibility = match input::reference(fields, "visibility")? {
        Some(v) => {
            Some(Visibility::parse(&v).ok_or_else(|| input::invalid("visibility", "there is no such one"))?)
        }
        None => None,
    };
    let own = [
        "image_id",
        "image_name",
        "disk_format",
        "container_format",
        "checksum",
        "size",
        "min_disk",
        "min_ram",
        capture::KEY_ID,
    ];
    let properties =
        volume.image_metadata.clone().into_iter().filter(|(k, _)| !own.contains(&k.as_str())).collect();
    let wanted = Capture {
        name: name.clone(),
        volume: volume.id.clone(),
        properties,
        min_disk: volume.size_gb,
        protected: input::flag(fields, "protected")?.unwrap_or(false),
        visibility,
    };
    let image = capture::begin(tx, &ctx.caller, wanted)?;
    volume.before = Some(volume.status);
    volume.uploading_to = Some(image.id.clone());
    let type_name = types::stored(tx, &volume.type_id)?.map(|t| t.name);
    let mut shown = json!({
        "id": volume.id,
        "updated_at": volume.updated_at.map(view::time),
        "status": "uploading",
        "display_description": volume.description,
        "size": volume.size_gb,
        "volume_type": type_name.map(|name| json!({"id": volume.type_id, "name": name})),
        "image_id": image.id,
        "container_format": "bare",
        "disk_format": "raw",
        "image_name": name,
    });
    if ctx.minor >= 1 {
        shown["visibility"] = json!(image.visibility.name());
        shown["protected"] = json!(image.protected);
    }
    save(tx, volume, Status::Uploading)?;
    Ok((StatusCode::ACCEPTED, Json(json!({"os-volume_upload_image": shown}))).into_response())
}
