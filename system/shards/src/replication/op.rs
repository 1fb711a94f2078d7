//! What a writer asks of a replica, and what it answers. Values alone; these cross the wire between releases, so that
//! kinds are only ever added, at the end.

use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::absence::Kept;

/// One step of a volume's history. The steps of a writer reach each replica in the same order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Stores bytes.
    Write {
        /// Where, in bytes.
        offset: u64,
        /// What.
        data: Bytes,
    },
    /// Makes a range read as zeroes.
    Zero {
        /// Where, in bytes.
        offset: u64,
        /// How many bytes.
        len: u64,
        /// Whether its room is given back.
        unmap: bool,
    },
    /// All before this is on stable media when it is answered.
    Flush,
    /// The volume has at least so many bytes.
    Grow(u64),
    /// These areas are alike on all replicas, on stable media, but for what later steps change.
    Clean(Vec<u64>),
    /// The replica is like the others as of now: it flushes, and has marks of just these areas and of those that later
    /// steps change.
    Settle {
        /// The areas that may still differ on stable media, or lack what was acknowledged.
        keep: Vec<u64>,
    },
    /// Like `Clean`, while replicas are away: they lack what was written there.
    CleanFor {
        /// The areas.
        areas: Vec<u64>,
        /// The round of absences.
        round: u64,
    },
    /// Like `Settle`, while replicas are away.
    SettleFor {
        /// The areas that may still differ on stable media, or lack what was acknowledged.
        keep: Vec<u64>,
        /// The round of absences.
        round: u64,
        /// The areas that those who are away lack, as of now.
        missed: Vec<u64>,
    },
}

impl Op {
    /// The bytes it changes.
    pub fn range(&self) -> Range<u64> {
        match self {
            Op::Write { offset, data } => *offset..offset.saturating_add(data.len() as u64),
            Op::Zero { offset, len, .. } => *offset..offset.saturating_add(*len),
            _ => 0..0,
        }
    }
}

/// Why a replica did not do a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Failure {
    /// A writer of a newer epoch, or a newer session of this one, has the replica.
    #[error("another writer has the volume")]
    Fenced,
    /// Its disk has no room. The step may be asked for again.
    #[error("disk full")]
    Full,
    /// Its disk failed, or it cannot be reached.
    #[error("{0}")]
    Broken(String),
    /// What it holds there is not what was written. Another replica may have it.
    #[error("{0}")]
    Corrupt(String),
}

/// What a replica says of itself when a writer begins.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Opened {
    /// The areas that may differ from other replicas.
    pub areas: Vec<u64>,
    /// Whether it still has what it acknowledged and was not told to flush.
    pub intact: bool,
    /// What else it says, on a connection of its own kind; `None` from a release that keeps nothing, and must not be
    /// asked to.
    #[serde(skip)]
    pub kept: Option<Kept>,
}
