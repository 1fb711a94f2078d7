//! How a writer comes to serve: it takes the volume over, gathers the replicas in sync, and makes them alike where a
//! crash may have left them different. Also how it falls back to that, when no replica is left that lacks nothing.

use std::collections::BTreeSet;

use super::member::{Link, Settling};
use super::{Action, PATIENCE, PATIENCE_AFTER_LOSS, Phase, Writer};
use crate::replication::op::Op;
use crate::replication::place::node_of;
use crate::replication::regions::{Marks, regions_of};

impl Writer {
    /// Does all that can be done now.
    pub(super) fn advance(&mut self) -> Vec<Action> {
        loop {
            let (before, phase) = (self.actions.len(), self.phase);
            self.rules();
            if self.phase == Phase::Fenced {
                // What came after that ends too: whoever waits for it would wait for good.
                return self.fence();
            }
            if self.actions.len() == before && self.phase == phase {
                return std::mem::take(&mut self.actions);
            }
        }
    }

    fn rules(&mut self) {
        match self.phase {
            Phase::Fenced => return,
            Phase::Claiming => return self.claim(),
            Phase::Opening(since) => self.gather(since),
            Phase::Recovering => self.recover(),
            Phase::Serving => self.serve(),
        }
        self.connect();
        self.copy();
        self.settle();
    }

    fn claim(&mut self) {
        if self.swap.is_some() {
            return;
        }
        if self.set.epoch == self.term.epoch {
            match self.set.claimed_anew().filter(|_| !self.claimed) {
                Some(claimed) => self.propose(claimed),
                None => self.phase = Phase::Opening(self.now),
            }
        } else {
            let running = self.term.is_continued(&self.set).then_some(self.term.boot.as_str());
            match self.set.claimed(self.term.epoch, running) {
                Some(claimed) => self.propose(claimed),
                None => self.phase = Phase::Fenced,
            }
        }
    }

    fn connect(&mut self) {
        let size = self.wanted_size();
        for (node, member) in &mut self.members {
            if matches!(member.link, Link::Down { retry_at } if retry_at <= self.now) {
                (member.link, member.size) = (Link::Opening, size);
                self.actions.push(Action::Open(node.clone()));
            }
        }
    }

    /// The bytes that replicas shall have, once what is under way is done: with so many one is opened.
    pub fn wanted_size(&self) -> u64 {
        let grown = self.requests.values().filter_map(|r| match r.op {
            Op::Grow(size) => Some(size),
            _ => None,
        });
        grown.fold(self.size, u64::max)
    }

    /// Waits for the replicas in sync; those that do not come in time are called out of sync, if one is there.
    fn gather(&mut self, since: std::time::Duration) {
        if self.swap.is_some() {
            return;
        }
        let mut in_sync = self.members.values().filter(|m| m.in_sync);
        let all = in_sync.clone().all(|m| m.is_up());
        if all && in_sync.next().is_some() {
            self.begin_recovery();
            return;
        }
        let intact = self.members.values().any(|m| m.in_sync && m.is_up() && m.intact);
        if self.now >= since + if intact { PATIENCE } else { PATIENCE_AFTER_LOSS } {
            self.take_out(|_, up| !up);
        }
    }

    /// Chooses the source: what was never flushed may be lost, but it must be the same everywhere.
    fn begin_recovery(&mut self) {
        let regions = regions_of(self.size);
        let mut differ = Marks::default();
        self.rotten.clear();
        let in_sync = self.members.values().filter(|m| m.in_sync);
        let marked = in_sync.flat_map(|m| m.marked.iter().copied());
        let suspects = self.loss.suspects(self.touched.areas().collect(), marked);
        for member in self.members.values().filter(|m| m.in_sync) {
            member.marked.iter().for_each(|area| self.touched.mark(*area));
        }
        self.touched.areas().for_each(|area| differ.insert_area(area, regions));
        let in_sync = self.members.iter().filter(|(_, m)| m.in_sync && m.is_up());
        let source = in_sync
            .max_by_key(|(node, m)| (m.intact, node_of(node) == self.term.node))
            .map(|(node, _)| node.clone());
        let Some(source) = source else { return };
        self.recall(&differ);
        for (node, member) in &mut self.members {
            member.settling = Settling::Unasked;
            if *node == source {
                self.loss.begin(member.intact, self.set.lost, suspects.clone());
                member.missed = Marks::default();
            } else {
                member.missed.extend(differ.iter());
                // One that was connected while it was being called out of sync has said so to nobody yet.
                member.marked.iter().for_each(|area| member.missed.insert_area(*area, regions));
            }
        }
        self.phase = Phase::Recovering;
    }

    /// Whose blocks may stand for those that a crash left half-written on the source. While replicas are made alike each
    /// in sync has all that was acknowledged, if it lost nothing with its node's power. If the source did, so did all,
    /// and a block that matches may be an old one.
    pub(super) fn witnesses(&self, source: &str) -> Vec<String> {
        let recovering = self.phase == Phase::Recovering;
        if !recovering || !self.members.get(source).is_some_and(|m| m.intact) {
            return Vec::new();
        }
        let witness = self.members.iter().filter(|(_, m)| m.in_sync && m.is_up() && m.intact);
        witness.map(|(node, _)| node.clone()).filter(|node| node != source).collect()
    }

