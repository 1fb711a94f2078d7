//! What a node says and does about a live migration. Pure.

use crate::agent::observe::{DomainState, Off};
use crate::model::MovePhase;

/// What is known of the sending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// This process has not begun.
    None,
    /// It goes on.
    Running,
    /// It ended, before the guest was last looked at.
    Ended(Result<(), String>),
}

/// What the source does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Begin to send.
    Begin,
    /// Say this.
    Say(MovePhase, Option<String>),
    /// Look again.
    Look,
}

/// What the source does, that has said `told` of this migration.
pub fn source(told: Option<MovePhase>, task: &Task, state: DomainState, abort: bool) -> Source {
    match (told, task) {
        (Some(MovePhase::Sent), _) => Source::Say(MovePhase::Sent, None),
        (Some(MovePhase::Failed), _) => Source::Look,
        (_, Task::Running) => Source::Say(MovePhase::Sending, None),
        (_, Task::Ended(Ok(()))) if state.active() => Source::Look,
        (_, Task::Ended(Ok(()))) => ended(state, "the guest went off"),
        (_, Task::Ended(Err(why))) => ended(state, why),
        (Some(_), Task::None) => ended(state, "this node's compute service was restarted meanwhile"),
        (None, Task::None) if abort => Source::Say(MovePhase::Failed, Some("it was aborted".into())),
        (None, Task::None) if !state.active() => ended(state, "the guest is off"),
        (None, Task::None) => Source::Begin,
    }
}

/// Where the guest is tells how it ended; a call's result may have been lost.
fn ended(state: DomainState, why: &str) -> Source {
    match state {
        DomainState::Absent | DomainState::Off(Off::Migrated) => Source::Say(MovePhase::Sent, None),
        _ => Source::Say(MovePhase::Failed, Some(why.to_owned())),
    }
}

/// What the target says. `whole`: the domain is here to stay, which libvirt makes it only when all of it has come.
pub fn target(
    deleted: bool,
    state: DomainState,
    whole: bool,
    sent: bool,
    lack: Option<String>,
) -> (MovePhase, Option<String>) {
    match (state.active(), lack) {
        (false, _) if deleted => (MovePhase::Gone, None),
        (true, _) if whole => (MovePhase::Arrived, None),
        (false, _) if sent => (MovePhase::Empty, None),
        (_, Some(lack)) => (MovePhase::Preparing, Some(lack)),
        _ => (MovePhase::Ready, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use MovePhase::{Arrived, Empty, Failed, Gone, Preparing, Ready, Sending, Sent};

    const RUNNING: DomainState = DomainState::Running;
    const ABSENT: DomainState = DomainState::Absent;

    fn phase(decided: &Source) -> Option<MovePhase> {
        match decided {
            Source::Say(phase, _) => Some(*phase),
            _ => None,
        }
    }

    #[test]
    fn a_guest_is_sent_once_and_where_it_is_tells_how_that_went() {
        let failed = || Task::Ended(Err("no".into()));
        let table = [
            (Some(Sending), Task::Running, RUNNING, Some(Sending)),
            (Some(Sending), Task::Ended(Ok(())), ABSENT, Some(Sent)),
            (Some(Sending), Task::Ended(Ok(())), RUNNING, None),
            (Some(Sending), failed(), RUNNING, Some(Failed)),
            (Some(Sending), failed(), DomainState::Paused, Some(Failed)),
            (Some(Sending), failed(), ABSENT, Some(Sent)),
            (Some(Sending), failed(), DomainState::Off(Off::Migrated), Some(Sent)),
            (Some(Sending), failed(), DomainState::Off(Off::ByGuest), Some(Failed)),
            // After a restart of the agent.
            (Some(Sending), Task::None, RUNNING, Some(Failed)),
            (Some(Sending), Task::None, ABSENT, Some(Sent)),
            (Some(Sent), Task::None, ABSENT, Some(Sent)),
            (Some(Failed), Task::None, RUNNING, None),
        ];
        for (told, task, state, expected) in table {
            assert_eq!(phase(&source(told, &task, state, false)), expected, "{told:?} {task:?} {state:?}");
        }
        assert_eq!(source(None, &Task::None, RUNNING, false), Source::Begin);
        assert_eq!(phase(&source(None, &Task::None, RUNNING, true)), Some(Failed));
    }

    #[test]
    fn the_target_knows_whether_all_of_a_guest_is_here() {
        let lack = || Some("a disk".to_owned());
        let table = [
            (ABSENT, false, false, lack(), Preparing),
            (ABSENT, false, false, None, Ready),
            (DomainState::Paused, false, false, None, Ready),
            (DomainState::Paused, true, false, None, Arrived),
            (DomainState::Paused, true, true, lack(), Arrived),
            (DomainState::Paused, false, true, None, Ready),
            (ABSENT, false, true, None, Empty),
        ];
        for (state, whole, sent, lack, expected) in table {
            assert_eq!(target(false, state, whole, sent, lack).0, expected, "{state:?} {whole} {sent}");
        }
        assert_eq!(target(true, ABSENT, false, false, None).0, Gone);
    }
}
