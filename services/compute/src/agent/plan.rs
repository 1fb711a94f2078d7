//! What to do with one guest, given what it should be and what it is. Pure; the table of tests below is its
//! specification. It never plans to destroy a guest whose server is not tombstoned or told to stop.

use std::time::Duration;

use super::observe::{Devices, DomainState, Off};
use crate::model::{BootKind, MigrationKind, Moving, Power, PowerState, Server};

/// How long a guest may take to shut down by itself before it is turned off.
pub const SHUTDOWN_MAX: Duration = Duration::from_secs(60);

/// One thing to do to a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Define it as it should be now, and start it.
    Start,
    /// Press its power button.
    AskShutdown,
    /// Turn it off by force.
    Destroy,
    /// Forget it, and remove its firmware variables and console log.
    Undefine,
    /// Stop its CPUs.
    Pause,
    /// Let its CPUs go on.
    Resume,
    /// Attach this volume.
    Attach(String),
    /// Ask it to give this volume back.
    Detach(String),
    /// Plug this port.
    Plug(String),
    /// Ask it to give this port back.
    Unplug(String),
}

/// What is known of a guest.
pub struct Seen<'a> {
    /// Its domain.
    pub state: DomainState,
    /// Its devices, if its domain is active and they were looked at.
    pub devices: Option<&'a Devices>,
    /// The last boot order carried out.
    pub boots_done: u64,
    /// How long ago it was asked to shut down, if it was since it last started.
    pub asked_ago: Option<Duration>,
    /// What keeps this node from starting any guest.
    pub node_lacks: Option<String>,
    /// What a volume lacks to be attached; none if it is ready.
    pub volume_lacks: &'a dyn Fn(&str) -> Option<String>,
    /// What a port lacks to be plugged; none if it is ready.
    pub port_lacks: &'a dyn Fn(&str) -> Option<String>,
    /// The socket a volume is served at.
    pub socket_of: &'a dyn Fn(&str) -> String,
    /// The tap of a port.
    pub tap_of: &'a dyn Fn(&str) -> String,
}

/// What to do next and what may be said meanwhile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// What to do, in this order.
    pub actions: Vec<Action>,
    /// What must come first, and is somebody else's to do.
    pub waiting: Option<String>,
    /// The last boot order that counts as carried out, before the actions.
    pub boots_done: u64,
    /// The guest turned itself off, and that stands.
    pub guest_off: bool,
    /// Nothing of it is left on this node.
    pub gone: bool,
}

impl Plan {
    fn doing(boots_done: u64, action: Action) -> Plan {
        Plan { actions: vec![action], boots_done, ..Plan::default() }
    }

    fn nothing(boots_done: u64) -> Plan {
        Plan { boots_done, ..Plan::default() }
    }
}

/// Decides what to do next.
pub fn plan(server: &Server, seen: &Seen<'_>) -> Plan {
    let done = seen.boots_done;
    if server.deleted {
        return match seen.state {
            DomainState::Absent => Plan { gone: true, ..Plan::nothing(done) },
            s if s.active() => {
                Plan { actions: vec![Action::Destroy, Action::Undefine], ..Plan::nothing(done) }
            }
            _ => Plan::doing(done, Action::Undefine),
        };
    }
    if let Some(moving) = server.moving.as_ref().filter(|m| m.leaves()) {
        return leave(moving, seen);
    }
    match server.power {
        Power::Stopped => stop(seen),
        Power::Running => run(server, seen),
        Power::Paused => pause(server, seen),
    }
}

/// Turns a guest off whose server is to leave this node; without delay if the node was declared dead.
fn leave(moving: &Moving, seen: &Seen<'_>) -> Plan {
    match moving.kind {
        MigrationKind::Evacuation if seen.state.active() => Plan::doing(seen.boots_done, Action::Destroy),
        _ => stop(seen),
    }
}

/// Turns a guest off, kindly first.
fn stop(seen: &Seen<'_>) -> Plan {
    if !seen.state.active() {
        return Plan::nothing(seen.boots_done);
    }
    match shut_down(seen) {
        Some(action) => Plan::doing(seen.boots_done, action),
        None => Plan::nothing(seen.boots_done),
    }
}

/// The next step of shutting an active guest down; none while it is to be given time.
fn shut_down(seen: &Seen<'_>) -> Option<Action> {
    match seen.asked_ago {
        // A guest whose CPUs stand still cannot answer.
        _ if seen.state != DomainState::Running && seen.state != DomainState::ShuttingDown => {
            Some(Action::Destroy)
        }
        None => Some(Action::AskShutdown),
        Some(ago) if ago >= SHUTDOWN_MAX => Some(Action::Destroy),
        Some(_) => None,
    }
}

