//! What to do about one volume that another system keeps. Pure.
//!
//! All nodes see the same content. The node that keeps the volume makes it and destroys it; the one where it is used serves
//! it and has it grow.

use crate::model::{Phase, VolumeSpec, VolumeStatus};

/// What is known of a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// What was last reported of it, by whichever node.
    pub status: Option<VolumeStatus>,
    /// Why the backend cannot be used now.
    pub unreachable: Option<String>,
    /// Its bytes, if it is there.
    pub stored: Option<u64>,
    /// The epoch it is served under here; 0 if it is only prepared.
    pub served: Option<u64>,
    /// Why it cannot be made of its source yet.
    pub source_lacks: Option<String>,
    /// Whether a clone of it is still to be made.
    pub clone_waits: bool,
    /// Whether something is done with it in the background.
    pub busy: bool,
    /// Whether what is wanted was read from the store, and is not only what the ledger kept.
    pub live: bool,
}

/// A step towards what is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Stop to serve it.
    Unexport,
    /// Make it.
    Create,
    /// Grow it.
    Grow,
    /// Serve it under this epoch.
    Export(u64),
    /// Have a socket for a user who comes here.
    Prepare,
    /// Destroy it.
    Destroy,
}

/// What a pass makes of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// To be done in this order.
    pub steps: Vec<Step>,
    /// How far the volume is once the steps are done.
    pub phase: Phase,
    /// What stands in the way of more.
    pub blocked: Option<String>,
}

impl Plan {
    fn done(phase: Phase, steps: Vec<Step>) -> Plan {
        Plan { steps, phase, blocked: None }
    }

    fn blocked(phase: Phase, steps: Vec<Step>, why: impl Into<String>) -> Plan {
        Plan { steps, phase, blocked: Some(why.into()) }
    }
}

/// Plans for one volume, on a node that keeps it, uses it, or gets its user.
pub fn plan(spec: &VolumeSpec, seen: &Seen, node: &str) -> Plan {
    // A volume reported gone may come again under its id (one that goes back to a snapshot): that is another one.
    let known = seen.status.as_ref().filter(|s| s.phase != Phase::Gone || spec.deleted);
    if let Some(known) = known.filter(|k| k.generation > spec.generation) {
        let why = format!("generation {} is wanted after {} was", spec.generation, known.generation);
        return Plan::blocked(known.phase, vec![], why);
    }
    if spec.deleted { plan_end(spec, seen, known, node) } else { plan_life(spec, seen, known, node) }
}

fn plan_end(spec: &VolumeSpec, seen: &Seen, known: Option<&VolumeStatus>, node: &str) -> Plan {
    let mut steps: Vec<Step> = seen.served.map(|_| Step::Unexport).into_iter().collect();
    let phase = known.map_or(Phase::Creating, |k| k.phase);
    if phase == Phase::Gone || spec.node != node {
        return Plan::done(phase, steps);
    }
    let stands = [
        seen.busy.then(|| "something is still done with it".to_owned()),
        seen.clone_waits.then(|| "a clone of it is still to be made".to_owned()),
        (!seen.live).then(|| "the store cannot be reached, and nothing is destroyed without it".to_owned()),
        seen.unreachable.clone(),
    ];
    match stands.into_iter().flatten().next() {
        Some(why) => Plan::blocked(phase, steps, why),
        None => {
            steps.push(Step::Destroy);
            Plan::done(Phase::Gone, steps)
        }
    }
}

fn plan_life(spec: &VolumeSpec, seen: &Seen, known: Option<&VolumeStatus>, node: &str) -> Plan {
    let wanted = spec.export.as_ref().filter(|e| e.node == node).map(|e| e.epoch);
    let prepares = spec.moving.as_deref() == Some(node);
    let mut steps = Vec::new();
    // One that was only prepared goes on under its epoch, and keeps its user's connection.
    let stays = seen.served == wanted || (seen.served == Some(0) && (prepares || wanted.is_some()));
    if seen.served.is_some() && !stays {
        steps.push(Step::Unexport);
    }
    if prepares && seen.served.is_none() {
        steps.push(Step::Prepare);
    }
    if seen.busy {
        let phase = if seen.stored.is_some() { Phase::Ready } else { Phase::Creating };
        return Plan::done(phase, steps);
    }
    let Some(size) = seen.stored else {
        if let Err((phase, why)) = plan_creation(spec, seen, known, node) {
            return Plan::blocked(phase, steps, why);
        }
        steps.push(Step::Create);
        return Plan::done(Phase::Creating, steps);
    };
    let mut blocked = None;
    if size < spec.size && spec.lead() == node {
        match &seen.unreachable {
            None => steps.push(Step::Grow),
            why => blocked.clone_from(why),
        }
    }
    if let Some(epoch) = wanted.filter(|_| seen.served != wanted) {
        steps.push(Step::Export(epoch));
    }
    Plan { steps, phase: Phase::Ready, blocked }
}

