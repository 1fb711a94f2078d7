//! What was done to a server, also (since 2.21) to one that is gone.

use axum::extract::{Path, State};
use axum::{Json, Router, routing};
use cairn_gateway::{ApiError, ApiResult, Page, Query};
use cairn_state::Tx;
use http::StatusCode;
use serde_json::{Value, json};

use super::Routes;
use super::ask::{Ask, Svc, server};
use super::form::{self, host_id, invalid, micros};
use crate::model::{ActionEntry, ActionLog};

/// The routes.
pub fn routes() -> Routes {
    Router::new()
        .route("/servers/{id}/os-instance-actions", routing::get(list))
        .route("/servers/{id}/os-instance-actions/{request}", routing::get(show))
}

fn log(tx: &mut Tx, ask: &Ask, id: &str) -> ApiResult<ActionLog> {
    let missing = || ApiError::new(StatusCode::NOT_FOUND, format!("Instance {id} could not be found."));
    let log = tx.get::<ActionLog>(id)?.filter(|l| ask.caller.sees(&l.project_id)).ok_or_else(missing)?;
    if log.deleted_on.is_some() && !ask.mv.since(21) {
        server(tx, &ask.caller, id)?;
    }
    Ok(log)
}

fn body(log: &ActionLog, e: &ActionEntry, ask: &Ask) -> Value {
    let mut out = json!({
        "action": e.action, "request_id": e.request_id, "user_id": e.user_id, "project_id": e.project_id,
        "start_time": micros(e.start), "message": e.message, "instance_uuid": log.server_id,
    });
    if ask.mv.since(58) {
        out["updated_at"] = json!(micros(e.finish.unwrap_or(e.start)));
    }
    out
}

async fn list(State(svc): Svc, ask: Ask, Path(id): Path<String>, query: Query) -> ApiResult<Json<Value>> {
    let log = svc.store.read(|tx| log(tx, &ask, &id))?;
    let mut entries: Vec<_> = log.entries.iter().rev().cloned().collect();
    if !ask.mv.since(58) {
        let shown: Vec<_> = entries.iter().map(|e| body(&log, e, &ask)).collect();
        return Ok(Json(json!({"instanceActions": shown})));
    }
    let time = |key: &str| match query.get(key) {
        None => Ok(None),
        Some(text) => {
            form::parse_time(text).map(Some).ok_or_else(|| invalid(key, text, "is not a 'date-time'"))
        }
    };
    if let Some(since) = time("changes-since")? {
        entries.retain(|e| e.finish.unwrap_or(e.start) >= since);
    }
    if ask.mv.since(66)
        && let Some(before) = time("changes-before")?
    {
        entries.retain(|e| e.finish.unwrap_or(e.start) <= before);
    }
    let page = Page::cut(entries, &query, |e| &e.request_id)?;
    let shown: Vec<_> = page.items.iter().map(|e| body(&log, e, &ask)).collect();
    let mut out = json!({"instanceActions": shown});
    if let Some(next) = page.next {
        let path = format!("servers/{id}/os-instance-actions");
        out["links"] = form::next_link(&ask.base, &path, &query, &next);
    }
    Ok(Json(out))
}

/// The steps of Nova that clients know these actions by.
fn event_name(action: &str) -> String {
    match action {
        "create" => "compute__do_build_and_run_instance".into(),
        "delete" => "compute_terminate_instance".into(),
        "resetState" => "compute_reset_state".into(),
        "extend_volume" => "compute_extend_volume".into(),
        other => format!("compute_{other}_instance"),
    }
}

async fn show(
    State(svc): Svc,
    ask: Ask,
    Path((id, request)): Path<(String, String)>,
) -> ApiResult<Json<Value>> {
    let log = svc.store.read(|tx| log(tx, &ask, &id))?;
    let entry = log.entries.iter().find(|e| e.request_id == request).ok_or_else(|| {
        ApiError::new(
            StatusCode::NOT_FOUND,
            format!("Action for request_id {request} on instance {id} not found"),
        )
    })?;
    let mut out = body(&log, entry, &ask);
    if ask.caller.is_admin() || ask.mv.since(51) {
        out["events"] = json!([event(&log, entry, &ask)]);
    }
    Ok(Json(json!({"instanceAction": out})))
}

fn event(log: &ActionLog, entry: &ActionEntry, ask: &Ask) -> Value {
    let result = entry.finish.map(|_| if entry.message.is_some() { "Error" } else { "Success" });
    let mut event = json!({
        "event": event_name(&entry.action), "start_time": micros(entry.start),
        "finish_time": entry.finish.map(micros), "result": result,
    });
    if ask.caller.is_admin() {
        event["traceback"] = Value::Null;
    }
    if ask.mv.since(62) {
        event["hostId"] = json!(host_id(&log.project_id, log.host.as_deref()));
        if let Some(host) = log.host.as_ref().filter(|_| ask.caller.is_admin()) {
            event["host"] = json!(host);
        }
    }
    if ask.mv.since(84) {
        event["details"] = json!(entry.message);
    }
    event
}
