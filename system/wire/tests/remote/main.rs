//! Nodes talking over loopback: who is let in, which version is spoken, and what limits hold.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod replicas;
mod support;

use std::sync::Arc;
use std::time::Duration;

use cairn_wire::remote::{
    Access, Call, Code, Connection, Error, Expect, Limits, Outgoing, Peers, Refusal, Service, Services,
    Standing, Versions,
};
use futures_util::StreamExt;

use support::{Node, WITHIN};

#[tokio::test]
async fn members_call_each_other_and_know_who_calls() {
    let (a, b) = Node::pair();
    let address = b.serve(services()).await;
    let peers = Peers::new(a.endpoint.clone());
    peers.set_addresses(b.id(), vec![address]);
    let who: (String, u16) = peers.call(b.id(), "echo/who", &(), WITHIN).await.unwrap();
    assert_eq!(who, (format!("{} Member", a.id()), 1));
    let long = "x".repeat(900_000);
    let echoed: String = peers.call(b.id(), "echo/text", &long, WITHIN).await.unwrap();
    assert_eq!(echoed, long);
}

#[tokio::test]
async fn one_connection_carries_many_calls_and_is_made_anew_when_it_broke() {
    let (a, b) = Node::pair();
    let mut served = b.start(services()).await;
    let peers = Peers::new(a.endpoint.clone());
    peers.set_addresses(b.id(), vec![served.address]);
    let (to, caller) = (b.id(), peers.clone());
    let calls = (0..500u32).map(|n| {
        let peers = caller.clone();
        async move { peers.call::<_, u32>(to, "echo/echo", &n, WITHIN).await.unwrap() }
    });
    let answers: Vec<u32> = futures_util::stream::iter(calls).buffer_unordered(100).collect().await;
    assert_eq!(answers.len(), 500);
    assert_eq!(served.connections(), 1);
    served.stop().await;
    let down = peers.call::<_, u32>(b.id(), "echo/echo", &1u32, Duration::from_secs(2)).await;
    assert!(down.is_err());
    let served = b.start_at(served.address, services()).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(peers.call::<_, u32>(b.id(), "echo/echo", &7u32, WITHIN).await.unwrap(), 7);
    drop(served);
}

#[tokio::test]
async fn a_node_that_moved_to_another_address_is_still_itself() {
    let (a, b) = Node::pair();
    let mut before = b.start(services()).await;
    let peers = Peers::new(a.endpoint.clone());
    peers.set_addresses(b.id(), vec![before.address]);
    assert_eq!(peers.call::<_, u32>(b.id(), "echo/echo", &1u32, WITHIN).await.unwrap(), 1);
    before.stop().await;
    let after = b.serve(services()).await;
    // Another node has the old address now.
    let _taken = Node::alone().start_at(before.address, services()).await;
    peers.set_addresses(b.id(), vec![before.address, after]);
    assert_eq!(peers.call::<_, u32>(b.id(), "echo/echo", &2u32, WITHIN).await.unwrap(), 2);
}

#[tokio::test]
async fn a_stranger_reaches_only_what_is_for_anyone() {
    let (a, b) = (Node::alone(), Node::alone());
    let address = b.serve(services().with("open", Arc::new(Open))).await;
    let connection = Connection::open(&a.endpoint, &[address], Expect::Anyone).await.unwrap();
    let refused = connection.call::<_, u32>("echo/echo", &1u32, WITHIN).await.unwrap_err();
    assert!(matches!(refused, Error::Refused(Refusal { code: Code::Forbidden, .. })));
    assert_eq!(connection.call::<_, u32>("open/x", &1u32, WITHIN).await.unwrap(), 1);
}

#[tokio::test]
async fn another_node_at_the_address_is_not_talked_to() {
    let (a, b) = Node::pair();
    let stranger = Node::alone();
    let address = stranger.serve(services()).await;
    for expect in [Expect::Node(b.id()), Expect::Ours, Expect::Stranger(b.id())] {
        let e = Connection::open(&a.endpoint, &[address], expect).await.err().unwrap();
        assert!(matches!(e, Error::Untrusted(_)), "{e}");
    }
}

#[tokio::test]
async fn a_node_is_found_behind_dead_and_foreign_addresses() {
    let (a, b) = Node::pair();
    let right = b.serve(services()).await;
    let foreign = Node::alone().serve(services()).await;
    let dead = "127.0.0.1:1".parse().unwrap();
    let connection =
        Connection::open(&a.endpoint, &[dead, foreign, right], Expect::Node(b.id())).await.unwrap();
    assert_eq!((connection.peer().id, connection.peer().standing), (b.id(), Standing::Member));
}

#[tokio::test]
async fn a_removed_member_is_cut_off_and_told_so() {
    let (a, b) = Node::pair();
    let address = b.serve(services()).await;
    let connection = Connection::open(&a.endpoint, &[address], Expect::Node(b.id())).await.unwrap();
    assert_eq!(connection.call::<_, u32>("echo/echo", &1u32, WITHIN).await.unwrap(), 1);
    b.remove(a.id());
    let cut = connection.call::<_, u32>("echo/echo", &1u32, WITHIN).await;
    assert!(cut.is_err());
    let e = Connection::open(&a.endpoint, &[address], Expect::Node(b.id())).await.err().unwrap();
    assert!(matches!(e, Error::Removed), "{e}");
}

