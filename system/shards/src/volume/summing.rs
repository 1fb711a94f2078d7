//! Makes the sums of segments that have none: those of the first format, and those of an image that was just stored.
//! Guests may write meanwhile: what they write gets its sum from them.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;

use super::blocks::{blocks_of, chunks, with_private};
use super::segment::Segment;
use super::sums::{Sums, read_at};
use super::{Volume, guard, read_manifest, write_manifest};
use crate::format::{BLOCK, Manifest};
use crate::fsio;

/// Makes the sums of a volume in the making, whose segments were written by other means.
pub fn make_sums(dir: &Path, id: &str) -> io::Result<()> {
    Volume::with(dir, read_manifest(dir, id)?, true)?.sum_up(|_| true).map(drop)
}

impl Volume {
    /// Whether every block has a sum.
    pub fn is_summed(&self) -> bool {
        self.summed.load(SeqCst)
    }

    /// Gives all segments their sums; then the volume is of the newest format. `go_on` is asked after each piece with the
    /// bytes of it; once it says no, this ends early with false, and begins anew with that segment another time.
    pub fn sum_up(&self, mut go_on: impl FnMut(u64) -> bool) -> io::Result<bool> {
        let count = guard(&self.manifest).segments();
        for index in 0..count {
            if let Some(segment) = self.segment(index, false)?
                && segment.complete_sums().is_none()
                && !self.sum_segment(&segment, &mut go_on)?
            {
                return Ok(false);
            }
        }
        let mut manifest = guard(&self.manifest);
        if manifest.segments() != count || !manifest.segment_size.is_multiple_of(BLOCK) {
            return Ok(false);
        }
        let summed = Manifest { format: manifest.format_summed(), ..manifest.clone() };
        write_manifest(&self.dir, &summed)?;
        *manifest = summed;
        self.summed.store(true, SeqCst);
        Ok(true)
    }

    fn sum_segment(&self, segment: &Segment, go_on: &mut impl FnMut(u64) -> bool) -> io::Result<bool> {
        let file = segment.begin_sums(&self.dir)?;
        let len = segment.data.metadata()?.len().min(self.segment_size);
        for (offset, len) in chunks(0, len) {
            {
                let _lock = self.stripes.lock(segment.index, offset);
                if !fsio::is_hole(&segment.data, offset, len)? {
                    let blocks = blocks_of(offset, len);
                    let mut sums = Sums::of(offset, len);
                    with_private((blocks.end - blocks.start) as usize, |bytes| {
                        read_at(&segment.data, bytes, offset)?;
                        sums.set_all(bytes);
                        file.write_all_at(sums.bytes(), sums.place())
                    })?;
                }
            }
            if !go_on(len) {
                return Ok(false);
            }
        }
        segment.end_sums(&self.dir)?;
        Ok(true)
    }
}
