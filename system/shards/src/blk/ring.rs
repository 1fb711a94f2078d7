//! A ring of a device: the library's own, but for a kick that is already gone when it is read.
//!
//! The library ends a worker thread whose kick descriptor has nothing to read, which happens when a driver
//! resets a queue while its worker is busy; the guest's disk would hang. Here that is no kick, and no more.

use std::fs::File;
use std::io;
use std::sync::MutexGuard;

use vhost_user_backend::{VringMutex, VringState, VringStateGuard, VringStateMutGuard, VringT};
use virtio_queue::Error;

use super::GuestMemory;

/// A ring.
#[derive(Clone)]
pub struct Ring(VringMutex<GuestMemory>);

impl<'a> VringStateGuard<'a, GuestMemory> for Ring {
    type G = MutexGuard<'a, VringState<GuestMemory>>;
}

impl<'a> VringStateMutGuard<'a, GuestMemory> for Ring {
    type G = MutexGuard<'a, VringState<GuestMemory>>;
}

impl VringT<GuestMemory> for Ring {
    fn new(memory: GuestMemory, max_queue_size: u16) -> Result<Self, Error> {
        VringMutex::new(memory, max_queue_size).map(Ring)
    }

    fn get_ref(&self) -> MutexGuard<'_, VringState<GuestMemory>> {
        self.0.get_ref()
    }

    fn get_mut(&self) -> MutexGuard<'_, VringState<GuestMemory>> {
        self.0.get_mut()
    }

    fn add_used(&self, head: u16, len: u32) -> Result<(), Error> {
        self.0.add_used(head, len)
    }

    fn signal_used_queue(&self) -> io::Result<()> {
        self.0.signal_used_queue()
    }

    fn enable_notification(&self) -> Result<bool, Error> {
        self.0.enable_notification()
    }

    fn disable_notification(&self) -> Result<(), Error> {
        self.0.disable_notification()
    }

    fn needs_notification(&self) -> Result<bool, Error> {
        self.0.needs_notification()
    }

    fn set_enabled(&self, enabled: bool) {
        self.0.set_enabled(enabled);
    }

    fn set_queue_info(&self, descriptors: u64, available: u64, used: u64) -> Result<(), Error> {
        self.0.set_queue_info(descriptors, available, used)
    }

    fn queue_next_avail(&self) -> u16 {
        self.0.queue_next_avail()
    }

    fn set_queue_next_avail(&self, base: u16) {
        self.0.set_queue_next_avail(base);
    }

    fn set_queue_next_used(&self, index: u16) {
        self.0.set_queue_next_used(index);
    }

    fn queue_used_idx(&self) -> Result<u16, Error> {
        self.0.queue_used_idx()
    }

    fn set_queue_size(&self, size: u16) {
        self.0.set_queue_size(size);
    }

    fn set_queue_event_idx(&self, enabled: bool) {
        self.0.set_queue_event_idx(enabled);
    }

    fn set_queue_ready(&self, ready: bool) {
        self.0.set_queue_ready(ready);
    }

    fn set_kick(&self, file: Option<File>) {
        self.0.set_kick(file);
    }

    fn read_kick(&self) -> io::Result<bool> {
        // Whatever the front-end made of its descriptor: without a kick there is nothing to do, ever an error.
        Ok(self.0.read_kick().unwrap_or(false))
    }

    fn set_call(&self, file: Option<File>) {
        self.0.set_call(file);
    }

    fn set_err(&self, file: Option<File>) {
        self.0.set_err(file);
    }
}
