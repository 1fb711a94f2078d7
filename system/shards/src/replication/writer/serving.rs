//! How a writer serves: requests go to every replica that lacks nothing there; who does not answer is taken out of
//! sync; who is back gets what it missed, region by region, and is taken in again.

use std::ops::Range;

use super::member::Settling;
use super::{Action, CLEAN_EVERY, Copying, Phase, Request, RequestId, SLOW, Wait, Writer};
use crate::replication::op::{Failure, Op};
use crate::replication::regions::{REGION, units};

impl Writer {
    pub(super) fn serve(&mut self) {
        if self.source(|_| true).is_none() {
            return self.fall_back();
        }
        self.drop_waits();
        self.complete();
        self.take_out_awaited();
        self.take_out_unreadable();
        self.take_in();
        self.forget_loss();
        while self.admit() {}
    }

    /// Waits end that are for nothing: the replica has caught up, or need not have it.
    fn drop_waits(&mut self) {
        for id in self.requests.keys().copied().collect::<Vec<_>>() {
            let Some(mut request) = self.requests.remove(&id) else { continue };
            request.waits.retain(|node, wait| match (self.members.get(node), wait) {
                (None, _) => false,
                (Some(_), Wait::Answer) => true,
                (Some(m), Wait::CatchUp) => self.is_needed(node) && !(m.is_up() && m.missed.is_empty()),
            });
            self.requests.insert(id, request);
        }
    }

    fn complete(&mut self) {
        let done: Vec<RequestId> =
            self.requests.iter().filter(|(_, r)| r.waits.is_empty()).map(|(id, _)| *id).collect();
        for request in done {
            let Some(Request { op, flush, full, corrupt, .. }) = self.requests.remove(&request) else {
                continue;
            };
            let result = match (full, corrupt, &op) {
                (true, ..) => Err(Failure::Full),
                (false, Some(why), _) => Err(Failure::Corrupt(why)),
                (false, None, Op::Flush) => self.end_flush(request),
                _ => Ok(()),
            };
            self.touched.touch(&op.range());
            self.heed_unevenness(&op.range(), result.is_err());
            if let Some(number) = flush.filter(|_| result.is_ok()) {
                let under_way = self.requests.values().map(|r| r.op.range());
                let busy: Vec<Range<u64>> = under_way.chain(self.uneven.iter().cloned()).collect();
                self.touched.flushed(number, &busy);
            }
            if let (Op::Grow(size), Ok(())) = (&op, &result) {
                self.size = self.size.max(*size);
            }
            self.actions.push(Action::Complete { request, result });
        }
    }

    /// A change has ended: if a replica did not do it, what it changes is not the same everywhere.
    fn heed_unevenness(&mut self, range: &Range<u64>, failed: bool) {
        let within = |r: &Range<u64>| range.start <= r.start && r.end <= range.end;
        self.uneven.retain(|r| !within(r));
        if failed && !range.is_empty() {
            self.uneven.push(range.clone());
        }
    }

    /// A flush has been done by all; it fails if what it was to make safe is lost.
    fn end_flush(&mut self, request: RequestId) -> Result<(), Failure> {
        let (result, told) = self.loss.end_flush(request, self.next_request, self.now);
        told.into_iter().for_each(|area| self.touched.mark(area));
        result
    }

    /// The record need not keep a loss that the user has heard of.
    fn forget_loss(&mut self) {
        if self.set.lost && self.swap.is_none() && self.loss.is_heard(self.now) {
            let forgotten = self.set.with_loss(false);
            self.propose(forgotten);
        }
    }

    /// A replica that is away and that a request waits for.
    fn take_out_awaited(&mut self) {
        let awaited: Vec<String> = self.requests.values().flat_map(|r| r.waits.keys().cloned()).collect();
        self.take_out(|node, up| !up && awaited.iter().any(|a| a == node));
    }

    fn take_in(&mut self) {
        if self.swap.is_some() {
            return;
        }
        let whole = self
            .members
            .iter()
            .find(|(_, m)| !m.in_sync && m.is_up() && m.missed.is_empty() && m.settling == Settling::Done);
        if let Some(new) = whole.and_then(|(node, _)| self.set.with(node)) {
            self.propose(new);
        }
    }

    /// Takes the first waiting request on, if nothing is in its way.
    fn admit(&mut self) -> bool {
        let Some((_, op)) = self.waiting.front() else { return false };
        let range = op.range();
        // The same order on every replica, whatever the order of their answers.
        let busy = self.is_locked(&range) || self.members.values().any(|m| m.is_busy(&range));
        if busy || (*op == Op::Flush && self.someone_catches_up()) {
            return false;
        }
        let Some((id, op)) = self.waiting.pop_front() else { return false };
        self.touched.touch(&range);
        let flush = (op == Op::Flush).then(|| self.touched.flush());
        let waits = self.distribute(id, &op, &range);
        self.requests.insert(id, Request { op, waits, flush, full: false, corrupt: None });
        true
    }

