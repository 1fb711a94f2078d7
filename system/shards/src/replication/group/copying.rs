//! How a group makes regions of replicas alike, at the pace that guests leave.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::comparing::{Lack, compare, unread};
use super::connections::Copier;
use super::{Group, Inner, guard};
use crate::replication::blocks::Piece;
use crate::replication::link::Link;
use crate::replication::op::{Failure, Op};
use crate::replication::regions::REGION;
use crate::replication::writer::{CopyFailure, Seq};

/// How long one region may take to be stored.
const COPY_MAX: Duration = Duration::from_secs(30);

/// What it took to make a region like another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copied {
    /// Next to nothing: both are empty.
    Nothing,
    /// It was read.
    Looked,
    /// So many bytes were sent; zeroes are made where they are.
    Moved(u64),
}

/// What it took to make replicas whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Bytes that were compared.
    pub compared: u64,
    /// Bytes of the blocks that differed and were sent, but for those of zeroes.
    pub moved: u64,
}

impl Rebuilt {
    fn add(&mut self, other: Rebuilt) {
        self.compared += other.compared;
        self.moved += other.moved;
    }
}

impl Group {
    /// What it took to make replicas whole, of those that are.
    pub fn rebuilt(&self) -> Rebuilt {
        *guard(&self.inner.rebuilt)
    }
}

impl Inner {
    /// Lets the writer rebuild what guests leave room for.
    pub(super) fn pace(self: &Arc<Inner>) {
        let wanted = guard(&self.state).writer.wants();
        let allowed = if wanted > 0 { self.means.pace.take(wanted) } else { 0 };
        if allowed > 0 {
            self.handle(false, |writer| writer.allow(allowed));
        }
    }

    /// Copies a region, and tells the writer.
    pub(super) fn make_alike(
        self: &Arc<Inner>,
        from: &str,
        to: &str,
        region: u64,
        seq: Seq,
        witnesses: &[String],
    ) {
        let whole = self.make_whole(from, region, seq, witnesses);
        let result = whole.and_then(|()| self.copy(from, to, region, seq));
        let nothing = result == Ok(Copied::Nothing);
        if let Ok(copied) = result {
            let moved = if let Copied::Moved(bytes) = copied { bytes } else { 0 };
            let one = Rebuilt { compared: REGION, moved };
            guard(&self.rebuilding).entry(to.to_owned()).or_default().add(one);
        }
        self.handle(true, |writer| writer.copied(result.map(drop)));
        if nothing {
            self.handle(true, |writer| writer.allow(1));
        }
    }

    /// What a crash left half-written at the source it gets from one of the witnesses, where that has it whole.
    fn make_whole(&self, from: &str, region: u64, seq: Seq, witnesses: &[String]) -> Result<(), CopyFailure> {
        if witnesses.is_empty() {
            return Ok(());
        }
        let source = self.link(from).ok_or(CopyFailure::Source)?;
        for range in source.torn(region).map_err(|e| unread(&e))? {
            let (offset, len) = (range.start, range.end.saturating_sub(range.start));
            let links = witnesses.iter().filter_map(|node| self.link(node));
            let whole = links.map(|link| link.read_matching(offset, len)).find_map(Result::ok);
            // Nobody has it whole: the source's is taken as it is.
            let Some(data) = whole.filter(|data| data.len() as u64 == len) else { continue };
            let op = Op::Write { offset, data };
            self.store(from, &*source, seq, vec![op]).map_err(|_| CopyFailure::Source)?;
        }
        Ok(())
    }

    /// Makes a region of one replica like that of another.
    fn copy(&self, from: &str, to: &str, region: u64, seq: Seq) -> Result<Copied, CopyFailure> {
        let size = guard(&self.state).writer.size();
        let (start, len) = (region * REGION, REGION.min(size.saturating_sub(region * REGION)));
        let source = self.link(from).ok_or(CopyFailure::Source)?;
        let target = self.link(to).ok_or(CopyFailure::Target)?;
        let Lack { pieces, nothing } = compare(&*source, &*target, region, len, self.is_new(to))?;
        if pieces.is_empty() {
            return Ok(if nothing { Copied::Nothing } else { Copied::Looked });
        }
        // All of it is read before any is sent: nothing is under way any more when the source fails.
        let read = |piece: &Piece| {
            let bytes = piece.bytes(len);
            let (offset, len) = (start + bytes.start, bytes.end - bytes.start);
            match piece.zeroes {
                true => Ok(Op::Zero { offset, len, unmap: true }),
                false => source.read(offset, len).map(|data| Op::Write { offset, data }),
            }
        };
        let steps: Result<Vec<Op>, Failure> = pieces.iter().map(read).collect();
        let steps = steps.map_err(|e| unread(&e))?;
        let bytes = |op: &Op| if let Op::Write { data, .. } = op { data.len() as u64 } else { 0 };
        let moved = steps.iter().map(bytes).sum();
        let stored = self.store(to, &*target, seq, steps);
        stored.map(|()| Copied::Moved(moved)).map_err(|_| CopyFailure::Target)
    }

    /// Does the steps of a copy, and waits for their end. One that fails ends the connection.
    fn store(&self, node: &str, link: &dyn Link, seq: Seq, steps: Vec<Op>) -> Result<(), Failure> {
        if let Some(local) = link.local() {
            return steps.iter().try_for_each(|op| local.apply(seq, op));
        }
        let (tell, told) = channel();
        let count = steps.len();
        guard(&self.copies).insert(seq, Copier { node: node.to_owned(), left: count, tell });
        steps.into_iter().for_each(|op| link.send(seq, op));
        let until = Instant::now() + COPY_MAX;
        let answer = |_| match told.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(answer) => answer,
            Err(e) => Err(Failure::Broken(e.to_string())),
        };
        (0..count).try_for_each(answer)
    }

    /// A replica is in sync: says what that took.
    pub(super) fn note_rebuilt(&self, nodes: impl Iterator<Item = String>) {
        for node in nodes {
            let Some(rebuilt) = guard(&self.rebuilding).remove(&node) else { continue };
            let Rebuilt { compared, moved } = rebuilt;
            tracing::info!(volume = self.volume, node, compared, moved, "a replica is whole again, bytes");
            guard(&self.rebuilt).add(rebuilt);
        }
    }
}
