//! Ceph: a volume is an image of a pool, named `cairn.ID`. Ceph's own `rbd` does what is done to images, and QEMU's block
//! driver, in a `qemu-nbd` per volume that is in use, has them open.
//!
//! An image is made under another name and renamed, so that what has its volume's name is whole. A clone (snapshots are
//! clones, as in the engine) is one of Ceph's second kind: of a snapshot that is taken, cloned and removed at once, which
//! Ceph keeps out of sight for as long as clones need it. A volume that is destroyed goes to the pool's trash, where it stays
//! while clones need its blocks; [`Rbd::sweep`](Driver::sweep) frees what can be freed.
//!
//! Nobody writes an image but whom it was opened for last: before it is opened, who holds its lock is put on the cluster's
//! list of those whose writes are refused.

mod run;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;
use tokio::process::Child;
use tokio::task::spawn_blocking;

use self::run::{Ask, Programs};
use super::driver::{Content, Driver, Opened, Origin, Room};
use super::model::{Access, Secret};
use super::server::{Server, Start};
use crate::media::Media;

/// What the names of our images begin with.
const PREFIX: &str = "cairn.";
/// What an image is called while it is made.
const NEW: &str = ".new";
/// Bytes of an image that is made to see whether that works.
const TRIAL: u64 = 4 << 20;
/// How much of an image's content is handed on at a time, in bytes.
const CHUNK: u64 = 1 << 20;
/// How many images that wait in the trash are tried at a sweep.
const SWEEP_MAX: usize = 100;
/// The part of a cluster that it keeps free to be able to repair itself.
const RESERVED: u64 = 20;
/// The copies that are counted with where nothing says how many there are.
const COPIES: u64 = 3;

/// What the programs answer by, beside what they say: errno.
const ABSENT: i32 = 2;
const THERE: i32 = 17;

/// A pool of a cluster.
pub struct Rbd {
    programs: Programs,
    pool: String,
}

#[derive(Deserialize)]
struct Info {
    size: u64,
}

#[derive(Deserialize)]
struct Trashed {
    id: String,
    name: String,
}

#[derive(Deserialize)]
struct Lock {
    id: String,
    locker: String,
}

#[derive(Deserialize)]
struct Usage {
    pools: Vec<PoolUsage>,
    total_avail: u64,
    total_space: u64,
}

#[derive(Deserialize)]
struct PoolUsage {
    name: String,
    size_bytes: u64,
    num_objects: u64,
    num_object_copies: u64,
}

impl Usage {
    /// What volumes of a pool may take: all its copies are counted in what the cluster says.
    fn room(&self, pool: &str) -> Option<Room> {
        let pool = self.pools.iter().find(|p| p.name == pool)?;
        let copies = match pool.num_objects {
            0 => COPIES,
            objects => pool.num_object_copies.div_ceil(objects).max(1),
        };
        let space = |kib: u64| kib.saturating_mul(1024);
        let free = space(self.total_avail.saturating_sub(self.total_space / RESERVED)) / copies;
        Some(Room { size: free + pool.size_bytes, free })
    }
}

impl Rbd {
    /// The pool, with what its programs must know in files under `dir`, which nobody else may read.
    pub fn new(dir: &Path, access: &Access, secret: &Secret) -> io::Result<Rbd> {
        let programs = Programs::prepare(dir, access, secret)?;
        Ok(Rbd { programs, pool: access.pool.clone() })
    }

    /// A name as the programs take it: in this pool.
    fn at(&self, name: &str) -> String {
        format!("{}/{name}", self.pool)
    }

    fn rbd(&self, words: &[&str]) -> Ask {
        self.programs.rbd(words)
    }

    async fn bytes(&self, name: &str) -> io::Result<Option<u64>> {
        let said = self.rbd(&["info", "--format", "json", &self.at(name)]).unless(ABSENT).await?;
        said.map(|said| Ok(parsed::<Info>(&said)?.size)).transpose()
    }

    async fn resize(&self, name: &str, size: u64) -> io::Result<()> {
        self.rbd(&["resize", "--no-progress", "--size", &bytes(size), &self.at(name)]).done().await
    }

