//! A disk that remembers what was synced, and loses the rest when its power fails.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use cairn_state::Media;
use redb::StorageBackend;

/// How the disk breaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Break {
    /// It does not.
    #[default]
    Never,
    /// From this write on (counting also syncs and changes of length) nothing is done any more.
    PowerFailsAt(u64),
    /// This one fails, those after it succeed.
    ErrorAt(u64),
}

const PAGE: usize = 4096;

/// Bytes in pages that copies share until one is written to: a disk is copied at each crash.
#[derive(Clone, Default)]
struct Pages {
    len: usize,
    pages: Vec<Arc<[u8; PAGE]>>,
}

impl Pages {
    fn resize(&mut self, len: usize) {
        if len < self.len {
            // What comes back when it grows again is zero.
            let cut = (self.len - len).min(PAGE - len % PAGE);
            self.write(len, &[0; PAGE][..cut]);
        }
        self.pages.resize_with(len.div_ceil(PAGE), || Arc::new([0; PAGE]));
        self.len = len;
    }

    /// The parts of pages that such a piece covers: page, offset in it, length.
    fn parts(mut at: usize, mut len: usize) -> impl Iterator<Item = (usize, usize, usize)> {
        std::iter::from_fn(move || {
            let part = (at / PAGE, at % PAGE, len.min(PAGE - at % PAGE));
            (at, len) = (at + part.2, len - part.2);
            (part.2 > 0).then_some(part)
        })
    }

    fn write(&mut self, at: usize, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        if self.len < at + data.len() {
            self.resize(at + data.len());
        }
        let mut rest = data;
        for (page, from, len) in Pages::parts(at, data.len()) {
            let (part, others) = rest.split_at(len);
            Arc::make_mut(&mut self.pages[page])[from..from + len].copy_from_slice(part);
            rest = others;
        }
    }

    fn read(&self, at: usize, out: &mut [u8]) -> io::Result<()> {
        if at + out.len() > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut rest = out;
        for (page, from, len) in Pages::parts(at, rest.len()) {
            let (part, others) = rest.split_at_mut(len);
            part.copy_from_slice(&self.pages[page][from..from + len]);
            rest = others;
        }
        Ok(())
    }
}

/// A store's files: its state, and two of its log.
const FILES: usize = 3;

/// What a disk holds, file by file. Copies are cheap.
#[derive(Clone, Default)]
pub struct Content([Pages; FILES]);

impl Content {
    /// All of it.
    pub fn bytes(&self) -> Vec<u8> {
        let of_file = |file: &Pages| {
            let mut bytes = vec![0; file.len];
            file.read(0, &mut bytes).unwrap();
            bytes
        };
        self.0.iter().flat_map(of_file).collect()
    }
}

enum Unsynced {
    Write(u64, Vec<u8>),
    Length(u64),
}

#[derive(Default)]
struct State {
    content: [Pages; FILES],
    synced: [Pages; FILES],
    unsynced: [Vec<Unsynced>; FILES],
    writes: u64,
    breaks: Break,
}

/// The disk; clones are the same one.
#[derive(Clone)]
pub struct Disk(Arc<Mutex<State>>);

/// One of its files.
pub struct OnDisk(Disk, usize);

impl std::fmt::Debug for OnDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnDisk")
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
    pub fn new(Content(content): Content, breaks: Break) -> Disk {
        let synced = content.clone();
        Disk(Arc::new(Mutex::new(State { content, synced, breaks, ..State::default() })))
    }

    /// Its files.
    pub fn files(&self) -> [OnDisk; FILES] {
        std::array::from_fn(|file| OnDisk(self.clone(), file))
    }

    /// The store on it.
    pub fn media(&self) -> Media {
        let [state, first, second] = self.files();
        Media::new(state, [first, second])
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
    pub fn content(&self) -> Content {
        Content(self.state().content.clone())
    }

    /// What it holds after the power has failed: all that was synced, and of the rest any part, each write
    /// whole, torn or not at all.
    pub fn after_power_failure(&self, dice: &mut Dice) -> Content {
        let state = self.state();
        let mut content = state.synced.clone();
        for (file, changes) in content.iter_mut().zip(&state.unsynced) {
            for change in changes {
                match change {
                    Unsynced::Length(length) if dice.below(2) == 0 => file.resize(*length as usize),
                    Unsynced::Length(_) => {}
                    Unsynced::Write(offset, data) => {
                        let kept = match dice.below(3) {
                            0 => 0,
                            1 => dice.below(data.len() as u64 + 1) as usize,
                            _ => data.len(),
                        };
                        file.write(*offset as usize, &data[..kept]);
                    }
                }
            }
        }
        Content(content)
    }
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

impl StorageBackend for OnDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.state().content[self.1].len as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.state().content[self.1].read(offset as usize, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.0.state();
        let done = state.write();
        // What fails may have been done nevertheless, once the power is on again.
        state.unsynced[self.1].push(Unsynced::Length(len));
        done?;
        state.content[self.1].resize(len as usize);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.0.state();
        state.write()?;
        let State { synced, unsynced, .. } = &mut *state;
        let synced = &mut synced[self.1];
        for change in unsynced[self.1].drain(..) {
            match change {
                Unsynced::Length(length) => synced.resize(length as usize),
                Unsynced::Write(offset, data) => synced.write(offset as usize, &data),
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.0.state();
        let first = !matches!(state.breaks, Break::PowerFailsAt(k) if state.writes > k);
        let done = state.write();
        if done.is_ok() || first {
            state.unsynced[self.1].push(Unsynced::Write(offset, data.to_vec()));
        }
        done?;
        state.content[self.1].write(offset as usize, data);
        Ok(())
    }
}
