//! A volume that another program serves by NBD, as one of ours: what a cluster's image is to the guests' sockets.
//!
//! The program may end and come back at any time. What was not answered then is held, and whoever asked asks again, so its
//! answers must mean that it is done: the program may keep nothing that was written in a cache of its own. A connection is
//! made when one is needed. While the program does not answer, requests wait: they fail only by its word.

use std::collections::HashMap;
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use super::protocol::{self, Command, Greeting, Request};
use crate::media::{self, End, Media};
use crate::sys::{Pieces, Sink, Source};

/// The most bytes of one request; longer ones are several.
const PIECE: u64 = 2 << 20;
/// The longest write that is begun without waiting for its end: what the socket's buffer takes at once.
const BEGIN_MAX: u64 = 64 << 10;
/// The most requests under way for which that is done; the program reads no more of them than this.
const BEGUN_MAX: usize = 12;

/// The error of a server that is about to end, in the protocol's numbers; the same says that a cluster has blocklisted it.
const SHUTDOWN: u32 = 108;

/// Who is told of a request's end, with what was read.
type Tell = Box<dyn FnOnce(io::Result<Vec<u8>>) + Send>;

/// A volume behind an NBD socket.
pub struct NbdVolume {
    socket: PathBuf,
    read_only: bool,
    size: AtomicU64,
    connection: Mutex<Option<Arc<Connection>>>,
    interrupted: AtomicBool,
}

struct Connection {
    writer: Mutex<UnixStream>,
    /// The same, to be shut down whoever is writing.
    stream: UnixStream,
    /// Those that wait, by cookie; `None` once the connection has broken.
    waiting: Mutex<Option<HashMap<u64, Waiter>>>,
    cookie: AtomicU64,
}

struct Waiter {
    /// Bytes that come with the answer, if that is good.
    bytes: usize,
    tell: Tell,
}

impl NbdVolume {
    /// A volume of so many bytes behind this socket, which need not be there yet.
    pub fn new(socket: PathBuf, size: u64, read_only: bool) -> NbdVolume {
        let (size, connection, interrupted) =
            (AtomicU64::new(size), Mutex::default(), AtomicBool::new(false));
        NbdVolume { socket, read_only, size, connection, interrupted }
    }

    /// Drops the connection: what is under way is held, and the next request makes another.
    pub fn disconnect(&self) {
        if let Some(connection) = guard(&self.connection).take() {
            connection.end();
        }
    }

    /// Whether the program answers.
    pub fn is_connected(&self) -> bool {
        self.connection().is_ok()
    }

    fn connection(&self) -> io::Result<Arc<Connection>> {
        if self.interrupted.load(SeqCst) {
            return Err(media::held("its user is being disconnected"));
        }
        let mut held = guard(&self.connection);
        if let Some(connection) = held.as_ref().filter(|c| c.is_alive()) {
            return Ok(connection.clone());
        }
        let (connection, greeting) = Connection::open(&self.socket).map_err(|_| lost())?;
        self.size.store(greeting.size, SeqCst);
        *held = Some(connection.clone());
        Ok(connection)
    }

    fn ask(&self, command: Command, offset: u64, len: u64, payload: &[u8]) -> io::Result<Vec<u8>> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let tell: Tell = Box::new(move |answer| drop(sender.send(answer)));
        self.connection()?.send(command, offset, len, payload, tell);
        receiver.recv().unwrap_or_else(|_| Err(lost()))
    }

    fn change(&self, command: Command, offset: u64, len: u64) -> io::Result<()> {
        let (mut at, mut left) = (offset, len);
        while left > 0 {
            let now = left.min(1 << 30);
            self.ask(command, at, now, &[])?;
            (at, left) = (at + now, left - now);
        }
        Ok(())
    }
}

