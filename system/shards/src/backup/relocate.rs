//! Takes a backup from one target to another, so that a disk can be emptied.
//!
//! It is whole in one place at every moment, and for a while in both. A copy that was cut off is begun again.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use super::store::Roots;
use crate::fsio;

/// What the name of a copy under way ends in.
const BEGUN: &str = ".moving";
/// Bytes that are copied between two looks at whether to stop.
const PIECE: u64 = 4 << 20;

/// Moves a whole backup from the directory `from` to the directory `to`, durably.
pub fn relocate(id: &str, from: &Path, to: &Path, stop: &AtomicBool) -> io::Result<()> {
    let there = Roots(vec![to.to_owned()]);
    if there.manifest(id)?.is_none() {
        let begun = to.join(format!("{id}{BEGUN}"));
        forget(&begun)?;
        fs::create_dir_all(to)?;
        fs::create_dir(&begun)?;
        copy_all(&from.join(id), &begun, stop).inspect_err(|_| {
            // It may be what fills the disk.
            let _ = forget(&begun);
        })?;
        fs::rename(&begun, to.join(id))?;
        fsio::sync_dir(to)?;
        there.whole(id)?;
    }
    Roots(vec![from.to_owned()]).remove(id)
}

fn forget(begun: &Path) -> io::Result<()> {
    match fs::remove_dir_all(begun) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn copy_all(from: &Path, to: &Path, stop: &AtomicBool) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, mut target) = (File::open(entry.path())?, File::create_new(to.join(entry.file_name()))?);
        while io::copy(&mut (&source).take(PIECE), &mut target)? > 0 {
            if stop.load(SeqCst) {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
        target.sync_all()?;
    }
    fsio::sync_dir(to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::store::CHUNK;
    use crate::format;
    use crate::volume::{Volume, write_manifest};

    #[test]
    fn a_backup_is_whole_in_one_place_whenever_a_move_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        let volume = dir.path().join("v");
        fs::create_dir(&volume).unwrap();
        write_manifest(&volume, &format::Manifest::new("v", 2 * CHUNK, false)).unwrap();
        let volume = Volume::open(&volume).unwrap();
        volume.write_slice(CHUNK, b"content").unwrap();
        let go = AtomicBool::new(false);
        Roots(vec![old.clone()]).write("b", None, &volume, &go).unwrap();
        let both = Roots(vec![new.clone(), old.clone()]);
        let content = || {
            let mut found = Vec::new();
            both.read("b", &go, |offset, bytes| {
                found.push((offset, bytes[..7].to_vec()));
                Ok(())
            })
            .unwrap();
            found
        };
        let before = content();

        assert!(relocate("b", &old, &new, &AtomicBool::new(true)).is_err());
        assert!(!new.join("b").exists() && !new.join("b.moving").exists());
        // As a crash leaves it: half a copy.
        fs::create_dir_all(new.join("b.moving")).unwrap();
        fs::write(new.join("b.moving/data"), "half").unwrap();
        assert_eq!(content(), before);
        relocate("b", &old, &new, &go).unwrap();
        assert_eq!(content(), before);
        assert_eq!((fs::read_dir(&old).unwrap().count(), fs::read_dir(&new).unwrap().count()), (0, 1));
        // And both places.
        fs::create_dir(old.join("b")).unwrap();
        fs::copy(new.join("b/data"), old.join("b/data")).unwrap();
        relocate("b", &old, &new, &go).unwrap();
        assert!(!old.join("b").exists());
        assert_eq!(content(), before);
    }
}