    /// Waits until all in sync are alike and have flushed.
    fn recover(&mut self) {
        if self.source(|_| true).is_none() {
            return self.fall_back();
        }
        if self.swap.is_some() {
            return;
        }
        if !self.is_loss_kept() {
            let kept = self.set.with_loss(true);
            return self.propose(kept);
        }
        self.take_out(|_, up| !up);
        self.take_out_unreadable();
        let mut in_sync = self.members.values().filter(|m| m.in_sync);
        if self.swap.is_none() && in_sync.all(|m| m.is_full() && m.settling == Settling::Done) {
            if self.set.boot != self.term.boot {
                let served = self.set.served(&self.term.boot);
                return self.propose(served);
            }
            self.touched.clear();
            self.uneven.clear();
            self.loss.serve();
            self.phase = Phase::Serving;
        }
    }

    /// No replica is left that lacks nothing: all that was not completed is done again once there is.
    pub(super) fn fall_back(&mut self) {
        self.phase = Phase::Opening(self.now);
        let undone = std::mem::take(&mut self.requests);
        for (id, request) in undone.into_iter().rev() {
            self.waiting.push_front((id, request.op));
        }
        for member in self.members.values_mut() {
            member.settling = Settling::Unasked;
            member.pending.values_mut().for_each(|p| p.request = None);
        }
    }

    /// Whether a loss that the user was not told of would be known to the next process: once replicas are told that all
    /// is well with them, nothing else is left of it.
    fn is_loss_kept(&self) -> bool {
        let kept = self.set.lost && self.swap.as_ref().is_none_or(|swap| swap.new.lost);
        kept || !self.loss.is_untold()
    }

    /// Tells a replica that lacks nothing that it is like the others.
    fn settle(&mut self) {
        let recovering = self.phase == Phase::Recovering;
        if !recovering && self.phase != Phase::Serving {
            return;
        }
        let alike = self.members.values().filter(|m| m.in_sync).all(super::member::Member::is_full);
        if (recovering && !alike) || !self.is_loss_kept() {
            return;
        }
        let mut keep: BTreeSet<u64> = self.loss.areas().collect();
        if !recovering {
            keep.extend(self.touched.areas());
        }
        let keep: Vec<u64> = keep.into_iter().collect();
        let due = self.members.iter().filter(|(_, m)| m.settling == Settling::Unasked && m.missed.is_empty());
        // In recovery marks are cleared: nothing older may still be under way.
        let due = due.filter(|(_, m)| m.is_up() && (!recovering || m.pending.is_empty()));
        let due: Vec<String> = due.map(|(node, _)| node.clone()).collect();
        for node in due {
            let seq = self.send_settle(&node, keep.clone());
            if let Some(member) = self.members.get_mut(&node) {
                member.settling = Settling::Asked(seq);
            }
        }
    }

    /// Calls those in sync that `out` names (by node and whether they are connected) out of sync.
    pub(super) fn take_out(&mut self, out: impl Fn(&str, bool) -> bool) {
        let up = |node: &str| self.members.get(node).is_some_and(super::member::Member::is_up);
        if self.swap.is_none()
            && let Some(new) = self.set.without(|node| out(node, up(node)))
        {
            self.propose(new);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::replication::op::{Failure, Op};
    use crate::replication::set::ReplicaSet;
    use crate::replication::writer::{Action, Phase, Term, Writer};

    #[test]
    fn what_is_asked_of_a_writer_that_is_fenced_ends_at_once() {
        let newer = ReplicaSet { epoch: 7, ..ReplicaSet::new("v", ["a".into()]) };
        let fenced = |writer: &mut Writer| {
            let (id, actions) = writer.request(Op::Flush);
            let end = Action::Complete { request: id, result: Err(Failure::Fenced) };
            assert_eq!((writer.phase(), actions), (Phase::Fenced, vec![end]));
        };
        let term = Term { node: "a".into(), boot: "x".into(), epoch: 3, user_since: 3 };
        let mut late = Writer::new(term, 1 << 20, newer);
        fenced(&mut late);
        fenced(&mut late);
        let mut writer = Writer::new(Term { epoch: 8, ..Term::default() }, 1 << 20, late.set().clone());
        let (asked, _) = writer.request(Op::Flush);
        let ended = writer.fence();
        assert!(ended.contains(&Action::Complete { request: asked, result: Err(Failure::Fenced) }));
        fenced(&mut writer);
    }

    #[test]
    fn a_writer_takes_no_replica_for_whole_whose_disk_was_moved() {
        let set = ReplicaSet { epoch: 3, ..ReplicaSet::new("v", ["a", "b/x"].map(String::from)) };
        let term = Term { node: "a".into(), boot: "x".into(), epoch: 3, user_since: 3 };
        for moved in [set.moved("b/x", "c/x"), set.without(|at| at == "b/x").unwrap().moved("b/x", "c/x")] {
            let mut writer = Writer::new(term.clone(), 1 << 20, set.clone());
            let (asked, _) = writer.request(Op::Flush);
            let version = writer.version();
            let end = Action::Complete { request: asked, result: Err(Failure::Fenced) };
            assert!(
                writer.seen(moved, version).contains(&end),
                "what it has on its way, it does not say is done"
            );
            assert_eq!(writer.phase(), Phase::Fenced);
        }
        let mut writer = Writer::new(term, 1 << 20, set.clone());
        let version = writer.version();
        writer.seen(set.added("c"), version);
        assert_ne!(writer.phase(), Phase::Fenced, "one that is new has nothing yet");
    }
}
