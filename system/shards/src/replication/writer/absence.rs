//! What a writer does so that the next one knows what replicas lack that are away: it has those in sync keep it, see
//! [`Entries`](crate::replication::absence::Entries), and begins with what they have kept.
//!
//! It must never take a replica for one that was like the others when the entries were begun, if it was not.

use super::member::Settling;
use super::{Seq, Writer};
use crate::replication::op::Op;
use crate::replication::regions::{AREA, Marks, REGION, regions_of};

impl Writer {
    /// The record has changed: from now on a replica is away, and those in sync are told so once they can be.
    pub(super) fn heed_absence(&mut self, before: Option<u64>) {
        if self.set.absence().is_some() && self.set.absence() != before {
            let whole = self.members.values_mut().filter(|m| m.in_sync && m.settling == Settling::Done);
            whole.for_each(|m| m.settling = Settling::Unasked);
        }
    }

    /// The replicas in sync are there and will be made alike where they differ: what others lack may be known by them.
    pub(super) fn recall(&mut self, differ: &Marks) {
        if std::mem::replace(&mut self.recalled, true) {
            return;
        }
        let regions = regions_of(self.size);
        let known: Vec<_> = self
            .members
            .values()
            .filter(|m| m.in_sync && m.is_up())
            .filter_map(|m| m.kept.as_ref()?.absence.clone())
            .collect();
        for (node, member) in self.members.iter_mut().filter(|(_, m)| m.unknown) {
            let round = self.set.on(node).map_or(0, |r| r.round);
            let Some(absence) = known.iter().find(|a| round > 0 && a.round == round) else { continue };
            member.unknown = false;
            member.missed = differ.clone();
            for area in absence.areas.iter().chain(&member.marked) {
                member.missed.insert_area(*area, regions);
            }
            tracing::info!(
                volume = self.set.id,
                node,
                regions = member.missed.len(),
                "what it missed is known"
            );
        }
    }

    /// Tells a replica that it is like the others, but for marks of these areas.
    pub(super) fn send_settle(&mut self, node: &str, keep: Vec<u64>) -> Seq {
        let op = match self.absence_for(node) {
            Some(round) => Op::SettleFor { keep, round, missed: self.missed_beside(node) },
            None => Op::Settle { keep },
        };
        self.send(node, op, None, 0..0)
    }

    /// Tells a replica that these areas need no mark.
    pub(super) fn send_clean(&mut self, node: &str, areas: Vec<u64>) {
        let op = match self.absence_for(node) {
            Some(round) => Op::CleanFor { areas, round },
            None => Op::Clean(areas),
        };
        self.send(node, op, None, 0..0);
    }

    /// The round of absences that a replica is to keep account of.
    fn absence_for(&self, node: &str) -> Option<u64> {
        let keeps = self.members.get(node).is_some_and(|m| m.kept.is_some());
        self.set.absence().filter(|_| keeps)
    }

    /// The areas that the others lack; but not of those that are copied in full in any case.
    fn missed_beside(&self, node: &str) -> Vec<u64> {
        let counts = |of: &str| self.set.on(of).is_some_and(|r| r.in_sync || r.round > 0);
        let others = self.members.iter().filter(|(of, _)| *of != node && counts(of));
        let mut areas = Marks::default();
        others.for_each(|(_, m)| areas.extend(m.missed.iter().map(|region| region * REGION / AREA)));
        areas.iter().collect()
    }
}
