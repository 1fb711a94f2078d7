//! What to do about a volume that has several replicas, on one of their nodes or where it is used. Pure.

use super::plan::Stored;
use crate::model::{Phase, VolumeSpec};
use crate::replication::set::{Replica, ReplicaSet};

/// What is known of such a volume on this node, and of one of its replicas here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// What is on a disk here.
    pub stored: Option<Stored>,
    /// The disk that was reported to hold this replica.
    pub had_disk: Option<String>,
    /// The disk that it is bound to or was on, if that is not in use.
    pub disk_away: Option<String>,
    /// A disk that could not be looked at, with the reason.
    pub unread: Option<String>,
    /// Whether the replica is being made in the background.
    pub in_the_making: bool,
    /// Whether a clone of it is still to be made here.
    pub clone_waits: bool,
    /// The epoch it is served under here; 0 for prepared.
    pub served: Option<u64>,
    /// The epoch of the writer that runs here.
    pub led: Option<u64>,
    /// The size that writer serves, in bytes.
    pub led_size: u64,
    /// Whether that writer has nothing left to do of its own.
    pub settled: bool,
    /// The source of a clone, as it is here.
    pub source: Origin,
    /// Whether what is wanted was read from the store, and is not only what the ledger kept.
    pub live: bool,
    /// Whether enough of its replicas are made for a writer.
    pub made: bool,
}

/// What there is here of a clone's source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Origin {
    /// Nothing.
    #[default]
    Absent,
    /// A replica that may lack something.
    Behind,
    /// A replica in sync.
    InSync,
}

/// A step towards what is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Stop to serve it.
    Unexport,
    /// End the writer that runs here.
    Unlead,
    /// Make this node's replica, of its source or empty.
    Create {
        /// The source of which a clone is made.
        source: Option<String>,
        /// Whether the source must be in sync when the clone is made.
        exact: bool,
    },
    /// Take the replica off its disk.
    Destroy,
    /// Run its writer here, under this epoch.
    Lead(u64),
    /// Grow it on all replicas.
    Grow,
    /// Serve it under this epoch.
    Export(u64),
    /// Make the socket of a volume that moves here.
    Prepare,
}

/// What a pass makes of the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// To be done in this order; those after one that fails are left for the next pass.
    pub steps: Vec<Step>,
    /// How far this node's replica is once they are done; `None` if it has none.
    pub replica: Option<Phase>,
    /// What stands in the way of more.
    pub blocked: Option<String>,
}

/// Plans for one volume on `node`, and the first of its replicas here.
pub fn plan(spec: &VolumeSpec, set: &ReplicaSet, seen: &Seen, node: &str) -> Plan {
    let member = set.on_node(node).next();
    let steps = endings(spec, set, seen, node);
    if spec.deleted {
        return plan_end(seen, member.is_some(), steps);
    }
    let Plan { mut steps, replica, blocked } = match member {
        Some(replica) => plan_member(spec, set, replica, seen, steps),
        None => Plan { steps, replica: None, blocked: None },
    };
    if spec.lead() == node {
        plan_lead(spec, set, seen, node, &mut steps);
    }
    if spec.moving.as_deref() == Some(node) && spec.lead() != node && seen.served.is_none() {
        steps.push(Step::Prepare);
    }
    Plan { steps, replica, blocked }
}

/// Plans for another replica of the volume here.
pub fn plan_further(spec: &VolumeSpec, set: &ReplicaSet, replica: &Replica, seen: &Seen) -> Plan {
    match spec.deleted {
        true => plan_end(seen, true, Vec::new()),
        false => plan_member(spec, set, replica, seen, Vec::new()),
    }
}

fn plan_member(
    spec: &VolumeSpec,
    set: &ReplicaSet,
    replica: &Replica,
    seen: &Seen,
    mut steps: Vec<Step>,
) -> Plan {
    if replica.leaving {
        return plan_end(seen, true, steps);
    }
    let (replica, blocked) = plan_replica(spec, set, replica, seen, &mut steps);
    Plan { steps, replica, blocked }
}

