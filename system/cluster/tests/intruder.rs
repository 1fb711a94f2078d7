//! Somebody on the same wire without the words, a token or a certificate gets nothing: not by asking, not by saying again
//! what others have said, not with a certificate that has ended, not by nonsense. And the cloud goes on answering.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cairn_cluster::join::applicant;
use cairn_cluster::join::client::{Applied, Error, apply};
use cairn_cluster::join::messages::{Answer, Application, Begin, Offer, Reveal};
use cairn_cluster::join::{SERVICE, service::JoinService};
use cairn_cluster::membership::service::{self, MemberService};
use cairn_cluster::membership::{JoinPolicy, Member, Otherwise, change};
use cairn_cluster::token::TokenRecord;
use cairn_cluster::{Authority, Token};
use cairn_state::LocalStore;
use cairn_wire::remote::{
    self, Code, Connection, Error as WireError, Expect, PeerId, REPLICAS, ReplicaService, Services,
};
use jiff::{SignedDuration, Timestamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use common::Node;

const WITHIN: Duration = Duration::from_secs(10);
/// How many mutilated handshakes are tried; each from a seed of its own, which a failure names.
const FUZZED: u64 = 150;

impl Node {
    async fn apply(&self, to: SocketAddr, token: Option<&Token>) -> Result<Applied, Error> {
        apply(&self.endpoint, &[to], Expect::Anyone, &application(), token).await
    }

    async fn connect(&self, to: SocketAddr) -> Connection {
        Connection::open(&self.endpoint, &[to], Expect::Anyone).await.unwrap()
    }
}

fn application() -> Application {
    Application { release: "0.1.0".into(), addresses: vec!["192.0.2.1:4600".parse().unwrap()] }
}

/// A cloud of one that serves all that a controller serves to others, and lets in by token alone.
struct Cloud {
    store: LocalStore,
    authority: Authority,
    at: SocketAddr,
}

async fn cloud() -> Cloud {
    let store = LocalStore::in_memory().unwrap();
    let node = Node::new();
    let authority = Authority::create("cloud-1", 1).unwrap();
    let founded = store.transact(|tx| change::found(tx, &authority, &node.key, vec![], Timestamp::now()));
    let belonging = founded.await.unwrap();
    node.endpoint.credentials.replace(belonging.certificate.der()).unwrap();
    node.endpoint.trust.replace(belonging.trust());
    let policy = JoinPolicy { open_until: None, otherwise: Otherwise::Token };
    store.transact(|tx| Ok::<_, change::Error>(tx.put(&policy)?)).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let services = Services::new()
        .with(REPLICAS, Arc::new(ReplicaService::new(store.endpoint())))
        .with(SERVICE, Arc::new(JoinService::new(store.clone(), node.key.id())))
        .with(service::SERVICE, Arc::new(MemberService::new(store.clone())));
    tokio::spawn(remote::serve(listener, node.endpoint, services));
    Cloud { store, authority, at }
}

impl Cloud {
    async fn token(&self) -> Token {
        let token = Token::generate().unwrap();
        let record = TokenRecord::of(&token, None, Some(5));
        self.store.transact(|tx| Ok::<_, change::Error>(tx.put(&record)?)).await.unwrap();
        token
    }

    fn members(&self) -> Vec<PeerId> {
        let all = self.store.read(|tx| Ok::<_, change::Error>(tx.list_unfenced::<Member>()?)).unwrap();
        all.into_iter().map(|m| m.id).collect()
    }

    fn uses_left(&self, token: &Token) -> Option<u32> {
        let read = self.store.read(|tx| Ok::<_, change::Error>(tx.get::<TokenRecord>(token.id())?));
        read.unwrap().unwrap().uses_left
    }

    /// Whether it still lets in who has a token.
    async fn still_answers(&self) {
        let (node, token) = (Node::new(), self.token().await);
        let mut tries = 0;
        loop {
            match node.apply(self.at, Some(&token)).await {
                Ok(applied) => {
                    assert!(matches!(applied.answer, Answer::Admitted { .. }));
                    return;
                }
                // The door lets few strangers in at a time.
                Err(e) if tries > 100 => panic!("{e}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
            tries += 1;
        }
    }
}

fn code<T: std::fmt::Debug>(answer: Result<T, WireError>) -> Code {
    match answer {
        Err(WireError::Refused(refusal)) => refusal.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_rogue_is_told_nothing_and_reaches_nothing() {
    let cloud = cloud().await;
    let rogue = Node::new();
    let applied = rogue.apply(cloud.at, None).await.unwrap();
    assert!(matches!(applied.answer, Answer::Refused(_)), "{:?}", applied.answer);
    let connection = rogue.connect(cloud.at).await;
    for method in ["raft/ask", "cluster/hello", "cluster/health"] {
        assert_eq!(code(connection.call::<_, ()>(method, &(), WITHIN).await), Code::Forbidden, "{method}");
    }
    assert_eq!(cloud.members().len(), 1);
}

#[tokio::test]
async fn what_others_said_is_of_no_use_again() {
    let cloud = cloud().await;
    let (honest, rogue, token) = (Node::new(), Node::new(), cloud.token().await);
    let nonce = [7; 32];
    let (begun, begin) = applicant::begin(honest.key.id(), &application(), nonce).unwrap();
    let heard: Begin = begin;
    let connection = honest.connect(cloud.at).await;
    let offer: Offer = connection.call("join/begin", &heard, WITHIN).await.unwrap();
    let (_, reveal) =
        begun.offered(connection.peer().id, connection.version(), &offer, Some(&token)).unwrap();
    let heard_too: Reveal = reveal;
    let answer: Answer = connection.call("join/reveal", &heard_too, WITHIN).await.unwrap();
    assert!(matches!(answer, Answer::Admitted { .. }));
    assert_eq!(cloud.uses_left(&token), Some(4));

    // The rogue says all of it again, with its own key, which is all that it has.
    let connection = rogue.connect(cloud.at).await;
    let offer: Result<Offer, _> = connection.call("join/begin", &heard, WITHIN).await;
    assert!(offer.is_ok());
    let replayed: Result<Answer, _> = connection.call("join/reveal", &heard_too, WITHIN).await;
    assert_eq!(code(replayed), Code::Invalid, "the commitment is another node's");
    // Its own handshake with the other's proof.
    let (begun, begin) = applicant::begin(rogue.key.id(), &application(), nonce).unwrap();
    let offer: Offer = connection.call("join/begin", &begin, WITHIN).await.unwrap();
    let (_, mut reveal) = begun.offered(connection.peer().id, connection.version(), &offer, None).unwrap();
    reveal.token.clone_from(&heard_too.token);
    let answer: Answer = connection.call("join/reveal", &reveal, WITHIN).await.unwrap();
    assert!(matches!(answer, Answer::Refused(_)), "the proof is of another handshake: {answer:?}");
    let again: Result<Answer, _> = connection.call("join/reveal", &reveal, WITHIN).await;
    assert_eq!(code(again), Code::Invalid, "a handshake is over once");
    assert!(!cloud.members().contains(&rogue.key.id()));
    assert_eq!(cloud.uses_left(&token), Some(4));
}

/// Passes one connection on, and keeps what its client said.
async fn recorded(to: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (at, said) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let keep = said.clone();
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let (mut from, mut back) = client.into_split();
        let (mut replies, mut on) = TcpStream::connect(to).await.unwrap().into_split();
        let out = tokio::spawn(async move { tokio::io::copy(&mut replies, &mut back).await });
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            keep.lock().unwrap().extend_from_slice(&buffer[..n]);
            if on.write_all(&buffer[..n]).await.is_err() {
                break;
            }
        }
        out.abort();
    });
    (at, said)
}

/// Says these bytes to the cloud, and waits until it closes or has nothing more to say.
async fn say(to: SocketAddr, bytes: &[u8]) {
    let Ok(mut stream) = TcpStream::connect(to).await else { return };
    drop(stream.write_all(bytes).await);
    drop(stream.shutdown().await);
    let mut heard = Vec::new();
    drop(tokio::time::timeout(WITHIN, stream.read_to_end(&mut heard)).await);
}

/// A small generator of numbers (SplitMix64): the same for the same seed, anywhere.
fn dice(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed;
    move |below| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % below.max(1) as u64) as usize
    }
}

