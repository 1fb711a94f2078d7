//! Version 1 of the protocol, byte by byte. If one of these fails, an older agent no longer understands its
//! controller: give the change a new version, and keep these for the old.

use cairn_state::kv::{Compare, Entry, Event, LeaseId, Op, Revision, StoreError, Txn, TxnOutcome};

use super::{Answer, Call, Hello, Request, Response, Welcome, encode};

fn call(request: Request) -> Vec<u8> {
    encode(&Call { id: 300, request }).unwrap().to_vec()
}

fn answer(response: Response) -> Vec<u8> {
    encode(&Answer { id: 300, response }).unwrap().to_vec()
}

#[test]
fn the_handshake_never_changes() {
    assert_eq!(*encode(&Hello { versions: vec![1, 2] }).unwrap(), [2, 1, 2]);
    assert_eq!(*encode(&Welcome::Version(1)).unwrap(), [0, 1]);
    assert_eq!(*encode(&Welcome::Refused("no".into())).unwrap(), *b"\x01\x02no");
}

#[test]
fn calls_of_version_1() {
    let (prefix, lease) = (|| "p/".to_owned(), LeaseId(5));
    assert_eq!(call(Request::Get { key: "k".into() }), b"\xac\x02\x00\x01k");
    let range = Request::Range { prefix: prefix(), after: Some("a".into()), limit: 7 };
    assert_eq!(call(range), b"\xac\x02\x01\x02p/\x01\x01a\x07");
    let put = Op::Put { key: "k".into(), value: "v".into(), lease: Some(lease) };
    let unchanged = Compare::Unchanged { prefix: prefix(), count: 1, since: Revision(2) };
    let compares = vec![Compare::Modified("k".into(), Revision(3)), unchanged];
    let txn = Txn { compares, ops: vec![put, Op::Delete { key: "d".into() }] };
    let expected = b"\xac\x02\x02\x02\x00\x01k\x03\x01\x02p/\x01\x02\x02\x00\x01k\x01v\x01\x05\x01\x01d";
    assert_eq!(call(Request::Txn(txn)), expected);
    assert_eq!(call(Request::Watch { prefix: prefix(), after: Revision(4) }), b"\xac\x02\x03\x02p/\x04");
    assert_eq!(call(Request::Credit(1024)), b"\xac\x02\x04\x80\x08");
    assert_eq!(call(Request::Cancel), b"\xac\x02\x05");
    assert_eq!(call(Request::LeaseGrant { ttl_ms: 9 }), b"\xac\x02\x06\x09");
    assert_eq!(call(Request::LeaseKeepAlive(lease)), b"\xac\x02\x07\x05");
    assert_eq!(call(Request::LeaseRevoke(lease)), b"\xac\x02\x08\x05");
    assert_eq!(call(Request::Ping), b"\xac\x02\x09");
}

#[test]
fn answers_of_version_1() {
    let entry = || Entry {
        key: "k".into(),
        value: "v".into(),
        created: Revision(1),
        modified: Revision(2),
        lease: None,
    };
    assert_eq!(answer(Response::Entry(Some(entry()))), b"\xac\x02\x00\x01\x01k\x01v\x01\x02\x00");
    assert_eq!(answer(Response::RangePart(vec![entry()])), b"\xac\x02\x01\x01\x01k\x01v\x01\x02\x00");
    assert_eq!(answer(Response::RangeEnd { at: Revision(3), more: true }), b"\xac\x02\x02\x03\x01");
    assert_eq!(answer(Response::Txn(TxnOutcome::Committed(Revision(3)))), b"\xac\x02\x03\x00\x03");
    assert_eq!(answer(Response::Txn(TxnOutcome::Conflict)), b"\xac\x02\x03\x01");
    assert_eq!(answer(Response::Watching), b"\xac\x02\x04");
    let gone = Event::Delete { key: "d".into(), revision: Revision(4) };
    let expected = b"\xac\x02\x05\x02\x00\x01k\x01v\x01\x02\x00\x01\x01d\x04";
    assert_eq!(answer(Response::Events(vec![Event::Put(entry()), gone])), expected);
    assert_eq!(answer(Response::Lease(LeaseId(5))), b"\xac\x02\x06\x05");
    assert_eq!(answer(Response::Done), b"\xac\x02\x07");
}

#[test]
fn errors_of_version_1() {
    let (a, b) = (|| "a".to_owned(), || "b".to_owned());
    let all = [
        (StoreError::Storage(a()), &b"\x00\x01a"[..]),
        (StoreError::Compacted { asked: Revision(1), oldest: Revision(2) }, b"\x01\x01\x02"),
        (StoreError::LeaseExpired(LeaseId(5)), b"\x02\x05"),
        (StoreError::Unavailable(a()), b"\x03\x01a"),
        (StoreError::Forbidden { role: a(), key: b() }, b"\x04\x01a\x01b"),
        (StoreError::Decode { key: a(), why: b() }, b"\x05\x01a\x01b"),
        (StoreError::Contention, b"\x06"),
        (StoreError::TooLarge(a()), b"\x07\x01a"),
        (StoreError::TooNew { found: 2, known: 1 }, b"\x08\x02\x01"),
    ];
    for (error, bytes) in all {
        assert_eq!(answer(Response::Failed(error)), [b"\xac\x02\x08", bytes].concat());
    }
}
