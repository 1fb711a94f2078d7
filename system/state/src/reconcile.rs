//! The loop every agent runs: wait until something it follows has changed (or time passes), make the machine
//! match the store, report what it saw, and try again with backoff after a failure.
//!
//! It drives; what a pass does is the reconciler's. A pass must be idempotent and may be stopped anywhere.

pub use crate::agent::AgentArgs;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::select_all;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use crate::report::{Reporter, RoleStatus};

const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// How long changes gather before a pass: one transaction is several events.
const GATHER: Duration = Duration::from_millis(5);

/// Something a pass could not make so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What it is about, as a person would name it: `port 3f2a…`, `disk WD-1234`.
    pub subject: String,
    /// What went wrong.
    pub error: String,
}

impl Fault {
    /// A fault about `subject`.
    pub fn new(subject: impl Into<String>, error: impl ToString) -> Fault {
        Fault { subject: subject.into(), error: error.to_string() }
    }
}

/// How a reconciler is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReconcilerStatus {
    /// Its name.
    pub name: String,
    /// How many passes it has made since its process started.
    pub passes: u64,
    /// When the last one ended.
    pub last_pass: Timestamp,
    /// When the last one without a fault ended.
    pub last_success: Option<Timestamp>,
    /// How long the last one took, in milliseconds.
    pub took_ms: u64,
    /// What the last one could not make so.
    pub faults: Vec<Fault>,
}

/// One concern of an agent: makes some part of the machine match the store.
#[async_trait]
pub trait Reconciler: Send + 'static {
    /// Its name, as the status shows it.
    fn name(&self) -> &'static str;

    /// Compares what should be with what is, and acts on the difference. It goes on past a fault where it
    /// can, and returns all it met; none means that the machine matches.
    async fn pass(&mut self) -> Vec<Fault>;
}

/// Runs a reconciler for ever: at once, when any of `wake` changes, each `resync`, and after a faulty pass
/// again with backoff. A panic in a pass is a fault like any other.
pub async fn run(
    mut reconciler: impl Reconciler,
    mut wake: Vec<watch::Receiver<u64>>,
    resync: Duration,
    reporter: Reporter,
) {
    let mut status = ReconcilerStatus {
        name: reconciler.name().to_owned(),
        passes: 0,
        last_pass: Timestamp::now(),
        last_success: None,
        took_ms: 0,
        faults: Vec::new(),
    };
    let mut backoff = BACKOFF_MIN;
    loop {
        // What changes from here on is for the next pass.
        wake.iter_mut().for_each(|w| drop(w.borrow_and_update()));
        pass(&mut reconciler, &mut status).await;
        reporter.report(status.clone());
        let wait = if status.faults.is_empty() {
            backoff = BACKOFF_MIN;
            resync
        } else {
            let wait = backoff.min(resync);
            backoff = (backoff * 2).min(BACKOFF_MAX);
            wait
        };
        tokio::select! {
            () = woken(&mut wake) => tokio::time::sleep(GATHER).await,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn pass(reconciler: &mut impl Reconciler, status: &mut ReconcilerStatus) {
    let started = Instant::now();
    let faults = AssertUnwindSafe(reconciler.pass()).catch_unwind().await;
    let faults = faults.unwrap_or_else(|panic| vec![Fault::new("the pass itself", panic_text(&*panic))]);
    for fault in faults.iter().filter(|f| !status.faults.contains(f)) {
        tracing::warn!(reconciler = status.name, subject = fault.subject, error = fault.error, "fault");
    }
    status.passes += 1;
    status.last_pass = Timestamp::now();
    status.took_ms = started.elapsed().as_millis() as u64;
    if faults.is_empty() {
        status.last_success = Some(status.last_pass);
    }
    status.faults = faults;
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", text.unwrap_or("(no message)"))
}

/// Waits for any change; those whose source is gone are no longer waited for.
async fn woken(wake: &mut Vec<watch::Receiver<u64>>) {
    loop {
        if wake.is_empty() {
            return std::future::pending().await;
        }
        let (changed, index, _) = select_all(wake.iter_mut().map(|w| Box::pin(w.changed()))).await;
        match changed {
            Ok(()) => return,
            Err(_) => drop(wake.swap_remove(index)),
        }
    }
}
