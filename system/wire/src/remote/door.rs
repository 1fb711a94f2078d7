//! Who may wait at the door: the few connections of peers that are not known to be members.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::server::source;

/// How many may wait in all.
const WAITING_MAX: usize = 256;
/// How many may wait from one source.
const WAITING_PER_SOURCE_MAX: usize = 16;

/// Those who wait, by source.
#[derive(Default, Clone)]
pub(super) struct Door {
    waiting: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A place at the door; given back when dropped.
pub(super) struct Waiting {
    door: Door,
    source: IpAddr,
}

impl Door {
    /// A place for a connection from here, if there is one.
    pub(super) fn admit(&self, from: IpAddr) -> Option<Waiting> {
        let source = source(from);
        let mut waiting = self.lock();
        let here = waiting.get(&source).copied().unwrap_or_default();
        if here >= WAITING_PER_SOURCE_MAX || waiting.values().sum::<usize>() >= WAITING_MAX {
            return None;
        }
        waiting.insert(source, here + 1);
        Some(Waiting { door: self.clone(), source })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waiting = self.door.lock();
        match waiting.get_mut(&self.source) {
            Some(here) if *here > 1 => *here -= 1,
            _ => drop(waiting.remove(&self.source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_cannot_fill_the_door() {
        let door = Door::default();
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        let mut held: Vec<_> = (0..WAITING_PER_SOURCE_MAX).map(|_| door.admit(one).unwrap()).collect();
        assert!(door.admit(one).is_none());
        assert!(door.admit("::ffff:192.0.2.1".parse().unwrap()).is_none());
        let other = door.admit("192.0.2.2".parse().unwrap());
        assert!(other.is_some());
        held.pop();
        assert!(door.admit(one).is_some());
        drop((held, other));
        assert!(door.lock().is_empty());
    }

    #[test]
    fn a_host_with_many_addresses_is_one_source_and_neighbours_are_several() {
        let ip = |text: &str| source(text.parse().unwrap());
        assert_eq!(ip("2001:db8::1"), ip("2001:db8::2"));
        assert_ne!(ip("fe80::1"), ip("fe80::2"));
    }
}
