//! Segments that several volumes have in common, and how a volume leaves them.
//!
//! A copy of a volume is a directory of hard links to its segments and sums, so it costs the same whatever was written. A
//! file with more names than one is never changed: it is opened for reading alone, and whoever is first to change a block of
//! it gives the volume files of its own. The number of names on the disk is the only record of that. It grows for
//! nobody but by a copy of a volume that has the file, and that copy keeps all changes of this volume out; it may fall at
//! any time, since the others leave or are destroyed, and then the last one has the file for itself again.
//!
//! It must never link a file whose data and sums are not on stable media.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use super::segment::Segment;
use super::{Slot, Volume, alone, guard, mark_blocks, shared};
use crate::format::{self, Manifest, NEW, OLD, VOLUME_FORMAT_SHARED};
use crate::fsio;
use crate::replication::regions::{AREA, Marks};

/// A change was asked of a segment that others have too, or that is not the volume's any more.
#[derive(Debug, thiserror::Error)]
#[error("the segment is to be made the volume's own first")]
struct NotOwn;

/// The error of who found that a segment is not the volume's own.
pub fn not_own() -> io::Error {
    io::Error::other(NotOwn)
}

/// Whether an error is that.
pub fn is_not_own(e: &io::Error) -> bool {
    e.get_ref().is_some_and(|inner| inner.is::<NotOwn>())
}

impl Volume {
    /// Opens a volume that may only be read once more, to give it its content or to mend that; or hands out what was opened
    /// so before.
    pub fn to_fill(self: &Arc<Volume>) -> io::Result<Arc<Volume>> {
        let mut filler = guard(&self.filler);
        if let Some(open) = filler.upgrade() {
            return Ok(open);
        }
        let mut volume = Volume::with(&self.dir, self.manifest(), false)?;
        volume.reader = Some(self.clone());
        let volume = Arc::new(volume);
        *filler = Arc::downgrade(&volume);
        Ok(volume)
    }

    /// Fills an empty directory with what the volume holds at one moment; `manifest`, which is of the copy, gets what it has
    /// from this one. The files that are linked are on stable media, the others (and the directory) are not.
    pub fn copy_to(&self, dir: &Path, manifest: &mut Manifest) -> io::Result<()> {
        // Nobody begins to fill it meanwhile, and who does already is the one to be kept out.
        let filler = guard(&self.filler);
        filler.upgrade().as_deref().unwrap_or(self).copy_frozen(dir, manifest)
    }

    fn copy_frozen(&self, dir: &Path, manifest: &mut Manifest) -> io::Result<()> {
        let links = self.is_summed();
        // A flush must not take for synced what is being synced here, and changes need not wait for one under way.
        let flushing = guard(&self.flushing);
        if links {
            self.declare_shared()?;
            // The most of it, while changes go on.
            self.sync_marked()?;
        }
        // Who makes the volume larger has the manifest and waits for changes.
        let own = self.manifest();
        let _frozen = alone(&self.changes);
        if links {
            self.sync_marked()?;
        }
        drop(flushing);
        // Sums are made right without that lock.
        let _still = self.stripes.lock_all();
        (manifest.segment_size, manifest.format) = (own.segment_size, own.format);
        let files = files_of(&self.dir)?;
        if links {
            let link = |name: &String| fsio::link_or_clone(&self.dir.join(name), &dir.join(name));
            let linked = files.iter().try_for_each(link);
            // Whoever wants one again sees that it is shared. What was open can be written, but is by nobody from now on.
            // That holds for those that were linked before one that failed, too.
            alone(&self.segments).iter_mut().for_each(|slot| *slot = Slot::Unknown);
            linked?;
        } else {
            fsio::each_at_once(&files, |name| {
                fsio::clone_file(&File::open(self.dir.join(name))?, &File::create_new(dir.join(name))?)
            })?;
        }
        let mut suspect = Marks::default();
        suspect.extend(self.suspect_areas());
        if suspect.is_empty() {
            return Ok(());
        }
        manifest.format = manifest.format_guarded();
        fs::write(dir.join(format::MARKS), mark_blocks::encode_all(self.size().div_ceil(AREA), &suspect))
    }

    /// The manifest says that files may be shared, on stable media.
    fn declare_shared(&self) -> io::Result<()> {
        self.declare(|manifest| if manifest.may_share() { manifest.format } else { VOLUME_FORMAT_SHARED })
    }

    /// What was written before this call is on stable media, sums too. What has no mark is already. The caller holds the
    /// lock of flushes.
    fn sync_marked(&self) -> io::Result<()> {
        let of = |area: u64| {
            let (first, last) = (area * AREA, ((area + 1) * AREA).min(self.size()).saturating_sub(1));
            first / self.segment_size..=last / self.segment_size
        };
        let mut marked: Vec<usize> = self.marked().into_iter().flat_map(of).map(|at| at as usize).collect();
        marked.dedup();
        let synced = fsio::each_at_once(&marked, |index| match self.segment(*index, false)? {
            Some(segment) => segment.sync_data().and_then(|()| segment.sync_sums()),
            None => Ok(()),
        });
        synced.inspect_err(|_| {
            // The kernel says it once, and who waits for flushes must hear of it.
            self.unheard.store(true, SeqCst);
            self.areas.doubt_marked(self.size());
        })
    }

