//! Hypervisors: the nodes as administrators see them, and what they have left.

use axum::extract::{Path, State};
use axum::{Json, Router, routing};
use cairn_gateway::{ApiError, ApiResult, Page, Query};
use cairn_placement::model::{DISK_GB, MEMORY_MB, ResourceProvider, VCPU};
use cairn_state::Tx;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Routes;
use super::ask::{Ask, Svc};
use super::form;
use crate::model::{InstanceStatus, PowerState, Server, hypervisor_uuid};
use crate::zones::{self, HostView};

/// The routes.
pub fn routes() -> Routes {
    Router::new()
        .route("/os-hypervisors", routing::get(list))
        .route("/os-hypervisors/detail", routing::get(detail))
        .route("/os-hypervisors/statistics", routing::get(statistics))
        .route("/os-hypervisors/{id}", routing::get(show))
        .route("/os-hypervisors/{id}/uptime", routing::get(uptime))
        .route("/os-hypervisors/{id}/servers", routing::get(servers))
        .route("/os-hypervisors/{id}/search", routing::get(search))
}

const RULE: &str = "os_compute_api:os-hypervisors:list";

/// The id: a number before 2.53, a UUID since.
fn id_of(node: &str, at: usize, ask: &Ask) -> Value {
    if ask.mv.since(53) { json!(hypervisor_uuid(node)) } else { json!(at + 1) }
}

fn brief(host: &HostView, at: usize, ask: &Ask) -> Value {
    json!({
        "id": id_of(&host.status.node, at, ask), "hypervisor_hostname": host.status.node,
        "state": if host.up { "up" } else { "down" },
        "status": if host.policy.disabled { "disabled" } else { "enabled" },
    })
}

/// What a node has and has given away.
#[derive(Debug, Default, Clone, Copy)]
struct Amounts {
    vcpus: u64,
    vcpus_used: u64,
    memory_mb: u64,
    memory_mb_used: u64,
    disk_gb: u64,
    disk_gb_used: u64,
    running: u64,
}

fn amounts(tx: &mut Tx, host: &HostView) -> ApiResult<Amounts> {
    let provider = tx.get::<ResourceProvider>(&hypervisor_uuid(&host.status.node))?;
    let used = |class: &str| provider.as_ref().and_then(|p| p.used.get(class)).copied().unwrap_or(0);
    let total = |class: &str| provider.as_ref().and_then(|p| p.inventories.get(class)).map_or(0, |i| i.total);
    let mut running = 0;
    for server in tx.by_index::<Server>("host", &host.status.node)? {
        let seen = tx.get::<InstanceStatus>(&server.id)?;
        running += u64::from(seen.is_some_and(|s| s.power_state == PowerState::Running));
    }
    Ok(Amounts {
        vcpus: u64::from(host.status.vcpus),
        vcpus_used: used(VCPU),
        memory_mb: host.status.memory_mb,
        memory_mb_used: used(MEMORY_MB),
        disk_gb: total(DISK_GB),
        disk_gb_used: used(DISK_GB),
        running,
    })
}

fn full(tx: &mut Tx, host: &HostView, at: usize, ask: &Ask) -> ApiResult<Value> {
    let mut out = brief(host, at, ask);
    let node = &host.status.node;
    out["host_ip"] = Value::Null;
    out["hypervisor_type"] = json!(if host.status.accelerator == "kvm" { "KVM" } else { "QEMU" });
    out["hypervisor_version"] = json!(host.status.hypervisor_version);
    out["service"] = json!({
        "host": node, "id": if ask.mv.since(53) { json!(service_uuid(node)) } else { json!(at + 1) },
        "disabled_reason": host.policy.disabled_reason,
    });
    if ask.mv.since(88) {
        out["uptime"] = json!(uptime_text(host));
    } else {
        let a = amounts(tx, host)?;
        let info = json!({"arch": host.status.arch, "model": host.status.cpu_model, "vendor": "", "features": [],
            "topology": {"sockets": 1, "cores": host.status.vcpus, "threads": 1}});
        out["cpu_info"] = if ask.mv.since(28) { info } else { json!(info.to_string()) };
        extend(&mut out, numbers(a));
    }
    if ask.mv.since(53) {
        let held = held(tx, node)?;
        if !held.is_empty() {
            out["servers"] = json!(held);
        }
    }
    Ok(out)
}

fn extend(out: &mut Value, more: Value) {
    if let (Some(out), Value::Object(more)) = (out.as_object_mut(), more) {
        out.extend(more);
    }
}

fn numbers(a: Amounts) -> Value {
    json!({
        "vcpus": a.vcpus, "vcpus_used": a.vcpus_used, "memory_mb": a.memory_mb, "memory_mb_used": a.memory_mb_used,
        "free_ram_mb": a.memory_mb.saturating_sub(a.memory_mb_used), "local_gb": a.disk_gb,
        "local_gb_used": a.disk_gb_used, "free_disk_gb": a.disk_gb.saturating_sub(a.disk_gb_used),
        "disk_available_least": a.disk_gb.saturating_sub(a.disk_gb_used), "running_vms": a.running,
        "current_workload": 0,
    })
}

/// The UUID of a node's compute service.
pub fn service_uuid(node: &str) -> String {
    hypervisor_uuid(&format!("service {node}"))
}

fn held(tx: &mut Tx, node: &str) -> ApiResult<Vec<Value>> {
    let servers = tx.by_index::<Server>("host", node)?;
    Ok(servers
        .iter()
        .map(|s| json!({"name": crate::agent::domain_xml::domain_name(&s.id), "uuid": s.id}))
        .collect())
}

