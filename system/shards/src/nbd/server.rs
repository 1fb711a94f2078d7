//! The NBD socket of an exported volume, and the connections to it, one at a time.
//!
//! It owns the socket's path and a thread. It must never answer a flush, or a write that asks for it, before the data
//! is on stable media; a write that meets a full disk waits for room.

use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::socket::shutdown;

use super::protocol::{self, Command, Request};
use crate::media::{self, Media};

/// How long the thread rests after a listener's failure.
const REST: Duration = Duration::from_millis(200);

/// A volume that is served by NBD. Dropping it ends the service.
pub struct NbdExport {
    socket: PathBuf,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    id: String,
    volume: Arc<dyn Media>,
    listener: UnixListener,
    stopping: AtomicBool,
    current: Mutex<Option<UnixStream>>,
}

impl NbdExport {
    /// Serves the volume on a listener that is bound to `socket`.
    pub fn start(
        id: &str,
        volume: Arc<dyn Media>,
        listener: UnixListener,
        socket: &Path,
    ) -> io::Result<NbdExport> {
        let stopping = AtomicBool::new(false);
        let shared =
            Arc::new(Shared { id: id.into(), volume, listener, stopping, current: Mutex::default() });
        let thread_shared = shared.clone();
        let thread = std::thread::Builder::new()
            .name(format!("nbd-{}", id.get(..8).unwrap_or(id)))
            .spawn(move || serve(&thread_shared))?;
        Ok(NbdExport { socket: socket.into(), shared, thread: Some(thread) })
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Whether a front-end is connected.
    pub fn is_connected(&self) -> bool {
        guard(&self.shared.current).is_some()
    }

    /// Whether the thread still serves.
    pub fn is_serving(&self) -> bool {
        self.thread.as_ref().is_some_and(|t| !t.is_finished())
    }

    /// Removes the socket and cuts the connection; the thread ends after the request at hand.
    pub fn signal(&self) {
        if self.shared.stopping.swap(true, SeqCst) {
            return;
        }
        // The thread waits for a connection. (The path may be another's by now, or gone.)
        let _ = shutdown(self.shared.listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        let _ = fs::remove_file(&self.socket);
        if let Some(stream) = &*guard(&self.shared.current) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for NbdExport {
    fn drop(&mut self) {
        self.signal();
    }
}

fn serve(shared: &Shared) {
    while !shared.stopping.load(SeqCst) {
        let Ok((stream, _)) = shared.listener.accept() else {
            if !shared.stopping.load(SeqCst) {
                std::thread::sleep(REST);
            }
            continue;
        };
        if let Ok(copy) = stream.try_clone() {
            *guard(&shared.current) = Some(copy);
        }
        if shared.stopping.load(SeqCst) {
            return;
        }
        tracing::info!(volume = shared.id, "an NBD front-end connected");
        let end = converse(stream, shared);
        *guard(&shared.current) = None;
        tracing::info!(volume = shared.id, end = ?end.err(), "an NBD front-end left");
        // Whoever comes next finds on media what this one wrote; an error here is told to the next flush.
        if let Err(e) = shared.volume.settle() {
            tracing::error!(volume = shared.id, error = %e, "a volume was not synced when its guest left");
        }
    }
}

fn converse(mut stream: UnixStream, shared: &Shared) -> io::Result<()> {
    let volume = &shared.volume;
    if !protocol::handshake(&mut stream, volume.size(), protocol::flags(volume.read_only()))? {
        return Ok(());
    }
    let mut buffer = Vec::new();
    loop {
        let request = match protocol::request(&mut stream)? {
            Ok(request) => request,
            Err(cookie) => {
                protocol::answer(&mut stream, cookie, nix::libc::EINVAL as u32, &[])?;
                continue;
            }
        };
        if request.command == Command::Disconnect {
            return Ok(());
        }
        if matches!(request.command, Command::Read | Command::Write) {
            buffer.resize(request.len as usize, 0);
        }
        if request.command == Command::Write {
            io::Read::read_exact(&mut stream, &mut buffer)?;
        }
        let error = match perform(shared, &request, &mut buffer)? {
            Ok(()) => 0,
            Err(e) => errno(&shared.id, &request, &e),
        };
        let data = if request.command == Command::Read && error == 0 { &buffer[..] } else { &[] };
        protocol::answer(&mut stream, request.cookie, error, data)?;
    }
}

/// Does a request, waiting for room as long as it takes. The outer error: the export ends.
fn perform(shared: &Shared, request: &Request, buffer: &mut [u8]) -> io::Result<io::Result<()>> {
    loop {
        match execute(&*shared.volume, request, buffer) {
            Err(e) if let Some(wait) = media::wait_of(&e) => std::thread::sleep(wait),
            done => return Ok(done),
        }
        if shared.stopping.load(SeqCst) {
            return Err(io::ErrorKind::Interrupted.into());
        }
    }
}

fn execute(volume: &dyn Media, request: &Request, buffer: &mut [u8]) -> io::Result<()> {
    let (offset, len) = (request.offset, u64::from(request.len));
    match request.command {
        Command::Read => return volume.read_slice(offset, buffer),
        Command::Write => volume.write_slice(offset, buffer)?,
        Command::Trim => volume.discard(offset, len)?,
        Command::WriteZeroes(unmap) => volume.write_zeroes(offset, len, unmap)?,
        Command::Flush => return volume.flush(),
        Command::Disconnect => return Ok(()),
    }
    if request.fua { volume.flush() } else { Ok(()) }
}

fn errno(id: &str, request: &Request, e: &io::Error) -> u32 {
    let number = match e.kind() {
        io::ErrorKind::InvalidInput => nix::libc::EINVAL,
        io::ErrorKind::ReadOnlyFilesystem => nix::libc::EPERM,
        _ => {
            tracing::error!(volume = id, error = %e, command = ?request.command, "a guest's request failed");
            nix::libc::EIO
        }
    };
    number as u32
}

// What this lock guards is whole after a panic.
fn guard<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
