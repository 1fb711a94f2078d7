//! Three nodes and what lies between them: processes, disks, links, and the store that outlives them all.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use cairn_shards::format::{BLOCK, MARKER, SUM};
use cairn_shards::model::{DiskStatus, Phase, VolumeSpec, VolumeStatus};
use cairn_shards::replication::regions::AREA;
use cairn_shards::replication::set::ReplicaSet;
use cairn_shards::volumes;
use cairn_state::{Abort, LocalStore, Tx};
use cairn_wire::{Role, local_socket, store_server};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::runtime::Runtime;

use crate::dice::Dice;
use crate::disk::Cut;
use crate::filesystem::FileSystem;
use crate::link::{Link, Mode};
use crate::node::{CLOUD, DISKS, Identity, SETTINGS, STORE, Settings};

/// How many nodes there are.
pub const NODES: usize = 3;
/// The volume.
pub const ID: &str = "v1";
/// What nodes are called.
pub const NAMES: [&str; NODES] = ["a", "b", "c"];

/// A node, from outside.
pub struct Node {
    directory: PathBuf,
    settings: Settings,
    pub files: FileSystem,
    process: Option<Child>,
    /// Its ways to the others, and to the store last.
    links: Vec<Link>,
    pub frozen: bool,
    pub powered: bool,
    boots: u64,
}

/// All of it.
pub struct Cloud {
    runtime: Runtime,
    store: LocalStore,
    pub nodes: Vec<Node>,
    owners: u64,
}

impl Cloud {
    /// Nodes with empty disks, at work, and the volume on all of them.
    pub fn start(directory: &Path, size: u64) -> Result<Cloud> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let store = LocalStore::in_memory()?;
        let socket = directory.join(STORE);
        let nodes = runtime.block_on(async {
            let listener = local_socket::bind(&socket, 0o600)?;
            let all = || vec![String::new()];
            let role = Role { name: "node".into(), may_write: all(), may_swap: all(), may_read: all() };
            tokio::spawn(store_server::serve(listener, store.clone(), Arc::new(move |_| Some(role.clone()))));
            make_nodes(directory, &socket).await
        })?;
        let mut cloud = Cloud { runtime, store, nodes, owners: 0 };
        for node in &mut cloud.nodes {
            node.start()?;
        }
        let patience = Duration::from_secs(30);
        cloud.until("all disks are reported", patience, |tx| {
            Ok((tx.list::<DiskStatus>()?.len() == NODES).then_some(()))
        })?;
        cloud.change(|tx| volumes::create(tx, VolumeSpec::new(ID, NAMES[0], size)))?;
        cloud.until("the volume is ready", patience, |tx| {
            Ok(tx.get::<VolumeStatus>(ID)?.filter(|s| s.phase == Phase::Ready))
        })?;
        Ok(cloud)
    }

    fn change<T>(&self, mut f: impl FnMut(&mut Tx) -> Result<T, Abort>) -> Result<T> {
        self.runtime.block_on(self.store.transact(|tx| f(tx))).map_err(|e| anyhow!("the store: {e:?}"))
    }

    fn read<T>(&self, f: impl FnMut(&mut Tx) -> Result<T, Abort>) -> Result<T> {
        self.store.read(f).map_err(|e| anyhow!("the store: {e:?}"))
    }

    /// Waits until the store says something.
    fn until<T>(
        &self,
        what: &str,
        patience: Duration,
        mut f: impl FnMut(&mut Tx) -> Result<Option<T>, Abort>,
    ) -> Result<T> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(found) = self.read(&mut f)? {
                return Ok(found);
            }
            if Instant::now() > deadline {
                let (set, status) = (self.set()?, self.status()?);
                bail!("{what}: not within {} s; {set:?}; {status:?}", patience.as_secs());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Which replicas are in sync.
    pub fn set(&self) -> Result<ReplicaSet> {
        self.read(|tx| tx.get::<ReplicaSet>(ID))?.context("the volume has no replicas")
    }

    pub fn status(&self) -> Result<Option<VolumeStatus>> {
        self.read(|tx| tx.get::<VolumeStatus>(ID))
    }

    /// Gives the volume to a new guest on a node; answers the epoch.
    pub fn export(&mut self, node: usize) -> Result<u64> {
        self.owners += 1;
        let owner = format!("guest-{}", self.owners);
        self.change(|tx| volumes::export(tx, ID, NAMES[node], &owner))
    }

    /// Where it is served under this epoch.
    pub fn socket(&self, epoch: u64, patience: Duration) -> Result<PathBuf> {
        let served = |status: &VolumeStatus| status.epoch == epoch && status.socket.is_some();
        let status = self
            .until("the volume is served", patience, |tx| Ok(tx.get::<VolumeStatus>(ID)?.filter(served)))?;
        Ok(status.socket.context("no socket")?.into())
    }

    /// Waits until all replicas are in sync.
    pub fn until_in_sync(&self, patience: Duration) -> Result<()> {
        self.until("all replicas are in sync", patience, |tx| {
            let set = tx.get::<ReplicaSet>(ID)?;
            Ok(set.filter(|set| set.in_sync().count() == NODES).map(drop))
        })
    }

    /// Waits until the node where the volume is used has met a corrupt block; answers how often.
    pub fn until_corrupt(&self, patience: Duration) -> Result<u64> {
        self.until("a flipped bit is noticed", patience, |tx| {
            Ok(tx.get::<VolumeStatus>(ID)?.map(|s| s.corrupt).filter(|corrupt| *corrupt > 0))
        })
    }

    /// Cuts or mends the way from a node to another, or to the store.
    pub fn link(&self, from: usize, to: Option<usize>, mode: Mode) {
        self.nodes[from].links[to.unwrap_or(NODES)].set(mode);
    }

    /// Its process is killed.
    pub fn kill(&mut self, node: usize) -> Result<()> {
        self.nodes[node].kill()
    }
}

