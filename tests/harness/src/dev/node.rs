//! One development node as its starter sees it: its folder, namespaces, processes, and how to reach in.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use image_builder::lan::Lan;
use image_builder::process::Known;
use image_builder::{Paths, exec};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::disks;

/// The first bytes of the development LAN's addresses.
const LAN_PREFIX: &str = "10.214.0";
/// The first node's own address there; the others' follow.
const FIRST_ADDRESS: u8 = 11;
/// How long a node may take to stop.
const STOP_MAX: Duration = Duration::from_secs(40);

/// A development node; it may be running or not.
pub struct Node {
    name: String,
    number: u8,
    dir: PathBuf,
    shown_dir: PathBuf,
    root: PathBuf,
    lan: Lan,
}

impl Node {
    /// The first node of this instance.
    pub fn new(paths: &Paths, instance: &str) -> Node {
        Node::numbered(paths, instance, 1)
    }

    /// A node of this instance, counted from 1. The first one's folder is the instance's own, the others' are in it.
    pub fn numbered(paths: &Paths, instance: &str, number: u8) -> Node {
        let shared = paths.workspace().join("target").join(instance);
        let lan = Lan::new(instance, LAN_PREFIX, &shared);
        Node {
            name: format!("cairn-{instance}-n{number}"),
            number,
            shown_dir: paths.cloud(),
            dir: if number == 1 { shared } else { shared.join(format!("n{number}")) },
            root: paths.root_tree(),
            lan,
        }
    }

    /// Its number among the nodes of its instance, from 1.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// Its folder: disks, logs, `openrc` (which is left in `target/cloud` too, for a person).
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its address.
    pub fn address(&self) -> String {
        self.lan.address(FIRST_ADDRESS + self.number - 1)
    }

    /// The address of the host's end of the LAN.
    pub fn gateway(&self) -> String {
        self.lan.address(1)
    }

