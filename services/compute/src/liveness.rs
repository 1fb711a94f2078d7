//! When a node must stop its guests, and when others may start them. Pure; the model at the end shows that no
//! schedule of lost messages, drifting clocks and slow processes lets a guest run twice.
//!
//! A node's lease is renewed by a committed write. The node counts from when it *asked* for the last renewal that
//! succeeded; the others count from when they first saw the lease *gone*, each on a clock of their own. So the node's
//! count began earlier, and its limit is the shorter one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// So long after its last renewal a node stops what others may take over.
pub const FENCE_AFTER: Duration = Duration::from_secs(15);
/// So fresh the last renewal must be for a node to start a guest.
pub const START_WITHIN: Duration = Duration::from_secs(10);
/// So long a node's lease must have been gone, without a break, before its guests are started elsewhere.
pub const ABSENT_FOR: Duration = Duration::from_secs(20);

/// What a node may do with guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// All.
    Clear,
    /// It must start none. Those that run may go on.
    Hold,
    /// It must stop those that run.
    Cut,
}

/// What a node may do that last renewed its lease so long ago. `alone`: no other node could take over.
pub fn standing(alone: bool, since_renewal: Option<Duration>) -> Standing {
    match since_renewal {
        _ if alone => Standing::Clear,
        Some(age) if age < START_WITHIN => Standing::Clear,
        Some(age) if age >= FENCE_AFTER => Standing::Cut,
        // Never renewed since it was switched on: nothing runs yet that it started.
        _ => Standing::Hold,
    }
}

/// Since when each node's lease has been seen gone, by this process.
#[derive(Debug, Default)]
pub struct Absences {
    since: BTreeMap<String, Instant>,
}

impl Absences {
    /// Notes whether a node's lease is there. To be told of every node more often than a lease lasts, or a short
    /// return would go unseen.
    pub fn note(&mut self, node: &str, present: bool, now: Instant) {
        if present {
            self.since.remove(node);
        } else {
            self.since.entry(node.to_owned()).or_insert(now);
        }
    }

    /// Forgets the nodes that are no more.
    pub fn keep_only(&mut self, keep: impl Fn(&str) -> bool) {
        self.since.retain(|node, _| keep(node));
    }

    /// Whether a node has been gone for long enough that its guests have stopped.
    pub fn lost(&self, node: &str, now: Instant) -> bool {
        self.since.get(node).is_some_and(|since| now.saturating_duration_since(*since) >= ABSENT_FOR)
    }
}

#[cfg(test)]
#[path = "liveness_tests.rs"]
mod tests;
