//! A watcher that resumes from the last revision it has seen misses nothing and sees nothing twice, however
//! often the connection breaks.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::time::Duration;

use cairn_state::{Limits, LocalStore, Media, Revision, Store, StoreError};
use cairn_wire::RemoteStore;
use common::{put, serve, stop, within};
use futures_util::StreamExt;

const CHANGES: u64 = 1200;

/// Sees this many changes, watching anew whenever the connection is lost; gives their revisions, and how
/// often it had to.
async fn follow(remote: RemoteStore) -> (Vec<u64>, u32) {
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
    let followers: Vec<_> = (0..3).map(|_| tokio::spawn(follow(RemoteStore::new(&socket)))).collect();
    let writer = store.clone();
    let writer = tokio::spawn(async move {
        for n in 0..CHANGES {
            writer.commit(put(&format!("k/{}", n % 100), "x")).await.unwrap();
        }
    });
    while !writer.is_finished() {
        let server = serve(&socket, store.clone(), &[""]);
        tokio::time::sleep(Duration::from_millis(100)).await;
        stop(server).await;
    }
    let _server = serve(&socket, store.clone(), &[""]);
    let mut lost_sum = 0;
    for follower in followers {
        let (seen, lost) = within(follower).await.unwrap();
        assert!(seen.iter().copied().eq(1..=CHANGES), "a gap or a duplicate");
        lost_sum += lost;
    }
    assert!(lost_sum > 0, "no connection was lost, so nothing was tested");
}
