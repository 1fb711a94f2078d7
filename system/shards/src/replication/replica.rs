//! A replica on a disk of this node: the volume's data, with marks of what may differ from the other replicas after a
//! crash, and the epoch it has promised.
//!
//! It touches the volume's data and its marks through [`Volume`], and one small file beside it. It must never do a step
//! of a writer that is not its latest.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, Weak};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::absence::{Entries, Kept};
use super::blocks::{Block, Found, Question, blocks_of};
use super::op::{Failure, Op, Opened};
use super::regions::{AREA, REGION};
use super::writer::Seq;
use crate::disk::Disk;
use crate::format::{self, BLOCK};
use crate::fsio;
use crate::pool::Pool;
use crate::seal;
use crate::sys::{Pieces, Sink};
use crate::volume::{self, Volume};

/// What a region holds: all zeroes is [`ZEROES`], anything else its SHA-256.
pub type Digest = [u8; 32];

/// The digest of what is all zeroes.
pub const ZEROES: Digest = [0; 32];

/// The boot of a replica whose disk was away for a while, or did not take what it was to keep: none of the kernel's.
const AWAY: &str = "away";

/// What a replica has promised.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Promise {
    format: u32,
    /// The newest epoch it has begun with.
    epoch: u64,
    /// The boot of its node during which it was last told that it is like the others.
    boot: String,
}

/// A replica of this node, open. At most one per volume in a process.
pub struct Replica {
    volume: Arc<Volume>,
    /// The number of the session that may change it. Held shared through each step, alone while another begins.
    session: RwLock<u64>,
    promise: Mutex<Promise>,
    /// What it keeps of others' absences.
    entries: Mutex<Entries>,
    /// Areas with corrupt blocks that no writer was told of yet.
    damaged: Mutex<BTreeSet<u64>>,
    /// A sync has failed since it was last told that it is like the others: the kernel may have let go of what it had.
    faltered: AtomicBool,
    boot: String,
    /// Its disk has gone, and may be in use again by another of these.
    ended: AtomicBool,
}

impl Replica {
    /// Opens the replica whose data is this volume.
    pub fn open(volume: Arc<Volume>, boot: &str) -> io::Result<Replica> {
        let promise = match fsio::read_small(&volume.dir().join(format::REPLICA)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Promise { format: format::REPLICA_FORMAT, ..Promise::default() }
            }
            read => {
                let read = read?;
                let invalid = |why| io::Error::new(io::ErrorKind::InvalidData, why);
                seal::check(&read).map_err(invalid)?;
                serde_json::from_slice(&read)?
            }
        };
        if promise.format != format::REPLICA_FORMAT {
            let text =
                format!("replica format {}, this release knows {}", promise.format, format::REPLICA_FORMAT);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        // Numbers of an earlier process must not be taken for this one's.
        let (session, promise) =
            (RwLock::new(uuid::Uuid::new_v4().as_u64_pair().0 >> 1), Mutex::new(promise));
        let entries = match fsio::read_small(&volume.dir().join(format::ABSENCE)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Entries::default(),
            read => Entries::from_bytes(&read?),
        };
        let entries = Mutex::new(entries);
        let (damaged, faltered, ended) = (Mutex::default(), AtomicBool::new(false), AtomicBool::new(false));
        Ok(Replica { volume, session, promise, entries, damaged, faltered, boot: boot.into(), ended })
    }

    /// What it had not flushed may be lost, as if the power had failed: its disk has gone and come back since the boot, or a
    /// sync has failed.
    fn doubt(&self) -> io::Result<()> {
        let mut promise = guard(&self.promise);
        if promise.boot != self.boot {
            return Ok(());
        }
        let next = Promise { boot: AWAY.into(), ..promise.clone() };
        self.keep(&next)?;
        *promise = next;
        Ok(())
    }

    /// Does nothing from now on, for any session.
    fn end(&self) {
        let _last = self.session.write().unwrap_or_else(PoisonError::into_inner);
        self.ended.store(true, SeqCst);
    }

