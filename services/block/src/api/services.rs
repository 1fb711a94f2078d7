//! `/os-services` and `/os-hosts`: the service's parts by the names the field gives them, and which take no more volumes.
//!
//! Each backend of a node with disks is a `cinder-volume`; one that is disabled keeps its volumes and is given no new ones.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use cairn_gateway::{ApiError, ApiResult, Body, Caller, Query};
use cairn_state::Tx;
use serde_json::{Value, json};

use super::Svc;
use super::context::Context;
use super::info::now;
use super::input::{self, Fields};
use crate::ZONE;
use crate::capacity::{self, BACKENDS};
use crate::elsewhere;
use crate::model::{BY_LISTED, Disabled, LISTED, Snapshot, Volume};

/// What takes volumes.
const VOLUMES: &str = "cinder-volume";
/// What chooses where they go.
const SCHEDULER: &str = "cinder-scheduler";
/// Why a frozen service is disabled.
const FROZEN: &str = "frozen";

/// A part of the service.
struct Part {
    binary: &'static str,
    host: String,
    /// Whether it can be used now.
    up: bool,
    disabled: Option<Disabled>,
}

impl Part {
    fn status(&self) -> &'static str {
        if self.disabled.is_some() { "disabled" } else { "enabled" }
    }

    fn reason(&self) -> Option<&String> {
        self.disabled.as_ref().and_then(|d| d.reason.as_ref())
    }
}

/// The node of a host's name.
fn node_of(host: &str) -> &str {
    host.split('@').next().unwrap_or_default()
}

/// One that schedules, one for each backend of a node with disks, and one for each that is elsewhere.
fn parts(tx: &mut Tx) -> ApiResult<Vec<Part>> {
    let mut parts = Vec::new();
    for pool in capacity::pools(tx)? {
        for backend in BACKENDS {
            let host = capacity::service_host(&pool.node, backend);
            let disabled = tx.get::<Disabled>(&host)?;
            parts.push(Part { binary: VOLUMES, host, up: true, disabled });
        }
    }
    for pool in elsewhere::pools(tx)? {
        let host = capacity::service_host(elsewhere::HOST, &pool.backend);
        parts.push(Part { binary: VOLUMES, host, up: pool.up, disabled: pool.disabled });
    }
    if let Some(first) = parts.first() {
        let scheduler =
            Part { binary: SCHEDULER, host: node_of(&first.host).to_owned(), up: true, disabled: None };
        parts.insert(0, scheduler);
    }
    Ok(parts)
}

/// `GET /os-services[?binary=...][&host=...]`
pub async fn list(State(svc): Svc, ctx: Context, query: Query) -> ApiResult<Json<Value>> {
    ctx.caller.require_admin()?;
    let matches = |part: &Part| {
        let binary_ok = query.get("binary").is_none_or(|b| b == part.binary);
        binary_ok && query.get("host").is_none_or(|h| h == part.host || node_of(&part.host) == h)
    };
    let shown: Vec<_> = svc.store.read(parts)?.iter().filter(|p| matches(p)).map(row).collect();
    Ok(Json(json!({"services": shown})))
}

fn row(part: &Part) -> Value {
    json!({
        "binary": part.binary,
        "host": part.host,
        "zone": ZONE,
        "status": part.status(),
        "state": if part.up { "up" } else { "down" },
        "updated_at": now(),
        "disabled_reason": part.reason(),
    })
}

/// What a body names: a host, and for most changes the binary, under either of its keys.
fn named(fields: &Fields) -> ApiResult<(String, Option<String>)> {
    let host = input::reference(fields, "host")?.ok_or_else(|| input::invalid("host", "it is required"))?;
    Ok((host, input::reference(fields, "binary")?.or(input::reference(fields, "service")?)))
}

async fn change(
    svc: &Svc,
    ctx: &Context,
    fields: &Fields,
    disabled: Option<Option<String>>,
) -> ApiResult<Value> {
    ctx.caller.require_admin()?;
    let (host, binary) = named(fields)?;
    let binary = binary.ok_or_else(|| input::invalid("binary", "it is required"))?;
    let part = svc
        .store
        .transact(|tx| {
            let found = parts(tx)?.into_iter().find(|p| p.binary == binary && is_of(p, &host));
            let mut part =
                found.ok_or_else(|| ApiError::not_found("Service", &format!("{binary} on {host}")))?;
            if part.binary == SCHEDULER {
                return Err(ApiError::bad_request(
                    "The scheduler is part of every node and cannot be disabled.",
                ));
            }
            part.disabled = set(tx, &part.host, disabled.clone())?;
            Ok(part)
        })
        .await?;
    Ok(json!({
        "host": part.host,
        "binary": part.binary,
        "service": part.binary,
        "disabled": part.disabled.is_some(),
        "status": part.status(),
        "disabled_reason": part.reason(),
    }))
}

/// Whether a part is what a host's name means: a backend, or with a node's name alone the first one there.
fn is_of(part: &Part, host: &str) -> bool {
    part.host == host || node_of(&part.host) == host
}

fn set(tx: &mut Tx, host: &str, disabled: Option<Option<String>>) -> ApiResult<Option<Disabled>> {
    let disabled = disabled.map(|reason| Disabled { host: host.into(), reason });
    match &disabled {
        Some(disabled) => tx.put(disabled)?,
        None => drop(tx.delete::<Disabled>(host)?),
    }
    Ok(disabled)
}

