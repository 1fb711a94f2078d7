//! A guest's memory as it is mapped here, where its addresses lead, and the log of pages that changed while the guest
//! is migrated.
//!
//! All of it comes from the front-end; addresses are looked up, never computed with.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use vhost::vhost_user::message::{VhostUserLog, VhostUserMemoryRegion};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, GuestRegionMmap, MmapRegion, VolatileMemory};

use super::{Chain, GuestMap};

/// Regions that may be mapped, as QEMU's own back-ends have it.
pub const REGIONS_MAX: u64 = 509;
/// The page of the log, in bytes.
const LOG_PAGE: u64 = 4096;

/// A guest's memory.
#[derive(Clone, Default)]
pub struct Memory {
    map: Arc<GuestMap>,
    regions: Vec<Region>,
}

/// A region as the front-end sees it.
#[derive(Debug, Clone, Copy)]
struct Region {
    user: u64,
    guest: u64,
    len: u64,
}

impl Memory {
    /// The memory of a whole table.
    pub fn of_table(table: &[VhostUserMemoryRegion], files: Vec<File>) -> io::Result<Memory> {
        let mut memory = Memory::default();
        for (region, file) in table.iter().zip(files) {
            memory = memory.with(region, file)?;
        }
        Ok(memory)
    }

    /// The memory with one more region.
    pub fn with(&self, region: &VhostUserMemoryRegion, file: File) -> io::Result<Memory> {
        let mapped = map_shared(file, region.mmap_offset, region.memory_size)?;
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        let guest = GuestRegionMmap::new(mapped, GuestAddress(region.guest_phys_addr)).ok_or_else(invalid)?;
        let map = Arc::new(self.map.insert_region(Arc::new(guest)).map_err(io::Error::other)?);
        let mut regions = self.regions.clone();
        let (user, guest) = (region.user_addr, region.guest_phys_addr);
        regions.push(Region { user, guest, len: region.memory_size });
        Ok(Memory { map, regions })
    }

    /// The memory without a region.
    pub fn without(&self, region: &VhostUserMemoryRegion) -> io::Result<Memory> {
        let at = GuestAddress(region.guest_phys_addr);
        let (map, _) = self.map.remove_region(at, region.memory_size).map_err(io::Error::other)?;
        let mut regions = self.regions.clone();
        regions.retain(|r| r.guest != region.guest_phys_addr);
        Ok(Memory { map: Arc::new(map), regions })
    }

    /// What is mapped.
    pub fn map(&self) -> &Arc<GuestMap> {
        &self.map
    }

    /// The guest's address of one of the front-end's.
    pub fn guest_address(&self, user: u64) -> Option<u64> {
        let within = |r: &&Region| user >= r.user && user - r.user < r.len;
        self.regions.iter().find(within).and_then(|r| r.guest.checked_add(user - r.user))
    }
}

/// Maps a part of a file that the front-end sent. What the file lacks is refused: to touch it would end this process.
pub fn map_shared(file: File, offset: u64, len: u64) -> io::Result<MmapRegion> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let end = offset.checked_add(len).ok_or_else(invalid)?;
    let bytes = usize::try_from(len).map_err(|_| invalid())?;
    if end > file.metadata()?.len() {
        return Err(invalid());
    }
    MmapRegion::from_file(FileOffset::new(file, offset), bytes).map_err(io::Error::other)
}

/// The pages that changed while a guest is migrated: a bit each, in memory that the front-end gave.
pub struct DirtyLog {
    region: MmapRegion,
}

impl DirtyLog {
    /// Takes the front-end's memory.
    pub fn open(log: &VhostUserLog, file: File) -> io::Result<DirtyLog> {
        Ok(DirtyLog { region: map_shared(file, log.mmap_offset, log.mmap_size)? })
    }

    /// A range of the guest's memory has changed.
    pub fn mark(&self, guest: u64, len: u64) {
        let Some(last) = guest.checked_add(len.saturating_sub(1)).filter(|_| len > 0) else { return };
        for page in guest / LOG_PAGE..=last / LOG_PAGE {
            let Ok(byte) = usize::try_from(page / 8) else { return };
            let Ok(bits) = self.region.get_atomic_ref::<AtomicU8>(byte) else { return };
            bits.fetch_or(1 << (page % 8), Relaxed);
        }
    }

    /// All that a request may have written has changed.
    pub fn mark_writable(&self, chain: &Chain) {
        for descriptor in chain.clone().writable() {
            // Only memory that there is: a chain's lengths are the guest's word.
            if chain.memory().check_range(descriptor.addr(), descriptor.len() as usize) {
                self.mark(descriptor.addr().0, descriptor.len().into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    fn file(len: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        file
    }

    fn region(guest: u64, len: u64, user: u64) -> VhostUserMemoryRegion {
        VhostUserMemoryRegion::new(guest, len, user, 0)
    }

    #[test]
    fn addresses_lead_where_they_are_mapped_and_nowhere_else() {
        let table = [region(0, 0x4000, 0x10_0000), region(0x10_0000, 0x1000, 0x20_0000)];
        let memory = Memory::of_table(&table, vec![file(0x4000), file(0x1000)]).unwrap();
        assert_eq!(memory.guest_address(0x10_0000), Some(0));
        assert_eq!(memory.guest_address(0x10_3fff), Some(0x3fff));
        assert_eq!(memory.guest_address(0x20_0008), Some(0x10_0008));
        for wrong in [0, 0xf_ffff, 0x10_4000, 0x20_1000, u64::MAX] {
            assert_eq!(memory.guest_address(wrong), None, "{wrong:x}");
        }
        assert!(memory.with(&region(0x3000, 0x2000, 0), file(0x2000)).is_err(), "two regions in one place");
        assert!(memory.with(&region(0x8000, 0x2000, 0), file(0x1000)).is_err(), "a file that is too short");
        let less = memory.without(&table[0]).unwrap();
        assert_eq!((less.guest_address(0x10_0000), less.map().num_regions()), (None, 1));
    }

    #[test]
    fn changed_pages_are_marked_within_the_log_alone() {
        let kept = file(4096);
        let log = DirtyLog::open(&VhostUserLog::new(2, 0), kept.try_clone().unwrap()).unwrap();
        log.mark(0x1fff, 2);
        log.mark(0x9000, 1);
        log.mark(0x5000, 0);
        log.mark(0x10_0000, 4096);
        log.mark(u64::MAX, 1);
        log.mark(u64::MAX - 1, 16);
        let mut bits = [0; 4];
        kept.read_exact_at(&mut bits, 0).unwrap();
        assert_eq!(bits, [0b110, 0b10, 0, 0]);
    }
}
