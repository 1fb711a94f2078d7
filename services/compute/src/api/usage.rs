//! What projects have used over time: `os-simple-tenant-usage`. Only servers that are there now are known.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::{Json, Router, routing};
use cairn_gateway::{ApiError, ApiResult, Query};
use cairn_state::Tx;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Routes;
use super::ask::{Ask, Svc, shown};
use super::form::{self, micros};
use crate::model::Server;

/// The routes.
pub fn routes() -> Routes {
    Router::new()
        .route("/os-simple-tenant-usage", routing::get(list))
        .route("/os-simple-tenant-usage/{project}", routing::get(show))
}

/// The span asked about: four weeks up to now, if nothing else is said.
fn span(query: &Query) -> ApiResult<(Timestamp, Timestamp)> {
    let now = Timestamp::now();
    let read = |key: &str| match query.get(key) {
        None => Ok(None),
        Some(text) => form::parse_time(text)
            .map(Some)
            .ok_or_else(|| ApiError::bad_request(format!("Datetime is in invalid format: {text}"))),
    };
    let month_ago = Timestamp::from_second(now.as_second() - 28 * 86_400).unwrap_or(now);
    let (start, end) = (read("start")?.unwrap_or(month_ago), read("end")?.unwrap_or(now));
    if start >= end {
        return Err(ApiError::bad_request(
            "Invalid start time. The start time cannot occur after the end time.",
        ));
    }
    Ok((start, end.min(now)))
}

/// The hours that a server was there within the span.
fn hours(server: &Server, start: Timestamp, end: Timestamp) -> f64 {
    let from = server.created.max(start);
    ((end.as_second() - from.as_second()).max(0)) as f64 / 3600.0
}

fn one(
    tx: &mut Tx,
    project: &str,
    servers: &[Server],
    span: (Timestamp, Timestamp),
    detailed: bool,
) -> ApiResult<Value> {
    let (start, end) = span;
    let mut total = [0.0; 4];
    let mut rows = Vec::new();
    for s in servers {
        let hours = hours(s, start, end);
        let f = &s.flavor;
        for (sum, each) in total.iter_mut().zip([1.0, f.vcpus as f64, f.ram_mb as f64, f.disk_gb as f64]) {
            *sum += hours * each;
        }
        if detailed {
            let state = shown(tx, s)?.vm_state;
            rows.push(json!({
                "instance_id": s.id, "name": s.name, "tenant_id": project, "flavor": f.name, "hours": hours,
                "vcpus": f.vcpus, "memory_mb": f.ram_mb, "local_gb": f.disk_gb + f.ephemeral_gb, "state": state,
                "started_at": micros(s.created), "ended_at": null,
                "uptime": (Timestamp::now().as_second() - s.created.as_second()).max(0),
            }));
        }
    }
    let mut out = json!({
        "tenant_id": project, "start": micros(start), "stop": micros(end), "total_hours": total[0],
        "total_vcpus_usage": total[1], "total_memory_mb_usage": total[2], "total_local_gb_usage": total[3],
    });
    if detailed {
        out["server_usages"] = json!(rows);
    }
    Ok(out)
}

async fn list(State(svc): Svc, ask: Ask, query: Query) -> ApiResult<Json<Value>> {
    ask.admin("os_compute_api:os-simple-tenant-usage:list")?;
    let span = span(&query)?;
    let detailed = query.get("detailed") == Some("1");
    svc.store.read(|tx| {
        let mut by_project: BTreeMap<String, Vec<Server>> = BTreeMap::new();
        for server in tx.list_unfenced::<Server>()? {
            by_project.entry(server.project_id.clone()).or_default().push(server);
        }
        let mut usages = Vec::new();
        for (project, servers) in &by_project {
            usages.push(one(tx, project, servers, span, detailed)?);
        }
        Ok(Json(json!({"tenant_usages": usages})))
    })
}

async fn show(
    State(svc): Svc,
    ask: Ask,
    Path(project): Path<String>,
    query: Query,
) -> ApiResult<Json<Value>> {
    if !ask.caller.sees(&project) {
        ask.admin("os_compute_api:os-simple-tenant-usage:show")?;
    }
    let span = span(&query)?;
    svc.store.read(|tx| {
        let servers = tx.by_index::<Server>("project", &project)?;
        let usage = match servers.is_empty() {
            true => json!({}),
            false => one(tx, &project, &servers, span, true)?,
        };
        Ok(Json(json!({"tenant_usage": usage})))
    })
}
