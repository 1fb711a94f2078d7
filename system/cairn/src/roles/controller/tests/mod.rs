//! Controllers of several nodes in one process, over real connections on loopback addresses. Only what they see of each
//! other on the wire is given: what one announces, all see.

mod apart;
mod joining;
mod lone;
mod orders;
mod recovery;
mod removal;
mod three;
mod witness;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use cairn_cluster::NodeKey;
use cairn_cluster::discovery::{Announcement, Sighting};
use cairn_node::{Paths, paths};
use cairn_state::raft::Timing;
use cairn_state::{LocalStore, Op, Store, Txn, TxnOutcome};
use cairn_wire::local_http;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::cluster::Cluster;
use super::given::Given;
use super::operator;
use super::surroundings::{Sight, Surroundings};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A wire that nodes are on.
#[derive(Clone)]
struct Wire {
    port: u16,
    seen: Arc<watch::Sender<Arc<Vec<Sighting>>>>,
}

impl Wire {
    fn new() -> Wire {
        // A port that is free on one loopback address is as good as always free on all.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Wire { port: free.local_addr().unwrap().port(), seen: Arc::new(watch::Sender::new(Arc::default())) }
    }

    /// A new node on it.
    fn node(&self, last: u8) -> Node {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths { state: dir.path().join("state"), run: dir.path().join("run") };
        for folder in [paths.role("controller"), paths.handover()] {
            paths::make_dir(&folder, 0o750).unwrap();
        }
        Node {
            wire: self.clone(),
            ip: Ipv4Addr::new(127, 0, 7, last).into(),
            paths,
            key: NodeKey::generate().unwrap().to_pem(),
            cloud: uuid::Uuid::new_v4().to_string(),
            authority: None,
            running: Mutex::new(None),
            _dir: dir,
        }
    }
}

/// A node's eye on the wire.
struct Eye {
    wire: Wire,
    at: SocketAddr,
}

impl Sight for Eye {
    fn announce(&self, announcement: &Announcement) -> Result<()> {
        self.wire.seen.send_modify(|seen| {
            let mut all: Vec<_> =
                seen.iter().filter(|s| s.announcement.node != announcement.node).cloned().collect();
            all.push(Sighting { announcement: announcement.clone(), addresses: vec![self.at] });
            *seen = Arc::new(all);
        });
        Ok(())
    }

    fn answer_for_cloud(&self, _: bool) -> Result<()> {
        Ok(())
    }

    fn seen(&self) -> watch::Receiver<Arc<Vec<Sighting>>> {
        self.wire.seen.subscribe()
    }
}

/// A node: what outlives its controller, and the controller while it runs.
struct Node {
    wire: Wire,
    ip: IpAddr,
    paths: Paths,
    key: String,
    cloud: String,
    authority: Option<(String, String)>,
    running: Mutex<Option<(Arc<Cluster>, JoinSet<()>)>>,
    _dir: tempfile::TempDir,
}

impl Node {
    fn surroundings(&self) -> Surroundings {
        let listen = SocketAddr::new(self.ip, self.wire.port);
        let (_, addresses) = watch::channel(vec![self.ip]);
        let sight = Arc::new(Eye { wire: self.wire.clone(), at: listen });
        Surroundings { paths: self.paths.clone(), listen, addresses, sight, timing: Timing::default() }
    }

    fn given(&self) -> Given {
        let (cloud, authority) = (self.cloud.clone(), self.authority.clone());
        let key = NodeKey::from_pem(&self.key).unwrap();
        Given { key, cloud, admin: None, authority, token: None }
    }

    fn name(&self) -> String {
        NodeKey::from_pem(&self.key).unwrap().name()
    }

    /// Switches it on; it is of a cloud when this returns.
    async fn start(&self) {
        let entered = within(async {
            loop {
                match Cluster::enter(self.surroundings(), self.given()).await {
                    Ok(cluster) => break cluster,
                    // The last one's file is open until the last of its tasks is gone.
                    Err(e) if format!("{e:#}").contains("open") => {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    Err(e) => panic!("{}: {e:#}", self.name()),
                }
            }
        });
        let cluster = entered.await;
        let duties = within(async {
            loop {
                // So is its port.
                match cluster.start().await {
                    Ok(duties) => break duties,
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        });
        let duties = duties.await;
        *self.lock() = Some((cluster, duties));
    }

    /// Ends its controller, as a power cut does.
    async fn stop(&self) {
        let (cluster, mut duties) = self.lock().take().unwrap();
        duties.shutdown().await;
        tokio::task::spawn_blocking(move || drop(cluster)).await.unwrap();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Arc<Cluster>, JoinSet<()>)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cluster(&self) -> Arc<Cluster> {
        self.lock().as_ref().unwrap().0.clone()
    }

    fn store(&self) -> LocalStore {
        self.cluster().store.clone()
    }

    fn voters(&self) -> usize {
        self.store().status().unwrap().voters.len()
    }

    /// Writes until it is written.
    async fn put(&self, key: &str) {
        let store = self.store();
        let op = Op::Put { key: key.into(), value: "v".into(), lease: None };
        let txn = Txn { compares: vec![], ops: vec![op] };
        within(async {
            while !matches!(store.txn(txn.clone()).await, Ok(TxnOutcome::Committed(_))) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }

    async fn has(&self, key: &str) -> bool {
        within(self.store().get(key)).await.unwrap().is_some()
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

/// Waits until this holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let held = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, held).await.is_ok(), "not in time: {what}");
}

/// Gives an order to a node's operator's socket, as the command line does; what it answers if it refuses.
async fn ordered(node: &Node, path: &str, order: &impl serde::Serialize) -> Result<(), String> {
    let (socket, router) = (node.paths.operator_socket(), operator::router(node.cluster()));
    let served = socket.clone();
    let server = tokio::spawn(async move { local_http::serve(&served, 0o600, router).await });
    until("the socket is there", || socket.exists()).await;
    let answer = within(local_http::Client::new(&socket).post_json(path, order)).await;
    server.abort();
    drop(std::fs::remove_file(&socket));
    answer.map_err(|e| e.to_string())
}
