//! The system calls that have no safe wrapper: shared copies of files, and vectored I/O on guest memory.
//!
//! The only `unsafe` code of the crate beside the closing of event descriptors in [`crate::blk`]. Allowed here
//! because guest memory is shared with a running guest, so it can never be a Rust slice.
#![expect(unsafe_code, reason = "system calls that no dependency wraps, and memory shared with a guest")]

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use vm_memory::VolatileSlice;
use vm_memory::bitmap::BitmapSlice;

/// `FICLONE` and `FICLONERANGE` of ioctl_ficlonerange(2).
const FICLONE: libc::Ioctl = 0x4004_9409u32 as libc::Ioctl;
const FICLONERANGE: libc::Ioctl = 0x4020_940du32 as libc::Ioctl;
/// The most pieces that one call takes.
const PIECES_MAX: usize = 1024;

#[repr(C)]
struct CloneRange {
    src_fd: i64,
    src_offset: u64,
    src_length: u64,
    dest_offset: u64,
}

/// Makes `to` share all blocks of `from`.
pub fn reflink(from: &File, to: &File) -> io::Result<()> {
    // SAFETY: both descriptors are open for the length of the call, which touches no memory of ours.
    check(unsafe { libc::ioctl(to.as_raw_fd(), FICLONE, from.as_raw_fd()) })
}

/// Makes the beginning of `to` share `len` bytes of `from` from `offset` on.
pub fn reflink_range(from: &File, offset: u64, len: u64, to: &File) -> io::Result<()> {
    let range =
        CloneRange { src_fd: from.as_raw_fd().into(), src_offset: offset, src_length: len, dest_offset: 0 };
    // SAFETY: the kernel only reads `range`, which has the layout it expects and outlives the call.
    check(unsafe { libc::ioctl(to.as_raw_fd(), FICLONERANGE, &raw const range) })
}

/// Copies some of `len` bytes inside the kernel; answers how many, 0 at the end of `from`.
pub fn copy_range(from: &File, offset: u64, len: u64, to: &File, to_offset: u64) -> io::Result<u64> {
    let (mut from_at, mut to_at) = (offset as i64, to_offset as i64);
    // SAFETY: the kernel reads and writes the two offsets, which outlive the call.
    let n = unsafe {
        libc::copy_file_range(from.as_raw_fd(), &mut from_at, to.as_raw_fd(), &mut to_at, len as usize, 0)
    };
    u64::try_from(n).map_err(|_| io::Error::last_os_error())
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What a program that is run may do.
#[derive(Debug, Clone, Copy)]
pub enum Confinement {
    /// It handles what we do not trust: no network, at low priority, within these bounds.
    Apart {
        /// Address space, in bytes.
        memory: u64,
        /// Processor time, in seconds.
        cpu_seconds: u64,
        /// The largest file it may write, in bytes.
        file_bytes: u64,
    },
    /// It speaks to a cluster for us, with our own rights at most.
    Ours,
}

/// Makes a command run so confined, and no longer than the thread that starts it. It does not start if that cannot be had.
pub fn confine(command: &mut std::process::Command, confinement: Confinement) {
    use std::os::unix::process::CommandExt;
    // SAFETY: the closure runs between fork and exec; it makes system calls alone, and allocates nothing.
    unsafe { command.pre_exec(move || confine_self(confinement)) };
}

fn confine_self(confinement: Confinement) -> io::Result<()> {
    if let Confinement::Apart { memory, cpu_seconds, file_bytes } = confinement {
        set_apart(memory, cpu_seconds, file_bytes)?;
    }
    // SAFETY: plain system calls on this process.
    unsafe {
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
        match confinement {
            Confinement::Apart { .. } => check(libc::setpriority(libc::PRIO_PROCESS, 0, 10)),
            Confinement::Ours => Ok(()),
        }
    }
}

fn set_apart(memory: u64, cpu_seconds: u64, file_bytes: u64) -> io::Result<()> {
    use nix::sched::{CloneFlags, unshare};
    use nix::sys::resource::{Resource, setrlimit};
    for (resource, limit) in [
        (Resource::RLIMIT_AS, memory),
        (Resource::RLIMIT_CPU, cpu_seconds),
        (Resource::RLIMIT_FSIZE, file_bytes),
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_NOFILE, 64),
    ] {
        setrlimit(resource, limit, limit)?;
    }
    // Without the privilege for a network namespace, one comes with a user namespace.
    unshare(CloneFlags::CLONE_NEWNET)
        .or_else(|_| unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET))?;
    Ok(())
}

/// Memory that may be written: where a read puts its data.
pub enum Sink {}
/// Memory that may be read: what a write stores.
pub enum Source {}