    /// Fails unless this session's writer is the one that counts; holds off others meanwhile.
    fn enter_session(&self, session: u64) -> Result<RwLockReadGuard<'_, u64>, Failure> {
        let current = self.session.read().unwrap_or_else(PoisonError::into_inner);
        match *current == session {
            _ if self.ended.load(SeqCst) => Err(Failure::Broken("its disk has gone".into())),
            true => Ok(current),
            false => Err(Failure::Fenced),
        }
    }

    /// Its data.
    pub fn volume(&self) -> &Arc<Volume> {
        &self.volume
    }

    /// A writer of this epoch begins; whoever wrote before is cut off. Answers the session's number.
    pub fn begin(&self, epoch: u64, size: u64) -> Result<(u64, Opened), Failure> {
        self.volume.take();
        let mut session = self.session.write().unwrap_or_else(PoisonError::into_inner);
        let mut promise = guard(&self.promise);
        if self.ended.load(SeqCst) {
            return Err(Failure::Broken("its disk has gone".into()));
        }
        if epoch < promise.epoch {
            return Err(Failure::Fenced);
        }
        if promise.epoch == 0 {
            // Its marks are those of a volume that was used by itself, and no other replica knows of them.
            self.volume.flush().map_err(broken)?;
            self.volume.clear_step(Seq::MAX, &self.volume.marked()).map_err(broken)?;
        }
        let areas = self.volume.marked();
        let kept = promise.boot == self.boot && !self.faltered.load(SeqCst);
        let intact = areas.is_empty() || kept;
        if !intact {
            // What the kernel has not stored it still shows, and does not store when it is asked again.
            self.volume.forget_cached(&areas).map_err(broken)?;
        }
        if epoch > promise.epoch {
            // On stable media before the first step of this epoch.
            let next = Promise { epoch, ..promise.clone() };
            self.keep(&next).map_err(broken)?;
            *promise = next;
        }
        self.volume.grow(size).map_err(failure)?;
        // They differ from the other replicas, and are made like them as after a crash.
        let areas = std::mem::take(&mut *guard(&self.damaged)).into_iter().chain(areas);
        let areas = areas.collect::<BTreeSet<u64>>().into_iter().collect();
        *session += 1;
        let mut entries = guard(&self.entries);
        entries.begin();
        let kept = Kept { fresh: promise.boot.is_empty(), absence: entries.absence() };
        Ok((*session, Opened { areas, intact, kept: Some(kept) }))
    }

    /// Whether this session's writer is the one that counts.
    pub fn is_session(&self, session: u64) -> bool {
        self.enter_session(session).is_ok()
    }

    /// Does a step of a session.
    pub fn apply(&self, session: u64, seq: Seq, op: &Op) -> Result<(), Failure> {
        let _current = self.enter_session(session)?;
        match op {
            Op::Write { offset, data } => self.volume.write_step(seq, *offset, data).map_err(failure),
            Op::Zero { offset, len, unmap } => {
                self.volume.zero_step(seq, *offset, *len, *unmap).map_err(failure)
            }
            Op::Flush if !guard(&self.damaged).is_empty() => {
                Err(Failure::Broken("corrupt blocks were found: it must be opened anew".into()))
            }
            Op::Flush => self.flush().map_err(broken),
            Op::Grow(size) => self.volume.grow(*size).map_err(failure),
            Op::Clean(areas) => self.clean(seq, areas, None).map_err(broken),
            Op::CleanFor { areas, round } => self.clean(seq, areas, Some(*round)).map_err(broken),
            Op::Settle { keep } => self.settle(keep, seq, None).map_err(broken),
            Op::SettleFor { keep, round, missed } => {
                self.settle(keep, seq, Some((*round, missed))).map_err(broken)
            }
        }
    }

    /// Reads for a session.
    pub fn read(&self, session: u64, offset: u64, len: u64) -> Result<Bytes, Failure> {
        let mut buffer = vec![0; len as usize];
        let mut to = Pieces::<Sink>::default();
        to.push_slice(&mut buffer);
        self.read_into(session, offset, len, &mut to)?;
        Ok(buffer.into())
    }

    /// Reads into pieces, for a session.
    pub fn read_into(
        &self,
        session: u64,
        offset: u64,
        len: u64,
        to: &mut Pieces<'_, Sink>,
    ) -> Result<(), Failure> {
        let _current = self.enter_session(session)?;
        self.volume.read(offset, len, to).map_err(broken)
    }

    /// The same if that waits for nothing; false says that nothing was read.
    pub fn try_read_into(&self, session: u64, offset: u64, len: u64, to: &mut Pieces<'_, Sink>) -> bool {
        let Ok(current) = self.session.try_read() else { return false };
        *current == session
            && !self.ended.load(SeqCst)
            && self.volume.try_read(offset, len, to).unwrap_or(false)
    }

    /// Does a step of a session if that waits for nothing: a write to an area that is marked.
    pub fn try_apply(&self, session: u64, seq: Seq, op: &Op) -> bool {
        let Op::Write { offset, data } = op else { return false };
        let Ok(current) = self.session.try_read() else { return false };
        // Why it cannot be done, the step that waits will say.
        *current == session && self.volume.try_write_step(seq, *offset, data).unwrap_or(false)
    }

    /// What a region holds.
    pub fn digest(&self, session: u64, region: u64) -> Result<Digest, Failure> {
        let start = region.saturating_mul(REGION);
        let len = REGION.min(self.volume.size().saturating_sub(start));
        self.volume.settle_region(region).map_err(broken)?;
        if self.volume.is_hole(start, len).map_err(broken)? {
            return Ok(ZEROES);
        }
        self.read(session, start, len).map(|bytes| digest_of(&bytes))
    }

    /// What a region holds, block by block.
    pub fn blocks(&self, session: u64, question: &Question) -> Result<Found, Failure> {
        drop(self.enter_session(session)?);
        let start = question.region.saturating_mul(REGION);
        let len = REGION.min(self.volume.size().saturating_sub(start));
        self.volume.settle_region(question.region).map_err(broken)?;
        if self.volume.is_hole(start, len).map_err(broken)? {
            return Ok(Found::Nothing);
        }
        let blocks = match self.read(session, start, len) {
            Ok(bytes) => blocks_of(question.key.as_ref(), &bytes),
            Err(Failure::Corrupt(_)) => self.each_block(session, question, start..start + len)?,
            Err(why) => return Err(why),
        };
        Ok(question.answer(blocks))
    }

    /// The same where some blocks are corrupt.
    fn each_block(
        &self,
        session: u64,
        question: &Question,
        range: Range<u64>,
    ) -> Result<Vec<Block>, Failure> {
        let each = |at: u64| match self.read(session, at, BLOCK.min(range.end - at)) {
            Ok(bytes) => Ok(blocks_of(question.key.as_ref(), &bytes)),
            Err(Failure::Corrupt(_)) => Ok(vec![Block::Corrupt]),
            Err(why) => Err(why),
        };
        let blocks: Result<Vec<_>, _> = range.clone().step_by(BLOCK as usize).map(each).collect();
        Ok(blocks?.concat())
    }

    /// The blocks of a region that a crash may have left half-written, in bytes of the volume.
    pub fn torn(&self, session: u64, region: u64) -> Result<Vec<Range<u64>>, Failure> {
        let _current = self.enter_session(session)?;
        self.volume.torn(region).map_err(broken)
    }

    /// Reads what matches its sums, and takes nothing as it is.
    pub fn read_matching(&self, session: u64, offset: u64, len: u64) -> Result<Bytes, Failure> {
        let _current = self.enter_session(session)?;
        let read = self.volume.read_matching(offset, len).map_err(broken)?;
        read.map(Bytes::from).ok_or_else(|| Failure::Corrupt("it does not match here either".into()))
    }

    fn flush(&self) -> io::Result<()> {
        self.volume.flush().inspect_err(|_| {
            self.faltered.store(true, SeqCst);
            // The kernel says it once. A process that comes after this one must know too, before anybody hears of it.
            if let Err(e) = self.doubt() {
                tracing::error!(volume = %self.volume.dir().display(), error = %e, "a failed sync is known to this process alone");
            }
        })
    }

    /// Clears marks. What those lack who are away is kept before that, or nothing is from then on.
    fn clean(&self, seq: Seq, areas: &[u64], round: Option<u64>) -> io::Result<()> {
        let areas = self.there(areas);
        self.enter(|entries| entries.clear(seq, round, &areas))?;
        self.volume.clear_step(seq, &areas)
    }

    /// Those of these areas that the volume has. Another node names them, and what is kept of them must have an end.
    fn there(&self, areas: &[u64]) -> Vec<u64> {
        let there = self.volume.size().div_ceil(AREA);
        areas.iter().copied().filter(|area| *area < there).collect()
    }

    /// Changes the entries; they are on stable media when this returns.
    fn enter(&self, change: impl FnOnce(&mut Entries) -> bool) -> io::Result<()> {
        let mut entries = guard(&self.entries);
        let mut next = entries.clone();
        let changed = change(&mut next);
        let (dir, name) = (self.volume.dir(), format::ABSENCE);
        match next.to_bytes().filter(|_| changed) {
            Some(bytes) => fsio::replace(dir, name, &bytes)?,
            None if changed => fsio::remove(dir, name)?,
            None => {}
        }
        *entries = next;
        Ok(())
    }

    fn settle(&self, keep: &[u64], seq: Seq, away: Option<(u64, &Vec<u64>)>) -> io::Result<()> {
        self.flush()?;
        let keep: BTreeSet<u64> = keep.iter().copied().collect();
        let kept: Vec<u64> = keep.iter().copied().collect();
        self.volume.mark_step(seq, &kept)?;
        let cleared: Vec<u64> =
            self.volume.marked().into_iter().filter(|area| !keep.contains(area)).collect();
        self.enter(|entries| match away {
            Some((round, missed)) => entries.enter(seq, round, &self.there(missed)),
            None => entries.clear(seq, None, &cleared),
        })?;
        self.volume.clear_step(seq, &cleared)?;
        let mut promise = guard(&self.promise);
        if promise.boot != self.boot {
            let next = Promise { boot: self.boot.clone(), ..promise.clone() };
            self.keep(&next)?;
            *promise = next;
        }
        self.faltered.store(false, SeqCst);
        Ok(())
    }

    fn keep(&self, promise: &Promise) -> io::Result<()> {
        fsio::replace(self.volume.dir(), format::REPLICA, &seal::seal(&serde_json::to_vec(promise)?))
    }
}

