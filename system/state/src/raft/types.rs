//! The consensus engine's types, as this store fills them in.
//!
//! Only types. They are generic over the [`Runtime`], so that a simulation can bring its own clock and dice.

use std::fmt::Debug;
use std::marker::PhantomData;

use openraft::impls::{self, leader_id_adv};
use openraft::{AsyncRuntime, RaftTypeConfig, TokioRuntime};
use serde::{Deserialize, Serialize};

use crate::engine::{Command, Reply};

/// A replica's number. It belongs to the store's file, not to the machine: a node whose file was lost comes back
/// with another one, because it may have forgotten what it had promised under the old.
pub type NodeId = u64;

/// What marks the number of a witness: ones where a random number of this kind has the version of a UUID, which is 4.
const WITNESS: u64 = 0xf000;

/// Whether the replica of this number is a witness's. The number says so, since nobody may ever come to know it too late.
pub fn is_witness(node: NodeId) -> bool {
    node & WITNESS == WITNESS
}

/// This number, as one of a witness.
pub(crate) fn witness_number(node: NodeId) -> NodeId {
    node | WITNESS
}

/// What the group knows of a member beside its number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The node's name.
    pub name: String,
    /// Where it was last reached, best first: a hint for the network, never its identity.
    pub addresses: Vec<String>,
}

/// What the engine runs on.
pub trait Runtime: Debug + Clone + Copy + Default + Ord + Send + Sync + 'static {
    /// Tasks, time, channels and dice.
    type Async: AsyncRuntime;
}

/// Real time, real threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tokio;

impl Runtime for Tokio {
    type Async = TokioRuntime;
}

/// The engine's types on a runtime.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Types<K>(PhantomData<K>);

impl<K: Runtime> RaftTypeConfig for Types<K> {
    type D = Command;
    type R = Reply;
    type NodeId = NodeId;
    type Node = Member;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = Payload;
    type Entry = LogEntry;
    type AsyncRuntime = K::Async;
    type Responder<T>
        = impls::OneshotResponder<Self, T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = impls::InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = impls::BoxedErrorSource;
}

/// A term and who leads in it.
pub(crate) type LeaderId = leader_id_adv::LeaderId<u64, NodeId>;
/// A place in the log.
pub(crate) type LogId = openraft::LogId<LeaderId>;
/// Whom this replica has promised to follow.
pub(crate) type Vote = openraft::Vote<LeaderId>;
/// What an entry carries.
pub(crate) type Payload = openraft::EntryPayload<Command, NodeId, Member>;
/// An entry of the log.
pub(crate) type LogEntry = openraft::Entry<LeaderId, Payload>;
/// Who is in the group, and the entry that said so.
pub(crate) type StoredMembership = openraft::StoredMembership<LeaderId, NodeId, Member>;
/// Where in the log a snapshot stands.
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<LeaderId, NodeId, Member>;
