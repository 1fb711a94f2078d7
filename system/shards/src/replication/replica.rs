//! A replica on a disk of this node: the volume's data, the epoch it has promised, and marks of what may differ from
//! the other replicas after a crash.
//!
//! It touches the volume's data through [`Volume`] and two small files beside it. It must never do a step of a writer
//! that is not its latest, nor change data in an area whose mark is not on stable media.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::op::{Failure, Op, Opened};
use super::regions::{AREA, Marks, REGION, units};
use super::writer::Seq;
use crate::format;
use crate::fsio;
use crate::pool::Pool;
use crate::sys::{Pieces, Sink};
use crate::volume::Volume;

/// What a region holds: all zeroes is [`ZEROES`], anything else its SHA-256.
pub type Digest = [u8; 32];

/// The digest of what is all zeroes.
pub const ZEROES: Digest = [0; 32];

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
    areas: Mutex<Areas>,
    boot: String,
}

impl Replica {
    /// Opens the replica whose data is this volume.
    pub fn open(volume: Arc<Volume>, boot: &str) -> io::Result<Replica> {
        let promise = match fsio::read_small(&volume.dir().join(format::REPLICA)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Promise { format: format::REPLICA_FORMAT, ..Promise::default() }
            }
            read => serde_json::from_slice(&read?)?,
        };
        if promise.format != format::REPLICA_FORMAT {
            let text =
                format!("replica format {}, this release knows {}", promise.format, format::REPLICA_FORMAT);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let areas = Mutex::new(Areas::open(volume.dir())?);
        // Numbers of an earlier process must not be taken for this one's.
        let (session, promise) =
            (RwLock::new(uuid::Uuid::new_v4().as_u64_pair().0 >> 1), Mutex::new(promise));
        Ok(Replica { volume, session, promise, areas, boot: boot.into() })
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
        if epoch < promise.epoch {
            return Err(Failure::Fenced);
        }
        let areas = guard(&self.areas).marked();
        let intact = areas.is_empty() || promise.boot == self.boot;
        if epoch > promise.epoch {
            // On stable media before the first step of this epoch.
            let next = Promise { epoch, ..promise.clone() };
            self.keep(&next).map_err(broken)?;
            *promise = next;
        }
        self.volume.grow(size).map_err(failure)?;
        *session += 1;
        Ok((*session, Opened { areas, intact }))
    }

    /// Does a step of a session.
    pub fn apply(&self, session: u64, seq: Seq, op: &Op) -> Result<(), Failure> {
        let current = self.session.read().unwrap_or_else(PoisonError::into_inner);
        if *current != session {
            return Err(Failure::Fenced);
        }
        match op {
            Op::Write { offset, data } => {
                self.mark(op, seq)?;
                self.volume.write_slice(*offset, data).map_err(failure)
            }
            Op::Zero { offset, len, unmap } => {
                self.mark(op, seq)?;
                self.volume.write_zeroes(*offset, *len, *unmap).map_err(failure)
            }
            Op::Flush => self.volume.flush().map_err(broken),
            Op::Grow(size) => self.volume.grow(*size).map_err(failure),
            Op::Clean(areas) => guard(&self.areas).clear(areas, seq).map_err(broken),
            Op::Settle { keep } => self.settle(keep, seq).map_err(broken),
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
        let current = self.session.read().unwrap_or_else(PoisonError::into_inner);
        if *current != session {
            return Err(Failure::Fenced);
        }
        self.volume.read(offset, len, to).map_err(broken)
    }

    /// What a region holds.
    pub fn digest(&self, session: u64, region: u64) -> Result<Digest, Failure> {
        let start = region * REGION;
        let len = REGION.min(self.volume.size().saturating_sub(start));
        if self.volume.is_hole(start, len).map_err(broken)? {
            return Ok(ZEROES);
        }
        self.read(session, start, len).map(|bytes| digest_of(&bytes))
    }

    fn mark(&self, op: &Op, seq: Seq) -> Result<(), Failure> {
        guard(&self.areas).mark(units(&op.range(), AREA), seq).map_err(failure)
    }

    fn settle(&self, keep: &[u64], seq: Seq) -> io::Result<()> {
        self.volume.flush()?;
        let keep: BTreeSet<u64> = keep.iter().copied().collect();
        let mut areas = guard(&self.areas);
        areas.mark(keep.iter().copied(), seq)?;
        let cleared: Vec<u64> = areas.marked().into_iter().filter(|area| !keep.contains(area)).collect();
        areas.clear(&cleared, seq)?;
        let mut promise = guard(&self.promise);
        if promise.boot != self.boot {
            let next = Promise { boot: self.boot.clone(), ..promise.clone() };
            self.keep(&next)?;
            *promise = next;
        }
        Ok(())
    }

    fn keep(&self, promise: &Promise) -> io::Result<()> {
        fsio::replace(self.volume.dir(), format::REPLICA, &serde_json::to_vec(promise)?)
    }
}

/// What bytes hold, see [`Digest`].
pub fn digest_of(bytes: &[u8]) -> Digest {
    if bytes.iter().all(|b| *b == 0) { ZEROES } else { Sha256::digest(bytes).into() }
}

/// The marks, one bit per area in a file.
struct Areas {
    file: File,
    /// Each with the number of the last step that changed it.
    marks: BTreeMap<u64, Seq>,
    bits: Marks,
}

impl Areas {
    fn open(dir: &Path) -> io::Result<Areas> {
        let path = dir.join(format::AREAS);
        let new = !path.exists();
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
        if new {
            fsio::sync_dir(dir)?;
        }
        let bits = Marks::from_bytes(&fsio::read_small(&path)?);
        let marks = bits.iter().map(|area| (area, 0)).collect();
        Ok(Areas { file, marks, bits })
    }

