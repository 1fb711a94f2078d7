//! How backups lie on their target, which is any directory: one of a data disk, or of a file system mounted from elsewhere.
//!
//! A backup is a directory named by its id. `data` holds chunks one behind the other; `index` has a line for each chunk of
//! the volume that is not all zeroes: its number, the SHA-256 of its content, the backup that stores it, offset and length
//! there. A chunk that is as it was in the parent is not stored again. `manifest.json`, written last, has the volume's size
//! and the SHA-256 of the index: without it a backup is none. Until then the index is called `index.part`, and lines get
//! there after their data is on stable media, so that a copy that was cut off goes on behind its last line.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::fsio;
use crate::volume::Volume;

/// The format that this release writes and reads.
const FORMAT: u32 = 1;
/// Bytes of a volume that are compared and stored together.
pub const CHUNK: u64 = 4 << 20;
/// Bytes between two syncs, which is what a crash may repeat.
const SYNC_EVERY: u64 = 64 << 20;
const DATA: &str = "data";
const INDEX: &str = "index";
const PARTIAL: &str = "index.part";
const MANIFEST: &str = "manifest.json";
/// What the name of a backup that was removed ends in.
const REMOVED: &str = ".removed";
static ZEROES: [u8; CHUNK as usize] = [0; CHUNK as usize];

/// What is known of a whole backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The format of the directory.
    pub format: u32,
    /// The backup's id.
    pub id: String,
    /// The volume's size in bytes.
    pub size: u64,
    /// Bytes of a chunk.
    pub chunk: u64,
    /// How many chunks it has.
    pub chunks: u64,
    /// Bytes that are stored here.
    pub stored: u64,
    /// The SHA-256 of the index, in hexadecimal.
    pub index_sha256: String,
}

/// One chunk that is not all zeroes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Chunk {
    number: u64,
    sha256: String,
    /// The backup that stores it.
    home: String,
    offset: u64,
    len: u64,
}

impl Chunk {
    fn line(&self) -> String {
        let Chunk { number, sha256, home, offset, len } = self;
        format!("{number} {sha256} {home} {offset} {len}\n")
    }

    fn parse(line: &str) -> Option<Chunk> {
        let mut words = line.split(' ');
        let chunk = Chunk {
            number: words.next()?.parse().ok()?,
            sha256: words.next().filter(|w| w.len() == 64)?.to_owned(),
            home: words.next().filter(|w| crate::format::is_id(w))?.to_owned(),
            offset: words.next()?.parse().ok()?,
            len: words.next()?.parse().ok().filter(|len| *len <= CHUNK)?,
        };
        words.next().is_none().then_some(chunk)
    }
}

