//! One data disk: a mounted file system with our marker, and the directories of volumes on it.
//!
//! It moves whole volume directories: staging → volumes → trash, each move durable. It must never touch a
//! directory without a valid marker of this cloud, nor remove anything from `volumes` but by [`Disk::destroy`].

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

use crate::format::{self, Marker, Owner};
use crate::fsio;
use crate::ownership::{Belief, Verdict, judge};
use crate::replication::place;

/// A data disk in use by this process, and by no other.
pub struct Disk {
    id: String,
    path: PathBuf,
    /// Whose it says it is.
    owner: Option<Owner>,
    /// The marker file, locked as long as the disk is in use.
    _marker: File,
    health: Mutex<Result<(), String>>,
    /// Nothing new is put on it, if there is another.
    spared: AtomicBool,
    /// It was in use by this process before, and went: what it was not told to flush may be lost.
    returned: bool,
}

/// Why a directory is not used as a data disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It has no marker: it isn't ours.
    #[error("it has no marker {}", format::MARKER)]
    Unmarked,
    /// It belongs to another cloud: nothing of ours is on it.
    #[error("it belongs to the cloud {0}")]
    Foreign(String),
    /// It belongs to another node: nothing on it is this one's, until the cloud says so.
    #[error(
        "it belongs to {}: nothing on it is used here until that node is known to be without it",
        if owner.is_empty() { "a node that is not known" } else { owner }
    )]
    Elsewhere {
        /// The disk's id.
        disk: String,
        /// The node; empty if nobody knows which.
        owner: String,
    },
    /// Whose it is only the store can tell, which was not heard of yet.
    #[error("whose it is will be known when the store can be reached")]
    Undecided(String),
    /// It has a marker, but cannot be used, now or at all; something of ours may be on it.
    #[error("{0}")]
    Unusable(String),
}

/// Says what the store believes of the disk of this id.
pub type Beliefs<'a> = &'a dyn Fn(&str) -> Belief;

impl Disk {
    /// Takes the disk mounted at `path` into use, and clears what an earlier process left in staging. With the name of a
    /// node only if it is that node's; it is made so first if the store says it is.
    pub fn open(path: &Path, cloud: Option<&str>, of: Option<(&str, Beliefs<'_>)>) -> Result<Disk, Refusal> {
        let unusable = |e: io::Error| Refusal::Unusable(e.to_string());
        let marker_path = path.join(format::MARKER);
        let bytes = match fsio::read_small(&marker_path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Refusal::Unmarked),
            read => read.map_err(unusable)?,
        };
        let marker = Marker::parse(&bytes).map_err(Refusal::Unusable)?;
        if cloud.is_some_and(|ours| ours != marker.cloud) {
            return Err(Refusal::Foreign(marker.cloud));
        }
        let written = read_owner(path)?;
        let owner = match of {
            None => written,
            Some((node, beliefs)) => {
                let empty = written.is_none() && is_empty(path).map_err(unusable)?;
                match judge(node, written.as_ref(), empty, &beliefs(&marker.disk)) {
                    Verdict::Use => written,
                    Verdict::Take(adoption) => Some(Owner::new(node, adoption)),
                    Verdict::Elsewhere(owner) => {
                        return Err(Refusal::Elsewhere { disk: marker.disk, owner });
                    }
                    Verdict::Wait => return Err(Refusal::Undecided(marker.disk)),
                }
            }
        };
        let file = File::open(marker_path).map_err(unusable)?;
        fsio::lock(&file).map_err(unusable)?;
        if let Some(owner) = owner.as_ref().filter(|_| of.is_some()) {
            make_owned(path, owner).map_err(unusable)?;
        }
        let disk = Disk {
            id: marker.disk,
            path: path.into(),
            owner,
            _marker: file,
            health: Mutex::new(Ok(())),
            spared: AtomicBool::new(false),
            returned: false,
        };
        disk.prepare().map_err(unusable)?;
        Ok(disk)
    }

