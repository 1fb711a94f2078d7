//! POST /servers/{id}/action: what can be done to a server. Each action changes its record; its node follows.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Json, http};
use cairn_gateway::{ApiError, ApiResult, Body};
use cairn_state::Tx;
use http::StatusCode;
use serde_json::{Value, json};

use super::ask::{self, Ask, Svc, empty, own_server, server, shown};
use super::form::{self, invalid};
use super::{server_image, server_move};
use crate::Service;
use crate::model::{BootKind, Lock, Power, Server};
use crate::{actions, state};

/// The actions that only change the wanted power: key, name for messages and log, and the states it is possible in.
const POWER: [(&str, &str, &[&str]); 4] = [
    ("os-stop", "stop", &["active", "error"]),
    ("os-start", "start", &["stopped"]),
    ("pause", "pause", &["active"]),
    ("unpause", "unpause", &["paused"]),
];

/// What only a server in a state can do that none here is ever in: always a conflict.
const NEVER: [(&str, &str); 4] =
    [("resume", "resume"), ("unrescue", "unrescue"), ("unshelve", "unshelve"), ("restore", "restore")];

/// What the API knows and this cloud does not do (yet): refused, with the reason.
const NOT_BUILT: [(&str, &str); 12] = [
    ("suspend", "Suspending to disk is not available here; pause or stop the server instead."),
    ("rebuild", "Rebuilding is not available here yet."),
    ("rescue", "Rescue mode is not available here yet."),
    ("shelve", "Shelving is not available here yet."),
    ("shelveOffload", "Shelving is not available here yet."),
    ("changePassword", "Passwords cannot be changed from outside the guest; use key pairs."),
    ("createBackup", "Rotating backups are not available here; use createImage."),
    ("trigger_crash_dump", "Crash dumps are not available here."),
    ("os-getVNCConsole", "Graphical consoles are not available here yet."),
    ("os-getSPICEConsole", "Graphical consoles are not available here."),
    ("os-getRDPConsole", "Graphical consoles are not available here."),
    ("os-getSerialConsole", "Interactive serial consoles are not available here yet; read the console log."),
];

/// What newer microversions no longer have: key and the first version without it.
const REMOVED: [(&str, u32); 9] = [
    ("addFloatingIp", 44),
    ("removeFloatingIp", 44),
    ("addFixedIp", 44),
    ("removeFixedIp", 44),
    ("os-getVNCConsole", 6),
    ("os-getSPICEConsole", 6),
    ("os-getRDPConsole", 6),
    ("os-getSerialConsole", 6),
    ("injectNetworkInfo", 1),
];

