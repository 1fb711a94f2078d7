//! What the guest writes: every sector says where it belongs and which write it is of, and is noise that follows from
//! the two. So each byte that is read is known, and a sector of another place or time is told from a corrupt one.

use crate::dice::scramble;

/// Bytes of what is stamped.
pub const SECTOR: usize = 512;
/// What a sector of ours begins with.
pub const MAGIC: [u8; 8] = *b"truth of";

/// What a sector was found to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// What a write of this number left there; 0 for zeroes.
    Write(u32),
    /// A whole sector of another place.
    Elsewhere { sector: u64, write: u32 },
    /// What nobody wrote.
    Corrupt,
}

/// Makes a sector what this write leaves there.
pub fn stamp(bytes: &mut [u8], sector: u64, write: u32) {
    if write == 0 {
        return bytes.fill(0);
    }
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..16].copy_from_slice(&sector.to_le_bytes());
    bytes[16..24].copy_from_slice(&u64::from(write).to_le_bytes());
    let seed = scramble(sector << 32 ^ u64::from(write));
    for (word, at) in bytes[24..].chunks_exact_mut(8).zip(1u64..) {
        word.copy_from_slice(&scramble(seed.wrapping_add(at << 17)).to_le_bytes());
    }
}

/// Looks what a sector holds.
pub fn look(bytes: &[u8], sector: u64) -> Found {
    if bytes.iter().all(|b| *b == 0) {
        return Found::Write(0);
    }
    let word = |at: usize| bytes[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
    let (place, Ok(write)) = (word(8), u32::try_from(word(16))) else { return Found::Corrupt };
    let mut whole = [0; SECTOR];
    stamp(&mut whole, place, write);
    match bytes == whole {
        false => Found::Corrupt,
        true if place == sector => Found::Write(write),
        true => Found::Elsewhere { sector: place, write },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sector_says_what_it_is() {
        let mut bytes = [0; SECTOR];
        assert_eq!(look(&bytes, 5), Found::Write(0));
        stamp(&mut bytes, 5, 9);
        assert_eq!(look(&bytes, 5), Found::Write(9));
        assert_eq!(look(&bytes, 6), Found::Elsewhere { sector: 5, write: 9 });
        for at in [0, 9, 17, 24, 511] {
            bytes[at] ^= 4;
            assert_eq!(look(&bytes, 5), Found::Corrupt);
            bytes[at] ^= 4;
        }
    }
}