impl Media for NbdVolume {
    fn size(&self) -> u64 {
        self.size.load(SeqCst)
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn is_full(&self) -> bool {
        false
    }

    fn read(&self, offset: u64, len: u64, to: &mut Pieces<'_, Sink>) -> io::Result<()> {
        let before = to.position();
        let (mut at, end) = (offset, offset + len);
        while at < end {
            let now = (end - at).min(PIECE);
            let read = self.ask(Command::Read, at, now, &[]);
            let put = read.and_then(|bytes| match to.put(&bytes) {
                true => Ok(()),
                false => Err(io::ErrorKind::InvalidInput.into()),
            });
            if let Err(e) = put {
                to.rewind(before);
                return Err(e);
            }
            at += now;
        }
        Ok(())
    }

    fn write(&self, offset: u64, len: u64, from: &mut Pieces<'_, Source>) -> io::Result<()> {
        let before = from.position();
        let (mut at, end) = (offset, offset + len);
        while at < end {
            let now = (end - at).min(PIECE);
            let written = take(from, now).and_then(|bytes| self.ask(Command::Write, at, now, &bytes));
            if let Err(e) = written {
                from.rewind(before);
                return Err(e);
            }
            at += now;
        }
        Ok(())
    }

    fn ends_later(&self) -> bool {
        true
    }

    fn begin_write(&self, offset: u64, len: u64, from: &mut Pieces<'_, Source>, end: End) -> Option<End> {
        let held = guard(&self.connection).as_ref().filter(|c| c.has_room()).cloned();
        let Some(connection) = held.filter(|_| len <= BEGIN_MAX && !self.interrupted.load(SeqCst)) else {
            return Some(end);
        };
        let before = from.position();
        let bytes = take(from, len);
        from.rewind(before);
        let Ok(bytes) = bytes else { return Some(end) };
        let tell: Tell = Box::new(move |answer| end(answer.map(drop)));
        connection.send(Command::Write, offset, len, &bytes, tell);
        None
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.change(Command::Trim, offset, len)
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.change(Command::WriteZeroes(unmap), offset, len)
    }

    fn flush(&self) -> io::Result<()> {
        self.ask(Command::Flush, 0, 0, &[]).map(drop)
    }

    fn settle(&self) -> io::Result<()> {
        // What was answered is done; with nobody there to ask, there is nothing to wait for.
        Ok(())
    }

    fn interrupt(&self, on: bool) {
        self.interrupted.store(on, SeqCst);
        if on {
            self.disconnect();
        }
    }
}

impl Drop for NbdVolume {
    fn drop(&mut self) {
        self.disconnect();
    }
}

impl Connection {
    fn open(socket: &std::path::Path) -> io::Result<(Arc<Connection>, Greeting)> {
        let mut stream = UnixStream::connect(socket)?;
        let greeting = protocol::greet(&mut stream)?;
        let (reader, writer) = (stream.try_clone()?, stream.try_clone()?);
        let connection = Arc::new(Connection {
            writer: Mutex::new(writer),
            stream,
            waiting: Mutex::new(Some(HashMap::new())),
            cookie: AtomicU64::new(1),
        });
        let heard = connection.clone();
        std::thread::Builder::new().name("nbd-client".into()).spawn(move || heard.hear(reader))?;
        Ok((connection, greeting))
    }

    fn is_alive(&self) -> bool {
        guard(&self.waiting).is_some()
    }

    /// Whether a request may be begun without waiting for those before it.
    fn has_room(&self) -> bool {
        guard(&self.waiting).as_ref().is_some_and(|w| w.len() < BEGUN_MAX)
    }

    fn send(&self, command: Command, offset: u64, len: u64, payload: &[u8], tell: Tell) {
        let cookie = self.cookie.fetch_add(1, Relaxed);
        let bytes = if command == Command::Read { len as usize } else { 0 };
        let mut tell = Some(tell);
        if let Some(waiting) = guard(&self.waiting).as_mut()
            && let Some(tell) = tell.take()
        {
            waiting.insert(cookie, Waiter { bytes, tell });
        }
        if let Some(tell) = tell {
            return tell(Err(lost()));
        }
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        let request = Request { command, fua: false, cookie, offset, len };
        let sent = protocol::ask(&mut *guard(&self.writer), &request, payload);
        if sent.is_err() {
            self.end();
        }
    }

    /// Passes answers on until there are no more.
    fn hear(&self, stream: UnixStream) {
        let mut stream = io::BufReader::with_capacity(256 << 10, stream);
        while let Ok((error, cookie)) = protocol::reply_head(&mut stream) {
            let waiter = guard(&self.waiting).as_mut().and_then(|w| w.remove(&cookie));
            let Some(Waiter { bytes, tell }) = waiter else { break };
            match error {
                0 => {}
                // The program ends; or its cluster refuses it, since another has the right to write. It was not done.
                SHUTDOWN => {
                    tell(Err(lost()));
                    continue;
                }
                error => {
                    tell(Err(io::Error::from_raw_os_error(error.cast_signed())));
                    continue;
                }
            }
            let mut data = vec![0; bytes];
            match stream.read_exact(&mut data) {
                Ok(()) => tell(Ok(data)),
                Err(_) => {
                    tell(Err(lost()));
                    break;
                }
            }
        }
        self.end();
    }

    /// Tells all who wait that they are to ask again.
    fn end(&self) {
        let waiting = guard(&self.waiting).take();
        let _ = self.stream.shutdown(Shutdown::Both);
        for (_, waiter) in waiting.into_iter().flatten() {
            (waiter.tell)(Err(lost()));
        }
    }
}

fn take(from: &mut Pieces<'_, Source>, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len as usize];
    if from.take(&mut bytes) { Ok(bytes) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// The error of a request that is to be asked again.
fn lost() -> io::Error {
    media::held("what serves the volume does not answer")
}

// What these locks guard is whole after a panic.
fn guard<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
