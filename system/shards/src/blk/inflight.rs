//! Which requests of a ring are under way, in memory that the front-end keeps for us: who takes the ring over after
//! this process was killed does them again, in the order in which they were taken, and none twice.
//!
//! The layout is that of the vhost-user specification ("Inflight I/O tracking", split virtqueues, version 1). What is
//! found there comes from the front-end: it is checked before it is used.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering::SeqCst};

use nix::sys::memfd::{MFdFlags, memfd_create};
use vhost::vhost_user::message::VhostUserInflight;
use vm_memory::{AtomicInteger, MmapRegion, VolatileMemory};

use super::config::{QUEUE_SIZE_MAX, QUEUES};
use super::memory::map_shared;

/// Bytes before the entries of a queue, and of each entry.
const HEADER: usize = 16;
const ENTRY: usize = 16;
/// Queues begin at multiples of this.
const ALIGNMENT: usize = 64;
/// Fields of the header.
const VERSION: usize = 8;
const ENTRIES: usize = 10;
const LAST_HEAD: usize = 12;
const USED: usize = 14;
/// A field of an entry, beside the flag at its beginning.
const COUNTER: usize = 8;

/// The shared memory, of all queues.
pub struct Inflight {
    region: MmapRegion,
    queues: usize,
    queue_size: u16,
}

/// The part of one queue.
#[derive(Clone)]
pub struct Tracked {
    all: Arc<Inflight>,
    base: usize,
    counter: u64,
}

impl Inflight {
    /// Makes such memory for the front-end to keep.
    pub fn create(wanted: &VhostUserInflight) -> io::Result<(VhostUserInflight, File)> {
        let (queues, queue_size) = checked(wanted)?;
        let len = queues * stride(queue_size);
        let file = File::from(memfd_create("inflight", MFdFlags::MFD_CLOEXEC)?);
        file.set_len(len as u64)?;
        let made = VhostUserInflight { mmap_size: len as u64, mmap_offset: 0, ..*wanted };
        let inflight = Arc::new(Inflight::open(&made, file.try_clone()?)?);
        for queue in 0..queues {
            let base = queue * stride(queue_size);
            inflight.store::<AtomicU16>(base + VERSION, 1);
            inflight.store::<AtomicU16>(base + ENTRIES, queue_size);
        }
        Ok((made, file))
    }

    /// Takes memory that the front-end kept.
    pub fn open(kept: &VhostUserInflight, file: File) -> io::Result<Inflight> {
        let (queues, queue_size) = checked(kept)?;
        let needed = queues * stride(queue_size);
        if kept.mmap_size < needed as u64 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let region = map_shared(file, kept.mmap_offset, needed as u64)?;
        Ok(Inflight { region, queues, queue_size })
    }

    /// The part of a queue; `None` if there is none for it.
    pub fn queue(self: &Arc<Inflight>, index: usize) -> Option<Tracked> {
        let base = index * stride(self.queue_size);
        (index < self.queues).then(|| Tracked { all: self.clone(), base, counter: 0 })
    }

    // Offsets are computed from checked counts: they are within the region, and aligned to what they name.
    fn load<T: AtomicInteger<V: Default>>(&self, at: usize) -> T::V {
        self.region.get_atomic_ref::<T>(at).map(|place| place.load(SeqCst)).unwrap_or_default()
    }

    fn store<T: AtomicInteger>(&self, at: usize, value: T::V) {
        if let Ok(place) = self.region.get_atomic_ref::<T>(at) {
            place.store(value, SeqCst);
        }
    }
}

impl Tracked {
    /// A request has been taken.
    pub fn begin(&mut self, head: u16) {
        let Some(entry) = self.entry(head) else { return };
        self.counter += 1;
        self.all.store::<AtomicU64>(entry + COUNTER, self.counter);
        self.all.store::<AtomicU8>(entry, 1);
    }

    /// A request is about to be put on the used ring.
    pub fn ending(&self, head: u16) {
        if self.entry(head).is_some() {
            self.all.store::<AtomicU16>(self.base + LAST_HEAD, head);
        }
    }

    /// It is there, and the ring's used index is now this.
    pub fn ended(&self, head: u16, used: u16) {
        self.forget(head);
        self.all.store::<AtomicU16>(self.base + USED, used);
    }

    /// A request is as if it had not been taken.
    pub fn forget(&self, head: u16) {
        if let Some(entry) = self.entry(head) {
            self.all.store::<AtomicU8>(entry, 0);
        }
    }

