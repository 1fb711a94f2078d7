//! A real Ceph cluster for the tests, as Debian packages it: a monitor, a manager and three OSDs with BlueStore on this
//! machine, with keys (cephx) as in earnest. It listens on the development LAN's end of this machine.
//!
//! Its programs run in a root of their own below `target/ceph`, with mounts that end with them; they end with this process,
//! whatever becomes of that.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use image_builder::{Paths, exec, foreign};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PACKAGES: [&str; 4] = ["ceph-mon", "ceph-mgr", "ceph-osd", "ceph-common"];
/// How many OSDs, and so copies.
pub const OSDS: usize = 3;
/// The pool for volumes.
pub const POOL: &str = "volumes";
/// The user that the cloud is.
pub const USER: &str = "cairn";
/// How long anything of it may take to start.
const PATIENCE: Duration = Duration::from_secs(180);
/// Memory that an OSD aims at: about the least that it takes.
const OSD_MEMORY: u64 = 900 << 20;
/// The size of an OSD's disk, a sparse file, in bytes.
const OSD_SIZE: u64 = 10 << 30;

/// The root with its programs; got from the machine's mirror unless it is here.
pub fn root(paths: &Paths) -> Result<PathBuf> {
    foreign::root(paths, &paths.workspace().join("target/ceph"), "Ceph", &PACKAGES, &["cluster"])
}

/// A cluster at work. Dropping it ends its processes and removes what they had.
pub struct Cluster {
    root: PathBuf,
    directory: PathBuf,
    monitor: String,
    children: Vec<(String, Child)>,
}

impl Cluster {
    /// Starts one that listens at this address.
    pub fn start(root: &Path, directory: &Path, address: &str) -> Result<Cluster> {
        if directory.exists() {
            fs::remove_dir_all(directory)?;
        }
        fs::create_dir_all(directory)?;
        let port = TcpListener::bind((address, 0))?.local_addr()?.port();
        let monitor = format!("[v2:{address}:{port}/0]");
        let mut cluster =
            Cluster { root: root.into(), directory: directory.into(), monitor, children: Vec::new() };
        let started = cluster.begin(address);
        started.with_context(|| format!("Ceph: {}", cluster.last_words()))?;
        Ok(cluster)
    }

    fn begin(&mut self, address: &str) -> Result<()> {
        let id = fresh_id()?;
        fs::write(self.directory.join("ceph.conf"), configuration(&id, &self.monitor, address))?;
        let keyring = "/cluster/keyring";
        for (name, caps) in [("mon.", &["mon"][..]), ("client.admin", &["mon", "osd", "mgr"])] {
            let mut words = vec!["ceph-authtool", keyring, "--gen-key", "--name", name];
            if name == "mon." {
                words.push("--create-keyring");
            }
            caps.iter().for_each(|cap| words.extend(["--cap", cap, "allow *"]));
            self.run(&words)?;
        }
        self.run(&[
            "monmaptool",
            "--create",
            "--fsid",
            &id,
            "--addv",
            "a",
            &self.monitor.clone(),
            "/cluster/monmap",
        ])?;
        self.run(&["ceph-mon", "--mkfs", "-i", "a", "--monmap", "/cluster/monmap", "--keyring", keyring])?;
        self.spawn("mon", &["ceph-mon", "-f", "-i", "a"])?;
        self.until("the monitor", |this| Ok(this.ceph(&["mon", "stat"]).is_ok()))?;
        let caps = ["mon", "allow profile mgr", "osd", "allow *", "mds", "allow *"];
        self.key_to("mgr.x", &caps, "mgr")?;
        self.spawn("mgr", &["ceph-mgr", "-f", "-i", "x"])?;
        for osd in 0..OSDS {
            let (number, id) = (osd.to_string(), fresh_id()?);
            self.ceph(&["osd", "new", &id])?;
            let folder = format!("osd{osd}");
            let caps = ["mon", "allow profile osd", "mgr", "allow profile osd", "osd", "allow *"];
            self.key_to(&format!("osd.{osd}"), &caps, &folder)?;
            self.run(&["ceph-osd", "--mkfs", "-i", &number, "--osd-uuid", &id])?;
            self.spawn(&folder, &["ceph-osd", "-f", "-i", &number])?;
        }
        let all = format!("{OSDS} osds: {OSDS} up");
        self.until("the OSDs", |this| Ok(this.ceph(&["osd", "stat"])?.contains(&all)))?;
        self.ceph(&["osd", "pool", "create", POOL, "32", "32"])?;
        self.run(&["rbd", "pool", "init", POOL])?;
        let of_pool = format!("profile rbd pool={POOL}");
        let user = format!("client.{USER}");
        self.ceph(&["auth", "get-or-create", &user, "mon", "profile rbd", "osd", &of_pool, "mgr", &of_pool])?;
        self.until("its capacity", |this| Ok(this.run(&["rados", "df"])?.contains(POOL)))
    }

