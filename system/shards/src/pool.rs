//! All data disks of this node, and the volumes on them: finding, opening, making, cloning, destroying.
//!
//! It decides on which disk something is made. It blocks; async callers go through `spawn_blocking`. It knows no
//! store and no guest. Of each volume at most one [`Volume`] is open, so that flushes know of all writes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::crypt::recode::Recode;
use crate::disk::{Disk, Refusal, Staging};
use crate::format::{self, Manifest};
use crate::ownership::Belief;
use crate::replication::place;
use crate::volume::{self, Volume};

/// The data disks of a node.
pub struct Pool {
    disks_dir: PathBuf,
    cloud: Option<String>,
    /// The node whose disks are used; any node's without a name.
    node: Option<String>,
    beliefs: Mutex<Beliefs>,
    disks: Mutex<BTreeMap<String, Arc<Disk>>>,
    refused: Mutex<BTreeMap<String, Refusal>>,
    /// Disks that were in use at some time.
    known: Mutex<HashSet<String>>,
    open: Mutex<HashMap<String, Weak<Volume>>>,
    /// Ids that something is being made under, beside [`Pool::create`].
    claimed: Mutex<HashSet<String>>,
}

/// What the store believes of disks, and of those it knows nothing of.
#[derive(Debug, Clone, Default)]
pub struct Beliefs {
    /// Of disks, by id.
    pub of: HashMap<String, Belief>,
    /// Whether that is the store's, and not only what a ledger kept of it.
    pub live: bool,
}

/// A disk of another node, here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visitor {
    /// Its id.
    pub disk: String,
    /// Whose it is; empty if nobody knows.
    pub owner: String,
    /// Where it is mounted.
    pub path: PathBuf,
}

/// An id that is taken by an import under way, until dropped.
pub struct Claim {
    id: String,
    pool: Arc<Pool>,
}

impl Claim {
    /// The id.
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        guard(&self.pool.claimed).remove(&self.id);
    }
}

/// What is wanted of a new volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewVolume {
    /// Its id; if it is bound to a disk, with that: see [`place::name`].
    pub id: String,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it may only be read.
    pub read_only: bool,
    /// The volume it is a clone of, as that goes by here.
    pub source: Option<String>,
}

impl Pool {
    /// The disks mounted below `disks_dir`, of this cloud alone if one is named. Nothing is touched yet.
    pub fn new(disks_dir: &Path, cloud: Option<String>) -> Pool {
        Pool {
            disks_dir: disks_dir.into(),
            cloud,
            node: None,
            beliefs: Mutex::default(),
            disks: Mutex::default(),
            refused: Mutex::default(),
            known: Mutex::default(),
            open: Mutex::default(),
            claimed: Mutex::default(),
        }
    }

    /// The same for the disks of this node alone.
    pub fn of_node(self, node: &str) -> Pool {
        Pool { node: Some(node.into()), ..self }
    }

    /// Says what the store believes of disks; the next scan heeds it.
    pub fn believe(&self, beliefs: Beliefs) {
        *guard(&self.beliefs) = beliefs;
    }

