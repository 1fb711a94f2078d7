//! The sides of one replica: how each is started, reached and ended, and which files it has.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
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
            Side::Raw { direct } => Ok(Server::of(Vec::new(), Way::File { path: file, direct }, 0)),
        }
    }
}

/// What was written below a directory is on the disk, and in no cache; or all in the page cache, and for every side by the
/// same reads: how a file came there decides how large the pieces are in which the kernel keeps it, and so what a write costs.
pub fn settle(files: &Path, warm: bool) -> Result<()> {
    syncfs(File::open(files)?)?;
    for path in all_files(files)? {
        let mut file = File::open(path)?;
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        if warm {
            std::io::copy(&mut file, &mut std::io::sink())?;
        }
    }
    Ok(())
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

/// A side that has been started. Dropping it ends its processes.
pub struct Server {
    children: Vec<Child>,
    way: Way,
    /// How many of them, the last, are what a guest's machine has of a peer: a client of its servers.
    clients: usize,
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
    /// Processes that are reached so.
    pub fn of(children: Vec<Child>, way: Way, clients: usize) -> Server {
        Server { children, way, clients }
    }

    fn of_cairn(files: &Path, size: u64) -> Result<Server> {
        let (child, mut lines) = node(files, size, &[])?;
        // It is ended with the server, whatever it says.
        let mut server = Server::of(vec![child], Way::Socket(PathBuf::new()), 0);
        server.way = Way::Socket(heard(&mut lines)?.into());
        Ok(server)
    }

    /// One volume with a replica in each of so many processes.
    pub fn of_replicas(directory: &Path, size: u64, count: usize) -> Result<Server> {
        let mut server = Server::of(Vec::new(), Way::Socket(PathBuf::new()), 0);
        let (mut all_lines, mut hellos) = (Vec::new(), Vec::new());
        for place in 0..count {
            let files = directory.join(format!("cairn-{place}"));
            let (child, mut lines) = node(&files, size, &["--place", &place.to_string()])?;
            server.children.push(child);
            hellos.push(heard(&mut lines)?);
            all_lines.push(lines);
        }
        // The first is the writer: it is told of the others when they serve.
        for (child, lines) in server.children.iter_mut().zip(&mut all_lines).rev() {
            let mut input = child.stdin.as_ref().context("no input")?;
            writeln!(input, "{}", hellos.join(" "))?;
            server.way = Way::Socket(heard(lines)?.into());
        }
        Ok(server)
    }

    fn of_qsd(file: &Path, direct: bool, aio: &str) -> Result<Server> {
        let socket = file.with_file_name("qsd.sock");
        if socket.exists() {
            std::fs::remove_file(&socket)?;
        }
        let cache = if direct { "on" } else { "off" };
        // It ends with this process, however that ends.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "qemu-storage-daemon", "--blockdev"])
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
            .context("no setpriv")?;
        let mut server = Server::of(vec![child], Way::Socket(socket.clone()), 0);
        let deadline = Instant::now() + PATIENCE;
        while !socket.exists() {
            ensure!(
                server.lives()?,
                "qemu-storage-daemon has ended; its words are above (Debian has it in qemu-system-common or qemu-utils)"
            );
            ensure!(Instant::now() < deadline, "qemu-storage-daemon does not serve");
            sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    /// How it is reached.
    pub fn way(&self) -> &Way {
        &self.way
    }

    /// Its processes: those that serve, and those that are clients of them.
    pub fn pids(&self) -> [Vec<u32>; 2] {
        let (servers, clients) = self.children.split_at(self.children.len() - self.clients);
        [servers, clients].map(|all| all.iter().map(Child::id).collect())
    }

    /// Whether none of its processes has ended.
    pub fn lives(&mut self) -> Result<bool> {
        let ended = self.children.iter_mut().map(Child::try_wait).collect::<Result<Vec<_>, _>>()?;
        Ok(ended.iter().all(Option::is_none))
    }

    /// Ends it in order.
    pub fn end(mut self) -> Result<()> {
        for child in &mut self.children {
            // Cairn's ends with its input, QEMU's by a signal.
            if child.stdin.take().is_none() {
                kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM)?;
            }
        }
        let deadline = Instant::now() + PATIENCE;
        for child in &mut self.children {
            while child.try_wait()?.is_none() {
                ensure!(Instant::now() < deadline, "a server does not end");
                sleep(Duration::from_millis(10));
            }
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may have ended already.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// What a process says, line by line.
type Lines = BufReader<ChildStdout>;

/// Starts one of Cairn's processes.
fn node(files: &Path, size: u64, more: &[&str]) -> Result<(Child, Lines)> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("volume-node")
        .arg(files)
        .arg(size.to_string())
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().context("no output")?;
    Ok((child, BufReader::new(output)))
}

/// The next line.
fn heard(lines: &mut Lines) -> Result<String> {
    let mut line = String::new();
    lines.read_line(&mut line)?;
    ensure!(!line.is_empty(), "a server has ended; its words are above");
    Ok(line.trim().to_owned())
}
