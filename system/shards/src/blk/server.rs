//! The socket of an exported volume, and the connections to it, one at a time.
//!
//! It owns the socket's path and a thread. QEMU comes back each second after a broken connection, so the thread
//! accepts until the export is stopped, whatever a connection did.
use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vhost::vhost_user::{self, BackendReqHandler};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::backchannel::Backchannel;
use super::device::Device;
use super::handler::Handler;
use crate::media::Media;
use crate::model::NBD_EXTENSION;
use crate::nbd::NbdExport;

/// How long the thread rests after a connection that could not be set up.
const SETUP_REST: Duration = Duration::from_millis(200);

/// How sockets are made.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// The directory of the sockets.
    pub dir: PathBuf,
    /// The group that may connect, beside the process's own user.
    pub gid: Option<u32>,
}

impl ServeOptions {
    /// Makes the directory, closed to all but our user and the group.
    pub fn prepare(&self) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        own(&self.dir, 0o750, self.gid)
    }

    /// The socket of a volume.
    pub fn socket(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{id}.sock"))
    }
}

/// A volume that is being served. Dropping it ends the service.
pub struct Export {
    id: String,
    epoch: AtomicU64,
    socket: PathBuf,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    nbd: NbdExport,
    volume: Arc<dyn Media>,
}

struct Shared {
    stopping: AtomicBool,
    wake: EventFd,
    /// The connection there is now.
    current: Mutex<Option<(Arc<Device>, UnixStream)>>,
}

impl Export {
    /// Serves the volume under this epoch. When this returns, the socket is there and is listened on.
    pub fn start(id: &str, epoch: u64, volume: Arc<dyn Media>, options: &ServeOptions) -> io::Result<Export> {
        let socket = options.socket(id);
        let by_nbd = socket.with_extension(NBD_EXTENSION);
        let nbd = NbdExport::start(id, volume.clone(), bind(&by_nbd, options.gid)?, &by_nbd)?;
        let listener = bind(&socket, options.gid)?;
        let shared = Arc::new(Shared {
            stopping: AtomicBool::new(false),
            wake: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?,
            current: Mutex::default(),
        });
        let (thread_shared, thread_id) = (shared.clone(), id.to_owned());
        volume.interrupt(false);
        let served = volume.clone();
        let thread = std::thread::Builder::new()
            .name(format!("blk-{}", id.get(..8).unwrap_or(id)))
            .spawn(move || serve(&thread_id, listener, &served, &thread_shared))?;
        let epoch = AtomicU64::new(epoch);
        Ok(Export { id: id.into(), epoch, socket, shared, thread: Some(thread), nbd, volume })
    }

    /// The epoch served.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(SeqCst)
    }

    /// It is served under this epoch from now on, to the same guest.
    pub fn set_epoch(&self, epoch: u64) {
        self.epoch.store(epoch, SeqCst);
    }

    /// The vhost-user socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Both sockets, the other being that of NBD.
    pub fn sockets(&self) -> [&Path; 2] {
        [&self.socket, self.nbd.socket()]
    }

    /// Tells the guest if the volume has grown. Costs next to nothing if it has not.
    pub fn heed_size(&self) {
        if let Some((device, _)) = &*guard(&self.shared.current) {
            device.heed_size();
        }
    }

    /// Whether its writes wait for room on a disk.
    pub fn is_full(&self) -> bool {
        self.volume.is_full()
    }

    /// Whether a front-end is connected.
    pub fn is_connected(&self) -> bool {
        guard(&self.shared.current).is_some() || self.nbd.is_connected()
    }

    /// Whether the thread still serves.
    pub fn is_serving(&self) -> bool {
        self.thread.as_ref().is_some_and(|t| !t.is_finished())
    }

    /// Removes the socket and cuts the connection. Answers whether all has ended within `patience`: until then
    /// a request may still be on its way to the disk, and the volume must not be given to another.
    pub fn stop(&mut self, patience: Duration) -> bool {
        self.signal();
        let deadline = Instant::now() + patience;
        let ended = |this: &Export| !this.is_serving() && !this.nbd.is_serving();
        while !ended(self) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        ended(self)
    }

    fn signal(&self) {
        // Only the first time: later the path may belong to a newer export.
        if !self.shared.stopping.swap(true, SeqCst) {
            self.volume.interrupt(true);
            let _ = fs::remove_file(&self.socket);
        }
        self.nbd.signal();
        let _ = self.shared.wake.write(1);
        if let Some((device, connection)) = &*guard(&self.shared.current) {
            device.quiesce();
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        self.signal();
        tracing::debug!(volume = self.id, epoch = self.epoch(), "an export ends");
    }
}

