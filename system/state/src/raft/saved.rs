//! What the replica keeps of itself in the store's file beside log and state: who it is, whom it has voted for,
//! how far its log is purged and its state applied.
//!
//! Only reading and writing of these few values, the founding of a group, and going on with one that has lost its
//! majority. It must never found twice.

use std::collections::BTreeSet;

use openraft::{Membership, Vote as RaftVote};
use redb::{
    Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTableMetadata, TableError,
    WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::types::{self, LeaderId, LogEntry, LogId, Member, NodeId, Payload, StoredMembership, Vote};
use crate::engine::layout::{self, RAFT, RAFT_LOG, failed};
use crate::kv::StoreError;
use crate::wal::{Log, Rows};

const NODE: &str = "node";
const VOTE: &str = "vote";
const PURGED: &str = "purged";
const APPLIED: &str = "applied";
const MEMBERSHIP: &str = "membership";
const GENERATION: &str = "generation";
/// The number of the log's last frame at some time: the log has at least that.
const LOGGED: &str = "logged";

/// About how many bytes of entries are carried over in one frame.
const CARRY_BYTES: usize = 1 << 20;

/// The generation of a group whose majority was never lost. 0 is that of a replica that is in no group yet.
const FOUNDED: u64 = 1;

/// The first term and index of a founded group.
const FIRST: u64 = 1;

/// What a replica starts from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Saved {
    pub node: NodeId,
    /// Grows each time that the group is gone on with without its majority.
    pub generation: u64,
    pub vote: Option<Vote>,
    pub purged: Option<LogId>,
    pub last: Option<LogId>,
    pub applied: Applied,
}

/// How far the state is.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Applied {
    pub log_id: Option<LogId>,
    pub membership: StoredMembership,
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    postcard::to_allocvec(value).map_err(|e| StoreError::Storage(format!("cannot be encoded: {e}")))
}

pub(crate) fn decode<T: DeserializeOwned>(stored: &[u8]) -> Result<T, StoreError> {
    postcard::from_bytes(stored).map_err(|e| StoreError::Storage(format!("the store's file is damaged: {e}")))
}

fn put<T: Serialize>(txn: &WriteTransaction, name: &str, value: &T) -> Result<(), StoreError> {
    txn.open_table(RAFT).map_err(failed)?.insert(name, encode(value)?.as_slice()).map_err(failed)?;
    Ok(())
}

pub(crate) fn put_vote(txn: &WriteTransaction, vote: &Vote) -> Result<(), StoreError> {
    put(txn, VOTE, vote)
}

pub(crate) fn put_purged(txn: &WriteTransaction, upto: &LogId) -> Result<(), StoreError> {
    put(txn, PURGED, upto)
}

pub(crate) fn put_applied(txn: &WriteTransaction, at: &Option<LogId>) -> Result<(), StoreError> {
    put(txn, APPLIED, at)
}

pub(crate) fn put_membership(txn: &WriteTransaction, now: &StoredMembership) -> Result<(), StoreError> {
    put(txn, MEMBERSHIP, now)
}

pub(crate) fn put_generation(txn: &WriteTransaction, generation: u64) -> Result<(), StoreError> {
    put(txn, GENERATION, &generation)
}

pub(crate) fn put_logged(txn: &WriteTransaction, frame: u64) -> Result<(), StoreError> {
    put(txn, LOGGED, &frame)
}

type Table = ReadOnlyTable<&'static str, &'static [u8]>;

fn get<T: DeserializeOwned>(table: &Table, name: &str) -> Result<Option<T>, StoreError> {
    table.get(name).map_err(failed)?.map(|stored| decode(stored.value())).transpose()
}

/// How far the state is in this view.
pub(crate) fn applied(txn: &ReadTransaction) -> Result<Applied, StoreError> {
    let table = txn.open_table(RAFT).map_err(failed)?;
    let log_id = get::<Option<LogId>>(&table, APPLIED)?.flatten();
    Ok(Applied { log_id, membership: get(&table, MEMBERSHIP)?.unwrap_or_default() })
}

