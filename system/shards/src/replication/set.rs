//! Where a volume's replicas are and which of them may be read: the record, and each change that may be made to it.
//! Pure.
//!
//! The record decides what is true of a volume. It is only ever changed by compare-and-swap: by the controller, which
//! adds and removes replicas, and by the volume's writer under its epoch, which says which are in sync. It must never
//! lose its last replica in sync, but by the volume's end.

use cairn_state::Record;
use serde::{Deserialize, Serialize};

use super::place;

/// The replicas of a volume. A volume without this record has one, on the node of its spec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaSet {
    /// The volume's id.
    pub id: String,
    /// The epoch of the last writer that took the volume over; 0 for none yet: it was never written.
    pub epoch: u64,
    /// The boot of the node from which a user was served under this epoch, as the kernel names it; empty for nobody yet.
    /// A user does not outlive it, so a writer of the same epoch and boot serves one who was there before.
    #[serde(default)]
    pub boot: String,
    /// Writes were lost that its user was told of as done, and no flush has said so to that user yet.
    #[serde(default)]
    pub lost: bool,
    /// How many rounds of absences there have been. One begins when a replica goes out of sync while no other is, or is
    /// new or leaving; it lasts while there are such.
    #[serde(default)]
    pub rounds: u64,
    /// How often a writer has begun under an epoch that was its own already, while somebody was out of sync: what an
    /// earlier process of it had still on its way to this record comes too late.
    #[serde(default)]
    pub claims: u64,
    /// The replicas, at most one per disk.
    pub replicas: Vec<Replica>,
}

/// One replica of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// Where it is, see [`super::place`].
    #[serde(rename = "node")]
    pub place: String,
    /// Whether it has all that was acknowledged. Only such a replica is ever read or taken as a source.
    pub in_sync: bool,
    /// The epoch under which it came to be so.
    pub since: u64,
    /// Whether it is to be destroyed; the entry goes when its node says that it is.
    #[serde(default)]
    pub leaving: bool,
    /// The round of absences in which it went out of sync; 0 if it is in sync, leaves, or lacks nobody knows what.
    #[serde(default)]
    pub round: u64,
}

impl Replica {
    /// The node that holds it.
    pub fn node(&self) -> &str {
        place::node_of(&self.place)
    }
}

impl Record for ReplicaSet {
    const KIND: &'static str = "shards/replicas";

    fn id(&self) -> String {
        self.id.clone()
    }
}

impl ReplicaSet {
    /// The set of a volume that was never written, with all replicas in sync, as nothing is like nothing.
    pub fn new(id: &str, places: impl IntoIterator<Item = String>) -> ReplicaSet {
        let fresh = |place| Replica { place, in_sync: true, since: 0, leaving: false, round: 0 };
        let replicas = places.into_iter().map(fresh).collect();
        ReplicaSet {
            id: id.into(),
            epoch: 0,
            boot: String::new(),
            lost: false,
            rounds: 0,
            claims: 0,
            replicas,
        }
    }

    /// The replica at a place.
    pub fn on(&self, place: &str) -> Option<&Replica> {
        self.replicas.iter().find(|r| r.place == place)
    }

    /// Whether the replica at a place is in sync.
    pub fn is_in_sync(&self, place: &str) -> bool {
        self.on(place).is_some_and(|r| r.in_sync)
    }

    /// The replicas of a node.
    pub fn on_node(&self, node: &str) -> impl Iterator<Item = &Replica> {
        self.replicas.iter().filter(move |r| r.node() == node)
    }

    /// A replica in sync of a node, by what it goes by there.
    pub fn whole_on(&self, node: &str) -> Option<String> {
        self.on_node(node).find(|r| r.in_sync).map(|r| place::name(&self.id, &r.place))
    }

    /// The places whose replicas are in sync.
    pub fn in_sync(&self) -> impl Iterator<Item = &str> {
        self.replicas.iter().filter(|r| r.in_sync).map(|r| r.place.as_str())
    }

