//! Nodes join over loopback, under each policy: the first founds, the others ask.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cairn_cluster::join::client::{Applied, Error, apply, status};
use cairn_cluster::join::messages::{Answer, Application};
use cairn_cluster::join::{SERVICE, applicant::Doubt, service::JoinService};
use cairn_cluster::membership::{JoinPolicy, Member, MemberState, Otherwise, Request, change};
use cairn_cluster::token::TokenRecord;
use cairn_cluster::{Authority, Belonging, Token};
use cairn_state::{LocalStore, Tx};
use cairn_wire::remote::{
    self, Call, Code, Connection, Error as WireError, Expect, Outgoing, PeerId, Refusal, Service, Services,
};
use jiff::{SignedDuration, Timestamp};
use tokio::net::TcpListener;

use common::Node;

const WITHIN: Duration = Duration::from_secs(5);

impl Node {
    async fn apply(&self, to: SocketAddr, token: Option<&Token>) -> Result<Applied, Error> {
        let application =
            Application { release: "0.1.0".into(), addresses: vec!["192.0.2.1:4600".parse().unwrap()] };
        apply(&self.endpoint, &[to], Expect::Anyone, &application, token).await
    }

    /// Is a member from now on.
    fn adopt(&self, belonging: &Belonging) {
        self.endpoint.credentials.replace(belonging.certificate.der()).unwrap();
        self.endpoint.trust.replace(belonging.trust());
    }
}