/// Reads what a replica starts from; `None` if the file is no replica's yet. `log` is its log.
fn load(db: &Database, log: &Log) -> Result<Option<Saved>, StoreError> {
    let txn = db.begin_read().map_err(failed)?;
    let Some(table) = own(&txn)? else { return Ok(None) };
    let Some(node) = get(&table, NODE)? else { return Ok(None) };
    if log.number() < get(&table, LOGGED)?.unwrap_or(0) {
        return Err(StoreError::Storage(
            "the store's log lacks what was in it: it belongs to its file".into(),
        ));
    }
    let (applied, vote) = (applied(&txn)?, get(&table, VOTE)?);
    let (purged, last) = ends(log, get(&table, PURGED)?, applied.log_id)?;
    // A file of a release that knew of no generations is of the first, if it is of a group at all.
    let of_a_group = if vote.is_some() { FOUNDED } else { 0 };
    let generation = get(&table, GENERATION)?.unwrap_or(of_a_group);
    Ok(Some(Saved { node, generation, vote, purged, last, applied }))
}

fn own(txn: &ReadTransaction) -> Result<Option<Table>, StoreError> {
    match txn.open_table(RAFT) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(e) => Err(failed(e)),
    }
}

/// Where the log begins and ends. What was applied may be on stable media when the log's own entry of it is not (the
/// group had it), or when that there is a snapshot in the place of entries is not written down yet: then the log begins
/// after it.
fn ends(
    log: &Log,
    purged: Option<LogId>,
    applied: Option<LogId>,
) -> Result<(Option<LogId>, Option<LogId>), StoreError> {
    let next = |at: Option<LogId>| at.map_or(0, |at| at.index + 1);
    let Some((first, end)) = log.span().filter(|(_, end)| *end > next(purged)) else {
        return Ok((purged.max(applied), purged.max(applied)));
    };
    // Entries begin at 0 or at 1, by who has founded.
    if first > next(purged).max(1) && first > next(applied) {
        return Err(StoreError::Storage(format!(
            "the store's log is damaged: it begins with entry {first}, the state ends before {}",
            next(applied)
        )));
    }
    if applied.is_some_and(|applied| end <= applied.index) {
        return Ok((applied, applied));
    }
    let mut last = None;
    log.read(end - 1, end, |entry| {
        last = Some(decode::<LogEntry>(entry)?.log_id);
        Ok(true)
    })?;
    Ok((if first > next(purged).max(1) { applied } else { purged }, last))
}

/// Moves what entries the state's file has into the log: those that a release without a log of its own kept there, and
/// the one that [`recover`] leaves. What is cut short is begun again.
fn carry(db: &Database, log: &Log) -> Result<(), StoreError> {
    let txn = db.begin_read().map_err(failed)?;
    let table = match txn.open_table(RAFT_LOG) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(e) => return Err(failed(e)),
    };
    let (mut rows, mut first, mut buffer) = (Rows::default(), None, Vec::new());
    let current = layout::format_of(db)? == layout::FORMAT;
    if !current {
        // What an attempt before has left, if a release that knows of no such log ran since.
        log.cut(0, &mut buffer)?;
    }
    let end = log.span().map_or(0, |(_, end)| end);
    for row in table.range(end..).map_err(failed)? {
        let (index, entry) = row.map_err(failed)?;
        let from = *first.get_or_insert(index.value());
        if from + rows.count != index.value() {
            return Err(StoreError::Storage("the store's file is damaged: its log has a gap".into()));
        }
        rows.push(entry.value());
        if rows.bytes.len() >= CARRY_BYTES {
            log.append(from, &std::mem::take(&mut rows), &mut buffer)?;
            first = None;
        }
    }
    if let Some(from) = first {
        log.append(from, &rows, &mut buffer)?;
    }
    if current && table.is_empty().map_err(failed)? {
        return Ok(());
    }
    let txn = db.begin_write().map_err(failed)?;
    txn.delete_table(RAFT_LOG).map_err(failed)?;
    layout::make_tables(&txn)?;
    put_logged(&txn, log.number())?;
    txn.commit().map_err(failed)
}

/// How a file that is no replica's yet becomes one.
#[derive(Debug, Clone)]
pub(crate) enum Birth {
    /// As the first and only voter of a new group, whatever state the file has.
    Founds(Member),
    /// As a replica without a group: another's leader will take it in.
    Waits,
    /// As such a one that is a witness.
    WaitsAsWitness,
}

