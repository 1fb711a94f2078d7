//! The device behind one connection: the volume, what was agreed with the front-end, and the rings with their threads.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};

use super::backchannel::Backchannel;
use super::inflight::Inflight;
use super::memory::{DirtyLog, Memory};
use super::pool::Pool;
use super::ring::Ring;
use super::worker::Worker;
use super::{GuestMap, config};
use crate::media::Media;

/// A volume as a virtio block device, for one connection.
pub struct Device {
    /// The volume's id.
    pub id: String,
    /// What is served.
    pub volume: Arc<dyn Media>,
    /// Threads for requests that wait.
    pub pool: Pool,
    acked: AtomicU64,
    writeback: AtomicBool,
    memory: RwLock<Memory>,
    log: RwLock<Option<Arc<DirtyLog>>>,
    back: Mutex<Option<Backchannel>>,
    /// The size that the front-end was last told to look at, in bytes.
    told: AtomicU64,
    rings: Vec<Arc<Queue>>,
    workers: Mutex<Vec<Option<Worker>>>,
}

/// A ring that several threads are at.
pub struct Queue {
    index: usize,
    ring: Mutex<Ring>,
    /// Told when nothing is under way any more.
    pub idle: Condvar,
}

impl Queue {
    /// The ring, locked.
    pub fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its number.
    pub fn index(&self) -> usize {
        self.index
    }
}

impl Device {
    /// The device of a volume.
    pub fn new(id: &str, volume: Arc<dyn Media>) -> io::Result<Device> {
        let queue = |index| {
            let ring = Mutex::new(Ring::new().map_err(io::Error::other)?);
            Ok(Arc::new(Queue { index, ring, idle: Condvar::new() }))
        };
        Ok(Device {
            id: id.into(),
            volume,
            pool: Pool::new(format!("io-{}", id.get(..8).unwrap_or(id))),
            acked: AtomicU64::new(0),
            writeback: AtomicBool::new(true),
            memory: RwLock::default(),
            log: RwLock::default(),
            back: Mutex::default(),
            told: AtomicU64::new(0),
            rings: (0..config::QUEUES).map(queue).collect::<io::Result<_>>()?,
            workers: Mutex::new((0..config::QUEUES).map(|_| None).collect()),
        })
    }

    /// A ring; `None` if there is none of this number.
    pub fn queue(&self, index: usize) -> Option<&Arc<Queue>> {
        self.rings.get(index)
    }