    /// Starts the node's init; does nothing if it runs already.
    pub fn start(&self, binary: &Path) -> Result<()> {
        if self.init_pid().is_some() {
            return Ok(());
        }
        self.link()?;
        let logs = self.dir.join("log");
        let previous = self.dir.join("log.previous");
        if previous.exists() {
            fs::remove_dir_all(&previous)?;
        }
        if logs.exists() {
            fs::rename(&logs, &previous).context("keeping the logs of the last run")?;
        }
        fs::create_dir_all(&logs)?;
        let tree = self.own_tree()?;
        let disks = disks::attach(&self.dir)?;
        let disks: Vec<String> = disks.iter().map(|d| d.display().to_string()).collect();
        let log = fs::File::create(self.dir.join("log/init.log"))?;
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name));
        command.args(["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child"]);
        command.arg(std::env::current_exe()?).arg("node-init");
        command.arg("--root").arg(&tree).arg("--dir").arg(&self.dir);
        command.arg("--cairn").arg(binary).arg("--disks").arg(disks.join(","));
        // A process group of its own: Ctrl-C reaches us, and we stop the node in order.
        command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("cannot start the node's init")?;
        Known::started(child.id()).context("no node")?.save(&self.unshare_file())
    }

    /// The root tree as it is now, by hard links: the original may be built anew while the node runs.
    fn own_tree(&self) -> Result<PathBuf> {
        let tree = self.dir.join("tree");
        if tree.exists() {
            fs::remove_dir_all(&tree)?;
        }
        exec::run(Command::new("cp").arg("-al").arg(&self.root).arg(&tree))?;
        Ok(tree)
    }

    /// The node's namespace on the LAN, with `lan0` as on the appliance.
    fn link(&self) -> Result<()> {
        self.lan.up()?;
        if !Path::new("/run/netns").join(&self.name).exists() {
            ip(&["netns", "add", &self.name])?;
        }
        let inside = |args: &[&str]| ip(&[&["-netns", &self.name], args].concat());
        inside(&["link", "set", "lo", "up"])?;
        self.lan.plug_namespace(&self.name, "eth0")?;
        if inside(&["link", "show", "lan0"]).is_err() {
            inside(&["link", "add", "lan0", "type", "bridge", "forward_delay", "0"])?;
        }
        inside(&["link", "set", "eth0", "master", "lan0"])?;
        // Its own, as on the appliance: else it is the lowest of its ports', changes as routers come and go, and the
        // LAN knows the old one for another minute.
        inside(&["link", "set", "lan0", "address", &self.mac("eth0")?])?;
        inside(&["address", "replace", &format!("{}/24", self.address()), "dev", "lan0"])?;
        inside(&["link", "set", "lan0", "up"])?;
        inside(&["route", "replace", "default", "via", &self.lan.address(1)])
    }

    /// The MAC address of a link in the node's namespace.
    fn mac(&self, link: &str) -> Result<String> {
        let mut show = Command::new("ip");
        let shown = exec::output(show.args(["-netns", &self.name, "-oneline", "link", "show", link]))?;
        let mac = shown.split_whitespace().skip_while(|word| *word != "link/ether").nth(1);
        mac.map(str::to_owned).with_context(|| format!("{link} has no MAC address: {shown}"))
    }

    /// The process that waits for the node's init, if it still runs.
    fn unshare_pid(&self) -> Option<i32> {
        Known::load(&self.unshare_file()).map(|process| process.pid())
    }

    fn unshare_file(&self) -> PathBuf {
        self.dir.join("unshare.json")
    }

    /// The node's PID 1, as the host numbers it.
    pub fn init_pid(&self) -> Option<i32> {
        let unshare = self.unshare_pid()?;
        let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    /// If the node's init has ended: the last it said.
    pub fn ended(&self) -> Option<String> {
        if self.unshare_pid().is_some() {
            return None;
        }
        let log = fs::read_to_string(self.dir.join("log/init.log")).unwrap_or_default();
        Some(log.lines().last().unwrap_or("it said nothing").to_owned())
    }

    /// Whether the API answers.
    pub fn answers(&self) -> bool {
        let url = format!("https://{}/identity/v3", self.address());
        exec::succeeds(
            exec::command("curl", ["--silent", "--fail", "--insecure", "--max-time", "3", &url])
                .arg("--output")
                .arg("/dev/null"),
        )
    }

    /// What the console shows.
    pub fn screen(&self) -> Result<String> {
        let file = self.dir.join("log/screen");
        fs::read_to_string(file).with_context(|| format!("the screen of {} is dark", self.name))
    }

    /// Writes the access files from what consoles show, this node's last. The secret is shown on the first start only,
    /// by the node that founded the cloud; later ones keep the files of the first.
    pub fn write_access(&self, screens: &str) -> Result<()> {
        let ca = self.dir.join("ca.fetched.pem");
        let url = format!("https://{}/ca.pem", self.address());
        exec::run(
            exec::command("curl", ["--silent", "--fail", "--insecure", "--max-time", "10", &url])
                .arg("--output")
                .arg(&ca),
        )?;
        image_builder::cloud::write_access(&self.dir, screens, &ca, self.lan.prefix())?;
        image_builder::cloud::show_access(&self.dir, &self.shown_dir)
    }

    /// A program run within the node.
    pub fn command(&self, program: &str) -> Result<Command> {
        let Some(pid) = self.init_pid() else { bail!("the node {} does not run", self.name) };
        let mut command = Command::new("nsenter");
        command.args([
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
            "--target",
            &pid.to_string(),
            "--",
            program,
        ]);
        command.env("PATH", super::root::PATH);
        Ok(command)
    }

    /// Sends a signal to a role's process (or `libvirtd`).
    pub fn signal(&self, service: &str, signal: Signal) -> Result<()> {
        let script = format!("kill -{} $(cat /run/init/{service}.pid)", signal as i32);
        exec::run(self.command("sh")?.args(["-c", &script]))
    }

    /// What `cairn status` says there.
    pub fn status(&self) -> Result<String> {
        exec::output(self.command("cairn")?.arg("status"))
    }

    /// Ends every process of the node at once, as a power cut does. The disks keep what had reached them.
    pub fn power_cut(&self) -> Result<()> {
        if let Some(pid) = self.init_pid() {
            kill(Pid::from_raw(pid), Signal::SIGKILL)?;
        }
        self.wait_gone()
    }

    /// Cuts the node's cable to the LAN, or mends it.
    pub fn set_cable(&self, whole: bool) -> Result<()> {
        self.lan.set_port(&self.name, whole)
    }

    /// Stops the node and takes down its namespaces, and the LAN after the last one; its disks stay.
    pub fn stop(&self) -> Result<()> {
        if let Some(pid) = self.init_pid() {
            kill(Pid::from_raw(pid), Signal::SIGTERM)?;
        }
        self.wait_gone()?;
        disks::detach(&self.dir)?;
        self.lan.unplug_namespace(&self.name)?;
        if Path::new("/run/netns").join(&self.name).exists() {
            ip(&["netns", "delete", &self.name])?;
        }
        if self.lan.in_use() { Ok(()) } else { self.lan.down() }
    }

    fn wait_gone(&self) -> Result<()> {
        let since = Instant::now();
        while self.ended().is_none() {
            if since.elapsed() > STOP_MAX {
                let Some(pid) = self.init_pid() else { continue };
                kill(Pid::from_raw(pid), Signal::SIGKILL)?;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = fs::remove_file(self.unshare_file());
        Ok(())
    }

    /// Removes what a stopped node had.
    pub fn clean(&self) -> Result<()> {
        image_builder::cloud::hide_access(&self.dir, &self.shown_dir)?;
        if self.dir.exists() {
            fs::remove_dir_all(&self.dir).with_context(|| format!("cannot remove {}", self.dir.display()))?;
        }
        Ok(())
    }

    /// What to tell the person.
    pub fn greeting(&self) -> String {
        image_builder::cloud::greeting(&self.dir)
    }
}

fn ip(args: &[&str]) -> Result<()> {
    exec::run(Command::new("ip").args(args))
}
