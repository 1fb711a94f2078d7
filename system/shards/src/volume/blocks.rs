//! Reads that are verified, and changes that keep the sums right.
//!
//! A block and its sum are changed under one lock of [`Stripes`](super::stripes::Stripes). What does not match is read
//! again under that lock, since a change may have been half-way, or the guest may have written where it asked us to. What
//! still does not match is corrupt, but where a crash or a write that failed may have parted the two: there the data is
//! what counts.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering::SeqCst;

use super::segment::Segment;
use super::sharing::{is_not_own, not_own};
use super::sums::{CHUNK, NOTHING, Sums, read_at, sum};
use super::{Corrupt, Part, Volume, shared};
use crate::format::{BLOCK, SUM};
use crate::fsio;
use crate::replication::regions::REGION;
use crate::sys::{Pieces, Sink, Source};

/// Zeroes for where a file system cannot make them itself.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];
/// Sums of less are overwritten with zeroes, of more their room is given back.
const PUNCHED_MIN: u64 = 64 << 10;

thread_local! {
    /// What is being written: a guest may change its memory meanwhile, and the sum must be that of what is stored.
    static PRIVATE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with so many bytes of this thread, at most a chunk.
pub fn with_private<R>(len: usize, f: impl FnOnce(&mut [u8]) -> R) -> R {
    PRIVATE.with_borrow_mut(|bytes| {
        if bytes.len() < len {
            bytes.resize(len.next_power_of_two(), 0);
        }
        f(&mut bytes[..len])
    })
}

/// How a range is made to read as zeroes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zeroing {
    /// Its room is given back, and it may be left as it is where that cannot be.
    Discard,
    /// Its room is given back if that can be.
    Unmap,
    /// Its room is kept.
    Keep,
}

impl Volume {
    /// Where a segment begins in the volume.
    pub(super) fn start_of(&self, segment: &Segment) -> u64 {
        segment.index as u64 * self.segment_size
    }

    /// The bytes of a segment that are in use; beyond are zeroes.
    fn end_of(&self, segment: &Segment) -> u64 {
        (self.size() - self.start_of(segment)).min(self.segment_size)
    }

    /// Reads a part of a segment, and verifies each block it touches.
    pub(super) fn read_part(
        &self,
        segment: &Segment,
        part: &Part,
        to: &mut Pieces<'_, Sink>,
    ) -> io::Result<()> {
        let Some(file) = segment.complete_sums() else {
            return to.fill_from(&segment.data, part.offset, part.len);
        };
        for (offset, len) in chunks(part.offset, part.len) {
            let mut sums = Sums::of(offset, len);
            sums.read(file)?;
            let (mut at, end) = (offset, offset + len);
            while at < end {
                let whole = (end - at) / BLOCK * BLOCK;
                at += match at.is_multiple_of(BLOCK) && whole > 0 {
                    true => self.read_whole(segment, at, whole, &sums, to)?,
                    false => self.read_within(segment, at, end, &sums, to)?,
                };
            }
        }
        Ok(())
    }

    /// Reads whole blocks to where they are wanted.
    fn read_whole(
        &self,
        segment: &Segment,
        offset: u64,
        len: u64,
        sums: &Sums,
        to: &mut Pieces<'_, Sink>,
    ) -> io::Result<u64> {
        let start = to.position();
        to.fill_from(&segment.data, offset, len)?;
        to.rewind(start);
        let mut copy = NOTHING;
        for block in offset / BLOCK..(offset + len) / BLOCK {
            let before = to.position();
            to.take(&mut copy);
            if sum(&copy) != sums.get(block) {
                self.load_locked(segment, block, &mut copy)?;
                to.rewind(before);
                to.put(&copy);
            }
        }
        Ok(len)
    }