    /// Takes new disks into use and lets go of those that are gone, or are another node's by now.
    pub fn scan(&self) -> io::Result<()> {
        let believed = guard(&self.beliefs).clone();
        let belief = |disk: &str| {
            let unknown = || Belief { live: believed.live, ..Belief::default() };
            believed.of.get(disk).cloned().unwrap_or_else(unknown)
        };
        let is_ours =
            |disk: &Disk| self.node.as_ref().is_none_or(|node| disk.is_of(node, &belief(disk.id())));
        guard(&self.disks).retain(|_, disk| disk.is_present() && is_ours(disk));
        let mut refused = BTreeMap::new();
        let entries = match std::fs::read_dir(&self.disks_dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for path in entries.flatten().map(|e| e.path()).filter(|p| p.is_dir()) {
            if guard(&self.disks).values().any(|d| d.path() == path) {
                continue;
            }
            let of = self.node.as_ref().map(|node| (node.as_str(), &belief as &dyn Fn(&str) -> Belief));
            match Disk::open(&path, self.cloud.as_deref(), of) {
                Ok(disk) => {
                    tracing::info!(disk = disk.id(), path = %path.display(), "a data disk is in use");
                    let first = guard(&self.known).insert(disk.id().into());
                    let disk = if first { disk } else { disk.into_returned() };
                    guard(&self.disks).insert(disk.id().into(), Arc::new(disk));
                }
                Err(Refusal::Unmarked) => {}
                Err(e) => drop(refused.insert(path.display().to_string(), e)),
            }
        }
        *guard(&self.refused) = refused;
        Ok(())
    }

    /// The disks in use.
    pub fn disks(&self) -> Vec<Arc<Disk>> {
        guard(&self.disks).values().cloned().collect()
    }

    /// Directories that have a marker and yet are not used, with the reason.
    pub fn refused(&self) -> BTreeMap<String, String> {
        guard(&self.refused).iter().map(|(path, why)| (path.clone(), why.to_string())).collect()
    }

    /// Disks of other nodes, which are not used.
    pub fn visitors(&self) -> Vec<Visitor> {
        let refused = guard(&self.refused);
        let visitor = |(path, why): (&String, &Refusal)| match why {
            Refusal::Elsewhere { disk, owner } => {
                Some(Visitor { disk: disk.clone(), owner: owner.clone(), path: path.into() })
            }
            _ => None,
        };
        refused.iter().filter_map(visitor).collect()
    }

    /// The disks, by id, of which only the store can tell whose they are, and has not yet.
    pub fn undecided(&self) -> Vec<String> {
        let refused = guard(&self.refused);
        let undecided = |why: &Refusal| match why {
            Refusal::Undecided(disk) => Some(disk.clone()),
            _ => None,
        };
        refused.values().filter_map(undecided).collect()
    }

    /// A disk that may hold volumes of ours and is not used, with the reason; `None` if all are.
    pub fn unread(&self) -> Option<String> {
        let refused = guard(&self.refused);
        let may_be_ours = |why: &Refusal| matches!(why, Refusal::Unusable(_) | Refusal::Undecided(_));
        let mut ours = refused.iter().filter(|(_, why)| may_be_ours(why));
        ours.next().map(|(path, why)| format!("disk at {path}: {why}"))
    }

    /// A disk in use.
    pub fn disk(&self, id: &str) -> Option<Arc<Disk>> {
        guard(&self.disks).get(id).cloned()
    }

    /// The disk that holds a volume. One that is bound to a disk is asked for with it: see [`place::split`].
    pub fn find(&self, name: &str) -> Option<Arc<Disk>> {
        match place::split(name) {
            (id, Some(disk)) => self.disk(disk).filter(|d| d.holds(id) && d.is_pinned(id)),
            (id, None) => self.disks().into_iter().find(|d| d.holds(id) && !d.is_pinned(id)),
        }
    }

    /// The healthy disk with the most room, of those that may be given something new if there are such.
    pub fn roomiest(&self) -> io::Result<Arc<Disk>> {
        self.roomiest_of(|_| true)
    }

    fn roomiest_of(&self, may: impl Fn(&Disk) -> bool) -> io::Result<Arc<Disk>> {
        let healthy = self.disks().into_iter().filter(|d| d.health().is_ok() && may(d));
        let roomiest = healthy.max_by_key(|d| (!d.is_spared(), d.space().map_or(0, |(_, free)| free)));
        roomiest.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no healthy data disk"))
    }

    /// The disk that something is made on: the one it is bound to, `beside` which it costs nothing, or the roomiest.
    fn disk_for(&self, name: &str, beside: Option<Arc<Disk>>) -> io::Result<Arc<Disk>> {
        let (id, bound) = place::split(name);
        let lacks = |d: &Disk| d.health().is_ok() && !d.holds(id);
        match bound {
            Some(disk) => self.disk(disk).filter(|d| lacks(d)).ok_or_else(|| {
                let why = format!("the disk {disk} is not there, not healthy, or has another replica of it");
                io::Error::new(io::ErrorKind::NotFound, why)
            }),
            None => beside.filter(|d| lacks(d)).map_or_else(|| self.roomiest_of(lacks), Ok),
        }
    }

    /// Takes an id for an import; `None` if it is in use or taken.
    pub fn claim(self: &Arc<Pool>, id: &str) -> Option<Claim> {
        let mut claimed = guard(&self.claimed);
        if self.find(id).is_some() || !claimed.insert(id.to_owned()) {
            return None;
        }
        Some(Claim { id: id.to_owned(), pool: self.clone() })
    }

    /// Whether an import under this id is under way.
    pub fn is_claimed(&self, id: &str) -> bool {
        guard(&self.claimed).contains(id)
    }

    /// Opens a volume, or hands out the one that is open.
    pub fn open(&self, name: &str) -> io::Result<Arc<Volume>> {
        let mut open = guard(&self.open);
        if let Some(volume) = open.get(name).and_then(Weak::upgrade) {
            return Ok(volume);
        }
        let disk = self.find(name).ok_or_else(|| not_found(name))?;
        let volume = Arc::new(Volume::open(&disk.volume(place::split(name).0))?);
        open.retain(|_, v| v.strong_count() > 0);
        open.insert(name.into(), Arc::downgrade(&volume));
        Ok(volume)
    }

    /// Does not hand out again what is open of a volume: its disk has gone since.
    pub fn close(&self, name: &str) {
        guard(&self.open).remove(name);
    }

    /// The volumes that are open, by what they go by here.
    pub fn opened(&self) -> Vec<(String, Arc<Volume>)> {
        guard(&self.open).iter().filter_map(|(id, v)| Some((id.clone(), v.upgrade()?))).collect()
    }

    /// Like [`Pool::open`], to write its content even if it is one that may only be read. Whoever does so is the only
    /// one, and nobody reads it elsewhere until it is whole.
    pub fn open_to_fill(&self, name: &str) -> io::Result<Arc<Volume>> {
        let volume = self.open(name)?;
        if volume.read_only() { volume.to_fill() } else { Ok(volume) }
    }

    /// Makes a volume; it is durable when this returns. A clone lies on its source's disk, where it costs nothing
    /// if the file system can share blocks. Answers the disk.
    pub fn create(&self, new: &NewVolume) -> io::Result<Arc<Disk>> {
        self.create_checked(new, None, || Ok(()))
    }

    /// Like [`Pool::create`], if `check` agrees once the content is there. With `recode` the source's content is copied
    /// from under one key to under another, and nothing is shared.
    pub fn create_checked(
        &self,
        new: &NewVolume,
        recode: Option<&Recode>,
        check: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<Arc<Disk>> {
        let (id, bound) = place::split(&new.id);
        check_id(id)?;
        if self.find(&new.id).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let beside = new.source.as_ref().and_then(|source| self.find(source)).filter(|_| recode.is_none());
        let disk = self.disk_for(&new.id, beside)?;
        let mut manifest = Manifest::new(id, new.size, new.read_only);
        let staging = match (&new.source, recode) {
            (None, _) => disk.stage(id)?,
            (Some(source), None) => self.stage_clone_on(&disk, source, &mut manifest)?,
            (Some(source), Some(recode)) => self.stage_recoded(&disk, source, &manifest, recode)?,
        };
        volume::write_manifest(staging.path(), &manifest)?;
        if bound.is_some() {
            staging.pin()?;
        }
        check()?;
        staging.publish(id)?;
        Ok(disk)
    }

    /// Builds a copy of a volume as it is at one moment, without its manifest (which is completed here).
    pub fn stage_clone(&self, source: &str, manifest: &mut Manifest) -> io::Result<Staging> {
        let disk = self.disk_for(&manifest.id, self.find(source))?;
        self.stage_clone_on(&disk, source, manifest)
    }

    fn stage_clone_on(&self, disk: &Arc<Disk>, source: &str, manifest: &mut Manifest) -> io::Result<Staging> {
        let from = self.open(source)?;
        if from.size() > manifest.size {
            let text = format!("the source has {} bytes, the clone {}", from.size(), manifest.size);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let staging = disk.stage(&manifest.id)?;
        manifest.source = Some(place::split(source).0.into());
        from.copy_to(staging.path(), manifest)?;
        Ok(staging)
    }

    /// Builds a copy of a volume that may only be read, under another key, without its final manifest.
    fn stage_recoded(
        &self,
        disk: &Arc<Disk>,
        source: &str,
        manifest: &Manifest,
        recode: &Recode,
    ) -> io::Result<Staging> {
        let from = self.open(source)?;
        if !from.read_only() || from.size() > manifest.size {
            let why = "only what does not change, and is no larger, comes under another key";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let staging = disk.stage(&manifest.id)?;
        volume::write_manifest(staging.path(), &Manifest { read_only: false, ..manifest.clone() })?;
        recode.copy(&from, &Volume::open_as(staging.path(), &manifest.id)?)?;
        Ok(staging)
    }

    /// Takes a volume away, durably. One that is not there is left alone.
    pub fn destroy(&self, name: &str) -> io::Result<()> {
        let id = place::split(name).0;
        check_id(id)?;
        self.close(name);
        match self.find(name) {
            Some(disk) => disk.destroy(id),
            None => Ok(()),
        }
    }
}

/// Refuses what may not be a file name.
pub fn check_id(id: &str) -> io::Result<()> {
    if format::is_id(id) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "that is not a volume id"))
}

fn not_found(id: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no disk in use holds the volume {id}"))
}

// The maps are whole after a panic: each change is one call.
fn guard<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn pool(disks: &[&str]) -> (tempfile::TempDir, Pool) {
        let dir = tempfile::tempdir().unwrap();
        for disk in disks {
            let path = dir.path().join(disk);
            std::fs::create_dir(&path).unwrap();
            let marker = format!(r#"{{"format":1,"disk":"{disk}","cloud":"c1"}}"#);
            std::fs::write(path.join(format::MARKER), marker).unwrap();
        }
        let pool = Pool::new(dir.path(), Some("c1".into()));
        pool.scan().unwrap();
        (dir, pool)
    }

    fn new(id: &str, size: u64, source: Option<&str>) -> NewVolume {
        NewVolume { id: id.into(), size, read_only: false, source: source.map(Into::into) }
    }

    fn write(volume: &Volume, at: u64, bytes: &[u8]) {
        volume.write_slice(at, bytes).unwrap();
    }

    fn read(volume: &Volume, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![1; len];
        volume.read_slice(at, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_disk_in_use_elsewhere_is_unread_and_one_of_another_cloud_is_foreign() {
        let (dir, holder) = pool(&["d1"]);
        let second = Pool::new(dir.path(), Some("c1".into()));
        second.scan().unwrap();
        assert!(second.disks().is_empty());
        assert!(second.unread().unwrap().contains("another process"));
        drop(holder);
        second.scan().unwrap();
        assert_eq!((second.disks().len(), second.unread()), (1, None));
        drop(second);
        let other = Pool::new(dir.path(), Some("c2".into()));
        other.scan().unwrap();
        assert_eq!((other.disks().len(), other.refused().len(), other.unread()), (0, 1, None));
    }

    #[test]
    fn a_clone_is_a_copy_of_its_own() {
        let (_dir, pool) = pool(&["d1"]);
        pool.create(&new("a", 1 << 20, None)).unwrap();
        let a = pool.open("a").unwrap();
        write(&a, 4096, b"before");
        pool.create(&new("b", 3 << 30, Some("a"))).unwrap();
        write(&a, 4096, b"after!");
        let b = pool.open("b").unwrap();
        assert_eq!(read(&b, 4096, 6), b"before");
        assert_eq!(read(&b, (2 << 30) + 1, 6), [0; 6]);
        assert_eq!(b.manifest().source.as_deref(), Some("a"));
        assert!(pool.create(&new("c", 512, Some("a"))).is_err(), "a clone is never smaller");
        assert!(pool.create(&new("b", 512, None)).is_err(), "an id is used once");
        assert!(pool.disks()[0].staged().unwrap().is_empty());
    }

    #[test]
    fn only_marked_disks_of_this_cloud_are_touched() {
        let (dir, first) = pool(&["d1"]);
        drop(first);
        for (name, marker) in [("foreign", r#"{"format":1,"disk":"d2","cloud":"c2"}"#), ("broken", "{")] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join(format::MARKER), marker).unwrap();
        }
        std::fs::create_dir(dir.path().join("unmarked")).unwrap();
        let pool = Pool::new(dir.path(), Some("c1".into()));
        pool.scan().unwrap();
        assert_eq!(pool.disks().len(), 1);
        assert_eq!(pool.refused().len(), 2);
        assert_eq!(std::fs::read_dir(dir.path().join("unmarked")).unwrap().count(), 0);
        assert_eq!(std::fs::read_dir(dir.path().join("foreign")).unwrap().count(), 1);

        let second = Pool::new(dir.path(), None);
        second.scan().unwrap();
        assert!(second.refused().values().any(|why| why.contains("another process")));
    }

    #[test]
    fn what_was_never_published_is_gone_after_a_restart() {
        let (dir, first) = pool(&["d1"]);
        first.create(&new("a", 512, None)).unwrap();
        let staging = dir.path().join("d1").join(format::STAGING);
        std::fs::create_dir(staging.join("half.1")).unwrap();
        std::fs::write(staging.join("half.1").join("seg-00000000"), b"x").unwrap();
        first.destroy("a").unwrap();
        assert_eq!(first.disks()[0].trashed().unwrap().len(), 1);
        drop(first);
        let second = Pool::new(dir.path(), None);
        second.scan().unwrap();
        let disk = &second.disks()[0];
        assert!(disk.staged().unwrap().is_empty());
        disk.empty_trash().unwrap();
        assert!(disk.trashed().unwrap().is_empty() && second.find("a").is_none());
    }
}
