//! Which volumes a pass looks at: those of which a record has changed since the last one, and those that want another
//! look; all of them only once in a while. With thousands of volumes a pass so costs what has changed.
//!
//! It decides only what is looked at. Whatever it leaves out is looked at within [`ALL_EVERY`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_state::{Mirror, Record};

use super::reconcile::Mirrors;

/// How often all volumes are looked at, whatever has changed.
const ALL_EVERY: Duration = Duration::from_secs(30);

/// What a pass looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// Everything.
    All,
    /// These volumes.
    At(BTreeSet<String>),
}

/// What was looked at, and what is to be looked at again.
pub struct Attention {
    specs: Followed<crate::model::VolumeSpec>,
    statuses: Followed<crate::model::VolumeStatus>,
    sets: Followed<crate::replication::set::ReplicaSet>,
    replica_statuses: Followed<crate::model::ReplicaStatus>,
    /// Volumes that something is done with or is wrong with: the next pass looks at them, whatever has changed.
    again: BTreeSet<String>,
    /// What the disks were, and when all was looked at last.
    all: Option<(Vec<String>, Instant)>,
}

impl Attention {
    /// Nothing was looked at yet.
    pub fn new(mirrors: &Mirrors) -> Attention {
        Attention {
            specs: Followed::new(&mirrors.specs),
            statuses: Followed::new(&mirrors.statuses),
            sets: Followed::new(&mirrors.sets),
            replica_statuses: Followed::new(&mirrors.replica_statuses),
            again: BTreeSet::new(),
            all: None,
        }
    }

    /// What the next pass looks at. `disks` says which disks there are, and what is wrong with them; `live`, whether the
    /// records are the store's.
    pub fn next(&mut self, disks: Vec<String>, live: bool) -> Look {
        let mut ids = std::mem::take(&mut self.again);
        ids.extend(self.specs.changed());
        ids.extend(self.statuses.changed());
        ids.extend(self.sets.changed());
        // Their ids are VOLUME/NODE.
        let of_replicas = self.replica_statuses.changed();
        ids.extend(of_replicas.iter().filter_map(|id| id.split('/').next()).map(str::to_owned));
        let known = self.all.as_ref().is_some_and(|(of, at)| *of == disks && at.elapsed() < ALL_EVERY);
        if known && live {
            return Look::At(ids);
        }
        self.all = live.then(|| (disks, Instant::now()));
        Look::All
    }

    /// The next pass looks at everything.
    pub fn forget(&mut self) {
        self.all = None;
    }

    /// The next pass looks at this volume.
    pub fn again(&mut self, id: &str) {
        self.again.insert(id.to_owned());
    }
}

/// Records of a kind, as they were at the last look.
struct Followed<R: Record> {
    mirror: Mirror<R>,
    seen: Vec<Arc<R>>,
}

impl<R: Record> Followed<R> {
    fn new(mirror: &Mirror<R>) -> Followed<R> {
        Followed { mirror: mirror.clone(), seen: Vec::new() }
    }

    /// The ids of records that came, changed or went since the last call.
    fn changed(&mut self) -> Vec<String> {
        let now = self.mirror.all();
        let changed = differences(&self.seen, &now);
        self.seen = now;
        changed
    }
}

/// The ids of what is in one and not in the other; both are in the order of their ids. What has not changed is the same
/// allocation, and costs no more than to see that.
fn differences<R: Record>(before: &[Arc<R>], now: &[Arc<R>]) -> Vec<String> {
    let (mut old, mut new) = (before.iter().peekable(), now.iter().peekable());
    let mut changed = Vec::new();
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return changed,
            (Some(a), Some(b)) if Arc::ptr_eq(a, b) => {
                old.next();
                new.next();
                continue;
            }
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(a), Some(b)) => a.id().cmp(&b.id()),
        };
        let gone = if order.is_le() { old.next() } else { None };
        let come = if order.is_ge() { new.next() } else { None };
        changed.extend(come.or(gone).map(|r| r.id()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::VolumeSpec;

    #[test]
    fn what_came_changed_or_went_is_found() {
        let spec = |id: &str| Arc::new(VolumeSpec::new(id, "n", 512));
        let before: Vec<_> = ["a", "c", "e", "g"].map(spec).into();
        let mut now = before.clone();
        assert!(differences(&before, &now).is_empty());
        now.remove(1);
        now.insert(1, spec("b"));
        now[2] = spec("e");
        now.push(spec("h"));
        assert_eq!(differences(&before, &now), ["b", "c", "e", "h"]);
        assert_eq!(differences(&now, &[]).len(), now.len());
        assert_eq!(differences(&[], &now).len(), now.len());
    }
}
