//! Which areas of a volume may be other than their sums say after a crash, and other than those of other replicas: one
//! bit each in the file `marks`, on stable media before anything in the area is changed.
//!
//! In memory each area has a stamp: the number under which it was last changed. A mark that is there already costs a
//! look at it and no lock.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::mark_blocks;
use crate::format;
use crate::fsio;
use crate::replication::regions::{AREA, Marks, REGION, regions_of, units};

/// The stamp of each area, and one more; 0 if it has no mark. Grows with the volume.
#[derive(Debug, Default)]
pub struct Stamps(Vec<AtomicU64>);

impl Stamps {
    /// As many as a volume of this size has areas.
    pub fn grow(&mut self, size: u64) {
        let count = size.div_ceil(AREA) as usize;
        self.0.resize_with(self.0.len().max(count), AtomicU64::default);
    }

    fn count(&self) -> u64 {
        self.0.len() as u64
    }

    fn get(&self, area: u64) -> Option<&AtomicU64> {
        self.0.get(area as usize)
    }

    /// Stamps an area that has a mark; false if it has none.
    fn touch(&self, area: u64, stamp: u64) -> bool {
        let Some(of) = self.get(area) else { return true };
        let mut found = of.load(SeqCst);
        while found != 0 {
            if found > stamp {
                return true;
            }
            match of.compare_exchange(found, stamp.saturating_add(1), SeqCst, SeqCst) {
                Ok(_) => return true,
                Err(now) => found = now,
            }
        }
        false
    }

    /// Stamps the areas of a range if all have marks.
    pub fn touch_all(&self, range: &Range<u64>, stamp: u64) -> bool {
        units(range, AREA).all(|area| self.touch(area, stamp))
    }

    /// Takes the mark of an area if its stamp is older than this.
    fn clear(&self, area: u64, stamp: u64) -> bool {
        let Some(of) = self.get(area) else { return true };
        let found = of.load(SeqCst);
        found == 0 || (found <= stamp && of.compare_exchange(found, 0, SeqCst, SeqCst).is_ok())
    }

    fn is_older(&self, area: u64, stamp: u64) -> bool {
        self.get(area).is_none_or(|of| (1..=stamp).contains(&of.load(SeqCst)))
    }
}

/// The marks of a volume.
pub struct Areas {
    dir: PathBuf,
    /// Asked for and not on the disk yet: who gets the lock of `stored` next stores all of them at once.
    wanted: Mutex<BTreeSet<u64>>,
    stored: Mutex<Stored>,
    suspects: Mutex<Suspects>,
    damaged: u64,
}

struct Stored {
    file: Option<File>,
    bits: Marks,
    /// Blocks of the file that are as they were written; none if it is to be made anew.
    blocks: u64,
    /// There is a file of the form without sums.
    plain: bool,
}

/// Regions where a block may not match its sum without being corrupt.
#[derive(Default)]
struct Suspects {
    regions: Marks,
    /// How often one was added.
    added: u64,
    /// A sync has failed: nobody knows what of these is on the disk, whatever the page cache says.
    kept: bool,
}

impl Areas {
    /// Reads the marks of a volume of this size: what they cover is suspect until it was looked at.
    pub fn open(dir: &Path, size: u64) -> io::Result<(Areas, Stamps)> {
        let found = mark_blocks::read(dir, size.div_ceil(AREA))?;
        if found.damaged > 0 {
            let (volume, blocks) = (dir.display(), found.damaged);
            tracing::error!(%volume, blocks, "marks are not what was written: all they are of is taken for marked");
        }
        let mut stamps = Stamps::default();
        stamps.grow(size);
        let mut suspects = Suspects::default();
        for area in found.bits.iter() {
            suspects.regions.insert_area(area, regions_of(size));
            if let Some(of) = stamps.get(area) {
                of.store(1, SeqCst);
            }
        }
        let blocks = if found.damaged > 0 { 0 } else { found.blocks };
        let stored = Stored { file: None, bits: found.bits, blocks, plain: found.plain };
        let areas = Areas {
            dir: dir.into(),
            wanted: Mutex::default(),
            stored: Mutex::new(stored),
            suspects: Mutex::new(suspects),
            damaged: found.damaged,
        };
        Ok((areas, stamps))
    }

    /// Blocks of marks that were not what was written when they were read.
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    /// The areas that have marks.
    pub fn marked(&self) -> Vec<u64> {
        guard(&self.stored).bits.iter().collect()
    }

