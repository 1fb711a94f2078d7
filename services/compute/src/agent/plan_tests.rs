//! The table of [`super::plan`].

use super::*;
use crate::agent::observe::Attached;
use crate::testing::server;

const RUNNING: DomainState = DomainState::Running;
const OFF: DomainState = DomainState::Off(Off::Otherwise);
const OFF_BY_GUEST: DomainState = DomainState::Off(Off::ByGuest);

/// A server with a root disk `v1` and a port `p1`, whose first boot is ordered.
fn wanted(power: Power, seq: u64, kind: BootKind) -> Server {
    Server { power, boot: crate::model::Boot { seq, kind }, ..server("s1") }
}

fn complete() -> Devices {
    let root = Attached { socket: "/v1".into(), device: "vda".into() };
    Devices { disks: vec![root], taps: vec!["tap-p1".into()] }
}

fn decide(server: &Server, state: DomainState, boots_done: u64, asked_ago: Option<u64>) -> Plan {
    decide_with(server, state, boots_done, asked_ago, &complete(), &|_| None)
}

fn decide_with(
    server: &Server,
    state: DomainState,
    boots_done: u64,
    asked_ago: Option<u64>,
    devices: &Devices,
    volume_lacks: &dyn Fn(&str) -> Option<String>,
) -> Plan {
    plan(
        server,
        &Seen {
            state,
            devices: state.active().then_some(devices),
            boots_done,
            asked_ago: asked_ago.map(Duration::from_secs),
            node_lacks: None,
            volume_lacks,
            port_lacks: &|_| None,
            socket_of: &|v| format!("/{v}"),
            tap_of: &|p| format!("tap-{p}"),
        },
    )
}

#[test]
fn a_new_server_is_started_once_its_disks_are_served() {
    let s = wanted(Power::Running, 1, BootKind::Start);
    assert_eq!(decide(&s, DomainState::Absent, 0, None).actions, [Action::Start]);
    let waits =
        decide_with(&s, DomainState::Absent, 0, None, &complete(), &|v| Some(format!("{v} is not served")));
    assert_eq!(waits.actions, []);
    assert_eq!(waits.waiting.as_deref(), Some("v1 is not served"));
}

#[test]
fn a_running_server_is_left_alone() {
    let s = wanted(Power::Running, 1, BootKind::Start);
    assert_eq!(decide(&s, RUNNING, 1, None), Plan::nothing(1));
}

#[test]
fn a_start_ordered_for_a_running_guest_counts_as_done() {
    let s = wanted(Power::Running, 2, BootKind::Start);
    assert_eq!(decide(&s, RUNNING, 1, None), Plan::nothing(2));
}

#[test]
fn a_guest_that_turned_itself_off_stays_off_until_it_is_started_again() {
    let s = wanted(Power::Running, 1, BootKind::Start);
    assert!(decide(&s, OFF_BY_GUEST, 1, None).guest_off);
    let again = wanted(Power::Running, 2, BootKind::Start);
    assert_eq!(decide(&again, OFF_BY_GUEST, 1, None).actions, [Action::Start]);
}

#[test]
fn a_guest_that_the_node_lost_is_started_again() {
    let s = wanted(Power::Running, 1, BootKind::Start);
    assert_eq!(decide(&s, OFF, 1, None).actions, [Action::Start]);
    assert_eq!(decide(&s, DomainState::Absent, 1, None).actions, [Action::Start]);
}

#[test]
fn stopping_asks_then_waits_then_forces() {
    let s = wanted(Power::Stopped, 1, BootKind::Start);
    assert_eq!(decide(&s, RUNNING, 1, None).actions, [Action::AskShutdown]);
    assert_eq!(decide(&s, RUNNING, 1, Some(5)).actions, []);
    assert_eq!(decide(&s, RUNNING, 1, Some(60)).actions, [Action::Destroy]);
    assert_eq!(decide(&s, DomainState::Paused, 1, None).actions, [Action::Destroy]);
    assert_eq!(decide(&s, OFF_BY_GUEST, 1, None), Plan::nothing(1));
}

#[test]
fn a_soft_reboot_shuts_down_and_starts() {
    let s = wanted(Power::Running, 2, BootKind::Soft);
    assert_eq!(decide(&s, RUNNING, 1, None).actions, [Action::AskShutdown]);
    assert_eq!(decide(&s, RUNNING, 1, Some(3)).actions, []);
    assert_eq!(decide(&s, RUNNING, 1, Some(61)).actions, [Action::Destroy]);
    assert_eq!(decide(&s, OFF_BY_GUEST, 1, Some(9)).actions, [Action::Start]);
}

#[test]
fn a_hard_reboot_forces_and_starts() {
    let s = wanted(Power::Running, 2, BootKind::Hard);
    assert_eq!(decide(&s, RUNNING, 1, None).actions, [Action::Destroy]);
    assert_eq!(decide(&s, OFF, 1, None).actions, [Action::Start]);
}

