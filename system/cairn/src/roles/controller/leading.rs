//! Work that one node does for all: the conductors run where the group's leader is, and nowhere else.
//!
//! They take no input but the store and act by transactions alone, so that a moment in which two nodes run them (an old
//! leader that has not heard of the new one) does no harm: what one has done the other finds done. That is why looking
//! at the group now and then is enough.

use std::time::Duration;

use tokio::task::JoinSet;

/// How often it looks who leads.
const LOOK: Duration = Duration::from_millis(250);

/// Starts the work whenever this node comes to lead, and stops it when it does not any more. Runs for ever.
pub async fn while_leading(leads: impl Fn() -> bool, start: impl Fn() -> JoinSet<()>) {
    loop {
        while !leads() {
            tokio::time::sleep(LOOK).await;
        }
        tracing::info!("this node leads: its conductors start");
        let mut work = start();
        while leads() {
            tokio::time::sleep(LOOK).await;
        }
        work.shutdown().await;
        tracing::info!("this node leads no more: its conductors have stopped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    struct Running(Arc<AtomicUsize>);

    impl Drop for Running {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn work_runs_while_leading_and_not_else() {
        let (leads, running) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (asked, counted) = (leads.clone(), running.clone());
        let start = move || {
            let counted = counted.clone();
            let mut work = JoinSet::new();
            counted.fetch_add(1, Ordering::SeqCst);
            let one = Running(counted);
            work.spawn(async move {
                let _one = one;
                std::future::pending::<()>().await;
            });
            work
        };
        let duty = tokio::spawn(while_leading(move || asked.load(Ordering::SeqCst), start));
        for (now, expected) in [(true, 1), (false, 0), (true, 1)] {
            leads.store(now, Ordering::SeqCst);
            let follows = async {
                while running.load(Ordering::SeqCst) != expected {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            assert!(tokio::time::timeout(Duration::from_secs(60), follows).await.is_ok(), "{now}");
        }
        duty.abort();
    }
}