/// What is served or led here and should not be, or not so.
fn endings(spec: &VolumeSpec, set: &ReplicaSet, seen: &Seen, node: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let lives = !spec.deleted;
    let wanted = exported(spec, node).filter(|_| lives);
    let moves_here = lives && spec.moving.as_deref() == Some(node);
    let stays = match seen.served {
        None => true,
        // What was prepared becomes what is wanted, without its guest's notice.
        Some(0) => moves_here || wanted.is_some(),
        served => served == wanted,
    };
    if !stays {
        steps.push(Step::Unexport);
    }
    let leads = lives && spec.lead() == node && seen.led == Some(spec.epoch());
    let idle = wanted.is_none() && seen.settled && set.replicas.iter().all(|r| r.in_sync);
    if seen.led.is_some() && (!leads || idle) {
        steps.push(Step::Unlead);
    }
    steps
}

fn exported(spec: &VolumeSpec, node: &str) -> Option<u64> {
    spec.export.as_ref().filter(|e| e.node == node).map(|e| e.epoch)
}

fn plan_end(seen: &Seen, member: bool, mut steps: Vec<Step>) -> Plan {
    let phase = |phase| member.then_some(phase);
    let here = if seen.stored.is_some() { Phase::Ready } else { Phase::Creating };
    let blocked = |steps, now, why: String| Plan { steps, replica: phase(now), blocked: Some(why) };
    if seen.in_the_making {
        return blocked(steps, here, "it is still being made".into());
    }
    if seen.clone_waits {
        return blocked(steps, here, "a clone of it is still to be made".into());
    }
    if seen.stored.is_some() {
        if !seen.live {
            let why = "the store cannot be reached, and nothing is destroyed without it";
            return blocked(steps, here, why.into());
        }
        steps.push(Step::Destroy);
        return Plan { steps, replica: phase(Phase::Gone), blocked: None };
    }
    match (&seen.had_disk, &seen.unread) {
        (Some(disk), _) => blocked(steps, Phase::Failed, missing(disk)),
        (None, Some(why)) => blocked(steps, here, format!("it may be on a disk that cannot be read: {why}")),
        (None, None) => Plan { steps, replica: phase(Phase::Gone), blocked: None },
    }
}

fn plan_replica(
    spec: &VolumeSpec,
    set: &ReplicaSet,
    replica: &Replica,
    seen: &Seen,
    steps: &mut Vec<Step>,
) -> (Option<Phase>, Option<String>) {
    if seen.in_the_making {
        return (Some(Phase::Creating), None);
    }
    if seen.stored.is_some() {
        return (Some(Phase::Ready), None);
    }
    match plan_creation(spec, set, replica, seen) {
        Ok(step) => {
            steps.push(step);
            (Some(Phase::Ready), None)
        }
        Err((phase, why)) => (Some(phase), Some(why)),
    }
}

/// How this node's replica is made; else how far it is and why not.
fn plan_creation(
    spec: &VolumeSpec,
    set: &ReplicaSet,
    replica: &Replica,
    seen: &Seen,
) -> Result<Step, (Phase, String)> {
    if !seen.live {
        return Err((Phase::Creating, "the store cannot be reached, and nothing is made without it".into()));
    }
    if let Some(disk) = &seen.disk_away {
        // It may come back. What is made elsewhere meanwhile is another replica.
        return Err((Phase::Failed, missing(disk)));
    }
    if !replica.in_sync {
        // Whatever it begins with, its writer makes it like the others.
        let source = spec.source.clone().filter(|_| seen.source != Origin::Absent && set.epoch == 0);
        return Ok(Step::Create { source, exact: false });
    }
    if let Some(disk) = &seen.had_disk {
        return Err((Phase::Failed, missing(disk)));
    }
    if set.epoch > 0 || (spec.read_only && spec.source.is_none()) {
        return Err((Phase::Failed, "its content is on no disk of this node".into()));
    }
    if spec.source.is_some() && seen.source != Origin::InSync {
        return Err((Phase::Creating, "its source is not there yet".into()));
    }
    Ok(Step::Create { source: spec.source.clone(), exact: true })
}

