//! The guests that the tour starts, and logging in to them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use image_builder::Paths;

/// Which guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Guest {
    /// Busybox and dropbear: boots in seconds.
    Tiny,
    /// Debian with systemd and cloud-init.
    Debian,
}

impl Guest {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Guest::Tiny => "tiny",
            Guest::Debian => "debian",
        }
    }

    /// Its disk image.
    pub fn image(self, paths: &Paths) -> PathBuf {
        paths.guests().join(format!("{}.qcow2", self.name()))
    }

    /// MiB of memory and GiB of disk it is given.
    pub fn size(self) -> (&'static str, &'static str) {
        match self {
            Guest::Tiny => ("128", "1"),
            Guest::Debian => ("512", "4"),
        }
    }

    /// Whom the injected key lets in.
    pub fn user(self) -> &'static str {
        match self {
            Guest::Tiny => "root",
            Guest::Debian => "debian",
        }
    }

    /// What its console shows once it has booted.
    pub fn console_marker(self) -> &'static str {
        match self {
            Guest::Tiny => "TINY-SSH",
            Guest::Debian => "cloud-init",
        }
    }

    /// How long it may take from "active" to ssh under emulation.
    pub fn boot_max(self) -> Duration {
        match self {
            Guest::Tiny => Duration::from_secs(240),
            Guest::Debian => Duration::from_secs(900),
        }
    }
}

/// A login to a guest from outside, by its floating address and the injected key.
pub struct Login {
    key: PathBuf,
    user: &'static str,
    address: String,
}

impl Login {
    /// A login; nothing is tried yet.
    pub fn new(key: &Path, guest: Guest, address: &str) -> Login {
        Login { key: key.to_owned(), user: guest.user(), address: address.to_owned() }
    }

    fn ssh(&self, script: &str) -> Command {
        let mut ssh = Command::new("ssh");
        for option in [
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "BatchMode=yes",
            "ConnectTimeout=10",
            "ServerAliveInterval=5",
            "ServerAliveCountMax=12",
        ] {
            ssh.args(["-o", option]);
        }
        ssh.arg("-i").arg(&self.key).arg(format!("{}@{}", self.user, self.address)).arg(script);
        ssh
    }

    /// Waits until the guest lets us in.
    pub fn wait(&self, limit: Duration) -> Result<Duration> {
        let since = Instant::now();
        loop {
            let tried = self.ssh("true").output().context("cannot start ssh")?;
            if tried.status.success() {
                return Ok(since.elapsed());
            }
            if since.elapsed() > limit {
                let said = String::from_utf8_lossy(&tried.stderr).trim().to_owned();
                bail!("{} does not let {} in after {:?}: {said}", self.address, self.user, since.elapsed());
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// Runs a shell script as root in the guest; gives what it printed.
    pub fn run(&self, script: &str) -> Result<String> {
        let script = if self.user == "root" { script.to_owned() } else { format!("sudo sh -c '{script}'") };
        let done = self.ssh(&script).output().context("cannot start ssh")?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr);
            bail!("in the guest, {script}: {} {}", done.status, said.trim());
        }
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }

    /// Fails if the guest's kernel has seen an I/O error since it booted.
    pub fn no_io_errors(&self) -> Result<()> {
        let errors = self
            .run("dmesg | grep -ciE \"I/O error|blk_update_request|is not a head|EXT4-fs error\" || true")?;
        ensure!(errors.trim() == "0", "the guest's kernel saw {} I/O errors", errors.trim());
        Ok(())
    }

    /// The same as [`Login::run`], not waited for.
    pub fn spawn(&self, script: &str) -> Result<std::process::Child> {
        let mut ssh = self.ssh(script);
        ssh.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        ssh.spawn().context("cannot start ssh")
    }
}
