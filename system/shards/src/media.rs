//! What guests are served with: one volume on a disk here, or all its replicas behind one writer. The ways in
//! (vhost-user-blk, NBD) know no more than this.

use std::io;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Release},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use crate::fsio;
use crate::sys::{Pieces, Sink, Source};
use crate::throttle::{Direction, IoLimits, Throttle};
use crate::volume::{Cold, Volume};

/// How long a request that met a full disk, or is held, waits until it is tried again.
const HELD: Duration = Duration::from_millis(100);
/// How long one that its volume's limits hold waits at least: a timer costs more than a request.
const LIMITED_MIN: Duration = Duration::from_millis(1);

/// A read that somebody else does.
pub struct ColdRead {
    /// Where the bytes are.
    pub place: Cold,
    /// Asked afterwards: whether who reads might have read all that time.
    pub current: Option<Box<dyn Fn() -> bool + Send>>,
}

impl ColdRead {
    /// Whether what was read may be answered.
    pub fn is_current(&self) -> bool {
        self.current.as_ref().is_none_or(|current| current())
    }
}

/// Who is told of the end of a change. It must not wait for anything.
pub type End = Box<dyn FnOnce(io::Result<()>) + Send>;

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

    /// Reads if that waits for nothing; false says that nothing was read, whatever the reason, and that
    /// [`Media::read`] may.
    fn try_read(&self, offset: u64, len: u64, to: &mut Pieces<'_, Sink>) -> bool {
        let _ = (offset, len, to);
        false
    }

    /// Where a range lies on a disk of this node, for those who have it read without waiting for it; `None` if
    /// [`Media::read`] is to be called.
    fn cold(&self, offset: u64, len: u64) -> Option<ColdRead> {
        let _ = (offset, len);
        None
    }

    /// Writes if that waits for nothing; false says that it is to be written by [`Media::write`], whatever the reason.
    fn try_write(&self, offset: u64, len: u64, from: &mut Pieces<'_, Source>) -> bool {
        let _ = (offset, len, from);
        false
    }

    /// Whether changes end elsewhere, so that it is worth beginning them without waiting for their end.
    fn ends_later(&self) -> bool {
        false
    }

    /// Begins a write whose end is told, from whatever thread, and soon. What it was to tell comes back if it is to be
    /// written by [`Media::write`]; the pieces are as they were then.
    fn begin_write(&self, offset: u64, len: u64, from: &mut Pieces<'_, Source>, end: End) -> Option<End> {
        let _ = (offset, len, from);
        Some(end)
    }

    /// Begins a flush, in the same way.
    fn begin_flush(&self, end: End) -> Option<End> {
        Some(end)
    }

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

    fn try_read(&self, offset: u64, len: u64, to: &mut Pieces<'_, Sink>) -> bool {
        // Why it cannot be done, the call that waits will say.
        self.use_alone().is_some_and(|_alone| self.try_read(offset, len, to).unwrap_or(false))
    }

    fn cold(&self, offset: u64, len: u64) -> Option<ColdRead> {
        let _alone = self.use_alone()?;
        self.cold(offset, len).map(|place| ColdRead { place, current: None })
    }

    fn try_write(&self, offset: u64, len: u64, from: &mut Pieces<'_, Source>) -> bool {
        self.use_alone().is_some_and(|_alone| self.try_write(offset, len, from).unwrap_or(false))
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
    throttle: Mutex<Throttle>,
    /// Whether there are limits at all: most volumes have none, and their queues should not meet at a lock.
    limited: AtomicBool,
}

impl Switch {
    /// Serves this for now.
    pub fn new(media: Arc<dyn Media>) -> Switch {
        Switch { now: RwLock::new(media), throttle: Mutex::default(), limited: AtomicBool::new(false) }
    }

    /// Serves this from now on. Waits for the calls under way.
    pub fn set(&self, media: Arc<dyn Media>) {
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = media;
    }

    /// No more than this from now on.
    pub fn limit(&self, limits: &IoLimits) {
        let mut throttle = self.throttle();
        throttle.set(limits);
        self.limited.store(!throttle.is_idle(), Release);
    }

    fn throttle(&self) -> MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_unlimited(&self) -> bool {
        !self.limited.load(Acquire)
    }

    fn admit(&self, direction: Direction, bytes: u64) -> io::Result<()> {
        if self.is_unlimited() {
            return Ok(());
        }
        self.throttle().admit(direction, bytes, Instant::now()).map_err(|wait| Limited(wait).into())
    }

    fn now(&self) -> RwLockReadGuard<'_, Arc<dyn Media>> {
        self.now.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that its volume's limits hold, and for how long.
#[derive(Debug, thiserror::Error)]
#[error("the volume's limits hold it for {0:?}")]
struct Limited(Duration);

impl From<Limited> for io::Error {
    fn from(limited: Limited) -> io::Error {
        io::Error::new(io::ErrorKind::ResourceBusy, limited)
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
        self.admit(Direction::Read, len)?;
        self.now().read(offset, len, to)
    }

    fn write(&self, offset: u64, len: u64, from: &mut Pieces<'_, Source>) -> io::Result<()> {
        self.admit(Direction::Write, len)?;
        self.now().write(offset, len, from)
    }

    fn try_read(&self, offset: u64, len: u64, to: &mut Pieces<'_, Sink>) -> bool {
        self.is_unlimited() && self.now().try_read(offset, len, to)
    }

    fn cold(&self, offset: u64, len: u64) -> Option<ColdRead> {
        if self.is_unlimited() { self.now().cold(offset, len) } else { None }
    }

    fn try_write(&self, offset: u64, len: u64, from: &mut Pieces<'_, Source>) -> bool {
        self.is_unlimited() && self.now().try_write(offset, len, from)
    }

    fn ends_later(&self) -> bool {
        self.is_unlimited() && self.now().ends_later()
    }

    fn begin_write(&self, offset: u64, len: u64, from: &mut Pieces<'_, Source>, end: End) -> Option<End> {
        if self.is_unlimited() { self.now().begin_write(offset, len, from, end) } else { Some(end) }
    }

    fn begin_flush(&self, end: End) -> Option<End> {
        self.now().begin_flush(end)
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        // It moves no bytes.
        self.admit(Direction::Write, 0)?;
        self.now().discard(offset, len)
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.admit(Direction::Write, 0)?;
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

/// How long a request that was not done should wait until it is tried again: there is no room on a disk, it was
/// [`held`], or its volume's limits hold it. `None` if it is not to be done again.
pub fn wait_of(e: &io::Error) -> Option<Duration> {
    if let Some(Limited(wait)) = e.get_ref().and_then(|inner| inner.downcast_ref()) {
        return Some((*wait).max(LIMITED_MIN));
    }
    (fsio::is_full(e) || e.kind() == io::ErrorKind::ResourceBusy).then_some(HELD)
}