    /// A segment that may be changed, which no other volume has; made if `create` says so. Waits while it is copied.
    /// The caller holds the lock of changes, and none of a stripe.
    pub(super) fn segment_to_change(&self, index: usize, create: bool) -> io::Result<Option<Arc<Segment>>> {
        loop {
            match self.segment(index, create)? {
                Some(segment) if segment.is_shared() => self.leave(&segment)?,
                found => return Ok(found),
            }
        }
    }

    /// Gives the volume files of its own instead of those of this segment.
    fn leave(&self, segment: &Arc<Segment>) -> io::Result<()> {
        let _leaving = guard(&segment.leaving);
        if !self.is_current(segment) {
            return Ok(()); // Somebody else has done it meanwhile.
        }
        replace_by_copies(&self.dir, segment.index).inspect_err(|_| {
            // It may have changed a name, which must be durable before what is written under it is said to be.
            self.dir_dirty.store(true, SeqCst);
        })?;
        self.forget(segment.index);
        if let Some(reader) = &self.reader {
            reader.forget(segment.index);
        }
        Ok(())
    }

    /// Whether this is the segment that is used now.
    pub(super) fn is_current(&self, segment: &Segment) -> bool {
        match shared(&self.segments).get(segment.index) {
            Some(Slot::Open(now)) => std::ptr::eq(&raw const **now, segment),
            _ => false,
        }
    }

    /// The segment's files are to be looked for again.
    fn forget(&self, index: usize) {
        if let Some(slot) = alone(&self.segments).get_mut(index) {
            *slot = Slot::Unknown;
        }
    }
}

/// Removes what a crash left of a copy.
pub fn clear_copies(dir: &Path) -> io::Result<()> {
    let mut left = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let of = name.to_str().and_then(|name| name.strip_suffix(NEW).or_else(|| name.strip_suffix(OLD)));
        left.extend(of.and_then(format::segment_of).map(|_| entry.path()));
    }
    if left.is_empty() {
        return Ok(());
    }
    // The name that the file had must be gone for good before it is another volume's alone.
    fsio::sync_dir(dir)?;
    left.iter().try_for_each(fs::remove_file)
}

/// Replaces the files of a segment that others have too by copies, durably.
fn replace_by_copies(dir: &Path, index: usize) -> io::Result<()> {
    let mut names = Vec::new();
    for name in [format::segment_name(index), format::sums_name(index)] {
        if fs::metadata(dir.join(&name)).is_ok_and(|found| fsio::has_links(&found)) {
            names.push(name);
        }
    }
    if names.is_empty() {
        return Ok(()); // The others have left.
    }
    let with = |name: &str, end: &str| dir.join(format!("{name}{end}"));
    let replaced = names.iter().try_for_each(|name| {
        let to = File::create(with(name, NEW))?;
        fsio::clone_file(&File::open(dir.join(name))?, &to)?;
        to.sync_all()
    });
    // What they hold is the same before and after: a crash between two of them leaves nothing amiss.
    let replaced = replaced.and_then(|()| {
        names.iter().try_for_each(|name| {
            keep_as(dir, &dir.join(name), &with(name, OLD))?;
            fs::rename(with(name, NEW), dir.join(name))
        })
    });
    // Another volume that has such a file alone from now on changes it, and this one must never have it again.
    let replaced = replaced.and_then(|()| fsio::sync_dir(dir));
    for name in &names {
        fsio::remove_any(&with(name, NEW))?;
        if replaced.is_ok() {
            fsio::remove_any(&with(name, OLD))?;
        }
    }
    replaced
}

/// Gives a file one more name.
fn keep_as(dir: &Path, file: &Path, name: &Path) -> io::Result<()> {
    if name.exists() {
        // Of one that has failed after the names were changed.
        fsio::sync_dir(dir)?;
        fs::remove_file(name)?;
    }
    match fs::hard_link(file, name) {
        // So many have it that it will not be anybody's alone.
        Err(e) if e.raw_os_error() == Some(libc::EMLINK) => Ok(()),
        linked => linked,
    }
}

/// The names of the segments in a directory, each with its sums behind it if it has any. Sums without data are nothing.
fn files_of(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(dir)? {
        names.extend(entry?.file_name().into_string());
    }
    let mut files = Vec::new();
    for index in
        names.iter().filter(|name| name.starts_with("seg")).filter_map(|name| format::segment_of(name))
    {
        files.push(format::segment_name(index));
        files.extend(Some(format::sums_name(index)).filter(|sums| names.contains(sums)));
    }
    Ok(files)
}
