//! The runtime of a simulated node: tokio's paused clock, dice from the seed, tasks that end with their node or stand
//! still with it, and a clock per node that may jump.

use std::cell::RefCell;
use std::future::Future;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use openraft::{AsyncRuntime, OptionalSend, TokioRuntime};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::disk::Dice;

/// One life of a node.
#[derive(Debug, Default)]
pub struct Life {
    over: AtomicBool,
    /// How far its clock is ahead, in nanoseconds.
    ahead: AtomicI64,
    /// The latest that its clock has shown: it never goes back, but may stand still.
    shown: AtomicU64,
    /// How many reasons there are for it to stand still.
    frozen: AtomicU32,
    waiting: Mutex<Vec<Waker>>,
}

impl Life {
    /// Ends it: none of its tasks goes on.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Its clock goes ahead by so many milliseconds, or lags behind by as many.
    pub fn jump(&self, by_ms: i64) {
        self.ahead.fetch_add(by_ms * 1_000_000, Ordering::Relaxed);
    }

    /// Nothing of it moves for so long; what reaches it meanwhile waits.
    pub async fn freeze(&self, time: Duration) {
        self.frozen.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(time).await;
        self.frozen.fetch_sub(1, Ordering::Relaxed);
        self.waiting.lock().unwrap().drain(..).for_each(Waker::wake);
    }
}

thread_local! {
    static LIFE: RefCell<Option<Arc<Life>>> = const { RefCell::new(None) };
    static START: RefCell<Option<tokio::time::Instant>> = const { RefCell::new(None) };
    static DICE: RefCell<Dice> = const { RefCell::new(Dice(0)) };
}

/// Begins a simulation on this thread.
pub fn begin(seed: u64) {
    LIFE.set(None);
    START.set(Some(tokio::time::Instant::now()));
    DICE.set(Dice(seed));
}

/// A number below `n`, of this thread's simulation.
pub fn below(n: u64) -> u64 {
    DICE.with_borrow_mut(|dice| dice.below(n))
}

/// A future that is part of a node's life.
pub struct Living<F> {
    life: Option<Arc<Life>>,
    future: Option<Pin<Box<F>>>,
}

/// Runs a future as part of a node's life.
pub fn live<F: Future>(life: &Arc<Life>, future: F) -> Living<F> {
    Living { life: Some(life.clone()), future: Some(Box::pin(future)) }
}

impl<F: Future> Future for Living<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        if self.life.as_ref().is_some_and(|life| life.over.load(Ordering::Relaxed)) {
            self.future = None;
        }
        if let Some(life) = self.life.as_ref().filter(|life| life.frozen.load(Ordering::Relaxed) > 0) {
            life.waiting.lock().unwrap().push(cx.waker().clone());
            return Poll::Pending;
        }
        let _within = Within(LIFE.replace(self.life.clone()));
        match &mut self.future {
            Some(future) => future.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

/// While it is there, another life is lived on this thread; then this one again, also after a panic.
struct Within(Option<Arc<Life>>);

impl Drop for Within {
    fn drop(&mut self) {
        LIFE.set(self.0.take());
    }
}

/// Time on the clock of the node whose task asks, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

/// The clock of the node whose task asks.
pub fn clock() -> Duration {
    let start = START.with_borrow(|start| start.map_or(Duration::ZERO, |start| start.elapsed()));
    // Far from zero, so that any plausible time can be taken away.
    let time = start + Duration::from_secs(1_000_000);
    LIFE.with_borrow(|life| match life {
        Some(life) => {
            let ahead = life.ahead.load(Ordering::Relaxed);
            let time = (time.as_nanos() as u64).saturating_add_signed(ahead);
            Duration::from_nanos(life.shown.fetch_max(time, Ordering::Relaxed).max(time))
        }
        None => time,
    })
}

impl openraft::Instant for Moment {
    fn now() -> Self {
        Moment(clock().as_nanos() as u64)
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;
    fn add(self, by: Duration) -> Moment {
        Moment(self.0 + by.as_nanos() as u64)
    }
}

impl AddAssign<Duration> for Moment {
    fn add_assign(&mut self, by: Duration) {
        *self = *self + by;
    }
}

impl Sub<Duration> for Moment {
    type Output = Moment;
    fn sub(self, by: Duration) -> Moment {
        Moment(self.0 - by.as_nanos() as u64)
    }
}

impl SubAssign<Duration> for Moment {
    fn sub_assign(&mut self, by: Duration) {
        *self = *self - by;
    }
}

impl Sub for Moment {
    type Output = Duration;
    fn sub(self, other: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(other.0))
    }
}

/// The runtime.
#[derive(Debug)]
pub struct Simulation;

type Real = TokioRuntime;

impl AsyncRuntime for Simulation {
    type JoinError = <Real as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <Real as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <Real as AsyncRuntime>::Sleep;
    type Instant = Moment;
    type TimeoutError = <Real as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <Real as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = SmallRng;
    type Mpsc = <Real as AsyncRuntime>::Mpsc;
    type Watch = crate::channel::Orderly;
    type Oneshot = <Real as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <Real as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        let life = LIFE.with_borrow(Clone::clone);
        tokio::spawn(Living { life, future: Some(Box::pin(future)) })
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        tokio::time::sleep(duration)
    }

    fn sleep_until(deadline: Moment) -> Self::Sleep {
        tokio::time::sleep(deadline - <Moment as openraft::Instant>::now())
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        tokio::time::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Moment,
        future: F,
    ) -> Self::Timeout<R, F> {
        tokio::time::timeout(deadline - <Moment as openraft::Instant>::now(), future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        error.is_panic()
    }

    fn thread_rng() -> SmallRng {
        SmallRng::seed_from_u64(below(u64::MAX))
    }

    fn new(_: usize) -> Self {
        Simulation
    }

    fn block_on<F: Future<Output = T>, T>(&mut self, _: F) -> T {
        unreachable!("the simulation has its own runtime")
    }
}

/// The engine on the simulation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Simulated;

impl cairn_state::raft::Runtime for Simulated {
    type Async = Simulation;
}
