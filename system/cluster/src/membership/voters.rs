//! Who votes on the store's log: decided from the members and their health alone.
//!
//! At most five, and an odd number, since an even one bears no more failures. Of the sizes that are possible the
//! one that bears the most failures from here on is taken, the larger of two alike. So two nodes have one voter
//! (a second could only take the quorum away), three have three, and five voters of which two are dead become
//! three. A voter stays one as long as that holds: nothing changes without a gain. A witness counts like a node, so two
//! nodes and a witness are three voters, and gives way to a third node.
//!
//! It must never take a step that the voters there are now cannot agree on: without a quorum nothing is changed.

use std::collections::BTreeSet;
use std::time::Duration;

use cairn_wire::remote::PeerId;

use super::records::{Member, MemberState};
use crate::witness::Witness;

/// The most voters.
pub const VOTERS_MAX: usize = 5;
/// How long a voter may be silent before another takes its place.
pub const DEAD_AFTER: Duration = Duration::from_secs(60);

/// How a member is, as the leader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It answers.
    Up {
        /// It has all of the log but what is on its way.
        caught_up: bool,
    },
    /// It has not answered for this long.
    Silent(Duration),
}

/// A member as far as voting goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Who.
    pub id: PeerId,
    /// Whether it votes now.
    pub voter: bool,
    /// Whether it may vote: it belongs, and is not on its way out.
    pub eligible: bool,
    /// Whether it leads now.
    pub leader: bool,
    /// How it is.
    pub health: Health,
    /// Whether it only votes: nodes go before it.
    pub witness: bool,
}

impl Candidate {
    /// A member, and how the leader finds it.
    pub fn of(member: &Member, leader: bool, health: Health) -> Candidate {
        let eligible = member.state == MemberState::Member;
        Candidate { id: member.id, voter: member.voter, eligible, leader, health, witness: false }
    }

    /// The witness, and how the leader finds it.
    pub fn of_witness(witness: &Witness, health: Health) -> Candidate {
        let (id, voter) = (witness.id, witness.voter);
        Candidate { id, voter, eligible: true, leader: false, health, witness: true }
    }

    fn answers(&self) -> bool {
        matches!(self.health, Health::Up { .. })
    }

    /// Whether it counts on as a voter, or can become one.
    fn is_good(&self) -> bool {
        match self.health {
            Health::Up { caught_up } => self.voter || caught_up,
            Health::Silent(span) => self.voter && span < DEAD_AFTER,
        }
    }

    /// The best first: a node, then who stays, since that changes least.
    fn rank(&self) -> (bool, bool, bool, bool, PeerId) {
        (self.witness, !self.leader, !self.voter, !self.answers(), self.id)
    }
}

/// Who shall vote. `members` in the order in which they joined, or any: the outcome is the same.
pub fn voters(members: &[Candidate]) -> BTreeSet<PeerId> {
    let now: Vec<_> = members.iter().filter(|m| m.voter).collect();
    let current = now.iter().map(|m| m.id).collect();
    if now.iter().filter(|m| m.answers()).count() <= now.len() / 2 {
        return current;
    }
    let mut good: Vec<_> = members.iter().filter(|m| m.eligible && m.is_good()).collect();
    good.sort_by_key(|m| m.rank());
    let mut dead: Vec<_> = members.iter().filter(|m| m.eligible && m.voter && !m.is_good()).collect();
    dead.sort_by_key(|m| m.rank());
    let sizes = (1..=VOTERS_MAX).step_by(2).filter(|size| *size <= good.len() + dead.len());
    match sizes.filter_map(|size| Some((bears(good.len(), size)?, size))).max() {
        Some((_, size)) => good.iter().chain(&dead).take(size).map(|m| m.id).collect(),
        // Everybody is on the way out: the ones there are vote to the end.
        None => current,
    }
}

/// How many more failures so many voters bear if so many are good; `None` if they have no quorum at all.
fn bears(good: usize, size: usize) -> Option<usize> {
    good.min(size).checked_sub(size / 2 + 1)
}

#[cfg(test)]
#[path = "voters_tests.rs"]
mod tests;
