//! A volume that is open: reads, writes, discards and flushes over its segment files.
//!
//! It touches the files of one volume directory and nothing else. All calls block and may come from many
//! threads. It must never report a flush done before what was written ahead of it is on stable media, and never
//! write a volume that is read-only.
//!
//! Per-block checksums will live here: computed in [`Volume::write`], verified in [`Volume::read`].

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::format::{self, Manifest};
use crate::fsio;
use crate::sys::{Pieces, Sink, Source};

/// A page of zeroes for where a file system cannot make them itself.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// An open volume.
pub struct Volume {
    dir: PathBuf,
    manifest: Mutex<Manifest>,
    /// The size in bytes; grows under the lock of `manifest`.
    size: AtomicU64,
    segment_size: u64,
    read_only: bool,
    segments: RwLock<Vec<Slot>>,
    /// Segments were made since the directory was last synced.
    dir_dirty: AtomicBool,
    /// Held through a flush, so that no flush ends before another that took over its dirty marks. Holds whether
    /// there was one yet: the first also covers what an earlier process wrote and did not live to flush.
    flushing: Mutex<bool>,
    /// Held shared by changes, alone by who copies the volume.
    changes: RwLock<()>,
    /// The last change met a full disk and waits for room.
    full: AtomicBool,
    /// Whether a writer of several replicas has it: nobody else may use it then. Held shared by who does.
    taken: RwLock<bool>,
}

#[derive(Clone)]
enum Slot {
    /// Not looked for yet.
    Unknown,
    /// There is no file: it reads as zeroes.
    Absent,
    Open(Arc<Segment>),
}

struct Segment {
    file: File,
    dirty: AtomicBool,
}