fn corrupt(id: &str, what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the backup {id} is damaged: {what}"))
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The directories under which backups are looked for; the first is where new ones are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots(pub Vec<PathBuf>);

impl Roots {
    /// The directory of a backup, whole or begun.
    pub fn find(&self, id: &str) -> Option<PathBuf> {
        self.0.iter().map(|root| root.join(id)).find(|dir| dir.is_dir())
    }

    /// The manifest of a backup; `None` if it is not there, or not whole.
    pub fn manifest(&self, id: &str) -> io::Result<Option<Manifest>> {
        let Some(dir) = self.find(id) else { return Ok(None) };
        let bytes = match fsio::read_small(&dir.join(MANIFEST)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read?,
        };
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|e| corrupt(id, e))?;
        if manifest.format != FORMAT || manifest.id != id || manifest.chunk != CHUNK {
            return Err(corrupt(id, "its manifest is of another backup or format"));
        }
        Ok(Some(manifest))
    }

    /// The manifest of a backup that must be there and whole.
    pub fn whole(&self, id: &str) -> io::Result<Manifest> {
        self.manifest(id)?.ok_or_else(|| missing(id))
    }

    /// The chunks of a whole backup, in order.
    fn chunks(&self, id: &str) -> io::Result<(Manifest, Vec<Chunk>)> {
        let manifest = self.whole(id)?;
        let dir = self.find(id).ok_or_else(|| missing(id))?;
        let bytes = fs::read(dir.join(INDEX))?;
        if sha256(&bytes) != manifest.index_sha256 {
            return Err(corrupt(id, "its index is not the one that was written"));
        }
        let text = String::from_utf8(bytes).map_err(|e| corrupt(id, e))?;
        let parsed: Option<Vec<Chunk>> = text.lines().map(Chunk::parse).collect();
        Ok((manifest, parsed.ok_or_else(|| corrupt(id, "its index cannot be read"))?))
    }

    /// Copies a volume that does not change, or goes on with that. A `parent`'s chunks are not stored again.
    pub fn write(
        &self,
        id: &str,
        parent: Option<&str>,
        source: &Volume,
        stop: &AtomicBool,
    ) -> io::Result<Manifest> {
        if let Some(whole) = self.manifest(id)? {
            return Ok(whole);
        }
        let before = match parent {
            Some(parent) => self.chunks(parent)?.1.into_iter().map(|c| (c.number, c)).collect(),
            None => HashMap::new(),
        };
        let dir = match self.find(id) {
            Some(begun) => begun,
            None => self.begin(id)?,
        };
        let mut copy = Copy::resume(&dir, id)?;
        let size = source.size();
        let mut buffer = vec![0; CHUNK as usize];
        for number in copy.next..size.div_ceil(CHUNK) {
            if stop.load(SeqCst) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let offset = number * CHUNK;
            let len = CHUNK.min(size - offset);
            if source.is_hole(offset, len)? {
                continue;
            }
            let bytes = &mut buffer[..len as usize];
            source.read_slice(offset, bytes)?;
            if *bytes != ZEROES[..len as usize] {
                copy.add(number, bytes, before.get(&number))?;
            }
        }
        copy.finish(size)
    }

    fn begin(&self, id: &str) -> io::Result<PathBuf> {
        let root = self.0.first().ok_or_else(|| io::Error::other("there is no place for backups"))?;
        fs::create_dir_all(root)?;
        let dir = root.join(id);
        fs::create_dir(&dir)?;
        fsio::sync_dir(root)?;
        Ok(dir)
    }

    /// Reads a backup back, each chunk checked before `put` gets it with its offset.
    pub fn read(
        &self,
        id: &str,
        stop: &AtomicBool,
        mut put: impl FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> io::Result<Manifest> {
        let (manifest, chunks) = self.chunks(id)?;
        let mut homes: HashMap<String, File> = HashMap::new();
        let mut buffer = vec![0; CHUNK as usize];
        for chunk in chunks {
            if stop.load(SeqCst) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            if !homes.contains_key(&chunk.home) {
                let dir = self.find(&chunk.home).ok_or_else(|| missing(&chunk.home))?;
                homes.insert(chunk.home.clone(), File::open(dir.join(DATA))?);
            }
            let file = homes.get(&chunk.home).ok_or_else(|| missing(&chunk.home))?;
            let bytes = &mut buffer[..chunk.len as usize];
            file.read_exact_at(bytes, chunk.offset)?;
            if sha256(bytes) != chunk.sha256 {
                return Err(corrupt(&chunk.home, format!("the chunk {} is not as it was", chunk.number)));
            }
            put(chunk.number * CHUNK, bytes)?;
        }
        Ok(manifest)
    }

    /// Takes a backup away, durably. One that is not there is left alone.
    pub fn remove(&self, id: &str) -> io::Result<()> {
        for root in &self.0 {
            let (dir, removed) = (root.join(id), root.join(format!("{id}{REMOVED}")));
            if dir.is_dir() {
                fs::rename(&dir, &removed)?;
                fsio::sync_dir(root)?;
            }
            if removed.is_dir() {
                fs::remove_dir_all(removed)?;
            }
        }
        Ok(())
    }
}

fn missing(id: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("the backup {id} is not here, or not whole"))
}

/// A backup that is being made.
struct Copy<'a> {
    dir: &'a Path,
    id: &'a str,
    data: File,
    index: File,
    /// The chunk to look at next.
    next: u64,
    /// Where the next one is stored.
    end: u64,
    /// Bytes since the last sync.
    unsynced: u64,
    /// Lines whose data is not synced yet.
    lines: String,
}

