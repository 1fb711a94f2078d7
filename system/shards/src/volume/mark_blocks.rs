//! How marks lie in their file: in blocks of a sector, each with a sum of its own beside the bits it is of. So a mark is one
//! write, which a disk does or does not; what is neither is noticed, and its areas are taken for marked.
//!
//! Reads that file, and touches nothing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::sums::crc;
use crate::format;
use crate::fsio;
use crate::replication::regions::Marks;

/// Bytes of a block: what a disk writes as a whole.
pub const LEN: usize = 512;
/// Those before the bits: the sum of what follows, and the block's number.
const HEADER: usize = 8;
/// Areas of a block.
pub const AREAS: u64 = (LEN - HEADER) as u64 * 8;

/// What was found of a volume's marks.
#[derive(Default)]
pub struct Found {
    /// The areas that have marks, or may have.
    pub bits: Marks,
    /// Blocks that the file has.
    pub blocks: u64,
    /// Those of them that are not what was written.
    pub damaged: u64,
    /// There is a file of the form without sums.
    pub plain: bool,
}

/// Reads the marks of a volume with so many areas.
pub fn read(dir: &Path, areas: u64) -> io::Result<Found> {
    let mut found = Found::default();
    match fsio::read_small(&dir.join(format::AREAS)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        read => (found.bits, found.plain) = (Marks::from_bytes(&read?), true),
    }
    let file = match File::open(dir.join(format::MARKS)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(found),
        file => file?,
    };
    // Volumes do not get smaller: beyond is nothing of ours.
    found.blocks = file.metadata()?.len().div_ceil(LEN as u64).min(blocks_of(areas));
    for number in 0..found.blocks {
        let mut block = [0; LEN];
        let read = file.read_exact_at(&mut block, number * LEN as u64);
        let bits = read.ok().and_then(|()| decode(number, &block));
        let covered = number * AREAS..((number + 1) * AREAS).min(areas);
        match bits {
            Some(bits) => found.bits.extend(Marks::from_bytes(bits).iter().map(|bit| covered.start + bit)),
            None => {
                found.damaged += 1;
                found.bits.insert_range(covered);
            }
        }
    }
    Ok(found)
}

/// How many blocks so many areas take.
pub fn blocks_of(areas: u64) -> u64 {
    areas.div_ceil(AREAS)
}

/// A block, with the bits of its areas.
pub fn encode(number: u64, bits: &Marks) -> [u8; LEN] {
    let mut block = [0; LEN];
    block[4..HEADER].copy_from_slice(&(number as u32).to_le_bytes());
    for at in (0..AREAS).filter(|at| bits.contains(number * AREAS + at)) {
        block[HEADER + at as usize / 8] |= 1 << (at % 8);
    }
    let sum = crc(&block[4..]);
    block[..4].copy_from_slice(&sum.to_le_bytes());
    block
}

/// The whole file of a volume with so many areas.
pub fn encode_all(areas: u64, bits: &Marks) -> Vec<u8> {
    (0..blocks_of(areas)).flat_map(|number| encode(number, bits)).collect()
}

/// The bits of a block that is what was written there.
fn decode(number: u64, block: &[u8; LEN]) -> Option<&[u8]> {
    let (sum, rest) = block.split_first_chunk::<4>()?;
    let (of, bits) = rest.split_first_chunk::<4>()?;
    let matches = u32::from_le_bytes(*sum) == crc(rest) && u64::from(u32::from_le_bytes(*of)) == number;
    matches.then_some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three blocks, the last of them in part.
    const COUNT: u64 = 2 * AREAS + 100;

    fn marks(of: &[u64]) -> Marks {
        let mut marks = Marks::default();
        marks.extend(of.iter().copied());
        marks
    }

    fn read_back(dir: &Path, bytes: &[u8]) -> Found {
        std::fs::write(dir.join(format::MARKS), bytes).unwrap();
        read(dir, COUNT).unwrap()
    }

    #[test]
    fn marks_are_read_as_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let of = marks(&[0, 9, AREAS - 1, AREAS, 2 * AREAS, COUNT - 1]);
        let found = read_back(dir.path(), &encode_all(COUNT, &of));
        assert_eq!((found.bits, found.blocks, found.damaged), (of, 3, 0));
        // A volume that has grown since.
        let before = encode_all(AREAS, &marks(&[7]));
        let found = read_back(dir.path(), &before);
        assert_eq!((found.bits, found.blocks, found.damaged), (marks(&[7]), 1, 0));
    }

    #[test]
    fn each_bit_that_flips_is_noticed_and_hides_no_mark() {
        let dir = tempfile::tempdir().unwrap();
        let of = marks(&[3, AREAS + 5]);
        let whole = encode_all(COUNT, &of);
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let block = (bit / 8 / LEN) as u64;
            let bits = decode(block, bytes.as_chunks::<LEN>().0.get(block as usize).unwrap());
            assert_eq!(bits, None, "bit {bit}");
        }
        for block in 0..3 {
            let mut bytes = whole.clone();
            bytes[block * LEN + 100] ^= 1;
            let found = read_back(dir.path(), &bytes);
            let all = (block as u64 * AREAS..((block as u64 + 1) * AREAS).min(COUNT)).chain(of.iter());
            assert_eq!((found.bits, found.damaged), (marks(&all.collect::<Vec<_>>()), 1));
        }
    }

    #[test]
    fn a_write_that_was_torn_hides_no_mark() {
        let dir = tempfile::tempdir().unwrap();
        let (before, after) = (marks(&[1, AREAS + 1]), marks(&[1, 2, AREAS + 1, AREAS + 2, 2 * AREAS]));
        let (old, new) = (encode_all(COUNT, &before), encode_all(COUNT, &after));
        // Between sectors either was written, and before the whole was nothing was changed under its marks.
        for sectors in 0..=3 {
            let torn = [&new[..sectors * LEN], &old[sectors * LEN..]].concat();
            let found = read_back(dir.path(), &torn);
            assert_eq!(found.damaged, 0);
            assert!(before.iter().all(|area| found.bits.contains(area)));
        }
        // Within one, or zeroes, or one of another place: all of it is taken for marked.
        let within = [&new[..6], &old[6..]].concat();
        let lost = [&[0; LEN][..], &new[LEN..]].concat();
        let moved = [&new[LEN..2 * LEN], &new[LEN..]].concat();
        let short = new[..100].to_vec();
        for bytes in [within, lost, moved, short] {
            let found = read_back(dir.path(), &bytes);
            assert_eq!(found.damaged, 1);
            assert!((0..AREAS).all(|area| found.bits.contains(area)));
        }
    }
}
