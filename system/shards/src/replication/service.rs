//! Replicas of this node for writers on other nodes: the service `replica` of the storage process, and its messages.
//!
//! `write` is a stream: the first message opens, each later one is a step; the first answer says what was opened, each
//! later one how a step ended, in order. `keep` is the same with a writer and a replica that know of absences: releases
//! differ by which of the two they have. `read`, `digest`, `torn`, `matching` and `blocks` are
//! single calls of that session; releases differ by whether they have the last three. Only the cloud's own
//! may call; which of two writers counts is decided by their epochs alone.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cairn_wire::remote::{Call, Limits, Outgoing, Refusal, Service};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use super::absence::Kept;
use super::blocks::{Found, Question};
use super::op::{Failure, Op, Opened};
use super::replica::{Digest, Replica, Replicas};
use super::writer::Seq;

/// The name of the service.
pub const SERVICE: &str = "replica";
/// The port of the storage role.
pub const PORT: u16 = 4601;
/// The most bytes of one step or one read.
pub const BYTES_MAX: u64 = 1 << 20;
/// Streams and calls at a time; each volume has one of the first.
const CALLS_MAX: usize = 1024;

/// The first message of a writer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Open {
    /// What the replica goes by here, see [`super::place`]: the volume, and a disk if it is bound to one.
    pub volume: String,
    /// The writer's epoch.
    pub epoch: u64,
    /// The volume's size in bytes.
    pub size: u64,
}

/// What a writer sends.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Ask {
    /// Begins.
    Open(Open),
    /// A step.
    Step(Seq, Op),
}

/// What a writer is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Told {
    /// It has begun: the session's number, and what the replica says of itself.
    Opened(u64, Opened),
    /// It may not begin.
    Refused(Failure),
    /// A step has ended.
    Done(Seq, Result<(), Failure>),
    /// Like `Opened`, to a writer that asked for it by the method `keep`.
    Keeping(u64, Opened, Kept),
}

/// A read, or a question about a region.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Look {
    /// What the replica goes by here.
    pub volume: String,
    /// The session.
    pub session: u64,
    /// The first byte, or the region's number.
    pub at: u64,
    /// How many bytes; 0 where a region is meant.
    pub len: u64,
}

/// A question about the blocks of a region.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Compare {
    /// What the replica goes by here.
    pub volume: String,
    /// The session.
    pub session: u64,
    /// The question.
    pub question: Question,
}

/// The service.
pub struct ReplicaService {
    replicas: Arc<Replicas>,
}

impl ReplicaService {
    /// Serves these replicas.
    pub fn new(replicas: Arc<Replicas>) -> ReplicaService {
        ReplicaService { replicas }
    }

    async fn write(&self, mut call: Call, keeping: bool) -> Result<Outgoing, Refusal> {
        let Some(Ask::Open(open)) = call.next().await? else {
            return Err(Refusal::invalid("a writer opens first"));
        };
        let replicas = self.replicas.clone();
        let begun = blocking(move || {
            let replica = replicas.get(&open.volume).map_err(|e| Failure::Broken(e.to_string()))?;
            replica.begin(open.epoch, open.size).map(|(session, opened)| (replica, session, opened))
        });
        let (replica, session, opened) = match begun.await {
            Ok(begun) => begun,
            Err(why) => return Outgoing::message(&Told::Refused(why)),
        };
        let begun = Writing { call, replica, session, opened: Some(opened), keeping };
        Ok(Outgoing::stream(stream::unfold(begun, |mut writing| async move {
            writing.next().await.map(|told| (told, writing))
        })))
    }

    async fn look(&self, mut call: Call) -> Result<(Arc<Replica>, Look), Refusal> {
        let look: Look = call.message().await?;
        if look.len > BYTES_MAX {
            return Err(Refusal::invalid(format!("more than {BYTES_MAX} bytes")));
        }
        Ok((self.replica(look.volume.clone()).await?, look))
    }

    async fn replica(&self, volume: String) -> Result<Arc<Replica>, Refusal> {
        let replicas = self.replicas.clone();
        let replica = blocking(move || replicas.get(&volume).map_err(|e| Failure::Broken(e.to_string())));
        replica.await.map_err(|e| Refusal::unavailable(e.to_string()))
    }
}

/// A writer that has begun.
struct Writing {
    call: Call,
    replica: Arc<Replica>,
    session: u64,
    opened: Option<Opened>,
    /// The writer knows of absences.
    keeping: bool,
}

impl Writing {
    async fn next(&mut self) -> Option<Result<Told, Refusal>> {
        if let Some(mut opened) = self.opened.take() {
            let kept = opened.kept.take().filter(|_| self.keeping);
            return Some(Ok(match kept {
                Some(kept) => Told::Keeping(self.session, opened, kept),
                None => Told::Opened(self.session, opened),
            }));
        }
        let (seq, op) = match self.call.next().await {
            Ok(Some(Ask::Step(seq, op))) => (seq, op),
            Ok(Some(Ask::Open(_))) => return Some(Err(Refusal::invalid("it is open already"))),
            Ok(None) => return None,
            Err(refusal) => return Some(Err(refusal)),
        };
        if self.replica.try_apply(self.session, seq, &op) {
            return Some(Ok(Told::Done(seq, Ok(()))));
        }
        let (replica, session) = (self.replica.clone(), self.session);
        let done = blocking(move || replica.apply(session, seq, &op)).await;
        Some(Ok(Told::Done(seq, done)))
    }
}

#[async_trait]
impl Service for ReplicaService {
    fn limits(&self) -> Limits {
        Limits { calls: CALLS_MAX, ..Limits::default() }
    }

    async fn call(&self, mut call: Call) -> Result<Outgoing, Refusal> {
        match call.method.as_str() {
            "write" => self.write(call, false).await,
            "keep" => self.write(call, true).await,
            "read" => {
                let (replica, look) = self.look(call).await?;
                let read: Result<Bytes, Failure> =
                    blocking(move || replica.read(look.session, look.at, look.len)).await;
                Outgoing::message(&read)
            }
            "digest" => {
                let (replica, look) = self.look(call).await?;
                let digest: Result<Digest, Failure> =
                    blocking(move || replica.digest(look.session, look.at)).await;
                Outgoing::message(&digest)
            }
            "blocks" => {
                let Compare { volume, session, question } = call.message().await?;
                let replica = self.replica(volume).await?;
                let found: Result<Found, Failure> =
                    blocking(move || replica.blocks(session, &question)).await;
                Outgoing::message(&found)
            }
            "torn" => {
                let (replica, look) = self.look(call).await?;
                let torn: Result<Vec<Range<u64>>, Failure> =
                    blocking(move || replica.torn(look.session, look.at)).await;
                Outgoing::message(&torn)
            }
            "matching" => {
                let (replica, look) = self.look(call).await?;
                let read: Result<Bytes, Failure> =
                    blocking(move || replica.read_matching(look.session, look.at, look.len)).await;
                Outgoing::message(&read)
            }
            _ => Err(call.unknown_method()),
        }
    }
}

async fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    spawn_blocking(f).await.unwrap_or_else(|e| Err(Failure::Broken(e.to_string())))
}