    async fn remove_snapshot(&self, name: &str, snapshot: &str) -> io::Result<()> {
        let at = format!("{}@{snapshot}", self.at(name));
        self.rbd(&["snap", "rm", "--no-progress", &at]).unless(ABSENT).await.map(drop)
    }

    async fn snapshot(&self, name: &str, snapshot: &str) -> io::Result<String> {
        let at = format!("{}@{snapshot}", self.at(name));
        self.rbd(&["snap", "create", "--no-progress", &at]).unless(THERE).await?;
        Ok(at)
    }

    async fn clone_of(&self, source: &str, id: &str, new: &str) -> io::Result<()> {
        // One that a making which was cut off left is as good: it is of after the clone was asked for.
        let at = self.snapshot(&image(source), id).await?;
        self.rbd(&["clone", &at, &self.at(new)]).done().await
    }

    /// Writes what somebody else has into a new image.
    async fn import(&self, new: &str, content: Arc<dyn Media>) -> io::Result<()> {
        let mut child =
            self.rbd(&["import", "--no-progress", "--image-format", "2", "-", &self.at(new)]).with_input()?;
        let fed = feed(&mut child, content).await;
        let ended = run::ended("rbd import", child).await;
        // What it said is the reason; that it took no more is but the consequence.
        ended.and(fed)
    }

    /// Puts whoever may still write an image on the list of those whose writes are refused.
    fn fence(programs: &Programs, image: &str) -> io::Result<()> {
        let said = programs.rbd(&["lock", "ls", "--format", "json", image]).now()?;
        for lock in parsed::<Vec<Lock>>(&said)? {
            tracing::info!(image, locker = lock.locker, "an image is taken from who had it");
            programs.rbd(&["lock", "rm", image, &lock.id, &lock.locker]).unless_now(ABSENT)?;
        }
        Ok(())
    }
}

#[async_trait]
impl Driver for Rbd {
    async fn size(&self, id: &str) -> io::Result<Option<u64>> {
        self.bytes(&image(id)).await
    }

    async fn create(&self, id: &str, size: u64, origin: Origin) -> io::Result<()> {
        let (name, new) = (image(id), unfinished(id));
        if self.bytes(&name).await?.is_none() {
            self.rbd(&["rm", "--no-progress", &self.at(&new)]).unless(ABSENT).await?;
            match &origin {
                Origin::Empty => self.rbd(&["create", "--size", &bytes(size), &self.at(&new)]).done().await?,
                Origin::Clone(source) => self.clone_of(source, id, &new).await?,
                Origin::Content(content) => self.import(&new, content.clone()).await?,
            }
            if self.bytes(&new).await?.is_some_and(|had| had < size) {
                self.resize(&new, size).await?;
            }
            self.rbd(&["rename", &self.at(&new), &self.at(&name)]).done().await?;
        }
        match &origin {
            Origin::Clone(source) => self.remove_snapshot(&image(source), id).await,
            Origin::Empty | Origin::Content(_) => Ok(()),
        }
    }

    async fn grow(&self, id: &str, size: u64) -> io::Result<()> {
        match self.bytes(&image(id)).await? {
            Some(had) if had >= size => Ok(()),
            Some(_) => self.resize(&image(id), size).await,
            None => Err(io::Error::new(io::ErrorKind::NotFound, "its image is not in the pool")),
        }
    }

    async fn destroy(&self, id: &str, source: Option<&str>) -> io::Result<()> {
        self.rbd(&["rm", "--no-progress", &self.at(&unfinished(id))]).unless(ABSENT).await?;
        if let Some(source) = source {
            self.remove_snapshot(&image(source), id).await?;
        }
        self.rbd(&["trash", "mv", &self.at(&image(id))]).unless(ABSENT).await?;
        self.sweep().await
    }

    async fn open(&self, id: &str, size: u64, read_only: bool, dir: &Path) -> io::Result<Arc<dyn Opened>> {
        let socket = dir.join(id);
        let (programs, locked) = (self.programs.clone(), self.at(&image(id)));
        let (opens, pool, name, at) = (programs.clone(), self.pool.clone(), image(id), socket.clone());
        let start = Start {
            volume: id.to_owned(),
            command: Box::new(move || opens.server(&pool, &name, &at, read_only)),
            before: Box::new(move || Rbd::fence(&programs, &locked)),
            socket,
        };
        let server = spawn_blocking(move || Server::start(start, size, read_only));
        Ok(Arc::new(server.await.map_err(io::Error::other)??))
    }

