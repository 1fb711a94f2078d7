//! Migrations: all of them, as administrators list them, and those of one server that run now.

use axum::extract::{Path, State};
use axum::response::Response;
use axum::{Json, Router, routing};
use cairn_gateway::{ApiError, ApiResult, Body, Page, Query};
use cairn_state::Tx;
use http::StatusCode;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Routes;
use super::ask::{self, Ask, Svc, empty, server};
use super::form::{self, invalid, micros};
use crate::model::{
    INDEX_SERVER, Migration, MigrationKind, MigrationStatus, MoveStatus, Moving, Progress, Server, Stage,
    move_status_id,
};
use crate::moves::log;

/// The routes.
pub fn routes() -> Routes {
    Router::new()
        .route("/os-migrations", routing::get(list))
        .route("/servers/{id}/migrations", routing::get(of_server))
        .route("/servers/{id}/migrations/{number}", routing::get(show).delete(abort))
        .route("/servers/{id}/migrations/{number}/action", routing::post(act))
}

/// Flavors are known by numbers here, as in the oldest clouds: the same for as long as the flavor lives.
fn flavor_number(id: &str) -> u32 {
    id.parse().unwrap_or_else(|_| {
        let hash = Sha256::digest(id.as_bytes());
        u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]) >> 1
    })
}

fn body(m: &Migration, ask: &Ask) -> Value {
    let mut out = json!({
        "id": m.number, "status": m.status.name(), "instance_uuid": m.server_id,
        "source_node": m.source, "source_compute": m.source, "dest_node": m.dest, "dest_compute": m.dest,
        "dest_host": null, "old_instance_type_id": flavor_number(&m.old_flavor),
        "new_instance_type_id": flavor_number(&m.new_flavor),
        "created_at": micros(m.created), "updated_at": m.updated.map(micros),
    });
    if ask.mv.since(23) {
        out["migration_type"] = json!(m.kind.name());
        if m.kind == MigrationKind::Live && !m.status.ended() {
            let at = format!("servers/{}/migrations", m.server_id);
            out["links"] = form::links(&ask.base, &at, &m.number.to_string());
        }
    }
    if ask.mv.since(59) {
        out["uuid"] = json!(m.uuid);
    }
    if ask.mv.since(80) {
        out["user_id"] = json!(m.user_id);
        out["project_id"] = json!(m.project_id);
    }
    out
}

/// The filters, each with the microversion it came with.
const FILTERS: [(&str, u32); 12] = [
    ("hidden", 1),
    ("host", 1),
    ("instance_uuid", 1),
    ("source_compute", 1),
    ("status", 1),
    ("migration_type", 1),
    ("limit", 59),
    ("marker", 59),
    ("changes-since", 59),
    ("changes-before", 66),
    ("user_id", 80),
    ("project_id", 80),
];

async fn list(State(svc): Svc, ask: Ask, query: Query) -> ApiResult<Json<Value>> {
    ask.admin("os_compute_api:os-migrations:index")?;
    if ask.mv.since(59) {
        let known = |k: &str| FILTERS.iter().any(|(name, since)| *name == k && ask.mv.since(*since));
        form::only(query.0.iter().map(|(k, _)| k), known)?;
    }
    let mut found = svc.store.read(|tx| candidates(tx, &query)).map_err(ApiError::from)?;
    filter(&mut found, &ask, &query)?;
    if !ask.mv.since(59) {
        let shown: Vec<_> = found.iter().map(|m| body(m, &ask)).collect();
        return Ok(Json(json!({"migrations": shown})));
    }
    // The newest first, as pages are.
    found.sort_by_key(|m| std::cmp::Reverse(m.number));
    let page = Page::cut(found, &query, |m| &m.uuid)?;
    let shown: Vec<_> = page.items.iter().map(|m| body(m, &ask)).collect();
    let mut out = json!({"migrations": shown});
    if let Some(next) = page.next {
        out["migrations_links"] = form::next_link(&ask.base, "os-migrations", &query, &next);
    }
    Ok(Json(out))
}

/// Those of the server that is named, else all.
fn candidates(tx: &mut Tx, query: &Query) -> Result<Vec<Migration>, cairn_state::Abort> {
    match query.get("instance_uuid") {
        Some(id) => tx.by_index::<Migration>(INDEX_SERVER, id),
        None => tx.list_unfenced::<Migration>(),
    }
}

fn filter(found: &mut Vec<Migration>, ask: &Ask, query: &Query) -> ApiResult<()> {
    let time = |key: &str, since: u32| match query.get(key).filter(|_| ask.mv.since(since)) {
        None => Ok(None),
        Some(text) => {
            form::parse_time(text).map(Some).ok_or_else(|| invalid(key, text, "is not a 'date-time'"))
        }
    };
    let (since, before) = (time("changes-since", 59)?, time("changes-before", 66)?);
    if let (Some(since), Some(before)) = (since, before)
        && before < since
    {
        return Err(ApiError::bad_request(
            "The value of changes-since must be less than or equal to changes-before.",
        ));
    }
    let is = |key: &str, value: &str| query.get(key).is_none_or(|wanted| wanted == value);
    found.retain(|m| {
        let changed = m.updated.unwrap_or(m.created);
        let owners = !ask.mv.since(80) || (is("user_id", &m.user_id) && is("project_id", &m.project_id));
        query.get("host").is_none_or(|h| h == m.source || h == m.dest)
            && is("source_compute", &m.source)
            && is("status", m.status.name())
            && is("migration_type", m.kind.name())
            && since.is_none_or(|t| changed >= t)
            && before.is_none_or(|t| changed <= t)
            && owners
    });
    Ok(())
}

