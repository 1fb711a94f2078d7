//! A volume that is open: reads, writes, discards and flushes over its segment files.
//!
//! It touches the files of one volume directory and nothing else. All calls block (but those of `at_once`) and may come
//! from many threads. It must never report a flush done before what was written ahead of it is on stable media, never
//! write a volume that is read-only, and never hand out a block that is not what was written.
//!
//! `blocks` verifies reads and keeps sums right, `areas` marks where a crash may part the two (`mark_blocks`: in which form),
//! `marking` says when marks are set and cleared; `sharing` copies the volume and keeps what it shares with others as it is; `summing` makes the
//! sums of segments that have none, `verify` looks for damage; `torn` tells a writer of several replicas what a crash may
//! have left half-written.

mod areas;
mod at_once;
mod blocks;
mod cold;
mod mark_blocks;
mod marking;
mod segment;
mod sharing;
mod stripes;
mod summing;
mod sums;
mod torn;
mod verify;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

pub use self::cold::Cold;

use self::areas::{Areas, Stamps};
use self::blocks::Zeroing;
pub(crate) use self::blocks::chunks;
use self::segment::{Opening, Segment};
use self::stripes::Stripes;
pub use self::summing::make_sums;
pub(crate) use self::sums::{CHUNK, crc};
use crate::format::{self, Manifest};
use crate::fsio;
use crate::seal::seal;
use crate::sys::{Pieces, Sink, Source};

/// A block that is not what was written there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the block at byte {offset} is not what was written")]
pub struct Corrupt {
    /// Where it begins, in bytes of the volume.
    pub offset: u64,
}

/// Whether an error says that what is on the disk is corrupt.
pub fn is_corrupt(e: &io::Error) -> bool {
    e.get_ref().is_some_and(|inner| inner.is::<Corrupt>())
}

/// What was found out about the blocks of a volume since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Findings {
    /// Times a block was asked for that is corrupt, and blocks of marks that were when the volume was opened.
    pub corrupt: u64,
    /// Sums that were made right after a crash or a write that failed.
    pub mended: u64,
}

/// An open volume.
pub struct Volume {
    dir: PathBuf,
    manifest: Mutex<Manifest>,
    /// The size in bytes; grows under the lock of `manifest`.
    size: AtomicU64,
    segment_size: u64,
    read_only: bool,
    /// Whether every segment has sums, or gets them when it is opened.
    summed: AtomicBool,
    /// Whether marks have sums, as the manifest on the disk says.
    guarded: AtomicBool,
    segments: RwLock<Vec<Slot>>,
    /// Segments were made since the directory was last synced.
    dir_dirty: AtomicBool,
    /// Held through a flush, so that no flush ends before another that took over its dirty marks. Holds whether
    /// there was one yet: the first also covers what an earlier process wrote and did not live to flush.
    flushing: Mutex<bool>,
    /// Held shared by changes, alone by who copies the volume or clears its marks.
    changes: RwLock<Stamps>,
    stripes: Stripes,
    areas: Areas,
    /// Flushes that have begun, and the number of the last that succeeded.
    flushes: AtomicU64,
    flushed: AtomicU64,
    /// Flushes that failed.
    failures: AtomicU64,
    /// What `flushed` was when marks were last cleared.
    cleaned: AtomicU64,
    corrupt: AtomicU64,
    mended: AtomicU64,
    /// The last change met a full disk and waits for room.
    full: AtomicBool,
    /// Whether a writer of several replicas has it: nobody else may use it then. Held shared by who does.
    taken: RwLock<bool>,
    /// A sync that no flush asked for has failed: the next flush says so.
    unheard: AtomicBool,
    /// Who writes the content of this volume, which may only be read; and, of that one, this.
    filler: Mutex<Weak<Volume>>,
    reader: Option<Arc<Volume>>,
}

#[derive(Clone)]
enum Slot {
    /// Not looked for yet.
    Unknown,
    /// There is no file: it reads as zeroes.
    Absent,
    Open(Arc<Segment>),
}

/// A piece of a range that lies in one segment.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    segment: usize,
    offset: u64,
    len: u64,
}

