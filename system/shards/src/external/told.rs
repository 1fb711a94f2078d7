//! What a node says of the backends it uses: whether it reaches them, and how much room there is. Asked in the background,
//! since a cluster that is down answers late or never; its trash is swept on the way.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_state::{SharedStore, StoreError, StoreExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::driver::{Driver, Room};
use super::family::Family;
use super::model::BackendStatus;

/// How often a backend that answers is asked for its room.
const ASK_EVERY: Duration = Duration::from_secs(30);
/// How often one that does not is asked again.
const RETRY_EVERY: Duration = Duration::from_secs(5);
/// How long it gets for that.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a backend's trash is swept.
const SWEEP_EVERY: Duration = Duration::from_secs(120);
/// Changes below this are not worth a write to the store, in bytes.
const STEP: u64 = 64 << 20;

/// What is known of backends.
pub struct Told {
    node: String,
    store: SharedStore,
    news: watch::Sender<u64>,
    known: HashMap<String, Known>,
}

#[derive(Default)]
struct Known {
    asking: Option<JoinHandle<io::Result<Room>>>,
    answered: Option<(Instant, Result<Room, String>)>,
    swept: Option<Instant>,
    written: Option<BackendStatus>,
}

impl Told {
    /// Nothing was asked yet.
    pub fn new(node: &str, store: SharedStore, news: watch::Sender<u64>) -> Told {
        Told { node: node.to_owned(), store, news, known: HashMap::new() }
    }

    /// Why a backend cannot be used now, as far as is known.
    pub fn objection(&self, backend: &str) -> Option<String> {
        match self.known.get(backend).and_then(|k| k.answered.as_ref()) {
            Some((_, Ok(_))) => None,
            Some((_, Err(why))) => Some(format!("the backend {backend} cannot be used now: {why}")),
            None => Some(format!("the backend {backend} was not heard of yet")),
        }
    }

    /// Takes note of what came, asks again what is due, and writes what has changed, if the store is there.
    pub async fn look(&mut self, family: &Family, live: bool) -> Result<(), StoreError> {
        let drivers = family.all();
        for (name, driver) in &drivers {
            let known = self.known.entry(name.clone()).or_default();
            known.take().await;
            known.ask(driver, &self.news);
            let status = known.status(name, &self.node);
            if live && let Some(status) = status.filter(|s| is_news(known.written.as_ref(), s)) {
                self.store.put_record(&status).await?;
                known.written = Some(status);
            }
        }
        let gone: Vec<String> =
            self.known.keys().filter(|name| !drivers.iter().any(|(n, _)| n == *name)).cloned().collect();
        for name in gone.into_iter().filter(|_| live) {
            let id = format!("{name}/{}", self.node);
            self.store.delete_record::<BackendStatus>(&id).await?;
            self.known.remove(&name);
        }
        Ok(())
    }
}

impl Known {
    async fn take(&mut self) {
        if let Some(asking) = self.asking.take_if(|a| a.is_finished()) {
            let room = asking.await.unwrap_or_else(|e| Err(io::Error::other(e)));
            self.answered = Some((Instant::now(), room.map_err(|e| e.to_string())));
        }
    }

    fn ask(&mut self, driver: &Arc<dyn Driver>, news: &watch::Sender<u64>) {
        let due = self
            .answered
            .as_ref()
            .is_none_or(|(at, answer)| at.elapsed() >= if answer.is_ok() { ASK_EVERY } else { RETRY_EVERY });
        if !due || self.asking.is_some() {
            return;
        }
        let sweeps = self.swept.is_none_or(|at| at.elapsed() >= SWEEP_EVERY);
        if sweeps {
            self.swept = Some(Instant::now());
        }
        let (driver, news) = (driver.clone(), news.clone());
        self.asking = Some(tokio::spawn(async move {
            let asked = tokio::time::timeout(PATIENCE, driver.room()).await;
            let room = asked.unwrap_or_else(|_| {
                let why = format!("it does not answer within {} s", PATIENCE.as_secs());
                Err(io::Error::new(io::ErrorKind::TimedOut, why))
            });
            if sweeps && room.is_ok() {
                let _ = driver.sweep().await;
            }
            news.send_modify(|n| *n += 1);
            room
        }));
    }

    fn status(&self, name: &str, node: &str) -> Option<BackendStatus> {
        let (_, answer) = self.answered.as_ref()?;
        let before = self.written.as_ref().map_or(Room::default(), |s| Room { size: s.size, free: s.free });
        let room = answer.as_ref().copied().unwrap_or(before);
        let (backend, node, error) = (name.to_owned(), node.to_owned(), answer.as_ref().err().cloned());
        Some(BackendStatus { backend, node, error, size: room.size, free: room.free })
    }
}

fn is_news(before: Option<&BackendStatus>, now: &BackendStatus) -> bool {
    before.is_none_or(|before| {
        let far = |a: u64, b: u64| a.abs_diff(b) >= STEP;
        before.error != now.error || far(before.size, now.size) || far(before.free, now.free)
    })
}
