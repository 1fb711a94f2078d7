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

impl Lack {
    fn of(wanted: &[Block], found: &[Block]) -> Lack {
        Lack { pieces: lacking(wanted, found), nothing: wanted.iter().all(|block| *block == Block::Zeroes) }
    }
}

/// Compares a region, of so many bytes. `is_new`: the target may have nothing there. Where a release does not tell single
/// blocks, the region is one piece.
pub(super) fn compare(
    source: &dyn Link,
    target: &dyn Link,
    region: u64,
    len: u64,
    is_new: bool,
) -> Result<Lack, CopyFailure> {
    let count = len.div_ceil(BLOCK);
    if !source.may_tell_blocks() || !target.may_tell_blocks() {
        return compare_whole(source, target, region, count);
    }
    if is_new && let Some(lack) = compare_with_nothing(source, target, region, count)? {
        return Ok(lack);
    }
    let key = Uuid::new_v4().into_bytes();
    let question = Question { region, key: Some(key), known: None };
    let Some(wanted) = wanted(source, &question, count)? else {
        return compare_whole(source, target, region, count);
    };
    let question = Question { known: Some(sum_of(&key, &wanted)), ..question };
    match target.blocks(&question) {
        Ok(Some(Found::Same)) => Ok(Lack::of(&wanted, &wanted)),
        Ok(Some(Found::Nothing)) => Ok(Lack::of(&wanted, &[])),
        Ok(Some(Found::Blocks(found))) => Ok(Lack::of(&wanted, &found)),
        Ok(None) => compare_whole(source, target, region, count),
        Err(_) => Err(CopyFailure::Target),
    }
}

/// The same without digests, for a target that has nothing there; `None` if it has something.
fn compare_with_nothing(
    source: &dyn Link,
    target: &dyn Link,
    region: u64,
    count: u64,
) -> Result<Option<Lack>, CopyFailure> {
    let question = Question { region, key: None, known: None };
    match target.blocks(&question) {
        Ok(Some(Found::Nothing)) => {}
        Ok(_) => return Ok(None),
        Err(_) => return Err(CopyFailure::Target),
    }
    Ok(wanted(source, &question, count)?.map(|wanted| Lack::of(&wanted, &[])))
}

/// The blocks of the source, so many of them; `None` if it does not tell.
fn wanted(source: &dyn Link, question: &Question, count: u64) -> Result<Option<Vec<Block>>, CopyFailure> {
    let mut blocks = match source.blocks(question).map_err(|e| unread(&e))? {
        None => return Ok(None),
        Some(Found::Nothing) => vec![Block::Zeroes; count as usize],
        Some(Found::Blocks(blocks)) if blocks.len() as u64 >= count => blocks,
        Some(Found::Blocks(_) | Found::Same) => return Err(CopyFailure::Source),
    };
    // It may have grown already.
    blocks.truncate(count as usize);
    if blocks.contains(&Block::Corrupt) { Err(CopyFailure::Corrupt) } else { Ok(Some(blocks)) }
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