/// Under which number a change marks its areas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stamp {
    /// Those of the volume's flushes.
    Flushes,
    /// That of the step of a writer, which says when the mark may go.
    Step(u64),
}

impl Volume {
    /// Opens the volume in this directory, which is called by its id.
    pub fn open(dir: &Path) -> io::Result<Volume> {
        Volume::open_as(dir, dir.file_name().and_then(|n| n.to_str()).unwrap_or_default())
    }

    /// Opens the volume `id` in a directory of another name, as it is while it is built.
    pub fn open_as(dir: &Path, id: &str) -> io::Result<Volume> {
        let manifest = read_manifest(dir, id)?;
        let read_only = manifest.read_only;
        Volume::with(dir, manifest, read_only)
    }

    fn with(dir: &Path, manifest: Manifest, read_only: bool) -> io::Result<Volume> {
        if manifest.may_share() && !read_only {
            sharing::clear_copies(dir)?;
        }
        let (areas, stamps) = Areas::open(dir, manifest.size)?;
        Ok(Volume {
            dir: dir.into(),
            size: manifest.size.into(),
            segment_size: manifest.segment_size,
            read_only,
            summed: manifest.is_summed().into(),
            guarded: manifest.is_guarded().into(),
            segments: RwLock::new(vec![Slot::Unknown; manifest.segments()]),
            manifest: Mutex::new(manifest),
            dir_dirty: AtomicBool::new(true),
            flushing: Mutex::new(false),
            changes: RwLock::new(stamps),
            stripes: Stripes::default(),
            corrupt: AtomicU64::new(areas.damaged()),
            areas,
            flushes: AtomicU64::new(0),
            flushed: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            cleaned: AtomicU64::new(0),
            mended: AtomicU64::new(0),
            full: AtomicBool::new(false),
            taken: RwLock::new(false),
            unheard: AtomicBool::new(false),
            filler: Mutex::default(),
            reader: None,
        })
    }

    /// Takes the volume for a writer of several replicas, for good: what is under way without one ends first.
    pub fn take(&self) {
        *alone(&self.taken) = true;
    }

