//! The table of [`super::step`].

use super::*;
use crate::model::{MigrationKind, Progress};
use crate::testing::{NODE, seen, server};

const OTHER: &str = "cairn-000002";

fn moving(kind: MigrationKind, stage: Stage) -> Moving {
    Moving {
        number: 1,
        migration: "m1".into(),
        kind,
        from: NODE.into(),
        to: OTHER.into(),
        stage,
        flavor: server("s1").flavor,
        verify: true,
        since: Timestamp::UNIX_EPOCH,
        abort: false,
        force: false,
    }
}

fn said(node: &str, phase: MovePhase) -> MoveStatus {
    MoveStatus {
        server_id: "s1".into(),
        node: node.into(),
        migration: "m1".into(),
        phase,
        error: Some("because".into()),
        progress: Progress::default(),
    }
}

struct Case {
    moving: Moving,
    source: Option<MovePhase>,
    target: Option<MovePhase>,
    lost: Vec<&'static str>,
    late: bool,
}

impl Case {
    fn live(stage: Stage) -> Case {
        let moving = moving(MigrationKind::Live, stage);
        Case { moving, source: None, target: None, lost: Vec::new(), late: false }
    }

    fn step(&self) -> Option<MoveStep> {
        let (source, target) = (self.source.map(|p| said(NODE, p)), self.target.map(|p| said(OTHER, p)));
        let report = Report {
            seen: None,
            source: source.as_ref(),
            target: target.as_ref(),
            lost: &|node| self.lost.contains(&node),
        };
        let now = Timestamp::from_second(if self.late { PREPARE_MAX_S + 1 } else { 0 }).unwrap();
        step(&server("s1"), &self.moving, &report, now)
    }

    fn word(&self) -> &'static str {
        match self.step() {
            None => "wait",
            Some(MoveStep::Send) => "send",
            Some(MoveStep::Switch) => "switch",
            Some(MoveStep::SwitchBack) => "back",
            Some(MoveStep::Settle) => "settle",
            Some(MoveStep::Cancel { aborted: true, .. }) => "abort",
            Some(MoveStep::Cancel { .. }) => "cancel",
        }
    }
}

const LIVES: [&[&str]; 3] = [&[], &[NODE], &[OTHER]];

#[test]
fn a_live_migration_waits_for_its_target_and_not_for_ever() {
    let table = [
        (None, false, ["wait", "cancel", "cancel"]),
        (Some(MovePhase::Preparing), false, ["wait", "cancel", "cancel"]),
        (Some(MovePhase::Preparing), true, ["cancel", "cancel", "cancel"]),
        (Some(MovePhase::Ready), false, ["send", "cancel", "cancel"]),
    ];
    for (target, late, expected) in table {
        for (lost, expected) in LIVES.iter().zip(expected) {
            let case = Case { target, late, lost: lost.to_vec(), ..Case::live(Stage::Preparing) };
            assert_eq!(case.word(), expected, "{target:?} {late} {lost:?}");
        }
    }
    let mut case = Case { target: Some(MovePhase::Ready), ..Case::live(Stage::Preparing) };
    case.moving.abort = true;
    assert_eq!(case.word(), "abort");
}

#[test]
fn a_guest_changes_hands_only_when_its_source_has_none() {
    use MovePhase::{Arrived, Empty, Failed, Ready, Sending, Sent};
    // With both nodes there, with the source lost, with the target lost.
    let table = [
        (Some(Sending), Some(Ready), ["wait", "cancel", "wait"]),
        (Some(Sending), Some(Arrived), ["wait", "switch", "wait"]),
        (Some(Sent), Some(Ready), ["wait", "cancel", "cancel"]),
        (Some(Sent), Some(Arrived), ["switch", "switch", "switch"]),
        (Some(Sent), Some(Empty), ["cancel", "cancel", "cancel"]),
        (Some(Failed), Some(Arrived), ["cancel", "cancel", "cancel"]),
        (Some(Failed), None, ["cancel", "cancel", "cancel"]),
        (None, Some(Arrived), ["wait", "switch", "wait"]),
        (None, None, ["wait", "cancel", "wait"]),
    ];
    for (source, target, expected) in table {
        for (lost, expected) in LIVES.iter().zip(expected) {
            let case = Case { source, target, lost: lost.to_vec(), ..Case::live(Stage::Running) };
            assert_eq!(case.word(), expected, "{source:?} {target:?} {lost:?}");
        }
    }
}

#[test]
fn an_aborted_migration_that_had_no_effect_is_cancelled() {
    let mut case = Case { source: Some(MovePhase::Failed), ..Case::live(Stage::Running) };
    case.moving.abort = true;
    assert_eq!(case.word(), "abort");
    case.source = Some(MovePhase::Sending);
    assert_eq!(case.word(), "wait", "the source is asked to stop, and says how that went");
}

fn cold(stage: Stage, s: &Server, i: Option<&InstanceStatus>, lost: &[&str]) -> Option<MoveStep> {
    let lost = |node: &str| lost.contains(&node);
    let report = Report { seen: i, source: None, target: None, lost: &lost };
    step(s, &moving(MigrationKind::Cold, stage), &report, Timestamp::UNIX_EPOCH)
}

#[test]
fn a_guest_is_off_before_its_server_goes() {
    let s = server("s1");
    let mut i = seen("s1", 1, PowerState::Running);
    assert_eq!(cold(Stage::Leaving, &s, Some(&i), &[]), None);
    assert_eq!(cold(Stage::Leaving, &s, None, &[]), None, "nobody has said anything");
    assert_eq!(cold(Stage::Leaving, &s, Some(&i), &[NODE]), Some(MoveStep::Switch));
    assert!(matches!(cold(Stage::Leaving, &s, Some(&i), &[OTHER]), Some(MoveStep::Cancel { .. })));
    i.power_state = PowerState::Shutdown;
    assert_eq!(cold(Stage::Leaving, &s, Some(&i), &[]), Some(MoveStep::Switch));
    assert_eq!(cold(Stage::Returning, &s, Some(&i), &[]), Some(MoveStep::SwitchBack));
    let newer = Server { generation: 2, ..s.clone() };
    assert_eq!(cold(Stage::Leaving, &newer, Some(&i), &[]), None, "it was said before the order to go");
    i.node = OTHER.into();
    assert_eq!(cold(Stage::Leaving, &s, Some(&i), &[]), None, "another node has no say");
}

#[test]
fn it_has_arrived_when_it_is_as_it_should_be() {
    let mut s = server("s1");
    let mut i = seen("s1", 1, PowerState::Running);
    assert_eq!(cold(Stage::Arriving, &s, Some(&i), &[]), Some(MoveStep::Settle));
    s.boot.seq = 2;
    assert_eq!(cold(Stage::Arriving, &s, Some(&i), &[]), None);
    s.power = Power::Stopped;
    i.power_state = PowerState::Shutdown;
    assert_eq!(cold(Stage::Returned, &s, Some(&i), &[]), Some(MoveStep::Settle));
    assert_eq!(cold(Stage::Verify, &s, Some(&i), &[]), None, "its user says what follows");
    s.deleted = true;
    assert_eq!(cold(Stage::Arriving, &s, Some(&i), &[]), None);
}
