//! Storage agents of several nodes in one process: each with its disk, key and port, all with one store.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cairn_shards::agent::{self, Cluster, Options};
use cairn_shards::model::{DiskStatus, Prepared, VolumeStatus};
use cairn_shards::replication::regions::REGION;
use cairn_shards::replication::remote::Net;
use cairn_shards::replication::set::ReplicaSet;
use cairn_shards::volume::Volume;
use cairn_state::{Abort, AgentArgs, LocalStore, Reporter, SharedStore, Tx};
use cairn_wire::remote::{Credentials, Endpoint, PeerId, Peers, Trust, TrustSet, Versions};
use tokio::task::JoinHandle;

use crate::common::{self, xfs::Mounted};

/// One node.
pub struct Site {
    pub name: String,
    mounted: Option<Mounted>,
    pub dir: tempfile::TempDir,
    endpoint: Endpoint,
    listen: SocketAddr,
    agent: Option<JoinHandle<()>>,
}

pub struct Cloud {
    pub store: LocalStore,
    pub sites: Vec<Site>,
}

impl Site {
    fn new(name: &str) -> Site {
        // Keys of these tests alone: the crate that could make some is not needed for anything else here.
        let fixture = |what: &str| {
            let path = format!("{}/tests/fixtures/nodes/{name}.{what}.der", env!("CARGO_MANIFEST_DIR"));
            std::fs::read(path).unwrap()
        };
        let credentials =
            Credentials::new(fixture("key").try_into().unwrap(), fixture("cert").into()).unwrap();
        let trust = Trust::new(TrustSet::default());
        let dir = tempfile::tempdir().unwrap();
        common::make_disk(&dir.path().join("disks"), &format!("disk-{name}"));
        // A port that was free a moment ago.
        let listen = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let endpoint = Endpoint { credentials, trust, versions: Versions::OURS };
        Site { name: name.into(), mounted: None, dir, endpoint, listen, agent: None }
    }

    /// Gives it a file system of its own as its disk, instead of a directory.
    fn mount(&mut self, size: u64) -> Result<(), String> {
        let disks = self.dir.path().join("disks");
        let disk = format!("disk-{}", self.name);
        self.mounted = Some(Mounted::new(&self.dir.path().join("image"), &disks.join(&disk), size)?);
        common::make_disk(&disks, &disk);
        Ok(())
    }

    fn id(&self) -> PeerId {
        self.endpoint.credentials.id()
    }

    pub fn volume(&self, id: &str) -> PathBuf {
        self.dir.path().join(format!("disks/disk-{}/volumes/{id}", self.name))
    }

    /// What its disk holds of a volume.
    pub fn content(&self, id: &str) -> Vec<u8> {
        content_of(&self.volume(id))
    }
}

/// What a volume's directory holds.
pub fn content_of(directory: &Path) -> Vec<u8> {
    let volume = Volume::open(directory).unwrap();
    let mut bytes = vec![0; volume.size() as usize];
    for chunk in bytes.chunks_mut(REGION as usize).enumerate() {
        volume.read_slice(chunk.0 as u64 * REGION, chunk.1).unwrap();
    }
    bytes
}

impl Cloud {
    pub fn new(names: &[&str]) -> Cloud {
        let sites: Vec<Site> = names.iter().map(|n| Site::new(n)).collect();
        let members = sites.iter().map(Site::id).collect();
        let trust = TrustSet { members, ..TrustSet::default() };
        sites.iter().for_each(|s| s.endpoint.trust.replace(trust.clone()));
        Cloud { store: LocalStore::in_memory().unwrap(), sites }
    }

    /// All nodes, with their disks reported.
    pub async fn started(names: &[&str]) -> Cloud {
        let mut cloud = Cloud::new(names);
        for name in names {
            cloud.start(name).await;
        }
        cloud
    }

