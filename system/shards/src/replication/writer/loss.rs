//! Writes that a user was told of as done, and that are lost before a flush made them safe: every replica that had them
//! lost its power, and the user did not. Pure.
//!
//! The user must hear of it, as from a disk that lost its cache: the next flush fails, and so do those that were asked
//! for before that one had failed. Until then what may be lost is not read, so that nothing old is taken for new.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use super::{CLEAN_EVERY, RequestId};
use crate::replication::op::Failure;
use crate::replication::regions::{AREA, units};
use crate::replication::set::ReplicaSet;

/// Who writes, and for whom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Term {
    /// The node of the writer.
    pub node: String,
    /// The boot of that node, see [`ReplicaSet::boot`].
    pub boot: String,
    /// The epoch it writes under.
    pub epoch: u64,
    /// The epoch under which its user began; that of the writer, unless the user moved while it ran.
    pub user_since: u64,
}

impl Term {
    /// Whether an earlier writer, or an earlier process of this one, may have served the same user.
    pub fn is_continued(&self, set: &ReplicaSet) -> bool {
        let moved = set.epoch < self.epoch && set.epoch >= self.user_since && !set.boot.is_empty();
        moved || (set.epoch == self.epoch && set.boot == self.boot)
    }
}

/// What a writer knows of losses.
#[derive(Debug, Default)]
pub struct Loss {
    /// There may be a user who relies on what was acknowledged and never flushed.
    relied_on: bool,
    /// What an earlier process acknowledged is not known here: the replicas' marks stand for it.
    inherited: bool,
    /// The user was not told yet.
    untold: bool,
    /// Where something may be lost, while the user was not told.
    areas: BTreeSet<u64>,
    /// Flushes with lower numbers fail.
    fails_below: RequestId,
    /// When the user was told.
    told_at: Duration,
    /// Flushes of nobody, whose end tells no user.
    unheard: BTreeSet<RequestId>,
}

impl Loss {
    /// None so far; `continued`: the user was served before.
    pub fn new(continued: bool) -> Loss {
        Loss { relied_on: continued, inherited: continued, ..Loss::default() }
    }

    /// Where writes may be that were acknowledged and not flushed: as this writer knows, or as the replicas say.
    pub fn suspects(&self, touched: Vec<u64>, marked: impl Iterator<Item = u64>) -> Vec<u64> {
        if self.inherited { marked.collect() } else { touched }
    }

    /// The replicas begin from a source. `intact`: it has all that was acknowledged.
    pub fn begin(&mut self, intact: bool, recorded: bool, suspects: Vec<u64>) {
        let lost = self.relied_on && !intact && !suspects.is_empty();
        if lost || (self.inherited && recorded) {
            self.untold = true;
        }
        if self.untold {
            self.areas.extend(suspects);
        }
    }

    /// Requests are done from now on.
    pub fn serve(&mut self) {
        (self.relied_on, self.inherited) = (true, false);
    }

    /// Whether there is one that the user was not told of.
    pub fn is_untold(&self) -> bool {
        self.untold
    }

    /// Whether the user may be taken to have heard of the last one: what was answered outlives this process by now.
    pub fn is_heard(&self, now: Duration) -> bool {
        !self.untold && now >= self.told_at + CLEAN_EVERY
    }

    /// The areas where something may be lost.
    pub fn areas(&self) -> impl Iterator<Item = u64> {
        self.areas.iter().copied()
    }

    /// Whether something in this range may be lost.
    pub fn touches(&self, range: &Range<u64>) -> bool {
        !self.areas.is_empty() && units(range, AREA).any(|area| self.areas.contains(&area))
    }

    /// This flush is nobody's.
    pub fn ignore(&mut self, request: RequestId) {
        self.unheard.insert(request);
    }

    /// How a flush ends that all replicas have done; `next` is the number of the next request. The areas are those that
    /// no longer count as lost, because the user is told now.
    pub fn end_flush(
        &mut self,
        request: RequestId,
        next: RequestId,
        now: Duration,
    ) -> (Result<(), Failure>, BTreeSet<u64>) {
        let heard = !self.unheard.remove(&request);
        let fails = self.untold || request < self.fails_below;
        let mut areas = BTreeSet::new();
        if self.untold && heard {
            (self.untold, self.fails_below, self.told_at) = (false, next, now);
            areas = std::mem::take(&mut self.areas);
        }
        let why = || Failure::Broken("writes that were not flushed were lost with their nodes' power".into());
        (if fails { Err(why()) } else { Ok(()) }, areas)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn term(boot: &str, epoch: u64, user_since: u64) -> Term {
        Term { node: "a".into(), boot: boot.into(), epoch, user_since }
    }

    #[test]
    fn a_user_outlives_the_process_and_a_move_but_not_its_node() {
        let claimed = ReplicaSet::new("v", ["a".into()]).claimed(4, None).unwrap();
        assert!(!term("x", 4, 4).is_continued(&claimed), "nobody was served");
        assert!(!term("y", 6, 4).is_continued(&claimed), "nor before it moved");
        let served = claimed.served("x");
        assert!(term("x", 4, 4).is_continued(&served));
        assert!(!term("y", 4, 4).is_continued(&served), "its node has booted");
        assert!(term("y", 6, 4).is_continued(&served), "it moved");
        assert!(!term("x", 6, 6).is_continued(&served), "another user");
        assert!(!term("x", 4, 0).is_continued(&ReplicaSet::new("v", ["a".into()])), "nobody wrote yet");
    }

    #[test]
    fn every_flush_fails_that_was_asked_for_before_the_user_was_told() {
        let mut loss = Loss::new(true);
        loss.begin(false, false, vec![3]);
        assert!(loss.touches(&(3 * AREA..3 * AREA + 1)) && !loss.touches(&(0..AREA)));
        loss.ignore(4);
        assert!(loss.end_flush(4, 8, Duration::ZERO).0.is_err() && loss.is_untold(), "nobody hears it");
        let (told, areas) = loss.end_flush(5, 8, Duration::ZERO);
        assert!(told.is_err() && areas.contains(&3) && !loss.is_untold());
        assert!(loss.end_flush(7, 9, Duration::ZERO).0.is_err());
        assert!(loss.end_flush(8, 9, Duration::ZERO).0.is_ok());
        assert!(!loss.is_heard(Duration::ZERO) && loss.is_heard(CLEAN_EVERY));
    }

    #[test]
    fn a_power_cut_takes_only_what_was_not_flushed() {
        let mut loss = Loss::new(false);
        loss.begin(false, false, vec![1]);
        assert!(!loss.is_untold(), "nobody relied on it");
        loss.serve();
        loss.begin(false, false, vec![]);
        assert!(!loss.is_untold(), "all was flushed");
        loss.begin(true, false, vec![1]);
        assert!(!loss.is_untold(), "another replica has it");
        loss.begin(false, false, vec![1]);
        assert!(loss.is_untold());
    }
}
