//! What the sum of a block is, and how sums lie in their files. Pure but for the reading of whole files.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;

use crc_fast::{CrcAlgorithm, checksum};

use crate::format::{BLOCK, SUM};
use crate::sys;

/// The most bytes that are read, verified, summed and written at a time: they stay in the processor's cache.
pub const CHUNK: u64 = 256 << 10;
/// Bytes of the sums of a chunk.
const SUMS: usize = (CHUNK / BLOCK * SUM) as usize;
/// A block that was never written.
pub static NOTHING: [u8; BLOCK as usize] = [0; BLOCK as usize];

/// What the checksum of zeroes is taken for 0 by, so that holes in data and sums agree.
static OF_NOTHING: LazyLock<u32> = LazyLock::new(|| crc(&NOTHING));

/// CRC-32C.
pub(crate) fn crc(block: &[u8]) -> u32 {
    checksum(CrcAlgorithm::Crc32Iscsi, block) as u32
}

/// The sum of a block.
pub fn sum(block: &[u8]) -> u32 {
    crc(block) ^ *OF_NOTHING
}

/// The sums of the blocks that a part of a chunk touches.
pub struct Sums {
    first: u64,
    bytes: [u8; SUMS],
    len: usize,
}

impl Sums {
    /// Room for the sums of a range of a segment, which lies in one chunk.
    pub fn of(offset: u64, len: u64) -> Sums {
        let first = offset / BLOCK;
        let blocks = (offset + len).div_ceil(BLOCK) - first;
        Sums { first, bytes: [0; SUMS], len: (blocks * SUM) as usize }
    }

    /// Where they lie in their file.
    pub fn place(&self) -> u64 {
        self.first * SUM
    }

    /// Their bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Reads them.
    pub fn read(&mut self, file: &File) -> io::Result<()> {
        let place = self.place();
        read_at(file, &mut self.bytes[..self.len], place)
    }

    /// Reads them from the page cache; false if it lacks them.
    pub fn read_cached(&mut self, file: &File) -> io::Result<bool> {
        let place = self.place();
        sys::read_cached(file, &mut self.bytes[..self.len], place)
    }

    /// The sum of a block.
    pub fn get(&self, block: u64) -> u32 {
        let at = ((block - self.first) * SUM) as usize;
        self.bytes().get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// Takes the sums of these whole blocks.
    pub fn set_all(&mut self, blocks: &[u8]) {
        let places = self.bytes.chunks_exact_mut(SUM as usize);
        for (place, block) in places.zip(blocks.chunks_exact(BLOCK as usize)) {
            place.copy_from_slice(&sum(block).to_le_bytes());
        }
    }
}

/// Reads all of `bytes` at `offset` of a file; what it lacks is zeroes.
pub fn read_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.read_at(bytes, offset) {
            Ok(0) => {
                bytes.fill(0);
                return Ok(());
            }
            Ok(n) => (bytes, offset) = (&mut bytes[n..], offset + n as u64),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_of_zeroes_has_the_sum_zero_and_no_bit_is_like_another() {
        assert_eq!(sum(&NOTHING), 0);
        // CRC-32C of 4096 bytes of zeroes, and of the digits, by other programs.
        assert_eq!((*OF_NOTHING, crc(b"123456789")), (0x98f9_4189, 0xe306_9283));
        let mut block = NOTHING;
        let mut seen = std::collections::BTreeSet::from([0]);
        for bit in 0..BLOCK * 8 {
            block[(bit / 8) as usize] ^= 1 << (bit % 8);
            assert!(seen.insert(sum(&block)), "bit {bit}");
            block[(bit / 8) as usize] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn sums_are_where_their_blocks_are() {
        let mut sums = Sums::of(5 * BLOCK + 512, BLOCK);
        assert_eq!((sums.place(), sums.bytes().len()), (20, 8));
        let mut blocks = [0; 2 * BLOCK as usize];
        blocks[BLOCK as usize] = 7;
        sums.set_all(&blocks);
        assert_eq!((sums.get(5), sums.get(6)), (0, sum(&blocks[BLOCK as usize..])));
    }
}
