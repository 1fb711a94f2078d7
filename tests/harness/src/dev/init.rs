//! PID 1 of a development node: enters the image's root tree, then starts and minds the node's processes as systemd
//! does on the appliance: ready, watchdog, restart.
//!
//! It runs in mount, UTS, IPC, PID and network namespaces made for it, so that nothing outlives it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use image_builder::exec;
use image_builder::interrupt::Interrupt;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use super::root;
use super::unit::Unit;

/// What the init of a node is told.
#[derive(Args)]
pub struct Options {
    /// The image's root tree.
    #[arg(long)]
    pub root: PathBuf,
    /// The node's folder: logs, caches.
    #[arg(long)]
    pub dir: PathBuf,
    /// The binary under test.
    #[arg(long)]
    pub cairn: PathBuf,
    /// The data disks.
    #[arg(long, value_delimiter = ',')]
    pub disks: Vec<PathBuf>,
}

/// How long a role may take to say that it is ready.
const READY_MAX: Duration = Duration::from_secs(60);
/// How long a role may be silent before it is killed, as in the appliance's units.
const WATCHDOG: Duration = Duration::from_secs(30);
/// How long after its end a process is started again.
const RESTART: Duration = Duration::from_millis(200);

struct Service {
    name: &'static str,
    command: Vec<String>,
    notifies: bool,
    child: Option<Child>,
    heard: Instant,
    down_since: Option<Instant>,
}

impl Service {
    fn new(name: &'static str, command: Vec<String>, notifies: bool) -> Service {
        Service { name, command, notifies, child: None, heard: Instant::now(), down_since: None }
    }

    fn start(&mut self) -> Result<()> {
        let log =
            fs::OpenOptions::new().create(true).append(true).open(format!("/var/log/{}.log", self.name))?;
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.env_clear().env("PATH", root::PATH).env("LC_ALL", "C.UTF-8");
        if self.notifies {
            command.env("NOTIFY_SOCKET", socket(self.name));
            command.env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
        }
        let child = command.spawn().with_context(|| format!("cannot start {}", self.name))?;
        fs::write(format!("/run/init/{}.pid", self.name), child.id().to_string())?;
        self.child = Some(child);
        self.heard = Instant::now();
        self.down_since = None;
        Ok(())
    }
}

fn socket(name: &str) -> String {
    format!("/run/init/{name}.notify")
}

/// Runs the node until it is told to stop.
pub fn run(options: &Options) -> Result<()> {
    root::enter(options)?;
    let only = options.disks.iter().flat_map(|d| ["--only".to_owned(), d.display().to_string()]);
    exec::run(Command::new("cairn").arg("disks").arg("--no-wait").args(only))
        .context("preparing the disks")?;
    exec::run(Command::new("systemd-tmpfiles").args(["--create", "cairn.conf", "libvirt-cairn.conf"]))?;
    let mut services = services()?;
    let sockets = notify_sockets(&services)?;
    // PID 1 of a namespace gets no signal that it has no handler for.
    let stop = Interrupt::listen()?;
    for service in &mut services {
        service.start()?;
        wait_ready(service, &sockets)?;
    }
    fs::write("/run/init/up", "")?;
    while !stop.seen() {
        mind(&mut services, &sockets)?;
        std::thread::sleep(Duration::from_millis(50));
    }
    stop_all(&mut services);
    Ok(())
}

fn services() -> Result<Vec<Service>> {
    let program = |name: &'static str| Service::new(name, vec![name.to_owned()], false);
    let role = |name: &'static str, more: &[&str]| {
        Ok::<_, anyhow::Error>(Service::new(name, Unit::read(&format!("cairn-{name}"))?.command(more), true))
    };
    Ok(vec![
        program("virtlogd"),
        program("libvirtd"),
        role("node", &["--screen", "/var/log/screen"])?,
        role("controller", &[])?,
        role("storage", &[])?,
        role("network", &[])?,
        role("compute", &[])?,
    ])
}

fn notify_sockets(services: &[Service]) -> Result<BTreeMap<&'static str, UnixDatagram>> {
    fs::create_dir_all("/run/init")?;
    let mut sockets = BTreeMap::new();
    for service in services.iter().filter(|s| s.notifies) {
        let path = socket(service.name);
        let socket = UnixDatagram::bind(&path)?;
        // Roles run as users of their own.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
        socket.set_nonblocking(true)?;
        sockets.insert(service.name, socket);
    }
    Ok(sockets)
}

/// Whether the service said READY since last asked; notes that it lives.
fn heard_ready(service: &mut Service, sockets: &BTreeMap<&'static str, UnixDatagram>) -> bool {
    let mut ready = false;
    let mut buffer = [0u8; 512];
    if let Some(socket) = sockets.get(service.name) {
        while let Ok(n) = socket.recv(&mut buffer) {
            service.heard = Instant::now();
            ready |= buffer[..n].starts_with(b"READY=1");
        }
    }
    ready
}

fn wait_ready(service: &mut Service, sockets: &BTreeMap<&'static str, UnixDatagram>) -> Result<()> {
    let since = Instant::now();
    while service.notifies && !heard_ready(service, sockets) {
        if let Some(child) = &mut service.child
            && let Some(status) = child.try_wait()?
        {
            bail!("{} ended at once ({status}); see its log", service.name);
        }
        if since.elapsed() > READY_MAX {
            bail!("{} did not get ready in {} s; see its log", service.name, READY_MAX.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// One look at every service: restarts what ended, kills what went silent. Reaps orphans, as PID 1 must.
fn mind(services: &mut [Service], sockets: &BTreeMap<&'static str, UnixDatagram>) -> Result<()> {
    for service in services.iter_mut() {
        heard_ready(service, sockets);
        if let Some(child) = &mut service.child {
            if child.try_wait()?.is_some() {
                service.child = None;
                service.down_since = Some(Instant::now());
            } else if service.notifies && service.heard.elapsed() > WATCHDOG {
                child.kill()?;
            }
        } else if service.down_since.is_none_or(|since| since.elapsed() > RESTART) {
            service.start()?;
        }
    }
    reap_orphans(services)
}

/// Waits for children that are not services (guests whose parent is gone, and the like).
fn reap_orphans(services: &[Service]) -> Result<()> {
    let ours: Vec<u32> = services.iter().filter_map(|s| s.child.as_ref().map(Child::id)).collect();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let zombie_of_init = stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" Z 1 "));
        if zombie_of_init && !ours.contains(&pid.unsigned_abs()) {
            // Not yet, if another of its threads still runs: then at the next look.
            let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
        }
    }
    Ok(())
}

fn stop_all(services: &mut [Service]) {
    for service in services.iter_mut().rev() {
        let Some(child) = &mut service.child else { continue };
        let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
        let since = Instant::now();
        while matches!(child.try_wait(), Ok(None)) && since.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
