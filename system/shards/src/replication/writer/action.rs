//! What a writer says and is told: values alone.

use std::time::Duration;

use super::{RequestId, Seq};
use crate::replication::op::{Failure, Op};
use crate::replication::set::ReplicaSet;

/// What is to be done. Each is answered by the event that its docs name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Connect to the replica on this node: [`super::Writer::opened`] or [`super::Writer::lost`].
    Open(String),
    /// Close the connection; nothing of it is heard any more.
    Close(String),
    /// Send a step: [`super::Writer::done`], or [`super::Writer::lost`] for all that are under way.
    Send {
        /// The replica's node.
        node: String,
        /// The step's number.
        seq: Seq,
        /// The step.
        op: Op,
    },
    /// Make a region of one replica like that of another: [`super::Writer::copied`].
    Copy {
        /// The node of the source.
        from: String,
        /// The node of the replica to change.
        to: String,
        /// The region.
        region: u64,
        /// The number of the step that stores it.
        seq: Seq,
        /// Nodes whose replicas have all that was acknowledged: where a crash left a block of the source half-written,
        /// it first gets it from one of them, if that has it whole.
        witnesses: Vec<String>,
    },
    /// Change the record in the store: [`super::Writer::swapped`].
    Swap {
        /// What it must be.
        expect: ReplicaSet,
        /// What it shall be.
        new: ReplicaSet,
    },
    /// A request has ended.
    Complete {
        /// The request.
        request: RequestId,
        /// How.
        result: Result<(), Failure>,
    },
}

/// What became of a change of the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Swapped {
    /// It is as it shall be.
    Done,
    /// It is otherwise, and was not changed. `None`: there is no record.
    Found(Option<ReplicaSet>),
    /// The store cannot be reached. The change may have been made.
    Unknown,
}

/// Which end of a copy failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyFailure {
    /// The source could not be read.
    Source,
    /// The other could not be read or written.
    Target,
    /// What the source holds there is corrupt.
    Corrupt,
}

/// How far the writer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The epoch is not its own yet.
    Claiming,
    /// Replicas are being connected, since this time.
    Opening(Duration),
    /// Those in sync are made alike.
    Recovering,
    /// Requests are done.
    Serving,
    /// Another has the volume: this writer does nothing any more.
    Fenced,
}

/// Where a volume is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading<'a> {
    /// On this node, the writer's own if possible.
    From(&'a str),
    /// No replica can be read now.
    Nowhere,
    /// What was acknowledged there may be lost, and no flush has said so yet.
    Lost,
}