    async fn read(&self, id: &str, reader: &str) -> io::Result<Content> {
        let at = self.snapshot(&image(id), reader).await?;
        self.rbd(&["export", "--no-progress", &at, "-"]).output()
    }

    async fn read_ended(&self, id: &str, reader: &str) -> io::Result<()> {
        self.remove_snapshot(&image(id), reader).await
    }

    async fn room(&self) -> io::Result<Room> {
        let said = self.programs.rados(&["df", "--format", "json"]).answer().await?;
        parsed::<Usage>(&said)?
            .room(&self.pool)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("it has no pool {}", self.pool)))
    }

    async fn try_out(&self) -> io::Result<()> {
        let name = self.at(&format!("{PREFIX}trial-{}", uuid::Uuid::new_v4()));
        self.rbd(&["create", "--size", &bytes(TRIAL), &name]).done().await?;
        self.rbd(&["rm", "--no-progress", &name]).done().await
    }

    async fn sweep(&self) -> io::Result<()> {
        loop {
            let said = self.rbd(&["trash", "ls", "--format", "json", &self.pool]).answer().await?;
            let ours = parsed::<Vec<Trashed>>(&said)?.into_iter().filter(|t| t.name.starts_with(PREFIX));
            let mut freed = 0;
            for trashed in ours.take(SWEEP_MAX) {
                match self.rbd(&["trash", "rm", "--no-progress", &self.at(&trashed.id)]).done().await {
                    Ok(()) => freed += 1,
                    // One that clones need, or whose last user was not forgotten yet, is left for another time.
                    Err(e) => {
                        tracing::debug!(image = trashed.name, error = %e, "an image stays in the trash")
                    }
                }
            }
            if freed == 0 {
                break;
            }
            // What they were clones of may be free to go now.
        }
        Ok(())
    }
}

/// The image of a volume.
fn image(id: &str) -> String {
    format!("{PREFIX}{id}")
}

fn unfinished(id: &str) -> String {
    format!("{PREFIX}{id}{NEW}")
}

/// A size as the programs take it.
fn bytes(size: u64) -> String {
    format!("{size}B")
}

fn parsed<T: for<'a> Deserialize<'a>>(said: &str) -> io::Result<T> {
    serde_json::from_str(said)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("an answer of Ceph: {e}")))
}

/// Hands content to a program that reads it from its standard input.
async fn feed(child: &mut Child, content: Arc<dyn Media>) -> io::Result<()> {
    use tokio::io::AsyncWriteExt;
    let Some(mut input) = child.stdin.take() else { return Err(io::ErrorKind::BrokenPipe.into()) };
    let size = content.size();
    let mut at = 0;
    while at < size {
        let (from, len) = (content.clone(), (size - at).min(CHUNK));
        let read = spawn_blocking(move || {
            let mut bytes = vec![0; len as usize];
            from.read_slice(at, &mut bytes).map(|()| bytes)
        });
        input.write_all(&read.await.map_err(io::Error::other)??).await?;
        at += len;
    }
    input.shutdown().await
}

/// Where the programs' files are, below the directory of the storage process's sockets.
pub fn home(sockets: &Path, backend: &str) -> PathBuf {
    sockets.join("ceph").join(backend)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_what_volumes_may_take_and_not_what_disks_have() {
        let said = r#"{"pools":[{"name":"other","size_bytes":5,"num_objects":0,"num_object_copies":0},
            {"name":"p","id":"2","size_bytes":3221225472,"num_objects":4,"num_object_copies":12}],
            "total_objects":4,"total_used":10,"total_avail":104857600,"total_space":209715200}"#;
        let usage: Usage = serde_json::from_str(said).unwrap();
        let free = (100 << 30) - (10 << 30);
        assert_eq!(usage.room("p"), Some(Room { size: free / 3 + (3 << 30), free: free / 3 }));
        assert_eq!(usage.room("other").map(|r| r.free), Some(free / COPIES));
        assert_eq!(usage.room("none"), None);
    }
}
