//! A conductor looks at once, after each change of what it follows, and again after a failure.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::time::Duration;

use cairn_state::{LocalStore, conduct};
use common::{put, within};
use tokio::sync::mpsc;

#[tokio::test]
async fn a_conductor_follows_its_prefixes_and_no_other() {
    let store = LocalStore::in_memory().unwrap();
    let (told, mut passes) = mpsc::unbounded_channel();
    let followed = store.clone();
    let task = tokio::spawn(async move {
        let prefixes = ["a/".to_owned(), "b/".to_owned()];
        conduct(&followed, "test", &prefixes, || std::future::ready(told.send(()))).await;
    });
    within(passes.recv()).await.unwrap();
    for key in ["a/1", "b/1", "a/1"] {
        store.commit(put(key, "x")).await.unwrap();
        within(passes.recv()).await.unwrap();
    }
    store.commit(put("c/1", "x")).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(200), passes.recv()).await.is_err());
    task.abort();
}

#[tokio::test]
async fn a_pass_that_failed_is_made_again() {
    let store = LocalStore::in_memory().unwrap();
    let (told, mut passes) = mpsc::unbounded_channel();
    let task = tokio::spawn(async move {
        let pass = || {
            told.send(()).unwrap();
            std::future::ready(Err("no luck"))
        };
        conduct(&store, "test", &["a/".to_owned()], pass).await;
    });
    for _ in 0..2 {
        within(passes.recv()).await.unwrap();
    }
    task.abort();
}
