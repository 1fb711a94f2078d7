//! One virtqueue (virtio 1.2, section 2.7): requests are taken off it, are under way for a while, and are completed.
//!
//! Where the front-end keeps [`Inflight`](super::inflight::Inflight) memory for us, requests complete in whatever order
//! they end. Without it whoever takes over after this process was killed knows the used index alone, so that then they
//! complete in the order in which they were taken.
//!
//! No thread and no file but the two event descriptors; whoever holds it has its lock.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::Ordering::Acquire;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use virtio_queue::{Error, Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::config::QUEUE_SIZE_MAX;
use super::inflight::Tracked;
use super::memory::DirtyLog;
use super::{Chain, GuestMap};

/// Bytes of a ring before its entries.
const RING_HEADER: u64 = 4;
/// Bytes of an entry of the available ring, and of the used ring.
const AVAILABLE_ENTRY: u64 = 2;
const USED_ENTRY: u64 = 8;

/// How many others at most have requests of a ring that its own thread could do: it is to use several processors, not all.
static HELPERS: LazyLock<usize> =
    LazyLock::new(|| std::thread::available_parallelism().map_or(1, |n| (n.get() / 2).clamp(1, 3)));

/// A virtqueue.
pub struct Ring {
    queue: Queue,
    tracked: Option<Tracked>,
    /// Requests that were taken and are not on the used ring, in their order, with their lengths once they have ended.
    /// Kept only while nothing is tracked.
    order: VecDeque<(u16, Option<u32>)>,
    /// Requests that are tried again later.
    held: Vec<Held>,
    /// Completions that the guest was not told of.
    untold: usize,
    /// Where to tell it.
    pub call: Option<File>,
    /// Where the guest tells of requests.
    pub kick: Option<Arc<File>>,
    /// Whether the front-end has enabled it.
    pub enabled: bool,
    /// Whether requests may be taken: it is enabled and has been started.
    pub running: bool,
    /// Requests that a thread is at.
    pub busy: usize,
}

/// A request that is to be done again.
pub struct Held {
    /// What it is.
    pub chain: Chain,
    /// When.
    pub due: Instant,
}

impl Ring {
    /// A ring that was not set up yet.
    pub fn new() -> Result<Ring, Error> {
        Ok(Ring {
            queue: Queue::new(QUEUE_SIZE_MAX as u16)?,
            tracked: None,
            order: VecDeque::new(),
            held: Vec::new(),
            untold: 0,
            call: None,
            kick: None,
            enabled: false,
            running: false,
            busy: 0,
        })
    }

    /// Sets how many entries it has.
    pub fn set_size(&mut self, entries: u16) -> Result<(), Error> {
        self.queue.try_set_size(entries)
    }

    /// Sets where its three parts lie, and continues the used ring as it is found.
    pub fn set_addresses(
        &mut self,
        map: &GuestMap,
        table: u64,
        available: u64,
        used: u64,
    ) -> Result<(), Error> {
        self.queue.try_set_desc_table_address(GuestAddress(table))?;
        self.queue.try_set_avail_ring_address(GuestAddress(available))?;
        self.queue.try_set_used_ring_address(GuestAddress(used))?;
        let used = self.queue.used_idx(map, Acquire)?;
        self.queue.set_next_used(used.0);
        Ok(())
    }

    /// Sets which request is taken next.
    pub fn set_base(&mut self, next: u16) {
        self.queue.set_next_avail(next);
    }

    /// Whether the guest names how far it wants to be told.
    pub fn set_event_idx(&mut self, on: bool) {
        self.queue.set_event_idx(on);
    }

    /// Sets where requests under way are noted, of which some may be.
    pub fn track(&mut self, tracked: Option<Tracked>) {
        self.tracked = tracked;
    }

    /// Begins: what was under way when the last one to serve it was killed is available again.
    pub fn start(&mut self, map: &GuestMap, log: Option<&DirtyLog>) -> Result<(), Error> {
        self.queue.set_ready(true);
        if !self.queue.is_valid(map) {
            self.queue.set_ready(false);
            return Err(Error::QueueNotReady);
        }
        let used = self.queue.next_used();
        if let Some(tracked) = &mut self.tracked {
            let heads = tracked.resume(used);
            if !heads.is_empty() {
                self.queue.set_next_avail(used.wrapping_add(heads.len() as u16));
                self.put_back(&heads, map, log)?;
            }
        }
        self.running = true;
        Ok(())
    }

    /// Ends, once nothing is under way any more, and answers which request is to be taken next: the first that was not
    /// completed.
    pub fn stop(&mut self, map: &GuestMap, log: Option<&DirtyLog>) -> Result<u16, Error> {
        let heads: Vec<u16> = std::mem::take(&mut self.held).iter().map(|h| h.chain.head_index()).collect();
        match self.tracked {
            Some(_) => self.put_back(&heads, map, log)?,
            // What has ended and is not on the used ring will be done again; the available ring is as it was.
            None => {
                let unfinished = self.order.len() as u16;
                self.queue.set_next_avail(self.queue.next_avail().wrapping_sub(unfinished));
                self.order.clear();
            }
        }
        self.queue.set_ready(false);
        Ok(self.queue.next_avail())
    }

