//! The device behind one connection: takes requests off the rings, one after the other, and completes them.
//!
//! A ring is locked while one of its requests is done, so that a front-end that stops the ring finds no request
//! taken and not completed. It must never end a worker thread because of what a guest did.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_user_backend::{VhostUserBackend, VringState, VringT};
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::GuestAddressSpace;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier};
use vmm_sys_util::timerfd::TimerFd;

use super::request::{Outcome, Request, Room, mark_dirty};
use super::ring::Ring;
use super::{Bitmap, GuestMap, GuestMemory, config};
use crate::media::Media;

/// Worker threads per connection; the queues are dealt out among them.
pub const WORKERS: usize = 2;
/// The event of a worker's timer. Numbers up to the count of queues belong to the library.
pub const TIMER_EVENT: u16 = config::QUEUES as u16 + 1;
/// The guest is told of completions at least after so many.
const COMPLETIONS_UNTOLD_MAX: usize = 16;

/// A volume as a virtio block device.
pub struct Device {
    id: String,
    volume: Arc<dyn Media>,
    memory: GuestMemory,
    acked: AtomicU64,
    writeback: AtomicBool,
    stopping: AtomicBool,
    workers: Vec<Worker>,
    /// Descriptors that the library takes and never closes.
    exits: Mutex<Vec<RawFd>>,
}

struct Worker {
    room: Mutex<Room>,
    timer: Mutex<Timer>,
}

/// When rings are looked at again.
struct Timer {
    fd: TimerFd,
    due: Option<Instant>,
}

/// How far a worker came with a ring.
enum Drained {
    /// It took so many requests and found no more.
    Empty(usize),
    /// The ring is stopped, or a request is held for want of room.
    Stopped,
}

impl Device {
    /// The device of a volume, for one connection.
    pub fn new(id: &str, volume: Arc<dyn Media>, memory: GuestMemory) -> io::Result<Device> {
        let worker = || {
            Ok(Worker { room: Mutex::default(), timer: Mutex::new(Timer { fd: TimerFd::new()?, due: None }) })
        };
        Ok(Device {
            id: id.into(),
            volume,
            memory,
            acked: AtomicU64::new(0),
            writeback: AtomicBool::new(true),
            stopping: AtomicBool::new(false),
            workers: (0..WORKERS).map(|_| worker()).collect::<io::Result<_>>()?,
            exits: Mutex::default(),
        })
    }

    /// The timer of a worker, which asks for [`TIMER_EVENT`].
    pub fn timer(&self, worker: usize) -> RawFd {
        guard(&self.workers[worker].timer).fd.as_raw_fd()
    }

    /// Makes the workers take no further request.
    pub fn stop(&self) {
        self.stopping.store(true, SeqCst);
    }

    /// The descriptors that must be closed once the workers are gone.
    pub fn take_exits(&self) -> Vec<RawFd> {
        std::mem::take(&mut guard(&self.exits))
    }

    fn process(&self, ring: &Ring, worker: usize) {
        let memory = self.memory.memory();
        let mut room = guard(&self.workers[worker].room);
        let mut idle = 0;
        // A ring that says twice running that there is more and yields nothing is broken (its guest's doing).
        while idle < 2 {
            let _ = ring.disable_notification();
            match self.drain(ring, &memory, worker, &mut room) {
                Drained::Stopped => return,
                Drained::Empty(0) => idle += 1,
                Drained::Empty(_) => idle = 0,
            }
            if !ring.enable_notification().unwrap_or(false) {
                return;
            }
        }
    }

