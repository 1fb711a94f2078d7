//! The one writer of the state's file: it takes whatever jobs wait, does them in order, and tells who waits.
//!
//! A job that must be durable is done when its commit is on stable media. Any other is done when it is run: the log has
//! what it came from, and it is seen by whoever reads from then on (see `file`). It must never report a job done before,
//! and never wait for a reader. After a failure of the disk nothing more is written: what is on it is decided by opening
//! it again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::file::{Open, StateFile};
use crate::kv::StoreError;

/// The most jobs that are done in one go, so that who reads does not wait long.
const JOBS_MAX: usize = 1024;
/// The most bytes of them (a single larger job goes alone).
const BYTES_MAX: usize = 2 << 20;

/// Something to be written.
pub(crate) trait Job: Send {
    /// Whether it must be on stable media before it is done.
    fn durable(&self) -> bool;
    /// About how many bytes it writes.
    fn weight(&self) -> usize;
    /// Writes it. An error is the disk's: nothing is written after it.
    fn run(&mut self, open: &mut Open) -> Result<(), StoreError>;
    /// Is told how it ended.
    fn done(self: Box<Self>, result: Result<(), StoreError>);
}

/// Where jobs are put. The writer ends when the last of these is dropped, after what is in the queue.
#[derive(Clone)]
pub(crate) struct Queue {
    jobs: mpsc::UnboundedSender<Box<dyn Job>>,
    /// How many were put and are not done.
    waiting: Arc<AtomicUsize>,
    file: Arc<StateFile>,
}

impl Queue {
    /// Puts a job behind the others. How many may wait is bounded by who asks: see `store`.
    pub(crate) fn put(&self, job: impl Job + 'static) {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        if let Err(mpsc::error::SendError(job)) = self.jobs.send(Box::new(job)) {
            job.done(Err(gone()));
        }
    }

    /// Does a job that need not be durable at once, on this thread, if none waits: to wake the writer would take longer
    /// than a small one does. Otherwise as [`Queue::put`].
    pub(crate) fn put_or_do(&self, mut job: impl Job + 'static) {
        if self.waiting.load(Ordering::Acquire) > 0 {
            return self.put(job);
        }
        match self.file.write_at_once(|open| job.run(open)) {
            None => self.put(job),
            Some(result) => {
                if matches!(result, Ok(true)) {
                    self.put(Save);
                }
                Box::new(job).done(result.map(drop));
            }
        }
    }
}

/// Nothing to write but what is not on stable media yet.
struct Save;

impl Job for Save {
    fn durable(&self) -> bool {
        true
    }

    fn weight(&self) -> usize {
        0
    }

    fn run(&mut self, _: &mut Open) -> Result<(), StoreError> {
        Ok(())
    }

    fn done(self: Box<Self>, _: Result<(), StoreError>) {}
}

pub(crate) fn gone() -> StoreError {
    StoreError::Storage("the store's writer has stopped".into())
}

/// Does what nothing follows if it fails, unless something has failed before. The first failure of the disk is told.
pub(crate) fn guarded<T>(
    failures: &watch::Sender<Option<StoreError>>,
    work: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    if let Some(e) = &*failures.borrow() {
        return Err(e.clone());
    }
    let result = work();
    if let Err(e) = &result {
        failures.send_if_modified(|failure| {
            let first = failure.is_none();
            if first {
                tracing::error!(error = %e, "the store could not commit, and writes no more");
                *failure = Some(e.clone());
            }
            first
        });
    }
    result
}

/// The writer.
pub(crate) struct Writer {
    file: Arc<StateFile>,
    jobs: mpsc::UnboundedReceiver<Box<dyn Job>>,
    waiting: Arc<AtomicUsize>,
}

/// A writer that is not running yet, and the queue to it.
pub(crate) fn writer(file: Arc<StateFile>) -> (Writer, Queue) {
    let (queue, jobs) = mpsc::unbounded_channel();
    let waiting = Arc::<AtomicUsize>::default();
    let queue = Queue { jobs: queue, waiting: waiting.clone(), file: file.clone() };
    (Writer { file, jobs, waiting }, queue)
}

impl Writer {
    /// Serves the queue on this thread.
    pub(crate) fn run(mut self) {
        while let Some(first) = self.jobs.blocking_recv() {
            self.serve(first);
        }
        self.end();
    }

    /// Serves the queue as a task, for simulations: each commit takes as long as `pace` says.
    pub(crate) async fn run_paced(mut self, mut pace: impl FnMut() -> Duration) {
        while let Some(first) = self.jobs.recv().await {
            tokio::time::sleep(pace()).await;
            self.serve(first);
        }
        self.end();
    }

    /// A store that is closed has nothing to do again when it is opened. If this fails, it has.
    fn end(&self) {
        if let Err(e) = self.file.save() {
            tracing::warn!(error = %e, "the store was closed without its last commit");
        }
    }

    fn serve(&mut self, first: Box<dyn Job>) {
        let mut waiting = self.gather(first).into_iter().peekable();
        while let Some(first) = waiting.next() {
            let durable = first.durable();
            let mut together = vec![first];
            while let Some(next) = waiting.next_if(|job| job.durable() == durable) {
                together.push(next);
            }
            let result =
                self.file.write(durable, |open| together.iter_mut().try_for_each(|job| job.run(open)));
            let count = together.len();
            together.into_iter().for_each(|job| job.done(result.clone()));
            self.waiting.fetch_sub(count, Ordering::AcqRel);
        }
    }

    /// The first job and all that wait behind it, within limits.
    fn gather(&mut self, first: Box<dyn Job>) -> Vec<Box<dyn Job>> {
        let mut bytes = first.weight();
        let mut gathered = vec![first];
        while gathered.len() < JOBS_MAX && bytes < BYTES_MAX {
            let Ok(next) = self.jobs.try_recv() else { break };
            bytes += next.weight();
            gathered.push(next);
        }
        gathered
    }
}
