//! A watch channel that wakes who waits in the order they came. (Tokio's picks by its own dice, which no seed
//! governs.)

use std::ops::Deref;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard};

use openraft::async_runtime::watch::{RecvError, SendError, Watch, WatchReceiver, WatchSender};
use openraft::{OptionalSend, OptionalSync};
use tokio::sync::Notify;

/// The channel.
pub struct Orderly;

struct Shared<T> {
    value: RwLock<T>,
    version: AtomicU64,
    senders: AtomicUsize,
    moved: Notify,
}

pub struct Sender<T>(Arc<Shared<T>>);

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::Relaxed);
        Sender(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.moved.notify_waiters();
        }
    }
}

pub struct Receiver<T>(Arc<Shared<T>>, u64);

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Receiver(self.0.clone(), self.1)
    }
}

pub struct Guard<'a, T>(RwLockReadGuard<'a, T>);

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl Watch for Orderly {
    type Sender<T: OptionalSend + OptionalSync> = Sender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = Guard<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (Sender<T>, Receiver<T>) {
        let (version, senders) = (AtomicU64::new(0), AtomicUsize::new(1));
        let shared = Arc::new(Shared { value: RwLock::new(init), version, senders, moved: Notify::new() });
        (Sender(shared.clone()), Receiver(shared, 0))
    }
}

impl<T: OptionalSend + OptionalSync> WatchSender<Orderly, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.send_if_modified(|now| {
            *now = value;
            true
        });
        Ok(())
    }

    fn send_if_modified<F: FnOnce(&mut T) -> bool>(&self, modify: F) -> bool {
        let modified = modify(&mut self.0.value.write().unwrap());
        if modified {
            self.0.version.fetch_add(1, Ordering::Relaxed);
            self.0.moved.notify_waiters();
        }
        modified
    }

    fn borrow_watched(&self) -> Guard<'_, T> {
        Guard(self.0.value.read().unwrap())
    }

    fn subscribe(&self) -> Receiver<T> {
        Receiver(self.0.clone(), self.0.version.load(Ordering::Relaxed))
    }
}

impl<T: OptionalSend + OptionalSync> WatchReceiver<Orderly, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        loop {
            let mut moved = pin!(self.0.moved.notified());
            moved.as_mut().enable();
            let version = self.0.version.load(Ordering::Relaxed);
            if version != self.1 {
                self.1 = version;
                return Ok(());
            }
            if self.0.senders.load(Ordering::Relaxed) == 0 {
                return Err(RecvError(()));
            }
            moved.await;
        }
    }

    fn borrow_watched(&self) -> Guard<'_, T> {
        Guard(self.0.value.read().unwrap())
    }

    fn borrow_and_update(&mut self) -> Guard<'_, T> {
        self.1 = self.0.version.load(Ordering::Relaxed);
        Guard(self.0.value.read().unwrap())
    }
}