    /// Has marks of these areas on stable media when it returns, all with this stamp.
    pub fn mark(&self, stamps: &Stamps, areas: Range<u64>, stamp: u64) -> io::Result<()> {
        while !areas.clone().all(|area| stamps.touch(area, stamp)) {
            guard(&self.wanted).extend(areas.clone());
            let mut stored = guard(&self.stored);
            let wanted = std::mem::take(&mut *guard(&self.wanted));
            let new: Vec<u64> = wanted.into_iter().filter(|area| !stamps.touch(*area, 0)).collect();
            if new.is_empty() {
                continue;
            }
            stored.bits.extend(new.iter().copied());
            // Taken for marked only when that is on stable media.
            // If not, those who wait with us ask again, and hear of it themselves.
            stored.write(&self.dir, &new, stamps.count()).and_then(|file| file.sync_data())?;
            new.iter().filter_map(|area| stamps.get(*area)).for_each(|of| of.store(1, SeqCst));
        }
        Ok(())
    }

    /// Those of these areas that have a mark older than this.
    pub fn older(&self, stamps: &Stamps, stamp: u64) -> Vec<u64> {
        guard(&self.stored).bits.iter().filter(|area| stamps.is_older(*area, stamp)).collect()
    }

    /// Clears marks that are older than this stamp, but not of what is suspect. A mark that a crash brings back does no
    /// harm, so that nothing waits for the disk here.
    pub fn clear(&self, stamps: &Stamps, areas: &[u64], stamp: u64) -> io::Result<()> {
        let mut stored = guard(&self.stored);
        let mut cleared = Vec::new();
        for area in areas.iter().copied() {
            let clean = stored.bits.contains(area) && !self.is_suspect(area * AREA..(area + 1) * AREA);
            if clean && stamps.clear(area, stamp) {
                stored.bits.remove(area);
                cleared.push(area);
            }
        }
        if cleared.is_empty() { Ok(()) } else { stored.write(&self.dir, &cleared, stamps.count()).map(drop) }
    }

    /// Whether a block in this range may not match without being corrupt.
    pub fn is_suspect(&self, range: Range<u64>) -> bool {
        guard(&self.suspects).regions.intersects(units(&range, REGION))
    }

    /// Data and sums of this range may not match from now on.
    pub fn doubt(&self, range: &Range<u64>) {
        let mut suspects = guard(&self.suspects);
        suspects.regions.insert_range(units(range, REGION));
        suspects.added += 1;
    }

    /// Nor those of all that has marks, until the volume is opened anew: a sync of it has failed.
    pub fn doubt_marked(&self, size: u64) {
        let stored = guard(&self.stored);
        let mut suspects = guard(&self.suspects);
        stored.bits.iter().for_each(|area| suspects.regions.insert_area(area, regions_of(size)));
        suspects.kept = true;
    }

    /// The regions that are suspect, of these areas if some are named.
    pub fn suspects(&self, of: Option<&[u64]>) -> Vec<u64> {
        let suspects = guard(&self.suspects);
        if suspects.regions.is_empty() {
            return Vec::new();
        }
        let of: Option<BTreeSet<u64>> = of.map(|areas| areas.iter().copied().collect());
        let within = |region: &u64| of.as_ref().is_none_or(|areas| areas.contains(&(region * REGION / AREA)));
        suspects.regions.iter().filter(within).collect()
    }

    /// A number for [`Areas::trust`], if a region is suspect.
    pub fn doubts(&self, region: u64) -> Option<u64> {
        let suspects = guard(&self.suspects);
        suspects.regions.contains(region).then_some(suspects.added)
    }

    /// All blocks of the region match, if nothing was doubted since the number was had.
    pub fn trust(&self, region: u64, number: u64) {
        let mut suspects = guard(&self.suspects);
        if suspects.added == number && !suspects.kept {
            suspects.regions.remove(region);
        }
    }
}

impl Stored {
    /// Writes the blocks of these areas, of so many that the volume has.
    fn write(&mut self, dir: &Path, areas: &[u64], count: u64) -> io::Result<&File> {
        let path = dir.join(format::MARKS);
        let whole = self.plain || self.blocks < mark_blocks::blocks_of(count);
        if whole {
            self.replace(dir, count)?;
        }
        let file = match self.file.take() {
            Some(file) => file,
            None => File::options().write(true).open(&path)?,
        };
        let blocks: BTreeSet<u64> = areas.iter().map(|area| area / mark_blocks::AREAS).collect();
        for number in blocks.into_iter().filter(|_| !whole) {
            file.write_all_at(&mark_blocks::encode(number, &self.bits), number * mark_blocks::LEN as u64)?;
        }
        Ok(self.file.insert(file))
    }

    /// Makes the file anew, durably.
    fn replace(&mut self, dir: &Path, count: u64) -> io::Result<()> {
        self.file = None;
        fsio::replace(dir, format::MARKS, &mark_blocks::encode_all(count, &self.bits))?;
        if self.plain {
            // Until then both count.
            fsio::remove(dir, format::AREAS)?;
        }
        (self.blocks, self.plain) = (mark_blocks::blocks_of(count), false);
        Ok(())
    }
}

// What these locks guard is whole after a panic.
fn guard<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
