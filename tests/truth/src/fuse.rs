//! A disk as a file: the little of FUSE's protocol that a mount of one regular file needs. The kernel keeps nothing of
//! it in its page cache, so the disk sees every read, write and flush of the loop device on top.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use crate::disk::Disk;

/// The most that one request carries.
const TRANSFER: u32 = 1 << 20;
const HEAD: usize = 40;
const BUFFER: usize = TRANSFER as usize + (64 << 10);
const MODE: u32 = 0o100_600;

mod op {
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const INTERRUPT: u32 = 36;
    pub const BATCH_FORGET: u32 = 42;
}

/// `FUSE_ASYNC_READ`, `FUSE_BIG_WRITES`, `FUSE_MAX_PAGES`
const FLAGS: u32 = 1 | 1 << 5 | 1 << 22;
/// `FOPEN_DIRECT_IO`
const DIRECT_IO: u32 = 1;

/// Mounts the disk over a file, and serves it until it is unmounted.
pub fn serve(disk: Arc<Disk>, file: &Path) -> Result<()> {
    File::create(file)?;
    let device =
        File::options().read(true).write(true).open("/dev/fuse").context("no FUSE in this kernel")?;
    let options = format!("fd={},rootmode={MODE:o},user_id=0,group_id=0", device.as_raw_fd());
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("truth"), file, Some("fuse"), flags, Some(options.as_str())).context("FUSE does not mount")?;
    std::thread::spawn(move || answer_all(&disk, device));
    Ok(())
}

fn answer_all(disk: &Disk, mut device: File) {
    let mut buffer = vec![0; BUFFER];
    loop {
        let len = match device.read(&mut buffer) {
            Ok(len) => len,
            Err(e) if e.raw_os_error() == Some(Errno::ENODEV as i32) => return,
            // The request was taken back.
            Err(_) => continue,
        };
        let Some(request) = Request::of(&buffer[..len]) else { continue };
        let Some(answer) = answer(disk, &request) else { continue };
        // Nobody waits for it any more, if this fails.
        drop(device.write(&framed(request.unique, answer)));
    }
}

struct Request<'a> {
    code: u32,
    unique: u64,
    body: &'a [u8],
}

impl Request<'_> {
    fn of(bytes: &[u8]) -> Option<Request<'_>> {
        let body = bytes.get(HEAD..)?;
        Some(Request { code: u32_at(bytes, 4), unique: u64_at(bytes, 8), body })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn framed(unique: u64, answer: Result<Vec<u8>, Errno>) -> Vec<u8> {
    let (error, body) = match answer {
        Ok(body) => (0, body),
        Err(e) => (-(e as i32), Vec::new()),
    };
    let mut bytes = Vec::with_capacity(16 + body.len());
    bytes.extend(((16 + body.len()) as u32).to_le_bytes());
    bytes.extend(error.to_le_bytes());
    bytes.extend(unique.to_le_bytes());
    bytes.extend(body);
    bytes
}

/// What is answered to a request; `None` for those that want none.
fn answer(disk: &Disk, request: &Request<'_>) -> Option<Result<Vec<u8>, Errno>> {
    let body = request.body;
    Some(match request.code {
        op::FORGET | op::BATCH_FORGET | op::INTERRUPT => return None,
        op::INIT => Ok(init(body)),
        op::GETATTR => Ok(attributes(disk.size())),
        op::OPEN => {
            disk.note_open(true);
            Ok(words(&[0, 0, DIRECT_IO, 0]))
        }
        op::RELEASE => {
            disk.note_open(false);
            Ok(Vec::new())
        }
        op::READ => {
            let room = disk.size().saturating_sub(u64_at(body, 8));
            let mut bytes = vec![0; u64::from(u32_at(body, 16).min(TRANSFER)).min(room) as usize];
            disk.read(u64_at(body, 8), &mut bytes).map(|()| bytes)
        }
        op::WRITE => {
            let len = u32_at(body, 16);
            match body.get(40..40 + len as usize) {
                Some(bytes) => disk.write(u64_at(body, 8), bytes).map(|()| words(&[len, 0])),
                None => Err(Errno::EINVAL),
            }
        }
        op::FSYNC => disk.flush().map(|()| Vec::new()),
        op::FLUSH => Ok(Vec::new()),
        op::STATFS => Ok(vec![0; 80]),
        _ => Err(Errno::ENOSYS),
    })
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn init(body: &[u8]) -> Vec<u8> {
    let flags = u32_at(body, 12) & FLAGS;
    let pages = TRANSFER / 4096;
    let mut answer = words(&[7, 31, u32_at(body, 8), flags, 64 | 48 << 16, TRANSFER, 1, pages]);
    answer.resize(64, 0);
    answer
}

fn attributes(size: u64) -> Vec<u8> {
    // For an hour; then inode, size, blocks.
    let mut answer: Vec<u8> =
        [3600, 0, 1, size, size / 512, 0, 0, 0].iter().flat_map(|word: &u64| word.to_le_bytes()).collect();
    // Parts of seconds, mode, links, owner, device, block size.
    answer.extend(words(&[0, 0, 0, MODE, 1, 0, 0, 0, 4096, 0]));
    answer
}