fn bind(socket: &Path, gid: Option<u32>) -> io::Result<UnixListener> {
    // Made beside and renamed, so that nobody finds it absent, closed, or left over from a killed process.
    let beside = socket.with_added_extension("new");
    match fs::remove_file(&beside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(&beside)?;
    own(&beside, 0o660, gid)?;
    fs::rename(&beside, socket)?;
    Ok(listener)
}

fn own(path: &Path, mode: u32, gid: Option<u32>) -> io::Result<()> {
    if gid.is_some() {
        std::os::unix::fs::chown(path, None, gid)?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn serve(id: &str, listener: UnixListener, volume: &Arc<dyn Media>, shared: &Shared) {
    while !shared.stopping.load(SeqCst) {
        let served = wait(&listener, &shared.wake).and_then(|ready| match ready {
            true => connection(id, &listener, volume, shared),
            false => Ok(()),
        });
        if let Err(e) = served {
            tracing::warn!(volume = id, error = %e, "a connection could not be served");
            std::thread::sleep(SETUP_REST);
        }
    }
}

/// Waits for a connection (true) or the end (false).
fn wait(listener: &UnixListener, wake: &EventFd) -> io::Result<bool> {
    let epoll = Epoll::new()?;
    for (fd, data) in [(listener.as_raw_fd(), 1), (wake.as_raw_fd(), 0)] {
        epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, data))?;
    }
    let mut events = [EpollEvent::default(); 2];
    loop {
        match epoll.wait(-1, &mut events) {
            Ok(n) => return Ok(events[..n].iter().all(|e| e.data() == 1)),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn connection(id: &str, listener: &UnixListener, volume: &Arc<dyn Media>, shared: &Shared) -> io::Result<()> {
    let (stream, _) = listener.accept()?;
    let device = Arc::new(Device::new(id, volume.clone())?);
    *guard(&shared.current) = Some((device.clone(), stream.try_clone()?));
    tracing::info!(volume = id, "a front-end connected");
    let end = match shared.stopping.load(SeqCst) {
        true => vhost_user::Error::Disconnected,
        false => converse(stream, &device),
    };
    tracing::info!(volume = id, %end, "a front-end left");
    device.end();
    *guard(&shared.current) = None;
    // Whoever comes next finds on media what this one wrote; an error here is told to the next flush.
    if let Err(e) = volume.settle() {
        tracing::error!(volume = id, error = %e, "a volume was not synced when its guest left");
    }
    Ok(())
}

/// Does what the front-end says until it says no more.
fn converse(stream: UnixStream, device: &Arc<Device>) -> vhost_user::Error {
    let next = match stream.try_clone() {
        Ok(next) => next,
        Err(e) => return vhost_user::Error::SocketError(e),
    };
    let handler = Arc::new(Mutex::new(Handler::new(device.clone())));
    let mut messages = BackendReqHandler::from_stream(stream, handler);
    loop {
        match hear(&next, &mut messages, device) {
            Ok(()) => {}
            // It was told, if it asked; what it does then is its own affair.
            Err(vhost_user::Error::ReqHandlerError(e)) => {
                tracing::warn!(volume = device.id, error = %e, "a front-end's request was refused");
            }
            Err(e) => return e,
        }
    }
}

/// Does the next thing that the front-end says.
pub(super) fn hear(
    connection: &UnixStream,
    messages: &mut BackendReqHandler<Mutex<Handler>>,
    device: &Device,
) -> vhost_user::Result<()> {
    if let Some(back) = Backchannel::look(connection).map_err(vhost_user::Error::SocketError)? {
        device.set_back(back);
    }
    messages.handle_request()
}

// What these locks guard is whole after a panic.
fn guard<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