    /// All nodes, each with an XFS of so many bytes as its disk, and disks reported.
    pub async fn mounted(names: &[&str], size: u64) -> Result<Cloud, String> {
        let mut cloud = Cloud::new(names);
        cloud.sites.iter_mut().try_for_each(|site| site.mount(size))?;
        for name in names {
            cloud.start(name).await;
        }
        Ok(cloud)
    }

    pub fn site(&self, name: &str) -> &Site {
        self.sites.iter().find(|s| s.name == name).unwrap()
    }

    pub async fn start(&mut self, name: &str) {
        let net = self.net(name);
        let store: SharedStore = Arc::new(self.store.clone());
        let site = self.sites.iter_mut().find(|s| s.name == name).unwrap();
        let path = site.dir.path();
        std::fs::create_dir_all(path.join("run")).unwrap();
        let args = AgentArgs {
            node: name.into(),
            store: store.clone(),
            reporter: Reporter::new(store, name, "storage"),
            state_dir: path.join("state"),
            run_dir: path.join("run"),
        };
        let options = Options {
            cloud: Some("c1".into()),
            socket_group: None,
            disks_interval: Duration::from_millis(500),
            cluster: Some(Cluster { endpoint: site.endpoint.clone(), listen: site.listen, net }),
            ..Options::default()
        };
        site.agent = Some(tokio::spawn(agent::run_with(args, path.join("disks"), options)));
        let name = name.to_owned();
        self.until("its disk is reported", move |tx| {
            Ok(tx.list::<DiskStatus>()?.iter().any(|d| d.node == name).then_some(()))
        })
        .await;
    }

    fn net(&self, name: &str) -> Net {
        let peers = Peers::new(self.site(name).endpoint.clone());
        let names: Vec<(String, PeerId)> = self.sites.iter().map(|s| (s.name.clone(), s.id())).collect();
        self.sites.iter().for_each(|s| peers.set_addresses(s.id(), vec![s.listen]));
        let who_is = move |name: &str| names.iter().find(|(n, _)| n == name).map(|(_, id)| *id);
        Net { peers, who_is: Arc::new(who_is) }
    }

    pub async fn stop(&mut self, name: &str) {
        let site = self.sites.iter_mut().find(|s| s.name == name).unwrap();
        let agent = site.agent.take().unwrap();
        agent.abort();
        let _ = agent.await;
    }

    pub async fn change<T>(&self, mut f: impl FnMut(&mut Tx) -> Result<T, Abort>) -> T {
        self.store.transact(|tx| f(tx)).await.unwrap()
    }

    /// Waits until the store says something.
    pub async fn until<T>(&self, what: &str, mut f: impl FnMut(&mut Tx) -> Result<Option<T>, Abort>) -> T {
        for _ in 0..1200 {
            if let Some(found) = self.store.read(&mut f).unwrap() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{what}: not within a minute; {:#?}", self.store.read(|tx| tx.list::<VolumeStatus>()));
    }

    pub async fn until_status(&self, id: &str, f: impl Fn(&VolumeStatus) -> bool) -> VolumeStatus {
        self.until("a volume's status", |tx| Ok(tx.get::<VolumeStatus>(id)?.filter(|s| f(s)))).await
    }

    /// Waits until just these places are in sync.
    pub async fn until_in_sync(&self, id: &str, nodes: &[&str]) -> ReplicaSet {
        let whole = |set: &ReplicaSet| {
            let mut found: Vec<&str> = set.in_sync().collect();
            found.sort_unstable();
            found == nodes
        };
        self.until("replicas in sync", |tx| Ok(tx.get::<ReplicaSet>(id)?.filter(whole))).await
    }

    pub async fn until_prepared(&self, id: &str, node: &str) -> PathBuf {
        let id = format!("{id}/{node}");
        let prepared = self.until("a prepared volume", |tx| tx.get::<Prepared>(&id)).await;
        prepared.socket.into()
    }

    /// The socket of a volume that is served under this epoch.
    pub async fn socket(&self, id: &str, epoch: u64) -> PathBuf {
        self.until_status(id, |s| s.epoch == epoch && s.socket.is_some()).await.socket.unwrap().into()
    }
}
