//! Peers that do not keep to the protocol cost nobody else anything.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use cairn_state::{LocalStore, Store};
use cairn_wire::RemoteStore;
use common::{put, serve, within};

fn frame(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_le_bytes(), body].concat()
}

/// Says this after a good hello, and waits until the server hangs up (or has had its time).
async fn say(socket: &Path, hello: &[u8], then: &[u8]) -> Vec<u8> {
    let (socket, said) = (socket.to_owned(), [hello, then].concat());
    let talk = tokio::task::spawn_blocking(move || {
        let mut stream = UnixStream::connect(socket)?;
        stream.write_all(&said)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map(|_| answer)
    });
    within(talk).await.unwrap().unwrap_or_default()
}

#[tokio::test]
async fn nonsense_is_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("state.sock");
    let _server = serve(&socket, LocalStore::in_memory().unwrap(), &[""]);
    let remote = RemoteStore::new(&socket);
    remote.txn(put("k", "v")).await.unwrap();

    let hello = frame(&[1, 1]);
    let welcome = frame(&[0, 1]);
    assert_eq!(say(&socket, &hello, &frame(&[0xff; 40])).await, welcome);
    assert_eq!(say(&socket, &hello, &u32::MAX.to_le_bytes()).await, welcome);
    assert_eq!(say(&socket, b"GET / HTTP/1.1\r\n\r\n", b"").await, b"");
    let refused = say(&socket, &frame(&[1, 99]), b"").await;
    assert!(String::from_utf8_lossy(&refused).contains("no common version"));
    // Credit and cancellation for watches that never were; then nonsense, to be cut off.
    let calls = [frame(&[7, 4, 5]), frame(&[7, 5]), frame(&[0xff])].concat();
    assert_eq!(say(&socket, &hello, &calls).await, welcome);

    assert!(within(remote.get("k")).await.unwrap().is_some());
}

#[tokio::test]
async fn who_does_not_read_stops_only_itself() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("state.sock");
    let store = LocalStore::in_memory().unwrap();
    let _server = serve(&socket, store.clone(), &[""]);
    store.commit(put("k", &"x".repeat(1 << 20))).await.unwrap();

    // A hundred times a MiB is asked for, and never read.
    let asked = socket.clone();
    let deaf = tokio::task::spawn_blocking(move || {
        let mut stream = UnixStream::connect(asked).unwrap();
        stream.write_all(&frame(&[1, 1])).unwrap();
        for id in 1..100 {
            stream.write_all(&frame(&[id, 0, 1, b'k'])).unwrap();
        }
        stream
    });
    let deaf = within(deaf).await.unwrap();
    let remote = RemoteStore::new(&socket);
    for n in 0..20 {
        within(remote.txn(put("other", &n.to_string()))).await.unwrap();
    }
    drop(deaf);
}
