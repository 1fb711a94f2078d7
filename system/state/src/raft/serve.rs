//! What this replica answers to others.
//!
//! Whoever asks has been let in by the transport as a node of this cloud; this only says what the group's state
//! allows. A snapshot's pieces are taken in order, one snapshot at a time.

use openraft::Snapshot;
use openraft::raft::TransferLeaderRequest;

use super::group::{Group, Miss};
use super::image::{self, Image};
use super::messages::{Piece, Request, Response};
use super::seal;
use super::types::{Runtime, Vote};

/// Who asks, as the transport has found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A node of this cloud.
    Node,
    /// Its witness, on a machine of somebody's.
    Witness,
}

impl Caller {
    /// A witness votes, hands on what it was given to keep, and nothing else.
    pub(super) fn may_ask<K: Runtime>(self, request: &Request<K>) -> bool {
        match (self, request) {
            (Caller::Node, _) => true,
            (Caller::Witness, Request::Append(rpc)) => rpc.entries.iter().all(seal::is_opaque),
            (Caller::Witness, Request::Vote(_) | Request::PreVote(_) | Request::Transfer { .. }) => true,
            (Caller::Witness, _) => false,
        }
    }
}

/// Which snapshot is being received, and which of its pieces comes next. A sender counts its snapshots from when it was
/// started, and never leads the same term as before.
#[derive(Debug, Default)]
pub(crate) struct Receiving {
    from: Option<(Vote, u64)>,
    next: u64,
}

impl<K: Runtime> Group<K> {
    pub(super) async fn answer(&self, request: Request<K>) -> Response<K> {
        match request {
            Request::Append(mut rpc) => match self.core.seal.open_for(self.core.witness, &mut rpc.entries) {
                Ok(()) => settle(self.raft.append_entries(rpc).await, Response::Append),
                Err(e) => Response::Failed(e.to_string()),
            },
            Request::Vote(rpc) => settle(self.raft.vote(rpc).await, Response::Vote),
            Request::PreVote(rpc) => settle(self.raft.pre_vote(rpc).await, Response::Vote),
            Request::Transfer { from, to, last } => {
                let rpc = TransferLeaderRequest::new(from, to, last);
                settle(self.raft.handle_transfer_leader(rpc).await, Response::Transfer)
            }
            Request::Piece(piece) => self.receive(piece).await,
            // What it would take to know, it cannot read.
            _ if self.core.witness => Response::NotLeader(None),
            Request::Propose(command) => {
                excuse(self.propose_here(command).await, |(reply, index)| Response::Done(reply, index))
            }
            Request::ReadIndex => excuse(self.read_index().await, Response::Index),
            Request::KeepAlive(lease) => excuse(self.keep_alive_here(lease).await, |()| Response::Ok),
            Request::Change(change) => excuse(self.change_here(change).await, |()| Response::Ok),
        }
    }

    async fn receive(&self, piece: Piece) -> Response<K> {
        let mut receiving = self.receiving.lock().await;
        let from = Some((piece.vote, piece.transfer));
        if piece.number == 0 {
            *receiving = Receiving { from, next: 0 };
        }
        if receiving.from != from || receiving.next != piece.number {
            return Response::Failed(format!("piece {} of a snapshot is not the next one", piece.number));
        }
        if let Err(e) = image::stage(&self.core, piece.number, piece.data).await {
            return Response::Failed(e.to_string());
        }
        receiving.next += 1;
        if piece.more {
            return Response::GoOn;
        }
        receiving.from = None;
        let snapshot = Snapshot { meta: piece.meta, snapshot: Image::Received };
        settle(self.raft.install_full_snapshot(piece.vote, snapshot).await, Response::Installed)
    }
}

/// The engine's answer, or that it has stopped.
fn settle<K: Runtime, T, E: std::fmt::Display>(
    result: Result<T, E>,
    response: impl FnOnce(T) -> Response<K>,
) -> Response<K> {
    match result {
        Ok(answer) => response(answer),
        Err(e) => Response::Failed(e.to_string()),
    }
}

fn excuse<K: Runtime, T>(result: Result<T, Miss>, response: impl FnOnce(T) -> Response<K>) -> Response<K> {
    match result {
        Ok(done) => response(done),
        Err(Miss::NotLeader(leader)) => Response::NotLeader(leader),
        Err(Miss::Unsure) => Response::Unsure,
        Err(Miss::Refused(e)) => Response::Refused(e),
    }
}
