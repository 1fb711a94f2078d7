//! What a system that keeps volumes must be able to do. Every call may be made again after a crash at any point of it, and
//! then ends as if it had been made once: the record of what is wanted is all that remembers.

use std::io;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::media::Media;

/// What a new volume begins with.
#[derive(Clone)]
pub enum Origin {
    /// Zeroes.
    Empty,
    /// What another volume of this backend has now: a snapshot, a clone, a volume that goes back to a snapshot.
    Clone(String),
    /// What somebody else has: an image.
    Content(Arc<dyn Media>),
}

/// The room of a backend, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Room {
    /// What volumes may take in all.
    pub size: u64,
    /// What they may still take.
    pub free: u64,
}

/// A volume that is opened to be served. It ends when this is dropped.
pub trait Opened: Send + Sync {
    /// What is served of it.
    fn media(&self) -> Arc<dyn Media>;

    /// Has those who use it see that it is this large now.
    fn grown(&self, size: u64);
}

/// The content of a volume at one moment, as a stream.
pub type Content = BoxStream<'static, io::Result<Bytes>>;

/// A system that keeps volumes, by their ids.
#[async_trait]
pub trait Driver: Send + Sync {
    /// The bytes of a volume; `None` if there is none (or it is not whole yet).
    async fn size(&self, id: &str) -> io::Result<Option<u64>>;

    /// Makes a volume of so many bytes; what its origin lacks is zeroes.
    async fn create(&self, id: &str, size: u64, origin: Origin) -> io::Result<()>;

    /// Makes a volume larger, whoever uses it.
    async fn grow(&self, id: &str, size: u64) -> io::Result<()>;

    /// Destroys a volume and what a making that was cut off left of it. Those that were made of it stay. `source` is what
    /// it was a clone of.
    async fn destroy(&self, id: &str, source: Option<&str>) -> io::Result<()>;

    /// Opens a volume for the one who has the right to it now: whoever had it open before can write it no more. `dir` is
    /// for the sockets of what serves it.
    async fn open(&self, id: &str, size: u64, read_only: bool, dir: &Path) -> io::Result<Arc<dyn Opened>>;

    /// The content of a volume, as it is at this moment. `reader` names who reads, for what is left if it breaks off.
    async fn read(&self, id: &str, reader: &str) -> io::Result<Content>;

    /// Ends what [`Driver::read`] left for this reader.
    async fn read_ended(&self, id: &str, reader: &str) -> io::Result<()>;

    /// How much room there is; an error says why the backend cannot be used.
    async fn room(&self) -> io::Result<Room>;

    /// Makes a volume and destroys it: whether its user may.
    async fn try_out(&self) -> io::Result<()>;

    /// Frees what was destroyed and could not be freed then.
    async fn sweep(&self) -> io::Result<()>;
}