async fn make_nodes(directory: &Path, store: &Path) -> Result<Vec<Node>> {
    let (mut identities, mut addresses) = (Vec::new(), Vec::new());
    for _ in NAMES {
        identities.push(Identity::make()?);
        // A port that was free a moment ago.
        addresses.push(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?);
    }
    let mut nodes = Vec::new();
    for (place, name) in NAMES.into_iter().enumerate() {
        let directory = directory.join(name);
        std::fs::create_dir_all(&directory)?;
        let (mut links, mut peers) = (Vec::new(), Vec::new());
        for (other, name) in NAMES.into_iter().enumerate() {
            let (link, at) = Link::to(addresses[other]).await?;
            links.push(link);
            peers.push((name.to_owned(), identities[other].id.to_string(), at));
        }
        links.push(Link::to_socket(store.to_owned(), &directory.join(STORE))?);
        let settings = Settings {
            name: name.into(),
            key: identities[place].key.clone(),
            certificate: identities[place].certificate.clone(),
            listen: addresses[place],
            nodes: peers,
            boot: String::new(),
        };
        let disk = format!("disk-{name}");
        let files = FileSystem::make(&directory, &directory.join(DISKS).join(&disk))?;
        let marker = format!(r#"{{"format":1,"disk":"{disk}","cloud":"{CLOUD}"}}"#);
        let mut file = File::create(files.at().join(MARKER))?;
        file.write_all(marker.as_bytes())?;
        file.sync_all()?;
        nodes.push(Node {
            directory,
            settings,
            files,
            process: None,
            links,
            frozen: false,
            powered: true,
            boots: 0,
        });
    }
    Ok(nodes)
}

impl Node {
    /// Starts its process.
    pub fn start(&mut self) -> Result<()> {
        if self.process.is_some() {
            return Ok(());
        }
        self.settings.boot = format!("{}-{}", self.settings.name, self.boots);
        std::fs::write(self.directory.join(SETTINGS), serde_json::to_vec(&self.settings)?)?;
        let log = File::options().create(true).append(true).open(self.directory.join("log"))?;
        let child = Command::new(std::env::current_exe()?)
            .arg("node")
            .arg(&self.directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.process = Some(child);
        Ok(())
    }

    pub fn runs(&self) -> bool {
        self.process.is_some() && !self.frozen
    }

    /// Fails if its process has ended by itself.
    pub fn lives(&mut self) -> Result<()> {
        if let Some(child) = &mut self.process
            && let Some(status) = child.try_wait()?
        {
            bail!("{}'s process has ended: {status}; see {}", self.settings.name, self.log().display());
        }
        Ok(())
    }

    pub fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.process.take() {
            child.kill()?;
            child.wait()?;
        }
        self.frozen = false;
        Ok(())
    }

    /// Its process does nothing until it is thawed.
    pub fn freeze(&mut self, frozen: bool) -> Result<()> {
        if let Some(child) = &self.process {
            let signal = if frozen { Signal::SIGSTOP } else { Signal::SIGCONT };
            kill(Pid::from_raw(child.id() as i32), signal)?;
        }
        self.frozen = frozen && self.process.is_some();
        Ok(())
    }

    /// Its power is cut, the disk's `first` or that of the rest.
    pub fn cut(&mut self, first: bool) -> Result<()> {
        // Whoever waits for the disk would not end.
        self.files.disk.set(|faults| (faults.hangs_until, faults.off) = (None, first));
        self.kill()?;
        self.files.disk.set(|faults| faults.off = true);
        self.powered = false;
        Ok(())
    }

    /// It has power again, and all that was in memory is gone.
    pub fn restore(&mut self, dice: &mut Dice) -> Result<Cut> {
        self.files.cut()?;
        let cut = self.files.restore(dice)?;
        self.boots += 1;
        self.powered = true;
        Ok(cut)
    }

    /// The kernel begins to write what it has cached of the volume, which nobody waits for.
    pub fn write_back(&self) {
        for name in ["seg-00000000", "sum-00000000"] {
            if let Ok(file) = File::open(self.segment().with_file_name(name)) {
                let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
            }
        }
    }

    /// A replica's segment as it is on the disk.
    pub fn segment(&self) -> PathBuf {
        self.files.at().join("volumes").join(ID).join("seg-00000000")
    }

    /// The sums of its blocks, without zeroes at the end.
    pub fn sums(&self) -> Vec<u8> {
        let mut sums = std::fs::read(self.sums_file()).unwrap_or_default();
        sums.truncate(sums.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
        sums
    }

    fn sums_file(&self) -> PathBuf {
        self.segment().with_file_name("sum-00000000")
    }

    /// Whether a crash may have parted data and sums at this byte.
    pub fn is_marked(&self, byte: u64) -> bool {
        let marks = std::fs::read(self.segment().with_file_name("marks")).unwrap_or_default();
        let area = byte / AREA;
        // The volume has one block of them, which begins with its sum and its number.
        marks.get(8 + area as usize / 8).is_some_and(|bits| bits & 1 << (area % 8) != 0)
    }

    /// Bits flip on its disk in sectors that `may` says (by number and write); what is cached is forgotten.
    pub fn rot(&self, dice: &mut Dice, may: impl Fn(u64, u32) -> bool) -> Result<usize> {
        if !self.segment().exists() {
            return Ok(0);
        }
        let file = File::open(self.segment())?;
        file.sync_all()?;
        let flipped = self.files.disk.flip(dice, 4, may)?;
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        Ok(flipped.len())
    }

    /// Whether its replica was told, during this boot, that it is like the others.
    pub fn is_told_alike(&self) -> bool {
        let file = self.segment().with_file_name("replica.json");
        let told = std::fs::read_to_string(file).unwrap_or_default();
        told.contains(&format!("\"{}\"", self.settings.boot))
    }

    /// Bits flip in sums of blocks of areas that `may` says; answers how many.
    pub fn rot_sums(&self, dice: &mut Dice, may: impl Fn(usize) -> bool) -> Result<usize> {
        let (file, sums) = (self.sums_file(), self.sums());
        let per_area = (AREA / BLOCK * SUM) as usize;
        let of_data = |at: &usize| sums[*at] != 0 && may(at / per_area);
        let places: Vec<usize> = (0..sums.len()).filter(of_data).collect();
        if places.is_empty() {
            return Ok(0);
        }
        flip_in(&file, *dice.pick(&places), dice.of(0..8))?;
        Ok(1)
    }

    /// A bit flips in its marks.
    pub fn rot_marks(&self, dice: &mut Dice) -> Result<usize> {
        let file = self.segment().with_file_name("marks");
        let len = std::fs::read(&file).unwrap_or_default().len();
        if len == 0 {
            return Ok(0);
        }
        // Mostly among those of the areas that are there.
        let at = if dice.percent(50) { 8 } else { dice.of(0..len as u64) as usize };
        flip_in(&file, at, dice.of(0..8))?;
        Ok(1)
    }
}

/// Flips a bit of a file.
fn flip_in(file: &Path, at: usize, bit: u64) -> Result<()> {
    let file = File::options().read(true).write(true).open(file)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64)?;
    Ok(file.write_all_at(&[byte[0] ^ 1 << bit], at as u64)?)
}

impl Drop for Node {
    fn drop(&mut self) {
        // It is to end whatever has happened.
        drop(self.kill());
        drop(self.files.end());
    }
}
