//! The deadlines of leases, in memory: the file knows only that a lease exists and its ttl.
//!
//! Deadlines are on the monotonic clock, and start anew when the store is opened: a lease never ends because
//! the controller was away or the clock was set. Only the writer ends a lease.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::kv::{LeaseId, StoreError};

#[derive(Clone, Copy)]
struct Term {
    ttl: Duration,
    deadline: Instant,
}

/// Every living lease and when it ends.
#[derive(Default)]
pub(super) struct Leases {
    terms: Mutex<HashMap<LeaseId, Term>>,
}

impl Leases {
    fn terms(&self) -> MutexGuard<'_, HashMap<LeaseId, Term>> {
        self.terms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a full term.
    pub(super) fn start(&self, lease: LeaseId, ttl_ms: u64) {
        let ttl = Duration::from_millis(ttl_ms);
        self.terms().insert(lease, Term { ttl, deadline: Instant::now() + ttl });
    }

    /// Starts the term anew, if the lease still lives.
    pub(super) fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        let mut terms = self.terms();
        let term = terms.get_mut(&lease).ok_or(StoreError::LeaseExpired(lease))?;
        term.deadline = Instant::now() + term.ttl;
        Ok(())
    }

    /// Forgets a lease.
    pub(super) fn remove(&self, lease: LeaseId) {
        self.terms().remove(&lease);
    }

    /// Takes out those that are over. From here on they cannot be kept alive, so that the transaction which
    /// removes their keys is never overtaken by a keep-alive that was answered with success.
    pub(super) fn take_expired(&self) -> Vec<LeaseId> {
        let now = Instant::now();
        let mut terms = self.terms();
        let mut over: Vec<_> = terms.iter().filter(|(_, t)| t.deadline <= now).map(|(l, _)| *l).collect();
        over.sort();
        for lease in &over {
            terms.remove(lease);
        }
        over
    }

    /// How long until the next one may be over.
    pub(super) fn next_in(&self) -> Option<Duration> {
        let now = Instant::now();
        self.terms().values().map(|t| t.deadline.saturating_duration_since(now)).min()
    }
}
