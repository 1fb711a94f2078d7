//! A watcher that resumes from the last revision it has seen misses nothing and sees nothing twice, however
//! often the connection breaks.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use cairn_state::{Limits, LocalStore, Media, Revision, Store, StoreError};
use cairn_wire::RemoteStore;
use common::{put, serve, stop, within};
use futures_util::StreamExt;
use tokio::sync::watch;

const CHANGES: u64 = 1200;

/// How often the server goes away; each time every watcher has an open watch.
const ROUNDS: u64 = 12;

/// Sees this many changes, watching anew whenever the connection is lost, and tells how many it has seen; gives
/// their revisions, and how often it had to.
async fn follow(remote: RemoteStore, progress: watch::Sender<u64>) -> (Vec<u64>, u64) {
    let (mut seen, mut lost) = (Vec::new(), 0);
    while (seen.len() as u64) < CHANGES {
        let after = Revision(seen.last().copied().unwrap_or(0));
        let mut watch = match remote.watch("k/", after).await {
            Ok(watch) => watch,
            Err(StoreError::Unavailable(_)) => continue,
            Err(e) => panic!("{e}"),
        };
        loop {
            match watch.next().await.unwrap() {
                Ok(event) => seen.push(event.revision().0),
                Err(StoreError::Unavailable(_)) => break,
                Err(e) => panic!("{e}"),
            }
            progress.send_replace(seen.len() as u64);
            if seen.len() as u64 == CHANGES {
                return (seen, lost);
            }
        }
        lost += 1;
    }
    (seen, lost)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_gap_and_no_duplicate_across_reconnects() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("state.sock");
    // So short a feed that the watches fall behind it too.
    let limits = Limits { feed_commits: 2, ..Limits::default() };
    let store = LocalStore::with_media(Media::in_memory(), limits).unwrap();
    let (followers, mut progress): (Vec<_>, Vec<_>) = (0..3)
        .map(|_| {
            let (told, progress) = watch::channel(0);
            (tokio::spawn(follow(RemoteStore::new(&socket), told)), progress)
        })
        .unzip();
    for round in 0..ROUNDS {
        let server = serve(&socket, store.clone(), &[""]);
        let writer =
            tokio::spawn(commit(store.clone(), round * CHANGES / ROUNDS..(round + 1) * CHANGES / ROUNDS));
        for progress in &mut progress {
            within(progress.wait_for(|seen| *seen > round * CHANGES / ROUNDS)).await.unwrap();
        }
        stop(server).await;
        within(writer).await.unwrap();
    }
    let _server = serve(&socket, store.clone(), &[""]);
    for follower in followers {
        let (seen, lost) = within(follower).await.unwrap();
        assert!(seen.iter().copied().eq(1..=CHANGES), "a gap or a duplicate");
        assert!(lost >= ROUNDS - 1, "only {lost} connections were lost");
    }
}

/// Commits the changes with these numbers.
async fn commit(store: LocalStore, numbers: std::ops::Range<u64>) {
    for n in numbers {
        store.commit(put(&format!("k/{}", n % 100), "x")).await.unwrap();
    }
}