    /// What was under way when whoever served the ring ended, in the order in which it was taken. `used` is the ring's
    /// used index.
    pub fn resume(&mut self, used: u16) -> Vec<u16> {
        // Killed between the used ring and the flag: that one is done.
        if self.all.load::<AtomicU16>(self.base + USED) != used {
            self.forget(self.all.load::<AtomicU16>(self.base + LAST_HEAD));
            self.all.store::<AtomicU16>(self.base + USED, used);
        }
        let heads = 0..self.all.queue_size;
        let taken = heads.filter_map(|head| self.entry(head).map(|entry| (head, entry)));
        let mut taken: Vec<(u64, u16)> = taken
            .filter(|(_, entry)| self.all.load::<AtomicU8>(*entry) == 1)
            .map(|(head, entry)| (self.all.load::<AtomicU64>(entry + COUNTER), head))
            .collect();
        taken.sort_unstable();
        self.counter = taken.last().map_or(0, |(counter, _)| *counter);
        taken.into_iter().map(|(_, head)| head).collect()
    }

    fn entry(&self, head: u16) -> Option<usize> {
        (head < self.all.queue_size).then(|| self.base + HEADER + ENTRY * usize::from(head))
    }
}

fn stride(queue_size: u16) -> usize {
    (HEADER + ENTRY * usize::from(queue_size)).next_multiple_of(ALIGNMENT)
}

fn checked(wanted: &VhostUserInflight) -> io::Result<(usize, u16)> {
    let (queues, queue_size) = (usize::from(wanted.num_queues), wanted.queue_size);
    let known = (1..=QUEUES).contains(&queues) && (1..=QUEUE_SIZE_MAX).contains(&usize::from(queue_size));
    if known { Ok((queues, queue_size)) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(queues: u16, queue_size: u16) -> (VhostUserInflight, File) {
        Inflight::create(&VhostUserInflight::new(0, 0, queues, queue_size)).unwrap()
    }

    fn opened(made: &VhostUserInflight, file: &File, queue: usize) -> Tracked {
        Arc::new(Inflight::open(made, file.try_clone().unwrap()).unwrap()).queue(queue).unwrap()
    }

    #[test]
    fn what_was_under_way_is_found_in_its_order() {
        let (made, file) = memory(2, 128);
        let mut first = opened(&made, &file, 1);
        assert!(first.resume(0).is_empty());
        [9, 3, 127, 5].into_iter().for_each(|head| first.begin(head));
        first.ending(3);
        first.ended(3, 1);
        drop(first);
        let mut second = opened(&made, &file, 1);
        assert_eq!(second.resume(1), [9, 127, 5]);
        second.forget(9);
        second.begin(3);
        assert_eq!(opened(&made, &file, 1).resume(1), [127, 5, 3]);
        assert!(opened(&made, &file, 0).resume(0).is_empty());
    }

    #[test]
    fn what_ended_and_was_not_noted_is_not_done_again() {
        let (made, file) = memory(1, 8);
        let mut first = opened(&made, &file, 0);
        first.begin(1);
        first.begin(2);
        first.ending(2);
        // Killed before the used ring had it, and after.
        assert_eq!(opened(&made, &file, 0).resume(0), [1, 2]);
        assert_eq!(opened(&made, &file, 0).resume(1), [1]);
    }

    #[test]
    fn what_a_front_end_keeps_is_checked() {
        let wrong = |queues, size| Inflight::create(&VhostUserInflight::new(0, 0, queues, size)).is_err();
        assert!(wrong(0, 8) && wrong(65, 8) && wrong(1, 0) && wrong(1, 1025));
        let (made, file) = memory(1, 128);
        let open = |kept: VhostUserInflight| Inflight::open(&kept, file.try_clone().unwrap()).is_ok();
        assert!(open(made));
        assert!(!open(VhostUserInflight { mmap_size: made.mmap_size - 1, ..made }));
        assert!(!open(VhostUserInflight { mmap_offset: 4096, ..made }));
        assert!(!open(VhostUserInflight { mmap_offset: u64::MAX - 8, ..made }));
        assert!(!open(VhostUserInflight { queue_size: 1024, ..made }));
        let mut tracked = opened(&made, &file, 0);
        tracked.begin(128);
        tracked.ending(u16::MAX);
        tracked.ended(4000, 3);
        assert!(tracked.resume(3).is_empty());
    }
}