fn run(server: &Server, seen: &Seen<'_>) -> Plan {
    let done = seen.boots_done;
    let ordered = server.boot.seq > done;
    if !seen.state.active() {
        // That it turned itself off is its user's doing; anything else is not, and is repaired.
        if !ordered && seen.state == DomainState::Off(Off::ByGuest) {
            return Plan { guest_off: true, ..Plan::nothing(done) };
        }
        return start(server, seen);
    }
    if ordered {
        match server.boot.kind {
            BootKind::Start => return live(server, seen, server.boot.seq),
            BootKind::Hard => return Plan { actions: vec![Action::Destroy], ..start(server, seen) },
            BootKind::Soft => {
                let action = shut_down(seen);
                return Plan { actions: action.into_iter().collect(), ..Plan::nothing(done) };
            }
        }
    }
    live(server, seen, done)
}

/// Starts a guest, if all that it needs is there.
fn start(server: &Server, seen: &Seen<'_>) -> Plan {
    let volumes = server.volumes.iter().filter(|v| !v.detaching);
    let ports = server.ports.iter().filter(|p| !p.detaching);
    let lacks = seen.node_lacks.clone();
    let lacks = lacks.or_else(|| volumes.filter_map(|v| (seen.volume_lacks)(&v.volume_id)).next());
    let lacks = lacks.or_else(|| ports.filter_map(|p| (seen.port_lacks)(&p.port_id)).next());
    match lacks {
        Some(lack) => Plan { waiting: Some(lack), ..Plan::nothing(seen.boots_done) },
        None => Plan::doing(seen.boots_done, Action::Start),
    }
}

fn pause(server: &Server, seen: &Seen<'_>) -> Plan {
    match seen.state {
        DomainState::Running => Plan::doing(seen.boots_done, Action::Pause),
        s if s.active() => Plan { boots_done: server.boot.seq.max(seen.boots_done), ..Plan::default() },
        // Its memory is lost (the node lost power): it starts anew, and is paused then.
        _ => start(server, seen),
    }
}

/// What an active guest that should run lacks: its CPUs' time, or devices.
fn live(server: &Server, seen: &Seen<'_>, done: u64) -> Plan {
    let mut plan = Plan::nothing(done);
    match seen.state {
        DomainState::Paused | DomainState::PausedOnError if seen.node_lacks.is_some() => {
            plan.waiting.clone_from(&seen.node_lacks);
        }
        DomainState::Paused | DomainState::PausedOnError => plan.actions.push(Action::Resume),
        DomainState::Running => {
            if let Some(devices) = seen.devices {
                disks(server, seen, devices, &mut plan);
                nics(server, seen, devices, &mut plan);
            }
        }
        _ => {}
    }
    plan
}

fn disks(server: &Server, seen: &Seen<'_>, devices: &Devices, plan: &mut Plan) {
    for volume in &server.volumes {
        let socket = (seen.socket_of)(&volume.volume_id);
        let present = devices.disks.iter().any(|d| d.socket == socket);
        match (present, volume.detaching) {
            (true, true) => plan.actions.push(Action::Detach(volume.volume_id.clone())),
            // Attaching what nobody serves yet would halt the guest, so this waits.
            (false, false) => match (seen.volume_lacks)(&volume.volume_id) {
                None => plan.actions.push(Action::Attach(volume.volume_id.clone())),
                Some(lack) => plan.waiting = Some(lack),
            },
            _ => {}
        }
    }
}

fn nics(server: &Server, seen: &Seen<'_>, devices: &Devices, plan: &mut Plan) {
    for port in &server.ports {
        let present = devices.taps.contains(&(seen.tap_of)(&port.port_id));
        match (present, port.detaching) {
            (true, true) => plan.actions.push(Action::Unplug(port.port_id.clone())),
            (false, false) => match (seen.port_lacks)(&port.port_id) {
                None => plan.actions.push(Action::Plug(port.port_id.clone())),
                Some(lack) => plan.waiting = Some(lack),
            },
            _ => {}
        }
    }
}

/// The power of a guest as it is told to others.
pub fn power_state(state: DomainState) -> PowerState {
    match state {
        DomainState::Absent => PowerState::NoState,
        DomainState::Off(_) => PowerState::Shutdown,
        DomainState::Running | DomainState::ShuttingDown => PowerState::Running,
        DomainState::Paused | DomainState::PausedOnError => PowerState::Paused,
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
