//! What follows from what a node reports about a server. The decision is pure; [`apply`] carries it out in one
//! transaction.

use cairn_gateway::ApiResult;
use cairn_placement::claims;
use cairn_state::{Abort, Tx};
use jiff::Timestamp;

use crate::model::{
    BootKind, InstanceStatus, MigrationStatus, MovePhase, MoveStatus, Power, PowerState, Server,
    move_status_id,
};
use crate::moves::{self, Lost};
use crate::place::{self, Need};
use crate::{actions, create, disks, nics, quota, state};

/// How long a server may be held up while it is being built, in seconds, before that is an error.
const BUILD_MAX_S: i64 = 600;

/// One consequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing of it is left on its node: forget it.
    Remove,
    /// It runs for the first time.
    Launched,
    /// It turned itself off, and shall stay off.
    StaysOff,
    /// Its node could not start it.
    Broken(String),
    /// Its guest has this volume.
    Attached(String),
    /// Its guest has let this volume go.
    Detached(String),
    /// Its guest has let this port go.
    Unplugged(String),
    /// What a request began is done.
    Rests,
    /// Its node could not start it, and another is to try.
    Elsewhere(String),
}

/// How many nodes try to build a server before that is an error.
const TRIES_MAX: usize = 3;

/// Where something of a server may be that its own node does not speak of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Left {
    /// Its node is lost, and has stopped its guests.
    pub host_lost: bool,
    /// It was on its way to another node, which has not said that nothing is there.
    pub elsewhere: bool,
}

/// What follows now.
pub fn steps(server: &Server, seen: Option<&InstanceStatus>, left: Left, now: Timestamp) -> Vec<Step> {
    let seen = seen.filter(|s| Some(&s.node) == server.host.as_ref());
    if server.deleted {
        let gone = seen.is_some_and(|s| s.gone && s.generation >= server.generation);
        let gone = server.host.is_none() || gone || left.host_lost;
        return (gone && !left.elsewhere).then_some(Step::Remove).into_iter().collect();
    }
    let Some(seen) = seen else { return Vec::new() };
    let mut steps = Vec::new();
    let current = seen.generation >= server.generation;
    if server.launched_at.is_none() && seen.boots_done > 0 && seen.power_state == PowerState::Running {
        steps.push(Step::Launched);
    }
    if current && seen.guest_off && server.power == Power::Running && seen.boots_done >= server.boot.seq {
        steps.push(Step::StaysOff);
    }
    if current
        && !server.error
        && let Some(why) = broken(server, seen, now)
    {
        let never_ran = server.launched_at.is_none() && server.moving.is_none();
        let again = seen.failed && never_ran && server.tried.len() + 1 < TRIES_MAX;
        steps.push(if again { Step::Elsewhere(why) } else { Step::Broken(why) });
    }
    if current {
        devices(server, seen, &mut steps);
    }
    if server.open_action.is_some()
        && current
        && state::shown(server, Some(seen)).task_state.is_none()
        && !changing(server)
    {
        steps.push(Step::Rests);
    }
    steps
}

fn changing(server: &Server) -> bool {
    server.volumes.iter().any(|v| v.detaching) || server.ports.iter().any(|p| p.detaching)
}

fn broken(server: &Server, seen: &InstanceStatus, now: Timestamp) -> Option<String> {
    let why = || seen.error.clone().unwrap_or_else(|| "the node gives no reason".into());
    if seen.failed {
        return Some(why());
    }
    let age = now.as_second() - server.created.as_second();
    let building = server.launched_at.is_none() && seen.boots_done == 0;
    (building && seen.error.is_some() && age > BUILD_MAX_S).then(why)
}

fn devices(server: &Server, seen: &InstanceStatus, steps: &mut Vec<Step>) {
    for volume in &server.volumes {
        let has = seen.volumes_attached.contains(&volume.volume_id);
        match (volume.detaching, volume.attached, has) {
            (true, _, false) => steps.push(Step::Detached(volume.volume_id.clone())),
            // What will be there at the next start counts only once there was a start.
            (false, false, true) if seen.boots_done > 0 => {
                steps.push(Step::Attached(volume.volume_id.clone()))
            }
            _ => {}
        }
    }
    let gone = server.ports.iter().filter(|p| p.detaching && !seen.ports_plugged.contains(&p.port_id));
    steps.extend(gone.map(|p| Step::Unplugged(p.port_id.clone())));
}

