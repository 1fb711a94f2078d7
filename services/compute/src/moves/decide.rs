//! What follows for a server that moves, given what its two nodes say. Pure: the table of tests is its specification.
//!
//! A guest runs in one place because each side acts only on its own turn: the target lets a guest go on only when the
//! server is its own, and the server becomes its own only when the source has said that the guest is off or gone, or
//! when the source is lost and has stopped its guests by itself.

use jiff::Timestamp;

use crate::model::{InstanceStatus, MovePhase, MoveStatus, Moving, Power, PowerState, Server, Stage};

/// How long a target may take to make ready, in seconds.
const PREPARE_MAX_S: i64 = 120;

/// What is known of a move.
pub struct Report<'a> {
    /// What was last said of the guest, by whichever node.
    pub seen: Option<&'a InstanceStatus>,
    /// What the node it leaves says of this migration.
    pub source: Option<&'a MoveStatus>,
    /// What the node it goes to says of this migration.
    pub target: Option<&'a MoveStatus>,
    /// Whether a node is lost, so that its guests have stopped.
    pub lost: &'a dyn Fn(&str) -> bool,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MoveStep {
    /// Live: let the source send.
    Send,
    /// The server is the target's from now on.
    Switch,
    /// The server is the source's again.
    SwitchBack,
    /// It runs (or rests) where it came to.
    Settle,
    /// It stays where it is.
    Cancel {
        /// Whether its user wanted that.
        aborted: bool,
        /// Why.
        why: String,
    },
}

impl MoveStep {
    fn fail(why: impl Into<String>) -> Option<MoveStep> {
        Some(MoveStep::Cancel { aborted: false, why: why.into() })
    }
}

/// What follows now.
pub fn step(server: &Server, moving: &Moving, report: &Report<'_>, now: Timestamp) -> Option<MoveStep> {
    if server.deleted {
        return None;
    }
    match moving.stage {
        Stage::Preparing => preparing(moving, report, now),
        Stage::Running => running(moving, report),
        Stage::Leaving => leaving(server, moving, report),
        Stage::Arriving | Stage::Returned => arrived(server, report).then_some(MoveStep::Settle),
        Stage::Verify => None,
        Stage::Returning => off(server, report).then_some(MoveStep::SwitchBack),
    }
}

fn why(said: Option<&MoveStatus>) -> String {
    said.and_then(|s| s.error.clone()).unwrap_or_else(|| "the node gives no reason".into())
}

fn preparing(moving: &Moving, report: &Report<'_>, now: Timestamp) -> Option<MoveStep> {
    let waited = now.as_second() - moving.since.as_second();
    match report.target.map(|t| t.phase) {
        _ if moving.abort => Some(MoveStep::Cancel { aborted: true, why: "it was aborted".into() }),
        _ if (report.lost)(&moving.from) => MoveStep::fail("the node it leaves is lost"),
        _ if (report.lost)(&moving.to) => MoveStep::fail("the node it goes to is lost"),
        Some(MovePhase::Ready) => Some(MoveStep::Send),
        _ if waited > PREPARE_MAX_S => {
            MoveStep::fail(format!("{} is not ready in time: {}", moving.to, why(report.target)))
        }
        _ => None,
    }
}

fn running(moving: &Moving, report: &Report<'_>) -> Option<MoveStep> {
    let (source, target) = (report.source.map(|s| s.phase), report.target.map(|t| t.phase));
    let here = target == Some(MovePhase::Arrived);
    match source {
        // It is still at the source, whatever the target has: that is never resumed.
        Some(MovePhase::Failed) => Some(MoveStep::Cancel { aborted: moving.abort, why: why(report.source) }),
        Some(MovePhase::Sent) if here => Some(MoveStep::Switch),
        Some(MovePhase::Sent) if target == Some(MovePhase::Empty) => {
            MoveStep::fail("the guest was lost on its way")
        }
        Some(MovePhase::Sent) if (report.lost)(&moving.to) => {
            MoveStep::fail("the node it went to is lost with it")
        }
        // A lost source has stopped its copy, so the whole one at the target is the only one.
        _ if (report.lost)(&moving.from) && here => Some(MoveStep::Switch),
        _ if (report.lost)(&moving.from) => MoveStep::fail("the node it leaves is lost"),
        _ => None,
    }
}

fn leaving(server: &Server, moving: &Moving, report: &Report<'_>) -> Option<MoveStep> {
    if (report.lost)(&moving.to) {
        return MoveStep::fail("the node it goes to is lost");
    }
    off(server, report).then_some(MoveStep::Switch)
}

/// Whether the guest runs no more where its server is.
fn off(server: &Server, report: &Report<'_>) -> bool {
    let Some(host) = &server.host else { return true };
    let off = |s: &InstanceStatus| {
        let still = matches!(s.power_state, PowerState::Running | PowerState::Paused | PowerState::Suspended);
        &s.node == host && s.generation >= server.generation && !still
    };
    (report.lost)(host) || report.seen.is_some_and(off)
}

/// Whether the guest is as it should be where its server is.
fn arrived(server: &Server, report: &Report<'_>) -> bool {
    let Some(seen) = report.seen.filter(|s| Some(&s.node) == server.host.as_ref()) else { return false };
    let as_wanted = match server.power {
        Power::Stopped => true,
        Power::Running => seen.guest_off || seen.power_state == PowerState::Running,
        Power::Paused => seen.power_state == PowerState::Paused,
    };
    let booted = server.power == Power::Stopped || seen.boots_done >= server.boot.seq;
    seen.generation >= server.generation && booted && as_wanted
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
