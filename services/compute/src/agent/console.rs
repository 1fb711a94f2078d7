//! The serial console logs of guests: read from the end, and kept within bounds.
//!
//! QEMU appends, as a user of its own: the log is made for it, with the group of this process's directory. This
//! truncates what has grown too long, keeping the newest part beside it.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// A log longer than this, in bytes, is cut.
const LOG_MAX: u64 = 2 << 20;
/// What is kept of it then.
const KEPT: u64 = 256 << 10;
/// Who may use a log: this process's user, and the emulators' group. It may hold secrets that a guest shows.
const LOG_MODE: u32 = 0o660;
/// The most that is ever read for one answer.
const READ_MAX: u64 = 512 << 10;

/// The directory of logs.
#[derive(Debug, Clone)]
pub struct Logs {
    directory: PathBuf,
}

impl Logs {
    /// The logs in this directory.
    pub fn new(directory: impl Into<PathBuf>) -> Logs {
        Logs { directory: directory.into() }
    }

    /// The log of a server.
    pub fn path(&self, server_id: &str) -> PathBuf {
        self.directory.join(format!("{server_id}.log"))
    }

    /// Makes the log that the emulator will append to, if it isn't there. The directory is made too; its group, which
    /// the emulator belongs to, is its parent's.
    pub fn prepare(&self, server_id: &str) -> io::Result<()> {
        if !self.directory.exists() {
            std::fs::create_dir_all(&self.directory)?;
            if let Some(parent) = self.directory.parent() {
                chown(&self.directory, None, Some(std::fs::metadata(parent)?.gid()))?;
            }
            std::fs::set_permissions(&self.directory, Permissions::from_mode(0o2750))?;
        }
        let log = OpenOptions::new().append(true).create(true).open(self.path(server_id))?;
        log.set_permissions(Permissions::from_mode(LOG_MODE))
    }

    /// Where the newest part of what was cut is kept. (virtlogd's name for it, too.)
    fn older(&self, server_id: &str) -> PathBuf {
        self.directory.join(format!("{server_id}.log.0"))
    }

    /// The last `lines` lines, or all that is kept. No log is an empty one.
    pub fn tail(&self, server_id: &str, lines: Option<usize>) -> io::Result<String> {
        let mut bytes = read_end(&self.path(server_id), READ_MAX)?;
        if (bytes.len() as u64) < READ_MAX {
            let mut older = read_end(&self.older(server_id), READ_MAX - bytes.len() as u64)?;
            older.append(&mut bytes);
            bytes = older;
        }
        let text = String::from_utf8_lossy(&bytes);
        Ok(match lines {
            None => text.into_owned(),
            Some(n) => last_lines(&text, n).to_owned(),
        })
    }

    /// Cuts the log if it has grown too long. What is written at that very moment may be lost.
    pub fn bound(&self, server_id: &str) -> io::Result<()> {
        let path = self.path(server_id);
        match std::fs::metadata(&path) {
            Ok(m) if m.len() > LOG_MAX => {}
            _ => return Ok(()),
        }
        let kept = read_end(&path, KEPT)?;
        File::create(self.older(server_id))?.write_all(&kept)?;
        OpenOptions::new().write(true).open(&path)?.set_len(0)
    }

    /// Removes what is left of a server's logs.
    pub fn remove(&self, server_id: &str) -> io::Result<()> {
        for path in [self.path(server_id), self.older(server_id)] {
            match std::fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The last `max` bytes of a file; nothing if it is not there.
fn read_end(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(max)))?;
    let mut bytes = Vec::new();
    file.take(max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The last `n` lines, counted as Nova does: what follows the last line's end, even if nothing, is one.
fn last_lines(text: &str, n: usize) -> &str {
    if n == 0 {
        return "";
    }
    match text.rmatch_indices('\n').nth(n - 1) {
        Some((at, _)) => &text[at + 1..],
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines() {
        assert_eq!(last_lines("a\nb\nc\n", 2), "c\n");
        assert_eq!(last_lines("a\nb\nc", 1), "c");
        assert_eq!(last_lines("a\nb\n", 9), "a\nb\n");
        assert_eq!(last_lines("a\n", 0), "");
        assert_eq!(last_lines("", 3), "");
    }

    #[test]
    fn a_log_is_cut_and_its_newest_part_can_still_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::new(dir.path());
        assert_eq!(logs.tail("s", None).unwrap(), "");
        logs.prepare("s").unwrap();
        assert_eq!(logs.tail("s", None).unwrap(), "");
        let line = "x".repeat(99) + "\n";
        let mut long = (line.repeat(30_000) + "last").into_bytes();
        long.extend_from_slice(b"\xff\n");
        std::fs::write(logs.path("s"), long).unwrap();
        logs.bound("s").unwrap();
        assert_eq!(std::fs::metadata(logs.path("s")).unwrap().len(), 0);
        std::fs::write(logs.path("s"), "new\n").unwrap();
        assert!(logs.tail("s", Some(3)).unwrap().starts_with("last"));
        assert!(logs.tail("s", None).unwrap().len() as u64 <= READ_MAX);
        logs.remove("s").unwrap();
        logs.remove("s").unwrap();
        logs.prepare("t").unwrap();
        std::fs::write(logs.path("t"), "kept").unwrap();
        logs.prepare("t").unwrap();
        assert_eq!(logs.tail("t", None).unwrap(), "kept");
        logs.remove("t").unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
