//! Opens this node's replica of the store: the one it has, one of a cloud it founds, or an empty one that a cloud it
//! was let into fills.
//!
//! Each step leaves the next start something to go on with: a founder's store says that it was founded before anything
//! else does, and a joiner keeps what makes it a member before it has a store. A store without a cloud is one of a
//! release that knew of single nodes only; it is carried over with all it holds, under the id its disks are marked
//! with.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use cairn_cluster::membership::{Cloud, JoinPolicy, Member, change};
use cairn_cluster::{ApiAuthority, Authority, Belonging};
use cairn_node::Paths;
use cairn_state::{LocalStore, Network, Options};
use cairn_wire::remote::Endpoint;
use jiff::Timestamp;

use super::given::Given;
use super::giving_way;
use super::kept::{self, Kept};
use super::left;
use super::recovery;
use super::surroundings::Surroundings;
use super::way_in::{self, WayIn};

/// The region of a cloud that has only one.
pub const REGION: &str = "RegionOne";

/// A store, and what its node is to its cloud.
pub struct Opened {
    /// The replica.
    pub store: LocalStore,
    /// What is kept.
    pub kept: Kept,
}

/// What a store is opened with.
pub struct Opening<'a> {
    /// Where.
    pub around: &'a Surroundings,
    /// For whom.
    pub given: &'a Given,
    /// This node's end of connections to a cloud that it is not of yet.
    pub stranger: &'a Endpoint,
    /// How other replicas are reached.
    pub network: Arc<dyn Network>,
}

impl Opening<'_> {
    /// Opens it, however long that takes: a node that waits for a person waits here.
    pub async fn open(&self) -> Result<Opened> {
        let paths = &self.around.paths;
        match kept::load(paths)? {
            Some(kept) if kept.left => match left::stay_out(paths).await? {},
            Some(kept) if giving_way::has_begun(paths, &kept.belonging.cloud)? => {
                giving_way::let_go(paths, &kept.belonging.cloud)?;
            }
            Some(kept) => {
                let opened = self.again(kept).await?;
                if !giving_way::is_given_up(&opened.store)? {
                    return Ok(opened);
                }
                let cloud = opened.kept.belonging.cloud.clone();
                tokio::task::spawn_blocking(move || drop(opened)).await?;
                giving_way::let_go(paths, &cloud)?;
            }
            None if paths.store().exists() => return self.carry_over().await,
            None => {}
        }
        self.enter().await
    }

    /// Founds a cloud or is let into one.
    async fn enter(&self) -> Result<Opened> {
        let paths = &self.around.paths;
        match way_in::find(self.around, self.given, self.stranger).await? {
            WayIn::Found => {
                giving_way::is_over(paths, &self.given.cloud)?;
                let store = self.replica(Options::found(self.replica_name())).await?;
                self.found(store, OPEN_AT_FIRST).await
            }
            WayIn::Joined(belonging) => {
                tracing::info!(cloud = belonging.cloud, "this node was let in");
                giving_way::is_over(paths, &belonging.cloud)?;
                let kept = Kept { founded: false, left: false, belonging: *belonging };
                kept::save(paths, &kept)?;
                self.again(kept).await
            }
        }
    }

    /// A member's replica, or a new one that the cloud fills.
    async fn again(&self, kept: Kept) -> Result<Opened> {
        let others = kept.belonging.members.iter().any(|pin| pin.id != self.given.key.id());
        if !others && !self.around.paths.store().exists() {
            bail!(
                "the store of cloud {} is gone from {}, and this node is the only one that held it: restore the file, and its log beside it",
                kept.belonging.cloud,
                self.around.paths.store().display()
            );
        }
        let paths = &self.around.paths;
        let recovers = recovery::carry_out(paths, self.replica_name()).await?;
        let store = self.replica(Options::join()).await?;
        if recovers {
            recovery::finish(paths, &store, self.given.key.id()).await?;
        }
        Ok(Opened { store, kept })
    }

    /// A store that was there before anything was kept: of a founder that was interrupted, or of a single node.
    async fn carry_over(&self) -> Result<Opened> {
        let store = self.replica(Options::found(self.replica_name())).await?;
        let id = self.given.key.id().to_string();
        let cloud = store.read(|tx| {
            let (cloud, me) = (tx.get::<Cloud>(Cloud::ID)?, tx.get::<Member>(&id)?);
            Ok::<_, change::Error>(cloud.map(|cloud| (cloud.founded, me)))
        })?;
        let Some((founded, me)) = cloud else {
            tracing::info!(cloud = self.given.cloud, "this node's store is carried over into a cloud of one");
            return self.found(store, NOT_OPEN).await;
        };
        let public_key = self.given.key.public_key();
        let belonging = store.read(|tx| change::belonging(tx, &public_key, Timestamp::now()))?;
        self.finish(store, belonging, me.is_some_and(|me| me.joined == founded)).await
    }

    /// Makes this the store of a new cloud.
    async fn found(&self, store: LocalStore, open: bool) -> Result<Opened> {
        let (cloud, now) = (&self.given.cloud, Timestamp::now());
        let authority = Authority::create(cloud, 1)?;
        let api = match &self.given.authority {
            Some((certificate, key)) => ApiAuthority::adopt(cloud, certificate, key)?,
            None => ApiAuthority::create(cloud)?,
        };
        let founded = store.transact(|tx| {
            let at = self.around.reachable_at();
            let belonging = change::found(tx, &authority, &self.given.key, at, now)?;
            tx.put(&api)?;
            if !open {
                tx.put(&JoinPolicy::default())?;
            }
            Ok::<_, change::Error>(belonging)
        });
        let belonging = founded.await.context("the cloud could not be founded")?;
        tracing::info!(cloud, "a cloud was founded");
        self.finish(store, belonging, true).await
    }

    async fn finish(&self, store: LocalStore, belonging: Belonging, founded: bool) -> Result<Opened> {
        if founded {
            let hash = self.given.admin.clone();
            let bootstrapped = cairn_identity::bootstrap(&store, hash, REGION).await;
            bootstrapped.context("the cloud's first users could not be made")?;
        }
        let kept = Kept { founded, left: false, belonging };
        kept::save(&self.around.paths, &kept)?;
        Ok(Opened { store, kept })
    }

    fn replica_name(&self) -> cairn_state::Member {
        cairn_state::Member { name: self.given.key.name(), addresses: Vec::new() }
    }

    async fn replica(&self, options: Options) -> Result<LocalStore> {
        let options = options.network(self.network.clone()).timing(self.around.timing);
        open_file(&self.around.paths, options).await
    }
}

/// Whether a new cloud lets in whoever asks for a while: one that is new does, one that was there does not.
const OPEN_AT_FIRST: bool = true;
const NOT_OPEN: bool = false;

async fn open_file(paths: &Paths, options: Options) -> Result<LocalStore> {
    let file = paths.store();
    let opened = tokio::task::spawn_blocking(move || LocalStore::open_with(&file, options)).await;
    opened.context("opening the store was interrupted")?.context("the store cannot be opened")
}
