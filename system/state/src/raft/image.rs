//! Snapshots: the whole state, read from one consistent view of the file and carried in pieces.
//!
//! Nothing is built ahead: a snapshot is read when a replica needs it. The receiver keeps the pieces in a table
//! of their own and puts them in the place of its state in one commit, so that a crash leaves the old or the new.
//! The history of changes is part of it: who watches the receiver misses nothing.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use redb::{ReadOnlyTable, ReadTransaction, ReadableTable};
use serde::{Deserialize, Serialize};

use super::log::change;
use super::saved::{self, Applied};
use super::types::SnapshotMeta;
use crate::engine::file::{Open, StateFile};
use crate::engine::history::Batch;
use crate::engine::layout::{
    self, ENTRIES, HISTORY, LEASE_KEYS, LEASES, META, META_FORMAT, META_REVISION, RAFT_INCOMING, SESSIONS,
    Tables, failed,
};
use crate::engine::{Core, Sessions, sessions};
use crate::kv::StoreError;

/// About how many bytes a piece has; a single larger entry makes a larger one.
const PIECE_BYTES: usize = 256 << 10;

/// A snapshot, as the consensus engine hands it around.
#[derive(Debug, Clone)]
pub(crate) enum Image {
    /// What is in this file now.
    Live(Source),
    /// What was received, and waits in the file to be installed.
    Received,
}

/// A file that a snapshot is read from.
#[derive(Clone)]
pub(crate) struct Source(pub Arc<StateFile>);

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Source")
    }
}

/// A row of one of the tables, as `layout` describes them. Variants are only ever added at the end.
#[derive(Serialize, Deserialize)]
enum Row {
    Meta(String, u64),
    Lease(u64, u64),
    LeaseKey(u64, String),
    Entry(String, Bytes),
    History(u64, u32, Bytes),
    Session(u64, Bytes),
}

/// Where a reading of the state stands.
enum Cursor {
    Small,
    Entries(String),
    History((u64, u32)),
    End,
}

/// The pieces of a snapshot, read one after the other from one view.
pub(crate) struct Pieces {
    txn: ReadTransaction,
    at: Cursor,
    meta: SnapshotMeta,
}

impl Pieces {
    pub(crate) fn new(file: &StateFile) -> Result<Pieces, StoreError> {
        let txn = file.view()?;
        let Applied { log_id, membership } = saved::applied(&txn)?;
        let meta = SnapshotMeta { last_log_id: log_id, last_membership: membership };
        Ok(Pieces { txn, at: Cursor::Small, meta })
    }

    /// Where in the log this view stands.
    pub(crate) fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    /// The next piece, and whether others follow.
    pub(crate) fn next(&mut self) -> Result<(Vec<u8>, bool), StoreError> {
        let mut rows = Vec::new();
        self.at = match &self.at {
            Cursor::Small => {
                self.small(&mut rows)?;
                Cursor::Entries(String::new())
            }
            Cursor::Entries(from) => {
                match entries(&self.txn.open_table(ENTRIES).map_err(failed)?, from, &mut rows)? {
                    Some(from) => Cursor::Entries(from),
                    None => Cursor::History((0, 0)),
                }
            }
            Cursor::History(from) => {
                match history(&self.txn.open_table(HISTORY).map_err(failed)?, *from, &mut rows)? {
                    Some(from) => Cursor::History(from),
                    None => Cursor::End,
                }
            }
            Cursor::End => Cursor::End,
        };
        Ok((saved::encode(&rows)?, !matches!(self.at, Cursor::End)))
    }

    fn small(&self, rows: &mut Vec<Row>) -> Result<(), StoreError> {
        for row in self.txn.open_table(META).map_err(failed)?.iter().map_err(failed)? {
            let (name, number) = row.map_err(failed)?;
            if name.value() != META_FORMAT {
                rows.push(Row::Meta(name.value().to_owned(), number.value()));
            }
        }
        for row in self.txn.open_table(LEASES).map_err(failed)?.iter().map_err(failed)? {
            let (lease, ttl_ms) = row.map_err(failed)?;
            rows.push(Row::Lease(lease.value(), ttl_ms.value()));
        }
        for row in self.txn.open_table(LEASE_KEYS).map_err(failed)?.iter().map_err(failed)? {
            let (at, _) = row.map_err(failed)?;
            let (lease, key) = at.value();
            rows.push(Row::LeaseKey(lease, key.to_owned()));
        }
        for (session, stored) in sessions::rows(&self.txn)? {
            rows.push(Row::Session(session, stored.into()));
        }
        Ok(())
    }
}

/// The one piece of what a witness gets: where the log stands, and no state.
pub(crate) fn nothing() -> Result<(Vec<u8>, bool), StoreError> {
    Ok((saved::encode(&Vec::<Row>::new())?, false))
}

type Entries = ReadOnlyTable<&'static str, &'static [u8]>;
type History = ReadOnlyTable<(u64, u32), &'static [u8]>;

