//! Reads blocks for no other reason than to see whether they are what was written: from the disk, not from memory.

use std::fs::File;
use std::io;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::blocks::{blocks_of, chunks};
use super::segment::Segment;
use super::sums::{NOTHING, Sums, read_at, sum};
use super::{Part, Volume, is_corrupt};
use crate::format::{BLOCK, SUM};
use crate::replication::regions::{AREA, REGION};
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
        forget(&segment.data, part.offset, part.len)?;
        let mut corrupt = 0;
        for (offset, len) in chunks(part.offset, part.len) {
            corrupt += self.verify_chunk(segment, offset, len)?;
        }
        if !cached {
            forget(&segment.data, part.offset, part.len)?;
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

    /// Has the kernel forget what it has in memory of these areas and their sums, so that what is read is what the disk has.
    pub(crate) fn forget_cached(&self, areas: &[u64]) -> io::Result<()> {
        for start in areas.iter().map(|area| area.saturating_mul(AREA)).filter(|start| *start < self.size()) {
            for part in self.parts(start, AREA.min(self.size() - start))? {
                let Some(segment) = self.segment(part.segment, false)? else { continue };
                forget(&segment.data, part.offset, part.len)?;
                if let Some(sums) = segment.sums() {
                    let (first, end) = (part.offset / BLOCK, (part.offset + part.len).div_ceil(BLOCK));
                    forget(sums, first * SUM, (end - first) * SUM)?;
                }
            }
        }
        Ok(())
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

/// Has the kernel forget what it has in memory of a part of a file, and not what it has still to write.
fn forget(file: &File, offset: u64, len: u64) -> io::Result<()> {
    Ok(posix_fadvise(file, offset as i64, len as i64, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Manifest;
    use crate::sys::{Pieces, Sink};
    use crate::volume::write_manifest;

    #[test]
    fn what_is_forgotten_is_read_from_the_disk() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("v1");
        std::fs::create_dir(&dir).unwrap();
        write_manifest(&dir, &Manifest::new("v1", 2 * AREA, false)).unwrap();
        let volume = Volume::open(&dir).unwrap();
        volume.write_slice(AREA, &[2; BLOCK as usize]).unwrap();
        volume.flush().unwrap();
        let mut bytes = [0; BLOCK as usize];
        let mut cached = || {
            let mut to = Pieces::<Sink>::default();
            to.push_slice(&mut bytes);
            volume.try_read(AREA, BLOCK, &mut to).unwrap()
        };
        // Not every file system can say so.
        if cached() {
            volume.forget_cached(&[0]).unwrap();
            assert!(cached(), "it is another area's");
            volume.forget_cached(&[1, u64::MAX]).unwrap();
            assert!(!cached());
        }
        volume.read_slice(AREA, &mut bytes).unwrap();
        assert_eq!(bytes, [2; BLOCK as usize]);
    }
}
