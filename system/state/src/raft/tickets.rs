//! The tickets under which this store asks for transactions, so that it may ask again when an answer was lost.
//!
//! Pure but for the lock. It must never give a number twice.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::engine::sessions::Ticket;

/// The tickets of one store, from when it is opened until it is closed.
pub(super) struct Tickets {
    session: u64,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next: u64,
    waiting: BTreeSet<u64>,
}

/// A ticket that is waited for, until this is dropped.
pub(super) struct Held<'a> {
    tickets: &'a Tickets,
    pub ticket: Ticket,
}

impl Tickets {
    /// For a session that nobody else has.
    pub(super) fn new(session: u64) -> Tickets {
        Tickets { session, open: Mutex::default() }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next one.
    pub(super) fn take(&self) -> Held<'_> {
        let mut open = self.open();
        let number = open.next;
        open.next += 1;
        open.waiting.insert(number);
        let settled = open.waiting.first().copied().unwrap_or(number);
        Held { tickets: self, ticket: Ticket { session: self.session, number, settled } }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.tickets.open().waiting.remove(&self.ticket.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_is_not_settled() {
        let tickets = Tickets::new(7);
        let (first, second) = (tickets.take(), tickets.take());
        assert_eq!(first.ticket, Ticket { session: 7, number: 0, settled: 0 });
        assert_eq!(second.ticket, Ticket { session: 7, number: 1, settled: 0 });
        drop(first);
        assert_eq!(tickets.take().ticket, Ticket { session: 7, number: 2, settled: 1 });
        drop(second);
        assert_eq!(tickets.take().ticket, Ticket { session: 7, number: 3, settled: 3 });
    }
}