fn fields(body: Value) -> ApiResult<Fields> {
    match body {
        Value::Object(fields) => Ok(fields),
        _ => Err(ApiError::bad_request("The request body must be an object.")),
    }
}

/// `PUT /os-services/enable`
pub async fn enable(State(svc): Svc, ctx: Context, Body(body): Body<Value>) -> ApiResult<Json<Value>> {
    Ok(Json(change(&State(svc), &ctx, &fields(body)?, None).await?))
}

/// `PUT /os-services/disable`
pub async fn disable(State(svc): Svc, ctx: Context, Body(body): Body<Value>) -> ApiResult<Json<Value>> {
    let mut shown = change(&State(svc), &ctx, &fields(body)?, Some(None)).await?;
    if let Some(shown) = shown.as_object_mut() {
        shown.remove("disabled_reason");
    }
    Ok(Json(shown))
}

/// `PUT /os-services/disable-log-reason`
pub async fn disable_for(State(svc): Svc, ctx: Context, Body(body): Body<Value>) -> ApiResult<Json<Value>> {
    let fields = fields(body)?;
    let reason = input::reference(&fields, "disabled_reason")?;
    let reason = reason.ok_or_else(|| input::invalid("disabled_reason", "it is required"))?;
    Ok(Json(change(&State(svc), &ctx, &fields, Some(Some(reason))).await?))
}

/// `PUT /os-services/freeze`: as disabling, by another name.
pub async fn freeze(State(svc): Svc, ctx: Context, Body(body): Body<Value>) -> ApiResult<StatusCode> {
    hold(&State(svc), &ctx, body, Some(Some(FROZEN.to_owned()))).await
}

/// `PUT /os-services/thaw`
pub async fn thaw(State(svc): Svc, ctx: Context, Body(body): Body<Value>) -> ApiResult<StatusCode> {
    hold(&State(svc), &ctx, body, None).await
}

async fn hold(
    svc: &Svc,
    ctx: &Context,
    body: Value,
    disabled: Option<Option<String>>,
) -> ApiResult<StatusCode> {
    ctx.caller.require_admin()?;
    let (host, _) = named(&fields(body)?)?;
    svc.store
        .transact(|tx| {
            let found = parts(tx)?.into_iter().find(|p| p.binary == VOLUMES && is_of(p, &host));
            let part = found
                .ok_or_else(|| ApiError::bad_request(format!("There is no host {host} with volumes.")))?;
            set(tx, &part.host, disabled.clone())?;
            Ok(StatusCode::OK)
        })
        .await
}

/// `GET /os-hosts`
pub async fn hosts(State(svc): Svc, caller: Caller) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let row = |part: &Part| {
        json!({
            "service-status": "available",
            "service": part.binary,
            "zone": ZONE,
            "service-state": part.status(),
            "host_name": part.host,
            "last-update": now(),
        })
    };
    Ok(Json(json!({"hosts": svc.store.read(parts)?.iter().map(row).collect::<Vec<_>>()})))
}

/// `GET /os-hosts/{host}`: what is on a node, in all and by project.
pub async fn show_host(State(svc): Svc, caller: Caller, Path(host): Path<String>) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let (node, backend) = capacity::parse_host(&host).ok_or_else(|| ApiError::not_found("Host", &host))?;
    let (volumes, snapshots) = svc.store.read(|tx| {
        let own = capacity::is_own(backend) && capacity::pools(tx)?.iter().any(|p| p.node == node);
        if !own && !elsewhere::exists(tx, node, backend)? {
            return Err(ApiError::not_found("Host", &host));
        }
        Ok((tx.by_index::<Volume>(BY_LISTED, LISTED)?, tx.by_index::<Snapshot>(BY_LISTED, LISTED)?))
    })?;
    let mut sums: BTreeMap<String, [u64; 4]> = BTreeMap::from([(TOTAL.to_owned(), [0; 4])]);
    let mut add = |project: &str, amounts: [u64; 4]| {
        for key in [TOTAL, project] {
            let sum = sums.entry(key.to_owned()).or_default();
            sum.iter_mut().zip(amounts).for_each(|(s, a)| *s += a);
        }
    };
    let here: BTreeMap<&str, &Volume> = volumes
        .iter()
        .filter(|v| elsewhere::shown_node(&v.backend, &v.node) == node && v.backend == backend)
        .map(|v| (v.id.as_str(), v))
        .collect();
    here.values().for_each(|v| add(&v.project_id, [1, v.size_gb, 0, 0]));
    let with_it = snapshots.iter().filter(|s| here.contains_key(s.volume_id.as_str()));
    with_it.for_each(|s| add(&s.project_id, [0, 0, 1, s.size_gb]));
    let rows: Vec<_> = sums.iter().map(|(project, sum)| host_row(&host, project, *sum)).collect();
    Ok(Json(json!({"host": rows})))
}

/// The row that sums up all projects; it sorts before any project's id.
const TOTAL: &str = "(total)";

fn host_row(host: &str, project: &str, sum: [u64; 4]) -> Value {
    let [volumes, volume_gb, snapshots, snapshot_gb] = sum.map(|n| n.to_string());
    json!({"resource": {
        "host": host,
        "project": project,
        "volume_count": volumes,
        "total_volume_gb": volume_gb,
        "snapshot_count": snapshots,
        "total_snapshot_gb": snapshot_gb,
    }})
}
