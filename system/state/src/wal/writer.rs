//! The one writer of the log: it takes whatever waits, puts entries that follow each other into one frame, and tells
//! each of them when that is on stable media.
//!
//! After a failure of the disk nothing more is written: what is on it is decided by opening it again.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::files::Log;
use super::frame::Rows;
use crate::engine::disk::{gone, guarded};
use crate::kv::StoreError;

/// The most bytes of entries in one frame, so that the first of them does not wait long (a single larger one goes alone).
const FRAME_BYTES: usize = 2 << 20;

/// Who is told how it ended.
type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// Something to be written.
pub(crate) enum Task {
    /// Entries from this index on.
    Append(u64, Rows, Done),
    /// No more entries from this index on.
    Cut(u64, Done),
}

/// Where tasks are put. The writer ends when the last of these is dropped, after what is in the queue.
#[derive(Clone)]
pub(crate) struct Queue(mpsc::UnboundedSender<Task>);

impl Queue {
    /// Puts a task behind the others.
    pub(crate) fn put(&self, task: Task) {
        if let Err(mpsc::error::SendError(Task::Append(_, _, done) | Task::Cut(_, done))) = self.0.send(task)
        {
            done(Err(gone()));
        }
    }
}

/// The writer.
pub(crate) struct Writer {
    log: Arc<Log>,
    tasks: mpsc::UnboundedReceiver<Task>,
    failure: watch::Sender<Option<StoreError>>,
    buffer: Vec<u8>,
    /// What keeps others from opening the files.
    _lock: Arc<dyn Any + Send + Sync>,
}

/// A writer that is not running yet, and the queue to it. As long as it runs, it holds `lock`, which keeps others from
/// opening the files.
pub(crate) fn writer(
    log: Arc<Log>,
    failure: watch::Sender<Option<StoreError>>,
    lock: Arc<dyn Any + Send + Sync>,
) -> (Writer, Queue) {
    let (queue, tasks) = mpsc::unbounded_channel();
    (Writer { log, tasks, failure, buffer: Vec::new(), _lock: lock }, Queue(queue))
}

impl Writer {
    /// Serves the queue on this thread.
    pub(crate) fn run(mut self) {
        while let Some(first) = self.tasks.blocking_recv() {
            self.serve(first);
        }
    }

    /// Serves the queue as a task, for simulations: each frame takes as long as `pace` says.
    pub(crate) async fn run_paced(mut self, mut pace: impl FnMut() -> Duration) {
        while let Some(first) = self.tasks.recv().await {
            tokio::time::sleep(pace()).await;
            self.serve(first);
        }
    }

    fn serve(&mut self, task: Task) {
        let mut next = Some(task);
        while let Some(task) = next.take() {
            match task {
                Task::Append(first, mut rows, done) => {
                    let mut told = vec![done];
                    next = self.gather(first, &mut rows, &mut told);
                    let result = self.write(|log, buffer| log.append(first, &rows, buffer));
                    told.into_iter().for_each(|done| done(result.clone()));
                }
                Task::Cut(from, done) => done(self.write(|log, buffer| log.cut(from, buffer))),
            }
        }
    }

    /// Takes what waits and follows; gives the first that does not.
    fn gather(&mut self, first: u64, rows: &mut Rows, told: &mut Vec<Done>) -> Option<Task> {
        while rows.bytes.len() < FRAME_BYTES {
            match self.tasks.try_recv().ok()? {
                Task::Append(at, mut more, done) if at == first + rows.count => {
                    rows.bytes.append(&mut more.bytes);
                    rows.count += more.count;
                    told.push(done);
                }
                other => return Some(other),
            }
        }
        None
    }

    fn write(
        &mut self,
        write: impl FnOnce(&Log, &mut Vec<u8>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        guarded(&self.failure, || write(&self.log, &mut self.buffer))
    }
}
