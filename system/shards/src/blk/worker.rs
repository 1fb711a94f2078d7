//! The thread of a ring: takes requests, does at once those that wait for nothing, and gives the others to the pool.
//!
//! It must never end because of what a guest did, nor do anything that may take long while others wait behind it.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::GuestMap;
use super::device::{Device, Queue};
use super::reads::Reads;
use super::request::{Outcome, Request, Room};
use super::ring::drain;
use super::{Chain, ring::Ring};
use crate::media::End;

/// The guest is told of completions at least after so many.
const UNTOLD_MAX: usize = 16;
/// How long the next request is looked out for before the thread sleeps, at most: about what it costs to be woken.
const WATCH_MAX: Duration = Duration::from_micros(32);
const WATCH_MIN: Duration = Duration::from_micros(4);
/// After so many requests that nobody came behind, a read is waited for by the thread itself.
const LONELY: u32 = 8;
/// Reads that take longer are never waited for so: who comes behind would wait as long.
const QUICK: Duration = Duration::from_micros(500);
/// What the events of the descriptors are called.
const KICK: u64 = 0;
const WAKE: u64 = 1;
const READ: u64 = 2;

/// The thread of a ring. Dropping it waits for the request it is at.
pub struct Worker {
    thread: Option<JoinHandle<()>>,
    wake: EventFd,
}

