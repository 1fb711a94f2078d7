//! The log of what was done to each server.

use cairn_gateway::{Caller, RequestId};
use cairn_state::{Abort, Tx};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{ActionEntry, ActionLog, Server};

/// Who does something, by which request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The user.
    pub user_id: String,
    /// The project of the user's token.
    pub project_id: String,
    /// The request.
    pub request_id: String,
}

impl Actor {
    /// The actor behind a request.
    pub fn new(caller: &Caller, request_id: &RequestId) -> Actor {
        Actor {
            user_id: caller.user_id.clone(),
            project_id: caller.project_id.clone(),
            request_id: request_id.0.clone(),
        }
    }

    /// The cloud itself, in a request of its own.
    pub fn cloud() -> Actor {
        Actor { request_id: format!("req-{}", uuid::Uuid::new_v4()), ..Actor::default() }
    }
}

/// Notes that something begins. The conductor notes its end, when the server rests again.
pub fn begin(tx: &mut Tx, server: &mut Server, actor: &Actor, action: &str) -> Result<(), Abort> {
    server.open_action = Some(actor.request_id.clone());
    note(tx, server, actor, action, None)
}

/// Notes something that is done at once.
pub fn done(tx: &mut Tx, server: &Server, actor: &Actor, action: &str) -> Result<(), Abort> {
    note(tx, server, actor, action, Some(Timestamp::now()))
}

/// Notes that a node could not do what the server's open request had begun.
pub fn failed_on(tx: &mut Tx, server: &Server, node: &str, why: &str) -> Result<(), Abort> {
    let mut log = log_of(tx, server)?;
    let now = Timestamp::now();
    log.push(ActionEntry {
        action: "reschedule".into(),
        request_id: server.open_action.clone().unwrap_or_default(),
        user_id: server.user_id.clone(),
        project_id: server.project_id.clone(),
        start: now,
        finish: Some(now),
        message: Some(format!("{node}: {why}")),
    });
    tx.put(&log)
}

fn note(
    tx: &mut Tx,
    server: &Server,
    actor: &Actor,
    action: &str,
    finish: Option<Timestamp>,
) -> Result<(), Abort> {
    let mut log = log_of(tx, server)?;
    log.push(ActionEntry {
        action: action.into(),
        request_id: actor.request_id.clone(),
        user_id: actor.user_id.clone(),
        project_id: actor.project_id.clone(),
        start: Timestamp::now(),
        finish,
        message: None,
    });
    log.host.clone_from(&server.host);
    tx.put(&log)
}

fn log_of(tx: &mut Tx, server: &Server) -> Result<ActionLog, Abort> {
    let new = || ActionLog {
        server_id: server.id.clone(),
        project_id: server.project_id.clone(),
        host: server.host.clone(),
        entries: Vec::new(),
        deleted_on: None,
    };
    Ok(tx.get::<ActionLog>(&server.id)?.unwrap_or_else(new))
}

/// Notes the end of what a server's open request had begun.
pub fn finish(tx: &mut Tx, server: &mut Server, message: Option<&str>) -> Result<(), Abort> {
    let Some(request_id) = server.open_action.take() else { return Ok(()) };
    let mut log = log_of(tx, server)?;
    let open = log.entries.iter_mut().filter(|e| e.request_id == request_id && e.finish.is_none());
    for entry in open {
        entry.finish = Some(Timestamp::now());
        entry.message = message.map(str::to_owned);
    }
    tx.put(&log)
}

/// Closes the log of a server that is gone; it is kept for some days.
pub fn close(tx: &mut Tx, server: &mut Server) -> Result<(), Abort> {
    finish(tx, server, None)?;
    let mut log = log_of(tx, server)?;
    log.deleted_on = Some(Timestamp::now().strftime("%Y-%m-%d").to_string());
    tx.put(&log)
}

/// For how many days the log of a deleted server is kept.
const KEPT_DAYS: i64 = 7;

/// Removes the logs of servers deleted too long ago.
pub fn purge(tx: &mut Tx, now: Timestamp) -> Result<(), Abort> {
    for age in KEPT_DAYS + 1..KEPT_DAYS + 8 {
        let day = Timestamp::from_second(now.as_second() - age * 86_400).unwrap_or(now);
        let day = day.strftime("%Y-%m-%d").to_string();
        for log in tx.by_index::<ActionLog>("deleted", &day)? {
            tx.delete::<ActionLog>(&log.server_id)?;
        }
    }
    Ok(())
}
