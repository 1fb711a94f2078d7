//! The ledger: the last content of a mirror, on this node's own disk, one JSON file per kind.
//!
//! It is written whole, beside the old one, and renamed over it, so that a crash leaves the old or the new.
//! Only its owner may read it (records may hold secrets). A ledger that cannot be read or written is logged
//! and never fatal: the store has it all.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use serde::{Deserialize, Serialize};

use super::Records;
use crate::kv::{Entry, Revision};
use crate::record::{self, Record};

/// The format of the file. 1: the first one.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct File {
    format: u32,
    kind: String,
    records: Vec<Line>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    id: String,
    modified: Revision,
    /// The record version of `record`, so that a later release can migrate it.
    version: u16,
    record: serde_json::Value,
}

#[derive(Clone)]
pub(super) struct Ledger {
    path: PathBuf,
}

impl Ledger {
    pub(super) fn in_directory<R: Record>(directory: &Path) -> Ledger {
        Ledger { path: directory.join(format!("{}.json", R::KIND.replace('/', "."))) }
    }

    /// What was kept, or nothing.
    pub(super) async fn load<R: Record>(&self) -> Records<R> {
        let json = match tokio::fs::read(&self.path).await {
            Ok(json) => json,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Records::new(),
            Err(e) => {
                tracing::warn!(path = %self.path.display(), error = %e, "the ledger cannot be read");
                return Records::new();
            }
        };
        match serde_json::from_slice::<File>(&json) {
            Ok(file) if file.format == FORMAT && file.kind == R::KIND => {
                file.records.into_iter().filter_map(read_line::<R>).collect()
            }
            Ok(file) => {
                tracing::warn!(path = %self.path.display(), format = file.format, "the ledger is not ours");
                Records::new()
            }
            Err(e) => {
                tracing::warn!(path = %self.path.display(), error = %e, "the ledger is damaged");
                Records::new()
            }
        }
    }

    /// Keeps this content.
    pub(super) async fn store<R: Record>(&self, records: Records<R>) {
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || {
            let records = records.into_iter().filter_map(|(id, (modified, record))| {
                let record = serde_json::to_value(&*record).ok()?;
                Some(Line { id, modified, version: R::VERSION, record })
            });
            let file = File { format: FORMAT, kind: R::KIND.into(), records: records.collect() };
            replace_file(&path, &serde_json::to_vec(&file)?)
        });
        match written.await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => {
                tracing::warn!(path = %self.path.display(), error = %e, "the ledger was not written")
            }
            Err(e) => tracing::warn!(path = %self.path.display(), error = %e, "the ledger was not written"),
        }
    }
}

fn read_line<R: Record>(line: Line) -> Option<(String, (Revision, Arc<R>))> {
    let mut value = BytesMut::new();
    value.put_u16_le(line.version);
    value.put_slice(&serde_json::to_vec(&line.record).ok()?);
    let entry = Entry {
        key: record::key::<R>(&line.id),
        value: value.freeze(),
        created: line.modified,
        modified: line.modified,
        lease: None,
    };
    match record::decode::<R>(&entry) {
        Ok(record) => Some((line.id, (line.modified, Arc::new(record)))),
        Err(e) => {
            tracing::warn!(key = entry.key, error = %e, "a record of the ledger cannot be read");
            None
        }
    }
}

/// Writes a file so that a crash leaves either the old content or the new.
fn replace_file(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let beside = path.with_extension("json.new");
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    std::fs::File::open(directory)?.sync_all()
}