/// The bytes with some changed, cut off, doubled or thrown in.
fn mutilated(bytes: &[u8], seed: u64) -> Vec<u8> {
    let mut roll = dice(seed);
    let mut out = bytes.to_vec();
    for _ in 0..=roll(4) {
        let at = roll(out.len());
        match roll(4) {
            0 => out[at] ^= 1 << roll(8),
            1 => out.truncate(at.max(1)),
            2 => out.insert(at, roll(256) as u8),
            _ => out.extend_from_within(at..),
        }
    }
    out
}

#[tokio::test]
async fn a_recorded_connection_says_nothing_to_anybody_else_whole_or_mutilated() {
    let cloud = cloud().await;
    let (node, token) = (Node::new(), cloud.token().await);
    let (proxy, said) = recorded(cloud.at).await;
    node.apply(proxy, Some(&token)).await.unwrap();
    let members = cloud.members();
    assert_eq!((members.len(), cloud.uses_left(&token)), (2, Some(4)));
    let said = said.lock().unwrap().clone();
    assert!(said.len() > 1000);
    say(cloud.at, &said).await;
    for seed in 0..FUZZED {
        say(cloud.at, &mutilated(&said, seed)).await;
        assert_eq!(cloud.members().len(), 2, "seed {seed}");
    }
    assert_eq!((cloud.members(), cloud.uses_left(&token)), (members, Some(4)));
    cloud.still_answers().await;
}