    /// The set once a writer of this epoch has taken over; `None` if a newer one has. `running`: the boot of the
    /// writer's node, if the user it serves was served before. A loss concerns no other user.
    pub fn claimed(&self, epoch: u64, running: Option<&str>) -> Option<ReplicaSet> {
        let (boot, lost) = (running.unwrap_or_default().to_owned(), self.lost && running.is_some());
        (epoch >= self.epoch).then(|| ReplicaSet { epoch, boot, lost, ..self.clone() })
    }

    /// The set once a writer has begun anew under the epoch it had; `None` if what another process of it may have on its
    /// way does no harm: it could call nobody in sync.
    pub fn claimed_anew(&self) -> Option<ReplicaSet> {
        let harmless = !self.lost && self.replicas.iter().all(|r| r.in_sync);
        (!harmless).then(|| ReplicaSet { claims: self.claims + 1, ..self.clone() })
    }

    /// The set once a user is served, of whom nothing was lost.
    pub fn served(&self, boot: &str) -> ReplicaSet {
        ReplicaSet { boot: boot.into(), lost: false, ..self.clone() }
    }

    /// The set that says whether there is a loss to be told of.
    pub fn with_loss(&self, lost: bool) -> ReplicaSet {
        ReplicaSet { lost, ..self.clone() }
    }

    /// The set without the in-sync replicas that `out` names; `None` if none would be left, or nothing changed.
    pub fn without(&self, out: impl Fn(&str) -> bool) -> Option<ReplicaSet> {
        let changed = self.replicas.iter().any(|r| r.in_sync && out(&r.place));
        let left = self.replicas.iter().any(|r| r.in_sync && !out(&r.place));
        (changed && left).then(|| self.with_sync(|r| r.in_sync && !out(&r.place)))
    }

    /// The set with this replica in sync; `None` if it is already, is leaving or is not in the set.
    pub fn with(&self, place: &str) -> Option<ReplicaSet> {
        let may = self.on(place).is_some_and(|r| !r.in_sync && !r.leaving);
        may.then(|| self.with_sync(|r| r.in_sync || r.place == place))
    }

    /// The set with one more replica, which has nothing yet.
    pub fn added(&self, place: &str) -> ReplicaSet {
        let mut set = self.clone();
        if set.on(place).is_none() {
            let (place, since) = (place.into(), set.epoch);
            let new = Replica { place, in_sync: false, since, leaving: false, round: 0 };
            set.replicas.push(new);
        }
        set
    }

    /// The set with this replica on its way out; `None` if it is the last in sync, or is not in the set.
    pub fn leaving(&self, place: &str) -> Option<ReplicaSet> {
        let others = self.replicas.iter().any(|r| r.in_sync && r.place != place);
        if !others || self.on(place).is_none_or(|r| r.leaving) {
            return None;
        }
        let mut set = self.with_sync(|r| r.in_sync && r.place != place);
        set.replicas.iter_mut().filter(|r| r.place == place).for_each(|r| (r.leaving, r.round) = (true, 0));
        Some(set)
    }

    /// The set without a replica that has left.
    pub fn left(&self, place: &str) -> ReplicaSet {
        let mut set = self.clone();
        set.replicas.retain(|r| r.place != place || !r.leaving);
        set
    }

    /// The set with a replica in another place, and all that is known of it: the disk it is on is there by now.
    pub fn moved(&self, from: &str, to: &str) -> ReplicaSet {
        let mut set = self.clone();
        set.replicas.iter_mut().filter(|r| r.place == from).for_each(|r| r.place = to.into());
        set
    }

    /// The round of absences that lasts.
    pub fn absence(&self) -> Option<u64> {
        self.replicas.iter().map(|r| r.round).max().filter(|round| *round > 0)
    }

