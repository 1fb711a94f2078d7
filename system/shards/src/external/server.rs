//! The program that has an image of a cluster open and serves it to us by NBD: one for each volume that is in use.
//!
//! It is a program of its own so that a fault in what speaks to the cluster ends one volume's service for a second, and
//! nothing else. It may be killed at any time: it has no cache, so that what it answered is in the cluster, and before the
//! next one begins the cluster is told to refuse what the last one may still have under way ([`Start::before`]).

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::driver::Opened;
use crate::media::Media;
use crate::nbd::NbdVolume;
use crate::sys::{self, Confinement};

/// How often it is looked whether the program still runs.
const LOOK: Duration = Duration::from_millis(100);
/// How long it gets to end by itself.
const END_PATIENCE: Duration = Duration::from_secs(3);
/// How long to wait before a program that ended is started again: at first, and at most.
const REST: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How the program is started.
pub struct Start {
    /// What it is about, for the log.
    pub volume: String,
    /// The command; it is to listen at the socket.
    pub command: Box<dyn Fn() -> Command + Send>,
    /// What is done before each start; the program is not started if it fails.
    pub before: Box<dyn Fn() -> io::Result<()> + Send>,
    /// Where it listens.
    pub socket: PathBuf,
}

enum Order {
    Restart,
}

/// A program that serves a volume. It ends when this is dropped.
pub struct Server {
    media: Arc<NbdVolume>,
    orders: Mutex<Sender<Order>>,
}

impl Server {
    /// Starts it for a volume of so many bytes.
    pub fn start(start: Start, size: u64, read_only: bool) -> io::Result<Server> {
        let media = Arc::new(NbdVolume::new(start.socket.clone(), size, read_only));
        let (orders, heard) = mpsc::channel();
        let served = media.clone();
        // The program ends with the thread that started it, so this one lives as long as the program may.
        std::thread::Builder::new().name("rbd-server".into()).spawn(move || {
            let mut rest = REST.0;
            let mut last = None;
            while let Some(next) = run(&start, &served, &heard, last.is_some()) {
                // One that ran for a while is started again at once.
                rest = if next > REST.1 { REST.0 } else { (rest * 2).min(REST.1) };
                last = Some(next);
                if !matches!(heard.recv_timeout(rest), Ok(Order::Restart) | Err(RecvTimeoutError::Timeout)) {
                    break;
                }
            }
            let _ = fs::remove_file(&start.socket);
        })?;
        Ok(Server { media, orders: Mutex::new(orders) })
    }
}

impl Opened for Server {
    fn media(&self) -> Arc<dyn Media> {
        self.media.clone()
    }

    fn grown(&self, size: u64) {
        if self.media.size() < size {
            // It knows the size that the image had when it opened it.
            let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = orders.send(Order::Restart);
        }
    }
}

/// Runs the program once; answers how long it ran, or `None` if it is wanted no more.
fn run(start: &Start, media: &NbdVolume, orders: &mpsc::Receiver<Order>, again: bool) -> Option<Duration> {
    let begun = Instant::now();
    let mut child = match prepare(start) {
        Ok(child) => child,
        Err(e) => {
            tracing::warn!(volume = start.volume, error = %e, "what serves a volume could not be started");
            return Some(Duration::ZERO);
        }
    };
    tracing::info!(volume = start.volume, pid = child.id(), again, "a volume is served by its cluster");
    let mut answers = false;
    loop {
        // Connected to at once, so that the size it found is known though nobody asks for anything.
        answers = answers || media.is_connected();
        match orders.recv_timeout(LOOK) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Order::Restart) => {
                media.disconnect();
                end(&mut child);
                return Some(begun.elapsed().max(REST.1 + LOOK));
            }
            Err(RecvTimeoutError::Disconnected) => {
                media.disconnect();
                end(&mut child);
                return None;
            }
        }
        if let Ok(Some(status)) = child.try_wait() {
            tracing::warn!(volume = start.volume, %status, "what serves a volume has ended");
            media.disconnect();
            return Some(begun.elapsed());
        }
    }
}

fn prepare(start: &Start) -> io::Result<Child> {
    (start.before)()?;
    match fs::remove_file(&start.socket) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut command = (start.command)();
    sys::confine(&mut command, Confinement::Ours);
    command.spawn()
}

/// Ends the program, which closes the image if it gets that far.
fn end(child: &mut Child) {
    let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
    let deadline = Instant::now() + END_PATIENCE;
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
        std::thread::sleep(LOOK / 5);
    }
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    const SIZE: u64 = 4 << 20;

    fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !holds() {
            assert!(Instant::now() < end, "{what}: not within a minute");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A request as those who serve guests make it: again while it is held.
    fn patient(mut ask: impl FnMut() -> io::Result<()>) {
        until("an answer", || match ask() {
            Err(e) if crate::media::wait_of(&e).is_some() => false,
            done => {
                done.unwrap();
                true
            }
        });
    }

    fn children(file: &std::path::Path) -> Vec<i32> {
        let name = file.to_string_lossy().into_owned();
        let serves = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.starts_with(b"qemu-nbd") && String::from_utf8_lossy(&line).contains(&name)
        };
        let all = fs::read_dir("/proc").unwrap().flatten();
        all.filter_map(|e| e.file_name().to_str()?.parse().ok()).filter(serves).collect()
    }

    #[test]
    fn a_program_that_is_killed_comes_back_with_what_it_answered_and_one_that_has_grown_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let (file, socket) = (dir.path().join("image"), dir.path().join("socket"));
        fs::File::create(&file).unwrap().set_len(SIZE).unwrap();
        let before = Arc::new(AtomicUsize::new(0));
        let (counted, image, at) = (before.clone(), file.clone(), socket.clone());
        let start = Start {
            volume: "v".into(),
            command: Box::new(move || {
                let mut command = Command::new("qemu-nbd");
                command
                    .args(["--persistent", "--format=raw", "--cache=writethrough", "--socket"])
                    .arg(&at)
                    .arg(&image);
                command
            }),
            before: Box::new(move || {
                counted.fetch_add(1, SeqCst);
                Ok(())
            }),
            socket,
        };
        let server = Server::start(start, SIZE, false).unwrap();
        let media = server.media();
        patient(|| media.write_slice(4096, &[7; 8192]));
        let mut read = vec![1; 16384];
        patient(|| media.read_slice(0, &mut read));
        assert!(read == [vec![0; 4096], vec![7; 8192], vec![0; 4096]].concat());

        let first = children(&file);
        kill(Pid::from_raw(first[0]), Signal::SIGKILL).unwrap();
        patient(|| media.write_slice(0, &[9; 4096]));
        patient(|| media.flush());
        patient(|| media.write_zeroes(4096, 4096, true));
        patient(|| media.read_slice(0, &mut read));
        assert!(read == [vec![9; 4096], vec![0; 4096], vec![7; 4096], vec![0; 4096]].concat());
        assert_eq!(before.load(SeqCst), 2, "the last one was fenced off");
        assert!(media.read_slice(SIZE, &mut read).is_err_and(|e| crate::media::wait_of(&e).is_none()));

        fs::File::options().write(true).open(&file).unwrap().set_len(2 * SIZE).unwrap();
        server.grown(2 * SIZE);
        until("the new size", || media.size() == 2 * SIZE);
        patient(|| media.write_slice(2 * SIZE - 4096, &[3; 4096]));
        drop((server, media));
        until("its end", || children(&file).is_empty());
    }
}