    /// Makes requests that were taken available again, before all others. Others that were taken with them may be done,
    /// so their entries of the available ring are written anew; a driver reads none that it has written, nor writes one
    /// again before a request was completed for it.
    fn put_back(&mut self, heads: &[u16], map: &GuestMap, log: Option<&DirtyLog>) -> Result<(), Error> {
        let first = self.queue.next_avail().wrapping_sub(heads.len() as u16);
        for (n, head) in heads.iter().enumerate() {
            let slot = first.wrapping_add(n as u16) % self.queue.size();
            let at = self.queue.avail_ring() + RING_HEADER + AVAILABLE_ENTRY * u64::from(slot);
            map.write_obj(head.to_le(), GuestAddress(at)).map_err(Error::GuestMemory)?;
            if let Some(log) = log {
                log.mark(at, AVAILABLE_ENTRY);
            }
            if let Some(tracked) = &self.tracked {
                tracked.forget(*head);
            }
        }
        self.queue.set_next_avail(first);
        Ok(())
    }

    /// Takes the next request.
    pub fn take(&mut self, map: &Arc<GuestMap>) -> Option<Chain> {
        if !self.running {
            return None;
        }
        let chain = self.queue.pop_descriptor_chain(map.clone())?;
        match &mut self.tracked {
            Some(tracked) => tracked.begin(chain.head_index()),
            None => self.order.push_back((chain.head_index(), None)),
        }
        Some(chain)
    }

    /// Whether others may take some of what there is: more waits, and few are at it.
    pub fn wants_help(&self, map: &GuestMap) -> bool {
        self.busy < *HELPERS && self.has_more(map)
    }

    /// Whether nothing else was taken and no more is there: a request that is done at once holds up no other.
    pub fn is_alone(&self, map: &GuestMap) -> bool {
        let next = self.queue.next_avail();
        self.busy == 0 && self.queue.avail_idx(map, Acquire).is_ok_and(|there| there.0 == next)
    }

    /// A request will be done again.
    pub fn hold(&mut self, chain: Chain, due: Instant) {
        self.held.push(Held { chain, due });
    }

    /// The requests that are to be done again by now.
    pub fn take_due(&mut self, now: Instant) -> Vec<Held> {
        self.held.extract_if(.., |held| held.due <= now).collect()
    }

    /// When the next of them is.
    pub fn next_due(&self) -> Option<Instant> {
        self.held.iter().map(|held| held.due).min()
    }

    /// A request has ended; so many bytes of the guest's memory were written.
    pub fn complete(&mut self, map: &GuestMap, log: Option<&DirtyLog>, head: u16, len: u32) {
        if let Some(tracked) = &self.tracked {
            tracked.ending(head);
            self.publish(map, log, head, len);
            if let Some(tracked) = &self.tracked {
                tracked.ended(head, self.queue.next_used());
            }
            return;
        }
        if let Some(entry) = self.order.iter_mut().find(|(h, done)| *h == head && done.is_none()) {
            entry.1 = Some(len);
        }
        while let Some((head, Some(len))) = self.order.front().copied() {
            self.order.pop_front();
            self.publish(map, log, head, len);
        }
    }

    fn publish(&mut self, map: &GuestMap, log: Option<&DirtyLog>, head: u16, len: u32) {
        let slot = u64::from(self.queue.next_used() % self.queue.size());
        if self.queue.add_used(map, head, len).is_err() {
            return; // A head that is none, or a ring that is not in memory: there is nobody to tell.
        }
        self.untold += 1;
        if let Some(log) = log {
            log.mark(self.queue.used_ring(), RING_HEADER);
            log.mark(self.queue.used_ring() + RING_HEADER + USED_ENTRY * slot, USED_ENTRY);
        }
    }

    /// Completions that the guest was not told of.
    pub fn untold(&self) -> usize {
        self.untold
    }

    /// Tells the guest of completions, if there are any and it wants to know.
    pub fn tell(&mut self, map: &GuestMap) {
        if std::mem::take(&mut self.untold) == 0 || !self.queue.needs_notification(map).unwrap_or(true) {
            return;
        }
        if let Some(mut call) = self.call.as_ref() {
            // It fails only where the counter is full, and then the guest is told already.
            let _ = call.write(&1u64.to_ne_bytes());
        }
    }

    /// Asks the guest not to tell of requests.
    pub fn be_quiet(&mut self, map: &GuestMap) {
        let _ = self.queue.disable_notification(map);
    }

    /// Asks it to tell again; true if there are some already.
    pub fn listen(&mut self, map: &GuestMap) -> bool {
        self.running && self.queue.enable_notification(map).unwrap_or(false)
    }

    /// Whether there are requests to be taken.
    pub fn has_more(&self, map: &GuestMap) -> bool {
        self.running
            && self.queue.avail_idx(map, Acquire).is_ok_and(|there| there.0 != self.queue.next_avail())
    }
}

/// Empties an event descriptor; whoever made it may have made it one that waits, so it is read only when it is ready.
pub fn drain(event: &File) -> io::Result<()> {
    use std::io::Read;
    let mut counter = [0; 8];
    match (&mut { event }).read(&mut counter) {
        Err(e) if !matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Err(e),
        _ => Ok(()),
    }
}
