//! What a hostile guest or front-end may say, by the dice: nothing of it may end a thread, hang, or lead out of the
//! guest's memory or the volume. `CAIRN_FUZZ_RUNS` inputs each (20,000 by default), from `CAIRN_FUZZ_SEED` on.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use vhost::vhost_user::BackendReqHandler;
use vm_memory::{Bytes, GuestAddress, GuestRegionMmap, MmapRegion};

use super::GuestMap;
use super::device::Device;
use super::handler::Handler;
use super::memory::map_shared;
use super::request::{Outcome, Request, Room};
use super::ring::Ring;
use super::server::hear;
use crate::media::Media;
use crate::sys::{Pieces, Sink, Source};

/// The volume's size in bytes.
const SIZE: u64 = 1 << 20;
/// The guest's memory: two regions with nothing between them.
const LOW: u64 = 1 << 20;
const HIGH: u64 = 16 << 20;
const HIGH_LEN: u64 = 64 << 10;
/// Messages of one connection.
const TALK: u64 = 64;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// Mostly something near a border, sometimes anything.
    fn address(&mut self) -> u64 {
        let near = self.one_of(&[0, 0x1000, 0x8000, LOW - 16, LOW, HIGH, HIGH + HIGH_LEN - 8, u64::MAX - 64]);
        match self.below(8) {
            0 => self.next(),
            1 => near.wrapping_add(self.below(64)),
            _ => self.below(LOW),
        }
    }

    fn len(&mut self) -> u32 {
        match self.below(8) {
            0 => self.next() as u32,
            1 => self.one_of(&[0, 1, u32::MAX, 1 << 31]),
            _ => self.one_of(&[1, 16, 17, 512, 513, 4096, 65536]),
        }
    }
}

fn dice() -> (u64, u64) {
    let number = |name| std::env::var(name).ok().and_then(|n| n.parse().ok());
    (number("CAIRN_FUZZ_SEED").unwrap_or(1), number("CAIRN_FUZZ_RUNS").unwrap_or(20_000))
}

/// A volume that only looks at what it is asked.
struct Strict;

impl Strict {
    fn check(offset: u64, len: u64, have: u64) {
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= SIZE),
            "{offset}+{len} is not in the volume"
        );
        assert!(have >= len, "{have} bytes of memory for {len}");
    }
}

impl Media for Strict {
    fn size(&self) -> u64 {
        SIZE
    }

    fn read_only(&self) -> bool {
        false
    }

    fn is_full(&self) -> bool {
        false
    }

    fn read(&self, offset: u64, len: u64, to: &mut Pieces<'_, Sink>) -> io::Result<()> {
        Strict::check(offset, len, to.len());
        to.fill_zeroes(len)
    }

