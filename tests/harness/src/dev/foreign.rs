//! Disks that are somebody else's. A development node is shown some at each start, as real machines have them, and
//! must leave them as they are.
//!
//! Each is made once, with a copy beside it that no node ever sees.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use image_builder::exec;
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

/// Large enough that an empty one would be taken, in bytes (sparse).
const SIZE: u64 = 5 << 30;
/// How much is compared at a time, in bytes.
const CHUNK: u64 = 1 << 20;

/// A disk that is not the node's.
pub struct Foreign {
    /// Its content, sparse, behind the loop device.
    pub file: PathBuf,
    /// What the node must say it holds.
    pub holds: &'static str,
    copy: PathBuf,
    make: Make,
}

/// Writes to a file of zeroes what makes it a disk of its kind.
type Make = fn(&Path) -> Result<()>;

impl Foreign {
    /// The foreign disks in a node's folder.
    pub fn all(dir: &Path) -> Vec<Foreign> {
        let kinds: [(&str, &str, Make); 3] = [
            ("ext4", "ext4", ext4),
            ("table", "a gpt partition table", partition_table),
            ("noise", "data without a known signature", noise),
        ];
        let disk = |(name, holds, make)| Foreign {
            file: dir.join(format!("foreign-{name}.img")),
            copy: dir.join(format!("foreign-{name}.copy")),
            holds,
            make,
        };
        kinds.into_iter().map(disk).collect()
    }

    /// Makes it, unless it is there.
    pub fn prepare(&self) -> Result<()> {
        if self.copy.exists() {
            return Ok(());
        }
        File::create(&self.file)?.set_len(SIZE)?;
        (self.make)(&self.file).with_context(|| format!("making {}", self.file.display()))?;
        let unfinished = self.copy.with_extension("new");
        exec::run(Command::new("cp").arg("--sparse=always").arg(&self.file).arg(&unfinished))?;
        Ok(fs::rename(unfinished, &self.copy)?)
    }

    /// Fails if a byte of it is not as it was made.
    pub fn check(&self) -> Result<()> {
        for device in super::disks::devices_of(&self.file)? {
            File::open(device)?.sync_all()?;
        }
        let (now, before) = (File::open(&self.file)?, File::open(&self.copy)?);
        ensure!(now.metadata()?.len() == SIZE, "{} has another size", self.file.display());
        // Where one has a hole, the other must have zeroes.
        for file in [&now, &before] {
            for (from, to) in data_regions(file)? {
                let differs = difference(&now, &before, from, to)?;
                ensure!(differs.is_none(), "{} was written to near byte {differs:?}", self.file.display());
            }
        }
        Ok(())
    }
}

fn ext4(file: &Path) -> Result<()> {
    exec::run(exec::command("mkfs.ext4", ["-q", "-F", "-L", "not-ours"]).arg(file))
}

fn partition_table(file: &Path) -> Result<()> {
    let mut sfdisk = Command::new("sfdisk");
    sfdisk.arg("--quiet").arg(file).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = sfdisk.spawn().context("cannot start sfdisk")?;
    child.stdin.take().context("sfdisk takes no input")?.write_all(b"label: gpt\n,,L\n")?;
    ensure!(child.wait()?.success(), "sfdisk failed");
    Ok(())
}

/// What an encrypted disk with its header elsewhere looks like.
fn noise(file: &Path) -> Result<()> {
    let mut bytes = vec![0; 4 << 20];
    std::io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut bytes)?;
    Ok(File::options().write(true).open(file)?.write_all_at(&bytes, 0)?)
}

/// Where a sparse file has data: from, to.
fn data_regions(file: &File) -> Result<Vec<(u64, u64)>> {
    let mut regions = Vec::new();
    let mut at = 0;
    loop {
        let from = match lseek(file.as_fd(), at, Whence::SeekData) {
            Err(Errno::ENXIO) => return Ok(regions),
            from => from?,
        };
        at = lseek(file.as_fd(), from, Whence::SeekHole)?;
        regions.push((from.cast_unsigned(), at.cast_unsigned()));
    }
}

/// The offset of the first chunk of this range in which two files differ.
fn difference(a: &File, b: &File, mut from: u64, to: u64) -> Result<Option<u64>> {
    let (mut left, mut right) = (vec![0; CHUNK as usize], vec![0; CHUNK as usize]);
    while from < to {
        let len = CHUNK.min(to - from) as usize;
        a.read_exact_at(&mut left[..len], from)?;
        b.read_exact_at(&mut right[..len], from)?;
        if left[..len] != right[..len] {
            return Ok(Some(from));
        }
        from += len as u64;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_is_found_wherever_it_is() {
        let dir = std::env::temp_dir().join(format!("cairn-foreign-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let all = Foreign::all(&dir);
        let disk = &all[2];
        disk.prepare().unwrap();
        disk.check().unwrap();
        disk.prepare().unwrap();
        let file = File::options().read(true).write(true).open(&disk.file).unwrap();
        for at in [1_000_000, SIZE - 1] {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[!byte[0]], at).unwrap();
            disk.check().unwrap_err();
            file.write_all_at(&byte, at).unwrap();
            disk.check().unwrap();
        }
        fs::remove_dir_all(dir).unwrap();
    }
}
