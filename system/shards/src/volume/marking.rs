//! When marks of areas are set, and when they go.
//!
//! A volume that is used by itself marks before it changes, and clears an area some seconds after a flush that covers all
//! that was written there. Of a replica its writer says when. Either way the sums are on stable media first, and what
//! was suspect has been looked at.

use std::io;
use std::ops::Range;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Instant;

use super::areas::Stamps;
use super::blocks::Zeroing;
use super::{Stamp, Volume, alone, shared};
use crate::format::Manifest;
use crate::replication::regions::{AREA, REGION, units};
use crate::sys::{Pieces, Source};

/// A mark costs a sync, and what follows is likely to be written next: areas are marked so many at a time.
const AHEAD: u64 = 4;

impl Volume {
    /// Has marks on stable media of the areas of a range that is about to be changed.
    pub(super) fn mark(&self, stamps: &Stamps, stamp: Stamp, range: &Range<u64>) -> io::Result<()> {
        let areas = units(range, AREA);
        match stamp {
            Stamp::Step(number) => self.areas.mark(stamps, areas, number),
            Stamp::Flushes => {
                let number = self.flushes.load(SeqCst);
                if stamps.touch_all(range, number) {
                    return Ok(());
                }
                let end = self.size().div_ceil(AREA).min(areas.end.next_multiple_of(AHEAD));
                self.areas.mark(stamps, areas.start / AHEAD * AHEAD..end, number)
            }
        }
    }

    /// Has the manifest say that marks have sums, before the first gets one: a release that does not know of that would
    /// see no marks. The caller holds no lock of changes.
    pub(super) fn declare_guarded(&self) -> io::Result<()> {
        if !self.guarded.load(SeqCst) {
            self.declare(Manifest::format_guarded)?;
            self.guarded.store(true, SeqCst);
        }
        Ok(())
    }

    /// Writes a slice as a step of a writer.
    pub(crate) fn write_step(&self, step: u64, offset: u64, slice: &[u8]) -> io::Result<()> {
        let mut from = Pieces::<Source>::default();
        from.push_bytes(slice);
        self.write_stamped(Stamp::Step(step), offset, slice.len() as u64, &mut from)
    }

    /// Makes a range read as zeroes as a step of a writer.
    pub(crate) fn zero_step(&self, step: u64, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        let how = if unmap { Zeroing::Unmap } else { Zeroing::Keep };
        self.zero_stamped(Stamp::Step(step), offset, len, how)
    }

    /// The areas that have marks.
    pub(crate) fn marked(&self) -> Vec<u64> {
        self.areas.marked()
    }

    /// Marks areas as a step of a writer does.
    pub(crate) fn mark_step(&self, step: u64, areas: &[u64]) -> io::Result<()> {
        if !areas.is_empty() {
            self.declare_guarded()?;
        }
        let stamps = shared(&self.changes);
        // Another node names them: what the volume does not have cannot be marked.
        let there = self.size().div_ceil(AREA);
        let mut areas = areas.iter().filter(|area| **area < there);
        areas.try_for_each(|area| self.areas.mark(&stamps, *area..area + 1, step))
    }

    /// Clears the marks of areas that no step from this on has changed. What they hold was flushed.
    pub(crate) fn clear_step(&self, step: u64, areas: &[u64]) -> io::Result<()> {
        self.make_sure(areas)?;
        if areas.is_empty() {
            return Ok(());
        }
        self.declare_guarded()?;
        self.areas.clear(&shared(&self.changes), areas, step)
    }

    /// If a region is suspect, its blocks and their sums match when this returns.
    pub(crate) fn settle_region(&self, region: u64) -> io::Result<()> {
        if let Some(number) = self.areas.doubts(region)
            && !self.read_only
        {
            self.look_at(region)?;
            self.areas.trust(region, number);
        }
        Ok(())
    }

    /// The areas where blocks may not match: a copy of the volume must have marks of them.
    pub(crate) fn suspect_areas(&self) -> Vec<u64> {
        let regions = self.areas.suspects(None);
        let mut areas: Vec<u64> = regions.into_iter().map(|region| region * REGION / AREA).collect();
        areas.dedup();
        areas
    }

    /// Clears the marks of areas where nothing was written for a while and all was flushed, of a volume that is used by
    /// itself. To be called every few seconds.
    pub fn clean(&self) -> io::Result<()> {
        let before = self.cleaned.swap(self.flushed.load(SeqCst), SeqCst);
        if self.read_only || before == 0 || self.use_alone().is_none() {
            return Ok(());
        }
        let due = self.areas.older(&shared(&self.changes), before);
        if due.is_empty() {
            return Ok(());
        }
        self.make_sure(&due)?;
        self.declare_guarded()?;
        let Some(_alone) = self.use_alone() else { return Ok(()) };
        // What is being written is not covered by any flush.
        let stamps = alone(&self.changes);
        self.areas.clear(&stamps, &due, before)
    }

    /// Looks at what is suspect in these areas, and syncs all sums.
    fn make_sure(&self, areas: &[u64]) -> io::Result<()> {
        for region in self.areas.suspects(Some(areas)) {
            let begun = Instant::now();
            self.settle_region(region)?;
            // Guests read the same disk.
            std::thread::sleep(begun.elapsed());
        }
        self.open_segments()
            .iter()
            .try_for_each(|segment| segment.sync_sums().inspect_err(|_| self.areas.doubt_marked(self.size())))
    }
}