#[tokio::test]
async fn nonsense_in_a_handshake_is_refused_and_leaves_nothing() {
    let cloud = cloud().await;
    let rogue = Node::new();
    let nonce = [7; 32];
    let (_, good) = applicant::begin(rogue.key.id(), &application(), nonce).unwrap();
    let connection = rogue.connect(cloud.at).await;
    for seed in 0..FUZZED {
        let begin = Begin { application: mutilated(&good.application, seed), ..good.clone() };
        let offer: Result<Offer, WireError> = connection.call("join/begin", &begin, WITHIN).await;
        let mut roll = dice(seed);
        let reveal = Reveal { nonce: std::array::from_fn(|_| roll(256) as u8), token: None };
        let answer: Result<Answer, WireError> = connection.call("join/reveal", &reveal, WITHIN).await;
        assert!(answer.is_err(), "seed {seed}: {offer:?} {answer:?}");
    }
    assert_eq!(cloud.members().len(), 1);
    cloud.still_answers().await;
}

#[tokio::test]
async fn a_stolen_certificate_opens_nothing_once_it_has_ended_or_without_its_key() {
    let cloud = cloud().await;
    let thief = Node::new();
    let issued = |days: i64| {
        let at = Timestamp::now() - SignedDuration::from_hours(24 * days);
        cloud.authority.issue(&thief.key.public_key(), at).unwrap()
    };
    // Key and all, of a node that nobody knows by key: that is all that a certificate is for.
    thief.endpoint.credentials.replace(issued(30).der()).unwrap();
    let connection = thief.connect(cloud.at).await;
    assert_eq!(code(connection.call::<_, ()>("cluster/health", &(), WITHIN).await), Code::Forbidden);
    // What makes the difference is its end.
    thief.endpoint.credentials.replace(issued(1).der()).unwrap();
    let connection = thief.connect(cloud.at).await;
    let health = connection.call::<_, service::Health>("cluster/health", &(), WITHIN).await;
    assert!(health.is_ok(), "{health:?}");
    // Another's good certificate, without the key.
    let other = Node::new();
    let good = cloud.authority.issue(&other.key.public_key(), Timestamp::now()).unwrap();
    assert!(thief.key.credentials(good.der()).is_err(), "it cannot even be shown");
}
