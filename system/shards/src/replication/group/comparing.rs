//! What the target of a copy lacks in a region, as two replicas tell it.
//!
//! The writer lets nothing change the region meanwhile: what was on its way to either of the two has ended before, and
//! requests of guests wait until the copy has (`writer/serving.rs`). So what is compared first is what is read and stored
//! later, and no order of the three matters. If a connection ends in between, what is left of the copy is of a session
//! that the replica does not heed any more, and the region stays one that is missed.

use uuid::Uuid;

use crate::format::BLOCK;
use crate::replication::blocks::{BLOCKS, Block, Found, Piece, Question, lacking, sum_of};
use crate::replication::link::Link;
use crate::replication::op::Failure;
use crate::replication::regions::REGION;
use crate::replication::replica::ZEROES;
use crate::replication::writer::CopyFailure;

/// What is to be done about a region.
pub(super) struct Lack {
    /// What the target lacks.
    pub pieces: Vec<Piece>,
    /// Nothing is in the source's.
    pub nothing: bool,
}

/// Compares a region, of so many bytes. Where a release does not tell single blocks, it is one piece.
pub(super) fn compare(
    source: &dyn Link,
    target: &dyn Link,
    region: u64,
    len: u64,
) -> Result<Lack, CopyFailure> {
    let count = len.div_ceil(BLOCK);
    let mut question = Question { region, key: Uuid::new_v4().into_bytes(), known: None };
    let Some(found) = source.blocks(&question).map_err(|e| unread(&e))? else {
        return compare_whole(source, target, region, count);
    };
    let mut wanted = match found {
        Found::Nothing => vec![Block::Zeroes; count as usize],
        Found::Blocks(blocks) if blocks.len() as u64 >= count => blocks,
        Found::Blocks(_) | Found::Same => return Err(CopyFailure::Source),
    };
    // It may have grown already.
    wanted.truncate(count as usize);
    if wanted.contains(&Block::Corrupt) {
        return Err(CopyFailure::Corrupt);
    }
    question.known = Some(sum_of(&question.key, &wanted));
    let pieces = match target.blocks(&question) {
        Ok(Some(Found::Same)) => Vec::new(),
        Ok(Some(Found::Nothing)) => lacking(&wanted, &[]),
        Ok(Some(Found::Blocks(found))) => lacking(&wanted, &found),
        Ok(None) => return compare_whole(source, target, region, count),
        Err(_) => return Err(CopyFailure::Target),
    };
    Ok(Lack { pieces, nothing: wanted.iter().all(|block| *block == Block::Zeroes) })
}

/// The same by one digest of the whole region.
fn compare_whole(source: &dyn Link, target: &dyn Link, region: u64, count: u64) -> Result<Lack, CopyFailure> {
    const { assert!(BLOCKS * BLOCK == REGION) };
    let wanted = source.digest(region).map_err(|e| unread(&e))?;
    let alike = match target.digest(region) {
        Ok(found) => found == wanted,
        Err(Failure::Corrupt(_)) => false,
        Err(_) => return Err(CopyFailure::Target),
    };
    let nothing = wanted == ZEROES;
    let whole = Piece { blocks: 0..count, zeroes: nothing };
    Ok(Lack { pieces: if alike { Vec::new() } else { vec![whole] }, nothing })
}

/// How a copy failed whose source could not be read.
pub(super) fn unread(why: &Failure) -> CopyFailure {
    if matches!(why, Failure::Corrupt(_)) { CopyFailure::Corrupt } else { CopyFailure::Source }
}
