//! What a writer knows of one replica. Pure.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::{RequestId, Seq};
use crate::replication::absence::Kept;
use crate::replication::regions::{Marks, REGION, units};

/// How a replica is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// It is not; it is tried again at this time.
    Down {
        /// When.
        retry_at: Duration,
    },
    /// An answer is awaited.
    Opening,
    /// Steps can be sent.
    Up,
}

/// A step that was sent and not answered yet.
#[derive(Debug, Clone)]
pub struct Pending {
    /// The request it is of; `None` for the writer's own.
    pub request: Option<RequestId>,
    /// The bytes it changes.
    pub range: Range<u64>,
    /// When it was sent.
    pub sent_at: Duration,
}

/// How far a replica that lacks nothing is from being taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settling {
    /// It was not asked yet.
    Unasked,
    /// It was asked to flush, by this step.
    Asked(Seq),
    /// It has flushed.
    Done,
}

/// A replica, as its writer sees it.
#[derive(Debug, Clone)]
pub struct Member {
    /// Whether the store calls it in sync.
    pub in_sync: bool,
    /// Whether it is connected.
    pub link: Link,
    /// Regions that may differ from those of the replicas in sync.
    pub missed: Marks,
    /// Regions copied to it that it may not have flushed.
    pub copied: Marks,
    /// The bytes it was asked to have when it was last connected.
    pub size: u64,
    /// Counts its connections: what is answered on an earlier one says nothing any more.
    pub session: u64,
    /// What is under way, in the order it was sent.
    pub pending: BTreeMap<Seq, Pending>,
    /// Areas it said may differ, when it was last connected.
    pub marked: Vec<u64>,
    /// Whether it had lost nothing then.
    pub intact: bool,
    /// Whether it was told that it is like the others.
    pub settling: Settling,
    /// What it said of itself and of others' absences, if it knows of such.
    pub kept: Option<Kept>,
    /// All is taken for missed because nobody said yet what is.
    pub unknown: bool,
}

impl Member {
    /// One that is not connected yet, and of which these regions are not known.
    pub fn new(in_sync: bool, missed: Marks) -> Member {
        Member {
            in_sync,
            link: Link::Down { retry_at: Duration::ZERO },
            missed,
            copied: Marks::default(),
            size: 0,
            session: 0,
            pending: BTreeMap::new(),
            marked: Vec::new(),
            intact: false,
            settling: Settling::Unasked,
            kept: None,
            unknown: !in_sync,
        }
    }

    /// Whether it is connected.
    pub fn is_up(&self) -> bool {
        self.link == Link::Up
    }

    /// Whether it can be read and taken as a source: in sync, connected, and nothing is missed.
    pub fn is_full(&self) -> bool {
        self.in_sync && self.is_up() && self.missed.is_empty()
    }

    /// Whether steps that change this range are sent to it: not while it lacks part of it.
    pub fn takes(&self, range: &Range<u64>) -> bool {
        self.is_up() && !self.missed.intersects(units(range, REGION))
    }

    /// Whether something under way changes a part of this range.
    pub fn is_busy(&self, range: &Range<u64>) -> bool {
        self.pending.values().any(|p| overlap(&p.range, range))
    }

    /// When the oldest step under way was sent.
    pub fn waits_since(&self) -> Option<Duration> {
        self.pending.values().map(|p| p.sent_at).min()
    }
}

/// Whether two ranges have a byte in common.
pub fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start.max(b.start) < a.end.min(b.end)
}