    fn write(&self, offset: u64, len: u64, from: &mut Pieces<'_, Source>) -> io::Result<()> {
        Strict::check(offset, len, from.len());
        let mut bytes = vec![0; len as usize];
        assert!(from.take(&mut bytes));
        Ok(())
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        Strict::check(offset, len, len);
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, len: u64, _unmap: bool) -> io::Result<()> {
        self.discard(offset, len)
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

fn memory() -> Arc<GuestMap> {
    let region = |at, len| {
        let mapped = MmapRegion::<()>::new(len as usize).unwrap();
        Arc::new(GuestRegionMmap::new(mapped, GuestAddress(at)).unwrap())
    };
    Arc::new(GuestMap::from_arc_regions(vec![region(0, LOW), region(HIGH, HIGH_LEN)]).unwrap())
}

fn put_descriptors(random: &mut Random, map: &GuestMap, table: u64, count: u64) {
    for n in 0..count {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&random.address().to_le_bytes());
        bytes[8..12].copy_from_slice(&random.len().to_le_bytes());
        let flags = if random.below(16) == 0 {
            random.next() as u16
        } else {
            random.one_of(&[0u16, 1, 2, 3, 3, 1, 4, 5])
        };
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        let next = if random.below(16) == 0 { random.next() as u16 } else { random.below(count) as u16 };
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        let _ = map.write_slice(&bytes, GuestAddress(table.wrapping_add(16 * n)));
    }
}

fn put_heads(random: &mut Random, map: &GuestMap) {
    for _ in 0..8 {
        let mut head = [0; 16];
        let kind = random.one_of(&[0u32, 1, 4, 8, 11, 13, 0, 1, 11, 0xffff_ffff]);
        head[..4].copy_from_slice(&kind.to_le_bytes());
        let sector = random.one_of(&[0, 1, 7, SIZE / 512 - 1, SIZE / 512, u64::MAX, u64::MAX / 512, 1 << 55]);
        head[8..].copy_from_slice(&sector.to_le_bytes());
        let _ = map.write_slice(&head, GuestAddress(random.address()));
    }
}

#[test]
fn no_descriptor_leads_astray() {
    let (seed, runs) = dice();
    let (map, mut room, mut done) = (memory(), Room::default(), [0u64; 2]);
    for run in 0..runs {
        let mut random = Random(seed.wrapping_add(run).wrapping_mul(0x9e37));
        let size = 1 << random.below(9);
        let table = if random.below(8) == 0 { random.address() } else { 0x1000 };
        let (available, used) = match random.below(16) {
            0 => (random.address() & !1, random.address() & !3),
            _ => (0x4000, 0x8000),
        };
        put_descriptors(&mut random, &map, table, size);
        put_heads(&mut random, &map);
        for slot in 0..size {
            let head = if random.below(16) == 0 { random.next() as u16 } else { random.below(size) as u16 };
            let _ = map.write_obj(head, GuestAddress(available.wrapping_add(4 + 2 * slot)));
        }
        let ahead = random.one_of(&[1u16, 2, size as u16, size as u16 + 1, 30_000]);
        let _ = map.write_obj(ahead, GuestAddress(available.wrapping_add(2)));
        let _ = map.write_obj(0u16, GuestAddress(used.wrapping_add(2)));
        let mut ring = Ring::new().unwrap();
        let begun = ring.set_size(size as u16).is_ok()
            && ring.set_addresses(&map, table & !15, available, used).is_ok()
            && ring.start(&map, None).is_ok();
        if !begun {
            continue;
        }
        let mut taken = 0;
        while let Some(chain) = ring.take(&map) {
            taken += 1;
            assert!(taken <= 2 * size, "more requests than entries");
            let head = chain.head_index();
            let Some(mut request) = Request::parse(chain, &map, &mut room) else {
                ring.complete(&map, None, head, 0);
                continue;
            };
            let outcome = request.try_run(&Strict, "volume", true);
            let outcome = outcome.unwrap_or_else(|| request.run(&Strict, "volume", random.below(2) == 0));
            room = request.into_room();
            if let Outcome::Done(len) = outcome {
                ring.complete(&map, None, head, len);
                done[usize::from(len > 1)] += 1;
            }
        }
        ring.stop(&map, None).unwrap();
    }
    // The dice must find their way to what is done, or they show nothing.
    assert!(done[0] > runs / 100 && done[1] > runs / 1000, "{done:?} of {runs}");
}

fn memfd(len: u64) -> OwnedFd {
    let fd = memfd_create("hostile", MFdFlags::MFD_CLOEXEC).unwrap();
    File::from(fd.try_clone().unwrap()).set_len(len).unwrap();
    fd
}

/// A body for a kind of message, mostly of its form.
fn body(random: &mut Random, kind: u32) -> Vec<u8> {
    let words: usize = match kind {
        5 | 37 | 38 => [2, 5, 10, 41][random.below(4) as usize],
        9 => 5,
        8 | 10 | 11 | 18 => 1,
        24 | 25 => 4,
        _ => random.below(4) as usize,
    };
    let mut bytes = Vec::new();
    for n in 0..words {
        let small = random.below(66);
        let word = match random.below(6) {
            0 => random.next(),
            1 => random.address(),
            2 => 4096 * random.below(40),
            3 if n == 0 => 1 + random.below(8),
            _ => small | (random.below(1100) << 32),
        };
        bytes.extend(word.to_le_bytes());
    }
    if random.below(16) == 0 {
        bytes.truncate(random.below(bytes.len() as u64 + 1) as usize);
    }
    bytes
}

#[test]
fn no_front_end_says_what_ends_us() {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // Threads of rings and pools end without anybody's asking how.
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        if name.starts_with("io-") || name.starts_with('q') {
            PANICS.fetch_add(1, SeqCst);
        }
        usual(info);
    }));
    let (seed, runs) = dice();
    let (mut heeded, mut said) = (0u64, 0u64);
    for talk in 0..runs.div_ceil(TALK) {
        let mut random = Random(seed.wrapping_add(talk).wrapping_mul(0x51ed));
        let (ours, theirs) = UnixStream::pair().unwrap();
        let connection = ours.try_clone().unwrap();
        let device = Arc::new(Device::new("hostile", Arc::new(Strict)).unwrap());
        let handler = Arc::new(Mutex::new(Handler::new(device.clone())));
        let mut messages = BackendReqHandler::from_stream(ours, handler);
        theirs.set_nonblocking(true).unwrap();
        for n in 0..TALK {
            // What a front-end begins with, or there is little to be said after it.
            let (kind, payload) = match n {
                0 => (3, Vec::new()),
                1 => (1, Vec::new()),
                2 => (15, Vec::new()),
                3 => (16, super::config::protocol_features().bits().to_le_bytes().to_vec()),
                4 => (2, super::config::features(false).to_le_bytes().to_vec()),
                _ => {
                    let kind =
                        if random.below(32) == 0 { random.next() as u32 } else { random.below(45) as u32 };
                    (kind, body(&mut random, kind))
                }
            };
            let flags =
                if random.below(32) == 0 { random.next() as u32 } else { random.one_of(&[1u32, 1, 9]) };
            let len = if random.below(64) == 0 { random.below(5000) as u32 } else { payload.len() as u32 };
            let mut message = Vec::new();
            [kind, if n < 5 { 1 } else { flags }, len].iter().for_each(|w| message.extend(w.to_le_bytes()));
            message.extend(payload);
            let files: Vec<OwnedFd> = match (kind, random.below(8)) {
                (_, 0) => (0..random.below(9)).map(|_| memfd(4096)).collect(),
                (5, _) => {
                    (0..1 + random.below(8)).map(|_| memfd(random.one_of(&[0, 4096, 1 << 20]))).collect()
                }
                (21, 1..4) => vec![theirs.try_clone().unwrap().into()],
                (6 | 12 | 13 | 14 | 21 | 32 | 37, _) => vec![memfd(random.one_of(&[4096, 1 << 16, 1 << 20]))],
                _ => Vec::new(),
            };
            let files: Vec<i32> =
                if n < 5 { Vec::new() } else { files.iter().map(AsRawFd::as_raw_fd).collect() };
            let control = [ControlMessage::ScmRights(&files)];
            let control = if files.is_empty() { &control[..0] } else { &control[..] };
            let piece = [io::IoSlice::new(&message)];
            if sendmsg::<()>(theirs.as_raw_fd(), &piece, control, MsgFlags::empty(), None).is_err() {
                break;
            }
        }
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        loop {
            said += 1;
            match hear(&connection, &mut messages, &device) {
                Ok(()) => heeded += 1,
                Err(vhost::vhost_user::Error::ReqHandlerError(_)) => {}
                Err(_) => break,
            }
            device.heed_size();
        }
        device.end();
    }
    assert_eq!(PANICS.load(SeqCst), 0, "a thread ended");
    assert!(heeded > said / 4, "{heeded} of {said}");
}

#[test]
fn what_is_mapped_is_what_is_there() {
    let file = File::from(memfd(8192));
    file.write_all_at(b"x", 8191).unwrap();
    assert!(map_shared(file.try_clone().unwrap(), 4096, 4096).is_ok());
    assert!(map_shared(file.try_clone().unwrap(), 4096, 4097).is_err());
    assert!(map_shared(file, u64::MAX, 2).is_err());
}