    fn prepare(&self) -> io::Result<()> {
        for name in [format::VOLUMES, format::STAGING, format::TRASH] {
            match fs::create_dir(self.path.join(name)) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                _ => {}
            }
        }
        fsio::sync_dir(&self.path)?;
        empty(&self.path.join(format::STAGING))
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is still this node's, by what the store believes now.
    pub fn is_of(&self, node: &str, belief: &Belief) -> bool {
        judge(node, self.owner.as_ref(), false, belief) == Verdict::Use
    }

    /// Whether the marker is still where it was found: false once the disk is unmounted.
    pub fn is_present(&self) -> bool {
        self.path.join(format::MARKER).exists()
    }

    /// The directory of a volume, whether it is there or not.
    pub fn volume(&self, id: &str) -> PathBuf {
        self.path.join(format::VOLUMES).join(id)
    }

    /// Whether the volume is on this disk.
    pub fn holds(&self, id: &str) -> bool {
        format::is_id(id) && self.volume(id).is_dir()
    }

    /// Whether what it has of the volume is bound to this disk.
    pub fn is_pinned(&self, id: &str) -> bool {
        self.volume(id).join(format::PINNED).exists()
    }

    /// What the volumes on it go by on this node, see [`place`].
    pub fn replicas(&self) -> io::Result<Vec<String>> {
        let named = |id: String| if self.is_pinned(&id) { place::on_disk(&id, &self.id) } else { id };
        Ok(self.volumes()?.into_iter().map(named).collect())
    }

    /// The ids of the volumes on it, in order.
    pub fn volumes(&self) -> io::Result<Vec<String>> {
        names(&self.path.join(format::VOLUMES))
    }

    /// Whether it can be looked what is on it.
    pub fn check_readable(&self) -> io::Result<()> {
        fs::read_dir(self.path.join(format::VOLUMES)).map(drop)
    }

    /// What is being built on it.
    pub fn staged(&self) -> io::Result<Vec<String>> {
        names(&self.path.join(format::STAGING))
    }

    /// What was destroyed and still takes room.
    pub fn trashed(&self) -> io::Result<Vec<String>> {
        names(&self.path.join(format::TRASH))
    }

    /// Bytes in all, and bytes free.
    pub fn space(&self) -> io::Result<(u64, u64)> {
        fsio::space(&self.path)
    }

    /// What the last probe found.
    pub fn health(&self) -> Result<(), String> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets what [`Disk::health`] answers.
    pub fn set_health(&self, health: Result<(), String>) {
        *self.health.lock().unwrap_or_else(PoisonError::into_inner) = health;
    }

    /// Whether nothing new is to be put on it.
    pub fn is_spared(&self) -> bool {
        self.spared.load(SeqCst)
    }

    /// Sets what [`Disk::is_spared`] answers.
    pub fn spare(&self, on: bool) {
        self.spared.store(on, SeqCst);
    }

    /// The disk, known to have been in use before and to have gone.
    pub fn into_returned(self) -> Disk {
        Disk { returned: true, ..self }
    }

    /// Whether it was in use by this process before, and went.
    pub fn has_returned(&self) -> bool {
        self.returned
    }

    /// Writes and syncs a small file, to see whether the disk still can. A full disk is not a sick one.
    pub fn probe(&self) -> io::Result<()> {
        match fsio::replace(&self.path, format::PROBE, Uuid::new_v4().to_string().as_bytes()) {
            Err(e) if fsio::is_full(&e) => Ok(()),
            done => done,
        }
    }

    /// Begins to build something on this disk.
    pub fn stage(self: &Arc<Disk>, id: &str) -> io::Result<Staging> {
        let path = self.path.join(format::STAGING).join(format!("{id}.{}", Uuid::new_v4().simple()));
        fs::create_dir(&path)?;
        Ok(Staging { disk: self.clone(), path })
    }

    /// Takes a volume away, durably; its bytes are freed by [`Disk::empty_trash`].
    pub fn destroy(&self, id: &str) -> io::Result<()> {
        let to = self.path.join(format::TRASH).join(format!("{id}.{}", Uuid::new_v4().simple()));
        fs::rename(self.volume(id), to)?;
        fsio::sync_dir(&self.path.join(format::TRASH))?;
        fsio::sync_dir(&self.path.join(format::VOLUMES))
    }

