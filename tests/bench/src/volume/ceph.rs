//! Ceph, as Debian packages it: a monitor and three OSDs with BlueStore on loopback, and an image of theirs behind
//! qemu-storage-daemon's vhost-user-blk export by librbd, so that the load is the same as on Cairn.
//!
//! All choices are in Ceph's favour: nothing is authenticated or encrypted, no manager runs, the disk is taken for an
//! SSD whatever it says of itself, the queue is the one without a scheduler's throttle, and its sockets have buffers of
//! a fixed size (on loopback, with the kernel's own sizing, some close their windows for a quarter of a second). Its
//! programs run in a root of their own below `target/bench/ceph`, with mounts that end with them.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use image_builder::Paths;
use image_builder::stage::Step;
use image_builder::{exec, foreign};

use super::side::{Server, Way};

const PACKAGES: [&str; 5] = ["ceph-mon", "ceph-osd", "ceph-common", "qemu-utils", "qemu-block-extra"];
const OSDS: usize = 3;
/// How long anything of it may take to start.
const PATIENCE: Duration = Duration::from_secs(120);
/// Memory that an OSD aims at: about the least that it takes.
const OSD_MEMORY: u64 = 1 << 30;
/// Room that an OSD needs beside the image.
const OSD_MORE: u64 = 2 << 30;

/// Gets Ceph from the machine's mirror, unless it is here.
pub fn root(paths: &Paths) -> Result<PathBuf> {
    foreign::root(paths, &paths.workspace().join("target/bench/ceph"), "Ceph", &PACKAGES, &["cluster"])
}

/// A cluster at work. Dropping it ends its processes.
pub struct Ceph {
    cluster: Cluster,
    /// What the load is put on.
    pub server: Server,
}

impl Ceph {
    /// Starts one with its files in this folder, and an image of this size.
    pub fn start(root: &Path, directory: &Path, size: u64, step: &Step) -> Result<Ceph> {
        fs::create_dir_all(directory)?;
        let mut cluster = Cluster { root: root.into(), directory: directory.into(), children: Vec::new() };
        let started = cluster.start(size, step);
        let way = Way::Socket(directory.join("rbd.sock"));
        // Its processes end with this, too, if not all have started.
        let server = Server::of(std::mem::take(&mut cluster.children), way, 1);
        started.with_context(|| format!("Ceph: {}", cluster.last_words()))?;
        Ok(Ceph { cluster, server })
    }

    /// Empties the caches of its OSDs, which know nothing of the kernel's.
    pub fn forget(&self) -> Result<()> {
        self.cluster.run(&["ceph", "tell", "osd.*", "cache", "drop"]).map(drop)
    }
}

struct Cluster {
    root: PathBuf,
    directory: PathBuf,
    children: Vec<Child>,
}

impl Cluster {
    fn start(&mut self, size: u64, step: &Step) -> Result<()> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let monitor = format!("[v2:127.0.0.1:{port}/0]");
        let id = fresh_id()?;
        fs::write(self.directory.join("ceph.conf"), configuration(&id, &monitor, size))?;
        step.note("Ceph's monitor");
        self.run(&["monmaptool", "--create", "--fsid", &id, "--addv", "a", &monitor, "/cluster/monmap"])?;
        self.run(&["ceph-mon", "--mkfs", "-i", "a", "--monmap", "/cluster/monmap"])?;
        self.spawn("mon", &["ceph-mon", "-f", "-i", "a"])?;
        for osd in 0..OSDS {
            step.note(&format!("Ceph's OSD {osd}"));
            let (number, id) = (osd.to_string(), fresh_id()?);
            fs::create_dir_all(self.directory.join(format!("osd{osd}")))?;
            self.run(&["ceph", "--connect-timeout", "60", "osd", "new", &id])?;
            self.run(&["ceph-osd", "--mkfs", "-i", &number, "--osd-uuid", &id])?;
            self.spawn(&format!("osd{osd}"), &["ceph-osd", "-f", "-i", &number])?;
        }
        let all = format!("{OSDS} osds: {OSDS} up");
        self.until("the OSDs", |this| {
            Ok(this.run(&["ceph", "--connect-timeout", "60", "osd", "stat"])?.contains(&all))
        })?;
        step.note("Ceph's image");
        self.run(&["ceph", "--connect-timeout", "60", "osd", "pool", "create", "pool", "32", "32"])?;
        self.run(&["rbd", "pool", "init", "pool"])?;
        self.run(&["rbd", "create", "--size", &format!("{}B", size), "pool/image"])?;
        let disk = "driver=rbd,node-name=disk,pool=pool,image=image,conf=/cluster/ceph.conf,cache.direct=on";
        let export = "type=vhost-user-blk,id=export,addr.type=unix,addr.path=/cluster/rbd.sock,node-name=disk,\
                      writable=on";
        self.spawn("rbd", &["qemu-storage-daemon", "--blockdev", disk, "--export", export])?;
        self.until("the image", |this| Ok(this.directory.join("rbd.sock").exists()))
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
        self.children.push(child);
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
            for child in &mut self.children {
                ensure!(child.try_wait()?.is_none(), "a process of Ceph has ended");
            }
            ensure!(Instant::now() < deadline, "{what} of Ceph are not there in time");
            sleep(Duration::from_millis(200));
        }
        Ok(())
    }
}

fn fresh_id() -> Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned())
}

fn configuration(id: &str, monitor: &str, size: u64) -> String {
    format!(
        "[global]
fsid = {id}
mon_host = {monitor}
mon_initial_members = a
public_network = 127.0.0.0/8
ms_bind_msgr1 = false
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
run_dir = /cluster
crash_dir = /cluster
log_file = /cluster/$name.log
admin_socket = /cluster/$name.asok
pid_file =
mon_data = /cluster/mon
mon_data_avail_warn = 1
mon_data_avail_crit = 1
osd_data = /cluster/osd$id
osd_objectstore = bluestore
osd_pool_default_size = {OSDS}
osd_pool_default_min_size = 2
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
osd_memory_target = {OSD_MEMORY}
osd_op_queue = wpq
osd_op_num_shards = 8
osd_op_num_threads_per_shard = 2
ms_tcp_rcvbuf = 4194304
bluestore_debug_enforce_settings = ssd
bluestore_block_size = {}
[client]
rbd_cache = false
",
        size + OSD_MORE
    )
}