/// Pieces of memory, in order, that live for `'m`; consumed from the front. `K` says what may be done to them.
pub struct Pieces<'m, K> {
    all: Vec<libc::iovec>,
    at: Position,
    _memory: PhantomData<(&'m mut [u8], K)>,
}

/// How far pieces are consumed: a piece, and the bytes of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    piece: usize,
    within: usize,
}

// SAFETY: pieces point to memory that is valid from any thread for 'm (slices, or mappings of guest memory).
unsafe impl<K> Send for Pieces<'_, K> {}

impl<K> Default for Pieces<'_, K> {
    fn default() -> Self {
        Pieces { all: Vec::new(), at: Position::default(), _memory: PhantomData }
    }
}

impl<'m, K> Pieces<'m, K> {
    /// Empties the list and keeps its room, for memory of another lifetime.
    pub fn recycle<'n>(mut self) -> Pieces<'n, K> {
        self.all.clear();
        Pieces { all: self.all, at: Position::default(), _memory: PhantomData }
    }

    /// Appends a part of a guest's memory.
    pub fn push_guest<B: BitmapSlice>(&mut self, slice: &VolatileSlice<'m, B>) {
        self.push(slice.ptr_guard_mut().as_ptr(), slice.len());
    }

    fn push(&mut self, base: *mut u8, len: usize) {
        if len > 0 {
            self.all.push(libc::iovec { iov_base: base.cast(), iov_len: len });
        }
    }

    /// The bytes not yet consumed.
    pub fn len(&self) -> u64 {
        let whole: u64 = self.all[self.at.piece..].iter().map(|p| p.iov_len as u64).sum();
        whole - self.at.within as u64
    }

    /// Whether all is consumed.
    pub fn is_empty(&self) -> bool {
        self.at.piece == self.all.len()
    }

    /// How far they are consumed, for [`Pieces::rewind`].
    pub fn position(&self) -> Position {
        self.at
    }

    /// Goes back to where they were.
    pub fn rewind(&mut self, to: Position) {
        self.at = to;
    }

    fn advance(&mut self, mut n: usize) {
        while n > 0
            && let Some(piece) = self.all.get(self.at.piece)
        {
            let step = n.min(piece.iov_len - self.at.within);
            (self.at.within, n) = (self.at.within + step, n - step);
            if self.at.within == piece.iov_len {
                self.at = Position { piece: self.at.piece + 1, within: 0 };
            }
        }
    }

    /// What is left of the first piece.
    fn front(&self) -> Option<(*mut u8, usize)> {
        let piece = self.all.get(self.at.piece)?;
        // SAFETY: within is within the piece.
        let base = unsafe { piece.iov_base.cast::<u8>().add(self.at.within) };
        Some((base, piece.iov_len - self.at.within)).filter(|(_, len)| *len > 0)
    }

    /// Calls `f` with the pieces that make up at most `len` bytes at the front, then consumes what it used.
    fn with_front(&mut self, len: u64, f: impl FnOnce(&[libc::iovec]) -> isize) -> io::Result<usize> {
        let Position { piece: first, within } = self.at;
        let Some((base, rest)) = self.front() else { return Err(io::ErrorKind::InvalidInput.into()) };
        let (mut end, mut sum) = (first + 1, rest as u64);
        while end < self.all.len() && end - first < PIECES_MAX && sum < len {
            sum += self.all[end].iov_len as u64;
            end += 1;
        }
        let before = (self.all[first], self.all[end - 1]);
        (self.all[first].iov_base, self.all[first].iov_len) = (base.cast(), before.0.iov_len - within);
        self.all[end - 1].iov_len -= sum.saturating_sub(len) as usize;
        let done = f(&self.all[first..end]);
        let error = io::Error::last_os_error();
        self.all[end - 1] = before.1;
        self.all[first] = before.0;
        let done = usize::try_from(done).map_err(|_| error)?;
        self.advance(done);
        Ok(done)
    }

    /// Copies bytes out of the front; false (and nothing consumed) if there are too few.
    pub fn take(&mut self, bytes: &mut [u8]) -> bool {
        let before = self.at;
        let mut rest = bytes;
        while !rest.is_empty() {
            let Some((base, len)) = self.front() else {
                self.at = before;
                return false;
            };
            let (now, later) = rest.split_at_mut(len.min(rest.len()));
            // SAFETY: the piece is readable for 'm and as long as `now`; what a guest does to it meanwhile may garble
            // its own data and nothing else.
            unsafe { std::ptr::copy_nonoverlapping(base, now.as_mut_ptr(), now.len()) };
            let done = now.len();
            self.advance(done);
            rest = later;
        }
        true
    }
}

