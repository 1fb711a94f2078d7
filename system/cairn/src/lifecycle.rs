//! A role's life under systemd: the runtime, "ready", the watchdog, and the signal to stop.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

/// A tokio runtime with few threads, as a node's memory is for its guests.
pub fn runtime(threads: usize) -> Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(threads)
        .max_blocking_threads(32)
        .thread_keep_alive(Duration::from_secs(5))
        .enable_all()
        .build()
        .context("the runtime could not be started")
}

/// Tells systemd that the role is up, and from now on that it is alive: a runtime that hangs is killed and
/// started again.
pub fn ready() {
    notify("READY", "1");
    let Some(interval) = watchdog_interval() else { return };
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(interval);
        loop {
            ticks.tick().await;
            notify("WATCHDOG", "1");
        }
    });
}

/// Half the time after which systemd would kill us, if it watches this process.
fn watchdog_interval() -> Option<Duration> {
    match systemd::daemon::watchdog_enabled() {
        Ok(micros @ 1..) => Some(Duration::from_micros(micros / 2)),
        _ => None,
    }
}

fn notify(key: &str, value: &str) {
    // Without a supervisor there is nobody to tell.
    if let Err(e) = systemd::daemon::notify([(key, value)].iter()) {
        tracing::debug!(error = %e, "the supervisor could not be notified");
    }
}

/// Waits for the signal to stop.
pub async fn stopped() {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    notify("STOPPING", "1");
}
