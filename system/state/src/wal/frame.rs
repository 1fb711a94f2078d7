//! A frame of the log, byte by byte. Pure.
//!
//! All numbers are little-endian. What a released [`VERSION`] means must never change.
//!
//! | at | what |
//! |---|---|
//! | 0 | `CRNL` |
//! | 4 | CRC-32C of all that follows, padding excluded (u32) |
//! | 8 | bytes after the head, padding excluded (u32) |
//! | 12 | version (u16), kind (u16) |
//! | 16 | the replica whose log it is (u64) |
//! | 24 | how often files were begun when this one was (u64) |
//! | 32 | the frame's number, one more than that of the one before it, in whichever file that is (u64) |
//! | 40 | the index of its first entry, or of the first entry that is taken away (u64) |
//! | 48 | for each entry its length (u32) and its bytes |
//!
//! It is padded with zeros to whole blocks: none that is on stable media is ever written again with others.

use crc_fast::{CrcAlgorithm, checksum};

/// Frames begin and end where blocks do: what a disk writes as one.
pub(crate) const BLOCK: usize = 4096;
/// The bytes before a frame's entries.
pub(crate) const HEAD: usize = 48;
/// The most bytes that a frame may have: an entry carries a transaction at most, and is never split.
pub(crate) const BYTES_MAX: usize = 64 << 20;

const MAGIC: &[u8; 4] = b"CRNL";
const VERSION: u16 = 1;

/// What a frame does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Adds entries, in the place of those that have their index or a higher one.
    Entries,
    /// Takes away the entries from an index on.
    Cut,
}

/// What stands before a frame's entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub kind: Kind,
    pub replica: u64,
    pub lap: u64,
    pub number: u64,
    pub first: u64,
    /// The bytes of the entries.
    pub length: usize,
}

/// Entries as a frame holds them.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub bytes: Vec<u8>,
    pub count: u64,
}

impl Rows {
    /// Adds an entry.
    pub(crate) fn push(&mut self, entry: &[u8]) {
        self.bytes.extend_from_slice(&(entry.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(entry);
        self.count += 1;
    }
}

/// The entries of a frame; nothing after one that cannot be.
pub(crate) fn rows(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (entry, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        bytes = rest;
        Some(entry)
    })
}

/// The bytes that a frame takes in a file.
pub(crate) fn padded(length: usize) -> usize {
    (HEAD + length).next_multiple_of(BLOCK)
}

impl Head {
    /// Makes a frame in `out` of what this says and these entries.
    pub(crate) fn write(&self, rows: &[u8], out: &mut Vec<u8>) {
        out.clear();
        out.reserve(padded(rows.len()));
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(rows.len() as u32).to_le_bytes());
        out.extend_from_slice(&VERSION.to_le_bytes());
        let kind: u16 = match self.kind {
            Kind::Entries => 0,
            Kind::Cut => 1,
        };
        out.extend_from_slice(&kind.to_le_bytes());
        for word in [self.replica, self.lap, self.number, self.first] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(rows);
        let crc = crc(&out[8..]);
        out[4..8].copy_from_slice(&crc);
        out.resize(padded(rows.len()), 0);
    }

    /// What a head says, whether or not what follows fits it; `None` if it is none.
    pub(crate) fn read(bytes: &[u8; HEAD]) -> Option<Head> {
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|n| bytes[at + n]));
        let length = word(8) as u32 as usize;
        let (version, kind) = (bytes[12..14] == VERSION.to_le_bytes(), word(12) as u32 >> 16);
        let kind = match kind {
            0 => Kind::Entries,
            1 => Kind::Cut,
            _ => return None,
        };
        let fits = bytes[..4] == MAGIC[..] && version && length <= BYTES_MAX;
        let [replica, lap, number, first] = [16, 24, 32, 40].map(word);
        fits.then_some(Head { kind, replica, lap, number, first, length })
    }

    /// The entries of the frame that begins with this head, if it is whole: `frame` is all of it, without padding.
    pub(crate) fn entries<'f>(&self, frame: &'f [u8]) -> Option<&'f [u8]> {
        (frame[4..8] == crc(&frame[8..])).then_some(&frame[HEAD..])
    }
}

fn crc(bytes: &[u8]) -> [u8; 4] {
    (checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version 1, byte by byte. If this fails, a released log can no longer be read.
    #[test]
    fn a_frame_is_laid_out_as_released() {
        let head = Head { kind: Kind::Entries, replica: 7, lap: 2, number: 3, first: 4, length: 7 };
        let mut rows = Rows::default();
        rows.push(b"abc");
        let mut frame = Vec::new();
        head.write(&rows.bytes, &mut frame);
        assert_eq!(frame.len(), BLOCK);
        assert_eq!(frame[..4], *b"CRNL");
        assert_eq!(frame[8..16], [7, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!([frame[16], frame[24], frame[32], frame[40]], [7, 2, 3, 4]);
        assert_eq!(frame[48..55], *b"\x03\0\0\0abc");
        assert!(frame[55..].iter().all(|b| *b == 0));
        // CRC-32C by the definition of RFC 3720, of what follows it.
        let mut crc = !0_u32;
        for byte in &frame[8..55] {
            crc ^= u32::from(*byte);
            (0..8).for_each(|_| crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()));
        }
        assert_eq!(frame[4..8], (!crc).to_le_bytes());
    }

    #[test]
    fn what_was_written_is_read_and_any_flipped_bit_is_seen() {
        let head = Head { kind: Kind::Cut, replica: u64::MAX, lap: 1, number: 9, first: 5, length: 9 };
        let mut frame = Vec::new();
        head.write(b"\x05\0\0\0hello", &mut frame);
        let whole = HEAD + 9;
        let read = |frame: &[u8]| {
            let head = Head::read(frame.first_chunk()?)?;
            let entries = head.entries(frame.get(..HEAD + head.length)?)?;
            Some((head, rows(entries).map(<[u8]>::to_vec).collect::<Vec<_>>()))
        };
        assert_eq!(read(&frame), Some((head, vec![b"hello".to_vec()])));
        for bit in 0..whole * 8 {
            let mut torn = frame.clone();
            torn[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&torn), None, "bit {bit}");
        }
    }
}
