//! What replicas say to each other, and how it is written: a protocol number, for requests whom they are to and of
//! which generation of the group, then postcard.
//!
//! Only types and encoding. Within a protocol number variants and fields are only ever added at the end.

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderResponse, VoteRequest,
    VoteResponse,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::types::{LogId, Member, NodeId, Runtime, SnapshotMeta, Types, Vote};
use crate::engine::{Command, Reply};
use crate::kv::{LeaseId, StoreError};

/// The protocol this release speaks. 1: the first one. 2: requests say to which replica they are and of which generation
/// of the group, since a node may have come to hold another replica, and a group may have been gone on with without some.
const PROTOCOL: u8 = 2;

/// To whom a request is, and of which generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// The replica that it is to.
    pub to: NodeId,
    /// The sender's generation of the group.
    pub generation: u64,
}

/// A piece of a snapshot.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Piece {
    /// Who sends it.
    pub vote: Vote,
    /// Which of the sender's snapshots it is of.
    pub transfer: u64,
    /// Its place, from 0.
    pub number: u64,
    /// Where in the log the snapshot stands.
    pub meta: SnapshotMeta,
    pub data: Bytes,
    /// Whether others follow.
    pub more: bool,
}

/// A change of who is in the group.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Change {
    /// Takes a member in as a learner, or says where it is now.
    Admit(NodeId, Member),
    /// Makes these the voters; those who were and are not named become learners.
    Voters(std::collections::BTreeSet<NodeId>),
    /// Lets a member go.
    Remove(NodeId),
    /// Makes a voter the leader.
    Lead(NodeId),
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(bound = "")]
pub(crate) enum Request<K: Runtime> {
    Append(AppendEntriesRequest<Types<K>>),
    Vote(VoteRequest<Types<K>>),
    PreVote(VoteRequest<Types<K>>),
    Transfer { from: Vote, to: NodeId, last: Option<LogId> },
    Piece(Piece),
    Propose(Command),
    ReadIndex,
    KeepAlive(LeaseId),
    Change(Change),
}

#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub(crate) enum Response<K: Runtime> {
    /// Something went wrong, nothing was decided.
    Failed(String),
    Append(AppendEntriesResponse<Types<K>>),
    Vote(VoteResponse<Types<K>>),
    Transfer(TransferLeaderResponse<Types<K>>),
    /// The piece was kept, the next one may come.
    GoOn,
    Installed(SnapshotResponse<Types<K>>),
    /// The command was done by the entry of this index.
    Done(Reply, u64),
    /// A state that has this index has all that was acknowledged when this was asked.
    Index(u64),
    /// It was done.
    Ok,
    /// Nothing was done: not the leader, who may be that one.
    NotLeader(Option<NodeId>),
    /// It may or may not have been done.
    Unsure,
    /// It was refused.
    Refused(StoreError),
    /// The group was gone on with without whoever asks, and is of this generation now.
    LeftBehind(u64),
}

impl<K: Runtime> Request<K> {
    /// Whether it may have changed something when its answer is lost.
    pub(crate) fn changes(&self) -> bool {
        matches!(self, Request::Propose(_) | Request::Change(_))
    }

    /// Whether it may be asked for again when its answer is lost. A transaction without a ticket may not; a lease
    /// that nobody knows of ends by itself, and one that was ended stays so.
    pub(crate) fn repeatable(&self) -> bool {
        !matches!(self, Request::Propose(Command::Txn(_)) | Request::Change(_))
    }

    pub(crate) fn encode(&self, head: Head) -> Result<Bytes, StoreError> {
        encode(&(head, self))
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<(Head, Request<K>), StoreError> {
        decode(bytes)
    }
}

impl<K: Runtime> Response<K> {
    pub(crate) fn encode(&self) -> Result<Bytes, StoreError> {
        encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Response<K>, StoreError> {
        decode(bytes)
    }
}

fn encode<T: Serialize>(message: &T) -> Result<Bytes, StoreError> {
    let written = postcard::to_extend(message, vec![PROTOCOL]);
    written.map(Bytes::from).map_err(|e| StoreError::Unavailable(format!("a message cannot be written: {e}")))
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    let bad = |why: String| StoreError::Unavailable(format!("a message cannot be read: {why}"));
    match bytes.split_first() {
        Some((&PROTOCOL, rest)) => postcard::from_bytes(rest).map_err(|e| bad(e.to_string())),
        Some((other, _)) => Err(bad(format!("it is of protocol {other}, this release speaks {PROTOCOL}"))),
        None => Err(bad("it is empty".into())),
    }
}
