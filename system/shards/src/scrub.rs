//! The search for damage: all blocks of all volumes are read and verified once in a while, so that what has rotted is
//! found while another replica has it. Volumes from before there were sums get theirs by it.
//!
//! Each disk is searched by itself, at a pace that gives way to guests: after each region it rests for several times as
//! long as that took, which is longer the more the disk has to do. Where it is in a volume is kept in a file beside it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::format;
use crate::fsio;
use crate::pool::Pool;
use crate::replication::place;
use crate::replication::regions::{REGION, regions_of};
use crate::replication::replica::Replicas;
use crate::volume::Volume;

/// How long after its last search a volume is searched again.
const EVERY: Duration = Duration::from_secs(14 * 24 * 3600);
/// So many times as long as a region took nothing is read.
const REST: u32 = 4;
/// The least rest, and how often it is looked whether this ends.
const REST_MIN: Duration = Duration::from_millis(5);
const REST_MAX: Duration = Duration::from_millis(100);
/// What a region takes at most where nothing is stored.
const NOTHING: Duration = Duration::from_micros(100);
/// How long a disk with nothing to search is left alone.
const IDLE: Duration = Duration::from_secs(60);
/// Regions between two writings of the place.
const KEPT_EVERY: u64 = 256;

/// How far the search is in a volume, as it is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The region to go on with.
    pub next: u64,
    /// When it last came to the end, in seconds since 1970; 0 if it never did.
    pub ended_at: u64,
    /// Corrupt blocks found since it last began.
    pub corrupt: u64,
}

/// How the search stands on a disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// The volume that is searched now.
    pub volume: Option<String>,
    /// Regions of it that were, and all.
    pub regions: (u64, u64),
    /// Volumes with corrupt blocks, and how many were found in each.
    pub corrupt: BTreeMap<String, u64>,
    /// Why it last had to leave a volume.
    pub error: Option<String>,
}

/// The search on all disks of a node. It keeps no disk in use: it ends when the pool does.
pub struct Scrub {
    pool: Weak<Pool>,
    replicas: Weak<Replicas>,
    progress: Mutex<BTreeMap<String, Progress>>,
}

impl Scrub {
    /// Of the volumes of this pool; what is found in a replica is told to it.
    pub fn new(pool: &Arc<Pool>, replicas: &Arc<Replicas>) -> Scrub {
        Scrub { pool: Arc::downgrade(pool), replicas: Arc::downgrade(replicas), progress: Mutex::default() }
    }

    /// How it stands, by disk.
    pub fn progress(&self) -> BTreeMap<String, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Searches a disk until it is gone. Blocks.
    pub fn search(&self, disk: &str) {
        // Read once: nobody else writes them.
        let mut places = BTreeMap::new();
        while let Some(dirs) = self.volumes_on(disk) {
            let due = due(&dirs, &mut places, now());
            if due.is_empty() {
                self.note(disk, |progress| progress.volume = None);
                self.rest(IDLE);
            }
            for (id, dir, place) in due {
                places.remove(&id);
                if !dir.is_dir() {
                    continue; // It was destroyed meanwhile.
                }
                if let Err(e) = self.search_volume(disk, &id, &dir, place) {
                    tracing::warn!(volume = id, error = %e, "a volume was not searched for damage");
                    self.note(disk, |progress| progress.error = Some(format!("volume {id}: {e}")));
                    self.rest(IDLE);
                }
                if self.pool.strong_count() == 0 {
                    return;
                }
            }
        }
    }

    /// The volumes of a disk and where they lie; `None` if it is not in use any more.
    fn volumes_on(&self, disk: &str) -> Option<Vec<(String, PathBuf)>> {
        let pool = self.pool.upgrade()?;
        let disk = pool.disks().into_iter().find(|d| d.id() == disk && d.is_present())?;
        let volumes = disk.replicas().unwrap_or_default().into_iter();
        let placed = |name: String| {
            let dir = disk.volume(place::split(&name).0);
            (name, dir)
        };
        Some(volumes.map(placed).collect())
    }

    /// The volume, as it is written if somebody writes it.
    fn open(&self, id: &str) -> io::Result<Option<Arc<Volume>>> {
        let (Some(pool), Some(replicas)) = (self.pool.upgrade(), self.replicas.upgrade()) else {
            return Ok(None);
        };
        replicas.volume(id).map_or_else(|| pool.open(id), Ok).map(Some)
    }