    fn with_sync(&self, in_sync: impl Fn(&Replica) -> bool) -> ReplicaSet {
        let next = self.absence().unwrap_or(self.rounds + 1);
        let each = |r: &Replica| {
            let now = in_sync(r);
            let since = if now == r.in_sync { r.since } else { self.epoch };
            let round = match (r.in_sync, now) {
                (true, false) => next,
                (_, true) => 0,
                (false, false) => r.round,
            };
            Replica { in_sync: now, since, round, ..r.clone() }
        };
        let replicas: Vec<Replica> = self.replicas.iter().map(each).collect();
        let rounds = replicas.iter().map(|r| r.round).fold(self.rounds, u64::max);
        ReplicaSet { replicas, rounds, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> ReplicaSet {
        ReplicaSet::new("v", ["a", "b", "c"].map(String::from))
    }

    #[test]
    fn the_last_replica_in_sync_is_never_taken_out() {
        let one = set().without(|n| n != "b").unwrap();
        assert_eq!(one.in_sync().collect::<Vec<_>>(), ["b"]);
        assert_eq!(one.without(|n| n == "b"), None);
        assert_eq!(one.without(|n| n == "a"), None, "it is out already");
        assert_eq!(one.leaving("b"), None);
        assert!(one.leaving("a").unwrap().on("a").unwrap().leaving);
    }

    #[test]
    fn a_round_of_absences_lasts_until_all_are_back() {
        let round = |set: &ReplicaSet, node: &str| set.on(node).unwrap().round;
        let one = set().without(|n| n == "b").unwrap();
        let both = one.without(|n| n == "c").unwrap();
        assert_eq!((both.absence(), round(&both, "b"), round(&both, "c")), (Some(1), 1, 1));
        let back = both.with("b").unwrap();
        assert_eq!((back.absence(), round(&back, "b")), (Some(1), 0));
        let whole = back.with("c").unwrap();
        assert_eq!(whole.absence(), None);
        assert_eq!(whole.without(|n| n == "b").unwrap().absence(), Some(2));
        assert_eq!(whole.added("d").absence(), None, "what is new has missed all");
        assert_eq!(one.leaving("b").unwrap().absence(), None);
    }

    #[test]
    fn an_older_writer_takes_nothing_over() {
        let claimed = set().claimed(4, None).unwrap();
        assert_eq!(claimed.claimed(3, None), None);
        assert_eq!(claimed.claimed(4, None).as_ref(), Some(&claimed));
    }

    #[test]
    fn a_writer_that_begins_anew_leaves_nothing_for_an_earlier_one_to_change() {
        let whole = set().claimed(4, None).unwrap();
        assert_eq!(whole.claimed_anew(), None);
        let out = whole.without(|n| n == "b").unwrap();
        let again = out.claimed_anew().unwrap();
        assert!(again != out && again == ReplicaSet { claims: 1, ..out });
        assert!(whole.with_loss(true).claimed_anew().is_some());
    }

    #[test]
    fn a_loss_ends_with_the_user_it_concerns() {
        let lost = set().claimed(4, None).unwrap().served("x").with_loss(true);
        let moved = lost.claimed(5, Some("y")).unwrap();
        assert!(moved.lost && moved.boot == "y");
        assert!(!lost.claimed(5, None).unwrap().lost && !lost.served("y").lost);
    }

    #[test]
    fn a_new_replica_has_nothing_until_it_is_taken_in() {
        let added = set().claimed(7, None).unwrap().added("d");
        assert!(!added.is_in_sync("d"));
        let whole = added.with("d").unwrap();
        assert_eq!((whole.is_in_sync("d"), whole.on("d").unwrap().since), (true, 7));
        assert_eq!(whole.with("d"), None);
        assert_eq!(added.leaving("d").unwrap().with("d"), None);
        assert_eq!(added.leaving("d").unwrap().left("d").replicas.len(), 3);
        assert_eq!(added.left("d").replicas.len(), 4, "it has not been asked to go");
    }
}