/// A piece's worth of entries, and where the next piece begins.
fn entries(table: &Entries, from: &str, rows: &mut Vec<Row>) -> Result<Option<String>, StoreError> {
    let mut bytes = 0;
    for row in table.range(from..).map_err(failed)? {
        let (key, stored) = row.map_err(failed)?;
        if bytes >= PIECE_BYTES {
            return Ok(Some(key.value().to_owned()));
        }
        bytes += key.value().len() + stored.value().len();
        rows.push(Row::Entry(key.value().to_owned(), Bytes::copy_from_slice(stored.value())));
    }
    Ok(None)
}

/// A piece's worth of history, and where the next piece begins.
fn history(table: &History, from: (u64, u32), rows: &mut Vec<Row>) -> Result<Option<(u64, u32)>, StoreError> {
    let mut bytes = 0;
    for row in table.range(from..).map_err(failed)? {
        let (at, stored) = row.map_err(failed)?;
        let (revision, position) = at.value();
        if bytes >= PIECE_BYTES {
            return Ok(Some((revision, position)));
        }
        bytes += stored.value().len() + 16;
        rows.push(Row::History(revision, position, Bytes::copy_from_slice(stored.value())));
    }
    Ok(None)
}

/// Keeps a received piece; the first forgets all that were received before.
pub(crate) async fn stage(core: &Core, number: u64, piece: Bytes) -> Result<(), io::Error> {
    change(core, false, move |open| {
        let mut table = open.txn()?.open_table(RAFT_INCOMING).map_err(failed)?;
        if number == 0 {
            table.retain(|_, _| false).map_err(failed)?;
        }
        table.insert(number, &*piece).map_err(failed)?;
        Ok(())
    })
    .await
}

/// Puts a snapshot in the place of the state.
pub(crate) async fn install(core: &Arc<Core>, meta: &SnapshotMeta, image: Image) -> Result<(), io::Error> {
    if let Image::Live(source) = image {
        let mut pieces = Pieces::new(&source.0).map_err(io::Error::other)?;
        let mut number = 0;
        loop {
            let (piece, more) = pieces.next().map_err(io::Error::other)?;
            stage(core, number, piece.into()).await?;
            number += 1;
            if !more {
                break;
            }
        }
    }
    let applied = Applied { log_id: meta.last_log_id, membership: meta.last_membership.clone() };
    let now = applied.clone();
    change(core, true, move |open| replace(open, &now)).await?;
    core.restart_leases().map_err(io::Error::other)?;
    core.set_applied(applied);
    let revision = core.snapshot().map_err(io::Error::other)?.revision().0;
    // Watchers that have not seen all of it read it from the history. No watcher is no error.
    drop(core.feed.send(Arc::new(Batch { before: revision, last: revision, events: Vec::new() })));
    Ok(())
}

fn replace(open: &mut Open, applied: &Applied) -> Result<(), StoreError> {
    // What they still had to write is of the state that goes.
    open.sessions = Sessions::default();
    (open.applied, open.membership) = (applied.log_id, Some(applied.membership.clone()));
    let (txn, sessions) = open.parts()?;
    txn.delete_table(ENTRIES).map_err(failed)?;
    txn.delete_table(HISTORY).map_err(failed)?;
    txn.delete_table(LEASES).map_err(failed)?;
    txn.delete_table(LEASE_KEYS).map_err(failed)?;
    txn.delete_table(SESSIONS).map_err(failed)?;
    txn.delete_table(META).map_err(failed)?;
    let mut tables = Tables::open(txn)?;
    tables.set_number(META_FORMAT, layout::FORMAT)?;
    tables.set_number(META_REVISION, 0)?;
    let incoming = txn.open_table(RAFT_INCOMING).map_err(failed)?;
    for row in incoming.iter().map_err(failed)? {
        let (_, piece) = row.map_err(failed)?;
        for row in saved::decode::<Vec<Row>>(piece.value())? {
            put(&mut tables, sessions, row)?;
        }
    }
    drop((incoming, tables));
    txn.delete_table(RAFT_INCOMING).map_err(failed)?;
    txn.open_table(RAFT_INCOMING).map_err(failed)?;
    Ok(())
}

fn put(tables: &mut Tables, sessions: &mut Sessions, row: Row) -> Result<(), StoreError> {
    match row {
        Row::Meta(name, number) => tables.set_number(&name, number),
        Row::Lease(lease, ttl_ms) => tables.leases.insert(lease, ttl_ms).map(drop).map_err(failed),
        Row::Session(session, stored) => {
            sessions.read(session, &stored)?;
            tables.sessions.insert(session, &*stored).map(drop).map_err(failed)
        }
        Row::LeaseKey(lease, key) => {
            tables.lease_keys.insert((lease, key.as_str()), ()).map(drop).map_err(failed)
        }
        Row::Entry(key, stored) => tables.entries.insert(key.as_str(), &*stored).map(drop).map_err(failed),
        Row::History(revision, position, stored) => {
            tables.history.insert((revision, position), &*stored).map(drop).map_err(failed)
        }
    }
}