    /// Frees what was destroyed. May take long.
    pub fn empty_trash(&self) -> io::Result<()> {
        empty(&self.path.join(format::TRASH))
    }
}

fn read_owner(path: &Path) -> Result<Option<Owner>, Refusal> {
    match fsio::read_small(&path.join(format::OWNER)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Refusal::Unusable(e.to_string())),
        Ok(bytes) => Owner::parse(&bytes).map(Some).map_err(Refusal::Unusable),
    }
}

/// Whether there is nothing on a disk that could be mistaken for another node's.
fn is_empty(path: &Path) -> io::Result<bool> {
    for folder in [format::VOLUMES, format::BACKUPS] {
        match fs::read_dir(path.join(folder)).map(|mut entries| entries.next().is_some()) {
            Ok(true) => return Ok(false),
            Ok(false) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(true)
}

/// Has the disk say whose it is, durably. What was adopted is bound to the disk before: by its places, all on it is.
fn make_owned(path: &Path, owner: &Owner) -> io::Result<()> {
    if read_owner(path).ok().flatten().as_ref() == Some(owner) {
        return Ok(());
    }
    if owner.adoption > 0 {
        let volumes = path.join(format::VOLUMES);
        let entries = match fs::read_dir(&volumes) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            entries => entries?.collect::<io::Result<Vec<_>>>()?,
        };
        fsio::each_at_once(&entries, |entry| {
            let pinned = entry.path().join(format::PINNED);
            if entry.file_type()?.is_dir() && !pinned.exists() {
                File::create(pinned)?.sync_all()?;
                fsio::sync_dir(&entry.path())?;
            }
            Ok(())
        })?;
    }
    fsio::replace(path, format::OWNER, &serde_json::to_vec(owner)?)
}

/// The volumes on a disk that is not in use which are not bound to it, and its whole backups.
pub fn unbound_and_backups(path: &Path) -> io::Result<(Vec<String>, Vec<String>)> {
    let those = |folder: &str, is_one: &dyn Fn(&Path) -> bool| -> io::Result<Vec<String>> {
        let dir = path.join(folder);
        let found = match names(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            found => found?,
        };
        Ok(found.into_iter().filter(|id| format::is_id(id) && is_one(&dir.join(id))).collect())
    };
    let unbound = those(format::VOLUMES, &|dir| !dir.join(format::PINNED).exists())?;
    Ok((unbound, those(format::BACKUPS, &|dir| dir.join(format::MANIFEST).exists())?))
}

/// A volume directory that is being built. It vanishes when dropped, unless it was published.
pub struct Staging {
    disk: Arc<Disk>,
    path: PathBuf,
}

impl Staging {
    /// Where to build it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Binds it to this disk.
    pub fn pin(&self) -> io::Result<()> {
        File::create_new(self.path.join(format::PINNED)).map(drop)
    }

    /// The disk it is on.
    pub fn disk(&self) -> &Arc<Disk> {
        &self.disk
    }

    /// Makes it the volume `id`, durably, with all that was written into it. Fails if that volume exists.
    pub fn publish(self, id: &str) -> io::Result<()> {
        let entries: Vec<_> = fs::read_dir(&self.path)?.collect::<io::Result<_>>()?;
        fsio::each_at_once(&entries, |entry| {
            let file = File::open(entry.path())?;
            // What other volumes have too is on stable media already, and there may be thousands of them.
            if fsio::has_links(&file.metadata()?) { Ok(()) } else { file.sync_all() }
        })?;
        fsio::sync_dir(&self.path)?;
        let to = self.disk.volume(id);
        if to.exists() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        fs::rename(&self.path, &to)?;
        fsio::sync_dir(&self.disk.path.join(format::VOLUMES))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), error = %e, "staging was not cleared");
            }
            _ => {}
        }
    }
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn empty(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}
