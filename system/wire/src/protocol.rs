//! The store's socket protocol: frames and messages.
//!
//! A frame is a little-endian u32 length and that many bytes, at most [`FRAME_BYTES_MAX`]. The first frame in
//! each direction is the handshake ([`Hello`], [`Welcome`]), whose encoding never changes; all others are a
//! [`Call`] or an [`Answer`] in postcard, as the agreed version has them. Both ends are of one release but for
//! the minutes of an upgrade, when an agent is older or newer than its controller.
//!
//! A watch flows by credit: the server sends no more events than the client has given it leave for, so that
//! a slow watcher fills neither the connection that it shares with others nor the client's memory.

use cairn_state::kv::{Entry, Event, LeaseId, Revision, StoreError, Txn, TxnOutcome};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

/// The versions this release speaks, best first. 1: the first one.
pub(crate) const VERSIONS: &[u16] = &[1];
/// The longest frame: a full transaction and its frills.
pub(crate) const FRAME_BYTES_MAX: usize = 16 << 20;
/// About how much goes into one frame of a list or a watch.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;
/// How many events of a watch may be on their way.
pub(crate) const WATCH_CREDIT: u32 = 1024;

/// What a client says first.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// The versions it speaks.
    pub versions: Vec<u16>,
}

/// What the server says first.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Welcome {
    /// This version is spoken from now on.
    Version(u16),
    /// The connection is refused.
    Refused(String),
}

/// A message from the client.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Call {
    /// Names the call; its answers carry it. Never used twice on a connection.
    pub id: u64,
    pub request: Request,
}

/// What a call asks for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Request {
    Get {
        key: String,
    },
    Range {
        prefix: String,
        after: Option<String>,
        limit: u64,
    },
    Txn(Txn),
    Watch {
        prefix: String,
        after: Revision,
    },
    /// So many more events may be sent to the watch of this call's id. Has no answer.
    Credit(u32),
    /// Ends the watch of this call's id. Has no answer.
    Cancel,
    LeaseGrant {
        ttl_ms: u64,
    },
    LeaseKeepAlive(LeaseId),
    LeaseRevoke(LeaseId),
    /// Only to hear that the server lives.
    Ping,
}

/// A message from the server.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// The call's.
    pub id: u64,
    pub response: Response,
}

/// What is answered. A range and a watch have several answers, all others one.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Response {
    Entry(Option<Entry>),
    /// More of a range; its end follows.
    RangePart(Vec<Entry>),
    RangeEnd {
        at: Revision,
        more: bool,
    },
    Txn(TxnOutcome),
    /// The watch has begun.
    Watching,
    Events(Vec<Event>),
    Lease(LeaseId),
    Done,
    /// The call failed; a watch ends with it.
    Failed(StoreError),
}

pub(crate) type Source = FramedRead<OwnedReadHalf, LengthDelimitedCodec>;
pub(crate) type Sink = FramedWrite<OwnedWriteHalf, LengthDelimitedCodec>;

/// A connection as frames.
pub(crate) fn frames(stream: UnixStream) -> (Source, Sink) {
    let (read, write) = stream.into_split();
    let codec = LengthDelimitedCodec::builder().little_endian().max_frame_length(FRAME_BYTES_MAX).new_codec();
    (FramedRead::new(read, codec.clone()), FramedWrite::new(write, codec))
}

/// A message as a frame holds it.
pub(crate) fn encode(message: &impl Serialize) -> Result<bytes::Bytes, StoreError> {
    let frame = postcard::to_stdvec(message).map_err(|e| garbled(&e))?;
    if frame.len() > FRAME_BYTES_MAX {
        return Err(StoreError::TooLarge(format!("{} bytes, at most {FRAME_BYTES_MAX}", frame.len())));
    }
    Ok(frame.into())
}

/// The message of a frame.
pub(crate) fn decode<T: DeserializeOwned>(frame: &[u8]) -> Result<T, StoreError> {
    postcard::from_bytes(frame).map_err(|e| garbled(&e))
}

fn garbled(e: &postcard::Error) -> StoreError {
    StoreError::Unavailable(format!("a message that is not of the protocol: {e}"))
}

/// About how many bytes an entry takes in a frame.
pub(crate) fn entry_bytes(entry: &Entry) -> usize {
    entry.key.len() + entry.value.len() + 40
}

/// About how many bytes an event takes in a frame.
pub(crate) fn event_bytes(event: &Event) -> usize {
    match event {
        Event::Put(entry) => entry_bytes(entry),
        Event::Delete { key, .. } => key.len() + 40,
    }
}

#[cfg(test)]
#[path = "protocol_tests.rs"]
mod tests;
