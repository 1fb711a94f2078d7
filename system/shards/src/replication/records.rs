//! The record of a volume's replicas in the store: read, and changed by compare-and-swap alone.

use cairn_state::kv::{Compare, Op, Revision, Txn, TxnOutcome};
use cairn_state::{SharedStore, StoreError, record};

use super::set::ReplicaSet;
use super::writer::Swapped;

/// The record as it stands, linearizably.
pub async fn read(store: &SharedStore, volume: &str) -> Result<Option<ReplicaSet>, StoreError> {
    Ok(read_at(store, volume).await?.map(|(set, _)| set))
}

/// The record as it stands, and when it was last changed: two of the same moment have nothing between them.
pub async fn read_at(
    store: &SharedStore,
    volume: &str,
) -> Result<Option<(ReplicaSet, Revision)>, StoreError> {
    let Some(entry) = store.get(&record::key::<ReplicaSet>(volume)).await? else { return Ok(None) };
    Ok(Some((record::decode(&entry)?, entry.modified)))
}

/// Changes the record from `expect` to `new`, if it is `expect`.
pub async fn swap(store: &SharedStore, expect: &ReplicaSet, new: &ReplicaSet) -> Swapped {
    match try_swap(store, expect, new).await {
        Ok(swapped) => swapped,
        Err(e) => {
            tracing::debug!(volume = new.id, error = %e, "the record of replicas could not be changed");
            Swapped::Unknown
        }
    }
}

async fn try_swap(store: &SharedStore, expect: &ReplicaSet, new: &ReplicaSet) -> Result<Swapped, StoreError> {
    let key = record::key::<ReplicaSet>(&new.id);
    let Some(entry) = store.get(&key).await? else { return Ok(Swapped::Found(None)) };
    let found: ReplicaSet = record::decode(&entry)?;
    if found == *new {
        return Ok(Swapped::Done);
    }
    if found != *expect {
        return Ok(Swapped::Found(Some(found)));
    }
    let put = Op::Put { key: key.clone(), value: record::encode(new)?, lease: None };
    let compares = vec![Compare::Modified(key, entry.modified)];
    match store.txn(Txn { compares, ops: vec![put] }).await? {
        TxnOutcome::Committed(_) => Ok(Swapped::Done),
        // Somebody was faster: it is looked at anew.
        TxnOutcome::Conflict => Ok(Swapped::Unknown),
    }
}
