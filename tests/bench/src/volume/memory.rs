//! The memory of the guest that makes the load: a page for each part of the ring, and a buffer for each request. Raw
//! I/O uses the same buffers.
//!
//! Every block of 4 KiB that is written says where on the disk it belongs, and what is read is looked at for it: a side
//! that answers quickly and wrongly does not pass for a quick one.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use nix::sys::memfd::{MFdFlags, memfd_create};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// The most requests on their way at a time.
pub const SLOTS: usize = 32;
/// The longest request.
pub const SLOT_BYTES: u64 = 1 << 20;
/// What says where it belongs.
pub const BLOCK: u64 = 4096;
/// Where the buffers begin; what lies before them is the ring's.
const BUFFERS: u64 = 1 << 20;
const BYTES: u64 = BUFFERS + SLOTS as u64 * SLOT_BYTES;

/// Clones are the same memory.
#[derive(Clone)]
pub struct Memory {
    pub map: Arc<GuestMemoryMmap<()>>,
}

impl Memory {
    /// All of it in place, so that no load meets a page fault.
    pub fn new() -> Result<Memory> {
        let file = std::fs::File::from(memfd_create("bench-guest", MFdFlags::MFD_CLOEXEC)?);
        file.set_len(BYTES)?;
        let range = (GuestAddress(0), BYTES as usize, Some(FileOffset::new(file, 0)));
        let map = GuestMemoryMmap::from_ranges_with_files([range]).context("no memory for a guest")?;
        let noise: Vec<u8> = (0..SLOT_BYTES).map(|at| ((at * at) >> 7) as u8).collect();
        for slot in 0..SLOTS {
            map.write_slice(&noise, Memory::buffer(slot))?;
        }
        Ok(Memory { map: Arc::new(map) })
    }

    /// Where the buffer of a slot is.
    pub fn buffer(slot: usize) -> GuestAddress {
        GuestAddress(BUFFERS + slot as u64 * SLOT_BYTES)
    }

    /// Where this process has the buffer of a slot.
    pub fn host(&self, slot: usize) -> Result<*mut u8> {
        Ok(self.map.get_host_address(Memory::buffer(slot))?)
    }

    /// Makes the buffer what belongs at a place of the disk.
    pub fn stamp(&self, slot: usize, offset: u64, len: u64) -> Result<()> {
        let GuestAddress(buffer) = Memory::buffer(slot);
        for at in (0..len).step_by(BLOCK as usize) {
            self.map.write_obj(offset + at, GuestAddress(buffer + at))?;
        }
        Ok(())
    }

    /// Looks whether the buffer has what belongs at a place of the disk.
    pub fn check(&self, slot: usize, offset: u64, len: u64) -> Result<()> {
        let GuestAddress(buffer) = Memory::buffer(slot);
        for at in (0..len).step_by(BLOCK as usize) {
            let found: u64 = self.map.read_obj(GuestAddress(buffer + at))?;
            ensure!(found == offset + at, "the block at {} was read as that at {found}", offset + at);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_known_by_its_place() {
        let memory = Memory::new().unwrap();
        memory.stamp(3, 5 << 20, SLOT_BYTES).unwrap();
        assert!(memory.check(3, 5 << 20, SLOT_BYTES).is_ok());
        assert!(memory.check(3, (5 << 20) + BLOCK, BLOCK).is_err());
        assert!(memory.check(2, 5 << 20, BLOCK).is_err());
    }
}