/// The live migration a server is making now.
fn running(server: &Server) -> Option<&Moving> {
    server.moving.as_ref().filter(|m| m.live())
}

fn live_body(tx: &mut Tx, m: &Migration, ask: &Ask) -> ApiResult<Value> {
    let said = tx.get::<MoveStatus>(&move_status_id(&m.server_id, &m.source))?;
    let p = said.filter(|s| s.migration == m.uuid).map_or(Progress::default(), |s| s.progress);
    let mut out = json!({
        "id": m.number, "status": m.status.name(), "server_uuid": m.server_id,
        "source_node": m.source, "source_compute": m.source, "dest_node": m.dest, "dest_compute": m.dest,
        "dest_host": null, "created_at": micros(m.created), "updated_at": m.updated.map(micros),
        "memory_total_bytes": p.total, "memory_processed_bytes": p.processed,
        "memory_remaining_bytes": p.remaining,
        // Every node reaches every disk: none is copied.
        "disk_total_bytes": 0, "disk_processed_bytes": 0, "disk_remaining_bytes": 0,
    });
    if ask.mv.since(59) {
        out["uuid"] = json!(m.uuid);
    }
    if ask.mv.since(80) {
        out["user_id"] = json!(m.user_id);
        out["project_id"] = json!(m.project_id);
    }
    Ok(out)
}

async fn of_server(State(svc): Svc, ask: Ask, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    ask.mv.added_in(23)?;
    ask.admin("os_compute_api:servers:migrations:index")?;
    svc.store.read(|tx| {
        let found = server(tx, &ask.caller, &id)?;
        let migration = match running(&found) {
            Some(moving) => log::find(tx, moving.number)?,
            None => None,
        };
        let shown = migration.map(|m| live_body(tx, &m, &ask)).transpose()?;
        Ok(Json(json!({"migrations": shown.into_iter().collect::<Vec<_>>()})))
    })
}

/// The migration that is named, if it is the one the server is making.
fn named(server: &Server, number: &str) -> ApiResult<Moving> {
    let missing = || {
        let id = &server.id;
        let why = format!("In-progress live migration {number} is not found for server {id}.");
        ApiError::new(StatusCode::NOT_FOUND, why)
    };
    running(server).filter(|m| m.number.to_string() == number).cloned().ok_or_else(missing)
}

async fn show(
    State(svc): Svc,
    ask: Ask,
    Path((id, number)): Path<(String, String)>,
) -> ApiResult<Json<Value>> {
    ask.mv.added_in(23)?;
    ask.admin("os_compute_api:servers:migrations:show")?;
    svc.store.read(|tx| {
        let found = server(tx, &ask.caller, &id)?;
        let moving = named(&found, &number)?;
        let migration = log::find(tx, moving.number)?
            .ok_or_else(|| ApiError::internal("a server moves, and there is no record of it"))?;
        Ok(Json(json!({"migration": live_body(tx, &migration, &ask)?})))
    })
}

fn wrong_state(server: &Server, moving: &Moving, status: MigrationStatus, method: &str) -> ApiError {
    ApiError::bad_request(format!(
        "Migration {} state of instance {} is {}. Cannot {method} while the migration is in this state.",
        moving.number,
        server.id,
        status.name()
    ))
}

/// Since 2.24 a live migration that runs can be aborted, since 2.65 one that is being prepared too.
async fn abort(State(svc): Svc, ask: Ask, Path((id, number)): Path<(String, String)>) -> ApiResult<Response> {
    ask.mv.added_in(24)?;
    ask.admin("os_compute_api:servers:migrations:delete")?;
    let early = ask.mv.since(65);
    change(&svc, &ask, &id, &number, ("live_migration_abort", "abort"), early, |m| m.abort = true).await
}

/// `force_complete`, since 2.22: the guest is halted, so that the rest of its memory can follow.
async fn act(
    State(svc): Svc,
    ask: Ask,
    Path((id, number)): Path<(String, String)>,
    Body(json): Body<Value>,
) -> ApiResult<Response> {
    ask.mv.added_in(22)?;
    ask.admin("os_compute_api:servers:migrations:force_complete")?;
    match form::inner(&json, "force_complete")? {
        Value::Null => {}
        other => return Err(invalid("force_complete", other, "is not of type 'null'")),
    }
    let action = ("live_migration_force_complete", "force_complete");
    change(&svc, &ask, &id, &number, action, false, |m| m.force = true).await
}

async fn change(
    svc: &crate::Service,
    ask: &Ask,
    id: &str,
    number: &str,
    (action, method): (&str, &str),
    early: bool,
    how: impl Fn(&mut Moving),
) -> ApiResult<Response> {
    let actor = ask.actor();
    svc.store
        .transact(|tx| {
            let mut found = ask::own_server(tx, &ask.caller, id)?;
            let mut moving = named(&found, number)?;
            if moving.stage == Stage::Preparing && !early {
                return Err(wrong_state(&found, &moving, MigrationStatus::Preparing, method));
            }
            how(&mut moving);
            found.moving = Some(moving);
            found.touch();
            crate::actions::done(tx, &found, &actor, action)?;
            Ok(tx.put(&found)?)
        })
        .await?;
    Ok(empty(StatusCode::ACCEPTED))
}