/// What bytes hold, see [`Digest`].
pub fn digest_of(bytes: &[u8]) -> Digest {
    if bytes.iter().all(|b| *b == 0) { ZEROES } else { Sha256::digest(bytes).into() }
}

/// The replicas of this node that are open.
pub struct Replicas {
    pool: Arc<Pool>,
    boot: String,
    open: Mutex<HashMap<String, Open>>,
}

/// A replica that is open, and the disk it is on.
struct Open {
    replica: Arc<Replica>,
    disk: Weak<Disk>,
}

impl Replicas {
    /// Those on the disks of this pool. `boot` names this boot of the machine.
    pub fn new(pool: Arc<Pool>, boot: impl Into<String>) -> Replicas {
        Replicas { pool, boot: boot.into(), open: Mutex::default() }
    }

    /// The replica of a volume, by what it goes by here: see [`super::place::name`].
    pub fn get(&self, name: &str) -> io::Result<Arc<Replica>> {
        let stale = match guard(&self.open).get(name) {
            Some(known) if self.is_current(known) => return Ok(known.replica.clone()),
            known => known.map(|known| known.replica.clone()),
        };
        if let Some(stale) = &stale {
            // Not under the lock: it may wait for what that disk was asked for, and other replicas need not.
            stale.end();
        }
        let mut open = guard(&self.open);
        if let Some(known) = open.get(name) {
            if stale.is_none_or(|stale| !Arc::ptr_eq(&stale, &known.replica)) {
                return Ok(known.replica.clone()); // Another was faster.
            }
            open.remove(name);
            self.pool.close(name);
        }
        let disk = self.pool.find(name);
        let replica = Arc::new(Replica::open(self.pool.open_to_fill(name)?, &self.boot)?);
        if disk.as_ref().is_some_and(|disk| disk.has_returned()) {
            replica.doubt()?;
        }
        let disk = disk.as_ref().map(Arc::downgrade).unwrap_or_default();
        open.insert(name.into(), Open { replica: replica.clone(), disk });
        Ok(replica)
    }

