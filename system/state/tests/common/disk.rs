//! A disk that remembers what was synced, and loses the rest when its power fails.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;

/// How the disk breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// It does not.
    Never,
    /// From this write on (counting also syncs and changes of length) nothing is done any more.
    PowerFailsAt(u64),
    /// This one fails, those after it succeed.
    ErrorAt(u64),
}

enum Unsynced {
    Write(u64, Vec<u8>),
    Length(u64),
}

struct State {
    content: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Unsynced>,
    writes: u64,
    breaks: Break,
}

/// The disk; clones are the same one.
#[derive(Clone)]
pub struct Disk(Arc<Mutex<State>>);

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Disk")
    }
}

/// A small generator of numbers: the same seed, the same run.
pub struct Dice(pub u64);

impl Dice {
    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

impl Disk {
    /// A disk with this content, all of it synced.
    pub fn new(content: Vec<u8>, breaks: Break) -> Disk {
        let synced = content.clone();
        Disk(Arc::new(Mutex::new(State { content, synced, unsynced: Vec::new(), writes: 0, breaks })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Breaks it for good, so many writes from now: nothing is done any more.
    pub fn break_after(&self, writes: u64) {
        let mut state = self.state();
        state.breaks = Break::PowerFailsAt(state.writes + writes);
    }

    /// How many writes it has seen.
    pub fn writes(&self) -> u64 {
        self.state().writes
    }

    /// What it holds, as a process that lives on sees it.
    pub fn content(&self) -> Vec<u8> {
        self.state().content.clone()
    }

    /// What it holds after the power has failed: all that was synced, and of the rest any part, each write
    /// whole, torn or not at all.
    pub fn after_power_failure(&self, dice: &mut Dice) -> Vec<u8> {
        let state = self.state();
        let mut content = state.synced.clone();
        for change in &state.unsynced {
            match change {
                Unsynced::Length(length) if dice.below(2) == 0 => content.resize(*length as usize, 0),
                Unsynced::Length(_) => {}
                Unsynced::Write(offset, data) => {
                    let kept = match dice.below(3) {
                        0 => 0,
                        1 => dice.below(data.len() as u64 + 1) as usize,
                        _ => data.len(),
                    };
                    apply(&mut content, *offset, &data[..kept]);
                }
            }
        }
        content
    }
}

fn apply(content: &mut Vec<u8>, offset: u64, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    let (from, to) = (offset as usize, offset as usize + data.len());
    if content.len() < to {
        content.resize(to, 0);
    }
    content[from..to].copy_from_slice(data);
}

impl State {
    /// Counts a write, and says whether it is done.
    fn write(&mut self) -> io::Result<()> {
        let at = self.writes;
        self.writes += 1;
        match self.breaks {
            Break::PowerFailsAt(k) if at >= k => Err(io::Error::other("the power is gone")),
            Break::ErrorAt(k) if at == k => Err(io::Error::other("a bad sector")),
            _ => Ok(()),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().content.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let from = offset as usize;
        let found = state.content.get(from..from + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        let done = state.write();
        // What fails may have been done nevertheless, once the power is on again.
        state.unsynced.push(Unsynced::Length(len));
        done?;
        state.content.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        state.write()?;
        let State { synced, unsynced, .. } = &mut *state;
        for change in unsynced.drain(..) {
            match change {
                Unsynced::Length(length) => synced.resize(length as usize, 0),
                Unsynced::Write(offset, data) => apply(synced, offset, &data),
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let first = !matches!(state.breaks, Break::PowerFailsAt(k) if state.writes > k);
        let done = state.write();
        if done.is_ok() || first {
            state.unsynced.push(Unsynced::Write(offset, data.to_vec()));
        }
        done?;
        apply(&mut state.content, offset, data);
        Ok(())
    }
}
