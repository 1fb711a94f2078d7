//! Which node is behind a replica of the store: by the replica's number as the members' records say, else by the name
//! that the group has for it. Only members that are trusted are known here.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use cairn_cluster::membership::{Member, Pin};
use cairn_cluster::witness::Witness;
use cairn_wire::remote::{PeerId, WhoIs};

/// The nodes behind replicas. Cheap to clone; clones are one.
#[derive(Clone, Default)]
pub struct Names(Arc<RwLock<Book>>);

#[derive(Default)]
struct Book {
    by_name: HashMap<String, PeerId>,
    by_replica: HashMap<u64, PeerId>,
}

impl Names {
    /// These are the members, as far as is known without the store.
    pub fn set_pins(&self, pins: &[Pin]) {
        let mut book = self.0.write().unwrap_or_else(PoisonError::into_inner);
        book.by_name = pins.iter().map(|pin| (pin.name.clone(), pin.id)).collect();
        let Book { by_name, by_replica } = &mut *book;
        by_replica.retain(|_, id| by_name.values().any(|known| known == id));
    }

    /// These are the members and the witness, and their replicas.
    pub fn set_members(&self, members: &[Member], witness: Option<&Witness>) {
        let trusted = || members.iter().filter(|m| m.is_trusted());
        let mut book = self.0.write().unwrap_or_else(PoisonError::into_inner);
        book.by_name = trusted().map(|m| (m.name.clone(), m.id)).collect();
        book.by_replica = trusted().filter_map(|m| Some((m.replica?, m.id))).collect();
        book.by_replica.extend(witness.and_then(|w| Some((w.replica?, w.id))));
    }

    /// The node behind a replica of this number.
    pub fn of_replica(&self, replica: u64) -> Option<PeerId> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).by_replica.get(&replica).copied()
    }

    /// How the store asks.
    pub fn who_is(&self) -> WhoIs {
        let names = self.clone();
        Arc::new(move |replica, member| {
            let book = names.0.read().unwrap_or_else(PoisonError::into_inner);
            book.by_replica.get(&replica).or_else(|| book.by_name.get(&member.name)).copied()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_cluster::Der;
    use cairn_cluster::membership::MemberState;

    #[test]
    fn a_replica_is_known_by_number_then_by_name_and_only_while_its_node_is_trusted() {
        let names = Names::default();
        let who_is = names.who_is();
        let group = |name: &str| cairn_state::Member { name: name.into(), addresses: vec![] };
        let id = PeerId::new([1; 32]);
        names.set_pins(&[Pin { id, name: "n1".into(), addresses: vec![] }]);
        assert_eq!((who_is(7, &group("n1")), who_is(7, &group(""))), (Some(id), None));
        let mut member = Member {
            id,
            name: "n1".into(),
            public_key: Der(vec![]),
            addresses: vec![],
            state: MemberState::Member,
            voter: true,
            replica: Some(7),
            joined: jiff::Timestamp::UNIX_EPOCH,
        };
        names.set_members(std::slice::from_ref(&member), None);
        assert_eq!(who_is(7, &group("")), Some(id), "a group that was founded without names");
        member.state = MemberState::Removed;
        names.set_members(&[member], None);
        assert_eq!((who_is(7, &group("n1")), who_is(8, &group("n1"))), (None, None));
    }
}
