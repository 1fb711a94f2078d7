//! The deadlines of leases, in memory: the file knows only that a lease exists and its ttl.
//!
//! Deadlines are on a monotonic clock, and start anew when the store is opened and when this replica becomes the
//! leader: a lease never ends because the leader was away or the clock was set. Only the leader lets one end, by
//! proposing so.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::kv::{LeaseId, StoreError};

/// How long it has been since some moment of the past, the same for every call.
pub(crate) type Clock = Box<dyn Fn() -> Duration + Send + Sync>;

#[derive(Clone, Copy)]
struct Term {
    ttl: Duration,
    deadline: Duration,
}

/// Every living lease and when it ends.
pub(crate) struct Leases {
    terms: Mutex<HashMap<LeaseId, Term>>,
    clock: Clock,
    changed: Notify,
}

impl Leases {
    pub(crate) fn new(clock: Clock) -> Leases {
        Leases { terms: Mutex::default(), clock, changed: Notify::new() }
    }

    fn terms(&self) -> MutexGuard<'_, HashMap<LeaseId, Term>> {
        self.terms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn term(&self, ttl: Duration) -> Term {
        Term { ttl, deadline: (self.clock)().saturating_add(ttl) }
    }

    /// Starts a full term.
    pub(crate) fn start(&self, lease: LeaseId, ttl_ms: u64) {
        self.terms().insert(lease, self.term(Duration::from_millis(ttl_ms)));
        self.changed.notify_one();
    }

    /// Forgets all, and starts a full term for each that is read. What is granted or ended meanwhile comes after.
    pub(crate) fn restart(
        &self,
        read: impl FnOnce() -> Result<Vec<(LeaseId, u64)>, StoreError>,
    ) -> Result<(), StoreError> {
        let mut terms = self.terms();
        let fresh = read()?.into_iter();
        *terms = fresh.map(|(lease, ttl_ms)| (lease, self.term(Duration::from_millis(ttl_ms)))).collect();
        drop(terms);
        self.changed.notify_one();
        Ok(())
    }

    /// Starts the term anew, if the lease still lives.
    pub(crate) fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        let mut terms = self.terms();
        let term = terms.get_mut(&lease).ok_or(StoreError::LeaseExpired(lease))?;
        *term = self.term(term.ttl);
        Ok(())
    }

    /// Whether a lease lives.
    pub(crate) fn lives(&self, lease: LeaseId) -> bool {
        self.terms().contains_key(&lease)
    }

    /// Forgets a lease.
    pub(crate) fn remove(&self, lease: LeaseId) {
        self.terms().remove(&lease);
    }

    /// Takes out those that are over. From here on they cannot be kept alive, so that the entry which removes
    /// their keys is never overtaken by a keep-alive that was answered with success.
    pub(crate) fn take_expired(&self) -> Vec<LeaseId> {
        let now = (self.clock)();
        let mut terms = self.terms();
        let mut over: Vec<_> = terms.iter().filter(|(_, t)| t.deadline <= now).map(|(l, _)| *l).collect();
        over.sort();
        for lease in &over {
            terms.remove(lease);
        }
        over
    }

    /// How long until the next one may be over.
    pub(crate) fn next_in(&self) -> Option<Duration> {
        let now = (self.clock)();
        self.terms().values().map(|t| t.deadline.saturating_sub(now)).min()
    }

    /// Waits until there may be an earlier deadline than before.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}
