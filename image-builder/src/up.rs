//! `cargo up`: a whole cloud of one node on this machine, from the sources to an API that answers.
//!
//! Builds what is missing, starts the ISO in an emulated machine on a LAN of its own, waits for the API and writes
//! how to reach it into `target/cloud`. Stops only what an earlier run of it started, found by that folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{SigSet, Signal};

use crate::cloud::{self, Console};
use crate::exec;
use crate::guests;
use crate::host;
use crate::iso;
use crate::lan::Lan;
use crate::paths::{Paths, ensure_dir};
use crate::stage::{Stages, Step, say};
use crate::vm::{Disk, Medium, Nic, Vm, VmOptions};

/// The instance's name and the first three bytes of its LAN.
const INSTANCE: &str = "up";
const PREFIX: &str = "10.213.0";
const TAP: &str = "node1";

/// What cloud to start.
#[derive(Clone, Debug)]
pub struct UpOptions {
    /// Leave it running and return, instead of waiting for Ctrl-C.
    pub detach: bool,
    /// How the machine sees the ISO.
    pub medium: Medium,
    /// How many empty data disks it has, and their size.
    pub disks: u32,
    /// The size of each disk that has to be made.
    pub disk_gib: u64,
    /// Its memory.
    pub memory_mib: u32,
    /// Its processors.
    pub cpus: u32,
    /// Added to the kernel's command line.
    pub kernel_args: String,
    /// This binary instead of compiling the workspace's.
    pub cairn: Option<PathBuf>,
    /// How long to wait for the API.
    pub limit: Duration,
}

/// Builds, starts, waits, tells; then stays until Ctrl-C unless it is to be detached.
pub fn up(paths: &Paths, options: &UpOptions) -> Result<()> {
    let interrupt = Interrupt::listen()?;
    let dir = ensure_dir(paths.cloud())?;
    let mut vm = match Vm::attach(&machine(&dir)) {
        Some(vm) => {
            say(
                "the cloud of an earlier `cargo up` still runs and is used as it is (`cargo up --stop` ends it)",
            );
            vm
        }
        None => build_and_start(paths, options, &dir)?,
    };
    let step = Step::begin("wait for the API", paths.image().join("log"));
    let reached = wait_for_api(&mut vm, &dir, options.limit, &step, &interrupt);
    step.end(&reached);
    if interrupt.seen() {
        return stop(paths);
    }
    reached.context("the machine is left as it is, to be looked at (`cargo up --stop` ends it)")?;
    say(&cloud::greeting(&dir));
    if options.detach {
        say("It stays up: `cargo up --stop` ends it, `cargo up --clean` forgets it with all its disks.");
        return Ok(());
    }
    say("Ctrl-C ends it (its disks stay: the next `cargo up` brings the same cloud back).");
    while vm.running() && !interrupt.seen() {
        sleep(Duration::from_millis(200));
    }
    stop(paths)
}

/// Starts the machine from the ISO that was built before, and waits for its API. For who builds in stages of his own.
pub fn boot(paths: &Paths, options: &UpOptions) -> Result<()> {
    let interrupt = Interrupt::listen()?;
    let dir = ensure_dir(paths.cloud())?;
    let mut vm = match Vm::attach(&machine(&dir)) {
        Some(vm) => vm,
        None => start(paths, options, &dir, paths.iso())?,
    };
    let step = Step::begin("wait for the API", paths.image().join("log"));
    let reached = wait_for_api(&mut vm, &dir, options.limit, &step, &interrupt);
    step.end(&reached);
    reached
}

/// Presses the power button of a running cloud's machine, and takes its LAN down.
pub fn stop(paths: &Paths) -> Result<()> {
    let dir = paths.cloud();
    if let Some(mut vm) = Vm::attach(&machine(&dir)) {
        say("switching the machine off");
        if !vm.powerdown(Duration::from_secs(90))? {
            say("it did not go off by itself within 90 s: its power was cut");
        }
    }
    lan(&dir).down()
}

/// Stops the cloud and removes all that is left of it: disks, keys, logs.
pub fn clean(paths: &Paths) -> Result<()> {
    if let Some(mut vm) = Vm::attach(&machine(&paths.cloud())) {
        vm.kill()?;
    }
    stop(paths)?;
    if paths.cloud().exists() {
        fs::remove_dir_all(paths.cloud()).context("cannot remove target/cloud")?;
    }
    Ok(())
}