    /// The guest's memory as it is now.
    pub fn memory(&self) -> Memory {
        self.memory.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same, as requests use it.
    pub fn map(&self) -> Arc<GuestMap> {
        self.memory.read().unwrap_or_else(PoisonError::into_inner).map().clone()
    }

    /// The guest's memory is this from now on; requests under way go on with what they began with.
    pub fn set_memory(&self, memory: Memory) {
        *self.memory.write().unwrap_or_else(PoisonError::into_inner) = memory;
    }

    /// Where changes of the guest's memory are noted, if they are.
    pub fn log(&self) -> Option<Arc<DirtyLog>> {
        if self.acked.load(SeqCst) & config::LOG_ALL == 0 {
            return None;
        }
        self.log.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes are noted there, whenever the front-end asks for it.
    pub fn set_log(&self, log: DirtyLog) {
        *self.log.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(log));
    }

    /// The features that the front-end took.
    pub fn set_features(&self, features: u64) {
        self.acked.store(features, SeqCst);
        self.rings.iter().for_each(|queue| queue.ring().set_event_idx(config::has_event_idx(features)));
    }

    /// The front-end keeps this for us.
    pub fn set_inflight(&self, inflight: &Arc<Inflight>) {
        self.rings.iter().for_each(|queue| queue.ring().track(inflight.queue(queue.index)));
    }

    /// Whether a write may wait for a flush to be durable.
    pub fn is_writeback(&self) -> bool {
        config::is_writeback(self.acked.load(SeqCst), self.writeback.load(SeqCst))
    }

    /// A part of the configuration space.
    pub fn config(&self, offset: u32, len: u32) -> Vec<u8> {
        config::read(self.volume.size(), self.writeback.load(SeqCst), offset, len)
    }

    /// The front-end can be told of changes this way.
    pub fn set_back(&self, back: Backchannel) {
        *guard(&self.back) = Some(back);
    }

    /// Tells the front-end if the volume has grown since it was last told.
    pub fn heed_size(&self) {
        let size = self.volume.size();
        if self.told.swap(size, SeqCst) != size {
            self.tell_config();
        }
    }

    fn tell_config(&self) {
        if let Some(Err(e)) = guard(&self.back).as_ref().map(Backchannel::config_changed) {
            tracing::debug!(volume = self.id, error = %e, "a front-end was not told of a change");
        }
    }

    /// Changes the only part of it that may be: whether there is a write cache.
    pub fn set_config(&self, offset: u32, bytes: &[u8]) -> io::Result<()> {
        match (offset, bytes) {
            (config::WRITEBACK_OFFSET, [byte @ (0 | 1)]) => {
                self.writeback.store(*byte == 1, SeqCst);
                // What was cached until now must not wait for a flush that will not come.
                if *byte == 0 { self.volume.flush() } else { Ok(()) }
            }
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// As it was before a driver took it.
    pub fn reset(&self) {
        self.acked.store(0, SeqCst);
        self.writeback.store(true, SeqCst);
    }

    /// Starts a ring if it is enabled and has a kick descriptor, or lets it be.
    pub fn start(self: &Arc<Device>, queue: &Arc<Queue>) -> io::Result<()> {
        let mut workers = guard(&self.workers);
        let mut ring = queue.ring();
        let Some(kick) = ring.kick.clone().filter(|_| ring.enabled && !ring.running) else { return Ok(()) };
        ring.start(&self.map(), self.log().as_deref()).map_err(io::Error::other)?;
        match Worker::start(self.clone(), queue.clone(), kick) {
            Ok(worker) => workers[queue.index] = Some(worker),
            Err(e) => {
                ring.running = false;
                return Err(e);
            }
        }
        drop((ring, workers));
        // A front-end that came back has not asked for the size again, which may have grown while nobody served it.
        self.heed_size();
        Ok(())
    }

    /// Stops a ring: nothing of it is under way when this returns. Answers which request is to be taken next.
    pub fn stop(&self, queue: &Queue) -> io::Result<u16> {
        queue.ring().running = false;
        // Out of the list first: a worker that is joined may be at something long.
        let worker = guard(&self.workers)[queue.index].take();
        drop(worker);
        let mut ring = queue.ring();
        while ring.busy > 0 {
            ring = queue.idle.wait(ring).unwrap_or_else(PoisonError::into_inner);
        }
        let map = self.map();
        ring.tell(&map);
        ring.stop(&map, self.log().as_deref()).map_err(io::Error::other)
    }

    /// Makes workers take no further request.
    pub fn quiesce(&self) {
        self.rings.iter().for_each(|queue| queue.ring().running = false);
    }

    /// Stops all rings, when the connection has ended.
    pub fn end(&self) {
        for queue in &self.rings {
            if guard(&self.workers)[queue.index].is_some()
                && let Err(e) = self.stop(queue)
            {
                tracing::debug!(volume = self.id, error = %e, "a ring was lost with its guest's memory");
            }
        }
    }

    /// Wakes the thread of a ring.
    pub fn wake(&self, queue: &Queue) {
        if let Some(worker) = &guard(&self.workers)[queue.index] {
            worker.wake();
        }
    }
}

/// Makes a ring's descriptor for calls or kicks of one that the front-end sent.
pub fn event(file: Option<File>) -> io::Result<File> {
    file.ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, "rings without event descriptors"))
}

// What these locks guard is whole after a panic.
fn guard<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