/// The number of the replica whose file this is, if it is one's.
fn replica(db: &Database) -> Result<Option<NodeId>, StoreError> {
    match own(&db.begin_read().map_err(failed)?)? {
        Some(table) => get(&table, NODE),
        None => Ok(None),
    }
}

fn nothing() -> StoreError {
    StoreError::Storage("this store holds no cloud's state to go on with".into())
}

/// The number of the replica whose file this must be.
pub(crate) fn number(db: &Database) -> Result<NodeId, StoreError> {
    layout::format_of(db)?;
    replica(db)?.ok_or_else(nothing)
}

/// Makes a file that is no replica's yet one, in one commit, with this number or one that nobody else has; gives the
/// number.
pub(crate) fn found(db: &Database, birth: &Birth, node: Option<NodeId>) -> Result<NodeId, StoreError> {
    let format = layout::format_of(db)?;
    if let Some(node) = replica(db)? {
        return Ok(node);
    }
    // What a store has held alone must not be forgotten for another group's state.
    if format != 0 && !matches!(birth, Birth::Founds(_)) {
        return Err(StoreError::Storage(
            "this store holds a cloud of its own, and cannot join another's".into(),
        ));
    }
    let node = node.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
    let node = if matches!(birth, Birth::WaitsAsWitness) { types::witness_number(node) } else { node };
    let txn = db.begin_write().map_err(failed)?;
    layout::make_tables(&txn)?;
    put(&txn, NODE, &node)?;
    if let Birth::Founds(member) = birth {
        lead(&txn, node, member.clone())?;
    }
    txn.commit().map_err(failed)?;
    Ok(node)
}

/// What a replica starts from, and its log, in these files.
pub(crate) fn open(db: &Database, log: &Log) -> Result<Saved, StoreError> {
    carry(db, log)?;
    load(db, log)?
        .ok_or_else(|| StoreError::Storage("the store's file does not keep what is written to it".into()))
}

/// Makes a replica whose group has lost its majority the only member of that group's next generation, with all that
/// its log has: what a majority had acknowledged may be in it without this replica having heard so. In one commit;
/// nothing is done to a file that is of this generation already.
pub(crate) fn recover(db: &Database, log: &Log, member: Member, generation: u64) -> Result<(), StoreError> {
    let saved = open(db, log)?;
    if saved.generation >= generation {
        return Ok(());
    }
    let last = saved.last.ok_or_else(nothing)?;
    let term = saved.vote.map_or(0, |vote| vote.leader_id.term).max(last.leader_id.term) + 1;
    let leader = LeaderId { term, node_id: saved.node };
    let log_id = LogId { leader_id: leader, index: last.index + 1 };
    let entry = LogEntry { log_id, payload: Payload::Membership(alone(saved.node, member)?) };
    let txn = db.begin_write().map_err(failed)?;
    txn.open_table(RAFT_LOG)
        .map_err(failed)?
        .insert(log_id.index, encode(&entry)?.as_slice())
        .map_err(failed)?;
    put_vote(&txn, &RaftVote { leader_id: leader, committed: true })?;
    put_generation(&txn, generation)?;
    txn.commit().map_err(failed)
}

/// A group of one.
fn alone(node: NodeId, member: Member) -> Result<Membership<NodeId, Member>, StoreError> {
    let members = std::collections::BTreeMap::from([(node, member)]);
    Membership::new(vec![BTreeSet::from([node])], members)
        .map_err(|e| StoreError::Storage(format!("a group of one is refused: {e}")))
}

/// Makes the replica the elected leader of a group of one, with the state it has as what was applied and purged
/// so far: whoever joins later gets that state as a snapshot.
fn lead(txn: &WriteTransaction, node: NodeId, member: Member) -> Result<(), StoreError> {
    let leader = LeaderId { term: FIRST, node_id: node };
    let at = LogId { leader_id: leader, index: FIRST };
    let membership = alone(node, member)?;
    put_generation(txn, FOUNDED)?;
    put_vote(txn, &RaftVote { leader_id: leader, committed: true })?;
    put_purged(txn, &at)?;
    put_applied(txn, &Some(at))?;
    put_membership(txn, &StoredMembership::new(Some(at), membership))
}
