//! A BIOS-bootable disk image of two partitions, put together from their contents without mounting anything.
//!
//! Pure bytes to bytes. Layout: sector 0 holds the boot code (bytes 0..440) and the partition table
//! (446..510, signature 0x55 0xAA at 510); the first partition (FAT, active) begins at sector 2048, the second
//! (Linux) on the next multiple of 2048.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

const SECTOR: u64 = 512;
const ALIGN: u64 = 2048;
const TABLE: usize = 446;
const TYPE_FAT: u8 = 0x0c;
const TYPE_LINUX: u8 = 0x83;

/// Where a partition lies, in sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    start: u32,
    count: u32,
}

/// Writes the disk `out` from a boot sector's code, a FAT file system and a Linux file system.
pub fn assemble(boot_code: &[u8], fat: &Path, linux: &Path, out: &Path) -> Result<()> {
    let first = extent(ALIGN, fat)?;
    let after = u64::from(first.start) + u64::from(first.count);
    let second = extent(after.next_multiple_of(ALIGN), linux)?;
    let mut disk = File::create(out).with_context(|| format!("cannot write {}", out.display()))?;
    disk.write_all(&boot_sector(boot_code, first, second)?)?;
    for (extent, source) in [(first, fat), (second, linux)] {
        disk.seek(SeekFrom::Start(u64::from(extent.start) * SECTOR))?;
        io::copy(&mut File::open(source)?, &mut disk)?;
    }
    let end = (u64::from(second.start) + u64::from(second.count)) * SECTOR;
    disk.set_len(end.next_multiple_of(1 << 20))?;
    Ok(())
}

fn extent(start: u64, content: &Path) -> Result<Extent> {
    let bytes = std::fs::metadata(content).with_context(|| format!("no {}", content.display()))?.len();
    ensure!(bytes > 0 && bytes.is_multiple_of(SECTOR), "{} is not whole sectors", content.display());
    Ok(Extent { start: u32::try_from(start)?, count: u32::try_from(bytes / SECTOR)? })
}

fn boot_sector(code: &[u8], fat: Extent, linux: Extent) -> Result<[u8; 512]> {
    if code.len() > 440 {
        bail!("the boot code has {} bytes; there is room for 440", code.len());
    }
    let mut sector = [0; 512];
    sector[..code.len()].copy_from_slice(code);
    for (slot, (extent, kind, active)) in
        [(fat, TYPE_FAT, 0x80), (linux, TYPE_LINUX, 0)].into_iter().enumerate()
    {
        let entry = &mut sector[TABLE + slot * 16..][..16];
        entry[0] = active;
        // Cylinder, head and sector "see the sector numbers": nothing reads them any more.
        entry[1..4].copy_from_slice(&[0xfe, 0xff, 0xff]);
        entry[4] = kind;
        entry[5..8].copy_from_slice(&[0xfe, 0xff, 0xff]);
        entry[8..12].copy_from_slice(&extent.start.to_le_bytes());
        entry[12..16].copy_from_slice(&extent.count.to_le_bytes());
    }
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    Ok(sector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partitions_are_where_the_table_says() {
        let folder = tempfile::tempdir().unwrap();
        let (fat, linux, out) =
            (folder.path().join("fat"), folder.path().join("linux"), folder.path().join("out"));
        std::fs::write(&fat, vec![1; 512 * 3]).unwrap();
        std::fs::write(&linux, vec![2; 1024]).unwrap();
        assemble(&[0xeb; 440], &fat, &linux, &out).unwrap();
        let disk = std::fs::read(&out).unwrap();
        let word = |at: usize| u32::from_le_bytes(disk[at..at + 4].try_into().unwrap());
        assert_eq!((word(454), word(458)), (2048, 3));
        assert_eq!((word(470), word(474)), (4096, 2), "the guest's init rewrites byte 474");
        assert_eq!(&disk[510..512], [0x55, 0xaa]);
        assert_eq!(disk[2048 * 512], 1);
        assert_eq!(disk[4096 * 512], 2);
        assert_eq!(disk.len() % (1 << 20), 0);
    }

    #[test]
    fn boot_code_that_would_reach_the_table_is_refused() {
        let extent = Extent { start: 1, count: 1 };
        assert!(boot_sector(&[0; 441], extent, extent).is_err());
    }
}
