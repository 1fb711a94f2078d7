//! What the agent remembers of one guest between passes, and what it says of it. Pure.
//!
//! What must survive a restart of the agent is in the [`InstanceStatus`] it wrote last; the rest may be forgotten.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::observe::{Devices, DomainState};
use super::plan::{Action, Plan, power_state};
use crate::model::{InstanceStatus, Server};

/// After so many failures to start as ordered, the node gives up until the next order.
const FAILURES_MAX: u32 = 5;
/// The longest pause between two tries.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// How long a guest gets to give a device back before it is asked again.
const DETACH_PATIENCE: Duration = Duration::from_secs(5);

/// The pause after a start that this node was not allowed.
const HELD_BACK: Duration = Duration::from_secs(2);

/// A guest, as remembered.
#[derive(Debug, Default)]
pub struct Memory {
    /// The last boot order carried out.
    pub boots_done: u64,
    /// When it was asked to shut down.
    pub asked_at: Option<Instant>,
    /// When it was last started.
    pub started_at: Option<Timestamp>,
    /// Its devices when it was last looked at.
    pub devices: Devices,
    /// The generation of its server at that time.
    pub looked_at: Option<u64>,
    /// Whether a job is at work on it.
    pub busy: bool,
    /// What was last written about it.
    pub told: Option<InstanceStatus>,
    failures: u32,
    retry_at: Option<Instant>,
    error: Option<String>,
    gave_up_on: Option<u64>,
}

impl Memory {
    /// What is remembered after a restart of the agent.
    pub fn from_past(past: &InstanceStatus) -> Memory {
        Memory {
            boots_done: past.boots_done,
            started_at: past.started_at,
            told: Some(past.clone()),
            ..Memory::default()
        }
    }

    /// Whether to act on this plan now.
    pub fn may_act(&self, server: &Server, plan: &Plan, now: Instant) -> bool {
        let starting = plan.actions.contains(&Action::Start) && server.boot.seq > self.boots_done;
        let gave_up = starting && self.gave_up_on == Some(server.boot.seq);
        !plan.actions.is_empty() && !self.busy && !gave_up && self.retry_at.is_none_or(|at| at <= now)
    }

    /// Notes how a job ended.
    pub fn finished(&mut self, action: &Action, boot_seq: u64, result: Result<(), String>, now: Instant) {
        // Whatever was done, its devices may be others now.
        self.looked_at = None;
        match (result, action) {
            (Ok(()), _) => {
                (self.failures, self.error, self.gave_up_on) = (0, None, None);
                self.retry_at = None;
                match action {
                    Action::Start => {
                        self.boots_done = boot_seq;
                        self.asked_at = None;
                        self.started_at = Some(Timestamp::now());
                    }
                    Action::AskShutdown => self.asked_at = Some(now),
                    Action::Detach(_) | Action::Unplug(_) => self.retry_at = Some(now + DETACH_PATIENCE),
                    _ => {}
                }
            }
            // A guest that is still booting, or busy with the disk, refuses or ignores; that is no failure.
            (Err(error), Action::Detach(_) | Action::Unplug(_)) => {
                self.error = Some(error);
                self.retry_at = Some(now + DETACH_PATIENCE);
            }
            (Err(error), _) => {
                self.failures += 1;
                self.error = Some(error);
                self.retry_at = Some(now + RETRY_MAX.min(Duration::from_secs(1 << self.failures.min(5))));
                if self.failures >= FAILURES_MAX && *action == Action::Start {
                    self.gave_up_on = Some(boot_seq);
                    self.failures = 0;
                }
            }
        }
    }

    /// Notes that nothing was done, because this node may not now. It is no failure.
    pub fn held_back(&mut self, why: String, now: Instant) {
        self.error = Some(why);
        self.retry_at = Some(now + HELD_BACK);
    }