impl<'a> Copy<'a> {
    /// Goes on behind the last chunk that is known to be there.
    fn resume(dir: &'a Path, id: &'a str) -> io::Result<Copy<'a>> {
        let open = |name: &str| {
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(dir.join(name))
        };
        if dir.join(INDEX).exists() {
            fs::rename(dir.join(INDEX), dir.join(PARTIAL))?; // All of it, but for the manifest.
        }
        let (data, mut index) = (open(DATA)?, open(PARTIAL)?);
        let (mut good, mut next, mut end) = (0, 0, 0);
        let mut reader = BufReader::new(&index);
        let mut line = String::new();
        while reader.read_line(&mut line).unwrap_or(0) > 0 {
            let Some(chunk) = line.strip_suffix('\n').and_then(Chunk::parse) else { break };
            good += line.len() as u64;
            next = chunk.number + 1;
            if chunk.home == id {
                end = chunk.offset + chunk.len;
            }
            line.clear();
        }
        drop(reader);
        index.set_len(good)?;
        data.set_len(end)?;
        io::Seek::seek(&mut index, io::SeekFrom::Start(good))?;
        Ok(Copy { dir, id, data, index, next, end, unsynced: 0, lines: String::new() })
    }

    fn add(&mut self, number: u64, bytes: &[u8], before: Option<&Chunk>) -> io::Result<()> {
        let sha256 = sha256(bytes);
        let len = bytes.len() as u64;
        let chunk = match before.filter(|c| c.sha256 == sha256 && c.len == len) {
            Some(same) => same.clone(),
            None => {
                self.data.write_all_at(bytes, self.end)?;
                let chunk = Chunk { number, sha256, home: self.id.into(), offset: self.end, len };
                self.end += len;
                chunk
            }
        };
        self.lines.push_str(&chunk.line());
        self.unsynced += len;
        if self.unsynced >= SYNC_EVERY { self.sync() } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.data.sync_data()?;
        self.index.write_all(self.lines.as_bytes())?;
        self.index.sync_data()?;
        self.lines.clear();
        self.unsynced = 0;
        Ok(())
    }

    fn finish(mut self, size: u64) -> io::Result<Manifest> {
        self.sync()?;
        let index = fs::read(self.dir.join(PARTIAL))?;
        let manifest = Manifest {
            format: FORMAT,
            id: self.id.into(),
            size,
            chunk: CHUNK,
            chunks: index.iter().filter(|b| **b == b'\n').count() as u64,
            stored: self.end,
            index_sha256: sha256(&index),
        };
        fs::rename(self.dir.join(PARTIAL), self.dir.join(INDEX))?;
        fsio::sync_dir(self.dir)?;
        let bytes = serde_json::to_vec_pretty(&manifest).map_err(io::Error::other)?;
        fsio::replace(self.dir, MANIFEST, &bytes)?;
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format;
    use crate::volume::write_manifest;

    /// A volume of so many bytes in a directory of its own.
    fn volume(dir: &Path, id: &str, size: u64) -> Volume {
        let at = dir.join(id);
        fs::create_dir(&at).unwrap();
        write_manifest(&at, &format::Manifest::new(id, size, false)).unwrap();
        Volume::open(&at).unwrap()
    }

    fn roots(dir: &Path) -> Roots {
        Roots(vec![dir.join("backups"), dir.join("more")])
    }

    fn content(roots: &Roots, id: &str, size: u64) -> io::Result<Vec<u8>> {
        let mut all = vec![0; size as usize];
        roots.read(id, &AtomicBool::new(false), |offset, bytes| {
            all[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
            Ok(())
        })?;
        Ok(all)
    }

    #[test]
    fn what_was_copied_is_read_back_and_only_changes_are_stored_again() {
        let dir = tempfile::tempdir().unwrap();
        let (roots, go) = (roots(dir.path()), AtomicBool::new(false));
        let size = 3 * CHUNK + 512;
        let source = volume(dir.path(), "v", size);
        source.write_slice(10, b"first").unwrap();
        source.write_slice(3 * CHUNK, b"last").unwrap();
        source.write_slice(CHUNK, &[0; 4096]).unwrap();
        let full = roots.write("full", None, &source, &go).unwrap();
        assert_eq!((full.size, full.chunks, full.stored), (size, 2, CHUNK + 512));
        let before = content(&roots, "full", size).unwrap();
        assert_eq!((&before[10..15], &before[3 * CHUNK as usize..][..4]), (&b"first"[..], &b"last"[..]));

        source.write_slice(3 * CHUNK, b"next").unwrap();
        let more = roots.write("more1", Some("full"), &source, &go).unwrap();
        assert_eq!((more.chunks, more.stored), (2, 512));
        let after = content(&roots, "more1", size).unwrap();
        assert_eq!((&after[10..15], &after[3 * CHUNK as usize..][..4]), (&b"first"[..], &b"next"[..]));
        assert_eq!(content(&roots, "full", size).unwrap(), before);

        roots.remove("more1").unwrap();
        roots.remove("more1").unwrap();
        assert_eq!(roots.manifest("more1").unwrap(), None);
        assert!(content(&roots, "more1", size).is_err());
    }

    #[test]
    fn a_copy_that_was_cut_off_goes_on_and_ends_as_if_it_had_not_been() {
        let dir = tempfile::tempdir().unwrap();
        let (roots, go) = (roots(dir.path()), AtomicBool::new(false));
        let source = volume(dir.path(), "v", 4 * CHUNK);
        for chunk in 0..4 {
            source.write_slice(chunk * CHUNK, &[chunk as u8 + 1; 100]).unwrap();
        }
        let whole = roots.write("a", None, &source, &go).unwrap();
        assert!(roots.write("b", None, &source, &AtomicBool::new(true)).is_err());
        assert_eq!(roots.manifest("b").unwrap(), None);
        // As a crash leaves it: two lines, half a third, and data of which nothing says that it is good.
        let (from, to) = (roots.find("a").unwrap(), roots.find("b").unwrap());
        let index = fs::read_to_string(from.join(INDEX)).unwrap().replace(" a ", " b ");
        let lines: Vec<&str> = index.lines().collect();
        fs::write(to.join(PARTIAL), format!("{}\n{}\n{}", lines[0], lines[1], &lines[2][..20])).unwrap();
        let mut data = fs::read(from.join(DATA)).unwrap();
        data[2 * CHUNK as usize..].fill(7);
        fs::write(to.join(DATA), data).unwrap();
        let resumed = roots.write("b", None, &source, &go).unwrap();
        assert_eq!((resumed.chunks, resumed.stored), (whole.chunks, whole.stored));
        assert_eq!(content(&roots, "b", 4 * CHUNK).unwrap(), content(&roots, "a", 4 * CHUNK).unwrap());
        // And as one leaves it just before the manifest.
        fs::remove_file(to.join(MANIFEST)).unwrap();
        assert_eq!(roots.write("b", None, &source, &go).unwrap(), resumed);
    }

    #[test]
    fn damage_is_found_and_nothing_of_a_damaged_chunk_is_given_out() {
        let dir = tempfile::tempdir().unwrap();
        let (roots, go) = (roots(dir.path()), AtomicBool::new(false));
        let source = volume(dir.path(), "v", CHUNK);
        source.write_slice(0, b"data").unwrap();
        roots.write("a", None, &source, &go).unwrap();
        let at = roots.find("a").unwrap();
        let mut data = fs::read(at.join(DATA)).unwrap();
        data[2] ^= 1;
        fs::write(at.join(DATA), &data).unwrap();
        let error = content(&roots, "a", CHUNK).unwrap_err().to_string();
        assert!(error.contains("damaged") && error.contains("chunk 0"), "{error}");
        fs::write(at.join(INDEX), "").unwrap();
        assert!(content(&roots, "a", CHUNK).unwrap_err().to_string().contains("its index"));
        assert!(roots.write("b", Some("a"), &source, &go).is_err(), "nothing is based on what is damaged");
    }
}
