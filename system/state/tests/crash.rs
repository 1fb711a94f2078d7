//! Power failures and bad sectors at every write: what was acknowledged is there, nothing is there by half.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use cairn_state::{LeaseId, LocalStore, Op, Revision, Store, StoreError, Txn};
use common::disk::{Break, Content, Dice, Disk};
use common::model::Model;
use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt};

/// The history is so short that compaction takes part.
const HISTORY: u64 = 8;

/// What is done while the disk breaks: groups of transactions, each group sent at once. Each changes
/// something, so that the revision tells how many were done.
fn workload() -> Vec<Vec<Txn>> {
    let put = |key: String, size: usize, lease| Op::Put { key, value: vec![size as u8; size].into(), lease };
    (0..5usize)
        .map(|round| {
            let spread = (0..5).map(|n| put(format!("k/{}", (round * 3 + n) % 11), round * 40 + n, None));
            let large = vec![
                put(format!("large/{}", round % 2), 9000, None),
                put(format!("leased/{round}"), 10, Some(LeaseId(1))),
            ];
            let mut drop = vec![put(format!("round/{round}"), 1, None)];
            drop.extend((0..4).map(|n| Op::Delete { key: format!("k/{}", (round * 5 + n) % 11) }));
            [spread.collect(), large, drop].map(|ops| Txn { compares: vec![], ops }).to_vec()
        })
        .collect()
}

/// The model after each of the transactions.
fn models(workload: &[Vec<Txn>]) -> Vec<Model> {
    let mut model = Model::default();
    model.leases.insert(LeaseId(1));
    let mut all = vec![model.clone()];
    for txn in workload.iter().flatten() {
        model.txn(txn).unwrap();
        all.push(model.clone());
    }
    assert_eq!(model.revision, all.len() as u64 - 1);
    all
}

#[derive(Default)]
struct Progress {
    opened: bool,
    acknowledged: u64,
    sent: u64,
}

fn open(disk: &Disk) -> Result<LocalStore, StoreError> {
    LocalStore::with_media(disk.media(), common::limits(HISTORY, 4))
}

/// Does the workload until the disk breaks.
async fn run(disk: &Disk, workload: &[Vec<Txn>]) -> Progress {
    let mut progress = Progress::default();
    let Ok(store) = open(disk) else { return progress };
    progress.opened = true;
    if store.lease_grant(3_600_000).await.is_err() {
        return progress;
    }
    for group in workload {
        progress.sent += group.len() as u64;
        let outcomes = join_all(group.iter().map(|txn| store.commit(txn.clone()))).await;
        let done = outcomes.iter().take_while(|outcome| outcome.is_ok()).count();
        progress.acknowledged += done as u64;
        if done < group.len() {
            assert!(outcomes[done..].iter().all(Result::is_err), "none after the first that failed");
            assert!(store.commit(group[0].clone()).await.is_err(), "nothing is written after a failure");
            assert!(store.failed().now_or_never().is_some());
            return progress;
        }
    }
    progress
}

/// Opens what is left, and checks it.
async fn check(content: Content, progress: &Progress, models: &[Model], what: &str) {
    let disk = Disk::new(content, Break::Never);
    let store = match open(&disk) {
        Ok(store) => store,
        // `LocalStore::open` makes a new file beside, so one that is not whole is never found.
        Err(_) if !progress.opened => return,
        Err(e) => panic!("{what}: {e}"),
    };
    let found = store.range("", None, usize::MAX).await.unwrap();
    let (low, high) = (progress.acknowledged, progress.sent);
    assert!((low..=high).contains(&found.at.0), "{what}: {:?} is not of {low}..={high}", found.at);
    let model = &models[found.at.0 as usize];
    assert_eq!(found, model.range("", None, usize::MAX), "{what}");

    // The history fits too.
    let after = Revision(found.at.0.saturating_sub(HISTORY));
    let mut watch = store.watch("", after).await.unwrap();
    for event in model.history("", after) {
        assert_eq!(watch.next().now_or_never().unwrap().unwrap().unwrap(), event, "{what}");
    }
    assert!(watch.next().now_or_never().is_none(), "{what}");

    // And it goes on: the lease that was granted takes its keys along.
    if found.at.0 > 0 {
        store.lease_revoke(LeaseId(1)).await.unwrap();
        assert!(store.range("leased/", None, 1).await.unwrap().entries.is_empty());
    }
    store.commit(common::put("after", "x")).await.unwrap();
}

async fn whole_run(workload: &[Vec<Txn>]) -> u64 {
    let disk = Disk::new(Content::default(), Break::Never);
    let progress = run(&disk, workload).await;
    assert_eq!(progress.acknowledged, 15);
    disk.writes()
}

#[tokio::test]
async fn the_power_may_fail_at_any_write() {
    let workload = workload();
    let models = models(&workload);
    let writes = whole_run(&workload).await;
    assert!(writes > 50, "{writes}");
    for k in 0..writes {
        let disk = Disk::new(Content::default(), Break::PowerFailsAt(k));
        let progress = run(&disk, &workload).await;
        let content = disk.after_power_failure(&mut Dice(k));
        check(content, &progress, &models, &format!("the power at write {k}")).await;
    }
}

#[tokio::test]
async fn any_write_may_fail() {
    let workload = workload();
    let models = models(&workload);
    for k in 0..whole_run(&workload).await {
        let disk = Disk::new(Content::default(), Break::ErrorAt(k));
        let progress = run(&disk, &workload).await;
        check(disk.content(), &progress, &models, &format!("write {k}")).await;
        // The process is killed and the power fails too.
        let content = disk.after_power_failure(&mut Dice(!k));
        check(content, &progress, &models, &format!("write {k}, then the power")).await;
    }
}
