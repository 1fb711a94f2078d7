//! Reads that wait for a disk, for threads that have it done elsewhere: where the bytes lie, and whether what came is
//! what was written.

use std::fs::File;
use std::sync::Arc;

use super::segment::Segment;
use super::sums::{CHUNK, Sums, sum};
use super::{Part, Slot, Volume};
use crate::format::BLOCK;

/// A range of whole blocks that lies in one file.
pub struct Cold {
    segment: Arc<Segment>,
    offset: u64,
    len: u64,
}

impl Volume {
    /// Where a range lies, if it is one that can be read so: whole blocks, 256 KiB of a segment at most.
    ///
    /// Of a volume that may get other replicas the caller holds [`Volume::use_alone`]; what is read after it was let go
    /// is as if it had been read before.
    pub fn cold(&self, offset: u64, len: u64) -> Option<Cold> {
        let whole = offset.is_multiple_of(BLOCK) && len.is_multiple_of(BLOCK) && (1..=CHUNK).contains(&len);
        let part = self.parts(offset, len).ok()?.next().filter(|part| whole && is_one_chunk(part, len))?;
        match self.known(part.segment) {
            Slot::Open(segment) => Some(Cold { segment, offset: part.offset, len }),
            Slot::Absent | Slot::Unknown => None,
        }
    }
}

impl Cold {
    /// The file.
    pub fn file(&self) -> &File {
        &self.segment.data
    }

    /// Where in it, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How many bytes.
    pub fn bytes(&self) -> usize {
        self.len as usize
    }

    /// Whether these are the bytes that were written there. False also while one of them is being changed, and if the sums
    /// are not at hand: [`Volume::read`] knows more. It waits for nothing.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        let Some(file) = self.segment.complete_sums() else { return true };
        let mut sums = Sums::of(self.offset, self.len);
        let first = self.offset / BLOCK;
        bytes.len() == self.bytes()
            && sums.read_cached(file).unwrap_or(false)
            && (first..).zip(bytes.chunks_exact(BLOCK as usize)).all(|(n, block)| sum(block) == sums.get(n))
    }
}

fn is_one_chunk(part: &Part, len: u64) -> bool {
    part.len == len && part.offset / CHUNK == (part.offset + len - 1) / CHUNK
}
