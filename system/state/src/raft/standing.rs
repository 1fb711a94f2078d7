//! Which generation of its group a replica is of, and which requests of others it takes.
//!
//! A group that has lost its majority for good can be gone on with from one replica, by a person's order. The others of
//! it may still be somewhere, with state of their own: what they say is of an older generation and is refused, whatever
//! terms they have reached, and when they hear of it they stop. It must never let two generations meet in one log.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use super::messages::Head;
use super::types::NodeId;
use crate::kv::StoreError;

/// What a replica that was left behind says.
pub(crate) const LEFT_BEHIND: &str = "the cloud was gone on with without this replica";

/// Why a request of another replica is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Whoever asks was left behind.
    LeftBehind(u64),
    /// It is not for this replica, or this one cannot answer any more.
    Misdirected(&'static str),
}

/// A replica's own standing.
pub(crate) struct Standing {
    /// 0 as long as it is in no group.
    generation: AtomicU64,
    left_behind: watch::Sender<bool>,
}

impl Standing {
    pub(crate) fn new(generation: u64) -> Standing {
        Standing { generation: generation.into(), left_behind: watch::Sender::new(false) }
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether to answer a request. A replica that is in no group yet is of the first that takes it in: it is asked by
    /// its own number, which only who has admitted it knows.
    pub(crate) fn admit(&self, me: NodeId, head: Head) -> Result<(), Refusal> {
        if head.to != me {
            return Err(Refusal::Misdirected("this node holds another replica now"));
        }
        let taken_in =
            self.generation.compare_exchange(0, head.generation, Ordering::AcqRel, Ordering::Acquire);
        let mine = taken_in.map_or_else(|mine| mine, |_| head.generation);
        if head.generation < mine {
            return Err(Refusal::LeftBehind(mine));
        }
        self.hears_of(head.generation);
        self.check().map_err(|_| Refusal::Misdirected(LEFT_BEHIND))
    }

    /// Is told that the group is of this generation.
    pub(crate) fn hears_of(&self, generation: u64) {
        let mine = self.generation();
        if mine != 0 && generation > mine {
            self.left_behind.send_replace(true);
        }
    }

    /// Refuses once it was left behind.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        match *self.left_behind.borrow() {
            true => Err(StoreError::Unavailable(LEFT_BEHIND.into())),
            false => Ok(()),
        }
    }

    /// Waits until it is left behind.
    pub(crate) async fn left_behind(&self) {
        // The sender is this.
        drop(self.left_behind.subscribe().wait_for(|left| *left).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(to: NodeId, generation: u64) -> Head {
        Head { to, generation }
    }

    #[test]
    fn only_the_own_generation_is_answered_and_an_older_replica_stops() {
        let two = Standing::new(2);
        assert_eq!(two.admit(1, head(1, 2)), Ok(()));
        assert_eq!(two.admit(1, head(1, 1)), Err(Refusal::LeftBehind(2)));
        assert!(
            matches!(two.admit(1, head(9, 2)), Err(Refusal::Misdirected(_))),
            "meant for a replica that was lost"
        );
        assert!(two.check().is_ok());
        assert!(matches!(two.admit(1, head(1, 3)), Err(Refusal::Misdirected(LEFT_BEHIND))));
        assert!(two.check().is_err());
        assert!(
            matches!(two.admit(1, head(1, 2)), Err(Refusal::Misdirected(LEFT_BEHIND))),
            "it says nothing more"
        );
    }

    #[test]
    fn a_new_replica_is_of_the_group_that_takes_it_in() {
        let new = Standing::new(0);
        assert!(new.admit(7, head(6, 1)).is_err());
        assert_eq!((new.admit(7, head(7, 3)), new.generation()), (Ok(()), 3));
        assert_eq!(new.admit(7, head(7, 2)), Err(Refusal::LeftBehind(3)));
    }
}