/// Decides and carries out what follows for one server.
pub fn advance(tx: &mut Tx, server_id: &str, now: Timestamp, lost: Lost<'_>) -> ApiResult<()> {
    let Some(mut server) = tx.get::<Server>(server_id)? else { return Ok(()) };
    if moves::advance(tx, &mut server, now, lost)? {
        return Ok(tx.put(&server)?);
    }
    let seen = tx.get::<InstanceStatus>(server_id)?;
    let left = left(tx, &server, lost)?;
    let steps = steps(&server, seen.as_ref(), left, now);
    if steps.is_empty() {
        return Ok(());
    }
    for step in &steps {
        apply(tx, &mut server, step)?;
    }
    if steps != [Step::Remove] {
        tx.put(&server)?;
    }
    Ok(())
}

/// What may be left of a server that is to end.
fn left(tx: &mut Tx, server: &Server, lost: Lost<'_>) -> Result<Left, Abort> {
    let (Some(host), true) = (&server.host, server.deleted) else { return Ok(Left::default()) };
    let host_lost = lost(tx, host)?;
    let Some(moving) = server.moving.as_ref().filter(|m| m.live()) else {
        return Ok(Left { host_lost, elsewhere: false });
    };
    let said = tx.get::<MoveStatus>(&move_status_id(&server.id, &moving.to))?;
    let gone = said.is_some_and(|s| s.migration == moving.migration && s.phase == MovePhase::Gone);
    Ok(Left { host_lost, elsewhere: !gone && !lost(tx, &moving.to)? })
}

fn apply(tx: &mut Tx, server: &mut Server, step: &Step) -> ApiResult<()> {
    match step {
        Step::Remove => remove(tx, server)?,
        Step::Launched => server.launched_at = Some(Timestamp::now()),
        Step::StaysOff => {
            server.power = Power::Stopped;
            server.touch();
        }
        Step::Elsewhere(why) => elsewhere(tx, server, why)?,
        Step::Broken(why) => {
            moves::apply::end(tx, server, MigrationStatus::Error, Some(why))?;
            create::fail(server, why);
            actions::finish(tx, server, Some("Error"))?;
        }
        Step::Attached(id) => {
            cairn_block::servers::attached(tx, id, &server.id)?;
            server.volumes.iter_mut().filter(|v| &v.volume_id == id).for_each(|v| v.attached = true);
        }
        Step::Detached(id) => {
            let ends = server.volume(id).is_some_and(|v| v.delete_on_termination);
            match ends {
                true => cairn_block::servers::delete_root(tx, id)?,
                false => cairn_block::servers::detached(tx, id, &server.id)?,
            }
            server.volumes.retain(|v| &v.volume_id != id);
            server.touch();
        }
        Step::Unplugged(id) => {
            nics::release_one(tx, server, id)?;
            server.ports.retain(|p| &p.port_id != id);
            server.touch();
            let zone = crate::zones::shown_zone(tx, server)?;
            nics::publish(tx, server, &zone)?;
        }
        Step::Rests => actions::finish(tx, server, None)?,
    }
    Ok(())
}

/// Lets another node build a server; without one it is in error.
fn elsewhere(tx: &mut Tx, server: &mut Server, why: &str) -> ApiResult<()> {
    let failed = server.host.take().unwrap_or_default();
    actions::failed_on(tx, server, &failed, why)?;
    server.tried.insert(failed.clone());
    server.fault = Some(create::fault(why));
    let resources = claims::held(tx, &server.id)?;
    let need = Need { none_of: server.tried.clone(), ..Need::of(tx, server, resources)? };
    let Some(host) = place::choose(tx, &need)? else {
        server.host = Some(failed);
        return apply(tx, server, &Step::Broken(why.to_owned()));
    };
    claims::claim(tx, &server.id, &host, &resources, &server.project_id, &server.user_id)?;
    moves::apply::place(tx, server, &host)?;
    server.order_boot(BootKind::Start);
    Ok(())
}

