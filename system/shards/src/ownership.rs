//! Whose a data disk is: which node may use what lies on it. Pure.
//!
//! A disk says the node it belongs to ([`Owner`]), since replicas that are not bound to a disk go by their node's name: on
//! another node they would be taken for that one's. The store says it too once a disk was adopted ([`DiskOwner`]), and the
//! store leads: the disk is used only when it says the same, and its node has it say so after all on it is bound to it. So
//! a crash between the two is found undone, on whichever node the disk is by then.
//!
//! A disk with something on it that says nothing is of a release before there were owners. It is its node's if that is
//! what the store believes: that node was the last to report it as there, and nobody else does.

use crate::format::Owner;
use crate::model::DiskOwner;

/// What the store says of a disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Belief {
    /// Whether that is the store's, and not only what a ledger kept of it.
    pub live: bool,
    /// Whose it is since it was adopted.
    pub owner: Option<DiskOwner>,
    /// The nodes that reported the disk as theirs, and whether it was well.
    pub reports: Vec<(String, bool)>,
}

/// What becomes of a disk on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is used.
    Use,
    /// It is used once all that is on it is bound to it, if it was ever adopted, and it says that it is this node's.
    Take(u64),
    /// It belongs to this other node; if empty, nobody knows to which.
    Elsewhere(String),
    /// Only the store can tell.
    Wait,
}

/// Whether `node` may use a disk that says this of itself. `empty`: nothing is on it.
pub fn judge(node: &str, written: Option<&Owner>, empty: bool, belief: &Belief) -> Verdict {
    if let Some(owner) = &belief.owner {
        let says_so = written.is_some_and(|w| w.node == node && w.adoption == owner.adoption);
        return match owner.node == node {
            false => Verdict::Elsewhere(owner.node.clone()),
            true if says_so => Verdict::Use,
            true if belief.live => Verdict::Take(owner.adoption),
            true => Verdict::Wait,
        };
    }
    match written {
        Some(owner) if owner.node == node => Verdict::Use,
        Some(owner) => Verdict::Elsewhere(owner.node.clone()),
        None if empty => Verdict::Take(0),
        None if !belief.live => Verdict::Wait,
        None => unowned(node, &belief.reports),
    }
}

fn unowned(node: &str, reports: &[(String, bool)]) -> Verdict {
    let mut others = reports.iter().filter(|(of, _)| of != node);
    let own = reports.iter().find(|(of, _)| of == node).map(|(_, well)| *well);
    // Of two that say it is not there, nobody knows which had it last.
    let well = others.clone().find(|(_, well)| *well);
    match (own, well.or_else(|| others.next())) {
        (Some(_), None) | (Some(true), Some((_, false))) => Verdict::Take(0),
        (_, other) => Verdict::Elsewhere(other.map_or_else(String::new, |(of, _)| of.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(node: &str, adoption: u64) -> Belief {
        let owner = DiskOwner { disk: "d".into(), node: node.into(), adoption };
        Belief { live: true, owner: Some(owner), reports: Vec::new() }
    }

    fn reported(reports: &[(&str, bool)]) -> Belief {
        let reports = reports.iter().map(|(node, well)| ((*node).to_owned(), *well)).collect();
        Belief { live: true, owner: None, reports }
    }

    fn elsewhere(node: &str) -> Verdict {
        Verdict::Elsewhere(node.into())
    }

    #[test]
    fn a_disk_is_its_nodes_whether_the_store_is_there_or_not() {
        let here = Owner::new("a", 0);
        for belief in [Belief::default(), reported(&[]), reported(&[("a", false), ("b", true)])] {
            assert_eq!(judge("a", Some(&here), false, &belief), Verdict::Use);
            assert_eq!(judge("b", Some(&here), true, &belief), elsewhere("a"));
        }
    }

    #[test]
    fn the_store_leads_and_the_disk_follows() {
        let (a, b) = (Owner::new("a", 0), Owner::new("b", 1));
        assert_eq!(judge("b", Some(&a), false, &owned("b", 1)), Verdict::Take(1));
        assert_eq!(judge("b", Some(&b), false, &owned("b", 1)), Verdict::Use);
        // It went back before it was made to say so.
        assert_eq!(judge("a", Some(&a), false, &owned("b", 1)), elsewhere("b"));
        assert_eq!(judge("a", Some(&a), false, &owned("a", 2)), Verdict::Take(2), "not all on it is bound");
        let kept = Belief { live: false, ..owned("b", 1) };
        assert_eq!(judge("b", Some(&a), false, &kept), Verdict::Wait);
        assert_eq!(judge("b", Some(&b), false, &kept), Verdict::Use);
        assert_eq!(judge("a", Some(&a), false, &kept), elsewhere("b"));
        assert_eq!(judge("a", Some(&a), false, &owned("", 1)), elsewhere(""), "it was given up");
    }

    #[test]
    fn a_disk_of_an_older_release_is_whose_the_store_believes_it_is() {
        let of = |reports: &[(&str, bool)]| judge("a", None, false, &reported(reports));
        assert_eq!(of(&[("a", true)]), Verdict::Take(0));
        assert_eq!(of(&[("a", false)]), Verdict::Take(0), "it was away, and nobody else had it");
        assert_eq!(of(&[("b", true)]), elsewhere("b"), "it was moved while the release was changed");
        assert_eq!(of(&[("b", false)]), elsewhere("b"));
        assert_eq!(of(&[("a", true), ("b", false)]), Verdict::Take(0));
        assert_eq!(of(&[("a", true), ("b", true)]), elsewhere("b"));
        assert_eq!(of(&[("a", false), ("b", false)]), elsewhere("b"));
        assert_eq!(of(&[]), elsewhere(""), "it has volumes that the store knows nothing of");
        assert_eq!(judge("a", None, false, &Belief::default()), Verdict::Wait);
        assert_eq!(judge("a", None, true, &Belief::default()), Verdict::Take(0), "nothing can be mistaken");
    }

    /// Whatever is believed and written, no two nodes may use a disk.
    #[test]
    fn a_disk_is_never_used_by_two() {
        let nodes = ["a", "b", "c"];
        let owners = [None, Some(""), Some("a"), Some("b")];
        let written = [None, Some(Owner::new("a", 0)), Some(Owner::new("b", 1)), Some(Owner::new("a", 2))];
        let states = [None, Some(false), Some(true)];
        for owner in owners {
            for adoption in [1, 2] {
                for w in &written {
                    for bits in 0..27_usize {
                        let state = |i: usize| states[bits / 3_usize.pow(i as u32) % 3];
                        let all = nodes.iter().enumerate();
                        let reports: Vec<(&str, bool)> =
                            all.filter_map(|(i, n)| Some((*n, state(i)?))).collect();
                        let mut belief = reported(&reports);
                        belief.owner = owner.and_then(|o| owned(o, adoption).owner);
                        let may = |n: &&&str| {
                            matches!(judge(n, w.as_ref(), false, &belief), Verdict::Use | Verdict::Take(_))
                        };
                        let users: Vec<&&str> = nodes.iter().filter(may).collect();
                        assert!(users.len() <= 1, "{users:?} use it: {w:?} {belief:?}");
                    }
                }
            }
        }
    }
}
