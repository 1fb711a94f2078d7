//! The way of a guest from node to node: libvirt's own protocol and QEMU's memory, both from a Unix socket here to one
//! there, over the nodes' transport. So neither libvirt nor QEMU listens on a network, and both are encrypted and
//! authenticated like everything else.
//!
//! The target lets a stream in only from the node that is sending it a guest by the store's word, and only to the
//! sockets of that guest. It carries bytes and understands none of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cairn_state::Mirror;
use cairn_wire::remote::{
    Call, Code, Connection, Endpoint, Messages, Outgoing, PeerId, Peers, Refusal, Service, Services,
};
use futures_util::{Stream, stream};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::task::JoinSet;

use crate::model::{Server, Stage};

/// The service's name.
pub const SERVICE: &str = "migrate";
/// The method that leads to the target's libvirt.
pub const LIBVIRT: &str = "libvirt";
/// The method that leads to the emulator that waits for the guest's memory.
pub const MEMORY: &str = "memory";
/// How many bytes go in one message.
const CHUNK_BYTES: usize = 64 << 10;
/// How long the target may take to answer.
const OPEN_MAX: Duration = Duration::from_secs(15);
/// How long the target waits to hear of a migration that its source has heard of already.
const HEAR_MAX: Duration = Duration::from_secs(10);

/// Who is who among the nodes.
pub trait Book: Send + Sync {
    /// The identity of the node with this name.
    fn id_of(&self, node: &str) -> Option<PeerId>;
    /// The name of the node with this identity.
    fn name_of(&self, id: &PeerId) -> Option<String>;
}

/// How this node's compute agent reaches those of others, and is reached.
pub struct Transport {
    /// Proves this node to the others.
    pub endpoint: Endpoint,
    /// The other nodes' compute agents; their addresses are kept by whoever made this.
    pub peers: Peers,
    /// Where others reach this one.
    pub listener: TcpListener,
    /// Who is who.
    pub book: Arc<dyn Book>,
}

/// Bytes, as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Chunk(Vec<u8>);

impl Serialize for Chunk {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Chunk {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Chunk, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Chunk;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Chunk, E> {
                match bytes.len() <= CHUNK_BYTES {
                    true => Ok(Chunk(bytes.to_vec())),
                    false => Err(E::custom("a chunk too large")),
                }
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

/// What the source sends: first which guest it is about, then bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Frame {
    /// The guest.
    Hello {
        /// Its server.
        server_id: String,
        /// The migration.
        migration: String,
    },
    /// What its end of the stream wrote.
    Data(Chunk),
}

/// The sockets of a guest under way, in a directory that the emulators can write to.
#[derive(Debug, Clone)]
pub struct Sockets {
    directory: PathBuf,
}

impl Sockets {
    /// The sockets in this directory.
    pub fn new(directory: PathBuf) -> Sockets {
        Sockets { directory }
    }

    /// The socket by which the source's libvirt reaches the target's.
    pub fn libvirt(&self, server_id: &str) -> PathBuf {
        self.directory.join(format!("{server_id}.{LIBVIRT}"))
    }

    /// The socket of its memory: at the source the tunnel listens there, at the target the emulator.
    pub fn memory(&self, server_id: &str) -> PathBuf {
        self.directory.join(format!("{server_id}.{MEMORY}"))
    }

