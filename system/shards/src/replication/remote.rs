//! Replicas on other nodes, as a writer reaches them: one stream per volume and replica.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use cairn_wire::remote::{Code, Connection, Error, Messages, Outgoing, PeerId, Peers, Refusal};
use futures_util::stream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::blocks::{BLOCKS, Found, Question};
use super::link::{Answer, Ear, Link, LocalLink, Opener, Target};
use super::op::{Failure, Op, Opened};
use super::place;
use super::replica::{Digest, Replicas};
use super::service::{Ask, Compare, Look, Open, SERVICE, Told};
use super::writer::Seq;

/// How long a connection may take to be opened, and a read to be answered.
const WITHIN: Duration = Duration::from_secs(10);

/// Which key the node of this name has; `None` if it is no member.
pub type WhoIs = Arc<dyn Fn(&str) -> Option<PeerId> + Send + Sync>;

/// The way to other nodes.
#[derive(Clone)]
pub struct Net {
    /// The other nodes; whoever makes it keeps their addresses fresh.
    pub peers: Peers,
    /// Nodes by name.
    pub who_is: WhoIs,
}

/// Opens replicas, of this node and of others.
pub struct Everywhere {
    node: String,
    replicas: Arc<Replicas>,
    net: Option<Net>,
    runtime: Handle,
}

impl Everywhere {
    /// For writers on `node`. Must be called on the runtime that connections shall live on.
    pub fn new(node: &str, replicas: Arc<Replicas>, net: Option<Net>) -> Everywhere {
        Everywhere { node: node.into(), replicas, net, runtime: Handle::current() }
    }
}

impl Opener for Everywhere {
    fn open(&self, target: &Target, ear: Ear) -> Result<(Arc<dyn Link>, Opened), Failure> {
        let node = place::node_of(&target.place);
        if node == self.node {
            return LocalLink::open(&self.replicas, target, ear);
        }
        let unknown = || Failure::Broken(format!("{node} is not known to be a node of this cloud"));
        let net = self.net.as_ref().ok_or_else(unknown)?;
        let peer = (net.who_is)(node).ok_or_else(unknown)?;
        self.runtime.block_on(RemoteLink::open(net.peers.clone(), peer, target.clone(), ear))
    }
}

/// A connection to a replica of another node.
pub struct RemoteLink {
    /// What the replica goes by on its node.
    name: String,
    session: u64,
    connection: Connection,
    asks: UnboundedSender<Ask>,
    closed: Arc<AtomicBool>,
    /// It is of a release that does not tell single blocks: it is asked once.
    is_coarse: AtomicBool,
    listener: tokio::task::AbortHandle,
    runtime: Handle,
}

impl RemoteLink {
    async fn open(
        peers: Peers,
        peer: PeerId,
        target: Target,
        ear: Ear,
    ) -> Result<(Arc<dyn Link>, Opened), Failure> {
        let broken = |e: &dyn std::fmt::Display| Failure::Broken(e.to_string());
        let connection = tokio::time::timeout(WITHIN, peers.connection(peer)).await;
        let connection = connection.map_err(|e| broken(&e))?.map_err(|e| broken(&e))?;
        let Target { volume, place, epoch, size } = target;
        let name = place::name(&volume, &place);
        let open = Open { volume: name.clone(), epoch, size };
        let begun = match begin(&connection, "keep", &open).await {
            // A release that knows of no absences.
            Err(Error::Refused(refusal)) if refusal.code == Code::NotFound => {
                begin(&connection, "write", &open).await
            }
            begun => begun,
        };
        let (asks, told, first) = begun.map_err(|e| broken(&e))?;
        let (session, opened) = match first {
            Told::Opened(session, opened) => (session, opened),
            Told::Keeping(session, opened, kept) => (session, Opened { kept: Some(kept), ..opened }),
            Told::Refused(why) => return Err(why),
            Told::Done(..) => return Err(Failure::Broken("it answers what was not asked".into())),
        };
        let closed = Arc::new(AtomicBool::new(false));
        let listener = tokio::spawn(listen(told, ear, closed.clone())).abort_handle();
        let runtime = Handle::current();
        let is_coarse = AtomicBool::new(false);
        let link = RemoteLink { name, session, connection, asks, closed, is_coarse, listener, runtime };
        Ok((Arc::new(link), opened))
    }

