//! One emulated node on the LAN of its instance: what `cargo up` runs, and every test or bench that wants a cloud to
//! itself.
//!
//! Several instances can run side by side, each with its own name, LAN and folder. It removes nothing but what is in
//! that folder's `nodeN` and `lan`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cloud::{self, Console};
use crate::exec;
use crate::lan::Lan;
use crate::stage::say;
use crate::vm::{Disk, Medium, Nic, Vm, VmOptions};

/// How many data disks a node has if nothing else is said, and their size.
pub const DISKS: u32 = 2;
/// The size of each, in GiB (sparse).
pub const DISK_GIB: u64 = 20;
/// Its memory, in MiB.
pub const MEMORY_MIB: u32 = 4096;
/// Its processors.
pub const CPUS: u32 = 2;
/// How long the machine may take to go off when its power button is pressed.
const POWER_DOWN_MAX: Duration = Duration::from_secs(90);

/// A node of an instance; it may be running or not.
pub struct EmulatedNode {
    number: u8,
    dir: PathBuf,
    lan: Lan,
}

impl EmulatedNode {
    /// The first node of an instance, whose LAN begins with `prefix` (see [`Lan::new`]). All it has is kept in `dir`.
    pub fn new(instance: &str, prefix: &str, dir: &Path) -> Self {
        Self::numbered(instance, prefix, dir, 1)
    }

    /// The node of this number, counted from 1.
    pub fn numbered(instance: &str, prefix: &str, dir: &Path, number: u8) -> Self {
        let lan = Lan::new(instance, prefix, &dir.join("lan"));
        Self { number, dir: dir.join(format!("node{number}")), lan }
    }

    /// Which of its instance's nodes it is, counted from 1.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// Its name within its LAN, which is its tap's and its folder's.
    pub fn name(&self) -> String {
        format!("node{}", self.number)
    }

    /// Its own folder: disks, logs, access files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its machine, if an earlier run started it and it is still on.
    pub fn attach(&self) -> Option<Vm> {
        Vm::attach(&self.dir)
    }

    /// The usual machine, on its LAN, that starts from this image.
    pub fn options(&self, iso: PathBuf) -> VmOptions {
        VmOptions {
            dir: self.dir.clone(),
            iso,
            medium: Medium::Disk,
            disks: data_disks(DISKS, DISK_GIB),
            nics: vec![Nic { tap: self.name(), mac: format!("52:54:00:ca:12:{:02x}", self.number) }],
            namespace: Some(self.lan.namespace().to_owned()),
            memory_mib: MEMORY_MIB,
            cpus: CPUS,
            kernel_args: String::new(),
            clock: None,
        }
    }

    /// Makes the LAN, or what is missing of it; the machine needs it.
    pub fn make_lan(&self) -> Result<()> {
        self.lan.up()?;
        self.lan.plug_tap(&self.name())?;
        self.lan.serve_dhcp()
    }

    /// Whether its API is ready, given what its console shows: the address is there, the CA certificate is the one the
    /// console vouches for, and identity answers under it. Leaves the access files in the node's folder; the error says
    /// what is missing yet.
    pub fn check_api(&self, screen: &str) -> Result<()> {
        let console =
            Console::parse(screen).context("the node has not shown its address on the console yet")?;
        let fetched = self.dir.join("ca.fetched.pem");
        let url = format!("{}/ca.pem", console.url);
        exec::run(exec::command("curl", ["-sSfk", "--max-time", "5", "-o"]).arg(&fetched).arg(url))?;
        cloud::write_access(&self.dir, screen, &fetched, self.lan.prefix())?;
        fs::remove_file(&fetched)?;
        self.check_identity(&console.url)
    }

    /// Whether identity answers at this address, under the CA of the access files in this node's folder.
    pub fn check_identity(&self, url: &str) -> Result<()> {
        let (identity, ca) = (format!("{url}/identity/v3"), self.dir.join("ca.pem"));
        exec::run(exec::command("curl", ["-sSf", "--max-time", "10", "--cacert"]).arg(ca).arg(identity))
    }

    /// Presses the power button if the machine is on, and waits.
    pub fn switch_off(&self) -> Result<()> {
        if let Some(mut vm) = self.attach() {
            say(&format!("switching {} off", self.name()));
            if !vm.powerdown(POWER_DOWN_MAX)? {
                say(&format!("{} did not go off by itself: its power was cut", self.name()));
            }
        }
        Ok(())
    }

    /// Cuts the machine's power if it is on, and removes its folder: disks, keys, logs. The LAN stays.
    pub fn forget(&self) -> Result<()> {
        if let Some(mut vm) = self.attach() {
            vm.kill()?;
        }
        remove(&self.dir)
    }

    /// Removes the node with its LAN.
    pub fn clean(&self) -> Result<()> {
        self.forget()?;
        self.remove_lan()
    }

    /// Takes the LAN down; its files stay.
    pub fn lan_down(&self) -> Result<()> {
        self.lan.down()
    }

    /// Takes the LAN down, and removes its files.
    pub fn remove_lan(&self) -> Result<()> {
        self.lan.down()?;
        remove(self.lan.dir())
    }
}

/// Empty disks for a machine: `data1` and on.
pub fn data_disks(count: u32, gib: u64) -> Vec<Disk> {
    (1..=count).map(|n| Disk { name: format!("data{n}"), gib }).collect()
}

fn remove(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    Ok(())
}