    /// Where sockets are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// Serves the other nodes; never returns but with the listener's end.
pub async fn serve(endpoint: Endpoint, listener: TcpListener, services: Services) {
    if let Err(error) = cairn_wire::remote::serve(listener, endpoint, services).await {
        tracing::error!(%error, "guests of other nodes cannot come here");
    }
}

/// Lets streams in.
pub struct Doorway {
    /// This node.
    pub node: String,
    /// Which guests are on their way.
    pub servers: Mirror<Server>,
    /// Who is who.
    pub book: Arc<dyn Book>,
    /// The sockets of guests.
    pub sockets: Sockets,
    /// The socket of this node's libvirt.
    pub libvirt: PathBuf,
}

impl Doorway {
    /// Whether this node sends that guest here now. The source may have heard of it a moment earlier.
    async fn expects(&self, peer: &PeerId, server_id: &str, migration: &str) -> Result<(), Refusal> {
        let from = self.book.name_of(peer);
        let expected = || {
            let server = self.servers.get(server_id);
            server.is_some_and(|s| comes_from(&s, from.as_deref(), &self.node, migration))
        };
        let mut changes = self.servers.changes();
        let wait = async {
            while !expected() {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(HEAR_MAX, wait).await;
        match expected() {
            true => Ok(()),
            false => Err(Refusal::new(Code::Forbidden, "no such guest is on its way from there to here")),
        }
    }
}

fn comes_from(server: &Server, from: Option<&str>, to: &str, migration: &str) -> bool {
    server.moving.as_ref().is_some_and(|m| {
        m.live()
            && m.stage == Stage::Running
            && m.to == to
            && Some(m.from.as_str()) == from
            && m.migration == migration
            && !server.deleted
    })
}

#[async_trait]
impl Service for Doorway {
    async fn call(&self, mut call: Call) -> Result<Outgoing, Refusal> {
        let Some(Frame::Hello { server_id, migration }) = call.next().await? else {
            return Err(Refusal::invalid("the guest is named first"));
        };
        self.expects(&call.peer.id, &server_id, &migration).await?;
        let socket = match call.method.as_str() {
            LIBVIRT => self.libvirt.clone(),
            MEMORY => self.sockets.memory(&server_id),
            _ => return Err(call.unknown_method()),
        };
        let stream = UnixStream::connect(&socket).await;
        let stream = stream.map_err(|e| Refusal::unavailable(format!("{}: {e}", socket.display())))?;
        let (read, write) = stream.into_split();
        tokio::spawn(async move {
            let mut write = write;
            while let Ok(Some(Frame::Data(chunk))) = call.next().await {
                if write.write_all(&chunk.0).await.is_err() {
                    break;
                }
            }
            let _ = write.shutdown().await;
        });
        Ok(Outgoing::stream(chunks(read)))
    }
}

/// What can be read here, until its end.
fn chunks(read: OwnedReadHalf) -> impl Stream<Item = Result<Chunk, Refusal>> + Send + 'static {
    stream::unfold(Some(read), |read| async move {
        let mut read = read?;
        let mut bytes = vec![0; CHUNK_BYTES];
        match read.read(&mut bytes).await {
            Ok(0) => None,
            Ok(n) => {
                bytes.truncate(n);
                Some((Ok(Chunk(bytes)), Some(read)))
            }
            Err(e) => Some((Err(Refusal::unavailable(e.to_string())), None)),
        }
    })
}

/// Listens at a socket of the source, and carries each stream that is opened there to the target. Ends with its
/// streams when dropped.
pub async fn carry(listener: UnixListener, to: Connection, method: &str, server_id: &str, migration: &str) {
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = streams.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let hello = Frame::Hello { server_id: server_id.into(), migration: migration.into() };
                    let (to, method) = (to.clone(), format!("{SERVICE}/{method}"));
                    streams.spawn(async move {
                        if let Err(error) = one(stream, to, &method, hello).await {
                            tracing::warn!(method, %error, "a stream to another node broke");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a stream of a guest could not be taken");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
}

async fn one(
    stream: UnixStream,
    to: Connection,
    method: &str,
    hello: Frame,
) -> Result<(), cairn_wire::remote::Error> {
    use futures_util::StreamExt;
    let (read, write) = stream.into_split();
    let data = chunks(read).map(|chunk| chunk.map(Frame::Data));
    let out = Outgoing::stream(stream::iter([Ok(hello)]).chain(data));
    let back = to.stream(method, out, OPEN_MAX).await?;
    give_back(back, write).await
}

async fn give_back(mut back: Messages, mut write: OwnedWriteHalf) -> Result<(), cairn_wire::remote::Error> {
    while let Some(Chunk(bytes)) = back.next().await? {
        if write.write_all(&bytes).await.is_err() {
            break;
        }
    }
    let _ = write.shutdown().await;
    Ok(())
}

/// Listens at a socket, in place of what an earlier life left there.
pub fn listen(path: &Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    UnixListener::bind(path)
}

#[cfg(test)]
#[path = "tunnel_tests.rs"]
mod tests;
