//! One request of a guest: taken apart, checked, done on the volume, answered.
//!
//! It touches the guest's memory only through what the descriptors name and the memory map allows. It must
//! never read or write beyond either, whatever the descriptors say.

use std::io;
use std::time::Duration;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
    VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};
use vm_memory::GuestMemoryBackend;

use super::config::{ID_BYTES, RANGE_SECTORS_MAX, RANGES_MAX};
use super::{Chain, GuestMap};
use crate::format::SECTOR;
use crate::fsio;
use crate::media::{self, ColdRead, End, Media};
use crate::sys::{Byte, Pieces, Sink, Source};

/// From so many bytes on a read is large: copying and verifying them takes some tens of microseconds.
const LARGE: u64 = 256 << 10;

/// Room for the pieces of a request, used again for the next.
#[derive(Default)]
pub struct Room {
    source: Pieces<'static, Source>,
    sink: Pieces<'static, Sink>,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is answered; so many bytes of the guest's memory were written.
    Done(u32),
    /// The disk is full, or the volume is held or limited. Nothing was answered; the request must be done again after
    /// so long.
    Later(Duration),
}

/// A request that was taken apart.
pub struct Request<'m> {
    kind: u32,
    sector: u64,
    source: Pieces<'m, Source>,
    sink: Pieces<'m, Sink>,
    status: Byte<'m>,
}

