//! The clouds that are served, and whose call is which one's: a node's key is of one cloud, and nothing else is asked.

use std::collections::{BTreeMap, HashMap};
use std::sync::{PoisonError, RwLock};

use anyhow::{Context, Result};
use cairn_cluster::membership::service::Health;
use cairn_cluster::witness::Told;
use cairn_state::Endpoint as Replica;
use cairn_wire::remote::{Endpoint, PeerId, Refusal, TrustSet};
use tokio::sync::Mutex;

use super::cloud::Cloud;
use super::house::House;

/// The most clouds that are served.
const CLOUDS_MAX: usize = 100;
/// The most nodes that a cloud may have.
const MEMBERS_MAX: usize = 1000;
/// The longest id of a cloud.
const ID_MAX: usize = 64;

/// The clouds.
pub struct Clouds {
    house: House,
    endpoint: Endpoint,
    clouds: Mutex<BTreeMap<String, Cloud>>,
    routes: RwLock<HashMap<PeerId, Route>>,
}

/// Where a node's calls go.
#[derive(Clone)]
struct Route {
    cloud: String,
    replica: Replica,
}

fn broken(e: impl std::fmt::Display) -> Refusal {
    tracing::warn!(error = %e, "a cloud cannot be served");
    Refusal::unavailable("this witness cannot serve it now; its log says why")
}

impl Clouds {
    /// All that are known in this house. One that cannot be opened is left out, and said.
    pub async fn open(house: House, endpoint: Endpoint) -> Result<Clouds> {
        let mut clouds = BTreeMap::new();
        for folder in house.clouds()? {
            match Cloud::open(&folder, &endpoint).await {
                Ok(Some(cloud)) => drop(clouds.insert(cloud.told().cloud.clone(), cloud)),
                Ok(None) => {}
                Err(e) => tracing::error!(folder = %folder.display(), error = format!("{e:#}"), "not served"),
            }
        }
        let all = Clouds { house, endpoint, clouds: Mutex::default(), routes: RwLock::default() };
        all.follow(&clouds)?;
        *all.clouds.lock().await = clouds;
        Ok(all)
    }

    /// Trusts whom the clouds have told of, and no others.
    fn follow(&self, clouds: &BTreeMap<String, Cloud>) -> Result<()> {
        let mut routes = HashMap::new();
        for (id, cloud) in clouds {
            let route = Route { cloud: id.clone(), replica: cloud.store()?.endpoint() };
            routes.extend(cloud.told().members.iter().map(|member| (member.id, route.clone())));
        }
        let members = routes.keys().copied().collect();
        *self.routes.write().unwrap_or_else(PoisonError::into_inner) = routes;
        self.endpoint.trust.replace(TrustSet { members, ..TrustSet::default() });
        Ok(())
    }

    fn route(&self, peer: PeerId) -> Option<Route> {
        self.routes.read().unwrap_or_else(PoisonError::into_inner).get(&peer).cloned()
    }

    /// The replica of a node's cloud.
    pub fn replica(&self, peer: PeerId) -> Option<Replica> {
        self.route(peer).map(|route| route.replica)
    }

    /// Serves a cloud from now on, or goes on to, if it has the secret.
    pub async fn begin(&self, peer: PeerId, secret: &str, told: Told) -> Result<Health, Refusal> {
        if !self.house.secret().map_err(broken)?.is(secret) {
            return Err(Refusal::forbidden("this is not the witness's code; cairn-witness code shows it"));
        }
        self.check(peer, &told)?;
        let mut clouds = self.clouds.lock().await;
        if !clouds.contains_key(&told.cloud) {
            if clouds.len() >= CLOUDS_MAX {
                return Err(Refusal::busy(format!("this witness serves {CLOUDS_MAX} clouds, and no more")));
            }
            tracing::info!(cloud = told.cloud, "a cloud is served");
            let folder = self.house.cloud(&told.cloud);
            let cloud = Cloud::begin(&folder, told, &self.endpoint).await.map_err(broken)?;
            let health = cloud.health().map_err(broken)?;
            clouds.insert(cloud.told().cloud.clone(), cloud);
            self.follow(&clouds).map_err(broken)?;
            return Ok(health);
        }
        drop(clouds);
        self.tell(peer, told).await
    }

    /// Takes what a cloud tells.
    pub async fn tell(&self, peer: PeerId, told: Told) -> Result<Health, Refusal> {
        self.check(peer, &told)?;
        if self.route(peer).is_none_or(|route| route.cloud != told.cloud) {
            return Err(Refusal::forbidden("this witness does not know you as a node of that cloud"));
        }
        let mut clouds = self.clouds.lock().await;
        let cloud = clouds.get_mut(&told.cloud).context("it is not served any more").map_err(broken)?;
        let news = cloud.tell(told).await;
        let quiet = matches!(news, Ok(false));
        let health = news.and_then(|_| cloud.health());
        if !quiet {
            self.follow(&clouds).map_err(broken)?;
        }
        health.map_err(|e| Refusal::invalid(format!("{e:#}")))
    }

    /// How the replica of a node's cloud is.
    pub async fn health(&self, peer: PeerId) -> Result<Health, Refusal> {
        let id = self.of(peer)?;
        let clouds = self.clouds.lock().await;
        clouds.get(&id).context("it is not served any more").and_then(Cloud::health).map_err(broken)
    }

    /// Forgets a node's cloud.
    pub async fn end(&self, peer: PeerId) -> Result<(), Refusal> {
        let id = self.of(peer)?;
        let mut clouds = self.clouds.lock().await;
        let Some(cloud) = clouds.remove(&id) else { return Ok(()) };
        self.follow(&clouds).map_err(broken)?;
        tracing::info!(cloud = id, "a cloud is not served any more");
        cloud.end().await.map_err(broken)
    }

    fn of(&self, peer: PeerId) -> Result<String, Refusal> {
        let route = self.route(peer);
        route.map(|route| route.cloud).ok_or_else(|| Refusal::forbidden("this witness does not know you"))
    }

    /// Refuses what no cloud says of itself.
    fn check(&self, peer: PeerId, told: &Told) -> Result<(), Refusal> {
        let named = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if told.cloud.is_empty() || told.cloud.len() > ID_MAX || !told.cloud.chars().all(named) {
            return Err(Refusal::invalid("this is no cloud's id"));
        }
        if told.generation == 0 || told.members.len() > MEMBERS_MAX {
            return Err(Refusal::invalid("this is no cloud's group"));
        }
        if !told.members.iter().any(|member| member.id == peer) {
            return Err(Refusal::invalid("who tells is not among the nodes"));
        }
        let elsewhere = |member: PeerId| self.route(member).is_some_and(|route| route.cloud != told.cloud);
        match told.members.iter().find(|member| elsewhere(member.id)) {
            Some(member) => {
                Err(Refusal::invalid(format!("{} is of another cloud that this witness serves", member.name)))
            }
            None => Ok(()),
        }
    }
}
