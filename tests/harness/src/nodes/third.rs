//! A third machine beside two nodes: the witness's program, on the host's end of their LAN.
//!
//! Its folder lasts from one run to the next, as the nodes' disks do; the process does not.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use image_builder::exec;
use image_builder::process::{self, Known};

use super::cloud::Cloud;

/// How long a node may take to have it for its cloud.
const TAKEN_IN_MAX: Duration = Duration::from_secs(60);
/// How long it may take to end.
const END_MAX: Duration = Duration::from_secs(10);

/// The third machine.
pub struct Third {
    program: PathBuf,
    folder: PathBuf,
    address: String,
    running: Option<Child>,
}

impl Third {
    /// Starts it with this program, at this address; its folder is in `dir`.
    pub fn start(program: &Path, dir: &Path, address: String) -> Result<Third> {
        let folder = dir.join("witness");
        fs::create_dir_all(&folder)?;
        // One that an earlier run has left holds the port.
        if let Some(left) = Known::load(&folder.join("process.json")) {
            process::end(left.pid(), END_MAX)?;
        }
        let mut third = Third { program: program.to_owned(), folder, address, running: None };
        third.go_on()?;
        Ok(third)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--folder").arg(&self.folder);
        command
    }

    /// Starts it again.
    pub fn go_on(&mut self) -> Result<()> {
        let log = File::create(self.folder.join("log"))?;
        let mut command = self.command();
        command.args(["serve", "--listen", &format!("{}:4600", self.address)]);
        let child = command.stdin(Stdio::null()).stderr(log).spawn();
        let child = child.with_context(|| format!("cannot run {}", self.program.display()))?;
        Known::started(child.id())?.save(&self.folder.join("process.json"))?;
        self.running = Some(child);
        Ok(())
    }

    /// Kills it.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.running.take().context("the witness does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Gives it to the cloud.
    pub fn give_to(&self, cloud: &Cloud) -> Result<()> {
        let code = exec::output(self.command().arg("code"))?;
        let add = || {
            exec::output(cloud.node(1)?.command("cairn")?.args([
                "witness",
                "add",
                &self.address,
                code.trim(),
            ]))
        };
        let since = Instant::now();
        while let Err(refused) = add() {
            if since.elapsed() > TAKEN_IN_MAX {
                return Err(refused.context("the cloud does not take its witness in"));
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        self.serves()
    }

    fn serves(&self) -> Result<()> {
        let served = fs::read_dir(self.folder.join("clouds"))?.count();
        ensure!(served == 1, "the witness serves {served} clouds");
        Ok(())
    }
}

impl Drop for Third {
    fn drop(&mut self) {
        if self.running.is_some()
            && let Err(e) = self.kill()
        {
            eprintln!("the witness could not be ended: {e:#}");
        }
    }
}

/// The witness's program beside that of the nodes.
pub fn program_beside(binary: &Path) -> Result<PathBuf> {
    let program = binary.with_file_name("cairn-witness");
    if !program.is_file() {
        bail!("there is no {}: build it by: cargo witness", program.display());
    }
    Ok(program)
}
