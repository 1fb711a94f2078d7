//! What the controller does with backends: making them known, showing and forgetting them, and whose volumes have nobody to
//! look after them. Functions that take the open transaction.
//!
//! That a cluster answers is asked before, see [`super::check`]: no transaction waits for it.

use std::collections::BTreeMap;

use cairn_state::{Abort, Record, Tx};
use serde::{Deserialize, Serialize};

use super::model::{Access, Backend, BackendStatus, Secret, is_word};
use crate::crypt::keys;
use crate::model::VolumeSpec;

/// A backend that is to be made known.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewBackend {
    /// What types shall call it.
    pub name: String,
    /// Where it is.
    pub access: Access,
    /// Its user's key.
    pub secret: Secret,
}

/// A backend as an operator sees it: without its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendView {
    /// What types call it.
    pub name: String,
    /// Where it is.
    #[serde(flatten)]
    pub access: Access,
    /// Bytes that volumes may take in all, and may still take.
    pub size: u64,
    /// Bytes that they may still take.
    pub free: u64,
    /// How many volumes and snapshots are in it.
    pub volumes: usize,
    /// The nodes that look at it, each with what keeps it from using it.
    pub nodes: BTreeMap<String, Option<String>>,
}

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was given cannot be a backend.
    #[error("{0}")]
    Unfit(String),
    /// There is no such backend.
    #[error("there is no backend {0}; see: cairn backend list")]
    Absent(String),
    /// It has volumes.
    #[error("{0} has {1} volumes and snapshots: delete them first")]
    InUse(String, usize),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Abort),
}

impl NewBackend {
    /// What keeps it from being one, if anything. `taken` are names that mean something already.
    pub fn objection(&self, taken: &[&str]) -> Option<String> {
        if !is_word(&self.name) {
            return Some(format!(
                "{:?} is no name of a backend: letters, digits, '.', '_' and '-' are",
                self.name
            ));
        }
        if taken.contains(&self.name.as_str()) {
            return Some(format!("{} is the name of a backend that every cloud has", self.name));
        }
        self.access.objection()
    }
}

/// Makes a backend known, or says where one is now and by which key. One that has volumes keeps its pool.
pub fn add(tx: &mut Tx, new: &NewBackend) -> Result<(), Error> {
    if let Some(known) = tx.get::<Backend>(&new.name)?.filter(|known| known.access.pool != new.access.pool) {
        let count = count(tx, &known.name)?;
        if count > 0 {
            return Err(Error::InUse(known.name, count));
        }
    }
    let key = keys::seal_secret(tx, &format!("backend {}", new.name), &new.secret.0)?;
    Ok(tx.put(&Backend { name: new.name.clone(), access: new.access.clone(), key })?)
}

/// Forgets a backend without volumes. Its pool is left as it is.
pub fn remove(tx: &mut Tx, name: &str) -> Result<(), Error> {
    if tx.get::<Backend>(name)?.is_none() {
        return Err(Error::Absent(name.to_owned()));
    }
    let count = count(tx, name)?;
    if count > 0 {
        return Err(Error::InUse(name.to_owned(), count));
    }
    for status in tx.list_unfenced::<BackendStatus>()?.into_iter().filter(|s| s.backend == name) {
        tx.delete::<BackendStatus>(&status.id())?;
    }
    tx.delete::<Backend>(name)?;
    Ok(())
}

/// How many volumes a backend has: one that comes meanwhile makes the transaction run again.
fn count(tx: &mut Tx, name: &str) -> Result<usize, Abort> {
    Ok(tx.list::<VolumeSpec>()?.iter().filter(|spec| spec.backend.as_deref() == Some(name)).count())
}

/// All backends.
pub fn list(tx: &mut Tx) -> Result<Vec<BackendView>, Abort> {
    let mut volumes: BTreeMap<String, usize> = BTreeMap::new();
    for name in tx.list_unfenced::<VolumeSpec>()?.into_iter().filter_map(|spec| spec.backend) {
        *volumes.entry(name).or_default() += 1;
    }
    let told = tx.list_unfenced::<BackendStatus>()?;
    let view = |backend: Backend| {
        let of: Vec<&BackendStatus> = told.iter().filter(|s| s.backend == backend.name).collect();
        let best = of.iter().filter(|s| s.error.is_none()).max_by_key(|s| s.size);
        BackendView {
            size: best.map_or(0, |s| s.size),
            free: best.map_or(0, |s| s.free),
            volumes: volumes.get(&backend.name).copied().unwrap_or(0),
            nodes: of.iter().map(|s| (s.node.clone(), s.error.clone())).collect(),
            name: backend.name,
            access: backend.access,
        }
    };
    Ok(tx.list_unfenced::<Backend>()?.into_iter().map(view).collect())
}

