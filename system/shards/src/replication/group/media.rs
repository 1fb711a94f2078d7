//! A group as guests are served with it: reads from one replica, changes to all, in pieces of one region each.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Instant;

use super::{Group, Inner, guard};
use crate::media::{ColdRead, End, Media};
use crate::replication::link::Link;
use crate::replication::op::{Failure, Op};
use crate::replication::regions::REGION;
use crate::replication::service::BYTES_MAX;
use crate::replication::writer::Writer;
use crate::sys::{Pieces, Sink, Source};

impl Media for Group {
    fn size(&self) -> u64 {
        guard(&self.inner.state).writer.size()
    }

    fn read_only(&self) -> bool {
        self.inner.read_only
    }

    fn is_full(&self) -> bool {
        self.inner.full.load(SeqCst)
    }

    fn read(&self, offset: u64, len: u64, to: &mut Pieces<'_, Sink>) -> io::Result<()> {
        self.inner.check(offset, len)?;
        let begun = Instant::now();
        loop {
            self.inner.wait_heard()?;
            let (node, link) = self.inner.reader(&(offset..offset + len))?;
            let mut pieces = to.again();
            let read = match link.local() {
                Some(local) => local.read_into(offset, len, &mut pieces),
                None => read_remote(&*link, offset, len, &mut pieces),
            };
            match read {
                Ok(()) => {
                    self.inner.means.pace.served(begun.elapsed());
                    return Ok(());
                }
                Err(Failure::Corrupt(why)) => {
                    tracing::error!(volume = self.inner.volume, node, why, "a replica is corrupt");
                    self.inner.repair(&node, &(offset..offset + len), why)?;
                }
                Err(why) => {
                    tracing::warn!(volume = self.inner.volume, node, %why, "a replica could not be read");
                    self.inner.close(&node);
                    self.inner.handle(true, |writer| writer.lost(&node, &why));
                }
            }
        }
    }

    fn try_read(&self, offset: u64, len: u64, to: &mut Pieces<'_, Sink>) -> bool {
        self.inner
            .reader_now(&(offset..offset + len))
            .is_some_and(|link| link.local().is_some_and(|local| local.try_read_into(offset, len, to)))
    }

    fn cold(&self, offset: u64, len: u64) -> Option<ColdRead> {
        self.inner.reader_now(&(offset..offset + len))?.local()?.cold(offset, len)
    }

    fn ends_later(&self) -> bool {
        !self.inner.read_only
    }

    fn begin_write(&self, offset: u64, len: u64, from: &mut Pieces<'_, Source>, end: End) -> Option<End> {
        let whole = len > 0 && len <= REGION - offset % REGION;
        if self.inner.read_only || !whole || self.inner.check(offset, len).is_err() || !self.inner.is_heard()
        {
            return Some(end);
        }
        let mut data = vec![0; len as usize];
        if !from.take(&mut data) {
            return Some(end);
        }
        let op = Op::Write { offset, data: data.into() };
        self.inner.begin(true, |writer| writer.request(op), end);
        None
    }

    fn begin_flush(&self, end: End) -> Option<End> {
        if self.inner.read_only || !self.inner.is_heard() {
            return Some(end);
        }
        // Not on this thread, which may have others to serve: the disk of this node takes its time.
        self.inner.begin(false, |writer| writer.request(Op::Flush), end);
        None
    }

    fn write(&self, offset: u64, len: u64, from: &mut Pieces<'_, Source>) -> io::Result<()> {
        self.inner.writable()?;
        self.inner.check(offset, len)?;
        for (offset, len) in chunks(offset, len) {
            // Copied once: what a guest changes meanwhile must not differ between replicas.
            let mut data = vec![0; len as usize];
            if !from.take(&mut data) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            self.inner.request(Op::Write { offset, data: data.into() })?;
        }
        Ok(())
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        // What a discarded range reads as must be the same everywhere.
        self.write_zeroes(offset, len, true)
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.inner.writable()?;
        self.inner.check(offset, len)?;
        self.inner.request(Op::Zero { offset, len, unmap })
    }

    fn flush(&self) -> io::Result<()> {
        if self.inner.read_only { Ok(()) } else { self.inner.request(Op::Flush) }
    }

    fn settle(&self) -> io::Result<()> {
        if self.inner.read_only { Ok(()) } else { self.inner.ask(Writer::flush_unheard) }
    }

    fn interrupt(&self, on: bool) {
        self.inner.interrupted.store(on, SeqCst);
        self.inner.news.notify_all();
    }
}

impl Inner {
    /// Has a replica made like another where it is corrupt; an error if there is no other.
    fn repair(self: &Arc<Inner>, node: &str, range: &Range<u64>, why: String) -> io::Result<()> {
        let mut begun = false;
        self.handle(true, |writer| {
            let actions = writer.repair(node, range);
            begun = actions.is_some();
            actions.unwrap_or_default()
        });
        if begun { Ok(()) } else { Err(io::Error::other(why)) }
    }
}

fn read_remote(link: &dyn Link, offset: u64, len: u64, to: &mut Pieces<'_, Sink>) -> Result<(), Failure> {
    for (offset, len) in chunks(offset, len) {
        let bytes = link.read(offset, len)?;
        if bytes.len() as u64 != len || !to.put(&bytes) {
            return Err(Failure::Broken("it sent another number of bytes".into()));
        }
    }
    Ok(())
}

/// A range in pieces that lie in one region each.
fn chunks(mut offset: u64, mut len: u64) -> impl Iterator<Item = (u64, u64)> {
    const { assert!(REGION <= BYTES_MAX) };
    std::iter::from_fn(move || {
        let now = len.min(REGION - offset % REGION);
        let piece = (offset, now);
        (offset, len) = (offset + now, len - now);
        (now > 0).then_some(piece)
    })
}