impl<'m> Pieces<'m, Sink> {
    /// The same pieces, to be filled once more.
    pub fn again(&self) -> Pieces<'m, Sink> {
        Pieces { all: self.all.clone(), at: self.at, _memory: PhantomData }
    }

    /// Appends memory of ours.
    pub fn push_slice(&mut self, slice: &'m mut [u8]) {
        self.push(slice.as_mut_ptr(), slice.len());
    }

    /// Reads `len` bytes at `offset` of a file into the front; what the file lacks is zeroes.
    pub fn fill_from(&mut self, file: &File, offset: u64, len: u64) -> io::Result<()> {
        self.fill(file, offset, len, 0)
    }

    /// Like [`Pieces::fill_from`], from the page cache alone; false (and perhaps some consumed) if it lacks any of it.
    pub fn fill_cached(&mut self, file: &File, offset: u64, len: u64) -> io::Result<bool> {
        at_once(self.fill(file, offset, len, libc::RWF_NOWAIT))
    }

    fn fill(&mut self, file: &File, mut offset: u64, mut len: u64, flags: libc::c_int) -> io::Result<()> {
        while len > 0 {
            let n = self.with_front(len, |v| {
                // SAFETY: the pieces are writable for 'm, which self carries.
                unsafe { libc::preadv2(file.as_raw_fd(), v.as_ptr(), v.len() as i32, offset as i64, flags) }
            });
            match n {
                Ok(0) => return self.fill_zeroes(len),
                Ok(n) => (offset, len) = (offset + n as u64, len - n as u64),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Writes zeroes into `len` bytes at the front.
    pub fn fill_zeroes(&mut self, mut len: u64) -> io::Result<()> {
        while len > 0 {
            let Some((base, room)) = self.front() else { return Err(io::ErrorKind::InvalidInput.into()) };
            let n = (room as u64).min(len) as usize;
            // SAFETY: n is within the piece, which is writable for 'm.
            unsafe { std::ptr::write_bytes(base, 0, n) };
            self.advance(n);
            len -= n as u64;
        }
        Ok(())
    }

    /// Copies bytes into the front; false if there is too little room.
    pub fn put(&mut self, bytes: &[u8]) -> bool {
        let before = self.at;
        let mut rest = bytes;
        while !rest.is_empty() {
            let Some((base, len)) = self.front() else {
                self.at = before;
                return false;
            };
            let (now, later) = rest.split_at(rest.len().min(len));
            // SAFETY: the piece is writable for 'm and as long as `now`; what a guest does to it meanwhile may garble
            // its own data and nothing else.
            unsafe { std::ptr::copy_nonoverlapping(now.as_ptr(), base, now.len()) };
            self.advance(now.len());
            rest = later;
        }
        true
    }

    /// Takes the last byte off the end.
    pub fn split_last_byte(&mut self) -> Option<Byte<'m>> {
        let last = self.all[self.at.piece..].last_mut()?;
        last.iov_len -= 1;
        // SAFETY: the piece had at least one byte, and iov_len is now the offset of its last one.
        let at = unsafe { last.iov_base.cast::<u8>().add(last.iov_len) };
        if last.iov_len == 0 {
            self.all.pop();
        }
        Some(Byte { at, _memory: PhantomData })
    }
}

/// One writable byte of a guest's memory.
pub struct Byte<'m> {
    at: *mut u8,
    _memory: PhantomData<&'m mut u8>,
}

impl Byte<'_> {
    /// Writes it.
    pub fn set(&self, value: u8) {
        // SAFETY: the byte is writable for as long as self lives.
        unsafe { self.at.write_volatile(value) };
    }
}

impl<'m> Pieces<'m, Source> {
    /// Appends memory of ours.
    pub fn push_bytes(&mut self, bytes: &'m [u8]) {
        self.push(bytes.as_ptr().cast_mut(), bytes.len());
    }
}

/// Reads what the page cache has at `offset` of a file, and zeroes beyond its end; false if it lacks any of it.
pub fn read_cached(file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<bool> {
    while !bytes.is_empty() {
        let piece = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        // SAFETY: the kernel writes into the piece, which is `bytes`, and nothing else.
        let n =
            unsafe { libc::preadv2(file.as_raw_fd(), &raw const piece, 1, offset as i64, libc::RWF_NOWAIT) };
        match usize::try_from(n) {
            Ok(0) => {
                bytes.fill(0);
                return Ok(true);
            }
            Ok(n) => (bytes, offset) = (&mut bytes[n..], offset + n as u64),
            Err(_) => match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::Interrupted => {}
                e => return at_once(Err(e)),
            },
        }
    }
    Ok(true)
}

