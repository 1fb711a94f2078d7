//! A file by io_uring, with nothing between: what the disk and its file system can do.
#![expect(
    unsafe_code,
    reason = "who gives the kernel a buffer promises that it lives as long as the request"
)]

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use io_uring::{IoUring, opcode, types};
use nix::fcntl::OFlag;

use super::load::{Disk, Op, Request};
use super::memory::{Memory, SLOTS};

/// An open file.
pub struct Raw {
    ring: IoUring,
    file: File,
    memory: Memory,
    /// What each slot transfers, of those on their way.
    on_way: [Option<u64>; SLOTS],
}

impl Raw {
    /// Opens a file, past the page cache or through it.
    pub fn open(path: &Path, direct: bool, memory: &Memory) -> Result<Raw> {
        let flags = if direct { OFlag::O_DIRECT.bits() } else { 0 };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags)
            .open(path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        let ring = IoUring::new(SLOTS as u32).context("no io_uring")?;
        Ok(Raw { ring, file, memory: memory.clone(), on_way: [None; SLOTS] })
    }
}

impl Disk for Raw {
    fn submit(&mut self, slot: usize, request: Request) -> Result<()> {
        let (fd, buffer) = (types::Fd(self.file.as_raw_fd()), self.memory.host(slot)?);
        let len = request.len as u32;
        let entry = match request.op {
            Op::Read => opcode::Read::new(fd, buffer, len).offset(request.offset).build(),
            Op::Write => opcode::Write::new(fd, buffer, len).offset(request.offset).build(),
            Op::Flush => opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build(),
        };
        self.on_way[slot] = Some(request.len);
        // SAFETY: the buffer is the slot's own, lies in the memory that `self` holds, and has room for the longest
        // request; `drop` waits for all that are on their way. The file is open as long as `self`.
        unsafe { self.ring.submission().push(&entry.user_data(slot as u64)) }.context("too many requests")
    }

    fn wait(&mut self, done: &mut Vec<usize>) -> Result<()> {
        self.ring.submit_and_wait(1)?;
        for entry in self.ring.completion() {
            let slot = entry.user_data() as usize;
            let wanted = self.on_way[slot].take();
            ensure!(
                u64::try_from(entry.result()).ok() == wanted,
                "a request for {wanted:?} bytes ended with {}",
                entry.result()
            );
            done.push(slot);
        }
        Ok(())
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        while self.on_way.iter().any(Option::is_some) && self.ring.submit_and_wait(1).is_ok() {
            for entry in self.ring.completion() {
                self.on_way[entry.user_data() as usize] = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::{Load, flush, run};
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let memory = Memory::new().unwrap();
        let directory = std::env::temp_dir().join(format!("bench-raw-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("file");
        File::create(&path).unwrap().set_len(16 << 20).unwrap();
        let mut disk = Raw::open(&path, false, &memory).unwrap();
        run(&mut disk, &memory, Load::FILL, 16 << 20, None, 1).unwrap();
        flush(&mut disk).unwrap();
        let read = Load { op: Op::Read, ..Load::FILL };
        assert_eq!(run(&mut disk, &memory, read, 16 << 20, None, 1).unwrap().count, 16);
        std::fs::remove_dir_all(directory).unwrap();
    }
}
