//! What is said between the processes, and how: frames on Unix sockets. Those between two nodes go through a relay
//! in the test's own process, which can cut them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cairn_state::{Event, Member, Network, NodeId, NotReached};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::history::{Op, Ret};
use crate::house::NODES;

/// What is asked of a node.
#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    /// By another: the store's own business.
    Replica(Vec<u8>),
    Do(Op),
    /// All that ever happened.
    Events,
    /// Its number, once it is up.
    Node,
    Admit(NodeId, String),
    Voters(Vec<NodeId>),
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    Replica(Vec<u8>),
    Did(Ret),
    Events(Vec<Event>),
    Node(NodeId),
    Done,
    /// It is not known whether it was done.
    Failed(String),
}

/// Where a node listens.
pub fn socket(directory: &Path, place: usize) -> PathBuf {
    directory.join(format!("{place}.sock"))
}

/// Where one node finds another: the relay.
fn relay_socket(directory: &Path, from: usize, to: usize) -> PathBuf {
    directory.join(format!("{from}-to-{to}.sock"))
}

pub async fn send<T: Serialize>(stream: &mut UnixStream, message: &T) -> std::io::Result<()> {
    let bytes = postcard::to_allocvec(message).map_err(std::io::Error::other)?;
    stream.write_u32(bytes.len() as u32).await?;
    stream.write_all(&bytes).await
}

pub async fn receive<T: DeserializeOwned>(stream: &mut UnixStream) -> std::io::Result<T> {
    let mut bytes = vec![0; stream.read_u32().await? as usize];
    stream.read_exact(&mut bytes).await?;
    postcard::from_bytes(&bytes).map_err(std::io::Error::other)
}

/// The network as one node has it: connections to the others that are kept while they work.
pub struct Wires {
    pub directory: PathBuf,
    pub me: usize,
    pub idle: Mutex<[Vec<UnixStream>; NODES]>,
}

#[async_trait]
impl Network for Wires {
    async fn call(&self, _: NodeId, member: &Member, request: Bytes) -> Result<Bytes, NotReached> {
        let missed =
            |maybe_arrived| move |e: std::io::Error| NotReached { why: e.to_string(), maybe_arrived };
        let to: usize =
            member.name.parse().map_err(|_| missed(false)(std::io::ErrorKind::NotFound.into()))?;
        let idle = self.idle.lock().unwrap()[to].pop();
        let mut stream = match idle {
            Some(stream) => stream,
            None => UnixStream::connect(relay_socket(&self.directory, self.me, to))
                .await
                .map_err(missed(false))?,
        };
        send(&mut stream, &Ask::Replica(request.into())).await.map_err(missed(true))?;
        match receive(&mut stream).await.map_err(missed(true))? {
            Answer::Replica(answer) => {
                self.idle.lock().unwrap()[to].push(stream);
                Ok(answer.into())
            }
            other => Err(missed(true)(std::io::Error::other(format!("{other:?}")))),
        }
    }
}

/// The relay between the nodes.
pub struct Relay {
    directory: PathBuf,
    cut: Mutex<[[bool; NODES]; NODES]>,
}

impl Relay {
    pub fn start(directory: &Path) -> Arc<Relay> {
        let relay = Arc::new(Relay { directory: directory.to_owned(), cut: Mutex::default() });
        for (from, to) in (0..NODES).flat_map(|from| (0..NODES).map(move |to| (from, to))) {
            let listener = UnixListener::bind(relay_socket(directory, from, to)).unwrap();
            tokio::spawn(relay.clone().serve(listener, from, to));
        }
        relay
    }

    async fn serve(self: Arc<Relay>, listener: UnixListener, from: usize, to: usize) {
        while let Ok((near, _)) = listener.accept().await {
            let relay = self.clone();
            tokio::spawn(async move {
                let Ok(far) = UnixStream::connect(socket(&relay.directory, to)).await else { return };
                let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                tokio::join!(
                    relay.carry(near_in, far_out, from, to),
                    relay.carry(far_in, near_out, to, from)
                );
            });
        }
    }

    /// Carries bytes one way. While that way is cut nothing arrives, and nobody says so.
    async fn carry(
        &self,
        mut input: tokio::net::unix::OwnedReadHalf,
        mut output: tokio::net::unix::OwnedWriteHalf,
        from: usize,
        to: usize,
    ) {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(count @ 1..) = input.read(&mut bytes).await {
            while self.cut.lock().unwrap()[from][to] {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            if output.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
    }

    /// Cuts one node off, and no other: both ways, or only one.
    pub fn cut_off(&self, place: usize, how: u64) {
        let mut cut = self.cut.lock().unwrap();
        *cut = Default::default();
        for other in (0..NODES).filter(|other| *other != place) {
            cut[place][other] |= how != 1;
            cut[other][place] |= how != 2;
        }
    }

    pub fn clear(&self) {
        *self.cut.lock().unwrap() = Default::default();
    }
}