    fn key_to(&self, name: &str, caps: &[&str], folder: &str) -> Result<()> {
        let key = self.ceph(&[&["auth", "get-or-create", name], caps].concat())?;
        fs::create_dir_all(self.directory.join(folder))?;
        Ok(fs::write(self.directory.join(folder).join("keyring"), key)?)
    }

    /// Its monitor's address, as a backend is told it.
    pub fn monitor(&self) -> &str {
        &self.monitor
    }

    /// The key of the user that the cloud is.
    pub fn key(&self) -> Result<String> {
        Ok(self.ceph(&["auth", "get-key", &format!("client.{USER}")])?.trim().to_owned())
    }

    /// What is in the pool: images, and what waits in the trash.
    pub fn images(&self) -> Result<String> {
        let trash = self.run(&["rbd", "trash", "ls", "--all", POOL])?;
        Ok(format!("{}{trash}", self.run(&["rbd", "ls", POOL])?))
    }

    /// Has all of its processes stand still, as when its network is gone, or go on.
    pub fn freeze(&self, on: bool) -> Result<()> {
        let signal = if on { Signal::SIGSTOP } else { Signal::SIGCONT };
        for (_, child) in &self.children {
            // The shell that made the mounts became the program itself.
            kill(Pid::from_raw(child.id().cast_signed()), signal)?;
        }
        Ok(())
    }

    /// Ceph's own command.
    pub fn ceph(&self, words: &[&str]) -> Result<String> {
        self.run(&[&["ceph", "--connect-timeout", "30"], words].concat())
    }

    /// A program of Ceph's root, which sees the cluster's folder as `/cluster`.
    fn inside(&self, words: &[&str]) -> Command {
        // Each ends with this process, however that ends.
        let mounts = "mount --rbind /dev \"$0/dev\" && mount -t proc proc \"$0/proc\" && \
                      mount --bind \"$1\" \"$0/cluster\" && shift && exec setpriv --pdeathsig KILL chroot \"$0\" \"$@\"";
        let mut command = exec::command("unshare", ["--mount", "sh", "-c", mounts]);
        command.arg(&self.root).arg(&self.directory).args(words).env("CEPH_CONF", "/cluster/ceph.conf");
        command
    }

    /// Runs a program to its end, and answers what it says.
    fn run(&self, words: &[&str]) -> Result<String> {
        let log = File::options().create(true).append(true).open(self.directory.join("commands.out"))?;
        let ended = self.inside(words).stderr(log).output()?;
        ensure!(ended.status.success(), "`{}` failed", words.join(" "));
        Ok(String::from_utf8_lossy(&ended.stdout).into_owned())
    }

    fn spawn(&mut self, name: &str, words: &[&str]) -> Result<()> {
        let log = File::create(self.directory.join(format!("{name}.out")))?;
        let child = self.inside(words).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        self.children.push((name.to_owned(), child));
        Ok(())
    }

    /// What the command that failed said, if one did.
    fn last_words(&self) -> String {
        let said = fs::read_to_string(self.directory.join("commands.out")).unwrap_or_default();
        said.lines().last().unwrap_or("it said nothing").to_owned()
    }

    fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self)? {
            for (name, child) in &mut self.children {
                ensure!(child.try_wait()?.is_none(), "{name} of Ceph has ended");
            }
            if Instant::now() > deadline {
                bail!("{what} of Ceph are not there in time");
            }
            sleep(Duration::from_millis(300));
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.freeze(false);
        for (_, child) in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn fresh_id() -> Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned())
}

fn configuration(id: &str, monitor: &str, address: &str) -> String {
    format!(
        "[global]
fsid = {id}
mon_host = {monitor}
mon_initial_members = a
public_addr = {address}
ms_bind_msgr1 = false
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
auth_allow_insecure_global_id_reclaim = false
run_dir = /cluster
crash_dir = /cluster
log_file = /cluster/$name.log
admin_socket = /cluster/$name.asok
pid_file =
mon_data = /cluster/mon
mon_data_avail_warn = 1
mon_data_avail_crit = 1
mgr_data = /cluster/mgr
osd_data = /cluster/osd$id
osd_objectstore = bluestore
osd_pool_default_size = {OSDS}
osd_pool_default_min_size = 2
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
osd_memory_target = {OSD_MEMORY}
bluestore_block_size = {OSD_SIZE}
[client]
keyring = /cluster/keyring
"
    )
}