    fn look<T: DeserializeOwned>(&self, method: &str, at: u64, len: u64) -> Result<T, Failure> {
        self.ask(method, at, len).unwrap_or_else(|e| Err(Failure::Broken(e.to_string())))
    }

    fn ask<T: DeserializeOwned>(&self, method: &str, at: u64, len: u64) -> Result<Result<T, Failure>, Error> {
        let look = Look { volume: self.name.clone(), session: self.session, at, len };
        self.call(method, &look)
    }

    fn call<A: Serialize, T: DeserializeOwned>(&self, method: &str, ask: &A) -> Result<T, Error> {
        let method = format!("{SERVICE}/{method}");
        self.runtime.block_on(self.connection.call(&method, ask, WITHIN))
    }
}

/// Asks a replica to begin, by one of the service's streams.
async fn begin(
    connection: &Connection,
    method: &str,
    open: &Open,
) -> Result<(UnboundedSender<Ask>, Messages, Told), Error> {
    // What is on its way is bounded by the requests that the writer takes on.
    let (asks, queue) = unbounded_channel();
    let _ = asks.send(Ask::Open(open.clone()));
    let mut told = connection.stream(&format!("{SERVICE}/{method}"), outgoing(queue), WITHIN).await?;
    let first = tokio::time::timeout(WITHIN, told.only()).await;
    let first = first.map_err(|_| Error::TimedOut(WITHIN.as_millis()))??;
    Ok((asks, told, first))
}

fn outgoing(queue: UnboundedReceiver<Ask>) -> Outgoing {
    Outgoing::stream(stream::unfold(queue, |mut queue| async move {
        queue.recv().await.map(|ask| (Ok::<Ask, Refusal>(ask), queue))
    }))
}

async fn listen(mut told: Messages, ear: Ear, closed: Arc<AtomicBool>) {
    let why = loop {
        match told.next().await {
            Ok(Some(Told::Done(seq, result))) => {
                if !closed.load(SeqCst) {
                    ear(Answer::Done(seq, result));
                }
            }
            Ok(Some(_)) => break "it answers what was not asked".to_owned(),
            Ok(None) => break "it has closed the connection".to_owned(),
            Err(e) => break e.to_string(),
        }
    };
    if !closed.load(SeqCst) {
        ear(Answer::Lost(Failure::Broken(why)));
    }
}

impl Link for RemoteLink {
    fn send(&self, seq: Seq, op: Op) {
        // A closed queue is a connection that has ended, which the listener tells.
        let _ = self.asks.send(Ask::Step(seq, op));
    }

    fn read(&self, offset: u64, len: u64) -> Result<Bytes, Failure> {
        self.look("read", offset, len)
    }

    fn blocks(&self, question: &Question) -> Result<Option<Found>, Failure> {
        if self.is_coarse.load(SeqCst) {
            return Ok(None);
        }
        let (volume, question) = (self.name.clone(), question.clone());
        match self.call("blocks", &Compare { volume, session: self.session, question }) {
            Err(Error::Refused(refusal)) if refusal.code == Code::NotFound => {
                self.is_coarse.store(true, SeqCst);
                Ok(None)
            }
            Err(e) => Err(Failure::Broken(e.to_string())),
            Ok(Ok(Found::Blocks(blocks))) if blocks.len() as u64 > BLOCKS => {
                Err(Failure::Broken("it tells of more blocks than there are".into()))
            }
            Ok(found) => found.map(Some),
        }
    }

    fn may_tell_blocks(&self) -> bool {
        !self.is_coarse.load(SeqCst)
    }

    fn digest(&self, region: u64) -> Result<Digest, Failure> {
        self.look("digest", region, 0)
    }

    fn torn(&self, region: u64) -> Result<Vec<Range<u64>>, Failure> {
        match self.ask("torn", region, 0) {
            // A release that takes such blocks as they are.
            Err(Error::Refused(refusal)) if refusal.code == Code::NotFound => Ok(Vec::new()),
            asked => asked.unwrap_or_else(|e| Err(Failure::Broken(e.to_string()))),
        }
    }

    fn read_matching(&self, offset: u64, len: u64) -> Result<Bytes, Failure> {
        self.look("matching", offset, len)
    }

    fn close(&self) {
        self.closed.store(true, SeqCst);
        self.listener.abort();
    }
}

impl Drop for RemoteLink {
    fn drop(&mut self) {
        self.listener.abort();
    }
}
