//! The store over its socket: the same answers as in-process, permissions, restarts of the controller.

mod common;

use std::sync::Arc;
use std::time::Duration;

use cairn_state::kv::{Compare, Op};
use cairn_state::{LocalStore, Revision, Store, StoreError, Txn, TxnOutcome};
use cairn_wire::{RemoteStore, Role, local_socket, store_server};
use common::{put, serve, serve_role, serve_to, stop, within};
use futures_util::{FutureExt, StreamExt};

#[tokio::test]
async fn it_answers_as_the_store_does() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("state.sock");
    let local = LocalStore::in_memory().unwrap();
    let _server = serve(&socket, local.clone(), &[""]);
    let remote = RemoteStore::new(&socket);

    assert_eq!(remote.get("k").await.unwrap(), None);
    assert_eq!(remote.txn(put("k", "v")).await.unwrap(), TxnOutcome::Committed(Revision(1)));
    assert_eq!(remote.get("k").await.unwrap(), local.get("k").await.unwrap());
    let stale = Txn { compares: vec![Compare::Modified("k".into(), Revision(0))], ..put("k", "w") };
    assert_eq!(remote.txn(stale).await.unwrap(), TxnOutcome::Conflict);

    // More than fits one frame.
    let large = "x".repeat(1 << 20);
    for n in 0..17 {
        local.commit(put(&format!("large/{n:02}"), &large)).await.unwrap();
    }
    let range = remote.range("large/", None, usize::MAX).await.unwrap();
    assert_eq!(range, local.range("large/", None, usize::MAX).await.unwrap());
    let page = remote.range("large/", Some("large/03"), 4).await.unwrap();
    assert_eq!(page, local.range("large/", Some("large/03"), 4).await.unwrap());
    assert!(page.more);
    let too_large =
        Txn { ops: (0..9).flat_map(|n| put(&format!("t/{n}"), &large).ops).collect(), compares: vec![] };
    assert!(matches!(remote.txn(too_large).await, Err(StoreError::TooLarge(_))));
    assert!(remote.get("k").await.unwrap().is_some(), "and the connection lives");

    let lease = remote.lease_grant(60_000).await.unwrap();
    remote.lease_keep_alive(lease).await.unwrap();
    let op = Op::Put { key: "leased".into(), value: "x".into(), lease: Some(lease) };
    remote.txn(Txn { compares: vec![], ops: vec![op] }).await.unwrap();
    remote.lease_revoke(lease).await.unwrap();
    assert_eq!(remote.get("leased").await.unwrap(), None);
    assert_eq!(remote.lease_keep_alive(lease).await, Err(StoreError::LeaseExpired(lease)));
    let future = remote.watch("", Revision(1000)).await.err();
    assert!(matches!(future, Some(StoreError::Compacted { .. })), "{future:?}");
}

#[tokio::test]
async fn a_role_writes_only_its_own_keys() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("state.sock");
    let local = LocalStore::in_memory().unwrap();
    let _server = serve(&socket, local.clone(), &["compute/", "node/status/n1/compute"]);
    let remote = RemoteStore::new(&socket);
    let forbidden = |key: &str| Err(StoreError::Forbidden { role: "compute".into(), key: key.into() });

    remote.txn(put("compute/a", "x")).await.unwrap();
    remote.txn(put("node/status/n1/compute", "x")).await.unwrap();
    assert_eq!(remote.txn(put("network/a", "x")).await, forbidden("network/a"));
    let both = Txn { ops: [put("compute/a", "y").ops, put("network/a", "y").ops].concat(), compares: vec![] };
    assert_eq!(remote.txn(both).await, forbidden("network/a"));
    let delete = Txn { ops: vec![Op::Delete { key: "identity/a".into() }], compares: vec![] };
    assert_eq!(remote.txn(delete).await, forbidden("identity/a"));
    assert_eq!(local.snapshot().unwrap().revision(), Revision(2), "nothing was changed");

    // A lease that holds another role's keys.
    let lease = local.lease_grant(60_000).await.unwrap();
    let op = Op::Put { key: "leader/a".into(), value: "x".into(), lease: Some(lease) };
    local.commit(Txn { compares: vec![], ops: vec![op] }).await.unwrap();
    let revoked = remote.lease_revoke(lease).await;
    assert_eq!(revoked, Err(StoreError::Forbidden { role: "compute".into(), key: "leader/a".into() }));
    assert!(remote.get("leader/a").await.unwrap().is_some());
}

