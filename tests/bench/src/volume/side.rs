//! The sides of one replica: how each is started, reached and ended, and which files it has.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, syncfs};

use super::guest::Guest;
use super::load::Disk;
use super::memory::Memory;
use super::raw::Raw;

/// How long a server may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whose data path is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Cairn,
    /// qemu-storage-daemon, past the page cache or through it, and how it asks the kernel.
    Qsd {
        direct: bool,
        aio: &'static str,
    },
    /// The file by io_uring.
    Raw {
        direct: bool,
    },
}

impl Side {
    /// All, in the order of their turns.
    pub const ALL: [Side; 7] = [
        Side::Cairn,
        Side::Qsd { direct: true, aio: "io_uring" },
        Side::Qsd { direct: true, aio: "threads" },
        Side::Qsd { direct: false, aio: "io_uring" },
        Side::Qsd { direct: false, aio: "threads" },
        Side::Raw { direct: true },
        Side::Raw { direct: false },
    ];

    /// What it is called in the table.
    pub fn name(self) -> String {
        let cache = |direct| if direct { "direct" } else { "cached" };
        match self {
            Side::Cairn => "Cairn".into(),
            Side::Qsd { direct, aio } => format!("QSD {} {aio}", cache(direct)),
            Side::Raw { direct } => format!("raw {}", cache(direct)),
        }
    }

    /// Where its files are: the peers have one in common.
    pub fn files(self, directory: &Path) -> PathBuf {
        directory.join(if self == Side::Cairn { "cairn" } else { "file" })
    }

    /// Starts it, if it is a process.
    pub fn start(self, directory: &Path, size: u64) -> Result<Server> {
        let files = self.files(directory);
        std::fs::create_dir_all(&files)?;
        let file = files.join("file");
        if self != Side::Cairn && !file.exists() {
            File::create(&file)?.set_len(size)?;
        }
        match self {
            Side::Cairn => Server::of_cairn(&files, size),
            Side::Qsd { direct, aio } => Server::of_qsd(&file, direct, aio),
            Side::Raw { direct } => Ok(Server { child: None, way: Way::File { path: file, direct } }),
        }
    }

    /// What was written is on the disk, and in no cache (or all in the page cache).
    pub fn settle(self, directory: &Path, warm: bool) -> Result<()> {
        let files = self.files(directory);
        syncfs(File::open(directory)?)?;
        for path in all_files(&files)? {
            let mut file = File::open(path)?;
            if warm {
                std::io::copy(&mut file, &mut std::io::sink())?;
            } else {
                posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
            }
        }
        Ok(())
    }
}

fn all_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            found.extend(all_files(&entry.path())?);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// A side that has been started. Dropping it ends its process.
pub struct Server {
    child: Option<Child>,
    way: Way,
}

/// How it is reached.
#[derive(Clone)]
pub enum Way {
    Socket(PathBuf),
    File { path: PathBuf, direct: bool },
}

impl Way {
    /// Connects to the disk.
    pub fn open(&self, memory: &Memory, size: u64) -> Result<Box<dyn Disk>> {
        match self {
            Way::File { path, direct } => Ok(Box::new(Raw::open(path, *direct, memory)?)),
            Way::Socket(path) => {
                let guest = Guest::connect(path, memory)?;
                ensure!(guest.size() == size, "{} has {} bytes", path.display(), guest.size());
                Ok(Box::new(guest))
            }
        }
    }
}

impl Server {
    fn of_cairn(files: &Path, size: u64) -> Result<Server> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("volume-node")
            .arg(files)
            .arg(size.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take();
        // It is ended with the server, whatever it says.
        let mut server = Server { child: Some(child), way: Way::Socket(PathBuf::new()) };
        let mut line = String::new();
        BufReader::new(output.context("no output")?).read_line(&mut line)?;
        ensure!(!line.is_empty(), "the volume's server has ended; its words are above");
        server.way = Way::Socket(line.trim().into());
        Ok(server)
    }

    fn of_qsd(file: &Path, direct: bool, aio: &str) -> Result<Server> {
        let socket = file.with_file_name("qsd.sock");
        if socket.exists() {
            std::fs::remove_file(&socket)?;
        }
        let cache = if direct { "on" } else { "off" };
        let child = Command::new("qemu-storage-daemon")
            .arg("--blockdev")
            .arg(format!(
                "driver=file,node-name=file,filename={},cache.direct={cache},aio={aio}",
                file.display()
            ))
            .args(["--blockdev", "driver=raw,node-name=raw,file=file"])
            .arg("--export")
            .arg(format!(
                "type=vhost-user-blk,id=export,addr.type=unix,addr.path={},node-name=raw,writable=on",
                socket.display()
            ))
            .stdin(Stdio::null())
            .spawn()
            .context("no qemu-storage-daemon: it is in Debian's qemu-system-common or qemu-utils")?;
        let mut server = Server { child: Some(child), way: Way::Socket(socket.clone()) };
        let deadline = Instant::now() + PATIENCE;
        while !socket.exists() {
            ensure!(server.lives()?, "qemu-storage-daemon has ended; its words are above");
            ensure!(Instant::now() < deadline, "qemu-storage-daemon does not serve");
            sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    /// How it is reached.
    pub fn way(&self) -> &Way {
        &self.way
    }

    /// Its process, if it is one.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Whether its process has not ended.
    pub fn lives(&mut self) -> Result<bool> {
        Ok(self.child.as_mut().map_or(Ok(None), Child::try_wait)?.is_none())
    }

    /// Ends it in order.
    pub fn end(mut self) -> Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        // Cairn's ends with its input, QEMU's by a signal.
        if child.stdin.take().is_none() {
            kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM)?;
        }
        let deadline = Instant::now() + PATIENCE;
        while self.lives()? {
            if Instant::now() > deadline {
                bail!("a server does not end");
            }
            sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended already.
            drop(child.kill());
            drop(child.wait());
        }
    }
}