impl<'m> Request<'m> {
    /// Takes a chain apart; `None` if it has no room for an answer or leaves the guest's memory.
    pub fn parse(chain: Chain, memory: &'m GuestMap, room: &mut Room) -> Option<Request<'m>> {
        let mut source = std::mem::take(&mut room.source).recycle();
        let mut sink = std::mem::take(&mut room.sink).recycle();
        let whole = collect(chain, memory, &mut source, &mut sink);
        let (status, mut head) = (sink.split_last_byte(), [0; 16]);
        match (whole, status, source.take(&mut head)) {
            (Some(()), Some(status), true) => {
                let kind = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
                let sector = le64(&head[8..]);
                Some(Request { kind, sector, source, sink, status })
            }
            _ => {
                *room = Room { source: source.recycle(), sink: sink.recycle() };
                None
            }
        }
    }

    /// Whether it is about so much that doing it here takes longer than having another thread do it.
    pub fn is_large(&self, volume: &dyn Media) -> bool {
        match self.kind {
            VIRTIO_BLK_T_IN => self.sink.len() >= LARGE,
            VIRTIO_BLK_T_OUT => self.source.len() >= LARGE && !volume.ends_later(),
            _ => false,
        }
    }

    /// Whether it reads.
    pub fn is_read(&self) -> bool {
        self.kind == VIRTIO_BLK_T_IN
    }

    /// Whether it may take so long that completions before it should be told first.
    pub fn is_slow(&self) -> bool {
        self.kind == VIRTIO_BLK_T_FLUSH
    }

    /// Does it if that waits for nothing: no disk, no other node. `None` says that it was not done.
    pub fn try_run(&mut self, volume: &dyn Media, id: &str, writeback: bool) -> Option<Outcome> {
        let done = match self.kind {
            VIRTIO_BLK_T_IN => {
                let (offset, len) = range(volume, self.sector, self.sink.len()).ok()?;
                volume
                    .try_read(offset, len, &mut self.sink)
                    .then(|| len.min(u64::from(u32::MAX - 1)) as u32)?
            }
            VIRTIO_BLK_T_OUT if writeback && !volume.read_only() => {
                let (offset, len) = range(volume, self.sector, self.source.len()).ok()?;
                volume.try_write(offset, len, &mut self.source).then_some(0)?
            }
            VIRTIO_BLK_T_GET_ID => self.put_id(id),
            _ => return None,
        };
        Some(self.answer(VIRTIO_BLK_S_OK, done))
    }

    /// Where a read's bytes lie, if others may read them for it.
    pub fn cold(&self, volume: &dyn Media) -> Option<ColdRead> {
        match self.kind {
            VIRTIO_BLK_T_IN => {
                let (offset, len) = range(volume, self.sector, self.sink.len()).ok()?;
                volume.cold(offset, len)
            }
            _ => None,
        }
    }

    /// Answers a read with its bytes.
    pub fn fill(&mut self, bytes: &[u8]) -> Outcome {
        match self.sink.put(bytes) {
            true => self.answer(VIRTIO_BLK_S_OK, bytes.len() as u32),
            false => self.answer(VIRTIO_BLK_S_IOERR, 0), // The guest has changed its request meanwhile.
        }
    }

    /// Begins a change whose end is told, with what [`Request::conclude`] takes. What was to be told comes back if it
    /// was not begun.
    pub fn begin(&mut self, volume: &dyn Media, writeback: bool, end: End) -> Option<End> {
        match self.kind {
            VIRTIO_BLK_T_OUT if writeback && !volume.read_only() => {
                match range(volume, self.sector, self.source.len()) {
                    Ok((offset, len)) => volume.begin_write(offset, len, &mut self.source, end),
                    Err(_) => Some(end),
                }
            }
            VIRTIO_BLK_T_FLUSH => volume.begin_flush(end),
            _ => Some(end),
        }
    }

    /// Answers a change that was begun and has ended so.
    pub fn conclude(&self, result: io::Result<()>, id: &str) -> Outcome {
        let flush = self.kind == VIRTIO_BLK_T_FLUSH;
        self.outcome(result.map(|()| 0).map_err(|e| failed(e, flush)), id)
    }

    /// Does it. With `writeback` a write is durable only after a flush, else when it is answered.
    pub fn run(&mut self, volume: &dyn Media, id: &str, writeback: bool) -> Outcome {
        let result = self.execute(volume, id, writeback);
        self.outcome(result, id)
    }

    fn outcome(&self, result: Result<u32, Refused>, id: &str) -> Outcome {
        match result {
            Ok(written) => self.answer(VIRTIO_BLK_S_OK, written),
            Err(Refused::Unsupported) => self.answer(VIRTIO_BLK_S_UNSUPP, 0),
            Err(Refused::Invalid) => self.answer(VIRTIO_BLK_S_IOERR, 0),
            Err(Refused::Disk(e)) if let Some(wait) = media::wait_of(&e) => Outcome::Later(wait),
            Err(Refused::Disk(e)) => {
                tracing::error!(volume = id, error = %e, kind = self.kind, "a guest's request failed");
                self.answer(VIRTIO_BLK_S_IOERR, 0)
            }
        }
    }

    /// Its room, for the next.
    pub fn into_room(self) -> Room {
        Room { source: self.source.recycle(), sink: self.sink.recycle() }
    }

    fn answer(&self, status: u32, written: u32) -> Outcome {
        self.status.set(status as u8);
        Outcome::Done(written + 1)
    }

    fn execute(&mut self, volume: &dyn Media, id: &str, writeback: bool) -> Result<u32, Refused> {
        match self.kind {
            VIRTIO_BLK_T_IN => {
                let (offset, len) = range(volume, self.sector, self.sink.len())?;
                volume.read(offset, len, &mut self.sink)?;
                Ok(u32::try_from(len).unwrap_or(u32::MAX - 1))
            }
            VIRTIO_BLK_T_OUT => {
                writable(volume)?;
                let (offset, len) = range(volume, self.sector, self.source.len())?;
                volume.write(offset, len, &mut self.source)?;
                sync(volume, writeback)
            }
            VIRTIO_BLK_T_FLUSH => sync(volume, false),
            VIRTIO_BLK_T_GET_ID => Ok(self.put_id(id)),
            VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES => {
                writable(volume)?;
                self.clear_ranges(volume)?;
                sync(volume, writeback)
            }
            _ => Err(Refused::Unsupported),
        }
    }

    fn put_id(&mut self, id: &str) -> u32 {
        let mut bytes = [0; ID_BYTES];
        let len = id.len().min(ID_BYTES);
        bytes[..len].copy_from_slice(&id.as_bytes()[..len]);
        let room = self.sink.len().min(ID_BYTES as u64) as usize;
        self.sink.put(&bytes[..room]);
        room as u32
    }

    fn clear_ranges(&mut self, volume: &dyn Media) -> Result<(), Refused> {
        let count = self.source.len() / 16;
        if count == 0 || count > u64::from(RANGES_MAX) || !self.source.len().is_multiple_of(16) {
            return Err(Refused::Invalid);
        }
        let mut bytes = [0; 16];
        while self.source.take(&mut bytes) {
            self.clear_range(volume, &bytes)?;
        }
        Ok(())
    }

    fn clear_range(&self, volume: &dyn Media, bytes: &[u8; 16]) -> Result<(), Refused> {
        let sectors = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        let flags = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
        let zeroes = self.kind == VIRTIO_BLK_T_WRITE_ZEROES;
        let unmap = flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0;
        if flags & !VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0 || (unmap && !zeroes) {
            return Err(Refused::Unsupported);
        }
        if sectors > RANGE_SECTORS_MAX {
            return Err(Refused::Invalid);
        }
        let (offset, len) = range(volume, le64(bytes), u64::from(sectors) * SECTOR)?;
        match zeroes {
            true => volume.write_zeroes(offset, len, unmap)?,
            false => volume.discard(offset, len)?,
        }
        Ok(())
    }
}

/// Why a request was not done.
enum Refused {
    /// The guest asked for what no driver should.
    Invalid,
    /// A kind of request that was not offered.
    Unsupported,
    /// The disk failed, or the guest's memory did under the kernel's hands.
    Disk(io::Error),
}

impl From<io::Error> for Refused {
    fn from(e: io::Error) -> Refused {
        Refused::Disk(e)
    }
}

fn collect<'m>(
    chain: Chain,
    memory: &'m GuestMap,
    source: &mut Pieces<'m, Source>,
    sink: &mut Pieces<'m, Sink>,
) -> Option<()> {
    for descriptor in chain {
        for slice in memory.get_slices(descriptor.addr(), descriptor.len() as usize) {
            let slice = slice.ok()?;
            match descriptor.is_write_only() {
                true => sink.push_guest(&slice),
                false => source.push_guest(&slice),
            }
        }
    }
    Some(())
}

fn range(volume: &dyn Media, sector: u64, len: u64) -> Result<(u64, u64), Refused> {
    let offset = sector.checked_mul(SECTOR).ok_or(Refused::Invalid)?;
    let fits = offset.checked_add(len).is_some_and(|end| end <= volume.size());
    if !len.is_multiple_of(SECTOR) || !fits {
        return Err(Refused::Invalid);
    }
    Ok((offset, len))
}

fn writable(volume: &dyn Media) -> Result<(), Refused> {
    if volume.read_only() { Err(Refused::Invalid) } else { Ok(()) }
}

fn sync(volume: &dyn Media, writeback: bool) -> Result<u32, Refused> {
    if !writeback {
        volume.flush().map_err(|e| failed(e, true))?;
    }
    Ok(0)
}

fn failed(e: io::Error, flush: bool) -> Refused {
    // A full disk cannot hold up a flush: room was taken when the data was written.
    match flush && fsio::is_full(&e) {
        true => Refused::Disk(io::Error::other(e)),
        false => Refused::Disk(e),
    }
}

fn le64(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |n, b| n << 8 | u64::from(*b))
}