fn build_and_start(paths: &Paths, options: &UpOptions, dir: &Path) -> Result<Vm> {
    let mut stages = Stages::start(paths)?;
    let built = build(&mut stages, options);
    let vm = built.and_then(|image| stages.run("start the machine", |_| start(paths, options, dir, image)));
    say(&stages.summary());
    vm
}

fn build(stages: &mut Stages, options: &UpOptions) -> Result<PathBuf> {
    host::setup(stages)?;
    let cairn = match &options.cairn {
        Some(binary) => binary.clone(),
        None => iso::compile(stages)?,
    };
    let image = iso::build(stages, &cairn)?;
    guests::tiny::build(stages)?;
    guests::debian::build(stages)?;
    Ok(image)
}

fn start(paths: &Paths, options: &UpOptions, dir: &Path, image: PathBuf) -> Result<Vm> {
    let lan = lan(dir);
    lan.up()?;
    lan.plug_tap(TAP)?;
    lan.serve_dhcp()?;
    let disks =
        (1..=options.disks).map(|n| Disk { name: format!("data{n}"), gib: options.disk_gib }).collect();
    let nic = Nic { tap: TAP.to_owned(), mac: "52:54:00:ca:12:01".to_owned() };
    Vm::boot(
        paths,
        &VmOptions {
            dir: machine(dir),
            iso: image,
            medium: options.medium,
            disks,
            nics: vec![nic],
            namespace: Some(lan.namespace().to_owned()),
            memory_mib: options.memory_mib,
            cpus: options.cpus,
            kernel_args: options.kernel_args.clone(),
        },
    )
}

/// Waits until the node shows its address and its API answers there; writes the access files.
fn wait_for_api(vm: &mut Vm, dir: &Path, limit: Duration, step: &Step, interrupt: &Interrupt) -> Result<()> {
    let from = Instant::now();
    let mut wrong = "the node has not shown its address on the console yet".to_owned();
    loop {
        let screen = vm.serial_log()?;
        if let Some(console) = Console::parse(&screen) {
            match write_access(&console, &screen, dir) {
                Ok(()) => return Ok(()),
                Err(error) => wrong = format!("{error:#}"),
            }
        }
        step.note(&wrong);
        ensure!(!interrupt.seen(), "interrupted");
        if !vm.running() || from.elapsed() > limit {
            let lines: Vec<&str> = screen.lines().collect();
            let last = lines[lines.len().saturating_sub(20)..].join("\n");
            let what = if vm.running() { "no API yet" } else { "the machine went off" };
            bail!("{what}: {wrong}\nits console ends with:\n{last}");
        }
        sleep(Duration::from_secs(1));
    }
}

/// Fetches the CA without trusting it, checks it against the console, then asks the API with it.
fn write_access(console: &Console, screen: &str, dir: &Path) -> Result<()> {
    let fetched = dir.join("ca.fetched.pem");
    let url = format!("{}/ca.pem", console.url);
    exec::run(exec::command("curl", ["-sSfk", "--max-time", "5", "-o"]).arg(&fetched).arg(url))?;
    // Kept with the machine: the password is shown on its first boot only, and other clouds may be shown here since.
    cloud::write_access(&machine(dir), screen, &fetched, PREFIX)?;
    cloud::show_access(&machine(dir), dir)?;
    fs::remove_file(&fetched)?;
    let identity = format!("{}/identity/v3", console.url);
    let ca = dir.join("ca.pem");
    exec::run(exec::command("curl", ["-sSf", "--max-time", "10", "--cacert"]).arg(ca).arg(identity))
}

/// Ctrl-C, a closed terminal or a polite request to end, noticed instead of died of. Programs that are started
/// still get theirs: they begin with nothing blocked.
struct Interrupt {
    seen: Arc<AtomicBool>,
}

impl Interrupt {
    /// To be called before any other thread is started: each inherits what is blocked.
    fn listen() -> Result<Self> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            set.add(signal);
        }
        set.thread_block()?;
        let seen = Arc::new(AtomicBool::new(false));
        let flag = seen.clone();
        std::thread::spawn(move || {
            if set.wait().is_ok() {
                flag.store(true, Ordering::Relaxed);
            }
        });
        Ok(Self { seen })
    }

    fn seen(&self) -> bool {
        self.seen.load(Ordering::Relaxed)
    }
}

fn lan(dir: &Path) -> Lan {
    Lan::new(INSTANCE, PREFIX, &dir.join("lan"))
}

fn machine(dir: &Path) -> PathBuf {
    dir.join("node1")
}
