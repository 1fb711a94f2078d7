//! `/backups/{id}/export_record` and `/backups/import_record`: what this service knows of a backup, for whoever wants to
//! give it back after that was lost. The content itself stays where it is.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cairn_gateway::{ApiError, ApiResult, Body};
use cairn_shards::backup as engine;
use cairn_shards::model::Phase;
use cairn_state::Tx;
use serde_json::{Value, json};

use super::Svc;
use super::context::Context;
use super::input;
use crate::backups;
use crate::model::{Backup, Status};
use crate::quota::{self, Delta};

/// What keeps the content, in the field's way of naming it.
const SERVICE: &str = "cinder.backup.drivers.cairn";

/// `GET /backups/{id}/export_record`
pub async fn export(State(svc): Svc, ctx: Context, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    ctx.caller.require_admin()?;
    let found = svc.store.read(|tx| backups::find(tx, &ctx.caller, &id))?;
    if found.status != Status::Available {
        return Err(ApiError::bad_request(format!(
            "Invalid backup: Backup status must be available, but current status is: {}.",
            found.status.name()
        )));
    }
    let record = serde_json::to_vec(&found).map_err(ApiError::internal)?;
    let record = json!({"backup_service": SERVICE, "backup_url": STANDARD.encode(record)});
    Ok(Json(json!({"backup-record": record})))
}

fn parse(text: &str) -> Option<Backup> {
    serde_json::from_slice(&STANDARD.decode(text).ok()?).ok()
}

/// Content that the engine does not know of (any more) is looked for where it was: the backup is made when it is found.
fn find_content(tx: &mut Tx, record: &mut Backup) -> ApiResult<()> {
    let gone = || ApiError::bad_request("Invalid backup: its content is not there any more.");
    let node = record.node.clone().ok_or_else(gone)?;
    match engine::status(tx, &record.content)? {
        Some(status) if status.phase == Phase::Ready && status.node == node => Ok(()),
        Some(_) => Err(gone()),
        None => {
            record.made = false;
            record.status = Status::Creating;
            Ok(engine::adopt(tx, &record.content, &node)?)
        }
    }
}

/// `POST /backups/import_record`
pub async fn import(
    State(svc): Svc,
    ctx: Context,
    Body(body): Body<Value>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    ctx.caller.require_admin()?;
    let fields = input::inner(body, "backup-record")?;
    if input::reference(&fields, "backup_service")?.as_deref() != Some(SERVICE) {
        return Err(ApiError::bad_request(format!("Invalid backup service: only {SERVICE} is here.")));
    }
    // Longer than other texts are.
    let url = fields.get("backup_url").and_then(Value::as_str).and_then(parse);
    let mut record = url.ok_or_else(|| input::invalid("backup_url", "it is no exported record"))?;
    if [&record.id, &record.content].iter().any(|id| uuid::Uuid::parse_str(id).is_err()) {
        return Err(input::invalid("backup_url", "its id is no UUID"));
    }
    record.project_id = ctx.caller.require_project()?.to_owned();
    record.user_id.clone_from(&ctx.caller.user_id);
    record.restore = None;
    record.frozen = false;
    svc.store
        .transact(|tx| {
            if tx.get::<Backup>(&record.id)?.is_some() {
                let text = format!("Backup already exists in database: {}.", record.id);
                return Err(ApiError::bad_request(text));
            }
            if let Some(parent) = &record.parent
                && tx.get::<Backup>(parent)?.is_none()
            {
                let text = format!("Invalid backup: it continues {parent}, which must be imported first.");
                return Err(ApiError::bad_request(text));
            }
            let mut record = record.clone();
            find_content(tx, &mut record)?;
            quota::charge(tx, &record.project_id, Delta::backup(record.size_gb))?;
            Ok(tx.put(&record)?)
        })
        .await?;
    let shown = json!({"id": record.id, "name": record.name, "links": ctx.links("backups", &record.id)});
    Ok((StatusCode::CREATED, Json(json!({"backup": shown}))))
}
