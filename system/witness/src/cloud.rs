//! One cloud that is served: what it has told, and the replica of its log.
//!
//! `told.json` is written before the replica is made, and the replica is forgotten with the folder. A replica is only
//! ever replaced by an empty one for a newer generation of the group: in one generation its votes are kept for ever.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context, Result, bail};
use cairn_cluster::membership::service::Health;
use cairn_cluster::witness::Told;
use cairn_state::{Limits, LocalStore, Options};
use cairn_wire::remote::{Endpoint, PeerId, Peers, ReplicaNetwork};

use super::house;

/// Memory for pages of the replica's file: it is only ever appended to.
const CACHE_BYTES: usize = 1 << 20;

/// A cloud.
pub struct Cloud {
    folder: PathBuf,
    told: Told,
    replicas: Arc<RwLock<HashMap<u64, PeerId>>>,
    peers: Peers,
    /// `None` only while it is replaced.
    store: Option<LocalStore>,
}

impl Cloud {
    /// What is in this folder; `None` if it was left before anything was told.
    pub async fn open(folder: &Path, endpoint: &Endpoint) -> Result<Option<Cloud>> {
        let told = match house::read(&folder.join("told.json"))? {
            Some(text) => serde_json::from_str(&text).context("what a cloud has told is damaged")?,
            None => return Ok(None),
        };
        Cloud::with(folder, told, endpoint).await.map(Some)
    }

    /// A cloud that is served from now on.
    pub async fn begin(folder: &Path, told: Told, endpoint: &Endpoint) -> Result<Cloud> {
        house::make_folder(folder)?;
        write(folder, &told)?;
        Cloud::with(folder, told, endpoint).await
    }

    async fn with(folder: &Path, told: Told, endpoint: &Endpoint) -> Result<Cloud> {
        let (replicas, peers) = (Arc::default(), Peers::new(endpoint.clone()));
        let mut cloud = Cloud { folder: folder.to_owned(), told, replicas, peers, store: None };
        cloud.follow();
        cloud.store = Some(cloud.replica().await?);
        Ok(cloud)
    }

    /// What it has told.
    pub fn told(&self) -> &Told {
        &self.told
    }

    /// Takes what it tells now; whether that is news.
    pub async fn tell(&mut self, told: Told) -> Result<bool> {
        let mine = self.store()?.status()?.generation;
        if told.generation < mine {
            bail!("this cloud was gone on with without who tells: its generation is {mine}");
        }
        let news = self.told != told;
        if news {
            write(&self.folder, &told)?;
            self.told = told;
            self.follow();
        }
        // 0: it waits to be taken in.
        if mine != 0 && self.told.generation > mine {
            tracing::info!(
                cloud = self.told.cloud,
                "the cloud has lost its majority and went on: beginning anew"
            );
            self.close().await?;
            fs::remove_file(self.file())?;
            self.store = Some(self.replica().await?);
            return Ok(true);
        }
        Ok(news)
    }

    /// Reaches its nodes where they are now.
    fn follow(&self) {
        for member in &self.told.members {
            self.peers.set_addresses(member.id, member.addresses.clone());
        }
        self.peers.keep_only(|id| self.told.members.iter().any(|member| member.id == *id));
        let replicas = self.told.members.iter().filter_map(|member| Some((member.replica?, member.id)));
        *self.replicas.write().unwrap_or_else(PoisonError::into_inner) = replicas.collect();
    }

    async fn replica(&self) -> Result<LocalStore> {
        let replicas = self.replicas.clone();
        let who_is = move |replica, _: &cairn_state::Member| {
            replicas.read().unwrap_or_else(PoisonError::into_inner).get(&replica).copied()
        };
        let network = Arc::new(ReplicaNetwork::new(self.peers.clone(), Arc::new(who_is)));
        let limits = Limits { cache_bytes: CACHE_BYTES, ..Limits::default() };
        let (file, options) = (self.file(), Options::witness().network(network).limits(limits));
        let opened = tokio::task::spawn_blocking(move || LocalStore::open_with(&file, options)).await?;
        opened.with_context(|| format!("the log of cloud {}", self.told.cloud))
    }

    fn file(&self) -> PathBuf {
        self.folder.join("log.redb")
    }

    /// Its replica.
    pub fn store(&self) -> Result<&LocalStore> {
        self.store.as_ref().context("its log is being replaced")
    }

    /// How its replica is.
    pub fn health(&self) -> Result<Health> {
        let status = self.store()?.status()?;
        let (replica, applied) = (status.node, status.applied);
        Ok(Health { replica, applied, last: status.last, generation: status.generation })
    }

    async fn close(&mut self) -> Result<()> {
        let store = self.store.take();
        Ok(tokio::task::spawn_blocking(move || drop(store)).await?)
    }

    /// Forgets it.
    pub async fn end(mut self) -> Result<()> {
        self.close().await?;
        Ok(fs::remove_dir_all(&self.folder)?)
    }
}

fn write(folder: &Path, told: &Told) -> Result<()> {
    Ok(house::write(&folder.join("told.json"), &serde_json::to_vec(told)?)?)
}
