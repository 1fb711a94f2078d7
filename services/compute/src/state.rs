//! What a server's state is called, given what was wanted and what its node sees. Pure: nothing is stored, so it
//! can never be stale.

use cairn_gateway::{ApiError, ApiResult};

use crate::model::{BootKind, InstanceStatus, MigrationKind, Moving, Power, PowerState, Server, Stage};

/// A server's state in Nova's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// The status users see.
    pub status: &'static str,
    /// The state it rests in.
    pub vm_state: &'static str,
    /// What is being done to it.
    pub task_state: Option<&'static str>,
    /// Its power.
    pub power: PowerState,
}

/// The state of a server.
pub fn shown(server: &Server, seen: Option<&InstanceStatus>) -> Shown {
    let seen = seen.filter(|s| Some(&s.node) == server.host.as_ref());
    let power = seen.map_or(PowerState::NoState, |s| s.power_state);
    let done = seen.map_or(0, |s| s.boots_done);
    let (status, vm_state, task_state) = at_rest_or_moving(server, seen, power, done);
    let task_state = if server.deleted { Some("deleting") } else { task_state };
    Shown { status, vm_state, task_state, power }
}

type Words = (&'static str, &'static str, Option<&'static str>);

fn at_rest_or_moving(server: &Server, seen: Option<&InstanceStatus>, power: PowerState, done: u64) -> Words {
    const STOPPED: Words = ("SHUTOFF", "stopped", None);
    if server.error {
        return ("ERROR", "error", None);
    }
    if let Some(moving) = &server.moving {
        return under_way(server, moving);
    }
    if server.launched_at.is_none() && done == 0 {
        let task = if server.host.is_some() { "spawning" } else { "scheduling" };
        return ("BUILD", "building", Some(task));
    }
    let on = matches!(power, PowerState::Running | PowerState::Paused);
    match server.power {
        Power::Stopped if on => ("ACTIVE", "active", Some("powering-off")),
        Power::Stopped => STOPPED,
        Power::Paused if power == PowerState::Paused => ("PAUSED", "paused", None),
        Power::Paused => ("ACTIVE", "active", Some("pausing")),
        Power::Running if server.boot.seq > done => match server.boot.kind {
            BootKind::Soft => ("REBOOT", "active", Some("reboot_started")),
            BootKind::Hard => ("HARD_REBOOT", "active", Some("reboot_started_hard")),
            BootKind::Start => ("SHUTOFF", "stopped", Some("powering-on")),
        },
        Power::Running if power == PowerState::Paused => ("PAUSED", "paused", Some("unpausing")),
        Power::Running if on => ("ACTIVE", "active", None),
        Power::Running if seen.is_some_and(|s| s.guest_off) => STOPPED,
        // Its node lost it (a power cut) and is starting it again.
        Power::Running => ("SHUTOFF", "stopped", Some("powering-on")),
    }
}

/// The words for a server that moves.
fn under_way(server: &Server, moving: &Moving) -> Words {
    let vm_state = match server.power {
        Power::Running => "active",
        Power::Stopped => "stopped",
        Power::Paused => "paused",
    };
    match (moving.kind, moving.stage) {
        (_, Stage::Preparing | Stage::Running) => ("MIGRATING", vm_state, Some("migrating")),
        (MigrationKind::Evacuation, _) => ("REBUILD", vm_state, Some("rebuilding")),
        (_, Stage::Leaving) => ("RESIZE", vm_state, Some("resize_migrating")),
        (_, Stage::Arriving) => ("RESIZE", vm_state, Some("resize_finish")),
        (_, Stage::Verify) => ("VERIFY_RESIZE", "resized", None),
        (_, Stage::Returning | Stage::Returned) => ("REVERT_RESIZE", "resized", Some("resize_reverting")),
    }
}

/// Refuses with 409 what cannot be done in this state.
pub fn require(server: &Server, now: Shown, action: &str, vm_states: &[&str]) -> ApiResult<()> {
    let refuse = |attribute: &str, value: &str| {
        ApiError::conflict(format!(
            "Cannot '{action}' instance {} while it is in {attribute} {value}",
            server.id
        ))
    };
    if let Some(task) = now.task_state {
        return Err(refuse("task_state", task));
    }
    if !vm_states.contains(&now.vm_state) {
        return Err(refuse("vm_state", now.vm_state));
    }
    Ok(())
}

/// Refuses with 409 what a lock keeps others from doing.
pub fn require_unlocked(server: &Server, is_admin: bool) -> ApiResult<()> {
    match &server.lock {
        Some(_) if !is_admin => Err(ApiError::conflict(format!("Instance {} is locked", server.id))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Boot;
    use crate::testing::{seen, server};
    use jiff::Timestamp;

    fn words(s: &Server, i: Option<&InstanceStatus>) -> (&'static str, Option<&'static str>) {
        let now = shown(s, i);
        (now.status, now.task_state)
    }

    #[test]
    fn a_server_is_built_when_its_guest_has_started() {
        let s = server("s1");
        assert_eq!(words(&s, None), ("BUILD", Some("spawning")));
        assert_eq!(words(&s, Some(&seen("s1", 0, PowerState::NoState))), ("BUILD", Some("spawning")));
        assert_eq!(words(&s, Some(&seen("s1", 1, PowerState::Running))), ("ACTIVE", None));
        let nowhere = Server { host: None, ..s };
        assert_eq!(words(&nowhere, None), ("BUILD", Some("scheduling")));
    }

    #[test]
    fn what_another_node_says_does_not_count() {
        let mut other = seen("s1", 1, PowerState::Running);
        other.node = "elsewhere".into();
        assert_eq!(words(&server("s1"), Some(&other)).0, "BUILD");
    }

    #[test]
    fn the_table_of_powers() {
        use BootKind::{Hard, Soft, Start};
        use PowerState::{Paused, Running, Shutdown};
        let table = [
            (Power::Running, Start, 1, Running, ("ACTIVE", None)),
            (Power::Running, Soft, 2, Running, ("REBOOT", Some("reboot_started"))),
            (Power::Running, Hard, 2, Shutdown, ("HARD_REBOOT", Some("reboot_started_hard"))),
            (Power::Running, Start, 2, Shutdown, ("SHUTOFF", Some("powering-on"))),
            (Power::Running, Start, 1, Shutdown, ("SHUTOFF", Some("powering-on"))),
            (Power::Running, Start, 1, Paused, ("PAUSED", Some("unpausing"))),
            (Power::Stopped, Start, 1, Running, ("ACTIVE", Some("powering-off"))),
            (Power::Stopped, Start, 1, Shutdown, ("SHUTOFF", None)),
            (Power::Paused, Start, 1, Running, ("ACTIVE", Some("pausing"))),
            (Power::Paused, Start, 1, Paused, ("PAUSED", None)),
        ];
        for (power, kind, seq, state, expected) in table {
            let launched_at = Some(Timestamp::UNIX_EPOCH);
            let s = Server { power, boot: Boot { seq, kind }, launched_at, ..server("s1") };
            let i = seen("s1", 1, state);
            assert_eq!(words(&s, Some(&i)), expected, "{power:?} {kind:?} {seq} {state:?}");
            let dying = Server { deleted: true, ..s.clone() };
            assert_eq!(words(&dying, Some(&i)), (expected.0, Some("deleting")));
            let broken = Server { error: true, ..s };
            assert_eq!(words(&broken, Some(&i)), ("ERROR", None));
        }
    }

    #[test]
    fn a_guest_that_turned_itself_off_shows_it_at_once() {
        let mut i = seen("s1", 1, PowerState::Shutdown);
        i.guest_off = true;
        assert_eq!(words(&server("s1"), Some(&i)), ("SHUTOFF", None));
    }

    #[test]
    fn what_does_not_fit_the_state_is_a_conflict() {
        let s = server("s1");
        let now = shown(&s, Some(&seen("s1", 1, PowerState::Running)));
        assert!(require(&s, now, "stop", &["active"]).is_ok());
        assert_eq!(require(&s, now, "start", &["stopped"]).unwrap_err().status.as_u16(), 409);
        let building = shown(&s, None);
        assert_eq!(require(&s, building, "stop", &["building"]).unwrap_err().status.as_u16(), 409);
    }
}
