//! What the tests share: a node's directories with data disks, a store, and a running storage agent.
#![allow(
    dead_code,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "each test takes what it needs, and says where it cannot go on"
)]

pub mod front_end;
pub mod xfs;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cairn_shards::agent::{self, Options};
use cairn_shards::data::ConvertLimits;
use cairn_shards::model::{VolumeSpec, VolumeStatus};
use cairn_state::{Abort, AgentArgs, LocalStore, Reporter, RoleStatus, SharedStore, Tx};
use tokio::task::JoinHandle;

pub const NODE: &str = "cairn-test00";

pub struct Node {
    pub dir: tempfile::TempDir,
    pub store: LocalStore,
    agent: Option<JoinHandle<()>>,
}

pub fn make_disk(disks: &Path, id: &str) -> PathBuf {
    let path = disks.join(id);
    std::fs::create_dir_all(&path).unwrap();
    let marker = format!(r#"{{"format":1,"disk":"{id}","cloud":"c1"}}"#);
    let mut file = std::fs::File::create(path.join("cairn-disk.json")).unwrap();
    file.write_all(marker.as_bytes()).unwrap();
    file.sync_all().unwrap();
    path
}

impl Node {
    pub async fn new() -> Node {
        let dir = tempfile::tempdir().unwrap();
        make_disk(&dir.path().join("disks"), "d1");
        let store = LocalStore::in_memory().unwrap();
        let mut node = Node { dir, store, agent: None };
        node.start();
        node
    }

    pub fn start(&mut self) {
        self.start_with(Arc::new(self.store.clone()));
    }

    /// Starts the agent while its controller is away.
    pub fn start_without_store(&mut self) {
        self.start_with(Arc::new(cairn_wire::RemoteStore::new(self.dir.path().join("nobody.sock"))));
    }

    fn start_with(&mut self, store: SharedStore) {
        let path = self.dir.path();
        std::fs::create_dir_all(path.join("run")).unwrap();
        let args = AgentArgs {
            node: NODE.into(),
            store: store.clone(),
            reporter: Reporter::new(store, NODE, "storage"),
            state_dir: path.join("state"),
            run_dir: path.join("run"),
        };
        let options = Options {
            cloud: Some("c1".into()),
            socket_group: None,
            disks_interval: Duration::from_millis(500),
            convert: ConvertLimits { program: program("qemu-img"), ..ConvertLimits::default() },
            ..Options::default()
        };
        self.agent = Some(tokio::spawn(agent::run_with(args, path.join("disks"), options)));
    }

    pub async fn stop(&mut self) {
        let agent = self.agent.take().unwrap();
        agent.abort();
        let _ = agent.await;
    }

    pub fn disk(&self) -> PathBuf {
        self.dir.path().join("disks/d1")
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("run/storage.sock")
    }

    pub async fn change<T>(&self, mut f: impl FnMut(&mut Tx) -> Result<T, Abort>) -> T {
        self.store.transact(|tx| f(tx)).await.unwrap()
    }

    /// Waits until the agent reported this of a volume.
    pub async fn until(&self, id: &str, f: impl Fn(&VolumeStatus) -> bool) -> VolumeStatus {
        let mut last = None;
        for _ in 0..2400 {
            last = self.store.read(|tx| tx.get::<VolumeStatus>(id)).unwrap();
            if let Some(status) = last.as_ref().filter(|s| f(s)) {
                return status.clone();
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("volume {id} stays at {last:?}");
    }

    /// Waits until a fact that the agent reports is so.
    pub async fn until_fact(&self, name: &str, f: impl Fn(&serde_json::Value) -> bool) {
        let mut last = serde_json::Value::Null;
        for _ in 0..2400 {
            let status = self.store.read(|tx| tx.get::<RoleStatus>(&format!("{NODE}/storage"))).unwrap();
            last = status.map_or(serde_json::Value::Null, |s| s.facts[name].clone());
            if f(&last) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("the fact {name} stays at {last}");
    }
}

/// The absolute path of a program, looked for as a shell does; its usual place if it is nowhere.
pub fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|p| p.is_file());
    found.unwrap_or_else(|| Path::new("/usr/bin").join(name))
}

pub fn spec(id: &str, size: u64) -> VolumeSpec {
    VolumeSpec::new(id, NODE, size)
}
