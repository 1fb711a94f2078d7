//! What a writer does about a replica that holds something else than was written: it gets the region from another that
//! lacks nothing, by the way that regions are copied anyhow, in order with all that changes them.
//!
//! Where no other has it, the guest is told, and nobody takes the replica for less than it is: it is the last one.

use std::ops::Range;
use std::time::Duration;

use super::member::{Member, Pending};
use super::{Action, Copying, Phase, Writer};
use crate::replication::regions::{AREA, Marks, REGION, units};

/// How long a region that could not be read is left alone.
const HOPELESS_FOR: Duration = Duration::from_secs(10);

impl Writer {
    /// A replica was found to be corrupt somewhere in this range: another is read from now on, and this one is made like
    /// it. `None`, and nothing is changed, if there is no other.
    pub fn repair(&mut self, node: &str, range: &Range<u64>) -> Option<Vec<Action>> {
        // While requests are not done, it is not known yet who is whole: the read is tried again when it is.
        let begun = self.phase != Phase::Serving || self.begin_repair(node, range);
        begun.then(|| self.advance())
    }

    fn begin_repair(&mut self, node: &str, range: &Range<u64>) -> bool {
        if self.phase != Phase::Serving || self.source(|other| other != node).is_none() {
            return false;
        }
        let Some(member) = self.members.get_mut(node) else { return true };
        member.missed.insert_range(units(range, REGION));
        // It gets marks there, which are to be cleared after the next flush.
        units(range, AREA).for_each(|area| self.touched.mark(area));
        true
    }

    /// A replica could not change a part of a block whose rest is corrupt.
    pub(super) fn refused_as_corrupt(&mut self, node: &str, pending: &Pending, why: String) {
        if self.begin_repair(node, &pending.range) {
            return self.await_catch_up(node, pending.request);
        }
        if let Some(request) = pending.request.and_then(|id| self.requests.get_mut(&id)) {
            request.waits.remove(node);
            request.corrupt = Some(why);
        }
    }

    /// The source of a copy is corrupt there.
    pub(super) fn not_copied(&mut self, copy: &Copying) {
        if !self.borrow(copy) && !self.begin_repair(&copy.from, &Writer::bytes_of(copy.region)) {
            tracing::error!(volume = self.set.id, region = copy.region, "no replica has it whole");
            if self.unreadable.is_empty() {
                self.unreadable_since = self.now;
            }
            self.unreadable.insert(copy.region);
        }
    }

    /// While replicas are made alike no request is under way, and each in sync has all that was acknowledged, whether it
    /// was compared yet or not: where the source is corrupt, it gets the region from another. One that has it from the
    /// source goes first, so that they stay alike.
    fn borrow(&mut self, copy: &Copying) -> bool {
        if self.phase != Phase::Recovering {
            return false;
        }
        let region = copy.region;
        self.rotten.insert((region, copy.from.clone()));
        let borrower = if copy.lent { &copy.to } else { &copy.from };
        if copy.lent
            && let Some(lender) = self.members.get_mut(&copy.from)
        {
            lender.missed.insert(region);
        }
        let Some(to) = self.members.get(borrower).filter(|m| m.is_full()) else { return false };
        let has_all = |m: &Member| m.in_sync && m.is_up() && (m.intact || !to.intact);
        let lenders = self.members.iter().filter(|(node, m)| {
            *node != borrower && has_all(m) && !self.rotten.contains(&(region, (*node).clone()))
        });
        let Some((from, _)) = lenders.min_by_key(|(_, m)| m.missed.contains(region)) else { return false };
        let (from, to, session) = (from.clone(), borrower.clone(), to.session);
        self.copy = Some(Copying { from, to, session, region, begun: false, lent: true });
        true
    }

    /// Nobody waits for a replica that cannot be made whole.
    pub(super) fn take_out_unreadable(&mut self) {
        if self.unreadable.is_empty() {
            return;
        }
        let hopeless =
            |missed: &Marks| !missed.is_empty() && missed.iter().all(|r| self.unreadable.contains(r));
        let out: Vec<String> = self
            .members
            .iter()
            .filter(|(_, m)| m.in_sync && hopeless(&m.missed))
            .map(|(node, _)| node.clone())
            .collect();
        self.take_out(|node, _| out.iter().any(|n| n == node));
    }

    /// What could not be read may have been written anew.
    pub(super) fn hope(&mut self) {
        if !self.unreadable.is_empty() && self.now >= self.unreadable_since + HOPELESS_FOR {
            self.unreadable = Marks::default();
        }
    }
}
