//! Changes of membership against a real store.

use cairn_state::LocalStore;
use tempfile::TempDir;

use super::*;
use crate::membership::voters::voters;

struct House {
    store: LocalStore,
    founder: NodeKey,
    _dir: TempDir,
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn asks(key: &NodeKey, words: u8) -> Request {
    Request {
        id: key.id(),
        name: key.name(),
        public_key: Der(key.public_key()),
        addresses: vec!["192.0.2.7:4600".parse().unwrap(), "[fe80::1]:4600".parse().unwrap()],
        release: "0.1.0".into(),
        words: Words::of([words; 8]),
        asked: at(0),
        state: RequestState::Waiting,
    }
}

impl House {
    async fn new() -> House {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::open(&dir.path().join("store.redb")).unwrap();
        let house = House { store, founder: NodeKey::generate().unwrap(), _dir: dir };
        let authority = Authority::create("cloud-1", 1).unwrap();
        house.tx(|tx| found(tx, &authority, &house.founder, vec![], at(0)).map(drop)).await.unwrap();
        house
    }

    async fn tx<T>(&self, body: impl FnMut(&mut Tx) -> Result<T, Error>) -> Result<T, Error> {
        self.store.transact(body).await
    }

    async fn joined(&self) -> NodeKey {
        let key = NodeKey::generate().unwrap();
        self.tx(|tx| admit(tx, &asks(&key, 1), at(1))).await.unwrap();
        key
    }
}

#[tokio::test]
async fn a_cloud_is_founded_once_with_one_voter_and_is_open_for_half_an_hour() {
    let house = House::new().await;
    let again = Authority::create("cloud-2", 1).unwrap();
    let twice = house.tx(|tx| found(tx, &again, &house.founder, vec![], at(9))).await;
    assert!(matches!(twice, Err(Error::Founded(id)) if id == "cloud-1"));
    let (policy, member) = house
        .tx(|tx| {
            let policy = tx.get::<JoinPolicy>(JoinPolicy::ID)?.unwrap();
            Ok((policy, tx.get::<Member>(&house.founder.id().to_string())?.unwrap()))
        })
        .await
        .unwrap();
    assert_eq!(policy.open_until, Some(at(1800)));
    assert!(member.voter && member.state == MemberState::Member);
}

#[tokio::test]
async fn a_node_is_let_in_by_the_words_that_were_compared() {
    let house = House::new().await;
    let key = NodeKey::generate().unwrap();
    house.tx(|tx| ask(tx, &asks(&key, 1))).await.unwrap();
    house.tx(|tx| ask(tx, &asks(&key, 2))).await.unwrap();
    let stale = house.tx(|tx| accept(tx, key.id(), Words::of([1; 8]), at(1))).await;
    assert!(matches!(stale, Err(Error::WordsChanged(words)) if words == Words::of([2; 8])));
    house.tx(|tx| accept(tx, key.id(), Words::of([2; 8]), at(1))).await.unwrap();
    let belonging = house.tx(|tx| belonging(tx, &key.public_key(), at(2))).await.unwrap();
    assert_eq!(belonging.members.len(), 2);
    let mine = belonging.members.iter().find(|pin| pin.id == key.id()).unwrap();
    assert_eq!(mine.addresses, ["192.0.2.7:4600".parse().unwrap()], "no address of a link alone");
    assert!(matches!(house.tx(|tx| refuse(tx, key.id(), "x")).await, Err(Error::Absent(_))));
    house.tx(|tx| heard_of(tx, key.id(), vec![], Some(7))).await.unwrap();
    let member = house.tx(|tx| Ok(tx.get::<Member>(&key.id().to_string())?)).await.unwrap().unwrap();
    assert_eq!(member.state, MemberState::Member);
}

#[tokio::test]
async fn a_removed_node_stays_out_and_the_authority_it_saw_is_replaced() {
    let house = House::new().await;
    let key = house.joined().await;
    let before = house.tx(|tx| belonging(tx, &key.public_key(), at(2))).await.unwrap();
    let successor = house.tx(authority).await.unwrap().successor().unwrap();
    let other = house.joined().await;
    house.tx(|tx| remove(tx, key.id(), &successor)).await.unwrap();
    // The other one has seen the successor, so it takes another to be rid of it.
    let same = house.tx(|tx| remove(tx, other.id(), &successor)).await;
    assert!(matches!(same, Err(Error::Overtaken)));
    assert!(matches!(house.tx(|tx| admit(tx, &asks(&key, 1), at(3))).await, Err(Error::Removed)));
    assert!(matches!(house.tx(|tx| belonging(tx, &key.public_key(), at(3))).await, Err(Error::Removed)));
    let after = house.tx(|tx| belonging(tx, &house.founder.public_key(), at(3))).await.unwrap();
    assert_eq!((after.certificate.generation, after.removed.as_slice()), (2, &[key.id()][..]));
    assert_ne!(after.authority, before.authority);
    assert!(after.trust().removed.contains(&key.id()) && !after.trust().members.contains(&key.id()));
    let successor = house.tx(authority).await.unwrap().successor().unwrap();
    house.tx(|tx| remove(tx, other.id(), &successor)).await.unwrap();
    let last = house.tx(|tx| remove(tx, house.founder.id(), &successor)).await;
    assert!(matches!(last, Err(Error::Last)));
}

#[tokio::test]
async fn few_wait_and_who_waited_a_day_makes_room() {
    let house = House::new().await;
    for n in 0..REQUESTS_MAX {
        let request = Request { id: PeerId::new([n as u8; 32]), ..asks(&house.founder, 1) };
        house.tx(|tx| ask(tx, &request)).await.unwrap();
    }
    let late = |asked| Request { asked, ..asks(&house.founder, 1) };
    assert!(matches!(house.tx(|tx| ask(tx, &late(at(60)))).await, Err(Error::Full(_))));
    house.tx(|tx| ask(tx, &late(at(86_401)))).await.unwrap();
    let waiting = house.tx(|tx| Ok(tx.list_unfenced::<Request>()?.len())).await.unwrap();
    assert_eq!(waiting, REQUESTS_MAX);
}

#[tokio::test]
async fn a_cloud_in_use_is_not_given_up_and_one_that_was_lets_nobody_in() {
    let house = House::new().await;
    let used = house.tx(|tx| yield_to(tx, "older", |_| Ok(true))).await;
    assert!(matches!(used, Err(Error::InUse)));
    house.tx(|tx| yield_to(tx, "older", |_| Ok(false))).await.unwrap();
    let key = NodeKey::generate().unwrap();
    assert!(matches!(house.tx(|tx| admit(tx, &asks(&key, 1), at(1))).await, Err(Error::NoCloud)));
}

#[tokio::test]
async fn voters_are_written_as_they_were_decided() {
    use crate::membership::voters::{Candidate, Health};
    let house = House::new().await;
    for _ in 0..3 {
        let key = house.joined().await;
        house.tx(|tx| heard_of(tx, key.id(), vec![], Some(7))).await.unwrap();
    }
    let up = Health::Up { caught_up: true };
    let members = house.tx(|tx| Ok(tx.list_unfenced::<Member>()?)).await.unwrap();
    let decided = voters(&members.iter().map(|m| Candidate::of(m, false, up)).collect::<Vec<_>>());
    assert_eq!(decided.len(), 3);
    house.tx(|tx| set_voters(tx, &decided)).await.unwrap();
    let members = house.tx(|tx| Ok(tx.list_unfenced::<Member>()?)).await.unwrap();
    assert!(members.iter().all(|m| m.voter == decided.contains(&m.id)));
    assert!(decided.contains(&house.founder.id()));
}