/// A piece of a range that lies in one segment.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    segment: usize,
    offset: u64,
    len: u64,
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
        Ok(Volume::with(dir, manifest, read_only))
    }

    /// Opens a volume to give it its content, even if it may only be read afterwards.
    pub fn open_to_fill(dir: &Path) -> io::Result<Volume> {
        let id = dir.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        Ok(Volume::with(dir, read_manifest(dir, id)?, false))
    }

    fn with(dir: &Path, manifest: Manifest, read_only: bool) -> Volume {
        Volume {
            dir: dir.into(),
            size: manifest.size.into(),
            segment_size: manifest.segment_size,
            read_only,
            segments: RwLock::new(vec![Slot::Unknown; manifest.segments()]),
            manifest: Mutex::new(manifest),
            dir_dirty: AtomicBool::new(true),
            flushing: Mutex::new(false),
            changes: RwLock::new(()),
            full: AtomicBool::new(false),
            taken: RwLock::new(false),
        }
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

    /// Reads `len` bytes at `offset` into the pieces.
    pub fn read(&self, offset: u64, len: u64, to: &mut Pieces<'_, Sink>) -> io::Result<()> {
        for part in self.parts(offset, len)? {
            match self.segment(part.segment, false)? {
                Some(segment) => to.fill_from(&segment.file, part.offset, part.len)?,
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

    /// Whether a range is known to hold zeroes without reading it: nothing was stored there.
    pub fn is_hole(&self, offset: u64, len: u64) -> io::Result<bool> {
        for part in self.parts(offset, len)? {
            if let Some(segment) = self.segment(part.segment, false)?
                && !fsio::is_hole(&segment.file, part.offset, part.len)?
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
        self.change(offset, len, |this, part| {
            let Some(segment) = this.segment(part.segment, true)? else { return Ok(()) };
            // Marked first: a flush that comes between must not miss what is being written.
            segment.dirty.store(true, SeqCst);
            from.store_to(&segment.file, part.offset, part.len)
        })
    }

    /// Gives a range back to the disk; it reads as zeroes (or, where the file system cannot, as before).
    pub fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.change(offset, len, |this, part| {
            let Some(segment) = this.segment(part.segment, false)? else { return Ok(()) };
            segment.dirty.store(true, SeqCst);
            fsio::punch_hole(&segment.file, part.offset, part.len).map(drop)
        })
    }

    /// Makes a range read as zeroes; with `unmap` its room is given back.
    pub fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.change(offset, len, |this, part| {
            let Some(segment) = this.segment(part.segment, false)? else { return Ok(()) };
            segment.dirty.store(true, SeqCst);
            let done = match unmap {
                true => fsio::punch_hole(&segment.file, part.offset, part.len)?,
                false => fsio::zero_range(&segment.file, part.offset, part.len)?,
            };
            if done { Ok(()) } else { store_zeroes(&segment.file, part.offset, part.len) }
        })
    }

    /// Waits until all that was written before this call is on stable media.
    pub fn flush(&self) -> io::Result<()> {
        if self.read_only {
            return Ok(());
        }
        let mut flushed_before = guard(&self.flushing);
        if !*flushed_before {
            self.files()?;
        }
        if self.dir_dirty.swap(false, SeqCst)
            && let Err(e) = fsio::sync_dir(&self.dir)
        {
            self.dir_dirty.store(true, SeqCst);
            return Err(e);
        }
        let open: Vec<Arc<Segment>> = shared(&self.segments).iter().filter_map(Slot::open).collect();
        for segment in open {
            if segment.dirty.swap(false, SeqCst)
                && let Err(e) = segment.file.sync_data()
            {
                segment.dirty.store(true, SeqCst);
                return Err(e);
            }
        }
        *flushed_before = true;
        Ok(())
    }

    /// Grows the volume, durably; a smaller size changes nothing.
    pub fn grow(&self, size: u64) -> io::Result<()> {
        let mut manifest = guard(&self.manifest);
        let grown = Manifest { size: format::whole_sectors(size), ..manifest.clone() };
        if grown.size <= manifest.size {
            return Ok(());
        }
        write_manifest(&self.dir, &grown)?;
        alone(&self.segments).resize(grown.segments(), Slot::Unknown);
        self.size.store(grown.size, SeqCst);
        *manifest = grown;
        Ok(())
    }

    /// Keeps all changes out while the guard lives, so that the segments can be copied as of one moment.
    pub fn freeze(&self) -> RwLockWriteGuard<'_, ()> {
        alone(&self.changes)
    }

    /// The segments that have a file, by index.
    pub fn files(&self) -> io::Result<Vec<(usize, PathBuf)>> {
        let mut found = Vec::new();
        let count = shared(&self.segments).len();
        for index in 0..count {
            if self.segment(index, false)?.is_some() {
                found.push((index, self.dir.join(format::segment_name(index))));
            }
        }
        Ok(found)
    }

    fn change(
        &self,
        offset: u64,
        len: u64,
        mut each: impl FnMut(&Self, &Part) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let parts = self.parts(offset, len)?;
        let _shared = shared(&self.changes);
        let result = parts.into_iter().try_for_each(|part| each(self, &part));
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
        segments[index] = self.open_segment(index, create)?;
        Ok(segments[index].open())
    }

    fn open_segment(&self, index: usize, create: bool) -> io::Result<Slot> {
        let path = self.dir.join(format::segment_name(index));
        let mut options = File::options();
        let file = match options.read(true).write(!self.read_only).open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound && create => {
                let file = options.create_new(true).open(&path)?;
                self.dir_dirty.store(true, SeqCst);
                file
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Slot::Absent),
            Err(e) => return Err(e),
        };
        Ok(Slot::Open(Arc::new(Segment { file, dirty: AtomicBool::new(true) })))
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
    fsio::replace(dir, format::MANIFEST, &serde_json::to_vec_pretty(manifest)?)
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

fn store_zeroes(file: &File, mut offset: u64, mut len: u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    while len > 0 {
        let n = len.min(ZEROES.len() as u64);
        file.write_all_at(&ZEROES[..n as usize], offset)?;
        (offset, len) = (offset + n, len - n);
    }
    Ok(())
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
