//! What a node that joins does not fall for.

use jiff::Timestamp;

use super::*;
use crate::certificates::Authority;
use crate::join::desk::{Desk, Meeting};
use crate::key::NodeKey;
use crate::membership::Pin;

struct Table {
    me: NodeKey,
    other: NodeKey,
    authority: Authority,
    offered: Offered,
    theirs: Agreement,
}

/// A handshake up to the answer, with a token or none.
fn table(token: Option<&Token>) -> Table {
    let (me, other) = (NodeKey::generate().unwrap(), NodeKey::generate().unwrap());
    let authority = Authority::create("cloud-1", 1).unwrap();
    let application = Application { release: "1".into(), addresses: vec![] };
    let (begun, begin) = begin(me.id(), &application, [1; 32]).unwrap();
    let cloud = Cloud { id: "cloud-1".into(), authority: authority.certificate.clone() };
    let cloud = postcard::to_stdvec(&cloud).unwrap();
    let mut desk = Desk::default();
    let meeting = Meeting { version: 1, applicant: me.id(), acceptor: other.id() };
    desk.begin(0, meeting, begin, &cloud, [2; 32]).unwrap();
    let offer = Offer { cloud, nonce: [2; 32] };
    let (offered, reveal) = begun.offered(other.id(), 1, &offer, token).unwrap();
    let (theirs, _) = desk.reveal(1, me.id(), &reveal.nonce).unwrap();
    assert_eq!(theirs.words(), offered.words());
    Table { me, other, authority, offered, theirs }
}

impl Table {
    fn belonging(&self) -> Belonging {
        let pin = |key: &NodeKey| Pin { id: key.id(), name: key.name(), addresses: vec![] };
        Belonging {
            cloud: "cloud-1".into(),
            certificate: self.authority.issue(&self.me.public_key(), Timestamp::UNIX_EPOCH).unwrap(),
            authority: self.authority.certificate.clone(),
            members: vec![pin(&self.me), pin(&self.other)],
            removed: vec![],
            witness: None,
        }
    }
}

fn admitted(belonging: Belonging, proof: Option<Bytes32>) -> Answer {
    Answer::Admitted { belonging: Box::new(belonging), proof }
}

#[test]
fn what_fits_is_taken_and_crosses_the_wire() {
    let table = table(None);
    let answer = admitted(table.belonging(), None);
    assert_eq!(table.offered.answered(&answer), Ok(()));
    let bytes = postcard::to_stdvec(&answer).unwrap();
    assert_eq!(postcard::from_bytes::<Answer>(&bytes).unwrap(), answer);
    let belonging = table.belonging();
    let kept = serde_json::to_vec(&belonging).unwrap();
    assert_eq!(serde_json::from_slice::<Belonging>(&kept).unwrap(), belonging);
}

#[test]
fn what_does_not_fit_is_not_taken() {
    let table = table(None);
    let other_authority = Authority::create("cloud-1", 1).unwrap();
    type Change<'a> = Box<dyn Fn(&mut Belonging) + 'a>;
    let changes: Vec<Change<'_>> = vec![
        Box::new(|b| b.cloud = "cloud-2".into()),
        Box::new(|b| b.authority = other_authority.certificate.clone()),
        Box::new(|b| drop(b.members.remove(0))),
        Box::new(|b| drop(b.members.remove(1))),
        Box::new(|b| {
            b.certificate = table.authority.issue(&table.other.public_key(), Timestamp::UNIX_EPOCH).unwrap();
        }),
        Box::new(|b| {
            b.certificate = other_authority.issue(&table.me.public_key(), Timestamp::UNIX_EPOCH).unwrap();
        }),
    ];
    for (n, change) in changes.iter().enumerate() {
        let mut belonging = table.belonging();
        change(&mut belonging);
        let doubt = table.offered.answered(&admitted(belonging, None));
        assert!(matches!(doubt, Err(Doubt::Misfit(_))), "change {n}: {doubt:?}");
    }
}

#[test]
fn who_does_not_have_the_token_cannot_take_a_node_in() {
    let token = Token::generate().unwrap();
    let table = table(Some(&token));
    let answer = |proof| table.offered.answered(&admitted(table.belonging(), proof));
    assert_eq!(answer(None), Err(Doubt::TokenUnknown));
    assert_eq!(answer(Some([0; 32])), Err(Doubt::TokenUnknown));
    let echoed = table.theirs.proof(&token.key(), Side::Applicant);
    assert_eq!(answer(Some(echoed)), Err(Doubt::TokenUnknown));
    let right = table.theirs.proof(&token.key(), Side::Acceptor);
    assert_eq!(answer(Some(right)), Ok(()));
}