/// Forgets a server of which nothing is left: what it held is given back.
pub fn remove(tx: &mut Tx, server: &mut Server) -> ApiResult<()> {
    nics::release(tx, server)?;
    disks::take_back(tx, server)?;
    claims::release(tx, &server.id)?;
    quota::count(tx, &server.project_id, server.counted_flavor(), -1)?;
    moves::apply::end(tx, server, MigrationStatus::Error, Some("the server was deleted"))?;
    actions::close(tx, server)?;
    tx.delete::<InstanceStatus>(&server.id)?;
    tx.delete::<Server>(&server.id)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{seen, server, volume};

    fn follow(s: &Server, i: &InstanceStatus) -> Vec<Step> {
        steps(s, Some(i), Left::default(), Timestamp::UNIX_EPOCH)
    }

    fn launched() -> Server {
        Server { launched_at: Some(Timestamp::UNIX_EPOCH), ..server("s1") }
    }

    #[test]
    fn a_guest_that_runs_is_launched_and_its_request_done() {
        let mut s = server("s1");
        s.open_action = Some("req-1".into());
        s.volumes[0].attached = false;
        let i = seen("s1", 1, PowerState::Running);
        assert_eq!(follow(&s, &i), [Step::Launched, Step::Attached("v1".into()), Step::Rests]);
        assert_eq!(follow(&s, &seen("s1", 0, PowerState::NoState)), []);
    }

    #[test]
    fn only_what_its_own_node_reports_as_gone_is_removed() {
        let s = Server { deleted: true, generation: 5, ..server("s1") };
        let mut i = InstanceStatus { gone: true, generation: 5, ..seen("s1", 1, PowerState::NoState) };
        assert_eq!(follow(&s, &i), [Step::Remove]);
        i.generation = 4;
        assert_eq!(follow(&s, &i), [], "it was said before the order to go");
        i.generation = 5;
        let left = |host_lost, elsewhere| Left { host_lost, elsewhere };
        let end = |i: &InstanceStatus, left| steps(&s, Some(i), left, Timestamp::UNIX_EPOCH);
        assert_eq!(end(&i, left(false, true)), [], "another node may still have some of it");
        i.node = "elsewhere".into();
        assert_eq!(follow(&s, &i), []);
        assert_eq!(end(&i, left(true, false)), [Step::Remove], "a lost node has stopped it");
        assert_eq!(
            steps(&Server { host: None, ..s }, None, Left::default(), Timestamp::UNIX_EPOCH),
            [Step::Remove]
        );
        assert_eq!(
            follow(&server("s1"), &InstanceStatus { gone: true, ..seen("s1", 1, PowerState::Shutdown) }),
            []
        );
    }

    #[test]
    fn a_guest_that_turned_itself_off_stays_off_unless_it_was_started_since() {
        let i = InstanceStatus { guest_off: true, ..seen("s1", 1, PowerState::Shutdown) };
        assert_eq!(follow(&launched(), &i), [Step::StaysOff]);
        let mut again = launched();
        again.boot.seq = 2;
        assert_eq!(follow(&again, &i), []);
    }

    #[test]
    fn a_volume_is_given_back_once_the_guest_lost_it() {
        let mut s = launched();
        s.volumes.push(volume("v2", "/dev/vdb", false));
        s.volumes[1].detaching = true;
        let mut i = seen("s1", 1, PowerState::Running);
        i.volumes_attached = vec!["v1".into(), "v2".into()];
        assert_eq!(follow(&s, &i), []);
        i.volumes_attached.pop();
        assert_eq!(follow(&s, &i), [Step::Detached("v2".into())]);
        s.generation = 9;
        assert_eq!(follow(&s, &i), [], "the node has not seen the order yet");
    }

    #[test]
    fn a_server_that_cannot_be_built_is_an_error_in_time() {
        let mut i = InstanceStatus { error: Some("no socket".into()), ..seen("s1", 0, PowerState::NoState) };
        let late = Timestamp::from_second(BUILD_MAX_S + 1).unwrap();
        assert_eq!(steps(&server("s1"), Some(&i), Left::default(), Timestamp::UNIX_EPOCH), []);
        assert_eq!(steps(&server("s1"), Some(&i), Left::default(), late), [Step::Broken("no socket".into())]);
        i.failed = true;
        let at_once = |s: &Server| steps(s, Some(&i), Left::default(), Timestamp::UNIX_EPOCH);
        assert_eq!(at_once(&server("s1")), [Step::Elsewhere("no socket".into())]);
        let tried = ["a".to_owned(), "b".to_owned()].into();
        assert_eq!(at_once(&Server { tried, ..server("s1") }), [Step::Broken("no socket".into())]);
        let already = Server { error: true, ..server("s1") };
        assert_eq!(steps(&already, Some(&i), Left::default(), late), []);
    }
}