/// The node that founded, with its store and services.
struct Founder {
    node: Node,
    store: LocalStore,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

struct Members;

#[async_trait::async_trait]
impl Service for Members {
    async fn call(&self, call: Call) -> Result<Outgoing, Refusal> {
        Outgoing::message(&call.peer.id)
    }
}

impl Founder {
    async fn start() -> Founder {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::open(&dir.path().join("store.redb")).unwrap();
        let node = Node::new();
        let authority = Authority::create("cloud-1", 1).unwrap();
        let founded = store.transact(|tx| change::found(tx, &authority, &node.key, vec![], Timestamp::now()));
        node.adopt(&founded.await.unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let join = JoinService::new(store.clone(), node.key.id());
        let services = Services::new().with(SERVICE, Arc::new(join)).with("members", Arc::new(Members));
        tokio::spawn(remote::serve(listener, node.endpoint.clone(), services));
        Founder { node, store, address, _dir: dir }
    }

    async fn tx<T>(&self, body: impl FnMut(&mut Tx) -> Result<T, change::Error>) -> T {
        self.store.transact(body).await.unwrap()
    }

    async fn policy(&self, open: bool, otherwise: Otherwise) {
        let open_until = open.then(|| Timestamp::now() + SignedDuration::from_mins(5));
        self.tx(|tx| Ok(tx.put(&JoinPolicy { open_until, otherwise })?)).await;
    }

    /// What each controller does when the members have changed.
    fn follow(&self) {
        let key = self.node.key.public_key();
        let belonging = self.store.read(|tx| change::belonging(tx, &key, Timestamp::now())).unwrap();
        self.node.adopt(&belonging);
    }

    fn member(&self, id: PeerId) -> Option<Member> {
        self.store.read(|tx| Ok::<_, change::Error>(tx.get::<Member>(&id.to_string())?)).unwrap()
    }

    async fn is_reached_by(&self, node: &Node) -> Result<PeerId, WireError> {
        let expect = Expect::Node(self.node.key.id());
        let connection = Connection::open(&node.endpoint, &[self.address], expect).await?;
        connection.call("members/who", &(), WITHIN).await
    }
}

fn admitted(answer: &Answer) -> &Belonging {
    match answer {
        Answer::Admitted { belonging, .. } => belonging,
        other => panic!("not admitted: {other:?}"),
    }
}

#[tokio::test]
async fn a_new_cloud_lets_in_who_asks_and_certificates_carry_until_pins_have_come() {
    let founder = Founder::start().await;
    let node = Node::new();
    assert!(founder.is_reached_by(&node).await.is_err(), "it knows nobody yet");
    let applied = node.apply(founder.address, None).await.unwrap();
    assert_eq!(applied.offered.cloud(), "cloud-1");
    node.adopt(admitted(&applied.answer));
    // The founder has not looked at its store since, so it knows the newcomer by certificate alone.
    assert_eq!(founder.is_reached_by(&node).await.unwrap(), node.key.id());
    founder.follow();
    assert_eq!(founder.is_reached_by(&node).await.unwrap(), node.key.id());
    let member = founder.member(node.key.id()).unwrap();
    assert_eq!((member.state, member.name), (MemberState::Joining, node.key.name()));
    // Asking again, as after a crash in the middle, changes nothing.
    founder.policy(false, Otherwise::Token).await;
    let again = node.apply(founder.address, None).await.unwrap();
    assert_eq!(admitted(&again.answer).members.len(), 2);
}

#[tokio::test]
async fn a_person_who_compared_the_words_lets_a_node_in() {
    let founder = Founder::start().await;
    founder.policy(false, Otherwise::Ask).await;
    let node = Node::new();
    let applied = node.apply(founder.address, None).await.unwrap();
    assert_eq!(applied.answer, Answer::Waiting);
    let look = || async { status(&node.endpoint, &[founder.address], &applied.offered).await.unwrap() };
    assert_eq!(look().await, Answer::Waiting);
    assert!(founder.is_reached_by(&node).await.is_err());

    let shown = founder.tx(|tx| Ok(tx.get::<Request>(&node.key.id().to_string())?.unwrap())).await;
    assert_eq!(shown.words, applied.offered.words(), "both screens show the same");
    assert_eq!((shown.name, shown.release.as_str()), (node.key.name(), "0.1.0"));
    founder.tx(|tx| change::accept(tx, node.key.id(), shown.words, Timestamp::now())).await;
    node.adopt(admitted(&look().await));
    assert_eq!(founder.is_reached_by(&node).await.unwrap(), node.key.id());

    let other = Node::new();
    let applied = other.apply(founder.address, None).await.unwrap();
    founder.tx(|tx| change::refuse(tx, other.key.id(), "admin")).await;
    let refused = status(&other.endpoint, &[founder.address], &applied.offered).await.unwrap();
    assert!(matches!(refused, Answer::Refused(_)));
}

#[tokio::test]
async fn a_token_lets_in_as_often_as_it_says_and_a_wrong_one_never() {
    let founder = Founder::start().await;
    founder.policy(false, Otherwise::Token).await;
    let token = Token::generate().unwrap();
    founder.tx(|tx| Ok(tx.put(&TokenRecord::of(&token, None, Some(1)))?)).await;

    let without = Node::new().apply(founder.address, None).await.unwrap();
    assert!(matches!(without.answer, Answer::Refused(_)));
    let wrong = Token::generate().unwrap();
    let with_wrong = Node::new().apply(founder.address, Some(&wrong)).await.unwrap();
    assert!(matches!(with_wrong.answer, Answer::Refused(_)));
    // The id of a token is no secret; the rest is what counts.
    let half: Token =
        format!("{}.{}", token.id(), wrong.reveal().split_once('.').unwrap().1).parse().unwrap();
    let with_half = Node::new().apply(founder.address, Some(&half)).await.unwrap();
    assert!(matches!(with_half.answer, Answer::Refused(_)));

    let node = Node::new();
    let applied = node.apply(founder.address, Some(&token)).await.unwrap();
    node.adopt(admitted(&applied.answer));
    assert_eq!(founder.is_reached_by(&node).await.unwrap(), node.key.id());
    let used_up = Node::new().apply(founder.address, Some(&token)).await.unwrap();
    assert!(matches!(used_up.answer, Answer::Refused(_)));
    founder.policy(true, Otherwise::Ask).await;
    let while_open = Node::new().apply(founder.address, Some(&wrong)).await.unwrap();
    assert!(matches!(while_open.answer, Answer::Refused(_)), "a wrong token is refused even then");
}

#[tokio::test]
async fn a_cloud_that_does_not_know_the_token_gets_no_node() {
    let founder = Founder::start().await;
    let (node, token) = (Node::new(), Token::generate().unwrap());
    founder.policy(true, Otherwise::Ask).await;
    // It belongs already, so the cloud would take it at its word; the node wants the proof.
    node.apply(founder.address, None).await.unwrap();
    let doubt = node.apply(founder.address, Some(&token)).await;
    assert!(matches!(doubt, Err(Error::Doubt(Doubt::TokenUnknown))), "{doubt:?}");
}

#[tokio::test]
async fn a_removed_member_is_refused_with_its_valid_certificate_and_cannot_join_again() {
    let founder = Founder::start().await;
    let (gone, stays) = (Node::new(), Node::new());
    for node in [&gone, &stays] {
        let applied = node.apply(founder.address, None).await.unwrap();
        node.adopt(admitted(&applied.answer));
    }
    founder.follow();
    let expect = Expect::Node(founder.node.key.id());
    let connection = Connection::open(&gone.endpoint, &[founder.address], expect).await.unwrap();
    connection.call::<_, PeerId>("members/who", &(), WITHIN).await.unwrap();

    // The dead or unwilling node is not asked.
    let successor = founder.tx(change::authority).await.successor().unwrap();
    founder.tx(|tx| change::remove(tx, gone.key.id(), &successor)).await;
    founder.follow();
    assert!(connection.call::<_, PeerId>("members/who", &(), WITHIN).await.is_err(), "it is cut off");
    assert!(matches!(founder.is_reached_by(&gone).await, Err(WireError::Removed)));
    let again = gone.apply(founder.address, None).await;
    assert!(matches!(again, Err(Error::Wire(WireError::Removed))), "{again:?}");
    // The other one still has a certificate of the authority before; its key is what counts.
    assert_eq!(founder.is_reached_by(&stays).await.unwrap(), stays.key.id());
}

#[tokio::test]
async fn strangers_may_only_ask_and_not_too_often() {
    let founder = Founder::start().await;
    let node = Node::new();
    let connection = Connection::open(&node.endpoint, &[founder.address], Expect::Anyone).await.unwrap();
    let code = |answer: Result<(), WireError>| match answer {
        Err(WireError::Refused(refusal)) => refusal.code,
        other => panic!("{other:?}"),
    };
    assert_eq!(code(connection.call("members/who", &(), WITHIN).await), Code::Forbidden);
    assert_eq!(code(connection.call("join/begin", &"junk", WITHIN).await), Code::Invalid);
    let long = vec![0u8; 5000];
    assert_eq!(code(connection.call("join/begin", &long, WITHIN).await), Code::TooLarge);
    assert_eq!(code(connection.call("join/absent", &(), WITHIN).await), Code::NotFound);
    node.apply(founder.address, None).await.unwrap();
    let mut busy = 0;
    for _ in 0..40 {
        match Node::new().apply(founder.address, None).await {
            Err(Error::Wire(WireError::Refused(refusal))) => {
                assert_eq!(refusal.code, Code::Busy);
                busy += 1;
            }
            other => drop(other.unwrap()),
        }
    }
    assert!(busy > 5, "{busy} of 40 had to wait");
}
