//! What to do about one volume, given what is wanted and what is there. Pure.

use crate::model::{Phase, VolumeSpec, VolumeStatus};

/// What is known of a volume on this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// What was last reported of it.
    pub status: Option<VolumeStatus>,
    /// A disk that could not be looked at, with the reason: it may hold the volume.
    pub unread: Option<String>,
    /// What is on a disk.
    pub stored: Option<Stored>,
    /// The epoch it is served under.
    pub served: Option<u64>,
    /// Whether its source (if it has one) can be copied now.
    pub source_ready: bool,
    /// Whether a clone of it is still to be made.
    pub clone_waits: bool,
    /// Whether it is being made in the background.
    pub in_the_making: bool,
    /// Whether what is wanted was read from the store, and is not only what the ledger kept.
    pub live: bool,
}

/// A volume on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The disk.
    pub disk: String,
    /// The volume's size in bytes.
    pub size: u64,
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
    /// Take it off its disk.
    Destroy,
}

/// What a pass makes of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// To be done in this order; those after one that fails are left for the next pass.
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

/// Plans for one volume of this node.
pub fn plan(spec: &VolumeSpec, seen: &Seen, node: &str) -> Plan {
    // A volume reported gone may come again under its id (an image uploaded anew): that is another one.
    let known = seen.status.as_ref().filter(|s| s.phase != Phase::Gone || spec.deleted);
    if let Some(known) = known.filter(|k| k.generation > spec.generation) {
        let why = format!("generation {} is wanted after {} was", spec.generation, known.generation);
        return Plan::blocked(known.phase, vec![], why);
    }
    if spec.deleted { plan_end(seen, known) } else { plan_life(spec, seen, known, node) }
}

fn plan_end(seen: &Seen, known: Option<&VolumeStatus>) -> Plan {
    let mut steps: Vec<Step> = seen.served.map(|_| Step::Unexport).into_iter().collect();
    let phase = if seen.stored.is_some() { Phase::Ready } else { Phase::Creating };
    if seen.in_the_making {
        return Plan::blocked(phase, steps, "it is still being made");
    }
    if seen.clone_waits {
        return Plan::blocked(phase, steps, "a clone of it is still to be made");
    }
    if seen.stored.is_some() {
        if !seen.live {
            return Plan::blocked(
                phase,
                steps,
                "the store cannot be reached, and nothing is destroyed without it",
            );
        }
        steps.push(Step::Destroy);
        return Plan::done(Phase::Gone, steps);
    }
    match known.filter(|k| k.phase != Phase::Gone).and_then(|k| k.disk.as_ref()) {
        Some(disk) => Plan::blocked(Phase::Failed, steps, missing(disk)),
        None => match &seen.unread {
            Some(why) => {
                Plan::blocked(phase, steps, format!("it may be on a disk that cannot be read: {why}"))
            }
            None => Plan::done(Phase::Gone, steps),
        },
    }
}

fn plan_life(spec: &VolumeSpec, seen: &Seen, known: Option<&VolumeStatus>, node: &str) -> Plan {
    let wanted = spec.export.as_ref().filter(|e| e.node == node).map(|e| e.epoch);
    let mut steps = Vec::new();
    if seen.served.is_some() && seen.served != wanted {
        steps.push(Step::Unexport);
    }
    if seen.in_the_making {
        return Plan::done(Phase::Creating, steps);
    }
    match &seen.stored {
        Some(stored) => {
            if stored.size < spec.size {
                steps.push(Step::Grow);
            }
        }
        None => match plan_creation(spec, seen, known) {
            Ok(()) => steps.push(Step::Create),
            Err((phase, why)) => return Plan::blocked(phase, steps, why),
        },
    }
    if let Some(epoch) = wanted.filter(|_| seen.served != wanted) {
        steps.push(Step::Export(epoch));
    }
    Plan::done(Phase::Ready, steps)
}

/// Whether the volume may be made; else how far it is and why not.
fn plan_creation(
    spec: &VolumeSpec,
    seen: &Seen,
    known: Option<&VolumeStatus>,
) -> Result<(), (Phase, String)> {
    if let Some(disk) = known.and_then(|k| k.disk.as_ref()) {
        // It was there once and holds a user's data: an empty one in its place would be its loss.
        return Err((Phase::Failed, missing(disk)));
    }
    if !seen.live {
        return Err((Phase::Creating, "the store cannot be reached, and nothing is made without it".into()));
    }
    if spec.read_only && spec.source.is_none() {
        return Err((Phase::Failed, "its content is on no disk of this node".into()));
    }
    if spec.source.is_some() && !seen.source_ready {
        return Err((Phase::Creating, "its source is not there yet".into()));
    }
    Ok(())
}