#[tokio::test]
async fn the_client_drops_a_connection_to_a_node_that_was_removed() {
    let (a, b) = Node::pair();
    let address = b.serve(services()).await;
    let connection = Connection::open(&a.endpoint, &[address], Expect::Node(b.id())).await.unwrap();
    a.remove(b.id());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!connection.alive());
    let e = Connection::open(&a.endpoint, &[address], Expect::Node(b.id())).await.err().unwrap();
    assert!(matches!(e, Error::Untrusted(_)), "{e}");
}

#[tokio::test]
async fn two_releases_side_by_side_speak_the_highest_common_version() {
    let (mut a, mut b) = Node::pair();
    a.endpoint.versions = Versions { oldest: 1, newest: 2 };
    b.endpoint.versions = Versions { oldest: 2, newest: 3 };
    let address = b.serve(services()).await;
    let connection = Connection::open(&a.endpoint, &[address], Expect::Ours).await.unwrap();
    assert_eq!(connection.version(), 2);
    let (_, seen): (String, u16) = connection.call("echo/who", &(), WITHIN).await.unwrap();
    assert_eq!(seen, 2);
    a.endpoint.versions = Versions { oldest: 1, newest: 1 };
    let e = Connection::open(&a.endpoint, &[address], Expect::Ours).await.err().unwrap();
    assert!(e.to_string().contains("spoken here 1 to 1, there 2 to 3"), "{e}");
}

#[tokio::test]
async fn limits_refuse_and_nothing_else_suffers() {
    let (a, b) = Node::pair();
    let address = b.serve(services().with("narrow", Arc::new(Narrow))).await;
    let connection = Connection::open(&a.endpoint, &[address], Expect::Ours).await.unwrap();
    let code = |e: Result<u32, Error>| match e {
        Err(Error::Refused(refusal)) => refusal.code,
        other => panic!("{other:?}"),
    };
    let long = "x".repeat(2000);
    assert_eq!(code(connection.call("narrow/x", &long, WITHIN).await), Code::TooLarge);
    let slow = connection.call("narrow/sleep", &0u32, WITHIN);
    let second = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        connection.call("narrow/sleep", &0u32, WITHIN).await
    };
    let (slow, second) = tokio::join!(slow, second);
    assert_eq!((code(slow), code(second)), (Code::TooSlow, Code::Busy));
    assert_eq!(code(connection.call("absent/x", &0u32, WITHIN).await), Code::NotFound);
    assert_eq!(code(connection.call("echo/absent", &0u32, WITHIN).await), Code::NotFound);
    assert_eq!(connection.call::<_, u32>("echo/echo", &5u32, WITHIN).await.unwrap(), 5);
    let late = connection.call::<_, u32>("echo/hang", &(), Duration::from_millis(100)).await;
    assert!(matches!(late, Err(Error::TimedOut(100))));
}

#[tokio::test]
async fn streams_flow_both_ways_and_wait_for_who_reads() {
    let (a, b) = Node::pair();
    let address = b.serve(services()).await;
    let connection = Connection::open(&a.endpoint, &[address], Expect::Ours).await.unwrap();
    let numbers = futures_util::stream::iter((0..100u64).map(Ok));
    let mut sums = connection.stream("echo/sum", Outgoing::stream(numbers), WITHIN).await.unwrap();
    let mut last = 0;
    while let Some(sum) = sums.next::<u64>().await.unwrap() {
        last = sum;
    }
    assert_eq!(last, 4950);

    let mut flood = connection.stream("echo/flood", Outgoing::message(&()).unwrap(), WITHIN).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let sent: u64 = connection.call("echo/flooded", &(), WITHIN).await.unwrap();
    assert!(sent < 200, "{sent} blocks of 64 KiB were sent to who reads none");
    for _ in 0..500 {
        assert_eq!(flood.next::<bytes::Bytes>().await.unwrap().unwrap().len(), 64 << 10);
    }
    let e = connection.stream("echo/fail", Outgoing::message(&()).unwrap(), WITHIN).await.unwrap();
    let mut e = e;
    assert_eq!(e.next::<u32>().await.unwrap(), Some(1));
    assert!(matches!(e.next::<u32>().await, Err(Error::Refused(Refusal { code: Code::Unavailable, .. }))));
}

fn services() -> Services {
    Services::new().with("echo", Arc::new(support::Echo::default()))
}

struct Open;

#[async_trait::async_trait]
impl Service for Open {
    fn access(&self) -> Access {
        Access::Anyone
    }

    async fn call(&self, mut call: Call) -> Result<Outgoing, Refusal> {
        Outgoing::message(&call.message::<u32>().await?)
    }
}

struct Narrow;

#[async_trait::async_trait]
impl Service for Narrow {
    fn limits(&self) -> Limits {
        Limits { calls: 1, message_bytes: 1000, answer: Duration::from_millis(300) }
    }

    async fn call(&self, mut call: Call) -> Result<Outgoing, Refusal> {
        match call.method.as_str() {
            "sleep" => std::future::pending().await,
            _ => Outgoing::message(&call.message::<String>().await?.len()),
        }
    }
}
