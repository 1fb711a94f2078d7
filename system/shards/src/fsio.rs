//! What volumes need of a file system and the standard library lacks: durable replacement of small files, sparse
//! and shared copies, holes, free space.
//!
//! Works on paths and files it is given; knows nothing of volumes. When a function that says "durable" returns,
//! what it did outlives a power cut.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::{Whence, lseek};

/// How much a copy moves at a time, in bytes.
const COPY_CHUNK: u64 = 8 << 20;

/// Makes the entries of a directory durable.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Replaces a small file, durably: readers see the old bytes or the new ones, after any crash.
pub fn replace(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let new = dir.join(format!("{name}.new"));
    let written = File::create(&new).and_then(|mut f| f.write_all(bytes).and_then(|()| f.sync_all()));
    if let Err(e) = written {
        let _ = fs::remove_file(&new);
        return Err(e);
    }
    fs::rename(&new, dir.join(name))?;
    sync_dir(dir)
}

/// Does something with each, several at a time: what waits for the disk waits together. The first failure is answered.
pub fn each_at_once<T: Sync>(all: &[T], f: impl Fn(&T) -> io::Result<()> + Sync) -> io::Result<()> {
    const AT_ONCE: usize = 16;
    if all.len() <= 2 {
        return all.iter().try_for_each(f);
    }
    let next = AtomicUsize::new(0);
    let work = || -> io::Result<()> {
        while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            f(one)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE.min(all.len())).map(|_| scope.spawn(work)).collect();
        let mut ended = threads.into_iter().map(|thread| thread.join());
        ended.try_for_each(|end| end.unwrap_or_else(|_| Err(io::Error::other("a thread has panicked"))))
    })
}

/// Removes a file, durably. One that is not there is left alone.
pub fn remove(dir: &Path, name: &str) -> io::Result<()> {
    match fs::remove_file(dir.join(name)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.and_then(|()| sync_dir(dir)),
    }
}

/// Removes a file if it is there; not durably.
pub fn remove_any(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Whether a file has more names than one.
pub fn has_links(found: &fs::Metadata) -> bool {
    found.nlink() > 1
}

/// Makes `to`, a new name, hold what the file `from` holds: as a link to it, which costs the same whatever is in it; if
/// there cannot be one, as a file of its own, see [`clone_file`]. A link's content is on stable media if that of `from`
/// is.
pub fn link_or_clone(from: &Path, to: &Path) -> io::Result<()> {
    use libc::{EMLINK, ENOSYS, EOPNOTSUPP, EPERM, EXDEV};
    match fs::hard_link(from, to) {
        Err(e) if matches!(e.raw_os_error(), Some(EMLINK | ENOSYS | EOPNOTSUPP | EPERM | EXDEV)) => {
            clone_file(&File::open(from)?, &File::create_new(to)?)
        }
        linked => linked,
    }
}

/// Reads a file that must be small.
pub fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    const SMALL: u64 = 1 << 20;
    let mut bytes = Vec::new();
    File::open(path)?.take(SMALL + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > SMALL {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is too large to be ours"));
    }
    Ok(bytes)
}

/// Whether the error says that there is no room (or no quota) left.
pub fn is_full(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

/// What an error is to people, who know disks rather than the words of the system.
pub fn reason(e: &io::Error) -> String {
    if is_full(e) { "disk full".into() } else { e.to_string() }
}

/// Frees a range of a file, which reads as zeroes from then on. The file's length stays. False if this file
/// system cannot.
pub fn punch_hole(file: &File, offset: u64, len: u64) -> io::Result<bool> {
    allocate(file, FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE, offset, len)
}

/// Makes a range of a file read as zeroes and keeps its room reserved. False if this file system cannot.
pub fn zero_range(file: &File, offset: u64, len: u64) -> io::Result<bool> {
    allocate(file, FallocateFlags::FALLOC_FL_ZERO_RANGE | FallocateFlags::FALLOC_FL_KEEP_SIZE, offset, len)
}

fn allocate(file: &File, flags: FallocateFlags, offset: u64, len: u64) -> io::Result<bool> {
    loop {
        match fallocate(file, flags, offset as i64, len as i64) {
            Ok(()) => return Ok(true),
            Err(Errno::EINTR) => {}
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => return Ok(false),
            Err(e) => return Err(e.into()),
        }
    }
}

/// Whether nothing is stored in a range of a file. False where the file system cannot tell.
pub fn is_hole(file: &File, offset: u64, len: u64) -> io::Result<bool> {
    match lseek(file.as_fd(), offset as i64, Whence::SeekData) {
        Ok(data) => Ok(data as u64 >= offset + len),
        Err(Errno::ENXIO) => Ok(true),
        Err(e) => Err(e.into()),
    }
}

/// The bytes of a file system: all, and those free for us.
pub fn space(path: &Path) -> io::Result<(u64, u64)> {
    let s = nix::sys::statvfs::statvfs(path)?;
    let unit = s.fragment_size();
    Ok((s.blocks() * unit, s.blocks_available() * unit))
}

/// Bytes that the files of a directory take on their disk.
pub fn allocated(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|e| e.metadata().ok()).map(|m| m.blocks() * 512).sum()
}

/// Makes `to` (an empty file) hold what `from` holds: shared blocks where the file system can, else a sparse copy.
pub fn clone_file(from: &File, to: &File) -> io::Result<()> {
    match crate::sys::reflink(from, to) {
        Ok(()) => Ok(()),
        Err(e) if cannot_share(&e) => copy_sparse(from, 0, from.metadata()?.len(), to),
        Err(e) => Err(e),
    }
}

/// Makes the beginning of `to` hold `len` bytes of `from` from `offset` on, as [`clone_file`] does.
pub fn clone_range(from: &File, offset: u64, len: u64, to: &File) -> io::Result<()> {
    match crate::sys::reflink_range(from, offset, len, to) {
        Ok(()) => Ok(()),
        Err(e) if cannot_share(&e) => copy_sparse(from, offset, len, to),
        Err(e) => Err(e),
    }
}

fn cannot_share(e: &io::Error) -> bool {
    use libc::{EINVAL, ENOSYS, ENOTTY, EOPNOTSUPP, EXDEV};
    matches!(e.raw_os_error(), Some(EOPNOTSUPP | EXDEV | EINVAL | ENOTTY | ENOSYS))
}

/// Copies the data of a range, leaving holes where `from` has them. What is missing at the end stays missing.
fn copy_sparse(from: &File, offset: u64, len: u64, to: &File) -> io::Result<()> {
    let end = offset.saturating_add(len).min(from.metadata()?.len());
    let mut at = offset;
    while at < end {
        let data = match lseek(from.as_fd(), at as i64, Whence::SeekData) {
            Ok(data) => (data as u64).min(end),
            Err(Errno::ENXIO) => break,
            Err(e) => return Err(e.into()),
        };
        let hole = (lseek(from.as_fd(), data as i64, Whence::SeekHole)? as u64).min(end);
        copy_data(from, data, hole - data, to, data - offset)?;
        at = hole.max(at + 1);
    }
    to.set_len(end.saturating_sub(offset).max(to.metadata()?.len()))
}

fn copy_data(from: &File, mut at: u64, mut len: u64, to: &File, mut out: u64) -> io::Result<()> {
    while len > 0 {
        let done = match crate::sys::copy_range(from, at, len.min(COPY_CHUNK), to, out) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => 0,
            Err(e) if cannot_share(&e) => return copy_by_hand(from, at, len, to, out),
            Err(e) => return Err(e),
        };
        (at, out, len) = (at + done, out + done, len - done);
    }
    Ok(())
}

