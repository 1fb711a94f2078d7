//! Maintenance: empties a node. It takes no new servers from then on, its running guests are moved live, those that
//! are off are moved as they are, a few at a time. What cannot be moved is named, with the reason.
//!
//! The wish stands in the node's policy; what is left follows from the servers, so it goes on after any restart.

use std::sync::Arc;
use std::time::Duration;

use cairn_gateway::{ApiError, ApiResult};
use cairn_state::{Abort, Tx};
use jiff::Timestamp;
use serde::Serialize;

use crate::actions::Actor;
use crate::model::{HostPolicy, INDEX_SERVER, InstanceStatus, Migration, MigrationStatus, Moving, Server};
use crate::moves::begin;
use crate::{Service, actions, state, zones};

/// How many servers leave a node at a time.
const AT_A_TIME: usize = 2;
/// How long it waits before it tries a server again whose move failed, in seconds.
const RETRY_S: i64 = 60;
/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A server that cannot be moved now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stuck {
    /// The server.
    pub server_id: String,
    /// Why.
    pub why: String,
}

/// How far the emptying of a node is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Whether it is being emptied at all.
    pub draining: bool,
    /// The servers still there.
    pub left: usize,
    /// Those of them that are on their way.
    pub moving: usize,
    /// Those that cannot be moved now.
    pub stuck: Vec<Stuck>,
}

impl Progress {
    /// Whether the node is empty.
    pub fn done(&self) -> bool {
        self.draining && self.left == 0
    }
}

/// Begins to empty a node: disables its compute service, for this reason. 404 if there is no such node.
pub async fn drain(svc: &Service, node: &str, actor: &Actor, reason: Option<&str>) -> ApiResult<()> {
    svc.store.transact(|tx| set(tx, node, Some(actor), reason)).await
}

/// Ends that: the node takes servers again. Those that are on their way go on.
pub async fn undrain(svc: &Service, node: &str) -> ApiResult<()> {
    svc.store.transact(|tx| set(tx, node, None, None)).await
}

fn set(tx: &mut Tx, node: &str, actor: Option<&Actor>, reason: Option<&str>) -> ApiResult<()> {
    let host = zones::host(tx, node)?.ok_or_else(|| ApiError::not_found("Compute host", node))?;
    let policy = HostPolicy {
        disabled: actor.is_some(),
        disabled_reason: actor.map(|_| reason.unwrap_or("maintenance").to_owned()),
        draining: actor.cloned(),
        ..host.policy
    };
    Ok(tx.put(&policy)?)
}

/// How far the emptying of a node is. 404 if there is no such node.
pub fn progress(svc: &Service, node: &str) -> ApiResult<Progress> {
    svc.store.read(|tx| {
        let host = zones::host(tx, node)?.ok_or_else(|| ApiError::not_found("Compute host", node))?;
        let mut found = Progress { draining: host.policy.draining.is_some(), ..Progress::default() };
        for server in tx.by_index::<Server>("host", node)? {
            found.left += 1;
            match next(tx, &server)? {
                Next::OnItsWay => found.moving += 1,
                Next::Stuck(why) => found.stuck.push(Stuck { server_id: server.id, why }),
                Next::Live | Next::Cold | Next::Wait => {}
            }
        }
        Ok(found)
    })
}

/// What is to be done with a server of a node that is emptied.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Next {
    Live,
    Cold,
    OnItsWay,
    Wait,
    Stuck(String),
}

fn next(tx: &mut Tx, server: &Server) -> Result<Next, Abort> {
    let seen = tx.get::<InstanceStatus>(&server.id)?;
    let now = state::shown(server, seen.as_ref());
    let last = tx.by_index::<Migration>(INDEX_SERVER, &server.id)?.pop();
    Ok(decide(server, now, last.as_ref(), Timestamp::now()))
}

fn decide(server: &Server, now: state::Shown, last: Option<&Migration>, at: Timestamp) -> Next {
    if server.moving.as_ref().is_some_and(Moving::open) {
        return Next::OnItsWay;
    }
    let failed =
        last.filter(|m| m.status == MigrationStatus::Error && server.host.as_ref() == Some(&m.source));
    let lately = |m: &&Migration| at.as_second() - m.updated.unwrap_or(m.created).as_second() < RETRY_S;
    if let Some(m) = failed.filter(lately) {
        return Next::Stuck(m.message.clone().unwrap_or_else(|| "its move failed".into()));
    }
    match (now.vm_state, now.task_state) {
        ("error", _) => Next::Stuck("it is in error".into()),
        ("resized", None) => Next::Stuck("its user is to confirm or revert its move".into()),
        (_, Some(_)) => Next::Wait,
        ("active" | "paused", None) => Next::Live,
        ("stopped", None) => Next::Cold,
        (other, None) => Next::Stuck(format!("it is {other}")),
    }
}

