//! The reconcile loop: when it runs, what it survives, what it reports.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use cairn_state::{Fault, LocalStore, Reconciler, Reporter, RoleStatus, StoreExt, reconcile};
use common::within;
use serde_json::json;
use tokio::sync::watch;

/// Does in each pass what it is told to.
struct Scripted<F>(F, Arc<AtomicU64>);

#[async_trait]
impl<F: FnMut(u64) -> Vec<Fault> + Send + 'static> Reconciler for Scripted<F> {
    fn name(&self) -> &'static str {
        "scripted"
    }

    async fn pass(&mut self) -> Vec<Fault> {
        (self.0)(self.1.fetch_add(1, Ordering::SeqCst))
    }
}

async fn reached(passes: &AtomicU64, n: u64) {
    within(async {
        while passes.load(Ordering::SeqCst) < n {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

async fn status(store: &LocalStore, what: impl Fn(&RoleStatus) -> bool) -> RoleStatus {
    within(async {
        loop {
            match store.get_record::<RoleStatus>("n1/compute").await.unwrap() {
                Some(status) if what(&status) => return status,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    })
    .await
}

#[tokio::test]
async fn it_passes_at_once_when_woken_and_no_more() {
    let store = LocalStore::in_memory().unwrap();
    let reporter = Reporter::new(Arc::new(store.clone()), "n1", "compute");
    let passes = Arc::new(AtomicU64::new(0));
    let (wake, woken) = watch::channel(0);
    let (gone, never) = watch::channel(0);
    drop(gone);
    let reconciler = Scripted(|_| vec![], passes.clone());
    tokio::spawn(reconcile::run(reconciler, vec![woken, never], Duration::from_secs(60), reporter));
    reached(&passes, 1).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(passes.load(Ordering::SeqCst), 1);
    for _ in 0..10 {
        wake.send_modify(|n| *n += 1);
    }
    reached(&passes, 2).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(passes.load(Ordering::SeqCst), 2, "many changes, one pass");
}

#[tokio::test]
async fn a_faulty_pass_is_reported_and_tried_again() {
    let store = LocalStore::in_memory().unwrap();
    let reporter = Reporter::new(Arc::new(store.clone()), "n1", "compute");
    reporter.set_fact("kvm", json!(false));
    let passes = Arc::new(AtomicU64::new(0));
    let script = |pass| match pass {
        0 => vec![Fault::new("disk 1", "busy")],
        1 => panic!("a bug"),
        _ => vec![],
    };
    let reconciler = Scripted(script, passes.clone());
    tokio::spawn(reconcile::run(reconciler, vec![], Duration::from_secs(60), reporter.clone()));
    let faulty = status(&store, |s| s.reconcilers.iter().any(|r| !r.faults.is_empty())).await;
    assert_eq!(faulty.facts, json!({ "kvm": false }));
    assert_eq!(faulty.reconcilers[0].last_success, None);
    reached(&passes, 3).await;
    let well = status(&store, |s| s.reconcilers.iter().all(|r| r.faults.is_empty())).await;
    assert_eq!(well.reconcilers[0].passes, 3);
    assert!(well.reconcilers[0].last_success.is_some());
    assert_eq!((well.pid, well.role.as_str()), (std::process::id(), "compute"));
}

#[tokio::test]
async fn a_panic_is_a_fault() {
    let store = LocalStore::in_memory().unwrap();
    let reporter = Reporter::new(Arc::new(store.clone()), "n1", "compute");
    let reconciler = Scripted(|_| panic!("a bug"), Arc::default());
    tokio::spawn(reconcile::run(reconciler, vec![], Duration::from_secs(60), reporter.clone()));
    let status = status(&store, |s| !s.reconcilers.is_empty()).await;
    assert_eq!(status.reconcilers[0].faults, [Fault::new("the pass itself", "panicked: a bug")]);
}