    /// Reads a part of one block.
    fn read_within(
        &self,
        segment: &Segment,
        at: u64,
        end: u64,
        sums: &Sums,
        to: &mut Pieces<'_, Sink>,
    ) -> io::Result<u64> {
        let (block, within) = (at / BLOCK, (at % BLOCK) as usize);
        let len = (end - at).min(BLOCK - at % BLOCK);
        let mut copy = NOTHING;
        read_at(&segment.data, &mut copy, block * BLOCK)?;
        if sum(&copy) != sums.get(block) {
            self.load_locked(segment, block, &mut copy)?;
        }
        match to.put(&copy[within..within + len as usize]) {
            true => Ok(len),
            false => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Reads a block and verifies it.
    pub(super) fn load_locked(&self, segment: &Segment, block: u64, copy: &mut [u8]) -> io::Result<()> {
        let load = |segment: &Segment, copy: &mut [u8]| {
            let _lock = self.stripes.lock(segment.index, block * BLOCK);
            self.load(segment, block, copy)
        };
        match load(segment, copy) {
            Err(e) if is_not_own(&e) => {}
            loaded => return loaded,
        }
        let _changes = shared(&self.changes);
        match self.segment_to_change(segment.index, false)? {
            Some(own) => load(&own, copy),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Reads a block and verifies it; its lock is held. An error that [`is_not_own`] knows says that its sum is to be made
    /// right, and in another file.
    pub(super) fn load(&self, segment: &Segment, block: u64, copy: &mut [u8]) -> io::Result<()> {
        read_at(&segment.data, copy, block * BLOCK)?;
        let Some(file) = segment.complete_sums() else { return Ok(()) };
        let mut sums = Sums::of(block * BLOCK, BLOCK);
        sums.read(file)?;
        if sum(copy) == sums.get(block) {
            return Ok(());
        }
        let at = self.start_of(segment) + block * BLOCK;
        if !self.areas.is_suspect(at..at + BLOCK) {
            return Err(self.found_corrupt(at));
        }
        if !self.read_only && (segment.is_shared() || !self.is_current(segment)) {
            return Err(not_own());
        }
        self.mended.fetch_add(1, SeqCst);
        if !self.read_only {
            sums.set_all(copy);
            segment.soil();
            file.write_all_at(sums.bytes(), sums.place())?;
        }
        Ok(())
    }

    fn found_corrupt(&self, offset: u64) -> io::Error {
        self.corrupt.fetch_add(1, SeqCst);
        tracing::error!(volume = %self.dir.display(), offset, "a block is not what was written");
        io::Error::new(io::ErrorKind::InvalidData, Corrupt { offset })
    }

    /// Writes a part of a segment.
    pub(super) fn write_part(
        &self,
        segment: &Segment,
        part: &Part,
        from: &mut Pieces<'_, Source>,
    ) -> io::Result<()> {
        chunks(part.offset, part.len).try_for_each(|(offset, len)| {
            let blocks = blocks_of(offset, len);
            with_private((blocks.end - blocks.start) as usize, |bytes| {
                let within = (offset - blocks.start) as usize;
                match from.take(&mut bytes[within..within + len as usize]) {
                    true => self.write_chunk(segment, offset, len, bytes),
                    false => Err(io::ErrorKind::InvalidInput.into()),
                }
            })
        })
    }

    /// Writes a part of a chunk; `bytes` are the blocks it touches, where only what is to be written is filled in.
    fn write_chunk(&self, segment: &Segment, offset: u64, len: u64, bytes: &mut [u8]) -> io::Result<()> {
        let _lock = self.stripes.lock(segment.index, offset);
        segment.soil();
        let within = (offset % BLOCK) as usize;
        let written = within..within + len as usize;
        let Some(file) = segment.sums() else {
            return segment.data.write_all_at(&bytes[written], offset);
        };
        self.fill_edges(segment, offset, len, bytes)?;
        let mut sums = Sums::of(offset, len);
        sums.set_all(bytes);
        let turn = segment.turn(len);
        let stored = segment.data.write_all_at(&bytes[written], offset);
        drop(turn);
        let stored = stored.and_then(|()| file.write_all_at(sums.bytes(), sums.place()));
        stored.inspect_err(|_| self.doubt(segment, offset, len))
    }

    /// Fills in what blocks hold beside a range of them that is about to be written; their locks are held.
    fn fill_edges(&self, segment: &Segment, offset: u64, len: u64, bytes: &mut [u8]) -> io::Result<()> {
        let (blocks, end) = (blocks_of(offset, len), offset + len);
        let (head, tail) = ((offset - blocks.start) as usize, (end - blocks.start) as usize);
        let mut whole = NOTHING;
        if head > 0 {
            self.load(segment, offset / BLOCK, &mut whole)?;
            bytes[..head].copy_from_slice(&whole[..head]);
        }
        if tail == bytes.len() {
            return Ok(());
        }
        // What a volume has beyond its end was never written.
        let loaded = head > 0 && bytes.len() == whole.len();
        match (end == self.end_of(segment), loaded) {
            (true, _) => whole = NOTHING,
            (false, true) => {}
            (false, false) => self.load(segment, end / BLOCK, &mut whole)?,
        }
        bytes[tail..].copy_from_slice(&whole[(end % BLOCK) as usize..]);
        Ok(())
    }

    /// Data and sums of this range may have been parted.
    fn doubt(&self, segment: &Segment, offset: u64, len: u64) {
        let (blocks, start) = (blocks_of(offset, len), self.start_of(segment));
        self.areas.doubt(&(start + blocks.start..start + blocks.end));
    }

    /// Makes a part of a segment read as zeroes.
    pub(super) fn zero_part(&self, segment: &Segment, part: &Part, how: Zeroing) -> io::Result<()> {
        let Part { offset, len, .. } = *part;
        let _locks = self.stripes.lock_range(segment.index, offset, len);
        segment.soil();
        let Some(file) = segment.sums() else { return zero_data(&segment.data, offset, len, how).map(drop) };
        let (first, last) = (offset / BLOCK, (offset + len - 1) / BLOCK);
        let end = match offset + len == self.end_of(segment) {
            true => (last + 1) * BLOCK, // What a volume has beyond its end is zeroes.
            false => offset + len,
        };
        // The sums of the blocks at both ends, which keep some of what they hold.
        let mut edges = [None, None];
        for (edge, block) in edges.iter_mut().zip([first, last]) {
            let (start, end) = (offset.max(block * BLOCK), end.min((block + 1) * BLOCK));
            if end - start < BLOCK {
                let mut copy = NOTHING;
                self.load(segment, block, &mut copy)?;
                copy[(start - block * BLOCK) as usize..(end - block * BLOCK) as usize].fill(0);
                *edge = Some((block, sum(&copy)));
            }
        }
        let zeroed = zero_data(&segment.data, offset, len, how).and_then(|done| {
            if !done {
                return Ok(());
            }
            let whole = first + u64::from(edges[0].is_some())..last + u64::from(edges[1].is_none());
            zero_sums(file, whole)?;
            edges
                .iter()
                .flatten()
                .try_for_each(|(block, sum)| file.write_all_at(&sum.to_le_bytes(), block * SUM))
        });
        zeroed.inspect_err(|_| self.doubt(segment, offset, len))
    }

    /// Whether nothing is stored in a part of a segment.
    pub(super) fn is_empty_part(&self, segment: &Segment, part: &Part) -> io::Result<bool> {
        if !fsio::is_hole(&segment.data, part.offset, part.len)? {
            return Ok(false);
        }
        let Some(file) = segment.complete_sums() else { return Ok(true) };
        for (offset, len) in chunks(part.offset, part.len) {
            let mut sums = Sums::of(offset, len);
            sums.read(file)?;
            if sums.bytes().iter().any(|b| *b != 0) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Looks at every block of a region; what is suspect there has its sum made right.
    pub(super) fn look_at(&self, region: u64) -> io::Result<()> {
        let start = region * REGION;
        let len = REGION.min(self.size().saturating_sub(start));
        let mut copy = NOTHING;
        for part in self.parts(start, len)? {
            let Some(segment) = self.segment(part.segment, false)? else { continue };
            for (offset, len) in chunks(part.offset, part.len) {
                let chunk = Part { segment: part.segment, offset, len };
                if self.is_empty_part(&segment, &chunk)? {
                    continue;
                }
                let blocks = blocks_of(offset, len);
                for block in blocks.start / BLOCK..blocks.end / BLOCK {
                    self.load_locked(&segment, block, &mut copy)?;
                }
            }
        }
        Ok(())
    }
}

/// Makes a range of data zeroes; false if it was left as it is.
fn zero_data(data: &File, offset: u64, len: u64, how: Zeroing) -> io::Result<bool> {
    let done = match how {
        Zeroing::Discard => return fsio::punch_hole(data, offset, len),
        Zeroing::Unmap => fsio::punch_hole(data, offset, len)?,
        Zeroing::Keep => fsio::zero_range(data, offset, len)?,
    };
    if !done {
        store_zeroes(data, offset, len)?;
    }
    Ok(true)
}

/// Makes the sums of these blocks those of zeroes.
fn zero_sums(file: &File, blocks: Range<u64>) -> io::Result<()> {
    if blocks.is_empty() {
        return Ok(());
    }
    let (at, len) = (blocks.start * SUM, (blocks.end - blocks.start) * SUM);
    if fsio::is_hole(file, at, len)? || (len >= PUNCHED_MIN && fsio::punch_hole(file, at, len)?) {
        return Ok(());
    }
    store_zeroes(file, at, len)
}

fn store_zeroes(file: &File, mut offset: u64, mut len: u64) -> io::Result<()> {
    while len > 0 {
        let n = len.min(ZEROES.len() as u64);
        file.write_all_at(&ZEROES[..n as usize], offset)?;
        (offset, len) = (offset + n, len - n);
    }
    Ok(())
}

/// The bytes of the blocks that a range touches.
pub fn blocks_of(offset: u64, len: u64) -> Range<u64> {
    offset / BLOCK * BLOCK..(offset + len).next_multiple_of(BLOCK)
}

/// A range of a segment in pieces that lie in one chunk each.
pub fn chunks(mut offset: u64, mut len: u64) -> impl Iterator<Item = (u64, u64)> {
    std::iter::from_fn(move || {
        let now = len.min(CHUNK - offset % CHUNK);
        let piece = (offset, now);
        (offset, len) = (offset + now, len - now);
        (now > 0).then_some(piece)
    })
}