/// Empties the nodes that are to be emptied; never returns.
pub async fn follow(svc: Arc<Service>) {
    loop {
        if let Err(error) = pass(&svc).await {
            tracing::warn!(%error, "a node that is to be emptied could not be looked at");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn pass(svc: &Service) -> Result<(), Abort> {
    let policies = svc.store.read(|tx| tx.list_unfenced::<HostPolicy>())?;
    for policy in policies {
        let Some(actor) = &policy.draining else { continue };
        let servers = svc.store.read(|tx| tx.by_index::<Server>("host", &policy.node))?;
        let open = servers.iter().filter(|s| s.moving.as_ref().is_some_and(Moving::open)).count();
        let mut places = AT_A_TIME.saturating_sub(open);
        for server in servers {
            if places == 0 {
                break;
            }
            let done: Result<bool, ApiError> =
                svc.store.transact(|tx| send_off(tx, &server.id, &policy.node, actor)).await;
            match done {
                Ok(true) => places -= 1,
                Ok(false) => {}
                Err(error) => tracing::debug!(server = server.id, %error, "it cannot leave its node yet"),
            }
        }
    }
    Ok(())
}

/// Begins to move one server, if it can be now.
fn send_off(tx: &mut Tx, id: &str, node: &str, actor: &Actor) -> ApiResult<bool> {
    let Some(mut server) = tx.get::<Server>(id)? else { return Ok(false) };
    if server.host.as_deref() != Some(node) || server.deleted {
        return Ok(false);
    }
    let plan = begin::Plan { user_id: actor.user_id.clone(), ..begin::Plan::default() };
    let action = match next(tx, &server)? {
        Next::Live => {
            begin::live(tx, &mut server, &plan)?;
            "live-migration"
        }
        Next::Cold => {
            begin::cold(tx, &mut server, &plan)?;
            "migrate"
        }
        _ => return Ok(false),
    };
    actions::begin(
        tx,
        &mut server,
        &Actor { request_id: Actor::cloud().request_id, ..actor.clone() },
        action,
    )?;
    tx.put(&server)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{MigrationKind, PowerState};
    use crate::testing::{NODE, seen, server};

    fn next(s: &Server, power: PowerState, last: Option<&Migration>, at_s: i64) -> Next {
        let now = state::shown(s, Some(&seen("s1", 1, power)));
        decide(s, now, last, Timestamp::from_second(at_s).unwrap())
    }

    #[test]
    fn what_runs_is_moved_live_and_what_is_off_as_it_is() {
        let mut s = server("s1");
        assert_eq!(next(&s, PowerState::Running, None, 0), Next::Live);
        s.power = crate::model::Power::Stopped;
        assert_eq!(next(&s, PowerState::Shutdown, None, 0), Next::Cold);
        assert_eq!(next(&s, PowerState::Running, None, 0), Next::Wait, "it is being stopped");
        s.error = true;
        assert_eq!(next(&s, PowerState::Running, None, 0), Next::Stuck("it is in error".into()));
    }

    #[test]
    fn a_move_that_failed_is_not_tried_again_at_once() {
        let failed = Migration {
            number: 1,
            uuid: "m".into(),
            server_id: "s1".into(),
            project_id: "p".into(),
            user_id: String::new(),
            kind: MigrationKind::Live,
            source: NODE.into(),
            dest: "b".into(),
            status: MigrationStatus::Error,
            old_flavor: "1".into(),
            new_flavor: "1".into(),
            created: Timestamp::UNIX_EPOCH,
            updated: None,
            message: Some("no".into()),
        };
        let s = server("s1");
        assert_eq!(next(&s, PowerState::Running, Some(&failed), 59), Next::Stuck("no".into()));
        assert_eq!(next(&s, PowerState::Running, Some(&failed), 60), Next::Live);
        let there = Migration { source: "b".into(), ..failed };
        assert_eq!(next(&s, PowerState::Running, Some(&there), 0), Next::Live, "that was elsewhere");
    }
}