impl Worker {
    /// Serves a ring that was started.
    pub fn start(device: Arc<Device>, queue: Arc<Queue>, kick: Arc<File>) -> io::Result<Worker> {
        let wake = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?;
        let epoll = Epoll::new()?;
        for (fd, data) in [(kick.as_raw_fd(), KICK), (wake.as_raw_fd(), WAKE)] {
            epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, data))?;
        }
        let name = format!("q{}-{}", queue.index(), device.id.get(..8).unwrap_or(&device.id));
        let reads =
            Reads::new().inspect_err(|e| tracing::warn!(error = %e, "no io_uring: threads wait for disks"));
        if let Ok(reads) = &reads {
            epoll.ctl(ControlOperation::Add, reads.fd(), EpollEvent::new(EventSet::IN, READ))?;
        }
        let (wake_it, reads, watch) = (wake.try_clone()?, reads.ok(), WATCH_MIN);
        let room = Room::default();
        let lonely = Lonely::default();
        let state = Serving { device, queue, kick, wake: wake_it, epoll, reads, room, watch, lonely };
        let thread = std::thread::Builder::new().name(name).spawn(move || state.run())?;
        Ok(Worker { thread: Some(thread), wake })
    }

    /// Has it look at its ring.
    pub fn wake(&self) {
        let _ = self.wake.write(1);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Serving {
    device: Arc<Device>,
    queue: Arc<Queue>,
    kick: Arc<File>,
    wake: EventFd,
    epoll: Epoll,
    reads: Option<Reads>,
    room: Room,
    /// How long it is worth looking out for a request now.
    watch: Duration,
    lonely: Lonely,
}

/// Whether requests come one by one, from a guest that waits for each: then a read that waits for a disk is cheaper and
/// sooner done by a call that waits than by asking for it, sleeping and being told.
#[derive(Default)]
struct Lonely {
    /// So many requests running had the ring for themselves.
    requests: u32,
    /// The last read that waited for a disk did not take long.
    quick: bool,
}

impl Lonely {
    /// A request was taken, or has ended.
    fn note(&mut self, alone: bool) {
        self.requests = if alone { self.requests.saturating_add(1) } else { 0 };
    }

    /// A read has waited for a disk.
    fn took(&mut self, time: Duration) {
        self.quick = time < QUICK;
    }

    fn is_so(&self) -> bool {
        self.quick && self.requests >= LONELY
    }
}

impl Serving {
    fn run(mut self) {
        // A ring that says twice running that there is more and yields nothing is broken (its guest's doing).
        let mut idle = 0;
        while self.queue.ring().running {
            let map = self.device.map();
            let taken = self.pass(&map);
            if self.watch(&map) {
                idle = 0;
                continue;
            }
            idle = if taken > 0 { 0 } else { idle + 1 };
            let more = self.queue.ring().listen(&map);
            if more && idle < 2 {
                continue;
            }
            drop(map); // Memory that the guest has given up is not kept while we sleep.
            if let Err(e) = self.sleep() {
                tracing::error!(volume = self.device.id, error = %e, "a disk's queue is not served any more");
                break;
            }
        }
        self.end_reads();
    }

    /// Waits for all reads under way.
    fn end_reads(&mut self) {
        while let Some(reads) = self.reads.as_mut().filter(|reads| reads.is_busy()) {
            if let Err(e) = reads.wait() {
                tracing::error!(volume = self.device.id, error = %e, "reads cannot be waited for");
                return;
            }
            let map = self.device.map();
            self.reap(&map);
            self.queue.ring().tell(&map);
        }
    }

    /// Completes the reads that have ended.
    fn reap(&mut self, map: &Arc<GuestMap>) {
        while let Some((read, whole)) = self.reads.as_mut().and_then(Reads::ended) {
            let request = Request::parse(read.chain.clone(), map, &mut self.room);
            let outcome = request.and_then(|mut request| {
                let outcome = read.verified().filter(|_| whole).map(|bytes| request.fill(bytes));
                self.room = request.into_room();
                outcome
            });
            self.lonely.took(read.begun.elapsed());
            let chain = read.chain.clone();
            if let Some(reads) = &mut self.reads {
                reads.recycle(read);
            }
            match outcome {
                Some(outcome) => self.conclude(chain, map, outcome),
                // Not what it should be, as it seems: the call that waits finds out.
                None => self.pass_on(chain, map),
            }
        }
    }

    fn conclude(&self, chain: Chain, map: &GuestMap, outcome: Outcome) {
        let mut ring = self.queue.ring();
        finish(&self.device, &mut ring, map, chain, outcome);
        if ring.untold() >= UNTOLD_MAX {
            ring.tell(map);
        }
    }

    /// Takes what there is; answers how many requests that were.
    fn pass(&mut self, map: &Arc<GuestMap>) -> usize {
        let mut ring = self.queue.ring();
        ring.be_quiet(map);
        let due = if ring.running { ring.take_due(Instant::now()) } else { Vec::new() };
        drop(ring);
        for held in due {
            self.serve(held.chain, map);
        }
        let mut taken = 0;
        while let Some(chain) = self.take(map) {
            self.serve(chain, map);
            taken += 1;
        }
        if let Some(reads) = &mut self.reads {
            reads.submit();
        }
        self.reap(map);
        self.queue.ring().tell(map);
        taken
    }

    // A call of its own, so that the ring is not locked while the request is served.
    fn take(&self, map: &Arc<GuestMap>) -> Option<Chain> {
        self.queue.ring().take(map)
    }

    fn serve(&mut self, chain: Chain, map: &Arc<GuestMap>) {
        let (device, queue) = (&self.device, &self.queue);
        let Some(mut request) = Request::parse(chain.clone(), map, &mut self.room) else {
            return finish(device, &mut queue.ring(), map, chain, Outcome::Done(0));
        };
        let writeback = device.is_writeback();
        if request.is_large(&*device.volume) && queue.ring().wants_help(map) {
            self.room = request.into_room();
            return self.pass_on(chain, map);
        }
        let reading = self.reads.as_ref().is_some_and(Reads::is_busy);
        let alone = !reading && queue.ring().is_alone(map);
        self.lonely.note(alone);
        let mut outcome = None;
        if alone && self.lonely.is_so() && request.is_read() {
            // What was completed before must not wait for it.
            queue.ring().tell(map);
            let begun = Instant::now();
            outcome = Some(request.run(&*device.volume, &device.id, writeback));
            self.lonely.took(begun.elapsed());
            self.lonely.note(queue.ring().is_alone(map));
        }
        let mut outcome = outcome.or_else(|| request.try_run(&*device.volume, &device.id, writeback));
        if outcome.is_none()
            && let Some(reads) = &mut self.reads
            && let Some(cold) = request.cold(&*device.volume)
            && reads.begin(chain.clone(), cold)
        {
            self.room = request.into_room();
            return;
        }
        if outcome.is_none() && device.volume.ends_later() {
            let end = await_end(device, queue, chain.clone(), map);
            if request.begin(&*device.volume, writeback, end).is_none() {
                self.room = request.into_room();
                return;
            }
            // It was not begun, and nobody will tell of its end.
            queue.ring().busy -= 1;
        }
        if outcome.is_none() && !request.is_slow() && alone && queue.ring().is_alone(map) {
            // What was completed before must not wait for it.
            queue.ring().tell(map);
            outcome = Some(request.run(&*device.volume, &device.id, writeback));
        }
        self.room = request.into_room();
        match outcome {
            Some(outcome) => self.conclude(chain, map, outcome),
            None => self.pass_on(chain, map),
        }
    }

    /// Has a thread of the pool do it.
    fn pass_on(&mut self, chain: Chain, map: &Arc<GuestMap>) {
        let (device, queue) = (self.device.clone(), self.queue.clone());
        queue.ring().busy += 1;
        let (kept, map) = (chain.clone(), map.clone());
        let job = move |room: &mut Room| {
            let outcome = run(&device, &chain, &map, room);
            end(&device, &queue, &map, chain, outcome);
        };
        if let Err(e) = self.device.pool.run(Box::new(job)) {
            tracing::warn!(volume = self.device.id, error = %e, "no thread for a request: it is done by its queue's");
            let map = self.device.map();
            let outcome = run(&self.device, &kept, &map, &mut self.room);
            end(&self.device, &self.queue, &map, kept, outcome);
        }
    }

    /// Looks out for the next request a little; true if there is one.
    fn watch(&mut self, map: &GuestMap) -> bool {
        let until = Instant::now() + self.watch;
        loop {
            let ring = self.queue.ring();
            if !ring.running {
                return true;
            }
            if ring.has_more(map) || self.reads.as_mut().is_some_and(Reads::has_ended) {
                return true;
            }
            let due = ring.next_due();
            drop(ring);
            let now = Instant::now();
            if now >= until || due.is_some_and(|due| due <= now) {
                return due.is_some_and(|due| due <= now);
            }
            std::hint::spin_loop();
        }
    }

    fn sleep(&mut self) -> io::Result<()> {
        let begun = Instant::now();
        let due = self.queue.ring().next_due();
        let timeout =
            due.map_or(-1, |due| (due.saturating_duration_since(begun).as_millis() + 1).min(60_000) as i32);
        let mut events = [EpollEvent::default(); 3];
        let ready = match self.epoll.wait(timeout, &mut events) {
            Ok(n) => &events[..n],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => &[],
            Err(e) => return Err(e),
        };
        for event in ready {
            match event.data() {
                WAKE => drop(self.wake.read()),
                READ => {} // Looked at in any case.
                _ => {
                    drain(&self.kick)?;
                    // Worth it while requests come soon after we slept; else less and less.
                    self.watch = match begun.elapsed() < WATCH_MAX * 2 {
                        true => (self.watch * 2).clamp(WATCH_MIN, WATCH_MAX),
                        false => self.watch / 2,
                    };
                }
            }
        }
        Ok(())
    }
}

/// Who completes a change that is about to begin.
fn await_end(device: &Arc<Device>, queue: &Arc<Queue>, chain: Chain, map: &Arc<GuestMap>) -> End {
    queue.ring().busy += 1;
    let (device, queue, map) = (device.clone(), queue.clone(), map.clone());
    Box::new(move |result| {
        let request = Request::parse(chain.clone(), &map, &mut Room::default());
        let outcome = request.map_or(Outcome::Done(0), |request| request.conclude(result, &device.id));
        end(&device, &queue, &map, chain, outcome);
    })
}

/// Does a request, however long it takes.
fn run(device: &Device, chain: &Chain, map: &Arc<GuestMap>, room: &mut Room) -> Outcome {
    let Some(mut request) = Request::parse(chain.clone(), map, room) else { return Outcome::Done(0) };
    let outcome = request.run(&*device.volume, &device.id, device.is_writeback());
    *room = request.into_room();
    outcome
}

/// A request that was passed on has ended.
fn end(device: &Device, queue: &Queue, map: &GuestMap, chain: Chain, outcome: Outcome) {
    let held = matches!(outcome, Outcome::Later(_));
    let mut ring = queue.ring();
    finish(device, &mut ring, map, chain, outcome);
    ring.tell(map);
    ring.busy -= 1;
    if ring.busy == 0 {
        queue.idle.notify_all();
    }
    drop(ring);
    if held {
        // Its thread sleeps no longer than until it is due.
        device.wake(queue);
    }
}

/// Completes a request, or keeps it for later. The log is looked at under the ring's lock: once the front-end has been
/// told that changes are noted, none is missed.
fn finish(device: &Device, ring: &mut Ring, map: &GuestMap, chain: Chain, outcome: Outcome) {
    match outcome {
        Outcome::Later(wait) => ring.hold(chain, Instant::now() + wait),
        Outcome::Done(len) => {
            let log = device.log();
            if let Some(log) = &log {
                log.mark_writable(&chain);
            }
            ring.complete(map, log.as_deref(), chain.head_index(), len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_is_waited_for_only_while_nobody_comes_behind_and_disks_are_quick() {
        let mut lonely = Lonely::default();
        lonely.took(QUICK / 2);
        (1..LONELY).for_each(|_| lonely.note(true));
        assert!(!lonely.is_so());
        lonely.note(true);
        assert!(lonely.is_so());
        lonely.took(QUICK);
        assert!(!lonely.is_so(), "the disk is slow");
        lonely.took(QUICK / 2);
        assert!(lonely.is_so());
        lonely.note(false);
        assert!(!lonely.is_so(), "somebody waited");
    }
}