    /// The right to use the volume as the only replica, while the guard lives; `None` once it was taken.
    pub fn use_alone(&self) -> Option<RwLockReadGuard<'_, bool>> {
        Some(shared(&self.taken)).filter(|taken| !**taken)
    }

    /// Where it lies.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size.load(SeqCst)
    }

    /// Whether it may only be read.
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// A copy of its manifest as it stands.
    pub fn manifest(&self) -> Manifest {
        guard(&self.manifest).clone()
    }

    /// Whether a change waits for room on the disk.
    pub fn is_full(&self) -> bool {
        self.full.load(SeqCst)
    }

    /// What was found out about its blocks.
    pub fn findings(&self) -> Findings {
        Findings { corrupt: self.corrupt.load(SeqCst), mended: self.mended.load(SeqCst) }
    }

    /// Reads `len` bytes at `offset` into the pieces. A block that is corrupt is an error that [`is_corrupt`] knows.
    pub fn read(&self, offset: u64, len: u64, to: &mut Pieces<'_, Sink>) -> io::Result<()> {
        for part in self.parts(offset, len)? {
            match self.segment(part.segment, false)? {
                Some(segment) => self.read_part(&segment, &part, to)?,
                None => to.fill_zeroes(part.len)?,
            }
        }
        Ok(())
    }

    /// Reads into a slice, which is then full.
    pub fn read_slice(&self, offset: u64, slice: &mut [u8]) -> io::Result<()> {
        let len = slice.len() as u64;
        let mut to = Pieces::<Sink>::default();
        to.push_slice(slice);
        self.read(offset, len, &mut to)
    }

    /// Whether a range is known to hold zeroes without reading it: nothing is stored there, as it should be.
    pub fn is_hole(&self, offset: u64, len: u64) -> io::Result<bool> {
        for part in self.parts(offset, len)? {
            if let Some(segment) = self.segment(part.segment, false)?
                && !self.is_empty_part(&segment, &part)?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes a slice.
    pub fn write_slice(&self, offset: u64, slice: &[u8]) -> io::Result<()> {
        let mut from = Pieces::<Source>::default();
        from.push_bytes(slice);
        self.write(offset, slice.len() as u64, &mut from)
    }

    /// Writes `len` bytes from the pieces at `offset`. Durable after the next flush. On a full disk the error
    /// is one that [`fsio::is_full`] knows; part of the range may have been written.
    pub fn write(&self, offset: u64, len: u64, from: &mut Pieces<'_, Source>) -> io::Result<()> {
        self.write_stamped(Stamp::Flushes, offset, len, from)
    }

    fn write_stamped(
        &self,
        stamp: Stamp,
        offset: u64,
        len: u64,
        from: &mut Pieces<'_, Source>,
    ) -> io::Result<()> {
        self.change(stamp, offset, len, |this, part| {
            let segment = this.segment_to_change(part.segment, true)?;
            segment.map_or(Ok(()), |segment| this.write_part(&segment, part, from))
        })
    }

    /// Gives a range back to the disk; it reads as zeroes (or, where the file system cannot, as before).
    pub fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.zero_stamped(Stamp::Flushes, offset, len, Zeroing::Discard)
    }

    /// Makes a range read as zeroes; with `unmap` its room is given back.
    pub fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        let how = if unmap { Zeroing::Unmap } else { Zeroing::Keep };
        self.zero_stamped(Stamp::Flushes, offset, len, how)
    }

    fn zero_stamped(&self, stamp: Stamp, offset: u64, len: u64, how: Zeroing) -> io::Result<()> {
        self.change(stamp, offset, len, |this, part| {
            let segment = this.segment_to_change(part.segment, false)?;
            segment.map_or(Ok(()), |segment| this.zero_part(&segment, part, how))
        })
    }

    /// Waits until all that was written before this call is on stable media. Sums need not be: marks stand for them, and
    /// these go only after sums were synced.
    pub fn flush(&self) -> io::Result<()> {
        if self.read_only {
            return Ok(());
        }
        let (asked, failures) = (self.flushes.load(SeqCst), self.failures.load(SeqCst));
        let mut flushed_before = guard(&self.flushing);
        if self.failures.load(SeqCst) != failures || self.unheard.swap(false, SeqCst) {
            // The kernel says once that it lost something, and that was of what this call is about too.
            return Err(io::Error::other("a flush that was under way has failed"));
        }
        if self.flushed.load(SeqCst) > asked {
            return Ok(()); // One that began after this call has done it.
        }
        let number = self.flushes.fetch_add(1, SeqCst) + 1;
        if !*flushed_before {
            self.open_all()?;
        }
        if self.dir_dirty.swap(false, SeqCst)
            && let Err(e) = fsio::sync_dir(&self.dir)
        {
            self.dir_dirty.store(true, SeqCst);
            return Err(e);
        }
        for segment in self.open_segments() {
            // What the kernel could not store it may forget, and what was there before then has other sums.
            segment.sync_data().inspect_err(|_| {
                self.failures.fetch_add(1, SeqCst);
                self.areas.doubt_marked(self.size());
            })?;
        }
        *flushed_before = true;
        self.flushed.store(number, SeqCst);
        Ok(())
    }

    /// Grows the volume, durably; a smaller size changes nothing.
    pub fn grow(&self, size: u64) -> io::Result<()> {
        let mut manifest = guard(&self.manifest);
        let grown = Manifest { size: format::whole_sectors(size), ..manifest.clone() };
        if grown.size <= manifest.size {
            return Ok(());
        }
        if grown.size > format::SIZE_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no volume is that large"));
        }
        write_manifest(&self.dir, &grown)?;
        alone(&self.changes).grow(grown.size);
        alone(&self.segments).resize(grown.segments(), Slot::Unknown);
        self.size.store(grown.size, SeqCst);
        *manifest = grown;
        Ok(())
    }

    /// The manifest says that it is of another format, on stable media.
    fn declare(&self, format: impl Fn(&Manifest) -> u32) -> io::Result<()> {
        let mut manifest = guard(&self.manifest);
        let next = Manifest { format: format(&manifest), ..manifest.clone() };
        if next != *manifest {
            write_manifest(&self.dir, &next)?;
            if let Some(reader) = &self.reader {
                *guard(&reader.manifest) = next.clone();
            }
            *manifest = next;
        }
        Ok(())
    }

    fn open_all(&self) -> io::Result<()> {
        let count = shared(&self.segments).len();
        (0..count).try_for_each(|index| self.segment(index, false).map(drop))
    }

    fn open_segments(&self) -> Vec<Arc<Segment>> {
        shared(&self.segments).iter().filter_map(Slot::open).collect()
    }

    fn change(
        &self,
        stamp: Stamp,
        offset: u64,
        len: u64,
        mut each: impl FnMut(&Self, &Part) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let mut parts = self.parts(offset, len)?;
        let declared = self.declare_guarded();
        let stamps = shared(&self.changes);
        let result = declared.and_then(|()| self.mark(&stamps, stamp, &(offset..offset + len)));
        let result = result.and_then(|()| parts.try_for_each(|part| each(self, &part)));
        if stamp == Stamp::Flushes {
            // A flush that began meanwhile does not cover it.
            stamps.touch_all(&(offset..offset + len), self.flushes.load(SeqCst));
        }
        drop(stamps);
        let full = result.as_ref().is_err_and(fsio::is_full);
        // Mostly it is unchanged, and reading is cheaper than writing where many threads do.
        if full != self.full.load(SeqCst) {
            self.full.store(full, SeqCst);
        }
        result
    }

    fn parts(&self, offset: u64, len: u64) -> io::Result<impl Iterator<Item = Part> + use<>> {
        if offset.checked_add(len).is_none_or(|end| end > self.size()) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "beyond the end of the volume"));
        }
        Ok(split(offset, len, self.segment_size))
    }

    /// The segment's file; made if `create` says so.
    fn segment(&self, index: usize, create: bool) -> io::Result<Option<Arc<Segment>>> {
        match shared(&self.segments).get(index) {
            Some(Slot::Open(segment)) => return Ok(Some(segment.clone())),
            Some(Slot::Absent) if !create => return Ok(None),
            Some(_) => {}
            None => return Err(io::ErrorKind::InvalidInput.into()),
        }
        let mut segments = alone(&self.segments);
        if let Slot::Open(segment) = &segments[index] {
            return Ok(Some(segment.clone()));
        }
        let how = Opening { create, read_only: self.read_only, summed: self.summed.load(SeqCst) };
        let (segment, made) = Segment::open(&self.dir, index, how)?;
        if made {
            self.dir_dirty.store(true, SeqCst);
        }
        segments[index] = segment.map_or(Slot::Absent, |segment| Slot::Open(Arc::new(segment)));
        Ok(segments[index].open())
    }
}

impl Slot {
    fn open(&self) -> Option<Arc<Segment>> {
        match self {
            Slot::Open(segment) => Some(segment.clone()),
            Slot::Unknown | Slot::Absent => None,
        }
    }
}

fn read_manifest(dir: &Path, id: &str) -> io::Result<Manifest> {
    let bytes = fsio::read_small(&dir.join(format::MANIFEST))?;
    Manifest::parse(&bytes, id).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// Writes a volume's manifest, durably.
pub fn write_manifest(dir: &Path, manifest: &Manifest) -> io::Result<()> {
    fsio::replace(dir, format::MANIFEST, &seal(&serde_json::to_vec_pretty(manifest)?))
}

fn split(mut offset: u64, mut len: u64, segment_size: u64) -> impl Iterator<Item = Part> {
    std::iter::from_fn(move || {
        let within = offset % segment_size;
        let part = Part {
            segment: (offset / segment_size) as usize,
            offset: within,
            len: len.min(segment_size - within),
        };
        (offset, len) = (offset + part.len, len - part.len);
        (part.len > 0).then_some(part)
    })
}

// Nothing under these locks is left half-done by a panic.
fn guard<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

fn shared<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn alone<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