/// Writes the beginning of `bytes` at `offset` of a file without waiting for anything; answers how much. Where the file
/// system cannot tell whether it would wait, it is written to the page cache as ever.
pub fn write_at_once(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    let piece = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: the kernel reads the piece, which is `bytes`, and nothing else.
    let n = unsafe { libc::pwritev2(file.as_raw_fd(), &raw const piece, 1, offset as i64, libc::RWF_NOWAIT) };
    match usize::try_from(n) {
        Ok(n) => Ok(n),
        Err(_) => match io::Error::last_os_error() {
            e if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => {
                file.write_at(bytes, offset)
            }
            e => at_once(Err(e)).map(|_| 0),
        },
    }
}

/// Waits for bytes on a socket and looks at them without taking them; answers how many, 0 at its end. With `take_fd`, also
/// the first descriptor that came with them, once more for us.
pub fn peek(socket: &UnixStream, bytes: &mut [u8], take_fd: bool) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut pieces = [io::IoSliceMut::new(bytes)];
    // No room for a second one.
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = match take_fd {
        true => RecvAncillaryBuffer::new(&mut room),
        false => RecvAncillaryBuffer::default(),
    };
    let flags = RecvFlags::PEEK | RecvFlags::CMSG_CLOEXEC;
    let read = loop {
        match recvmsg(socket, &mut pieces, &mut control, flags) {
            Err(rustix::io::Errno::INTR) => {}
            read => break read?.bytes,
        }
    };
    let mut fds = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    Ok((read, fds.next().and_then(|mut fds| fds.next())))
}

/// Whether something was done without waiting.
fn at_once(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        // It would have to wait, or this file system cannot tell.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EOPNOTSUPP)) => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cross_their_borders() {
        let file = tempfile::tempfile().unwrap();
        let (a, b) = (*b"hello", *b", world");
        let mut source = Pieces::<Source>::default();
        source.push_bytes(&a);
        source.push_bytes(&b);
        let mut head = [0; 2];
        assert!(source.take(&mut head) && &head == b"he");
        let before = source.position();
        let mut rest = [0; 10];
        assert!(source.take(&mut rest) && &rest == b"llo, world" && source.is_empty());
        assert!(!source.take(&mut head));
        source.rewind(before);
        assert_eq!(source.len(), 10);
        file.write_all_at(b"llo, world", 95).unwrap();

        let (mut x, mut y) = ([1; 3], [1; 6]);
        let mut sink = Pieces::<Sink>::default();
        sink.push_slice(&mut x);
        sink.push_slice(&mut y);
        let last = sink.split_last_byte().unwrap();
        assert!(sink.fill_cached(&file, 102, 4).unwrap());
        sink.fill_from(&file, 106, 4).unwrap();
        last.set(b'!');
        assert_eq!((&x, &y), (b"rld", b"\0\0\0\0\0!"));
    }

    #[test]
    fn what_is_looked_at_stays_and_a_descriptor_comes_twice() {
        use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
        let (ours, theirs) = UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"here", 0).unwrap();
        let (bytes, fds) = ([io::IoSlice::new(b"hello")], [file.as_raw_fd(), ours.as_raw_fd()]);
        let sent = sendmsg::<()>(
            theirs.as_raw_fd(),
            &bytes,
            &[ControlMessage::ScmRights(&fds)],
            MsgFlags::empty(),
            None,
        );
        assert_eq!(sent, Ok(5));
        let mut head = [0; 2];
        for take in [false, true, true] {
            let (n, fd) = peek(&ours, &mut head, take).unwrap();
            assert_eq!((n, &head, fd.is_some()), (2, b"he", take));
            if let Some(fd) = fd {
                let mut content = [0; 4];
                File::from(fd).read_exact_at(&mut content, 0).unwrap();
                assert_eq!(&content, b"here");
            }
        }
        drop(theirs);
        let mut all = Vec::new();
        std::io::Read::read_to_end(&mut &ours, &mut all).unwrap();
        assert_eq!(all, b"hello");
        assert_eq!(peek(&ours, &mut head, true).unwrap().0, 0, "its end");
    }

    #[test]
    fn nothing_is_taken_from_too_little() {
        let mut source = Pieces::<Source>::default();
        source.push_bytes(b"abc");
        assert!(!source.take(&mut [0; 4]));
        assert_eq!(source.len(), 3);
        let mut sink = Pieces::<Sink>::default();
        assert!(sink.split_last_byte().is_none());
        assert!(sink.fill_zeroes(1).is_err());
    }
}