    fn drain(&self, ring: &Ring, memory: &GuestMap, worker: usize, room: &mut Room) -> Drained {
        let (mut taken, mut untold) = (0, 0);
        loop {
            let mut state = ring.get_mut();
            if self.stopping.load(SeqCst) || !state.is_enabled() || !state.get_queue().ready() {
                tell(&mut state, &mut untold);
                return Drained::Stopped;
            }
            let Some(chain) = state.get_queue_mut().pop_descriptor_chain(memory) else {
                tell(&mut state, &mut untold);
                return Drained::Empty(taken);
            };
            let (head, written) = (chain.head_index(), chain.clone());
            let mut len = 0;
            if let Some(request) = Request::parse(chain, memory, room) {
                if request.is_slow() {
                    tell(&mut state, &mut untold);
                }
                match request.run(&*self.volume, &self.id, self.is_writeback(), room) {
                    Outcome::Done(bytes) => len = bytes,
                    Outcome::Later(wait) => {
                        state.get_queue_mut().go_to_previous_position();
                        tell(&mut state, &mut untold);
                        self.retry_later(worker, wait);
                        return Drained::Stopped;
                    }
                }
                if self.acked.load(SeqCst) & config::LOG_ALL != 0 {
                    mark_dirty(written, memory);
                }
            }
            if state.add_used(head, len).is_ok() {
                untold += 1;
            }
            taken += 1;
            if untold >= COMPLETIONS_UNTOLD_MAX {
                tell(&mut state, &mut untold);
            }
        }
    }

    fn is_writeback(&self) -> bool {
        config::is_writeback(self.acked.load(SeqCst), self.writeback.load(SeqCst))
    }

    fn retry_later(&self, worker: usize, wait: Duration) {
        let mut timer = guard(&self.workers[worker].timer);
        let due = Instant::now() + wait;
        // Another ring of this worker may have to be looked at sooner.
        if timer.due.is_some_and(|earlier| earlier <= due) {
            return;
        }
        timer.due = Some(due);
        if let Err(e) = timer.fd.reset(wait, None) {
            tracing::error!(volume = self.id, error = %e, "no timer for a held request");
        }
    }
}

/// Tells the guest of completions, if there are any and it wants to know.
fn tell(state: &mut VringState<GuestMemory>, untold: &mut usize) {
    if *untold > 0 && state.needs_notification().unwrap_or(true) {
        let _ = state.signal_used_queue();
    }
    *untold = 0;
}

impl VhostUserBackend for Device {
    type Bitmap = Bitmap;
    type Vring = Ring;

    fn num_queues(&self) -> usize {
        config::QUEUES
    }

    fn max_queue_size(&self) -> usize {
        config::QUEUE_SIZE_MAX
    }

    fn features(&self) -> u64 {
        config::features(self.volume.read_only())
    }

    fn acked_features(&self, features: u64) {
        self.acked.store(features, SeqCst);
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        config::protocol_features()
    }

    fn reset_device(&self) {
        self.acked.store(0, SeqCst);
        self.writeback.store(true, SeqCst);
    }

    fn set_event_idx(&self, _enabled: bool) {}

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        config::read(self.volume.size(), self.writeback.load(SeqCst), offset, size)
    }

    fn set_config(&self, offset: u32, bytes: &[u8]) -> io::Result<()> {
        match (offset, bytes) {
            (config::WRITEBACK_OFFSET, [byte @ (0 | 1)]) => {
                self.writeback.store(*byte == 1, SeqCst);
                // What was cached until now must not wait for a flush that will not come.
                if *byte == 0 { self.volume.flush() } else { Ok(()) }
            }
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn update_memory(&self, _memory: GuestMemory) -> io::Result<()> {
        Ok(()) // It is the one this device was made with.
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        let all = u64::MAX >> (64 - config::QUEUES);
        let every = (0..64).step_by(WORKERS).fold(0u64, |mask, bit| mask | 1 << bit);
        (0..WORKERS).map(|w| (every << w) & all).collect()
    }

    fn exit_event(&self, _worker: usize) -> Option<(EventConsumer, EventNotifier)> {
        let (consumer, notifier) =
            new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC).ok()?;
        guard(&self.exits).push(consumer.as_raw_fd());
        Some((consumer, notifier))
    }

    fn handle_event(&self, event: u16, _: EventSet, rings: &[Ring], worker: usize) -> io::Result<()> {
        if event == TIMER_EVENT {
            let mut timer = guard(&self.workers[worker].timer);
            let _ = timer.fd.wait();
            timer.due = None;
            drop(timer);
            rings.iter().for_each(|ring| self.process(ring, worker));
        } else if let Some(ring) = rings.get(usize::from(event)) {
            self.process(ring, worker);
        }
        Ok(())
    }
}

// What these locks guard is whole after a panic.
fn guard<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
