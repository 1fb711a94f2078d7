//! Whether the cloud holds anything of a user's: one that does is never given up for another.

use cairn_block::model::{Snapshot as VolumeSnapshot, Volume};
use cairn_compute::model::{Keypair, Server};
use cairn_identity::model::{Project, User};
use cairn_image::model::Image;
use cairn_network::model::{Network, Router};
use cairn_state::record::{self, Record};
use cairn_state::{Abort, LocalStore, StoreError, Tx};

/// What users make.
struct Kind {
    prefix: fn() -> String,
    count: fn(&mut Tx) -> Result<usize, Abort>,
    /// How many a new cloud has.
    at_first: usize,
}

const fn kind<R: Record>(at_first: usize) -> Kind {
    Kind { prefix: record::prefix::<R>, count: |tx| Ok(tx.list::<R>()?.len()), at_first }
}

const OF_USERS: [Kind; 9] = [
    kind::<Server>(0),
    kind::<Keypair>(0),
    kind::<Image>(0),
    kind::<Network>(0),
    kind::<Router>(0),
    kind::<Volume>(0),
    kind::<VolumeSnapshot>(0),
    kind::<User>(1),
    // The default domain, and its projects `admin` and `service`.
    kind::<Project>(3),
];

/// Whether anything is there. It looks at a few keys of each kind, however many there are.
pub fn in_use(store: &LocalStore) -> Result<bool, StoreError> {
    let snapshot = store.snapshot()?;
    for kind in OF_USERS {
        if snapshot.range(&(kind.prefix)(), None, kind.at_first + 1)?.entries.len() > kind.at_first {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The same inside a transaction, which then fails if anything is made meanwhile. Only for a cloud that was seen not to
/// be in use: it reads all that is there.
pub fn in_use_in(tx: &mut Tx) -> Result<bool, Abort> {
    for kind in OF_USERS {
        if (kind.count)(tx)? > kind.at_first {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roles::controller::opening::REGION;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_new_cloud_is_not_in_use_and_one_with_a_user_is() {
        let store = LocalStore::in_memory().unwrap();
        cairn_identity::bootstrap(&store, Some(HASH.into()), REGION).await.unwrap();
        assert!(!in_use(&store).unwrap() && !store.read(in_use_in).unwrap());
        let user = User { id: "u".into(), name: "ann".into(), ..User::default() };
        store.transact(|tx| tx.put(&user)).await.unwrap();
        assert!(in_use(&store).unwrap() && store.read(in_use_in).unwrap());
    }

    const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
}