fn missing(disk: &str) -> String {
    format!("the disk {disk} that holds it is not there, or has lost it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Export;

    fn spec() -> VolumeSpec {
        VolumeSpec { generation: 5, ..VolumeSpec::new("v", "n", 1024) }
    }

    fn exported(epoch: u64) -> VolumeSpec {
        VolumeSpec { export: Some(Export { node: "n".into(), owner: "s".into(), epoch }), ..spec() }
    }

    fn live() -> Seen {
        Seen { live: true, ..Seen::default() }
    }

    fn stored() -> Seen {
        Seen { stored: Some(Stored { disk: "d".into(), size: 1024 }), ..live() }
    }

    fn status(phase: Phase, disk: Option<&str>) -> Option<VolumeStatus> {
        Some(VolumeStatus { disk: disk.map(Into::into), ..VolumeStatus::new(&spec(), phase) })
    }

    fn steps(spec: &VolumeSpec, seen: &Seen) -> Vec<Step> {
        plan(spec, seen, "n").steps
    }

    #[test]
    fn a_new_volume_is_made_then_served() {
        assert_eq!(steps(&exported(4), &live()), [Step::Create, Step::Export(4)]);
        assert_eq!(steps(&exported(4), &stored()), [Step::Export(4)]);
        assert_eq!(steps(&exported(4), &Seen { served: Some(4), ..stored() }), []);
        assert_eq!(steps(&spec(), &stored()), []);
    }

    #[test]
    fn what_had_data_is_never_made_anew() {
        let lost = Seen { status: status(Phase::Ready, Some("d")), ..live() };
        let plan = plan(&spec(), &lost, "n");
        assert_eq!((plan.steps, plan.phase), (vec![], Phase::Failed));
        let unfinished = Seen { status: status(Phase::Creating, None), ..live() };
        assert_eq!(steps(&spec(), &unfinished), [Step::Create]);
    }

    #[test]
    fn without_the_store_exports_stand_and_nothing_is_made_or_destroyed() {
        let offline = |seen: Seen| Seen { live: false, ..seen };
        assert_eq!(steps(&exported(4), &offline(stored())), [Step::Export(4)]);
        assert_eq!(steps(&spec(), &offline(live())), []);
        let end = VolumeSpec { deleted: true, ..spec() };
        assert_eq!(steps(&end, &offline(stored())), []);
    }

    #[test]
    fn a_new_epoch_replaces_and_an_older_generation_is_refused() {
        let seen = Seen { served: Some(4), ..stored() };
        assert_eq!(steps(&exported(5), &seen), [Step::Unexport, Step::Export(5)]);
        assert_eq!(steps(&spec(), &seen), [Step::Unexport]);
        let older = VolumeSpec { generation: 4, ..spec() };
        let seen = Seen { status: status(Phase::Ready, Some("d")), ..seen };
        let plan = plan(&older, &seen, "n");
        assert_eq!(plan.steps, []);
        assert!(plan.blocked.is_some());
    }

    #[test]
    fn another_nodes_export_is_not_served_here() {
        let mut elsewhere = exported(4);
        elsewhere.export.as_mut().unwrap().node = "m".into();
        assert_eq!(steps(&elsewhere, &stored()), []);
        assert_eq!(steps(&elsewhere, &Seen { served: Some(3), ..stored() }), [Step::Unexport]);
    }

    #[test]
    fn a_clone_waits_for_its_source_and_holds_it() {
        let clone = VolumeSpec { source: Some("s".into()), ..spec() };
        assert_eq!(steps(&clone, &live()), []);
        assert_eq!(steps(&clone, &Seen { source_ready: true, ..live() }), [Step::Create]);
        let end = VolumeSpec { deleted: true, ..spec() };
        assert_eq!(steps(&end, &Seen { clone_waits: true, ..stored() }), []);
        assert_eq!(steps(&end, &stored()), [Step::Destroy]);
    }

    #[test]
    fn an_end_is_reported_only_when_nothing_is_left() {
        let end = VolumeSpec { deleted: true, ..spec() };
        let seen = Seen { served: Some(3), ..stored() };
        assert_eq!(steps(&end, &seen), [Step::Unexport, Step::Destroy]);
        assert_eq!(plan(&end, &live(), "n").phase, Phase::Gone);
        let away = Seen { status: status(Phase::Ready, Some("d")), ..live() };
        assert_eq!(plan(&end, &away, "n").phase, Phase::Failed);
        let unread = Seen { unread: Some("disk d: locked".into()), ..live() };
        assert_eq!(plan(&end, &unread, "n").phase, Phase::Creating);
        let gone = Seen { status: status(Phase::Gone, None), ..live() };
        assert_eq!(plan(&end, &gone, "n"), Plan::done(Phase::Gone, vec![]));
    }

    #[test]
    fn an_id_may_be_used_again_after_its_end() {
        let mut before = status(Phase::Gone, None);
        before.as_mut().unwrap().generation = 9;
        let again = Seen { status: before, ..stored() };
        assert_eq!(plan(&spec(), &again, "n"), Plan::done(Phase::Ready, vec![]));
    }

    #[test]
    fn an_image_without_content_is_not_made_up() {
        let image = VolumeSpec { read_only: true, ..spec() };
        assert_eq!(steps(&image, &live()), []);
        assert_eq!(plan(&image, &live(), "n").phase, Phase::Failed);
    }

    #[test]
    fn growth_comes_before_service() {
        let big = VolumeSpec { size: 4096, ..exported(4) };
        assert_eq!(steps(&big, &stored()), [Step::Grow, Step::Export(4)]);
    }
}
