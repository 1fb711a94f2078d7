//! Several replicas in one process, on a network of function calls.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cairn_state::{Endpoint, LocalStore, Member, Network, NodeId, NotReached, Options, Timing, Txn};

use super::disk::{Break, Content, Disk};

/// Times for tests on a busy machine: short, but not so short that a pause changes the leader.
pub fn fast() -> Timing {
    Timing {
        heartbeat: Duration::from_millis(60),
        election: Duration::from_millis(400),
        pause: Duration::from_millis(10),
        patience: Duration::from_secs(3),
        log_entries: 8,
    }
}

/// What members seal with that a witness is given.
const KEY: [u8; 32] = [7; 32];

/// The network: who is there.
#[derive(Clone, Default)]
pub struct Wires(Arc<Mutex<BTreeMap<NodeId, Endpoint>>>);

impl Wires {
    /// From now on this replica is there.
    pub fn connect(&self, store: &LocalStore) {
        self.0.lock().unwrap().insert(store.status().unwrap().node, store.endpoint());
    }

    /// The end that a replica has.
    pub fn end(&self, witness: bool) -> Arc<End> {
        Arc::new(End { wires: self.clone(), witness })
    }

    /// From now on it is not.
    pub fn disconnect(&self, node: NodeId) {
        self.0.lock().unwrap().remove(&node);
    }
}

/// A replica's end of the network.
pub struct End {
    wires: Wires,
    /// Whether it is a witness's: the others are told so.
    witness: bool,
}

#[async_trait]
impl Network for End {
    async fn call(&self, to: NodeId, _: &Member, request: Bytes) -> Result<Bytes, NotReached> {
        let endpoint = self.wires.0.lock().unwrap().get(&to).cloned();
        let absent = || NotReached { why: "nobody there".into(), maybe_arrived: false };
        let endpoint = endpoint.ok_or_else(absent)?;
        // As over a socket, the other end works on its own time.
        let witness = self.witness;
        let answer = async move {
            if witness { endpoint.serve_witness(request).await } else { endpoint.serve(request).await }
        };
        tokio::spawn(answer)
            .await
            .map_err(|e| NotReached { why: e.to_string(), maybe_arrived: true })?
            .ok_or(NotReached { why: "it went away".into(), maybe_arrived: true })
    }
}

/// The replicas, by place.
pub struct Cluster {
    wires: Wires,
    disks: Vec<Disk>,
    nodes: Vec<NodeId>,
    stores: Vec<Option<LocalStore>>,
}

impl Cluster {
    /// So many replicas, all voters, founded by the first.
    pub async fn of(count: usize) -> Cluster {
        let mut cluster =
            Cluster { wires: Wires::default(), disks: Vec::new(), nodes: Vec::new(), stores: Vec::new() };
        cluster.open(Disk::new(Content::default(), Break::Never), Options::found(Member::default()));
        for _ in 1..count {
            cluster.add().await;
        }
        cluster.store(0).set_voters(cluster.nodes.clone()).await.unwrap();
        cluster
    }

    fn replica(&self, disk: Disk, options: Options, witness: bool) -> LocalStore {
        let store =
            LocalStore::on(disk.media(), options.network(self.wires.end(witness)).timing(fast())).unwrap();
        store.seal_with(&KEY).unwrap();
        store
    }

    fn open(&mut self, disk: Disk, options: Options) -> usize {
        // Whoever waits as a witness is one from its number on, which it has only then.
        let witness = options.is_witness();
        let store = self.replica(disk.clone(), options, witness);
        let node = store.status().unwrap().node;
        self.wires.0.lock().unwrap().insert(node, store.endpoint());
        self.disks.push(disk);
        self.nodes.push(node);
        self.stores.push(Some(store));
        self.nodes.len() - 1
    }

    /// Takes in a new replica as a learner.
    pub async fn add(&mut self) -> usize {
        self.take_in(Options::join()).await
    }

    /// Takes in a witness as a learner.
    pub async fn add_witness(&mut self) -> usize {
        self.take_in(Options::witness()).await
    }

    async fn take_in(&mut self, options: Options) -> usize {
        let place = self.open(Disk::new(Content::default(), Break::Never), options);
        let member = Member { name: format!("n{place}"), addresses: vec![] };
        self.store(0).admit(self.nodes[place], member).await.unwrap();
        place
    }

    pub fn node(&self, place: usize) -> NodeId {
        self.nodes[place]
    }

    pub fn store(&self, place: usize) -> LocalStore {
        self.stores[place].clone().unwrap()
    }

    /// What its disk has.
    pub fn content(&self, place: usize) -> Vec<u8> {
        self.disks[place].content().bytes()
    }

    /// Nobody reaches it from now on, as long as it runs.
    pub fn cut_off(&self, place: usize) {
        self.wires.disconnect(self.nodes[place]);
    }

    /// It is reached again.
    pub fn heal(&self, place: usize) {
        self.wires.connect(&self.store(place));
    }

    /// Ends a replica; nothing else may hold it.
    pub fn stop(&mut self, place: usize) {
        self.wires.0.lock().unwrap().remove(&self.nodes[place]);
        self.stores[place] = None;
    }

    /// Starts it again, with what its disk has.
    pub async fn start(&mut self, place: usize) {
        let disk = Disk::new(self.disks[place].content(), Break::Never);
        let witness = cairn_state::is_witness(self.nodes[place]);
        let store = self.replica(disk.clone(), Options::join(), witness);
        assert_eq!(store.status().unwrap().node, self.nodes[place]);
        self.wires.0.lock().unwrap().insert(self.nodes[place], store.endpoint());
        self.disks[place] = disk;
        self.stores[place] = Some(store);
    }

    /// Who leads, by place, as soon as all that run agree.
    pub async fn leader(&self) -> usize {
        loop {
            let told: Vec<_> = self.stores.iter().flatten().map(|s| s.status().unwrap().leader).collect();
            if let Some(leader) = told[0].filter(|_| told.iter().all(|t| *t == told[0])) {
                return self.nodes.iter().position(|n| *n == leader).unwrap();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until this one leads.
    pub async fn led_by(&self, place: usize) {
        while self.leader().await != place {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Commits a transaction that may be done twice, until it is.
    pub async fn retry(&self, place: usize, txn: Txn) {
        let store = self.store(place);
        super::within_20s(async {
            while store.commit(txn.clone()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}
