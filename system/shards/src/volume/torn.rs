//! Blocks that a crash may have left half-written: which these are, and what of another replica may stand for them.
//! Looks only; nothing is made right here.

use std::fs::File;
use std::io;
use std::ops::Range;

use super::Volume;
use super::blocks::chunks;
use super::segment::Segment;
use super::verify::compare;
use crate::format::BLOCK;
use crate::replication::regions::REGION;

impl Volume {
    /// The blocks of a region that do not match their sums and would be taken as they are, in bytes of the volume.
    pub(crate) fn torn(&self, region: u64) -> io::Result<Vec<Range<u64>>> {
        let start = region.saturating_mul(REGION);
        let mut torn = Vec::new();
        if self.areas.doubts(region).is_none() || start >= self.size() {
            return Ok(torn);
        }
        for part in self.parts(start, REGION.min(self.size() - start))? {
            let Some(segment) = self.segment(part.segment, false)? else { continue };
            let Some(file) = segment.complete_sums() else { continue };
            if self.is_empty_part(&segment, &part)? {
                continue;
            }
            for (offset, len) in chunks(part.offset, part.len) {
                let (_, found) = self.compare_locked(&segment, file, offset, len)?;
                let places = found.into_iter().map(|block| self.start_of(&segment) + block * BLOCK);
                torn.extend(places.map(|at| at..(at + BLOCK).min(self.size())));
            }
        }
        Ok(torn)
    }

    /// Reads a range if all blocks it touches have sums and match them, be they suspect or not.
    pub(crate) fn read_matching(&self, offset: u64, len: u64) -> io::Result<Option<Vec<u8>>> {
        let mut read = Vec::with_capacity(len as usize);
        for part in self.parts(offset, len)? {
            let Some(segment) = self.segment(part.segment, false)? else {
                read.resize(read.len() + part.len as usize, 0);
                continue;
            };
            let Some(file) = segment.complete_sums() else { return Ok(None) };
            for (offset, len) in chunks(part.offset, part.len) {
                let (bytes, torn) = self.compare_locked(&segment, file, offset, len)?;
                if !torn.is_empty() {
                    return Ok(None);
                }
                let within = (offset % BLOCK) as usize;
                read.extend_from_slice(&bytes[within..within + len as usize]);
            }
        }
        Ok(Some(read))
    }

    /// [`compare`], with no change under way.
    fn compare_locked(
        &self,
        segment: &Segment,
        file: &File,
        offset: u64,
        len: u64,
    ) -> io::Result<(Vec<u8>, Vec<u64>)> {
        let _lock = self.stripes.lock(segment.index, offset);
        compare(segment, file, offset, len)
    }
}
