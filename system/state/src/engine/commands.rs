//! What the log orders: the commands of the state machine, and their answers.
//!
//! The same command on the same state has the same effect on every node: no clock, no randomness, no knowledge of
//! the node. The log and the wire carry them in postcard, so variants and fields are only ever added at the end.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::apply::{apply, end_lease, weight};
use super::layout::{META_LEASE, Tables, failed};
use super::sessions::{Sessions, Ticket};
use crate::kv::{Event, LeaseId, StoreError, Txn, TxnOutcome};

/// A change of the state machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Does a transaction.
    Txn(Txn),
    /// Grants a lease.
    Grant {
        /// How long it lives without being kept alive, in milliseconds.
        ttl_ms: u64,
    },
    /// Ends a lease and removes its keys: asked for, or because the leader saw its time run out.
    Revoke(LeaseId),
    /// Does a transaction, unless it was done before under this ticket: then it is answered as it was.
    Once(Ticket, Txn),
    /// One of the others, as a witness is given it: only members can read it. No state machine ever meets it.
    Sealed(Bytes),
}

impl std::fmt::Display for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Command::Txn(txn) | Command::Once(_, txn) => write!(f, "txn of {} operations", txn.ops.len()),
            Command::Grant { ttl_ms } => write!(f, "lease of {ttl_ms} ms"),
            Command::Revoke(lease) => write!(f, "end of lease {}", lease.0),
            Command::Sealed(bytes) => write!(f, "{} sealed bytes", bytes.len()),
        }
    }
}

impl Command {
    /// About how many bytes it is.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Command::Txn(txn) | Command::Once(_, txn) => weight(txn),
            Command::Grant { .. } | Command::Revoke(_) => 16,
            Command::Sealed(bytes) => bytes.len(),
        }
    }
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// How the transaction ended.
    Txn(TxnOutcome),
    /// The lease that was granted.
    Granted(LeaseId),
    /// The lease was ended.
    Revoked,
    /// It was refused and changed nothing.
    Refused(StoreError),
    /// There was nothing to do.
    Nothing,
}

/// What commands changed beside the keys.
#[derive(Default)]
pub(crate) struct Effects {
    pub events: Vec<Event>,
    pub granted: Vec<(LeaseId, u64)>,
    pub ended: Vec<LeaseId>,
}

/// Does a command, which the entry of this index carries. An error is the disk's; what the state refuses is a
/// [`Reply::Refused`].
pub(crate) fn run(
    tables: &mut Tables,
    sessions: &mut Sessions,
    index: u64,
    command: Command,
    effects: &mut Effects,
) -> Result<Reply, StoreError> {
    let (ticket, command) = match command {
        Command::Once(ticket, txn) => (Some(ticket), Command::Txn(txn)),
        other => (None, other),
    };
    if let Some(before) = ticket.and_then(|ticket| sessions.answered(&ticket)) {
        return Ok(before);
    }
    let reply = perform(tables, command, effects)?;
    if let Some(ticket) = ticket {
        sessions.remember(&ticket, reply.clone(), index);
    }
    Ok(reply)
}

fn perform(tables: &mut Tables, command: Command, effects: &mut Effects) -> Result<Reply, StoreError> {
    let done = match command {
        Command::Txn(txn) | Command::Once(_, txn) => apply(tables, txn, &mut effects.events).map(Reply::Txn),
        Command::Grant { ttl_ms } => grant(tables, ttl_ms, effects).map(Reply::Granted),
        Command::Revoke(lease) => revoke(tables, lease, effects),
        Command::Sealed(_) => {
            Err(StoreError::Storage("the log has an entry as witnesses are given it".into()))
        }
    };
    match done {
        Err(e @ StoreError::Storage(_)) => Err(e),
        Err(e) => Ok(Reply::Refused(e)),
        Ok(reply) => Ok(reply),
    }
}

fn grant(tables: &mut Tables, ttl_ms: u64, effects: &mut Effects) -> Result<LeaseId, StoreError> {
    let lease = LeaseId(tables.number(META_LEASE)? + 1);
    tables.set_number(META_LEASE, lease.0)?;
    tables.leases.insert(lease.0, ttl_ms).map_err(failed)?;
    effects.granted.push((lease, ttl_ms));
    Ok(lease)
}

fn revoke(tables: &mut Tables, lease: LeaseId, effects: &mut Effects) -> Result<Reply, StoreError> {
    if end_lease(tables, lease, &mut effects.events)?.is_none() {
        return Err(StoreError::LeaseExpired(lease));
    }
    effects.ended.push(lease);
    Ok(Reply::Revoked)
}
