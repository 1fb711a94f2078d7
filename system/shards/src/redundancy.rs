//! How many copies of their data volumes have now, for whoever asks how safe the cloud is. Reads all volumes: not for a
//! request's path.

use std::collections::BTreeMap;

use cairn_state::{Abort, Tx};
use serde::Serialize;

use crate::disks;
use crate::model::{DiskStatus, VolumeSpec};
use crate::replication::placement;
use crate::replication::set::ReplicaSet;

/// The most volumes that are named.
const NAMES_MAX: usize = 100;

/// The copies of all volumes together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Redundancy {
    /// Volumes, images' and servers' root disks among them.
    pub volumes: usize,
    /// Those with as many copies, whole and up to date, as nodes, or the disks of the only one, allow and are wanted.
    pub whole: usize,
    /// Those with fewer, the first hundred of them.
    pub thin: Vec<String>,
}

/// Counts the copies.
pub fn redundancy(tx: &mut Tx) -> Result<Redundancy, Abort> {
    let spared = disks::spared(&tx.list_unfenced()?);
    let candidates = placement::candidates(&tx.list_unfenced::<DiskStatus>()?, &spared);
    // On the only node there is, disks are what replicas are kept apart by.
    let domains = match &candidates[..] {
        [only] => only.disks.len().clamp(1, placement::COPIES_OF_NODE),
        several => several.len().max(1),
    };
    let sets = tx.list_unfenced::<ReplicaSet>()?;
    let copies: BTreeMap<String, usize> = sets.iter().map(|set| (set.id.clone(), whole(set))).collect();
    let mut found = Redundancy::default();
    for spec in tx.list_unfenced::<VolumeSpec>()?.into_iter().filter(|spec| !spec.deleted) {
        found.volumes += 1;
        if copies.get(&spec.id).copied().unwrap_or(1) >= domains.min(spec.copies()) {
            found.whole += 1;
        } else if found.thin.len() < NAMES_MAX {
            found.thin.push(spec.id);
        }
    }
    Ok(found)
}

/// The copies that stay and have all that was acknowledged.
fn whole(set: &ReplicaSet) -> usize {
    set.replicas.iter().filter(|replica| replica.in_sync && !replica.leaving).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_is_behind_or_leaving_is_none() {
        let mut set = ReplicaSet::new("v", ["a", "b", "c"].map(str::to_owned));
        assert_eq!(whole(&set), 3);
        set.replicas[0].in_sync = false;
        set.replicas[1].leaving = true;
        assert_eq!(whole(&set), 1);
    }
}
