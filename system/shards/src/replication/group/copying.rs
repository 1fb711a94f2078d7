//! How a group makes regions of replicas alike, at the pace that guests leave.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::{Group, Inner, guard};
use crate::replication::link::Link;
use crate::replication::op::{Failure, Op};
use crate::replication::regions::REGION;
use crate::replication::replica::ZEROES;
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
    /// So many bytes were sent.
    Moved(u64),
}

/// What it took to make replicas whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Bytes that were compared.
    pub compared: u64,
    /// Bytes that differed and were sent.
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
            self.store(from, &*source, seq, op).map_err(|_| CopyFailure::Source)?;
        }
        Ok(())
    }

    /// Makes a region of one replica like that of another.
    fn copy(&self, from: &str, to: &str, region: u64, seq: Seq) -> Result<Copied, CopyFailure> {
        let size = guard(&self.state).writer.size();
        let (offset, len) = (region * REGION, REGION.min(size.saturating_sub(region * REGION)));
        let source = self.link(from).ok_or(CopyFailure::Source)?;
        let target = self.link(to).ok_or(CopyFailure::Target)?;
        let wanted = source.digest(region).map_err(|e| unread(&e))?;
        let alike = match target.digest(region) {
            Ok(found) => found == wanted,
            Err(Failure::Corrupt(_)) => false,
            Err(_) => return Err(CopyFailure::Target),
        };
        if alike {
            return Ok(if wanted == ZEROES { Copied::Nothing } else { Copied::Looked });
        }
        let op = match wanted {
            ZEROES => Op::Zero { offset, len, unmap: true },
            _ => Op::Write { offset, data: source.read(offset, len).map_err(|e| unread(&e))? },
        };
        let moved = if let Op::Write { data, .. } = &op { data.len() as u64 } else { 0 };
        let stored = self.store(to, &*target, seq, op);
        stored.map(|()| Copied::Moved(moved)).map_err(|_| CopyFailure::Target)
    }

    /// Does a step of a copy, and waits for its end.
    fn store(&self, node: &str, link: &dyn Link, seq: Seq, op: Op) -> Result<(), Failure> {
        match link.local() {
            Some(local) => local.apply(seq, &op),
            None => self.await_copy(node, seq).map_or_else(Err, |answer| {
                link.send(seq, op);
                answer.recv_timeout(COPY_MAX).unwrap_or_else(|e| Err(Failure::Broken(e.to_string())))
            }),
        }
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

    fn await_copy(&self, to: &str, seq: Seq) -> Result<Receiver<Result<(), Failure>>, Failure> {
        let (answer, awaited) = channel();
        guard(&self.copies).insert(seq, (to.to_owned(), answer));
        Ok(awaited)
    }
}

/// How a copy failed whose source could not be read.
fn unread(why: &Failure) -> CopyFailure {
    if matches!(why, Failure::Corrupt(_)) { CopyFailure::Corrupt } else { CopyFailure::Source }
}
