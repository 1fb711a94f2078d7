//! How a region is copied, each step at a moment of its own: what the source holds is told, compared with what the target
//! does, read, and stored piece by piece. As in a group, nothing but the writer's lock on the region holds these together.

use cairn_shards::replication::blocks::{Block, Piece, lacking};
use cairn_shards::replication::op::Failure;
use cairn_shards::replication::regions::REGION;
use cairn_shards::replication::writer::CopyFailure;

use crate::BLOCK;
use crate::disk::Content;
use crate::world::{Event, World};

/// A copy, each end with the session of its connection.
#[derive(Clone)]
pub struct Copy {
    pub from: (String, u64),
    pub to: (String, u64),
    pub region: u64,
    pub seq: u64,
    pub witnesses: Vec<String>,
}

impl World {
    pub fn copy(&mut self, event: Event) {
        match event {
            Event::Read { writer, copy } => {
                if !self.serves(writer, &copy.from) {
                    return self.failed(writer, CopyFailure::Source);
                }
                let source = copy.from.0.clone();
                self.mend(writer, &source, copy.region, &copy.witnesses);
                let wanted = self.disks[&source].blocks(copy.region);
                match wanted.contains(&Block::Corrupt) {
                    true => self.failed(writer, CopyFailure::Corrupt),
                    false => self.soon(Event::Compare { writer, copy, wanted }),
                }
            }
            Event::Compare { writer, copy, wanted } => {
                if !self.serves(writer, &copy.to) {
                    return self.failed(writer, CopyFailure::Target);
                }
                let pieces = self.lacking(&copy, &wanted);
                match pieces.is_empty() {
                    true => self.soon(Event::Copied { writer, result: Ok(()) }),
                    false => self.soon(Event::Fetch { writer, copy, pieces }),
                }
            }
            Event::Fetch { writer, copy, pieces } => self.fetch(writer, copy, &pieces),
            Event::Store { writer, copy, content } => {
                let (node, session) = &copy.to;
                let result = match self.reaches(writer, node) {
                    true => self.disks.get_mut(node).unwrap().store(*session, copy.seq, &content),
                    false => Err(Failure::Fenced),
                };
                self.soon(Event::Stored { writer, copy, result });
            }
            Event::Stored { writer, copy, result } => self.stored(writer, &copy, &result),
            Event::Copied { writer, result } => self.tell(writer, |w| w.copied(result)),
            _ => {}
        }
    }

    /// What the target of a copy lacks; all that differs if one end is of a release that does not tell blocks.
    fn lacking(&mut self, copy: &Copy, wanted: &[Block]) -> Vec<Piece> {
        let target = &self.disks[&copy.to.0];
        let found = target.blocks(copy.region);
        let pieces = lacking(wanted, &found);
        self.guest.told.copied += u64::from(!pieces.is_empty());
        // The source may be in another node by now: nothing is read from it then.
        let is_coarse = self.disks.get(&copy.from.0).is_some_and(|source| source.is_coarse);
        if !(is_coarse || target.is_coarse) {
            let differ: u64 = pieces.iter().map(|p| p.blocks.end - p.blocks.start).sum();
            self.guest.told.spared += u64::from(differ > 0 && differ < wanted.len() as u64);
            return pieces;
        }
        let zeroes = wanted.iter().all(|block| *block == Block::Zeroes);
        let whole = Piece { blocks: 0..wanted.len() as u64, zeroes };
        if pieces.is_empty() { Vec::new() } else { vec![whole] }
    }

    /// Reads what the target lacks, and sends all of it.
    fn fetch(&mut self, writer: usize, copy: Copy, pieces: &[Piece]) {
        if !self.serves(writer, &copy.from) {
            return self.failed(writer, CopyFailure::Source);
        }
        let source = &self.disks[&copy.from.0];
        let mut steps: Vec<Content> = Vec::new();
        for piece in pieces {
            let places = piece.blocks.clone().map(|block| copy.region * REGION + block * BLOCK);
            if !piece.zeroes && places.clone().any(|at| source.corrupt.contains(&at)) {
                return self.failed(writer, CopyFailure::Corrupt);
            }
            let view = source.view();
            let version = |at: u64| if piece.zeroes { 0 } else { view.get(&at).copied().unwrap_or(0) };
            steps.push(places.map(|at| (at, version(at))).collect());
        }
        self.writers[writer].copying = Some((copy.clone(), steps.len()));
        for content in steps {
            let copy = copy.clone();
            self.in_order(writer, copy.to.0.clone(), Event::Store { writer, copy, content });
        }
    }

    fn stored(&mut self, writer: usize, copy: &Copy, result: &Result<(), Failure>) {
        // Nobody may wait any more; steps that are still on their way reach the replica all the same.
        let Some((_, left)) = self.writers[writer].copying.as_mut().filter(|(c, _)| c.seq == copy.seq) else {
            return;
        };
        *left -= 1;
        match (result, *left) {
            (Ok(()), 0) => {
                self.writers[writer].copying = None;
                self.tell(writer, |w| w.copied(Ok(())));
            }
            (Ok(()), _) => {}
            (Err(_), _) => {
                self.writers[writer].copying = None;
                self.tell(writer, |w| w.copied(Err(CopyFailure::Target)));
            }
        }
    }

    /// A connection has ended: what was sent on it is not waited for.
    pub fn give_up(&mut self, writer: usize, node: &str) {
        if self.writers[writer].copying.take_if(|(copy, _)| copy.to.0 == node).is_some() {
            self.soon(Event::Copied { writer, result: Err(CopyFailure::Target) });
        }
    }

    fn failed(&mut self, writer: usize, why: CopyFailure) {
        self.soon(Event::Copied { writer, result: Err(why) });
    }

    fn serves(&self, writer: usize, (node, session): &(String, u64)) -> bool {
        self.reaches(writer, node) && self.disks[node].session == *session
    }

    /// A block that is suspect is got from a witness that has it whole, or taken as it is: that must only be where no
    /// replica is known to have what was acknowledged.
    fn mend(&mut self, writer: usize, source: &str, region: u64, witnesses: &[String]) {
        for at in self.disks[source].torn(region) {
            let whole = |n: &String| self.reaches(writer, n) && !self.disks[n].corrupt.contains(&at);
            let witness = witnesses.iter().find(|n| whole(n));
            self.guest.told.taken += u64::from(witness.is_none());
            self.guest.told.mended += u64::from(witness.is_some());
            let version = witness.map(|n| self.disks[n].view().get(&at).copied().unwrap_or(0));
            self.disks.get_mut(source).unwrap().mend(at, version);
        }
    }
}