    /// Whether a replica that must flush is connected and not whole yet.
    fn someone_catches_up(&self) -> bool {
        self.members.iter().any(|(node, m)| self.is_needed(node) && m.is_up() && !m.missed.is_empty())
    }

    /// Sends a step to all who can take it; the others miss it.
    fn distribute(
        &mut self,
        id: RequestId,
        op: &Op,
        range: &Range<u64>,
    ) -> std::collections::BTreeMap<String, Wait> {
        let mut waits = std::collections::BTreeMap::new();
        for node in self.members.keys().cloned().collect::<Vec<_>>() {
            let needed = self.is_needed(&node);
            let Some(member) = self.members.get_mut(&node) else { continue };
            let takes = match op {
                Op::Flush => member.is_up() && member.missed.is_empty(),
                _ => member.takes(range),
            };
            if takes {
                self.send(&node, op.clone(), Some(id), range.clone());
                waits.insert(node, Wait::Answer);
                continue;
            }
            member.missed.insert_range(units(range, REGION));
            if needed {
                waits.insert(node, Wait::CatchUp);
            }
        }
        waits
    }

    /// Brings one region of one replica up, those in sync first: flushes wait for them. Others are rebuilt at the pace
    /// that is allowed.
    pub(super) fn copy(&mut self) {
        if !matches!(self.phase, Phase::Recovering | Phase::Serving) {
            self.copy.take_if(|c| !c.begun);
            return;
        }
        if self.copy.as_ref().is_some_and(|c| !c.begun && !self.can_copy(c)) {
            self.copy = None;
        }
        if self.copy.is_none() {
            self.copy = self.next_copy();
        }
        let Some(copy) = self.copy.as_ref().filter(|c| !c.begun) else { return };
        let bytes = Writer::bytes_of(copy.region);
        let busy =
            [&copy.from, &copy.to].iter().any(|n| self.members.get(*n).is_some_and(|m| m.is_busy(&bytes)));
        if !busy && let Some(copy) = &mut self.copy {
            copy.begun = true;
            if self.members.get(&copy.to).is_some_and(|m| !m.in_sync) {
                self.credit = self.credit.saturating_sub(1);
            }
            let (from, to, region) = (copy.from.clone(), copy.to.clone(), copy.region);
            let seq = self.next_seq;
            self.next_seq += 1;
            let witnesses = self.witnesses(&from);
            self.actions.push(Action::Copy { from, to, region, seq, witnesses });
        }
    }

    fn can_copy(&self, copy: &Copying) -> bool {
        let may = |m: &super::member::Member| m.is_full() || (copy.lent && m.in_sync && m.is_up());
        let from = self.members.get(&copy.from).is_some_and(may);
        from && self.members.get(&copy.to).is_some_and(|m| m.is_up() && m.session == copy.session)
    }

    fn next_copy(&self) -> Option<Copying> {
        let next = |m: &super::member::Member| m.missed.iter().find(|r| !self.unreadable.contains(*r));
        let behind = self.members.iter().filter(|(_, m)| m.is_up() && next(m).is_some());
        let (to, member) = behind.max_by_key(|(_, m)| m.in_sync)?;
        if !member.in_sync && self.credit == 0 {
            return None;
        }
        let region = next(member)?;
        let from = self.source(|node| node != to)?.to_owned();
        Some(Copying { from, to: to.clone(), session: member.session, region, begun: false, lent: false })
    }

    /// Lets go of a replica that holds all others up.
    pub(super) fn drop_slow(&mut self) {
        let now = self.now;
        let slow = |m: &super::member::Member| m.waits_since().is_some_and(|at| now > at + SLOW);
        let late: Vec<String> =
            self.members.iter().filter(|(_, m)| slow(m)).map(|(node, _)| node.clone()).collect();
        for node in late {
            if self.source(|n| n != node && self.members.get(n).is_some_and(|m| !slow(m))).is_some() {
                tracing::warn!(volume = self.set.id, node, "a replica does not answer in time");
                self.actions.push(Action::Close(node.clone()));
                self.disconnect(&node);
            }
        }
    }

    /// Tells replicas of areas that need no mark any more.
    pub(super) fn clean(&mut self) {
        let due = self.phase == Phase::Serving && self.now >= self.cleaned_at + CLEAN_EVERY;
        if !due {
            return;
        }
        self.cleaned_at = self.now;
        let whole: Vec<String> =
            self.members.iter().filter(|(_, m)| m.is_full()).map(|(node, _)| node.clone()).collect();
        let areas = self.touched.take_clean();
        for node in whole.iter().filter(|_| !areas.is_empty()) {
            self.send_clean(node, areas.clone());
        }
    }
}