fn plan_lead(spec: &VolumeSpec, set: &ReplicaSet, seen: &Seen, node: &str, steps: &mut Vec<Step>) {
    let wanted = exported(spec, node);
    let ended = steps.contains(&Step::Unlead);
    let care = set.replicas.iter().any(|r| !r.in_sync && !r.leaving)
        || seen.led_size < spec.size && seen.led.is_some();
    let led = seen.led.is_some() && !ended;
    if !seen.made {
        return; // The first writer's claim says that there is something to lose.
    }
    if !led && (wanted.is_some() || care) {
        steps.push(Step::Lead(spec.epoch()));
    }
    if led && seen.led_size < spec.size {
        steps.push(Step::Grow);
    }
    if let Some(epoch) = wanted.filter(|epoch| seen.served != Some(*epoch)) {
        steps.push(Step::Export(epoch));
    }
}

fn missing(disk: &str) -> String {
    format!("the disk {disk} that holds it is not there, or has lost it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Export;

    fn set() -> ReplicaSet {
        ReplicaSet::new("v", ["a", "b"].map(String::from))
    }

    fn spec() -> VolumeSpec {
        VolumeSpec { generation: 5, ..VolumeSpec::new("v", "a", 1024) }
    }

    fn exported(node: &str) -> VolumeSpec {
        VolumeSpec { export: Some(Export { node: node.into(), owner: "s".into(), epoch: 4 }), ..spec() }
    }

    fn live() -> Seen {
        Seen { live: true, made: true, ..Seen::default() }
    }

    fn stored() -> Seen {
        Seen { stored: Some(Stored { disk: "d".into(), size: 1024 }), ..live() }
    }

    fn steps(spec: &VolumeSpec, set: &ReplicaSet, seen: &Seen, node: &str) -> Vec<Step> {
        plan(spec, set, seen, node).steps
    }

    fn empty() -> Step {
        Step::Create { source: None, exact: true }
    }

    #[test]
    fn each_replica_is_made_on_its_node_and_the_volume_served_on_one() {
        assert_eq!(steps(&exported("a"), &set(), &live(), "a"), [empty(), Step::Lead(4), Step::Export(4)]);
        assert_eq!(steps(&exported("a"), &set(), &live(), "b"), [empty()]);
        let early = Seen { made: false, ..live() };
        assert_eq!(steps(&exported("a"), &set(), &early, "a"), [empty()]);
        // Whoever uses it need not hold it.
        assert_eq!(steps(&exported("c"), &set(), &live(), "c"), [Step::Lead(4), Step::Export(4)]);
        let served = Seen { served: Some(4), led: Some(4), led_size: 1024, ..stored() };
        assert_eq!(steps(&exported("a"), &set(), &served, "a"), []);
        assert_eq!(steps(&exported("c"), &set(), &served, "a"), [Step::Unexport, Step::Unlead]);
    }

    #[test]
    fn a_replica_in_sync_that_had_data_is_never_made_anew_and_one_out_of_sync_is() {
        let written = set().claimed(3, None).unwrap();
        assert_eq!(plan(&spec(), &written, &live(), "b").replica, Some(Phase::Failed));
        let lost = Seen { had_disk: Some("d".into()), ..live() };
        assert_eq!(plan(&spec(), &set(), &lost, "b").replica, Some(Phase::Failed));
        let out = written.without(|n| n == "b").unwrap();
        let anew = Step::Create { source: None, exact: false };
        assert_eq!(steps(&spec(), &out, &lost, "b"), [anew]);
    }

    #[test]
    fn a_replica_whose_disk_is_away_is_made_on_no_other_and_the_volume_is_served() {
        let out = set().claimed(1, None).unwrap().without(|n| n == "a").unwrap();
        let away = Seen { had_disk: Some("d".into()), disk_away: Some("d".into()), ..live() };
        assert_eq!(steps(&exported("a"), &out, &away, "a"), [Step::Lead(4), Step::Export(4)]);
        assert_eq!(plan(&spec(), &out, &away, "a").replica, Some(Phase::Failed));
        let leaving = out.leaving("a").unwrap();
        assert_eq!(steps(&exported("a"), &leaving, &away, "a"), [Step::Lead(4), Step::Export(4)]);
    }

    #[test]
    fn each_of_two_disks_of_a_node_has_its_own() {
        let two = ReplicaSet::new("v", ["a/x", "a/y"].map(String::from));
        let [first, second] = &two.replicas[..] else { panic!() };
        assert_eq!(steps(&exported("a"), &two, &live(), "a"), [empty(), Step::Lead(4), Step::Export(4)]);
        assert_eq!(plan_further(&exported("a"), &two, second, &live()).steps, [empty()]);
        let end = VolumeSpec { deleted: true, ..spec() };
        assert_eq!(plan_further(&end, &two, second, &stored()).steps, [Step::Destroy]);
        let leaving = two.leaving("a/x").unwrap();
        assert_eq!(plan_further(&spec(), &leaving, &leaving.replicas[0], &stored()).steps, [Step::Destroy]);
        assert_eq!(plan_further(&spec(), &two, first, &stored()).steps, []);
    }

    #[test]
    fn an_unused_volume_has_a_writer_while_a_replica_is_behind() {
        let out = set().claimed(1, None).unwrap().without(|n| n == "b").unwrap();
        assert_eq!(steps(&spec(), &out, &stored(), "a"), [Step::Lead(1)]);
        let led = Seen { led: Some(1), led_size: 1024, ..stored() };
        assert_eq!(steps(&spec(), &out, &led, "a"), []);
        let settled = Seen { settled: true, ..led };
        assert_eq!(steps(&spec(), &set(), &settled, "a"), [Step::Unlead]);
    }

    #[test]
    fn what_was_prepared_is_taken_over() {
        let moving = VolumeSpec { moving: Some("b".into()), ..exported("a") };
        assert_eq!(steps(&moving, &set(), &stored(), "b"), [Step::Prepare]);
        let prepared = Seen { served: Some(0), ..stored() };
        assert_eq!(steps(&moving, &set(), &prepared, "b"), []);
        assert_eq!(steps(&exported("b"), &set(), &prepared, "b"), [Step::Lead(4), Step::Export(4)]);
        assert_eq!(steps(&exported("a"), &set(), &prepared, "b"), [Step::Unexport], "the move was given up");
    }

    #[test]
    fn a_clone_is_made_where_its_source_is_in_sync() {
        let clone = VolumeSpec { source: Some("s".into()), ..spec() };
        assert_eq!(plan(&clone, &set(), &live(), "a").replica, Some(Phase::Creating));
        let here = Seen { source: Origin::InSync, ..live() };
        let exact = Step::Create { source: Some("s".into()), exact: true };
        assert_eq!(steps(&clone, &set(), &here, "a"), [exact]);
        let out = set().without(|n| n == "b").unwrap();
        let like = Step::Create { source: Some("s".into()), exact: false };
        assert_eq!(steps(&clone, &out, &here, "b"), [like]);
    }

    #[test]
    fn an_end_is_an_end_everywhere() {
        let end = VolumeSpec { deleted: true, ..spec() };
        assert_eq!(steps(&end, &set(), &stored(), "b"), [Step::Destroy]);
        assert_eq!(plan(&end, &set(), &live(), "b").replica, Some(Phase::Gone));
        let leaving = set().leaving("b").unwrap();
        assert_eq!(steps(&spec(), &leaving, &stored(), "b"), [Step::Destroy]);
        let offline = Seen { live: false, ..stored() };
        assert_eq!(steps(&end, &set(), &offline, "b"), []);
    }
}