#[test]
fn pausing_and_going_on() {
    let paused = wanted(Power::Paused, 1, BootKind::Start);
    assert_eq!(decide(&paused, RUNNING, 1, None).actions, [Action::Pause]);
    assert_eq!(decide(&paused, DomainState::Paused, 1, None), Plan::nothing(1));
    assert_eq!(decide(&paused, OFF, 1, None).actions, [Action::Start]);
    let on = wanted(Power::Running, 1, BootKind::Start);
    assert_eq!(decide(&on, DomainState::Paused, 1, None).actions, [Action::Resume]);
    assert_eq!(decide(&on, DomainState::PausedOnError, 1, None).actions, [Action::Resume]);
}

#[test]
fn disks_and_ports_follow_the_server_while_it_runs() {
    let mut s = wanted(Power::Running, 1, BootKind::Start);
    let mut second = s.volumes[0].clone();
    (second.volume_id, second.boot) = ("v2".into(), false);
    s.volumes.push(second);
    assert_eq!(decide(&s, RUNNING, 1, None).actions, [Action::Attach("v2".into())]);
    let unserved = decide_with(&s, RUNNING, 1, None, &complete(), &|_| Some("not served".into()));
    assert_eq!(unserved.actions, [], "never attach what nobody serves");
    s.volumes[1].detaching = true;
    assert_eq!(decide(&s, RUNNING, 1, None).actions, []);
    let mut both = complete();
    both.disks.push(Attached { socket: "/v2".into(), device: "vdb".into() });
    let detach = decide_with(&s, RUNNING, 1, None, &both, &|_| None);
    assert_eq!(detach.actions, [Action::Detach("v2".into())]);
    s.volumes.pop();
    s.ports[0].detaching = true;
    assert_eq!(decide(&s, RUNNING, 1, None).actions, [Action::Unplug("p1".into())]);
}

#[test]
fn a_foreign_disk_is_left_alone() {
    let s = wanted(Power::Running, 1, BootKind::Start);
    let mut more = complete();
    more.disks.push(Attached { socket: "/unknown".into(), device: "vdz".into() });
    assert_eq!(decide_with(&s, RUNNING, 1, None, &more, &|_| None), Plan::nothing(1));
}

#[test]
fn only_a_tombstone_destroys_for_good() {
    let mut s = wanted(Power::Running, 1, BootKind::Start);
    s.deleted = true;
    assert_eq!(decide(&s, RUNNING, 1, None).actions, [Action::Destroy, Action::Undefine]);
    assert_eq!(decide(&s, OFF, 1, None).actions, [Action::Undefine]);
    assert!(decide(&s, DomainState::Absent, 1, None).gone);
    s.deleted = false;
    for power in [Power::Running, Power::Stopped, Power::Paused] {
        for state in [DomainState::Absent, OFF, OFF_BY_GUEST, RUNNING, DomainState::Paused] {
            let s = Server { power, ..s.clone() };
            let actions = decide(&s, state, 1, None).actions;
            assert!(!actions.contains(&Action::Undefine), "{power:?} {state:?}: {actions:?}");
        }
    }
}

fn leaving(kind: MigrationKind, stage: crate::model::Stage) -> Server {
    let s = wanted(Power::Running, 1, BootKind::Start);
    let moving = Moving {
        number: 1,
        migration: "m".into(),
        kind,
        from: crate::testing::NODE.into(),
        to: "other".into(),
        stage,
        flavor: s.flavor.clone(),
        verify: true,
        since: jiff::Timestamp::UNIX_EPOCH,
        abort: false,
        force: false,
    };
    Server { moving: Some(moving), ..s }
}

#[test]
fn a_guest_whose_server_leaves_is_turned_off_and_stays_off() {
    use crate::model::Stage;
    let s = leaving(MigrationKind::Cold, Stage::Leaving);
    assert_eq!(decide(&s, RUNNING, 1, None).actions, [Action::AskShutdown]);
    assert_eq!(decide(&s, RUNNING, 1, Some(60)).actions, [Action::Destroy]);
    for off in [OFF, OFF_BY_GUEST, DomainState::Absent] {
        assert_eq!(decide(&s, off, 1, None), Plan { boots_done: 1, ..Plan::default() });
    }
    let dead = leaving(MigrationKind::Evacuation, Stage::Leaving);
    assert_eq!(decide(&dead, RUNNING, 1, None).actions, [Action::Destroy], "nothing waits for it");
    let there = leaving(MigrationKind::Cold, Stage::Arriving);
    assert_eq!(decide(&there, DomainState::Absent, 0, None).actions, [Action::Start]);
}

#[test]
fn a_node_out_of_touch_starts_nothing_and_lets_nothing_go_on() {
    let s = wanted(Power::Running, 1, BootKind::Start);
    let devices = complete();
    for (state, boots_done) in [(DomainState::Absent, 0), (DomainState::Paused, 1)] {
        let seen = Seen {
            state,
            devices: Some(&devices),
            boots_done,
            asked_ago: None,
            node_lacks: Some("out of touch".into()),
            volume_lacks: &|_| None,
            port_lacks: &|_| None,
            socket_of: &|v| format!("/{v}"),
            tap_of: &|p| format!("tap-{p}"),
        };
        let plan = plan(&s, &seen);
        assert_eq!((plan.actions, plan.waiting.as_deref()), (vec![], Some("out of touch")), "{state:?}");
    }
}
