//! What became of the transactions that were asked for under a ticket, so that one whose answer was lost can be
//! asked for again and is not done twice.
//!
//! Part of the replicated state: the same on every replica after the same log, bounded, and forgotten by the log's
//! own count and never by time. It does nothing by itself: `commands` asks before it acts.

use std::collections::{BTreeMap, BTreeSet};

use redb::{ReadTransaction, ReadableTable, TableError};
use serde::{Deserialize, Serialize};

use super::commands::Reply;
use super::layout::{SESSIONS, Tables, failed};
use crate::kv::StoreError;

/// How many callers are remembered; beyond that, whoever has been silent for longest is forgotten. A store is one
/// caller from when it is opened until it is closed.
const SESSIONS_MAX: usize = 512;

/// How many answers are remembered of one caller: more than may wait for one at once.
const ANSWERS_MAX: usize = 8192;

/// Which transaction of which caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The caller; no two have the same.
    pub session: u64,
    /// The number of the transaction. It stays the same when it is asked for again.
    pub number: u64,
    /// The caller waits for none with a lower number than this.
    pub settled: u64,
}

/// What is remembered of one caller.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Session {
    /// The index of the entry that last changed it.
    used: u64,
    settled: u64,
    answers: BTreeMap<u64, Reply>,
}

/// What is remembered of all, as it stands on the disk but for what a job is about to write.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    all: BTreeMap<u64, Session>,
    touched: BTreeSet<u64>,
}

impl Sessions {
    /// What the file remembers.
    pub(crate) fn load(txn: &ReadTransaction) -> Result<Sessions, StoreError> {
        let mut sessions = Sessions::default();
        for (session, stored) in rows(txn)? {
            sessions.read(session, &stored)?;
        }
        Ok(sessions)
    }

    /// Takes in a row of the file's table.
    pub(crate) fn read(&mut self, session: u64, stored: &[u8]) -> Result<(), StoreError> {
        let known = postcard::from_bytes(stored)
            .map_err(|e| StoreError::Storage(format!("the store's file is damaged: {e}")))?;
        self.all.insert(session, known);
        Ok(())
    }

    /// What a transaction that was done under this ticket was answered; `None` if it is to be done now.
    pub(crate) fn answered(&self, ticket: &Ticket) -> Option<Reply> {
        let session = self.all.get(&ticket.session)?;
        if ticket.number < session.settled {
            return Some(Reply::Refused(StoreError::Unavailable("its caller has given it up".into())));
        }
        session.answers.get(&ticket.number).cloned()
    }

    /// Remembers an answer, given by the entry of this index.
    pub(crate) fn remember(&mut self, ticket: &Ticket, reply: Reply, index: u64) {
        if !self.all.contains_key(&ticket.session) && self.all.len() >= SESSIONS_MAX {
            self.forget_oldest();
        }
        let session = self.all.entry(ticket.session).or_default();
        session.used = index;
        session.settled = session.settled.max(ticket.settled);
        session.answers = session.answers.split_off(&session.settled);
        session.answers.insert(ticket.number, reply);
        while session.answers.len() > ANSWERS_MAX
            && let Some((number, _)) = session.answers.pop_first()
        {
            session.settled = number + 1;
        }
        self.touched.insert(ticket.session);
    }

    fn forget_oldest(&mut self) {
        let oldest = self.all.iter().min_by_key(|(_, session)| session.used).map(|(id, _)| *id);
        if let Some(oldest) = oldest {
            self.all.remove(&oldest);
            self.touched.insert(oldest);
        }
    }

    /// Writes what has changed since the last time.
    pub(crate) fn save(&mut self, tables: &mut Tables) -> Result<(), StoreError> {
        for id in std::mem::take(&mut self.touched) {
            match self.all.get(&id) {
                Some(session) => {
                    let stored = postcard::to_allocvec(session)
                        .map_err(|e| StoreError::Storage(format!("cannot be encoded: {e}")))?;
                    tables.sessions.insert(id, stored.as_slice()).map_err(failed)?;
                }
                None => drop(tables.sessions.remove(id).map_err(failed)?),
            }
        }
        Ok(())
    }
}

/// The rows of the file's table.
pub(crate) fn rows(txn: &ReadTransaction) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
    let table = match txn.open_table(SESSIONS) {
        Ok(table) => table,
        // It is made with the first entry that is applied.
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let mut rows = Vec::new();
    for row in table.iter().map_err(failed)? {
        let (session, stored) = row.map_err(failed)?;
        rows.push((session.value(), stored.value().to_vec()));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{Revision, TxnOutcome};

    fn ticket(session: u64, number: u64, settled: u64) -> Ticket {
        Ticket { session, number, settled }
    }

    fn done(revision: u64) -> Reply {
        Reply::Txn(TxnOutcome::Committed(Revision(revision)))
    }

    #[test]
    fn a_ticket_is_answered_as_before_until_it_is_settled() {
        let mut sessions = Sessions::default();
        assert_eq!(sessions.answered(&ticket(1, 5, 5)), None);
        sessions.remember(&ticket(1, 5, 5), done(9), 1);
        assert_eq!(sessions.answered(&ticket(1, 5, 5)), Some(done(9)));
        assert_eq!(sessions.answered(&ticket(1, 6, 5)), None, "another number");
        assert_eq!(sessions.answered(&ticket(2, 5, 5)), None, "another caller");
        sessions.remember(&ticket(1, 7, 6), done(10), 2);
        assert!(matches!(sessions.answered(&ticket(1, 5, 5)), Some(Reply::Refused(_))), "too late");
        assert_eq!(sessions.answered(&ticket(1, 6, 5)), None, "still waited for");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut sessions = Sessions::default();
        for number in 0..2 * ANSWERS_MAX as u64 {
            sessions.remember(&ticket(0, number, 0), done(number), number + 1);
        }
        assert_eq!(sessions.all[&0].answers.len(), ANSWERS_MAX);
        assert!(matches!(sessions.answered(&ticket(0, 0, 0)), Some(Reply::Refused(_))));
        for session in 1..=SESSIONS_MAX as u64 {
            sessions.remember(&ticket(session, 0, 0), done(session), 1_000_000 + session);
        }
        assert_eq!(sessions.all.len(), SESSIONS_MAX);
        assert!(!sessions.all.contains_key(&0), "the one that was silent for longest");
    }
}