/// A volume that nobody uses is looked after by a node that is not away and reaches its backend; true if another was found.
pub fn give_keeper(tx: &mut Tx, spec: VolumeSpec, away: &dyn Fn(&str) -> bool) -> Result<bool, Abort> {
    if !away(&spec.node) {
        return Ok(false);
    }
    let told = tx.list_unfenced::<BackendStatus>()?;
    let fits =
        |s: &&BackendStatus| Some(&s.backend) == spec.backend.as_ref() && s.error.is_none() && !away(&s.node);
    let Some(keeper) = told.iter().find(fits) else { return Ok(false) };
    let (generation, keeper_epoch) = (spec.generation + 1, spec.generation + 1);
    tx.put(&VolumeSpec { node: keeper.node.clone(), generation, keeper_epoch, ..spec })?;
    Ok(true)
}

/// Forgets what a node that was removed said of backends.
pub fn forget_node(tx: &mut Tx, node: &str) -> Result<(), Abort> {
    for status in tx.list_unfenced::<BackendStatus>()?.into_iter().filter(|s| s.node == node) {
        tx.delete::<BackendStatus>(&status.id())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_state::LocalStore;

    fn new(name: &str, pool: &str) -> NewBackend {
        let access = Access { monitors: vec!["10.0.0.1".into()], pool: pool.into(), user: "cairn".into() };
        NewBackend { name: name.into(), access, secret: Secret("KEYKEYKEY".into()) }
    }

    fn status(node: &str, error: Option<&str>) -> BackendStatus {
        let error = error.map(str::to_owned);
        BackendStatus { backend: "ceph".into(), node: node.into(), error, size: 30, free: 20 }
    }

    #[tokio::test]
    async fn a_backend_is_sealed_shown_without_its_key_and_kept_while_it_has_volumes() {
        let store = LocalStore::in_memory().unwrap();
        store.transact(|tx| add(tx, &new("ceph", "p"))).await.unwrap();
        store
            .transact(|tx| tx.put(&status("a", None)).and_then(|()| tx.put(&status("b", Some("no")))))
            .await
            .unwrap();
        let spec = VolumeSpec { backend: Some("ceph".into()), ..VolumeSpec::new("v", "a", 1) };
        store.transact(|tx| tx.put(&spec)).await.unwrap();
        let seen = store.read(list).unwrap();
        assert_eq!((seen[0].free, seen[0].volumes, seen[0].nodes.len()), (20, 1, 2));
        let kept = store.read(|tx| tx.get::<Backend>("ceph")).unwrap().unwrap();
        let told = [serde_json::to_string(&kept).unwrap(), format!("{kept:?} {:?}", new("ceph", "p"))];
        assert!(told.iter().all(|t| !t.contains("KEYKEYKEY")));
        assert!(matches!(store.transact(|tx| remove(tx, "ceph")).await, Err(Error::InUse(_, 1))));
        assert!(matches!(store.transact(|tx| add(tx, &new("ceph", "q"))).await, Err(Error::InUse(_, 1))));
        store.transact(|tx| add(tx, &new("ceph", "p"))).await.unwrap();
        store.transact(|tx| tx.delete::<VolumeSpec>("v")).await.unwrap();
        store.transact(|tx| remove(tx, "ceph")).await.unwrap();
        assert!(store.read(list).unwrap().is_empty());
        assert!(matches!(store.transact(|tx| remove(tx, "ceph")).await, Err(Error::Absent(_))));
    }

    #[tokio::test]
    async fn a_volume_gets_a_keeper_that_reaches_its_backend() {
        let store = LocalStore::in_memory().unwrap();
        let spec = VolumeSpec { backend: Some("ceph".into()), ..VolumeSpec::new("v", "a", 1) };
        let told = [status("a", None), status("b", Some("no")), status("c", None)];
        store.transact(|tx| told.iter().try_for_each(|s| tx.put(s))).await.unwrap();
        let gave = store.transact(|tx| give_keeper(tx, spec.clone(), &|n| n == "a")).await.unwrap();
        let now = store.read(|tx| tx.get::<VolumeSpec>("v")).unwrap().unwrap();
        assert_eq!((gave, now.node.as_str(), now.generation), (true, "c", 2));
        assert!(!store.transact(|tx| give_keeper(tx, spec.clone(), &|n| n == "b")).await.unwrap());
    }

    #[test]
    fn names_that_mean_something_are_refused() {
        assert_eq!(new("ceph", "p").objection(&["cairn"]), None);
        assert!(new("cairn", "p").objection(&["cairn"]).is_some());
        assert!(new("a b", "p").objection(&[]).is_some());
    }
}
