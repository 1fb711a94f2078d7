//! Where a store keeps its bytes: a file for the state, two beside it for the log.
//!
//! Only opening and making them. What is no store must never be overwritten, and a store never be found half made.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use redb::backends::{FileBackend, InMemoryBackend};
use redb::{Database, DatabaseError, StorageBackend};

use crate::engine::layout::failed;
use crate::kv::StoreError;
use crate::wal::LogFile;

/// How long a store may take to be closed.
const CLOSING: Duration = Duration::from_secs(10);
/// How often it is looked at meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The files of a store, or anything else that can hold bytes.
pub struct Media(Kind);

enum Kind {
    /// The store at this path.
    Files(PathBuf),
    Held(Held, [LogFile; 2]),
}

/// Any backend, as one.
#[derive(Debug)]
struct Held(Box<dyn StorageBackend>);

impl StorageBackend for Held {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
}

impl Media {
    /// These.
    pub fn new(state: impl StorageBackend, log: [impl StorageBackend; 2]) -> Media {
        Media(Kind::Held(Held(Box::new(state)), log.map(|file| Box::new(file) as LogFile)))
    }

    /// Memory.
    pub fn in_memory() -> Media {
        Media::new(InMemoryBackend::new(), [InMemoryBackend::new(), InMemoryBackend::new()])
    }

    /// The files of the store at this path.
    pub(crate) fn at(path: &Path) -> Media {
        Media(Kind::Files(path.to_owned()))
    }

    /// The state's database, and the log's files, which are made if there are none: beside a store, and nothing else.
    pub(crate) fn open(self, cache_bytes: usize) -> Result<(Database, [LogFile; 2]), StoreError> {
        let mut builder = Database::builder();
        builder.set_cache_size(cache_bytes);
        match self.0 {
            Kind::Held(state, log) => Ok((builder.create_with_backend(state).map_err(failed)?, log)),
            Kind::Files(path) => {
                let db = open_alone(&builder, &path).map_err(failed)?;
                let [first, second] = log_paths(&path).map(|path| open_log(&path).map_err(|e| at(&path, e)));
                Ok((db, [first?, second?]))
            }
        }
    }
}

/// Opens the file once nobody else has it open: whoever had it may still be closing it.
fn open_alone(builder: &redb::Builder, path: &Path) -> Result<Database, DatabaseError> {
    let deadline = Instant::now() + CLOSING;
    loop {
        match builder.open(path) {
            Err(DatabaseError::DatabaseAlreadyOpen) if Instant::now() < deadline => {
                std::thread::sleep(LOOK_AGAIN)
            }
            opened => return opened,
        }
    }
}

fn at(path: &Path, e: impl std::fmt::Display) -> StoreError {
    StoreError::Storage(format!("{}: {e}", path.display()))
}

/// The files of the log of the store at this path.
fn log_paths(path: &Path) -> [PathBuf; 2] {
    [path.with_extension("log0"), path.with_extension("log1")]
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn open_log(path: &Path) -> io::Result<LogFile> {
    let is_new = !path.exists();
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path)?;
    if is_new {
        File::open(folder(path))?.sync_all()?;
    }
    Ok(Box::new(FileBackend::new(file).map_err(io::Error::other)?))
}

/// Makes an empty store beside, and renames it to where it belongs once it is whole. What is left of the log of one
/// that was here before is forgotten.
pub(crate) fn create(
    path: &Path,
    cache_bytes: usize,
    fill: impl FnOnce(&Database) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    for left in log_paths(path).iter().map(PathBuf::as_path).chain([beside]) {
        match fs::remove_file(left) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(at(left, e)),
            _ => {}
        }
    }
    let db = Database::builder().set_cache_size(cache_bytes).create(beside).map_err(failed)?;
    fill(&db)?;
    db.close().map_err(failed)?;
    let synced = || {
        File::open(beside)?.sync_all()?;
        fs::rename(beside, path)?;
        File::open(folder(path))?.sync_all()
    };
    synced().map_err(|e| at(path, e))
}
