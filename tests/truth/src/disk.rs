//! A disk with a volatile cache, and with faults: what was written is kept apart until it is flushed, and a power cut
//! takes a random part of it. It has two files without names, what is read and what is on the medium.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{Whence, lseek64};

use crate::dice::Dice;
use crate::stamp::{Found, MAGIC, SECTOR, look};

/// The most that is kept apart: more, and the oldest reaches the medium by itself.
const CACHE_BYTES: usize = 64 << 20;

/// What is wrong with a disk.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Reads of this range fail.
    pub bad_reads: Option<Range<u64>>,
    /// Writes of this range fail.
    pub bad_writes: Option<Range<u64>>,
    /// Flushes fail.
    pub bad_flushes: bool,
    /// Nothing is answered until then.
    pub hangs_until: Option<Instant>,
    /// Each answer takes so long.
    pub slow: Duration,
    /// It has no power.
    pub off: bool,
}

/// A disk.
pub struct Disk {
    state: Mutex<State>,
    changed: Condvar,
    size: u64,
}

struct State {
    now: File,
    medium: File,
    cache: Vec<(u64, Vec<u8>)>,
    cached: usize,
    faults: Faults,
    opened: usize,
}

/// What a power cut did to the writes that were not flushed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cut {
    pub kept: usize,
    pub lost: usize,
}

impl Disk {
    /// A disk of zeroes.
    pub fn new(size: u64) -> Result<Disk> {
        let file = || -> Result<File> {
            let file = File::from(memfd_create("disk", MFdFlags::MFD_CLOEXEC)?);
            file.set_len(size)?;
            Ok(file)
        };
        let (now, medium) = (file()?, file()?);
        let state = State { now, medium, cache: Vec::new(), cached: 0, faults: Faults::default(), opened: 0 };
        Ok(Disk { state: Mutex::new(state), changed: Condvar::new(), size })
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    // What it guards is whole after a panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, once the disk answers.
    fn answering(&self) -> Result<MutexGuard<'_, State>, Errno> {
        let slow = self.lock().faults.slow;
        if !slow.is_zero() {
            std::thread::sleep(slow);
        }
        let mut state = self.lock();
        loop {
            if state.faults.off {
                return Err(Errno::EIO);
            }
            let left = state.faults.hangs_until.and_then(|end| end.checked_duration_since(Instant::now()));
            match left {
                None => return Ok(state),
                Some(left) => {
                    let woken = self.changed.wait_timeout(state, left);
                    state = woken.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        let state = self.answering()?;
        if overlaps(&state.faults.bad_reads, offset, bytes.len()) {
            return Err(Errno::EIO);
        }
        state.now.read_exact_at(bytes, offset).map_err(|_| Errno::EIO)
    }

    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        let mut state = self.answering()?;
        if overlaps(&state.faults.bad_writes, offset, bytes.len()) {
            return Err(Errno::EIO);
        }
        state.now.write_all_at(bytes, offset).map_err(|_| Errno::EIO)?;
        state.cache.push((offset, bytes.to_vec()));
        state.cached += bytes.len();
        if state.cached > CACHE_BYTES {
            state.settle()?;
        }
        Ok(())
    }

    pub fn flush(&self) -> Result<(), Errno> {
        let mut state = self.answering()?;
        if state.faults.bad_flushes { Err(Errno::EIO) } else { state.settle() }
    }

    /// Changes what is wrong with it.
    pub fn set(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.lock().faults);
        self.changed.notify_all();
    }

    /// Somebody opened it, or closed it.
    pub fn note_open(&self, open: bool) {
        let mut state = self.lock();
        state.opened = if open { state.opened + 1 } else { state.opened.saturating_sub(1) };
    }

    pub fn is_open(&self) -> bool {
        self.lock().opened > 0
    }

    /// The power is back, and nothing else is wrong: of what was not flushed, some is on the medium.
    pub fn power_on(&self, dice: &mut Dice) -> Result<Cut> {
        let mut state = self.lock();
        let (chance, piece) = (*dice.pick(&[0, 10, 50, 90, 100]), *dice.pick(&[SECTOR, 4096]));
        let mut cut = Cut::default();
        for (offset, bytes) in std::mem::take(&mut state.cache) {
            // In order, with gaps: so what a sector had between two flushes may be what it keeps.
            for (at, part) in (offset..).step_by(piece).zip(bytes.chunks(piece)) {
                let kept = dice.percent(chance);
                if kept {
                    state.medium.write_all_at(part, at)?;
                }
                *(if kept { &mut cut.kept } else { &mut cut.lost }) += 1;
            }
            let mut medium = vec![0; bytes.len()];
            state.medium.read_exact_at(&mut medium, offset)?;
            state.now.write_all_at(&medium, offset)?;
        }
        state.cached = 0;
        state.faults = Faults::default();
        Ok(cut)
    }

    /// Where some sector of the guest's is, if there is any.
    pub fn place(&self, dice: &mut Dice) -> Result<Option<u64>> {
        let found = self.lock().stamped(&|_, _| true)?;
        Ok((!found.is_empty()).then(|| dice.pick(&found).0))
    }

    /// Flips a bit in each of so many sectors that the guest wrote; answers which those were.
    pub fn flip(&self, dice: &mut Dice, count: usize, may: impl Fn(u64, u32) -> bool) -> Result<Vec<u64>> {
        let mut state = self.lock();
        state.settle().context("what was cached does not reach the medium")?;
        let found = state.stamped(&may)?;
        let mut flipped = Vec::new();
        for _ in 0..count.min(found.len()) {
            let (at, sector) = *dice.pick(&found);
            let bit = dice.of(0..8 * SECTOR as u64);
            let mut byte = [0];
            state.now.read_exact_at(&mut byte, at + bit / 8)?;
            byte[0] ^= 1 << (bit % 8);
            state.now.write_all_at(&byte, at + bit / 8)?;
            state.medium.write_all_at(&byte, at + bit / 8)?;
            flipped.push(sector);
        }
        Ok(flipped)
    }
}

impl State {
    /// All that was written reaches the medium.
    fn settle(&mut self) -> Result<(), Errno> {
        for (offset, bytes) in self.cache.drain(..) {
            self.medium.write_all_at(&bytes, offset).map_err(|_| Errno::EIO)?;
        }
        self.cached = 0;
        Ok(())
    }

