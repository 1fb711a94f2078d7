//! The one writer of the store's file: it takes whatever jobs wait, does them in order, and commits those that
//! stand together in one go.
//!
//! A job is done when its commit is: a durable one is then on stable media, one that is not will be with the
//! next durable one (and can be done again from the log until then). It must never report a job done before, and
//! never wait for a reader. After a failure of the disk nothing more is written: what is on it is decided by
//! opening it again.

use std::sync::Arc;
use std::time::Duration;

use redb::{Database, Durability, WriteTransaction};
use tokio::sync::{mpsc, watch};

use super::layout::failed;
use crate::kv::StoreError;

/// The most jobs in one commit, so that the first of them does not wait long.
const JOBS_MAX: usize = 1024;
/// The most bytes in one commit (a single larger job goes alone).
const BYTES_MAX: usize = 2 << 20;

/// Something to be written.
pub(crate) trait Job: Send {
    /// Whether it must be on stable media before it is done.
    fn durable(&self) -> bool;
    /// About how many bytes it writes.
    fn weight(&self) -> usize;
    /// Writes it. An error is the disk's: nothing is written after it.
    fn run(&mut self, txn: &WriteTransaction) -> Result<(), StoreError>;
    /// Is told how it ended.
    fn done(self: Box<Self>, result: Result<(), StoreError>);
}

/// Where jobs are put. The writer ends when the last of these is dropped, after what is in the queue.
#[derive(Clone)]
pub(crate) struct Queue(mpsc::UnboundedSender<Box<dyn Job>>);

impl Queue {
    /// Puts a job behind the others. How many may wait is bounded by who asks: see `store`.
    pub(crate) fn put(&self, job: impl Job + 'static) {
        if let Err(mpsc::error::SendError(job)) = self.0.send(Box::new(job)) {
            job.done(Err(gone()));
        }
    }
}

pub(crate) fn gone() -> StoreError {
    StoreError::Storage("the store's writer has stopped".into())
}

/// The writer.
pub(crate) struct Writer {
    db: Arc<Database>,
    jobs: mpsc::UnboundedReceiver<Box<dyn Job>>,
    failure: watch::Sender<Option<StoreError>>,
}

/// A writer that is not running yet, the queue to it, and where the first failure of the disk is told.
pub(crate) fn writer(db: Arc<Database>) -> (Writer, Queue, watch::Receiver<Option<StoreError>>) {
    let (queue, jobs) = mpsc::unbounded_channel();
    let (failure, failed) = watch::channel(None);
    (Writer { db, jobs, failure }, Queue(queue), failed)
}

impl Writer {
    /// Serves the queue on this thread.
    pub(crate) fn run(mut self) {
        while let Some(first) = self.jobs.blocking_recv() {
            self.serve(first);
        }
    }

    /// Serves the queue as a task, for simulations: each commit takes as long as `pace` says.
    pub(crate) async fn run_paced(mut self, mut pace: impl FnMut() -> Duration) {
        while let Some(first) = self.jobs.recv().await {
            tokio::time::sleep(pace()).await;
            self.serve(first);
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
            let result = self.commit(&mut together, durable);
            if let Err(e) = &result {
                self.fail(e);
            }
            together.into_iter().for_each(|job| job.done(result.clone()));
        }
    }

    /// The first job and all that wait behind it, within the limits of a commit.
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

    fn commit(&self, jobs: &mut [Box<dyn Job>], durable: bool) -> Result<(), StoreError> {
        if let Some(e) = &*self.failure.borrow() {
            return Err(e.clone());
        }
        let mut txn = self.db.begin_write().map_err(failed)?;
        txn.set_durability(if durable { Durability::Immediate } else { Durability::None }).map_err(failed)?;
        for job in jobs {
            job.run(&txn)?;
        }
        txn.commit().map_err(failed)
    }

    fn fail(&self, e: &StoreError) {
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            if first {
                tracing::error!(error = %e, "the store could not commit, and writes no more");
                *failure = Some(e.clone());
            }
            first
        });
    }
}
