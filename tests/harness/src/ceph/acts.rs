//! What is done with volumes in Ceph, each a few commands as a person would type them.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use image_builder::exec;

use super::cluster::{Cluster, POOL, USER};
use crate::client::Client;
use crate::dev::Node;
use crate::tour::{Scene, names, step};

/// The backend, and the type of the same name.
const BACKEND: &str = "ceph";
const VOLUME: &str = "ceph-volume";
const SNAPSHOT: &str = "ceph-snapshot";
/// What is made of the snapshot, the volume, an image, and while the cluster is silent.
const OTHERS: [&str; 4] = ["ceph-of-snapshot", "ceph-of-volume", "ceph-of-image", "ceph-late"];
const CAPTURED: &str = "ceph-captured";
/// How long a step of a volume may take.
const MAX: Duration = Duration::from_secs(120);
/// How long the cluster is silent.
const SILENCE: Duration = Duration::from_secs(45);

/// A cloud, its node, and a cluster.
pub struct Bench<'a> {
    /// The administrator's client.
    pub client: &'a Client,
    /// The node.
    pub node: &'a Node,
    /// The cluster.
    pub ceph: &'a Cluster,
}

impl Bench<'_> {
    /// Makes the cluster known, and a type that means it.
    pub fn known(&self) -> Result<()> {
        step("a key that is wrong is refused, and nothing kept", || self.wrong_key())?;
        step("cairn backend add", || {
            self.add(&self.ceph.key()?)?;
            ensure!(self.cairn(&["backend", "list"])?.contains(POOL), "the backend is not listed");
            self.until("the backend is up", || {
                let services = self.client.json(&["volume", "service", "list"])?.to_string();
                Ok(services.contains("cairn@ceph") && !services.contains("\"down\""))
            })
        })?;
        step("the key is nowhere to be read", || self.secret())?;
        step("a type, and the pool's figures", || {
            let property = format!("volume_backend_name={BACKEND}");
            self.client.run(&["volume", "type", "create", "--property", &property, BACKEND])?;
            let pools = self.client.json(&["volume", "backend", "pool", "list", "--long"])?;
            let pools = pools.as_array().cloned().unwrap_or_default();
            let ours =
                pools.iter().find(|p| p.to_string().contains("cairn@ceph#ceph")).context("it has no pool")?;
            eprintln!("       {ours}");
            Ok(())
        })
    }

    fn cairn(&self, words: &[&str]) -> Result<String> {
        exec::output(self.node.command("cairn")?.args(words))
    }

    fn add(&self, key: &str) -> Result<()> {
        let file = "/run/ceph.key";
        let mut writer = self.node.command("sh")?;
        let mut child =
            writer.args(["-c", "umask 077; cat > /run/ceph.key"]).stdin(Stdio::piped()).spawn()?;
        child
            .stdin
            .take()
            .context("no input")?
            .write_all(format!("[client.{USER}]\n\tkey = {key}\n").as_bytes())?;
        ensure!(child.wait()?.success(), "the key's file was not written");
        let monitor = self.ceph.monitor();
        let words = [
            "backend",
            "add",
            BACKEND,
            "--monitors",
            monitor,
            "--pool",
            POOL,
            "--user",
            USER,
            "--key-file",
            file,
        ];
        let added = self.cairn(&words).map(drop);
        exec::run(self.node.command("rm")?.arg(file))?;
        added
    }

    fn wrong_key(&self) -> Result<()> {
        let mut wrong = self.ceph.key()?;
        let middle = wrong.len() / 2;
        wrong.replace_range(middle..middle + 4, "AAAA");
        ensure!(self.add(&wrong).is_err(), "a wrong key was taken");
        let list = self.cairn(&["backend", "list", "--json"])?;
        ensure!(list.trim() == "[]", "something was kept: {list}");
        Ok(())
    }

    /// The key is in one file, which only the storage process can read, and in no log.
    fn secret(&self) -> Result<()> {
        let key = self.ceph.key()?;
        // Told by the environment, so that this is not found itself.
        let script = "umask 077; printenv KEY > /run/pattern; grep -rlF -f /run/pattern /run/cairn /var/log \
             /proc/[0-9]*/cmdline 2>/dev/null; rm /run/pattern; stat -c '%a %U %n' /run/cairn/storage/ceph/*/keyring";
        let found = exec::output(self.node.command("sh")?.args(["-c", script]).env("KEY", key))?;
        let found: Vec<&str> = found.lines().collect();
        let file = "/run/cairn/storage/ceph/ceph/keyring";
        ensure!(found == [file, &format!("600 cairn-storage {file}")], "the key is in {found:?}");
        Ok(())
    }

    fn until(&self, what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
        let since = Instant::now();
        while !is_so()? {
            if since.elapsed() > MAX {
                bail!("{what}: not within {MAX:?}");
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        Ok(())
    }

    fn available(&self, volume: &str) -> Result<()> {
        self.client.wait_field(&["volume", "show", volume], "status", "available", MAX)
    }

    fn create(&self, name: &str, more: &[&str]) -> Result<()> {
        self.client.run(&[&["volume", "create", "--type", BACKEND], more, &[name]].concat())?;
        self.available(name)
    }

    fn attach(&self, scene: &Scene, volume: &str) -> Result<()> {
        self.client.run(&["server", "add", "volume", names::SERVER_A, volume])?;
        self.client.wait_field(&["volume", "show", volume], "status", "in-use", MAX)?;
        let there = "for i in $(seq 60); do [ -b /dev/vdb ] && exit 0; sleep 1; done; exit 1";
        scene.login_to(names::SERVER_A)?.run(there).map(drop)
    }

    fn detach(&self, volume: &str) -> Result<()> {
        self.client.run(&["server", "remove", "volume", names::SERVER_A, volume])?;
        self.available(volume)
    }

    /// All that is done with volumes.
    pub fn volumes(&self, scene: &mut Scene) -> Result<()> {
        step("a guest", || {
            scene.image()?;
            scene.networks()?;
            scene.rules_and_key()?;
            scene.server(names::SERVER_A)?;
            scene.floating_ip(names::SERVER_A)?;
            scene.login(names::SERVER_A)
        })?;
        step("a volume in the cluster", || {
            self.create(VOLUME, &["--size", "1"])?;
            let id = self.client.field(&["volume", "show", VOLUME], "id")?;
            ensure!(self.ceph.images()?.contains(&id), "it is not in the pool");
            Ok(())
        })?;
        let login = scene.login_to(names::SERVER_A)?;
        let written = step("attached, with a file on it", || {
            self.attach(scene, VOLUME)?;
            login.run(
                "mkfs.ext4 -q -F /dev/vdb && mkdir -p /mnt/v && mount -t ext4 /dev/vdb /mnt/v && \
                 dd if=/dev/urandom of=/mnt/v/file bs=65536 count=256 2>/dev/null && sync && sha256sum /mnt/v/file",
            )
        })?;
        step("a snapshot of it in use", || {
            let create = [
                "--os-volume-api-version",
                "3.66",
                "volume",
                "snapshot",
                "create",
                "--volume",
                VOLUME,
                SNAPSHOT,
            ];
            self.client.run(&create)?;
            self.client.wait_field(&["volume", "snapshot", "show", SNAPSHOT], "status", "available", MAX)
        })?;
        step("it grows in use", || {
            self.client.run(&["--os-volume-api-version", "3.42", "volume", "set", "--size", "2", VOLUME])?;
            self.client.wait_field(&["volume", "show", VOLUME], "status", "in-use", MAX)
        })?;
        step("what serves it is killed under writes, three times", || self.killed(scene))?;
        step("the cluster is silent for a while", || self.silence(scene))?;
        step("the file is there, and the guest saw no error", || {
            let read =
                login.run("echo 3 > /proc/sys/vm/drop_caches; sha256sum /mnt/v/file; umount /mnt/v")?;
            ensure!(read == written, "wrote {written:?}, read {read:?}");
            login.no_io_errors()?;
            self.detach(VOLUME)
        })?;
        // By NBD, as emulated guests have their disks, they see that one has grown only when they get it again.
        step("it has its new size, and the same content", || {
            self.attach(scene, VOLUME)?;
            let seen = login.run("cat /sys/block/vdb/size; mount -t ext4 /dev/vdb /mnt/v && sha256sum /mnt/v/file; umount /mnt/v")?;
            ensure!(seen == format!("{}\n{written}", (2u64 << 30) / 512), "the guest sees {seen:?}");
            self.detach(VOLUME)
        })?;
        self.made_of_it(scene, &written)
    }

    /// What is made of a volume with this written to it.
    fn made_of_it(&self, scene: &Scene, written: &str) -> Result<()> {
        let login = scene.login_to(names::SERVER_A)?;
        step("a volume of the snapshot has what was written", || {
            let snapshot = self.client.field(&["volume", "snapshot", "show", SNAPSHOT], "id")?;
            self.create(OTHERS[0], &["--snapshot", &snapshot])?;
            self.attach(scene, OTHERS[0])?;
            let read = login.run("mount -t ext4 /dev/vdb /mnt/v && sha256sum /mnt/v/file; umount /mnt/v")?;
            ensure!(read == written, "wrote {written:?}, read {read:?}");
            self.detach(OTHERS[0])
        })?;
        step("a volume of a volume, one of an image", || {
            self.create(OTHERS[1], &["--source", VOLUME])?;
            self.create(OTHERS[2], &["--image", names::IMAGE, "--size", "1"])
        })?;
        step("an image of a volume", || {
            self.client.run(&["image", "create", "--volume", OTHERS[2], CAPTURED])?;
            self.client.wait_field(&["image", "show", CAPTURED], "status", "active", MAX)
        })?;
        step("what it cannot do is refused", || {
            let said = self.client.refused(&["volume", "backup", "create", OTHERS[1]])?;
            ensure!(said.contains("not supported by its backend"), "{said}");
            ensure!(
                self.cairn(&["backend", "remove", BACKEND]).is_err(),
                "a backend with volumes was removed"
            );
            Ok(())
        })
    }

    fn killed(&self, scene: &Scene) -> Result<()> {
        let login = scene.login_to(names::SERVER_A)?;
        let mut writes = login.spawn(
            "for i in $(seq 1 40); do dd if=/dev/urandom of=/mnt/v/b$i bs=65536 count=16 conv=fsync 2>/dev/null || exit 1; \
             sha256sum /mnt/v/b$i; done > /mnt/v/sums && sync && echo 3 > /proc/sys/vm/drop_caches && cd / && \
             sha256sum -c /mnt/v/sums > /dev/null",
        )?;
        for _ in 0..3 {
            std::thread::sleep(Duration::from_secs(3));
            let kill = "for p in /proc/[0-9]*; do grep -q ^/\\*qemu-nbd $p/cmdline 2>/dev/null && kill -9 ${p#/proc/}; done; true";
            exec::run(self.node.command("sh")?.args(["-c", kill]))?;
        }
        ensure!(writes.wait()?.success(), "a write failed, or what was flushed is not there");
        login.no_io_errors()
    }

    /// A guest's write and a volume that is asked for wait for the cluster, and are done by themselves.
    fn silence(&self, scene: &Scene) -> Result<()> {
        let login = scene.login_to(names::SERVER_A)?;
        self.ceph.freeze(true)?;
        let asked = (|| {
            let write =
                login.spawn("dd if=/dev/urandom of=/mnt/v/late bs=65536 count=64 conv=fsync 2>/dev/null")?;
            self.client.run(&["volume", "create", "--type", BACKEND, "--size", "1", OTHERS[3]])?;
            std::thread::sleep(SILENCE);
            let status = self.client.field(&["volume", "show", OTHERS[3]], "status")?;
            ensure!(status == "creating", "it is {status} without a cluster");
            let list = self.cairn(&["backend", "list"])?;
            // In our words, or in those of Ceph's programs.
            let is_told = ["does not answer", "failed to fetch mon config"].iter().any(|w| list.contains(w));
            ensure!(is_told, "nobody says that the cluster is silent: {list}");
            Ok(write)
        })();
        self.ceph.freeze(false)?;
        ensure!(asked?.wait()?.success(), "a write failed");
        self.available(OTHERS[3])
    }

    /// Deletes all, newest first, and sees that the pool is empty.
    pub fn clear(&self, scene: &mut Scene) -> Result<()> {
        let there = self.client.json(&["volume", "list"])?.to_string();
        if there.contains("in-use") {
            let _ = self.client.run(&["server", "remove", "volume", names::SERVER_A, VOLUME]);
            let _ = self.client.run(&["server", "remove", "volume", names::SERVER_A, OTHERS[0]]);
            std::thread::sleep(Duration::from_secs(10));
        }
        // Its snapshot ends last: the volume that is in it has children by then.
        let snapshots = self.client.json(&["volume", "snapshot", "list"])?.to_string();
        if snapshots.contains(SNAPSHOT) {
            self.client.run(&["volume", "snapshot", "delete", SNAPSHOT])?;
            self.until("the snapshot's end", || {
                Ok(!self.client.json(&["volume", "snapshot", "list"])?.to_string().contains(SNAPSHOT))
            })?;
        }
        for volume in [VOLUME].iter().chain(&OTHERS).filter(|v| there.contains(**v)) {
            self.client.run(&["volume", "delete", volume])?;
        }
        if self.client.json(&["image", "list"])?.to_string().contains(CAPTURED) {
            self.client.run(&["image", "delete", CAPTURED])?;
        }
        self.until("the volumes' end", || {
            Ok(!self.client.json(&["volume", "list"])?.to_string().contains("ceph-"))
        })?;
        let mut left = String::new();
        let emptied = self.until("an empty pool", || {
            left = self.ceph.images()?;
            Ok(left.trim().is_empty())
        });
        emptied.with_context(|| format!("left in the pool: {left}"))?;
        scene.tear_down()?;
        if self.client.json(&["volume", "type", "list"])?.to_string().contains(BACKEND) {
            self.client.run(&["volume", "type", "delete", BACKEND])?;
        }
        if self.cairn(&["backend", "list"])?.contains(POOL) {
            self.cairn(&["backend", "remove", BACKEND])?;
        }
        Ok(())
    }
}
