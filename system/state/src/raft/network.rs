//! How replicas reach each other: a request and its answer, in bytes, by whatever carries them.
//!
//! The carrier ([`Network`]) is given to the store: mutual TLS between nodes, channels in tests, a simulation.
//! It must know who the other end is; what is said is this crate's own business, and has a protocol number.
//! No timing but that of the calls.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{AsyncRuntime, OptionalSend, RaftNetworkFactory, RaftNetworkV2};

use super::image::{self, Image, Pieces};
use super::machine::SnapshotOf;
use super::messages::{Head, Piece, Request, Response};
use super::standing::{LEFT_BEHIND, Standing};
use super::types::{Member, NodeId, Runtime, Types, Vote, is_witness};
use crate::engine::Core;

/// Carries requests to other replicas.
#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// Sends a request to a member, where [`crate::Endpoint::serve`] answers it, and gives the answer. It may be
    /// called often and at once; it may fail, and it may take for ever (callers give up by themselves). It runs on
    /// the store's own single-threaded runtime, so it must not block.
    async fn call(&self, to: NodeId, member: &Member, request: Bytes) -> Result<Bytes, NotReached>;
}

/// A request got no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{why}")]
pub struct NotReached {
    /// What went wrong.
    pub why: String,
    /// Whether the request may have arrived nevertheless.
    pub maybe_arrived: bool,
}

/// The network of a store that has no other members.
pub(crate) struct Nobody;

#[async_trait]
impl Network for Nobody {
    async fn call(&self, to: NodeId, _: &Member, _: Bytes) -> Result<Bytes, NotReached> {
        Err(NotReached {
            why: format!("this store was opened without a network to reach {to}"),
            maybe_arrived: false,
        })
    }
}

/// Asks a member, for at most `patience`.
pub(crate) async fn ask<K: Runtime>(
    network: &Arc<dyn Network>,
    standing: &Standing,
    to: NodeId,
    member: &Member,
    request: &Request<K>,
    patience: Duration,
) -> Result<Response<K>, NotReached> {
    let lost = |why: String| NotReached { why, maybe_arrived: true };
    if standing.check().is_err() {
        return Err(NotReached { why: LEFT_BEHIND.into(), maybe_arrived: false });
    }
    let head = Head { to, generation: standing.generation() };
    let request =
        request.encode(head).map_err(|e| NotReached { why: e.to_string(), maybe_arrived: false })?;
    let answer = K::Async::timeout(patience, network.call(to, member, request)).await;
    let answer = answer.map_err(|_| lost(format!("no answer within {patience:?}")))??;
    match Response::decode(&answer).map_err(|e| lost(e.to_string()))? {
        Response::LeftBehind(generation) => {
            standing.hears_of(generation);
            Err(NotReached { why: LEFT_BEHIND.into(), maybe_arrived: false })
        }
        response => Ok(response),
    }
}

/// Makes the engine's clients.
pub(crate) struct Peers {
    pub network: Arc<dyn Network>,
    pub core: Arc<Core>,
    pub transfers: Arc<AtomicU64>,
    pub piece_patience: Duration,
}

impl<K: Runtime> RaftNetworkFactory<Types<K>> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, member: &Member) -> Peer {
        Peer {
            network: self.network.clone(),
            core: self.core.clone(),
            to: target,
            member: member.clone(),
            transfers: self.transfers.clone(),
            piece_patience: self.piece_patience,
        }
    }
}

/// The engine's client of one member.
pub(crate) struct Peer {
    network: Arc<dyn Network>,
    core: Arc<Core>,
    to: NodeId,
    member: Member,
    transfers: Arc<AtomicU64>,
    piece_patience: Duration,
}

fn unreachable<K: Runtime>(why: impl std::fmt::Display) -> Unreachable<Types<K>> {
    Unreachable::new(&openraft::AnyError::error(why))
}

impl Peer {
    async fn ask<K: Runtime>(
        &self,
        request: Request<K>,
        patience: Duration,
    ) -> Result<Response<K>, Unreachable<Types<K>>> {
        match ask(&self.network, &self.core.standing, self.to, &self.member, &request, patience).await {
            Ok(Response::Failed(why)) => Err(unreachable(why)),
            Ok(response) => Ok(response),
            Err(e) => Err(unreachable(e)),
        }
    }

    /// Sends a snapshot piece by piece. It is read anew from the file, so that it is as fresh as can be.
    async fn send<K: Runtime>(
        &self,
        vote: Vote,
        image: Image,
    ) -> Result<SnapshotResponse<Types<K>>, Unreachable<Types<K>>> {
        let Image::Live(source) = image else {
            return Err(unreachable("a received snapshot cannot be sent"));
        };
        if self.core.witness {
            return Err(unreachable("a witness has no state to send"));
        }
        let mut pieces = Pieces::new(&source.0).map_err(unreachable)?;
        let transfer = self.transfers.fetch_add(1, Ordering::Relaxed);
        let mut number = 0;
        loop {
            let next = if is_witness(self.to) { image::nothing() } else { pieces.next() };
            let (data, more) = next.map_err(unreachable)?;
            let meta = pieces.meta().clone();
            let piece = Piece { vote, transfer, number, meta, data: data.into(), more };
            match self.ask(Request::<K>::Piece(piece), self.piece_patience).await? {
                Response::Installed(response) => return Ok(response),
                Response::GoOn if more => number += 1,
                _ => return Err(unreachable("an answer that does not fit")),
            }
        }
    }
}

fn misfit<K: Runtime>() -> RPCError<Types<K>> {
    RPCError::Unreachable(unreachable("an answer that does not fit"))
}

impl<K: Runtime> RaftNetworkV2<Types<K>> for Peer {
    type SnapshotData = Image;

    async fn append_entries(
        &mut self,
        mut rpc: AppendEntriesRequest<Types<K>>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types<K>>, RPCError<Types<K>>> {
        if is_witness(self.to) && !self.core.witness {
            self.core.seal.close_for(&mut rpc.entries).map_err(unreachable)?;
        }
        match self.ask(Request::Append(rpc), option.hard_ttl()).await? {
            Response::Append(response) => Ok(response),
            _ => Err(misfit()),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types<K>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<K>>, RPCError<Types<K>>> {
        match self.ask(Request::Vote(rpc), option.hard_ttl()).await? {
            Response::Vote(response) => Ok(response),
            _ => Err(misfit()),
        }
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types<K>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<K>>, RPCError<Types<K>>> {
        match self.ask(Request::PreVote(rpc), option.hard_ttl()).await? {
            Response::Vote(response) => Ok(response),
            _ => Err(misfit()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types<K>>, StreamingError<Types<K>>> {
        match K::Async::select2(cancel, self.send(vote, snapshot.snapshot)).await {
            openraft::async_runtime::Select2::First(closed) => Err(StreamingError::Closed(closed)),
            openraft::async_runtime::Select2::Second(sent) => Ok(sent?),
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Types<K>>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types<K>>, RPCError<Types<K>>> {
        let request = Request::Transfer {
            from: *req.from_leader(),
            to: *req.to_node_id(),
            last: req.last_log_id().copied(),
        };
        match self.ask(request, option.hard_ttl()).await? {
            Response::Transfer(response) => Ok(response),
            _ => Err(misfit()),
        }
    }
}
