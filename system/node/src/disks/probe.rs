//! What block devices there are, and what is on each. Only reads.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{DiskError, TYPE_DATA, TYPE_STATE};
use crate::program::{self, ProgramError};

/// A whole disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its node, as `/dev/vdb`.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    /// What is on it.
    pub content: Content,
}

/// What a disk holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Nothing: no signature of any kind, and zeroes where a label would be.
    Blank,
    /// Partitions of Cairn's own types, and no other.
    Ours(Vec<Partition>),
    /// Something else; the text says what.
    Foreign(String),
}

/// A partition of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its node.
    pub path: PathBuf,
    /// Its number on the disk.
    pub number: u32,
    /// Its GPT id, which is the disk's id in the cloud.
    pub id: String,
    /// Whether it is the state partition (else a data partition).
    pub state: bool,
    /// Whether its making was finished (its label says so).
    pub finished: bool,
}

/// The disks to consider: those named, or all fixed, writable ones of the machine.
pub fn devices(only: &[PathBuf]) -> Result<Vec<Device>, DiskError> {
    let names = if only.is_empty() { machine_disks()? } else { only.to_vec() };
    names.into_iter().map(|path| device(&path)).collect()
}

fn machine_disks() -> Result<Vec<PathBuf>, DiskError> {
    let mut names = Vec::new();
    for entry in fs::read_dir("/sys/block").map_err(DiskError::io("listing /sys/block"))? {
        let entry = entry.map_err(DiskError::io("listing /sys/block"))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is = |file: &str, value: &str| {
            fs::read_to_string(entry.path().join(file)).is_ok_and(|text| text.trim() == value)
        };
        let virtual_ =
            ["loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd"].iter().any(|p| name.starts_with(p));
        if !virtual_ && !is("removable", "1") && !is("ro", "1") && !is("size", "0") {
            names.push(Path::new("/dev").join(name));
        }
    }
    names.sort();
    Ok(names)
}

fn device(path: &Path) -> Result<Device, DiskError> {
    let doing = || format!("reading {}", path.display());
    let mut file = File::open(path).map_err(DiskError::io(doing()))?;
    let size = file.seek(SeekFrom::End(0)).map_err(DiskError::io(doing()))?;
    let content = match partitions(path)? {
        Some(content) => content,
        None => match signature(path)? {
            Some(what) => Content::Foreign(what),
            None if is_zero(&mut file, size).map_err(DiskError::io(doing()))? => Content::Blank,
            None => Content::Foreign("data without a known signature".into()),
        },
    };
    Ok(Device { path: path.to_owned(), size, content })
}

#[derive(Deserialize)]
struct Sfdisk {
    partitiontable: Table,
}

#[derive(Deserialize)]
struct Table {
    label: String,
    #[serde(default)]
    partitions: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    node: PathBuf,
    #[serde(rename = "type", default)]
    type_: String,
    #[serde(default)]
    uuid: String,
    #[serde(default)]
    name: String,
}

/// The disk's partitions, or `None` if it has no partition table.
fn partitions(path: &Path) -> Result<Option<Content>, DiskError> {
    let json = match program::run("sfdisk", &["--json", &path.to_string_lossy()]) {
        Ok(json) => json,
        // It fails for a disk without a table; what else may be on it, signatures tell.
        Err(ProgramError::Failed { .. }) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let Ok(Sfdisk { partitiontable: table }) = serde_json::from_str::<Sfdisk>(&json) else { return Ok(None) };
    let ours = |row: &Row| [TYPE_STATE, TYPE_DATA].iter().any(|t| row.type_.eq_ignore_ascii_case(t));
    if table.label != "gpt" || table.partitions.is_empty() || !table.partitions.iter().all(ours) {
        let count = table.partitions.len();
        let plural = if count == 1 { "" } else { "s" };
        let what = format!("a {} partition table with {count} partition{plural}", table.label);
        return Ok(Some(Content::Foreign(what)));
    }
    let partition = |(at, row): (usize, Row)| Partition {
        state: row.type_.eq_ignore_ascii_case(TYPE_STATE),
        id: row.uuid.to_ascii_lowercase(),
        finished: !row.name.starts_with("cairn-new-"),
        number: at as u32 + 1,
        path: row.node,
    };
    Ok(Some(Content::Ours(table.partitions.into_iter().enumerate().map(partition).collect())))
}

/// The kind of file system, volume manager or label that libblkid finds on a device, if any.
pub fn signature(path: &Path) -> Result<Option<String>, DiskError> {
    let out =
        program::run("wipefs", &["--no-act", "--noheadings", "--output", "TYPE", &path.to_string_lossy()])?;
    Ok(out.lines().next().map(|kind| kind.trim().to_owned()).filter(|kind| !kind.is_empty()))
}

/// Whether the first and last MiB, and a few places between, hold nothing but zeroes.
fn is_zero(file: &mut File, size: u64) -> std::io::Result<bool> {
    const CHUNK: u64 = 1 << 20;
    let mut buffer = vec![0u8; CHUNK as usize];
    let last = size.saturating_sub(CHUNK);
    for at in (0..=8).map(|part| last / 8 * part).chain([last]) {
        file.seek(SeekFrom::Start(at))?;
        let mut chunk = file.by_ref().take(CHUNK);
        let mut filled = 0;
        while let n @ 1.. = chunk.read(&mut buffer[filled..])? {
            filled += n;
        }
        if buffer[..filled].iter().any(|b| *b != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}