/// Whether the volume may be made here; else how far it is and why not.
fn plan_creation(
    spec: &VolumeSpec,
    seen: &Seen,
    known: Option<&VolumeStatus>,
    node: &str,
) -> Result<(), (Phase, String)> {
    if let Some(why) = &seen.unreachable {
        return Err((known.map_or(Phase::Creating, |k| k.phase), why.clone()));
    }
    if known.is_some_and(|k| k.disk.is_some()) {
        // It was there once and holds a user's data: an empty one in its place would be its loss.
        return Err((Phase::Failed, "it is not in its pool any more".into()));
    }
    if spec.node != node {
        return Err((Phase::Creating, format!("{} is to make it", spec.node)));
    }
    if !seen.live {
        return Err((Phase::Creating, "the store cannot be reached, and nothing is made without it".into()));
    }
    match &seen.source_lacks {
        Some(why) => Err((Phase::Creating, why.clone())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Export;

    fn spec() -> VolumeSpec {
        VolumeSpec { generation: 5, backend: Some("ceph".into()), ..VolumeSpec::new("v", "n", 1024) }
    }

    fn exported(node: &str, epoch: u64) -> VolumeSpec {
        VolumeSpec { export: Some(Export { node: node.into(), owner: "s".into(), epoch }), ..spec() }
    }

    fn live() -> Seen {
        Seen { live: true, ..Seen::default() }
    }

    fn stored() -> Seen {
        Seen { stored: Some(1024), ..live() }
    }

    fn status(phase: Phase, disk: Option<&str>) -> Option<VolumeStatus> {
        Some(VolumeStatus { disk: disk.map(Into::into), ..VolumeStatus::new(&spec(), phase) })
    }

    fn steps(spec: &VolumeSpec, seen: &Seen, node: &str) -> Vec<Step> {
        plan(spec, seen, node).steps
    }

    #[test]
    fn the_keeper_makes_it_and_the_user_serves_it() {
        assert_eq!(steps(&exported("m", 4), &live(), "n"), [Step::Create]);
        assert_eq!(steps(&exported("m", 4), &live(), "m"), []);
        assert_eq!(steps(&exported("m", 4), &stored(), "m"), [Step::Export(4)]);
        assert_eq!(steps(&exported("m", 4), &stored(), "n"), []);
        assert_eq!(steps(&exported("m", 4), &Seen { served: Some(4), ..stored() }, "m"), []);
        assert_eq!(
            steps(&exported("m", 6), &Seen { served: Some(4), ..stored() }, "m"),
            [Step::Unexport, Step::Export(6)]
        );
    }

    #[test]
    fn what_cannot_be_reached_waits_and_is_served_all_the_same() {
        let away = |seen: Seen| Seen { unreachable: Some("no answer".into()), ..seen };
        let plan_of = plan(&spec(), &away(live()), "n");
        assert_eq!((plan_of.steps, plan_of.phase), (vec![], Phase::Creating));
        assert_eq!(plan_of.blocked.as_deref(), Some("no answer"));
        assert_eq!(steps(&exported("n", 4), &away(stored()), "n"), [Step::Export(4)]);
        let big = VolumeSpec { size: 4096, ..exported("n", 4) };
        assert_eq!(steps(&big, &away(Seen { served: Some(4), ..stored() }), "n"), []);
        let end = VolumeSpec { deleted: true, ..spec() };
        assert_eq!(plan(&end, &away(stored()), "n").blocked.as_deref(), Some("no answer"));
    }

    #[test]
    fn what_had_data_is_never_made_anew() {
        let lost = Seen { status: status(Phase::Ready, Some("ceph")), ..live() };
        assert_eq!(
            (plan(&spec(), &lost, "n").steps, plan(&spec(), &lost, "n").phase),
            (vec![], Phase::Failed)
        );
        let unsure = Seen { unreachable: Some("no answer".into()), ..lost };
        assert_eq!(plan(&spec(), &unsure, "n").phase, Phase::Ready, "nobody looked");
        let gone = Seen { status: status(Phase::Gone, Some("ceph")), ..live() };
        assert_eq!(steps(&spec(), &gone, "n"), [Step::Create], "an id may be used again after its end");
    }

    #[test]
    fn who_comes_here_finds_a_socket_and_keeps_it() {
        let moves = VolumeSpec { moving: Some("m".into()), ..exported("n", 4) };
        assert_eq!(steps(&moves, &stored(), "m"), [Step::Prepare]);
        assert_eq!(steps(&moves, &Seen { served: Some(0), ..stored() }, "m"), []);
        assert_eq!(steps(&exported("m", 6), &Seen { served: Some(0), ..stored() }, "m"), [Step::Export(6)]);
        assert_eq!(steps(&exported("n", 4), &Seen { served: Some(0), ..stored() }, "m"), [Step::Unexport]);
        assert_eq!(steps(&exported("m", 6), &Seen { served: Some(4), ..stored() }, "n"), [Step::Unexport]);
    }

    #[test]
    fn a_clone_waits_for_its_source_and_holds_it() {
        let lacks = Seen { source_lacks: Some("not yet".into()), ..live() };
        assert_eq!(steps(&spec(), &lacks, "n"), []);
        let end = VolumeSpec { deleted: true, ..spec() };
        assert_eq!(steps(&end, &Seen { clone_waits: true, ..stored() }, "n"), []);
        assert_eq!(steps(&end, &Seen { busy: true, ..stored() }, "n"), []);
        assert_eq!(steps(&end, &Seen { served: Some(3), ..stored() }, "n"), [Step::Unexport, Step::Destroy]);
        assert_eq!(steps(&end, &live(), "n"), [Step::Destroy], "what was begun is cleared, too");
        assert_eq!(steps(&end, &stored(), "m"), [], "that is its keeper's");
        let gone = Seen { status: status(Phase::Gone, None), ..live() };
        assert_eq!(plan(&end, &gone, "n"), Plan::done(Phase::Gone, vec![]));
    }

    #[test]
    fn its_user_has_it_grow_and_an_older_generation_is_refused() {
        let big = VolumeSpec { size: 4096, ..exported("m", 4) };
        let served = Seen { served: Some(4), ..stored() };
        assert_eq!(steps(&big, &served, "m"), [Step::Grow]);
        assert_eq!(steps(&big, &stored(), "n"), []);
        let older = VolumeSpec { generation: 4, ..spec() };
        let plan = plan(&older, &Seen { status: status(Phase::Ready, None), ..served }, "n");
        assert_eq!(plan.steps, []);
        assert!(plan.blocked.is_some());
    }
}
