//! Reads blocks for no other reason than to see whether they are what was written: from the disk, not from memory.

use std::fs::File;
use std::io;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::blocks::{blocks_of, chunks};
use super::segment::Segment;
use super::sums::{NOTHING, Sums, read_at, sum};
use super::{Part, Volume, is_corrupt};
use crate::format::BLOCK;
use crate::replication::regions::REGION;
use crate::sys;

impl Volume {
    /// Verifies a region; answers how many of its blocks are corrupt. Segments without sums are left out.
    pub fn verify(&self, region: u64) -> io::Result<u64> {
        let start = region * REGION;
        let len = REGION.min(self.size().saturating_sub(start));
        let mut corrupt = 0;
        for part in self.parts(start, len)? {
            if let Some(segment) = self.segment(part.segment, false)?
                && segment.complete_sums().is_some()
                && !self.is_empty_part(&segment, &part)?
            {
                corrupt += self.verify_part(&segment, &part)?;
            }
        }
        Ok(corrupt)
    }

    fn verify_part(&self, segment: &Segment, part: &Part) -> io::Result<u64> {
        // What guests have in memory is there afterwards, too; what they have not is not.
        let cached = sys::read_cached(&segment.data, &mut [0], part.offset)?;
        forget(segment, part)?;
        let mut corrupt = 0;
        for (offset, len) in chunks(part.offset, part.len) {
            corrupt += self.verify_chunk(segment, offset, len)?;
        }
        if !cached {
            forget(segment, part)?;
        }
        Ok(corrupt)
    }

    fn verify_chunk(&self, segment: &Segment, offset: u64, len: u64) -> io::Result<u64> {
        let Some(file) = segment.complete_sums() else { return Ok(0) };
        let (mut corrupt, mut copy) = (0, NOTHING);
        for block in compare(segment, file, offset, len)?.1 {
            let at = self.start_of(segment) + block * BLOCK;
            // What a crash may have parted is for who uses the volume next: another replica may have it whole.
            if !self.areas.is_suspect(at..at + BLOCK)
                && let Err(e) = self.load_locked(segment, block, &mut copy)
            {
                if !is_corrupt(&e) {
                    return Err(e);
                }
                corrupt += 1;
            }
        }
        Ok(corrupt)
    }
}

/// The blocks that a part of a chunk touches, and the numbers of those that do not match their sums in this file. A change
/// that is under way looks like that, too, unless the caller holds their lock.
pub(super) fn compare(
    segment: &Segment,
    sums_file: &File,
    offset: u64,
    len: u64,
) -> io::Result<(Vec<u8>, Vec<u64>)> {
    let blocks = blocks_of(offset, len);
    let mut bytes = vec![0; (blocks.end - blocks.start) as usize];
    let mut sums = Sums::of(offset, len);
    read_at(&segment.data, &mut bytes, blocks.start)?;
    sums.read(sums_file)?;
    let each = (blocks.start / BLOCK..).zip(bytes.chunks_exact(BLOCK as usize));
    let differ = each.filter(|(block, found)| sum(found) != sums.get(*block)).map(|(block, _)| block);
    let differ = differ.collect();
    Ok((bytes, differ))
}

/// Has the kernel forget what it has in memory of a part of a segment, and not what it has still to write.
fn forget(segment: &Segment, part: &Part) -> io::Result<()> {
    let advice = PosixFadviseAdvice::POSIX_FADV_DONTNEED;
    Ok(posix_fadvise(&segment.data, part.offset as i64, part.len as i64, advice)?)
}
