//! The two files of a segment: its data, and the sums of its blocks.
//!
//! Files that other volumes have too, by hard links, are opened for reading alone, so that the kernel refuses what would
//! change them for all; see [`sharing`](super::sharing).

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::format;
use crate::fsio;

/// Writes of so many bytes take turns.
const LARGE: u64 = 64 << 10;

/// A segment that is open.
pub struct Segment {
    /// Which one of the volume.
    pub index: usize,
    /// Its data.
    pub data: File,
    /// Data was written since it was last synced.
    dirty: AtomicBool,
    sums: OnceLock<File>,
    /// There is a sum of every block. They are written before that, and not believed.
    complete: AtomicBool,
    sums_dirty: AtomicBool,
    /// Other volumes had one of its files too when it was opened: it is never written.
    shared: bool,
    /// Held by who makes a copy of it.
    pub leaving: Mutex<()>,
    /// Held by who writes much of its data.
    turn: Mutex<()>,
}

/// How a segment is opened.
#[derive(Debug, Clone, Copy)]
pub struct Opening {
    /// Whether it is made if it is not there.
    pub create: bool,
    /// Whether it may only be read.
    pub read_only: bool,
    /// Whether every segment of the volume has sums.
    pub summed: bool,
}

impl Segment {
    /// Opens a segment; `None` if it is not there. Also tells whether files were made.
    pub fn open(dir: &Path, index: usize, how: Opening) -> io::Result<(Option<Segment>, bool)> {
        let path = dir.join(format::segment_name(index));
        let sums_path = dir.join(format::sums_name(index));
        let mut options = File::options();
        options.read(true).write(!how.read_only);
        let (data, made) = match File::open(&path) {
            Ok(data) => (data, false),
            Err(e) if e.kind() == io::ErrorKind::NotFound && how.create => {
                // A crash may have left the sums of data that is lost, and they may be others' too.
                fsio::remove_any(&sums_path)?;
                (options.create_new(true).open(&path)?, true)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((None, false)),
            Err(e) => return Err(e),
        };
        let data_shared = fsio::has_links(&data.metadata()?);
        let sums_shared = fs::metadata(&sums_path).is_ok_and(|found| fsio::has_links(&found));
        let shared = data_shared || sums_shared;
        let data = match made || shared || how.read_only {
            true => data,
            false => File::options().read(true).write(true).open(&path)?,
        };
        let sums = open_sums(&sums_path, made, shared && sums_path.exists(), how)?;
        let complete = sums.is_some().into();
        let sums = sums.map_or_else(OnceLock::new, OnceLock::from);
        // What an earlier process wrote may not be synced; what is shared was before it was.
        let (dirty, sums_dirty) = ((!data_shared).into(), (!sums_shared).into());
        let (leaving, turn) = (Mutex::default(), Mutex::default());
        let segment = Segment { index, data, dirty, sums, complete, sums_dirty, shared, leaving, turn };
        Ok((Some(segment), made))
    }

    /// Whether it may only be read until it was made this volume's own.
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// Where sums are written, if there are any.
    pub fn sums(&self) -> Option<&File> {
        self.sums.get()
    }

    /// The sums that blocks are verified by, if every block has one.
    pub fn complete_sums(&self) -> Option<&File> {
        self.sums.get().filter(|_| self.complete.load(SeqCst))
    }

    /// Data and sums are about to be written. To be called first: a flush that comes between must not miss them.
    pub fn soil(&self) {
        self.dirty.store(true, SeqCst);
        self.sums_dirty.store(true, SeqCst);
    }

    /// To be held while so much of the data is written. File systems have large writes of one file wait for each other
    /// with a busy processor; here they sleep.
    pub fn turn(&self, len: u64) -> Option<MutexGuard<'_, ()>> {
        (len >= LARGE).then(|| self.turn.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Data that was written before this call is on stable media.
    pub fn sync_data(&self) -> io::Result<()> {
        sync(&self.data, &self.dirty)
    }

    /// Sums that were written before this call are on stable media.
    pub fn sync_sums(&self) -> io::Result<()> {
        self.sums.get().map_or(Ok(()), |file| sync(file, &self.sums_dirty))
    }

    /// Sums are written from now on, into a file that has none yet.
    pub fn begin_sums(&self, dir: &Path) -> io::Result<&File> {
        let path = dir.join(format!("{}.new", format::sums_name(self.index)));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(self.sums.get_or_init(|| file))
    }

    /// Every block has its sum: data and sums become durable, and blocks are verified from now on.
    pub fn end_sums(&self, dir: &Path) -> io::Result<()> {
        self.data.sync_data()?;
        let Some(file) = self.sums.get() else { return Ok(()) };
        file.sync_all()?;
        let name = format::sums_name(self.index);
        fs::rename(dir.join(format!("{name}.new")), dir.join(name))?;
        fsio::sync_dir(dir)?;
        self.complete.store(true, SeqCst);
        Ok(())
    }
}

fn sync(file: &File, dirty: &AtomicBool) -> io::Result<()> {
    if dirty.swap(false, SeqCst)
        && let Err(e) = file.sync_data()
    {
        dirty.store(true, SeqCst);
        return Err(e);
    }
    Ok(())
}

/// Opens the sums of a segment that was just made or was there; `None` if it has none yet.
fn open_sums(path: &Path, made: bool, only_read: bool, how: Opening) -> io::Result<Option<File>> {
    let mut options = File::options();
    options.read(true).write(!how.read_only && !only_read);
    if made {
        return options.create_new(true).open(path).map(Some);
    }
    match options.open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound && !how.summed => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::NotFound && !how.read_only => {
            options.create(true).open(path).map(Some)
        }
        opened => opened.map(Some),
    }
}