    fn search_volume(&self, disk: &str, id: &str, dir: &Path, mut place: Place) -> io::Result<()> {
        if place.next == 0 {
            place.corrupt = 0;
            if !self.make_sums(id)? {
                return Ok(());
            }
        }
        while let Some(volume) = self.open(id)? {
            let count = regions_of(volume.size());
            if place.next >= count {
                return Place { next: 0, ended_at: now(), ..place }.keep(dir);
            }
            let begun = Instant::now();
            let corrupt = volume.verify(place.next)?;
            drop(volume);
            if corrupt > 0
                && let Some(replicas) = self.replicas.upgrade()
            {
                replicas.found_corrupt(id, place.next * REGION);
            }
            (place.next, place.corrupt) = (place.next + 1, place.corrupt + corrupt);
            self.note(disk, |progress| progress.see(id, &place, count));
            if place.next.is_multiple_of(KEPT_EVERY) {
                place.keep(dir)?;
            }
            let took = begun.elapsed();
            // It took next to nothing where nothing is stored.
            if took > NOTHING && !self.rest((took * REST).max(REST_MIN)) {
                break;
            }
        }
        place.keep(dir)
    }

    /// Gives a volume of the first format its sums; false if this ends before.
    fn make_sums(&self, id: &str) -> io::Result<bool> {
        let Some(volume) = self.open(id)? else { return Ok(false) };
        // An image that has replicas may be opened by one who writes it, with other locks.
        let of_others = volume.read_only() && volume.dir().join(format::REPLICA).exists();
        if volume.is_summed() || of_others {
            return Ok(true);
        }
        let mut begun = Instant::now();
        volume.sum_up(|_| {
            let go_on = self.rest((begun.elapsed() * REST).max(REST_MIN));
            begun = Instant::now();
            go_on
        })
    }

    fn note(&self, disk: &str, f: impl FnOnce(&mut Progress)) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        f(progress.entry(disk.to_owned()).or_default());
    }

    /// Waits; false if the pool is gone.
    fn rest(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        while self.pool.strong_count() > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(REST_MAX));
        }
        false
    }
}

impl Progress {
    fn see(&mut self, id: &str, place: &Place, count: u64) {
        (self.volume, self.regions) = (Some(id.to_owned()), (place.next, count));
        match place.corrupt {
            0 => drop(self.corrupt.remove(id)),
            n => drop(self.corrupt.insert(id.to_owned(), n)),
        }
    }
}

impl Place {
    /// What is known of a volume; nothing if that cannot be read. One that was never searched counts as searched when it was
    /// made: what it holds is new, or is what its source is searched for.
    pub fn of(dir: &Path) -> Place {
        match fsio::read_small(&dir.join(format::SCRUB)) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Place { ended_at: made_at(dir), ..Place::default() }
            }
            Err(_) => Place::default(),
        }
    }

    fn keep(&self, dir: &Path) -> io::Result<()> {
        fsio::replace(dir, format::SCRUB, &serde_json::to_vec(self)?)
    }

    fn is_due(&self, now: u64) -> bool {
        // A clock that was set back does not put it off for ever.
        self.next > 0 || now.abs_diff(self.ended_at) >= EVERY.as_secs()
    }
}

/// The volumes to search now: those that were begun, then those whose last search is longest ago. `places` are those
/// that are known; of others the file is read.
fn due(
    volumes: &[(String, PathBuf)],
    places: &mut BTreeMap<String, Place>,
    now: u64,
) -> Vec<(String, PathBuf, Place)> {
    let mut known = std::mem::take(places);
    let mut due = Vec::new();
    for (id, dir) in volumes {
        let place = known.remove(id).unwrap_or_else(|| Place::of(dir));
        if place.is_due(now) {
            due.push((id.clone(), dir.clone(), place.clone()));
        }
        places.insert(id.clone(), place);
    }
    due.sort_by_key(|(_, _, place)| (place.next == 0, place.ended_at));
    due
}

fn now() -> u64 {
    seconds(SystemTime::now())
}

/// When a volume's directory was made; 0 where the file system cannot tell.
fn made_at(dir: &Path) -> u64 {
    dir.metadata().and_then(|found| found.created()).map_or(0, seconds)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_searched_again_after_a_fortnight() {
        let place = |next, ended_at| Place { next, ended_at, corrupt: 0 };
        let now = 100 * 24 * 3600;
        assert!(place(0, 0).is_due(now) && place(7, now).is_due(now));
        assert!(!place(0, now - 13 * 24 * 3600).is_due(now));
        assert!(place(0, now - 15 * 24 * 3600).is_due(now) && place(0, now * 2).is_due(now));
    }

    #[test]
    fn a_new_volume_is_searched_a_fortnight_after_it_was_made() {
        let dir = tempfile::tempdir().unwrap();
        let (made, place) = (made_at(dir.path()), Place::of(dir.path()));
        assert_eq!((place.next, place.ended_at), (0, made));
        assert_eq!(place.is_due(now()), made == 0, "it is searched at once where nobody can tell");
        assert!(place.is_due(made + EVERY.as_secs()));
        // What cannot be understood is no reason to leave it out.
        std::fs::write(dir.path().join(format::SCRUB), "?").unwrap();
        assert!(Place::of(dir.path()).is_due(now()));
    }
}