#[tokio::test]
async fn some_keys_are_changed_by_compare_and_swap_alone() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("state.sock");
    let local = LocalStore::in_memory().unwrap();
    let role = Role {
        name: "storage".into(),
        may_write: vec![],
        may_swap: vec!["s/".into()],
        may_read: vec![String::new()],
    };
    let _server = serve_role(&socket, local.clone(), role);
    let remote = RemoteStore::new(&socket);
    local.commit(put("s/a", "1")).await.unwrap();
    local.commit(put("s/b", "1")).await.unwrap();
    let forbidden = |key: &str| Err(StoreError::Forbidden { role: "storage".into(), key: key.into() });

    assert_eq!(remote.txn(put("s/a", "2")).await, forbidden("s/a"));
    let with = |key: &str, at: u64, txn: Txn| Txn {
        compares: vec![Compare::Modified(key.into(), Revision(at))],
        ..txn
    };
    let other = with("s/b", 2, put("s/a", "2"));
    assert_eq!(remote.txn(other).await, forbidden("s/a"), "another key's revision says nothing");
    let made = with("s/c", 0, put("s/c", "2"));
    assert_eq!(remote.txn(made).await, forbidden("s/c"), "it is not made");
    let delete = Txn { ops: vec![Op::Delete { key: "s/a".into() }], compares: vec![] };
    assert_eq!(remote.txn(with("s/a", 1, delete)).await, forbidden("s/a"), "nor ended");
    let lease = remote.lease_grant(60_000).await.unwrap();
    let leased = Op::Put { key: "s/a".into(), value: "2".into(), lease: Some(lease) };
    let leased = Txn { ops: vec![leased], compares: vec![] };
    assert_eq!(remote.txn(with("s/a", 1, leased)).await, forbidden("s/a"), "nor later, by itself");
    assert_eq!(remote.txn(with("s/a", 9, put("s/a", "2"))).await, Ok(TxnOutcome::Conflict));
    assert!(matches!(remote.txn(with("s/a", 1, put("s/a", "2"))).await, Ok(TxnOutcome::Committed(_))));
}

#[tokio::test]
async fn an_unknown_peer_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("state.sock");
    let store = LocalStore::in_memory().unwrap();
    let listener = local_socket::bind(&socket, 0o600).unwrap();
    let _server = tokio::spawn(store_server::serve(listener, store, Arc::new(|_| None)));
    let error = RemoteStore::new(&socket).get("k").await.unwrap_err();
    assert!(error.to_string().contains("no role"), "{error}");
}

#[tokio::test]
async fn a_watch_flows_and_a_slow_one_stops_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("state.sock");
    let local = LocalStore::in_memory().unwrap();
    let _server = serve(&socket, local.clone(), &[""]);
    let remote = RemoteStore::new(&socket);
    let mut slow = remote.watch("", Revision(0)).await.unwrap();
    let mut fast = remote.watch("", Revision(0)).await.unwrap();
    let dropped = remote.watch("", Revision(0)).await.unwrap();
    drop(dropped);
    for batch in 0..300 {
        let ops = (0..20).flat_map(|n| put(&format!("k/{batch}/{n}"), "x").ops).collect();
        local.commit(Txn { compares: vec![], ops }).await.unwrap();
    }
    for stream in [&mut fast, &mut slow] {
        for n in 0..6000 {
            let event = within(stream.next()).await.unwrap().unwrap();
            assert_eq!(event.revision(), Revision(n / 20 + 1));
        }
        assert!(stream.next().now_or_never().is_none());
    }
    assert!(within(remote.get("k/0/0")).await.unwrap().is_some());
}

#[tokio::test]
async fn it_survives_a_restart_of_the_controller() {
    let directory = tempfile::tempdir().unwrap();
    let (socket, file) = (directory.path().join("state.sock"), directory.path().join("state.redb"));
    let remote = RemoteStore::new(&socket);
    let error = remote.get("k").await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");

    let server = serve(&socket, LocalStore::open(&file).unwrap(), &[""]);
    remote.txn(put("k", "1")).await.unwrap();
    let mut watch = remote.watch("k", Revision(0)).await.unwrap();
    assert_eq!(within(watch.next()).await.unwrap().unwrap().revision(), Revision(1));
    stop(server).await;
    assert!(matches!(within(watch.next()).await, Some(Err(StoreError::Unavailable(_)))));
    assert!(within(watch.next()).await.is_none());
    assert!(matches!(within(remote.txn(put("k", "2"))).await, Err(StoreError::Unavailable(_))));

    tokio::time::sleep(Duration::from_millis(50)).await;
    let _server = serve(&socket, LocalStore::open(&file).unwrap(), &[""]);
    within(remote.txn(put("k", "3"))).await.unwrap();
    let mut watch = remote.watch("k", Revision(1)).await.unwrap();
    assert_eq!(within(watch.next()).await.unwrap().unwrap().revision(), Revision(2));
}

#[tokio::test]
async fn a_role_reads_only_what_it_may() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("state.sock");
    let local = LocalStore::in_memory().unwrap();
    local.commit(put("identity/keys/a", "secret")).await.unwrap();
    local.commit(put("compute/server/a", "x")).await.unwrap();
    let _server = serve_to(&socket, local, &[], &["compute/"]);
    let remote = RemoteStore::new(&socket);
    assert!(remote.get("compute/server/a").await.unwrap().is_some());
    for key in ["identity/keys/a", "identity/", "comp", ""] {
        let forbidden = StoreError::Forbidden { role: "compute".into(), key: key.into() };
        assert_eq!(remote.get(key).await, Err(forbidden.clone()));
        assert_eq!(remote.range(key, None, 10).await, Err(forbidden.clone()));
        let mut events = match within(remote.watch(key, Revision(0))).await {
            Ok(events) => events,
            Err(e) => {
                assert_eq!(e, forbidden);
                continue;
            }
        };
        assert_eq!(within(events.next()).await, Some(Err(forbidden)));
    }
}