    /// What there is to say of the guest.
    pub fn status(&self, node: &str, server: &Server, state: DomainState, plan: &Plan) -> InstanceStatus {
        let devices = state.active().then_some(&self.devices);
        let gave_up = self.gave_up_on == Some(server.boot.seq) && server.boot.seq > plan.boots_done;
        InstanceStatus {
            id: server.id.clone(),
            node: node.into(),
            generation: server.generation,
            power_state: power_state(state),
            boots_done: plan.boots_done,
            guest_off: plan.guest_off,
            volumes_attached: Vec::new(),
            ports_plugged: Vec::new(),
            error: self.error.clone().or_else(|| plan.waiting.clone()),
            failed: gave_up,
            started_at: self.started_at.filter(|_| devices.is_some()),
            gone: plan.gone,
        }
    }

    /// How long ago the guest was asked to shut down.
    pub fn asked_ago(&self, now: Instant) -> Option<Duration> {
        self.asked_at.map(|at| now.saturating_duration_since(at))
    }
}

/// The volumes the guest has: those its domain has while it is active, else those it will start with.
pub fn volumes_of(
    server: &Server,
    devices: Option<&Devices>,
    socket_of: &dyn Fn(&str) -> String,
) -> Vec<String> {
    let has = |id: &str, detaching: bool| match devices {
        Some(devices) => devices.disks.iter().any(|d| d.socket == socket_of(id)),
        None => !detaching,
    };
    server.volumes.iter().filter(|v| has(&v.volume_id, v.detaching)).map(|v| v.volume_id.clone()).collect()
}

/// The same of ports.
pub fn ports_of(server: &Server, devices: Option<&Devices>, tap_of: &dyn Fn(&str) -> String) -> Vec<String> {
    let has = |id: &str, detaching: bool| match devices {
        Some(devices) => devices.taps.contains(&tap_of(id)),
        None => !detaching,
    };
    server.ports.iter().filter(|p| has(&p.port_id, p.detaching)).map(|p| p.port_id.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::server;

    fn start_plan() -> Plan {
        Plan { actions: vec![Action::Start], ..Plan::default() }
    }

    #[test]
    fn the_node_gives_up_on_an_order_but_not_on_the_next() {
        let (mut memory, mut s) = (Memory::default(), server("s1"));
        let mut now = Instant::now();
        for _ in 0..FAILURES_MAX {
            assert!(memory.may_act(&s, &start_plan(), now));
            memory.finished(&Action::Start, s.boot.seq, Err("no".into()), now);
            assert!(!memory.may_act(&s, &start_plan(), now), "it must wait before it tries again");
            now += RETRY_MAX;
        }
        assert!(!memory.may_act(&s, &start_plan(), now));
        let said = memory.status("n", &s, DomainState::Absent, &start_plan());
        assert!(said.failed && said.error.as_deref() == Some("no"));
        s.order_boot(crate::model::BootKind::Hard);
        assert!(memory.may_act(&s, &start_plan(), now));
        memory.finished(&Action::Start, s.boot.seq, Ok(()), now);
        assert_eq!(memory.boots_done, s.boot.seq);
    }

    #[test]
    fn a_guest_that_keeps_a_disk_is_asked_again_and_nothing_is_given_up() {
        let (mut memory, s) = (Memory::default(), server("s1"));
        let plan = Plan { actions: vec![Action::Detach("v".into())], ..Plan::default() };
        let mut now = Instant::now();
        for _ in 0..20 {
            assert!(memory.may_act(&s, &plan, now));
            memory.finished(&plan.actions[0], 1, Ok(()), now);
            assert!(!memory.may_act(&s, &plan, now));
            now += DETACH_PATIENCE;
        }
        assert!(!memory.status("n", &s, DomainState::Running, &plan).failed);
    }

    #[test]
    fn a_stopped_guest_has_what_it_will_start_with() {
        let mut s = server("s1");
        let path = |id: &str| format!("/{id}");
        assert_eq!(volumes_of(&s, None, &path), ["v1"]);
        s.volumes[0].detaching = true;
        assert!(volumes_of(&s, None, &path).is_empty());
        assert!(ports_of(&s, Some(&Devices::default()), &path).is_empty());
    }
}
