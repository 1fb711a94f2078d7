//! What guests are served with: one volume on a disk here, or all its replicas behind one writer. The ways in
//! (vhost-user-blk, NBD) know no more than this.

use std::io;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use crate::fsio;
use crate::sys::{Pieces, Sink, Source};
use crate::volume::Volume;

/// A volume as it is served. Calls block and may come from many threads.
pub trait Media: Send + Sync {
    /// Its size in bytes.
    fn size(&self) -> u64;

    /// Whether it may only be read.
    fn read_only(&self) -> bool;

    /// Whether a change waits for room on a disk.
    fn is_full(&self) -> bool;

    /// Reads `len` bytes at `offset` into the pieces.
    fn read(&self, offset: u64, len: u64, to: &mut Pieces<'_, Sink>) -> io::Result<()>;

    /// Writes `len` bytes from the pieces at `offset`. Durable after the next flush.
    fn write(&self, offset: u64, len: u64, from: &mut Pieces<'_, Source>) -> io::Result<()>;

    /// Gives a range back to the disk.
    fn discard(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Makes a range read as zeroes; with `unmap` its room is given back.
    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()>;

    /// Waits until all that was written before this call is on stable media, of every replica that counts.
    fn flush(&self) -> io::Result<()>;

    /// Like [`Media::flush`], when its user is gone: what that user should hear is kept for the next flush.
    fn settle(&self) -> io::Result<()> {
        self.flush()
    }

    /// Makes calls that wait for something else than a disk give up, as held; or no more.
    fn interrupt(&self, on: bool) {
        let _ = on;
    }

    /// Reads into a slice, which is then full.
    fn read_slice(&self, offset: u64, slice: &mut [u8]) -> io::Result<()> {
        let len = slice.len() as u64;
        let mut to = Pieces::<Sink>::default();
        to.push_slice(slice);
        self.read(offset, len, &mut to)
    }

    /// Writes a slice.
    fn write_slice(&self, offset: u64, slice: &[u8]) -> io::Result<()> {
        let mut from = Pieces::<Source>::default();
        from.push_bytes(slice);
        self.write(offset, slice.len() as u64, &mut from)
    }
}

impl Media for Volume {
    fn size(&self) -> u64 {
        self.size()
    }

    fn read_only(&self) -> bool {
        self.read_only()
    }

    fn is_full(&self) -> bool {
        self.is_full()
    }

    fn read(&self, offset: u64, len: u64, to: &mut Pieces<'_, Sink>) -> io::Result<()> {
        let _alone = self.use_alone().ok_or_else(taken)?;
        self.read(offset, len, to)
    }

    fn write(&self, offset: u64, len: u64, from: &mut Pieces<'_, Source>) -> io::Result<()> {
        let _alone = self.use_alone().ok_or_else(taken)?;
        self.write(offset, len, from)
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        let _alone = self.use_alone().ok_or_else(taken)?;
        self.discard(offset, len)
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        let _alone = self.use_alone().ok_or_else(taken)?;
        self.write_zeroes(offset, len, unmap)
    }

    fn flush(&self) -> io::Result<()> {
        let _alone = self.use_alone().ok_or_else(taken)?;
        self.flush()
    }
}

fn taken() -> io::Error {
    held("the volume has other replicas now")
}

/// What is served now, and may be something else the next moment, without the guest's notice: a volume that gets its
/// second replica, or one that has moved here.
pub struct Switch {
    now: RwLock<Arc<dyn Media>>,
}

impl Switch {
    /// Serves this for now.
    pub fn new(media: Arc<dyn Media>) -> Switch {
        Switch { now: RwLock::new(media) }
    }

    /// Serves this from now on. Waits for the calls under way.
    pub fn set(&self, media: Arc<dyn Media>) {
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = media;
    }

    fn now(&self) -> RwLockReadGuard<'_, Arc<dyn Media>> {
        self.now.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Media for Switch {
    fn size(&self) -> u64 {
        self.now().size()
    }

    fn read_only(&self) -> bool {
        self.now().read_only()
    }

    fn is_full(&self) -> bool {
        self.now().is_full()
    }

    fn read(&self, offset: u64, len: u64, to: &mut Pieces<'_, Sink>) -> io::Result<()> {
        self.now().read(offset, len, to)
    }

    fn write(&self, offset: u64, len: u64, from: &mut Pieces<'_, Source>) -> io::Result<()> {
        self.now().write(offset, len, from)
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.now().discard(offset, len)
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.now().write_zeroes(offset, len, unmap)
    }

    fn flush(&self) -> io::Result<()> {
        self.now().flush()
    }

    fn settle(&self) -> io::Result<()> {
        self.now().settle()
    }

    fn interrupt(&self, on: bool) {
        self.now().interrupt(on);
    }
}

/// A volume that is still written from another node: it has a size, and all else is held.
pub struct Prepared {
    /// Bytes.
    pub size: u64,
    /// Whether it may only be read.
    pub read_only: bool,
}

impl Prepared {
    fn held<T>() -> io::Result<T> {
        Err(held("the volume has not moved here yet"))
    }
}

impl Media for Prepared {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn is_full(&self) -> bool {
        false
    }

    fn read(&self, _offset: u64, _len: u64, _to: &mut Pieces<'_, Sink>) -> io::Result<()> {
        Prepared::held()
    }

    fn write(&self, _offset: u64, _len: u64, _from: &mut Pieces<'_, Source>) -> io::Result<()> {
        Prepared::held()
    }

    fn discard(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Prepared::held()
    }

    fn write_zeroes(&self, _offset: u64, _len: u64, _unmap: bool) -> io::Result<()> {
        Prepared::held()
    }

    fn flush(&self) -> io::Result<()> {
        // Nothing was written here.
        Ok(())
    }
}

/// The error of a call that was not done and is to be made again later: nothing is wrong with the request.
pub fn held(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::ResourceBusy, why.to_owned())
}

/// Whether a request is to be done again later: there is no room on a disk, or it was [`held`].
pub fn is_held(e: &io::Error) -> bool {
    fsio::is_full(e) || e.kind() == io::ErrorKind::ResourceBusy
}