fn copy_by_hand(from: &File, mut at: u64, mut len: u64, to: &File, mut out: u64) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    while len > 0 {
        let want = len.min(buffer.len() as u64) as usize;
        let n = from.read_at(&mut buffer[..want], at)?;
        if n == 0 {
            return Ok(());
        }
        to.write_all_at(&buffer[..n], out)?;
        (at, out, len) = (at + n as u64, out + n as u64, len - n as u64);
    }
    Ok(())
}

/// Takes the lock of a file for this process, or says that another has it. It is held while the file is open.
pub fn lock(file: &File) -> io::Result<()> {
    file.try_lock().map_err(|e| match e {
        fs::TryLockError::WouldBlock => {
            io::Error::new(io::ErrorKind::ResourceBusy, "another process has it in use")
        }
        fs::TryLockError::Error(e) => e,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_keeps_data_and_holes() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(true);
        let from = options.open(dir.path().join("from")).unwrap();
        from.write_all_at(b"head", 0).unwrap();
        from.write_all_at(b"tail", 3 << 20).unwrap();
        from.set_len(5 << 20).unwrap();
        for (offset, len) in [(0, 5 << 20), (1 << 20, 3 << 20), (2, 9)] {
            let to = options.open(dir.path().join("to")).unwrap();
            copy_sparse(&from, offset, len, &to).unwrap();
            let (mut a, mut b) = (vec![1; len as usize], vec![2; len as usize]);
            from.read_exact_at(&mut a, offset).unwrap();
            to.read_exact_at(&mut b, 0).unwrap();
            assert!(a == b, "{offset}+{len}");
        }
    }

    #[test]
    fn what_cannot_be_linked_is_copied() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        fs::write(&from, b"content").unwrap();
        link_or_clone(&from, &dir.path().join("link")).unwrap();
        assert!(has_links(&from.metadata().unwrap()));
        // Another file system, as far as this machine has one in memory.
        let other = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap());
        let to = other.path().join("to");
        link_or_clone(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"content");
        let same = from.metadata().unwrap().dev() == to.metadata().unwrap().dev();
        assert_eq!(has_links(&to.metadata().unwrap()), same);
        assert!(link_or_clone(&from, &to).is_err(), "it is there already");
        assert!(link_or_clone(&dir.path().join("none"), &other.path().join("x")).is_err());
    }

    #[test]
    fn a_failed_replacement_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        replace(dir.path(), "f", b"one").unwrap();
        replace(dir.path(), "f", b"two").unwrap();
        assert_eq!(read_small(&dir.path().join("f")).unwrap(), b"two");
        // A directory in the way of the new file stands for any failure to write it.
        fs::create_dir(dir.path().join("f.new")).unwrap();
        assert!(replace(dir.path(), "f", b"three").is_err());
        assert_eq!(read_small(&dir.path().join("f")).unwrap(), b"two");
    }
}
