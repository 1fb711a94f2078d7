//! AES-256 in XTS mode (IEEE 1619) over sectors of 512 bytes, numbered from the volume's beginning: what Linux calls
//! `aes-xts-plain64`. Pure; it changes the bytes it is given and nothing else.
//!
//! A sector of zeroes on the disk stands for a sector of zeroes: nothing was written there, or it was discarded. What is
//! written never looks so but with a probability of 2 to the power of -4096. So who has a disk sees which ranges a volume
//! uses, and no more.

use std::fmt;

use aes::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit, consts::U16};
use aes::{Aes256, Block};

use crate::format::SECTOR;

/// Bytes of a key: one half for the content, the other for the places.
pub const KEY_BYTES: usize = 64;
/// Blocks of the cipher in a sector.
const BLOCKS: usize = SECTOR as usize / 16;

/// A key ready for use.
pub struct Cipher {
    content: Aes256,
    place: Aes256,
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher")
    }
}

impl Cipher {
    /// With this key.
    pub fn new(key: &[u8; KEY_BYTES]) -> Cipher {
        let (content, place) = key.split_at(KEY_BYTES / 2);
        let half = |bytes: &[u8]| {
            let mut half = Array::default();
            half.copy_from_slice(bytes);
            Aes256::new(&half)
        };
        Cipher { content: half(content), place: half(place) }
    }

    /// Encrypts whole sectors, the first of which has this number.
    pub fn encrypt(&self, first: u64, sectors: &mut [u8]) {
        for (number, sector) in (first..).zip(sectors.chunks_exact_mut(SECTOR as usize)) {
            let (blocks, _) = Array::<u8, U16>::slice_as_chunks_mut(sector);
            self.masked(number, blocks, |blocks| self.content.encrypt_blocks(blocks));
        }
    }

    /// Decrypts whole sectors, the first of which has this number.
    pub fn decrypt(&self, first: u64, sectors: &mut [u8]) {
        for (number, sector) in (first..).zip(sectors.chunks_exact_mut(SECTOR as usize)) {
            if is_zero(sector) {
                continue;
            }
            let (blocks, _) = Array::<u8, U16>::slice_as_chunks_mut(sector);
            self.masked(number, blocks, |blocks| self.content.decrypt_blocks(blocks));
        }
    }

    /// Does `f` to blocks under the masks of their places.
    fn masked(&self, sector: u64, blocks: &mut [Block], f: impl FnOnce(&mut [Block])) {
        let masks = self.masks(sector);
        mask(blocks, &masks);
        f(blocks);
        mask(blocks, &masks);
    }

    fn masks(&self, sector: u64) -> [u128; BLOCKS] {
        let mut first = Array(u128::from(sector).to_le_bytes());
        self.place.encrypt_block(&mut first);
        let mut mask = u128::from_le_bytes(first.0);
        std::array::from_fn(|_| {
            let now = mask;
            // Times x in the field of 2^128, without a branch on what is secret.
            mask = (mask << 1) ^ (0x87 & 0u128.wrapping_sub(mask >> 127));
            now
        })
    }
}

fn mask(blocks: &mut [Block], masks: &[u128; BLOCKS]) {
    for (block, mask) in blocks.iter_mut().zip(masks) {
        block.0 = (u128::from_le_bytes(block.0) ^ mask).to_le_bytes();
    }
}

/// Whether all bytes are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|w| u128::from_ne_bytes(*w) == 0) && rest.iter().all(|b| *b == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vector 10 of IEEE 1619-2007, annex B: XTS-AES-256, a data unit of 512 bytes with the number 0xff.
    #[test]
    fn the_cipher_is_that_of_the_standard() {
        let key = hex::decode(concat!(
            "2718281828459045235360287471352662497757247093699959574966967627",
            "3141592653589793238462643383279502884197169399375105820974944592"
        ))
        .unwrap();
        let cipher = Cipher::new(&key.try_into().unwrap());
        let mut sector: Vec<u8> = (0..512).map(|n| n as u8).collect();
        let plain = sector.clone();
        cipher.encrypt(0xff, &mut sector);
        assert_eq!(
            hex::encode(&sector[..64]),
            concat!(
                "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b",
                "5d31e276f8fe4a8d66b317f9ac683f44680a86ac35adfc3345befecb4bb188fd"
            )
        );
        assert_eq!(
            hex::encode(&sector[480..]),
            "773dad38014bd2092fa755c824bb5e54c4f36ffda9fcea70b9c6e693e148c151"
        );
        cipher.decrypt(0xff, &mut sector);
        assert_eq!(sector, plain);
    }

    #[test]
    fn each_sector_has_its_own_mask_and_zeroes_stay() {
        let cipher = Cipher::new(&[7; KEY_BYTES]);
        let mut two = vec![9; 1024];
        cipher.encrypt(3, &mut two);
        assert_ne!(two[..512], two[512..]);
        let mut second = two.split_off(512);
        cipher.decrypt(4, &mut second);
        assert_eq!(second, [9; 512]);
        let mut hole = vec![0; 512];
        cipher.decrypt(5, &mut hole);
        assert_eq!(hole, [0; 512]);
        cipher.encrypt(5, &mut hole);
        assert!(!is_zero(&hole), "zeroes that are written look like anything else");
        cipher.decrypt(5, &mut hole);
        assert!(is_zero(&hole));
    }
}
