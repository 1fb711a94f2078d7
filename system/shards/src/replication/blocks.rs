//! What a region holds, block by block, so that of one that differs only those blocks are sent that do. Pure.
//!
//! A block is told by 128 bits of SHA-256, under a key that the writer draws for each comparison: a guest that knows two
//! contents of one digest, made to have one replica pass for the other, does not know the key. Zeroes are told as such,
//! since nothing is stored for them, and what a replica holds otherwise than it was written is like nothing else. Of a
//! volume under a key all of this is ciphertext, which is the same on each replica.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::regions::REGION;
use crate::format::BLOCK;

/// Blocks of a region.
pub const BLOCKS: u64 = REGION / BLOCK;

/// What makes the digests of one comparison others than those of any other.
pub type Key = [u8; 16];
/// The digest of a block, or of what many blocks are.
pub type Sum = [u8; 16];

/// What a block is. It crosses the wire between releases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Block {
    /// It reads as zeroes.
    Zeroes,
    /// It is not what was written.
    Corrupt,
    /// Anything else; its digest, or zeroes if none was asked for.
    Holds(Sum),
}

/// What a replica is asked of a region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The region.
    pub region: u64,
    /// The key of the digests; without, it is enough to tell which blocks are zeroes.
    pub key: Option<Key>,
    /// What the asker has there, see [`sum_of`]: a replica that has the same says no more.
    pub known: Option<Sum>,
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Found {
    /// Nothing is stored there: all reads as zeroes.
    Nothing,
    /// What the asker has.
    Same,
    /// These blocks, in order; what the volume does not have ends early.
    Blocks(Vec<Block>),
}

impl Question {
    /// The answer of a replica that has these blocks.
    pub fn answer(&self, blocks: Vec<Block>) -> Found {
        let asked = self.key.zip(self.known);
        match asked.is_some_and(|(key, known)| known == sum_of(&key, &blocks)) {
            true => Found::Same,
            false => Found::Blocks(blocks),
        }
    }
}

/// Blocks that one replica lacks and another has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Their numbers in the region.
    pub blocks: Range<u64>,
    /// Whether they shall be zeroes.
    pub zeroes: bool,
}

impl Piece {
    /// Where they are in a region of so many bytes, in bytes of it.
    pub fn bytes(&self, len: u64) -> Range<u64> {
        self.blocks.start * BLOCK..(self.blocks.end * BLOCK).min(len)
    }
}

/// What bytes are that begin with a block.
pub fn blocks_of(key: Option<&Key>, bytes: &[u8]) -> Vec<Block> {
    bytes.chunks(BLOCK as usize).map(|block| block_of(key, block)).collect()
}

fn block_of(key: Option<&Key>, block: &[u8]) -> Block {
    let digest_under = |key: &Key| digest(Sha256::new().chain_update(key).chain_update(block));
    match block.iter().all(|byte| *byte == 0) {
        true => Block::Zeroes,
        false => Block::Holds(key.map_or([0; 16], digest_under)),
    }
}

/// What so many blocks are, in one number.
pub fn sum_of(key: &Key, blocks: &[Block]) -> Sum {
    let each = |hash: Sha256, block: &Block| match block {
        Block::Zeroes => hash.chain_update([0]),
        Block::Corrupt => hash.chain_update([1]),
        Block::Holds(sum) => hash.chain_update([2]).chain_update(sum),
    };
    digest(blocks.iter().fold(Sha256::new().chain_update(key), each))
}

fn digest(hash: Sha256) -> Sum {
    let whole: [u8; 32] = hash.finalize().into();
    std::array::from_fn(|at| whole[at])
}

/// What one that has `found` lacks of `wanted`, in order; neighbours are one piece. What is not there reads as zeroes.
pub fn lacking(wanted: &[Block], found: &[Block]) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for (number, block) in (0u64..).zip(wanted) {
        let there = found.get(number as usize).unwrap_or(&Block::Zeroes);
        if there == block && *block != Block::Corrupt {
            continue;
        }
        let zeroes = *block == Block::Zeroes;
        match pieces.last_mut() {
            Some(last) if last.blocks.end == number && last.zeroes == zeroes => last.blocks.end += 1,
            _ => pieces.push(Piece { blocks: number..number + 1, zeroes }),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = [7; 16];

    fn piece(blocks: Range<u64>, zeroes: bool) -> Piece {
        Piece { blocks, zeroes }
    }

    #[test]
    fn what_differs_is_found_and_neighbours_are_one_piece() {
        let mut there = vec![1u8; 8 * BLOCK as usize];
        let mut here = there.clone();
        for block in [1, 2, 3, 6] {
            here[block * BLOCK as usize + 4095] ^= 0x80;
        }
        here[3 * BLOCK as usize..4 * BLOCK as usize].fill(0);
        there[7 * BLOCK as usize..].fill(0);
        here[7 * BLOCK as usize..].fill(0);
        let (wanted, found) = (blocks_of(Some(&KEY), &here), blocks_of(Some(&KEY), &there));
        let expected = [piece(1..3, false), piece(3..4, true), piece(6..7, false)];
        assert_eq!(lacking(&wanted, &found), expected);
        assert_eq!(lacking(&wanted, &wanted), []);
        // What a replica has not is zeroes, and what it holds wrongly is sent.
        assert_eq!(lacking(&wanted[..2], &[]), [piece(0..2, false)]);
        assert_eq!(lacking(&wanted[3..4], &[]), []);
        assert_eq!(lacking(&wanted[3..5], &[Block::Corrupt, Block::Corrupt]).len(), 2);
        assert_eq!(piece(254..256, true).bytes(REGION - 512), 254 * BLOCK..REGION - 512);
    }

    #[test]
    fn digests_are_of_their_comparison_and_of_the_whole_block() {
        let block = [3; BLOCK as usize];
        assert_eq!(block_of(Some(&KEY), &block), block_of(Some(&KEY), &block));
        assert_ne!(block_of(Some(&KEY), &block), block_of(Some(&[8; 16]), &block));
        assert_ne!(
            block_of(Some(&KEY), &block[..512]),
            block_of(Some(&KEY), &block),
            "a volume may end within one"
        );
        // SHA-256 of sixteen sevens and the block, by another program.
        let Block::Holds(sum) = block_of(Some(&KEY), &block) else { panic!("it holds something") };
        assert_eq!(hex::encode(sum), "f2ef72de7bda1d2b1c5a1a6c67f84198");
    }

    #[test]
    fn one_that_has_the_same_says_no_more() {
        let blocks = vec![Block::Zeroes, Block::Holds([1; 16])];
        let known = Some(sum_of(&KEY, &blocks));
        let question = Question { region: 0, key: Some(KEY), known };
        assert_eq!(question.answer(blocks.clone()), Found::Same);
        let other = vec![Block::Holds([1; 16]), Block::Zeroes];
        assert_eq!(question.answer(other.clone()), Found::Blocks(other));
        let unknown = Question { known: None, ..question };
        assert_eq!(unknown.answer(blocks.clone()), Found::Blocks(blocks));
    }
}
