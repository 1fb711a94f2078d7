//! The storage agent that is measured, in a process of its own, and the store that it follows, in this one.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cairn_shards::agent::{Options, run_with};
use cairn_shards::model::{Phase, VolumeSpec, VolumeStatus};
use cairn_shards::volumes;
use cairn_state::{AgentArgs, Entry, Event, LocalStore, Reporter, RoleStatus, Store, record};
use cairn_wire::store_server::{Policy, Role, serve};
use cairn_wire::{RemoteStore, local_socket};
use clap::Args;
use futures_util::StreamExt;

use super::Place;
use crate::process::{cpu_us, shared_memory_mib};

/// The name of the node.
pub const NODE: &str = "bench";
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// The storage agent of `bench scale`; started by it.
#[derive(Args)]
pub struct NodeOptions {
    /// Where its files are
    directory: PathBuf,
}

/// Runs the agent until standard input ends.
pub fn node(options: &NodeOptions) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let directory = options.directory.clone();
    runtime.spawn(async move {
        let store = Arc::new(RemoteStore::new(directory.join("state.sock")));
        let args = AgentArgs {
            node: NODE.into(),
            store: store.clone(),
            reporter: Reporter::new(store, NODE, "storage"),
            state_dir: directory.join("state"),
            run_dir: directory.join("run"),
        };
        let options = Options { cloud: Some("bench".into()), socket_group: None, ..Options::default() };
        run_with(args, directory.join("disks"), options).await;
    });
    std::io::stdin().read_to_end(&mut Vec::new())?;
    // What blocks is not waited for: this is how a node's process ends, too.
    std::process::exit(0)
}

/// The store, and the agent's process.
pub struct Agent {
    pub store: LocalStore,
    directory: PathBuf,
    process: Option<(Child, ChildStdin)>,
    served: tokio::task::JoinHandle<()>,
}

impl Agent {
    /// A store that is served at the place, and no agent yet.
    pub fn new(place: &Place) -> Result<Agent> {
        let (store, directory) = (LocalStore::in_memory()?, place.files.clone());
        let every = vec![String::new()];
        let role =
            Role { name: "storage".into(), may_write: every.clone(), may_swap: Vec::new(), may_read: every };
        let policy: Policy = Arc::new(move |_| Some(role.clone()));
        let socket = local_socket::bind(&directory.join("state.sock"), 0o600)?;
        let served = tokio::spawn(serve(socket, store.clone(), policy));
        std::fs::create_dir_all(directory.join("run"))?;
        Ok(Agent { store, directory, process: None, served })
    }

    pub fn start(&mut self) -> Result<()> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("scale-node")
            .arg(&self.directory)
            .stdin(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().context("no input")?;
        self.process = Some((child, stdin));
        Ok(())
    }

    /// As `kill -9` does.
    pub fn kill(&mut self) -> Result<()> {
        if let Some((mut child, _)) = self.process.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    fn pid(&self) -> Result<u32> {
        Ok(self.process.as_ref().context("it does not run")?.0.id())
    }

    pub fn memory_mib(&self) -> Result<u64> {
        shared_memory_mib(&[self.pid()?])
    }

    pub fn cpu_us(&self) -> Result<f64> {
        cpu_us(&[self.pid()?])
    }

    /// Asks for a volume and waits until it is there; answers how long that took.
    pub async fn create(&self, spec: VolumeSpec) -> Result<Duration> {
        let id = spec.id.clone();
        let key = record::key::<VolumeStatus>(&id);
        let from = self.store.range(&key, None, 1).await?.at;
        let mut events = self.store.watch(&key, from).await?;
        let begun = Instant::now();
        self.store.transact(|tx| volumes::create(tx, spec.clone())).await?;
        let waited = async {
            while let Some(event) = events.next().await {
                if let Event::Put(entry) = event?
                    && is_ready(&entry, &id)?
                {
                    return Ok(());
                }
            }
            bail!("the store has ended")
        };
        tokio::time::timeout(PATIENCE, waited).await.context("it is not made")??;
        Ok(begun.elapsed())
    }

    /// Waits until the agent has looked at everything since it was started; answers how long after `begun` that was.
    pub async fn until_seen(&self, begun: Instant) -> Result<Duration> {
        let pid = self.pid()?;
        loop {
            let status = self.store.read(|tx| tx.get::<RoleStatus>(&format!("{NODE}/storage")))?;
            let status = status.filter(|s| s.pid == pid);
            if let Some(status) = status
                && status.reconcilers.iter().any(|r| r.name == "volumes" && r.faults.is_empty())
                && status.facts["orphans"].is_object()
            {
                return Ok(begun.elapsed());
            }
            ensure!(begun.elapsed() < PATIENCE, "the agent does not start");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.kill();
        self.served.abort();
    }
}

fn is_ready(entry: &Entry, id: &str) -> Result<bool> {
    let status: VolumeStatus = record::decode(entry)?;
    Ok(status.id == id && status.phase == Phase::Ready)
}

/// A volume as the bench asks for it.
pub fn spec(id: &str, gib: u64) -> VolumeSpec {
    VolumeSpec::new(id, NODE, gib << 30)
}

/// Where the volumes of the place lie.
pub fn disks(place: &Place) -> &Path {
    &place.disks
}
