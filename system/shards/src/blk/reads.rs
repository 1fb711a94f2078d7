//! Reads of a ring that wait for a disk: the kernel is asked for many at a time (io_uring), and no thread waits for each.
//!
//! Bytes come to memory of ours, are verified there, and only then copied to the guest's: a guest cannot change what is
//! verified, and its memory need not outlive the request. `unsafe` only to hand the kernel a buffer, which stays until the
//! kernel is done with it.
#![expect(
    unsafe_code,
    reason = "who gives the kernel a buffer promises that it lives as long as the request"
)]

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Instant;

use io_uring::{IoUring, opcode, types};

use super::Chain;
use crate::media::ColdRead;

/// Reads under way at a time. More wait on the ring of the guest.
const ENTRIES: u32 = 128;

/// The reads of a ring.
pub struct Reads {
    ring: IoUring,
    slots: Vec<Option<Read>>,
    free: Vec<usize>,
    /// Some were asked for and the kernel does not know yet.
    unsubmitted: bool,
    /// Buffers to be used again.
    buffers: Vec<Vec<u8>>,
}

/// A read.
pub struct Read {
    /// The request.
    pub chain: Chain,
    /// Where it reads.
    pub cold: ColdRead,
    /// When it was asked for.
    pub begun: Instant,
    buffer: Vec<u8>,
}

impl Reads {
    /// An error says that this kernel does not have it, or does not let us.
    pub fn new() -> io::Result<Reads> {
        let ring = IoUring::new(ENTRIES)?;
        let slots = (0..ENTRIES).map(|_| None).collect();
        let free = (0..ENTRIES as usize).collect();
        Ok(Reads { ring, slots, free, unsubmitted: false, buffers: Vec::new() })
    }

    /// What is readable when a read has ended.
    pub fn fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }

    /// Whether there are any.
    pub fn is_busy(&self) -> bool {
        self.free.len() < self.slots.len()
    }

    /// Asks for a read; false if there is no room for it.
    pub fn begin(&mut self, chain: Chain, cold: ColdRead) -> bool {
        let Some(slot) = self.free.pop() else { return false };
        let mut buffer = self.buffers.pop().unwrap_or_default();
        buffer.resize(cold.place.bytes(), 0);
        let fd = types::Fd(cold.place.file().as_raw_fd());
        let read =
            opcode::Read::new(fd, buffer.as_mut_ptr(), buffer.len() as u32).offset(cold.place.offset());
        let entry = read.build().user_data(slot as u64);
        self.slots[slot] = Some(Read { chain, cold, begun: Instant::now(), buffer });
        // SAFETY: the buffer is on the heap, has as many bytes as are asked for, and is neither touched nor freed until
        // the kernel says that it is done (`ended`, `drop`). The file is open as long as the place beside it.
        if unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.slots[slot] = None;
            self.free.push(slot);
            return false;
        }
        self.unsubmitted = true;
        true
    }

    /// Tells the kernel of what was asked for.
    pub fn submit(&mut self) {
        // If it has no room now, it is told again when some have ended.
        if self.unsubmitted {
            self.unsubmitted = self.ring.submit().is_err();
        }
    }

    /// Waits until a read has ended, if there are any.
    pub fn wait(&mut self) -> io::Result<()> {
        while self.is_busy() {
            match self.ring.submit_and_wait(1) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map(drop),
            }
        }
        Ok(())
    }

    /// Whether a read has ended.
    pub fn has_ended(&mut self) -> bool {
        !self.ring.completion().is_empty()
    }

    /// A read that has ended, and whether all its bytes came.
    pub fn ended(&mut self) -> Option<(Read, bool)> {
        let entry = self.ring.completion().next()?;
        let slot = entry.user_data() as usize;
        let read = self.slots.get_mut(slot)?.take()?;
        self.free.push(slot);
        // Where a file ends early, the call that waits knows what is missing.
        let whole = usize::try_from(entry.result()).is_ok_and(|n| n == read.buffer.len());
        Some((read, whole))
    }

    /// Takes a read's buffer for another.
    pub fn recycle(&mut self, read: Read) {
        self.buffers.push(read.buffer);
    }
}

impl Read {
    /// Its bytes, if they are what was written.
    pub fn verified(&self) -> Option<&[u8]> {
        (self.cold.is_current() && self.cold.place.matches(&self.buffer)).then_some(&self.buffer)
    }
}

impl Drop for Reads {
    fn drop(&mut self) {
        while self.is_busy() {
            if self.wait().is_err() {
                // The kernel may still write there: better lost than used for something else.
                std::mem::forget(std::mem::take(&mut self.slots));
                return;
            }
            while self.ended().is_some() {}
        }
    }
}