    fn marked(&self) -> Vec<u64> {
        self.marks.keys().copied().collect()
    }

    fn mark(&mut self, areas: impl Iterator<Item = u64> + Clone, seq: Seq) -> io::Result<()> {
        let new: Vec<u64> = areas.clone().filter(|area| !self.marks.contains_key(area)).collect();
        if !new.is_empty() {
            self.bits.extend(new.iter().copied());
            // Taken for marked only when that is on stable media.
            self.store(&new).and_then(|()| self.file.sync_data())?;
        }
        for area in areas {
            let last = self.marks.entry(area).or_default();
            *last = seq.max(*last);
        }
        Ok(())
    }

    /// A mark that a crash brings back does no harm, so that nothing waits for the disk here.
    fn clear(&mut self, areas: &[u64], seq: Seq) -> io::Result<()> {
        let older = |area: &&u64| self.marks.get(area).is_some_and(|last| *last < seq);
        let cleared: Vec<u64> = areas.iter().filter(older).copied().collect();
        for area in &cleared {
            self.marks.remove(area);
            self.bits.remove(*area);
        }
        self.store(&cleared)
    }

    fn store(&self, areas: &[u64]) -> io::Result<()> {
        let bytes = self.bits.to_bytes();
        let places: BTreeSet<usize> = areas.iter().map(|area| (area / 8) as usize).collect();
        places.into_iter().try_for_each(|at| match bytes.get(at) {
            Some(byte) => self.file.write_all_at(&[*byte], at as u64),
            None => Ok(()),
        })
    }
}

/// The replicas of this node that are open.
pub struct Replicas {
    pool: Arc<Pool>,
    boot: String,
    open: Mutex<HashMap<String, Arc<Replica>>>,
}

impl Replicas {
    /// Those on the disks of this pool. `boot` names this boot of the machine.
    pub fn new(pool: Arc<Pool>, boot: impl Into<String>) -> Replicas {
        Replicas { pool, boot: boot.into(), open: Mutex::default() }
    }

    /// The replica of a volume.
    pub fn get(&self, volume: &str) -> io::Result<Arc<Replica>> {
        let mut open = guard(&self.open);
        if let Some(replica) = open.get(volume) {
            return Ok(replica.clone());
        }
        let replica = Arc::new(Replica::open(self.pool.open_to_fill(volume)?, &self.boot)?);
        open.insert(volume.into(), replica.clone());
        Ok(replica)
    }

    /// Lets go of a volume that is destroyed.
    pub fn forget(&self, volume: &str) {
        guard(&self.open).remove(volume);
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
    Failure::Broken(e.to_string())
}

// What these locks guard is whole after a panic.
fn guard<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