/// POST /servers/{id}/action
pub async fn act(
    State(svc): Svc,
    ask: Ask,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> ApiResult<Response> {
    let action = match body.as_object() {
        Some(map) if map.len() == 1 => map.iter().next(),
        _ => None,
    };
    let Some((key, argument)) = action else {
        return Err(ApiError::bad_request("Malformed request body: name one action."));
    };
    if let Some((_, since)) = REMOVED.iter().find(|(k, _)| k == key) {
        ask.mv.removed_since(*since)?;
    }
    dispatch(&svc, &ask, &id, key, argument).await
}

async fn dispatch(
    svc: &Arc<Service>,
    ask: &Ask,
    id: &str,
    key: &str,
    argument: &Value,
) -> ApiResult<Response> {
    if let Some((_, name, states)) = POWER.iter().find(|(k, _, _)| *k == key) {
        return power(svc, ask, id, (key, name, states)).await;
    }
    if let Some((_, name)) = NEVER.iter().find(|(k, _)| *k == key) {
        return never(svc, ask, id, name);
    }
    if let Some((_, why)) = NOT_BUILT.iter().find(|(k, _)| *k == key) {
        return not_built(svc, ask, id, why);
    }
    match key {
        "reboot" => reboot(svc, ask, id, argument).await,
        "forceDelete" => force_delete(svc, ask, id).await,
        "os-getConsoleOutput" => console(svc, ask, id, argument).await,
        "migrate" => server_move::migrate(svc, ask, id, argument).await,
        "os-migrateLive" => server_move::live(svc, ask, id, argument).await,
        "evacuate" => server_move::evacuate(svc, ask, id, argument).await,
        "resize" => server_move::resize(svc, ask, id, argument).await,
        "confirmResize" => server_move::confirm(svc, ask, id).await,
        "revertResize" => server_move::revert(svc, ask, id).await,
        "createImage" => server_image::create(svc, ask, id, argument).await,
        "os-resetState" => reset_state(svc, ask, id, argument).await,
        "lock" => lock(svc, ask, id, argument).await,
        "unlock" => unlock(svc, ask, id).await,
        "resetNetwork" => change(svc, ask, id, "resetNetwork", |_, _| Ok(())).await,
        "addSecurityGroup" => super::server_groups_of::change(svc, ask, id, argument, true).await,
        "removeSecurityGroup" => super::server_groups_of::change(svc, ask, id, argument, false).await,
        "addFloatingIp" | "removeFloatingIp" | "addFixedIp" | "removeFixedIp" => not_built(
            svc,
            ask,
            id,
            "Addresses are managed by the network service: use its floating IPs and ports.",
        ),
        _ => Err(ApiError::bad_request(format!("There is no such action: {key}"))),
    }
}

/// Refuses what is not built; who may not see the server learns only that.
fn not_built(svc: &Service, ask: &Ask, id: &str, why: &str) -> ApiResult<Response> {
    svc.store.read(|tx| own_server(tx, &ask.caller, id).map(drop))?;
    Err(ApiError::not_implemented(why))
}

/// Refuses what the server's state, whichever it is, does not allow.
fn never(svc: &Service, ask: &Ask, id: &str, name: &str) -> ApiResult<Response> {
    svc.store.read(|tx| {
        let found = own_server(tx, &ask.caller, id)?;
        state::require_unlocked(&found, ask.caller.is_admin())?;
        let now = shown(tx, &found)?;
        state::require(&found, now, name, &[]).map(|()| empty(StatusCode::ACCEPTED))
    })
}

/// Changes a server, which its node will follow.
async fn change(
    svc: &Service,
    ask: &Ask,
    id: &str,
    action: &str,
    how: impl FnMut(&mut Tx, &mut Server) -> ApiResult<()>,
) -> ApiResult<Response> {
    ask::change(svc, ask, id, action, how).await?;
    Ok(empty(StatusCode::ACCEPTED))
}

async fn power(
    svc: &Service,
    ask: &Ask,
    id: &str,
    (key, name, states): (&str, &str, &[&str]),
) -> ApiResult<Response> {
    change(svc, ask, id, name, |tx, found| {
        state::require(found, shown(tx, found)?, name, states)?;
        match key {
            "os-start" => found.order_boot(BootKind::Start),
            "os-stop" => wish(found, Power::Stopped),
            "pause" => wish(found, Power::Paused),
            _ => wish(found, Power::Running),
        }
        Ok(())
    })
    .await
}

fn wish(server: &mut Server, power: Power) {
    server.power = power;
    server.error = false;
    server.touch();
}

async fn reboot(svc: &Service, ask: &Ask, id: &str, argument: &Value) -> ApiResult<Response> {
    let kind = argument.get("type").and_then(Value::as_str).unwrap_or_default().to_ascii_uppercase();
    let (kind, states): (_, &[&str]) = match kind.as_str() {
        "SOFT" => (BootKind::Soft, &["active"]),
        "HARD" => (BootKind::Hard, &["active", "stopped", "paused", "error"]),
        other => return Err(invalid("type", other, "is not one of ['HARD', 'SOFT']")),
    };
    change(svc, ask, id, "reboot", |tx, found| {
        let now = shown(tx, found)?;
        // A reboot by force interrupts a gentle one that hangs.
        let hanging = kind == BootKind::Hard && now.task_state == Some("reboot_started");
        if !hanging {
            state::require(found, now, "reboot", states)?;
        }
        if found.host.is_none() {
            return Err(ApiError::conflict(format!("Instance {id} is on no host, so it cannot be started.")));
        }
        found.error = false;
        found.order_boot(kind);
        Ok(())
    })
    .await
}

async fn force_delete(svc: &Service, ask: &Ask, id: &str) -> ApiResult<Response> {
    let actor = ask.actor();
    svc.store
        .transact(|tx| {
            let mut found = own_server(tx, &ask.caller, id)?;
            state::require_unlocked(&found, ask.caller.is_admin())?;
            super::servers::doom(tx, &mut found, &actor)
        })
        .await?;
    Ok(empty(StatusCode::ACCEPTED))
}

async fn console(svc: &Service, ask: &Ask, id: &str, argument: &Value) -> ApiResult<Response> {
    let lines = match argument.get("length") {
        None | Some(Value::Null) => None,
        Some(v) => match form::integer("length", v, -1, 1 << 20)? {
            -1 => None,
            n => Some(n as u64),
        },
    };
    let found = svc.store.read(|tx| {
        let found = server(tx, &ask.caller, id)?;
        ask.caller.require_writer()?;
        if shown(tx, &found)?.vm_state == "building" || found.host.is_none() {
            return Err(ApiError::conflict(format!("Instance {id} is not ready")));
        }
        Ok::<_, ApiError>(found)
    })?;
    let output = svc.node.console(&found, lines).await?;
    Ok((StatusCode::OK, Json(json!({"output": output}))).into_response())
}

async fn reset_state(svc: &Service, ask: &Ask, id: &str, argument: &Value) -> ApiResult<Response> {
    ask.admin("os_compute_api:os-admin-actions:reset_state")?;
    let error = match argument.get("state").and_then(Value::as_str).map(str::to_ascii_lowercase).as_deref() {
        Some("error") => true,
        Some("active") => false,
        _ => return Err(invalid("state", argument, "is not one of ['active', 'error']")),
    };
    let actor = ask.actor();
    svc.store
        .transact(|tx| {
            let mut found = server(tx, &ask.caller, id)?;
            found.error = error;
            actions::done(tx, &found, &actor, "resetState")?;
            tx.put(&found)?;
            Ok::<_, ApiError>(())
        })
        .await?;
    Ok(empty(StatusCode::ACCEPTED))
}

async fn lock(svc: &Service, ask: &Ask, id: &str, argument: &Value) -> ApiResult<Response> {
    let reason = match argument.get("locked_reason") {
        Some(Value::String(s)) if ask.mv.since(73) && s.len() <= 255 && !s.is_empty() => Some(s.clone()),
        None if argument.is_null() || argument.as_object().is_some_and(serde_json::Map::is_empty) => None,
        None if !ask.mv.since(73) => None,
        _ => return Err(invalid("lock", argument, "is not valid")),
    };
    change_lock(svc, ask, id, "lock", |found| {
        let by_admin = ask.caller.is_admin() && found.project_id != ask.caller.project_id;
        found.lock = Some(Lock { by_admin, reason: reason.clone() });
        Ok(())
    })
    .await
}

async fn unlock(svc: &Service, ask: &Ask, id: &str) -> ApiResult<Response> {
    change_lock(svc, ask, id, "unlock", |found| {
        if found.lock.as_ref().is_some_and(|l| l.by_admin) && !ask.caller.is_admin() {
            return Err(ApiError::forbidden("An administrator locked this server; ask one to unlock it."));
        }
        found.lock = None;
        Ok(())
    })
    .await
}

async fn change_lock(
    svc: &Service,
    ask: &Ask,
    id: &str,
    action: &str,
    mut how: impl FnMut(&mut Server) -> ApiResult<()>,
) -> ApiResult<Response> {
    let actor = ask.actor();
    svc.store
        .transact(|tx| {
            let mut found = own_server(tx, &ask.caller, id)?;
            how(&mut found)?;
            actions::done(tx, &found, &actor, action)?;
            tx.put(&found)?;
            Ok::<_, ApiError>(())
        })
        .await?;
    Ok(empty(StatusCode::ACCEPTED))
}
