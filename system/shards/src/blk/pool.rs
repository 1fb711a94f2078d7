//! Threads for requests that wait for a disk or another node, so that the ones behind them need not. One pool serves
//! one connection: a disk that hangs holds up nobody else's threads.
//!
//! Threads are started as they are needed, up to a bound, and end when there is nothing for them to do for a while.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::request::Room;

/// The most threads of one pool: more requests than a disk is asked for at a time wait for a thread.
const THREADS_MAX: usize = 32;
/// How long a thread waits for more to do.
const IDLE: Duration = Duration::from_secs(5);

/// What a thread does; it is lent room for a request's pieces.
pub type Job = Box<dyn FnOnce(&mut Room) + Send>;

/// The threads of one connection.
pub struct Pool {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl Pool {
    /// A pool whose threads have this name.
    pub fn new(name: String) -> Pool {
        Pool { inner: Arc::new(Inner { name, state: Mutex::default(), news: Condvar::new() }) }
    }

    /// Has a job done, soon. An error says that there is no thread to be had at all, and that it was not done.
    pub fn run(&self, job: Job) -> io::Result<()> {
        let mut state = self.inner.state();
        state.jobs.push_back(job);
        if state.idle >= state.jobs.len() || state.threads >= THREADS_MAX {
            self.inner.news.notify_one();
            return Ok(());
        }
        let inner = self.inner.clone();
        match std::thread::Builder::new().name(self.inner.name.clone()).spawn(move || inner.work()) {
            Ok(_) => state.threads += 1,
            Err(e) if state.threads == 0 => {
                state.jobs.pop_back();
                return Err(e);
            }
            Err(_) => {} // Those there are do it.
        }
        Ok(())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.inner.state().closed = true;
        self.inner.news.notify_all();
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut room = Room::default();
        let mut state = self.state();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                job(&mut room);
                state = self.state();
                continue;
            }
            if state.closed {
                break;
            }
            state.idle += 1;
            let (back, timeout) = match self.news.wait_timeout(state, IDLE) {
                Ok(woken) => woken,
                Err(poisoned) => poisoned.into_inner(),
            };
            state = back;
            state.idle -= 1;
            if timeout.timed_out() && state.jobs.is_empty() {
                break;
            }
        }
        state.threads -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn jobs_that_wait_do_not_hold_up_others() {
        let pool = Pool::new("test".into());
        let all = Arc::new(Barrier::new(THREADS_MAX + 1));
        for _ in 0..THREADS_MAX {
            let all = all.clone();
            let job = move |_: &mut Room| {
                all.wait();
            };
            pool.run(Box::new(job)).unwrap();
        }
        all.wait();
    }

    #[test]
    fn more_jobs_than_threads_are_all_done() {
        let pool = Pool::new("test".into());
        let (done, seen) = channel();
        let most = Arc::new(AtomicUsize::new(0));
        for n in 0..1000 {
            let (done, inner, most) = (done.clone(), pool.inner.clone(), most.clone());
            let job = move |_: &mut Room| {
                most.fetch_max(inner.state().threads, SeqCst);
                done.send(n).unwrap();
            };
            pool.run(Box::new(job)).unwrap();
        }
        let mut all: Vec<i32> = seen.iter().take(1000).collect();
        all.sort_unstable();
        assert_eq!(all, (0..1000).collect::<Vec<_>>());
        assert!(most.load(SeqCst) <= THREADS_MAX);
    }

    #[test]
    fn threads_end_with_their_pool() {
        let pool = Pool::new("test".into());
        pool.run(Box::new(|_| ())).unwrap();
        let inner = pool.inner.clone();
        drop(pool);
        for _ in 0..1000 {
            if inner.state().threads == 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("a thread outlives its pool by 2 s");
    }
}