    /// Where sectors of the guest's are, and which.
    fn stamped(&self, may: &impl Fn(u64, u32) -> bool) -> Result<Vec<(u64, u64)>> {
        let (mut found, mut chunk, mut at) = (Vec::new(), vec![0; 1 << 20], 0);
        let size = self.now.metadata()?.len();
        while let Ok(start) = lseek64(&self.now, at, Whence::SeekData) {
            at = start / chunk.len() as i64 * chunk.len() as i64;
            let len = chunk.len().min((size - at as u64) as usize);
            self.now.read_exact_at(&mut chunk[..len], at as u64)?;
            for (sector, place) in chunk[..len].chunks_exact(SECTOR).zip((at as u64..).step_by(SECTOR)) {
                if sector.starts_with(&MAGIC)
                    && let Ok(word) = sector[8..16].try_into().map(u64::from_le_bytes)
                    && let Found::Write(write) = look(sector, word)
                    && may(word, write)
                {
                    found.push((place, word));
                }
            }
            at += len as i64;
        }
        Ok(found)
    }
}

fn overlaps(bad: &Option<Range<u64>>, offset: u64, len: usize) -> bool {
    bad.as_ref().is_some_and(|bad| bad.start < offset + len as u64 && offset < bad.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_cut_takes_what_was_not_flushed_alone() {
        let (disk, mut dice) = (Disk::new(1 << 20).unwrap(), Dice::new(1));
        disk.write(0, &[1; 4096]).unwrap();
        disk.flush().unwrap();
        let (mut kept, mut lost) = (0, 0);
        for _ in 0..30 {
            disk.write(4096, &[2; 8192]).unwrap();
            disk.write(4096, &[3; 8192]).unwrap();
            disk.set(|faults| faults.off = true);
            assert_eq!(disk.read(0, &mut [0]), Err(Errno::EIO));
            let cut = disk.power_on(&mut dice).unwrap();
            (kept, lost) = (kept + cut.kept, lost + cut.lost);
            let mut bytes = [0; 12288];
            disk.read(0, &mut bytes).unwrap();
            assert!(bytes[..4096] == [1; 4096] && bytes[4096..].iter().all(|b| [0, 2, 3].contains(b)));
            assert!(bytes.chunks(SECTOR).all(|sector| sector.iter().all(|b| *b == sector[0])));
            let mut medium = [0; 12288];
            disk.lock().medium.read_exact_at(&mut medium, 0).unwrap();
            assert!(bytes == medium);
        }
        assert!(kept > 0 && lost > 0);
    }

    #[test]
    fn a_bit_is_flipped_where_the_guest_wrote() {
        let (disk, mut dice) = (Disk::new(4 << 20).unwrap(), Dice::new(1));
        let mut sector = [0; SECTOR];
        crate::stamp::stamp(&mut sector, 77, 3);
        disk.write(1 << 20, &sector).unwrap();
        assert_eq!(disk.flip(&mut dice, 1, |_, _| true).unwrap(), [77]);
        let mut read = [0; SECTOR];
        disk.read(1 << 20, &mut read).unwrap();
        let differs: u32 = read.iter().zip(sector).map(|(a, b)| (a ^ b).count_ones()).sum();
        assert_eq!(differs, 1);
    }
}
