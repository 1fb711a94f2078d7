//! The guest, from outside: what it is told to do, and what it did and saw. [`crate::life`] is the guest itself.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::dice::Dice;
use crate::life::Life;
use crate::model::Model;
use crate::stamp::SECTOR;

/// How it loads the volume.
#[derive(Clone, Debug)]
pub struct Load {
    pub dice: Dice,
    /// Requests under way.
    pub depth: usize,
    /// Of a hundred requests, those that flush.
    pub flushes: u64,
    /// Where most of them are.
    pub hot: Range<u64>,
    /// Whether a request may fail: a disk was made to.
    pub may_fail: bool,
}

/// What it is told to do.
pub enum Order {
    Attach(PathBuf),
    Die {
        undead: bool,
    },
    MayLose,
    Load(Load),
    Check {
        whole: bool,
        done: Sender<()>,
    },
    /// The volume is another guest's: those that are undead write from now on.
    Haunt(Dice),
    Bury,
}

/// What it did and saw.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub writes: u64,
    pub zeroed: u64,
    pub reads: u64,
    pub sectors_read: u64,
    pub flushes: u64,
    /// Flushes that failed because a power cut had taken what was not flushed.
    pub losses_told: u64,
    /// Reads that failed until then.
    pub withheld: u64,
    /// Requests that failed while a disk was made to fail.
    pub errors: u64,
    pub reconnects: u64,
    /// It has read all that was in doubt since it was attached, and flushed: its node has the volume.
    pub settled: bool,
    /// What front-ends asked for whose volume another had.
    pub haunting: u64,
    pub longest: Duration,
    /// Numbers of the flush that was asked for last, and of the latest of those that are done.
    pub asked: u64,
    pub done: u64,
    pub found: Option<String>,
}

/// The thread, from outside.
pub struct Vm {
    orders: Sender<Order>,
    tally: Arc<Mutex<Tally>>,
    model: Arc<Mutex<Model>>,
}

// What these locks guard is whole after a panic.
pub fn guard<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Vm {
    /// A guest of a volume of so many bytes, which is attached to nothing.
    pub fn start(size: u64) -> Vm {
        let (orders, heard) = channel();
        let tally = Arc::<Mutex<Tally>>::default();
        let model = Arc::new(Mutex::new(Model::new(size / SECTOR as u64)));
        let mut life = Life::new(heard, tally.clone(), model.clone());
        std::thread::spawn(move || life.run());
        Vm { orders, tally, model }
    }

    fn order(&self, order: Order) -> Result<()> {
        self.orders.send(order).ok().context("the guest's thread has ended; its words are above")
    }

    pub fn tally(&self) -> Tally {
        guard(&self.tally).clone()
    }

    /// It starts, with this disk.
    pub fn attach(&self, socket: PathBuf) -> Result<()> {
        guard(&self.tally).settled = false;
        self.order(Order::Attach(socket))
    }

    /// It is no more; `undead`: what it had asked for is still done by whoever has it.
    pub fn die(&self, undead: bool) -> Result<()> {
        self.order(Order::Die { undead })
    }

    /// Those that are undead write from now on: another guest is served.
    pub fn haunt(&self, dice: Dice) -> Result<()> {
        self.order(Order::Haunt(dice))
    }

    /// Those that were undead are no more.
    pub fn bury(&self) -> Result<()> {
        self.order(Order::Bury)
    }

    /// All that was not flushed may be gone.
    pub fn may_lose(&self) -> Result<()> {
        self.order(Order::MayLose)
    }

    pub fn load(&self, load: Load) -> Result<()> {
        self.order(Order::Load(load))
    }

    /// Waits until it knows what the volume holds; false if that takes too long.
    pub fn until_settled(&self, patience: Duration) -> Result<bool> {
        let deadline = Instant::now() + patience;
        while !self.tally().settled && Instant::now() < deadline {
            self.verdict()?;
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(self.tally().settled)
    }

    /// It ends what is under way, reads what was touched since the last check or the whole volume, flushes and rests.
    pub fn check(&self, whole: bool, patience: Duration) -> Result<()> {
        let (done, until) = channel();
        self.order(Order::Check { whole, done })?;
        let deadline = Instant::now() + patience;
        while until.recv_timeout(Duration::from_millis(20)).is_err() {
            self.verdict()?;
            if Instant::now() > deadline {
                bail!("the guest is stuck for {} s", patience.as_secs());
            }
        }
        self.verdict()
    }

    /// What the volume may hold.
    pub fn known(&self) -> Result<MutexGuard<'_, Model>> {
        self.verdict()?;
        Ok(guard(&self.model))
    }

    /// Fails if it saw what must not be.
    pub fn verdict(&self) -> Result<()> {
        match &guard(&self.tally).found {
            Some(found) => bail!("{found}"),
            None => Ok(()),
        }
    }
}