    /// Whether its disk has been in use since it was opened.
    fn is_current(&self, known: &Open) -> bool {
        let disk = known.disk.upgrade();
        disk.is_some_and(|disk| self.pool.disk(disk.id()).is_some_and(|now| Arc::ptr_eq(&disk, &now)))
    }

    /// The data of a replica that is open.
    pub fn volume(&self, name: &str) -> Option<Arc<Volume>> {
        guard(&self.open).get(name).map(|open| open.replica.volume.clone())
    }

    /// A block of a volume at this byte is corrupt. If it is a replica, its writer hears of it with the next flush.
    pub fn found_corrupt(&self, name: &str, offset: u64) {
        if let Some(open) = guard(&self.open).get(name) {
            guard(&open.replica.damaged).insert(offset / AREA);
        }
    }

    /// Lets go of a volume that is destroyed.
    pub fn forget(&self, name: &str) {
        guard(&self.open).remove(name);
    }
}

/// A name of this boot of the machine, as the kernel gives it.
pub fn boot_id() -> String {
    let read = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    read.map_or_else(|_| uuid::Uuid::new_v4().to_string(), |text| text.trim().to_owned())
}

fn failure(e: io::Error) -> Failure {
    if fsio::is_full(&e) { Failure::Full } else { broken(e) }
}

fn broken(e: io::Error) -> Failure {
    if volume::is_corrupt(&e) { Failure::Corrupt(e.to_string()) } else { Failure::Broken(e.to_string()) }
}

// What these locks guard is whole after a panic.
fn guard<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