fn uptime_text(host: &HostView) -> String {
    let up = Timestamp::now().as_second().saturating_sub(host.status.booted_at.as_second()).max(0);
    let (days, hours, minutes) = (up / 86_400, up / 3600 % 24, up / 60 % 60);
    format!("up {days} days, {hours:2}:{minutes:02}")
}

async fn list(State(svc): Svc, ask: Ask, query: Query) -> ApiResult<Json<Value>> {
    ask.admin(RULE)?;
    answer(&svc, &ask, &query, "os-hypervisors", |_, host, at| Ok(brief(host, at, &ask)))
}

async fn detail(State(svc): Svc, ask: Ask, query: Query) -> ApiResult<Json<Value>> {
    ask.admin(RULE)?;
    answer(&svc, &ask, &query, "os-hypervisors/detail", |tx, host, at| full(tx, host, at, &ask))
}

fn answer(
    svc: &crate::Service,
    ask: &Ask,
    query: &Query,
    path: &str,
    show: impl Fn(&mut Tx, &HostView, usize) -> ApiResult<Value>,
) -> ApiResult<Json<Value>> {
    svc.store.read(|tx| {
        let pattern = query.get("hypervisor_hostname_pattern").filter(|_| ask.mv.since(53)).unwrap_or("");
        let all = zones::hosts(tx)?.into_iter().enumerate().filter(|(_, h)| h.status.node.contains(pattern));
        let mut shown = Vec::new();
        for (at, host) in all {
            shown.push(show(tx, &host, at)?);
        }
        if !ask.mv.since(33) {
            return Ok(Json(json!({"hypervisors": shown})));
        }
        let shown: Vec<(String, Value)> =
            shown.into_iter().map(|v| (v["id"].to_string().replace('"', ""), v)).collect();
        let page = Page::cut(shown, query, |(id, _)| id)?;
        let mut out = json!({"hypervisors": page.items.into_iter().map(|(_, v)| v).collect::<Vec<_>>()});
        if let Some(next) = page.next {
            out["hypervisors_links"] = form::next_link(&ask.base, path, query, &next);
        }
        Ok(Json(out))
    })
}

fn find(tx: &mut Tx, ask: &Ask, id: &str) -> ApiResult<(usize, HostView)> {
    let matches = |(at, h): &(usize, HostView)| match ask.mv.since(53) {
        true => hypervisor_uuid(&h.status.node) == id,
        false => (at + 1).to_string() == id,
    };
    zones::hosts(tx)?.into_iter().enumerate().find(matches).ok_or_else(|| no_host(id))
}

fn no_host(id: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("Hypervisor with ID '{id}' could not be found."))
}

async fn show(State(svc): Svc, ask: Ask, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    ask.admin("os_compute_api:os-hypervisors:show")?;
    svc.store.read(|tx| {
        let (at, host) = find(tx, &ask, &id)?;
        Ok(Json(json!({"hypervisor": full(tx, &host, at, &ask)?})))
    })
}

async fn uptime(State(svc): Svc, ask: Ask, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    ask.mv.removed_since(88)?;
    ask.admin("os_compute_api:os-hypervisors:uptime")?;
    svc.store.read(|tx| {
        let (at, host) = find(tx, &ask, &id)?;
        let mut out = brief(&host, at, &ask);
        out["uptime"] = json!(uptime_text(&host));
        Ok(Json(json!({"hypervisor": out})))
    })
}

/// The hypervisors whose name holds this text, with their servers.
async fn servers(State(svc): Svc, ask: Ask, Path(name): Path<String>) -> ApiResult<Json<Value>> {
    by_name(&svc, &ask, &name, true)
}

async fn search(State(svc): Svc, ask: Ask, Path(name): Path<String>) -> ApiResult<Json<Value>> {
    by_name(&svc, &ask, &name, false)
}

fn by_name(svc: &crate::Service, ask: &Ask, name: &str, with_servers: bool) -> ApiResult<Json<Value>> {
    ask.mv.removed_since(53)?;
    ask.admin("os_compute_api:os-hypervisors:search")?;
    svc.store.read(|tx| {
        let mut shown = Vec::new();
        for (at, host) in
            zones::hosts(tx)?.into_iter().enumerate().filter(|(_, h)| h.status.node.contains(name))
        {
            let mut out = brief(&host, at, ask);
            if with_servers {
                let held = held(tx, &host.status.node)?;
                if !held.is_empty() {
                    out["servers"] = json!(held);
                }
            }
            shown.push(out);
        }
        match shown.is_empty() {
            true => Err(ApiError::new(
                StatusCode::NOT_FOUND,
                format!("No hypervisor matching '{name}' could be found."),
            )),
            false => Ok(Json(json!({"hypervisors": shown}))),
        }
    })
}

async fn statistics(State(svc): Svc, ask: Ask) -> ApiResult<Json<Value>> {
    ask.mv.removed_since(88)?;
    ask.admin("os_compute_api:os-hypervisors:statistics")?;
    svc.store.read(|tx| {
        let hosts = zones::hosts(tx)?;
        let mut sum = Amounts::default();
        for host in &hosts {
            let a = amounts(tx, host)?;
            sum.vcpus += a.vcpus;
            sum.vcpus_used += a.vcpus_used;
            sum.memory_mb += a.memory_mb;
            sum.memory_mb_used += a.memory_mb_used;
            sum.disk_gb += a.disk_gb;
            sum.disk_gb_used += a.disk_gb_used;
            sum.running += a.running;
        }
        let mut out = numbers(sum);
        out["count"] = json!(hosts.len());
        Ok(Json(json!({"hypervisor_statistics": out})))
    })
}
