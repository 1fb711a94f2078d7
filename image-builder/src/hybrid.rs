//! Turns a GPT disk image into a hybrid: the same file boots as a USB stick (or disk) and as a CD-ROM.
//!
//! Only the gap between the partition table and the first partition is written (bytes 32 KiB to 1 MiB), and
//! the first 440 bytes of the protective MBR; no partition is moved or changed, so what refers to them by
//! number or UUID stays right. It must never write into a partition.
//!
//! # Format
//!
//! All ISO 9660 sectors are 2048 bytes. "both" means a number written little-endian, then big-endian.
//!
//! | ISO sector | bytes of the file | what |
//! |---|---|---|
//! | 0 | 0..440 | boot code for BIOS: says that this machine must start by UEFI |
//! | 0 | 440..512 | the disk's protective MBR, untouched |
//! | 0..15 | 512..17408 | the disk's GPT header and entries, untouched |
//! | 16 | 32768 | primary volume descriptor (ECMA-119, 8.4) |
//! | 17 | 34816 | boot record (El Torito, figure 7): where the boot catalogue is |
//! | 18 | 36864 | end of the volume descriptors |
//! | 19 | 38912 | boot catalogue: validation, default entry (BIOS), section header, section entry (UEFI) |
//! | 20, 21 | 40960, 43008 | path tables, little-endian and big-endian: the root folder alone |
//! | 22 | 45056 | root folder: itself, its parent (itself), `README.TXT` |
//! | 23 | 47104 | `README.TXT` |
//! | 24 | 49152 | the boot code again, as the image that a BIOS loads from a CD |
//!
//! The UEFI entry of the boot catalogue points at the EFI system partition where it lies on the disk.
//! Its length is given as 1, which by the UEFI specification (13.3.2.1) means "to the end of the disc":
//! the field has 16 bits and could not hold the length of a partition over 32 MiB.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// An ISO 9660 sector.
const SECTOR: usize = 2048;
const PVD: u32 = 16;
const BOOT_RECORD: u32 = 17;
const TERMINATOR: u32 = 18;
const CATALOGUE: u32 = 19;
const PATH_TABLE_LE: u32 = 20;
const PATH_TABLE_BE: u32 = 21;
const ROOT_FOLDER: u32 = 22;
const README: u32 = 23;
const BIOS_IMAGE: u32 = 24;
const AFTER: u32 = 25;

/// `C12A7328-F81F-11D2-BA4B-00A0C93EC93B` as it is stored.
const ESP_TYPE: [u8; 16] =
    [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];

const README_TEXT: &[u8] = b"This is Cairn, a cloud in a box.\r\n\
    Start a machine from this disc or stick by UEFI; nothing is installed by hand.\r\n";

/// 16-bit code, loaded at linear address 0x7c00: prints the text after it and stops.
const SAY_AND_HALT: &[u8] = &[
    0x0e, 0x1f, // push cs; pop ds
    0xfc, // cld
    0xe8, 0x00, 0x00, // call the next instruction
    0x5e, // pop si: the address of this instruction
    0x83, 0xc6, 0x15, // add si, 21: the text begins 21 bytes after it
    0xac, // next: lodsb
    0x84, 0xc0, // test al, al
    0x74, 0x09, // jz stop
    0xb4, 0x0e, // mov ah, 0x0e: teletype output
    0xbb, 0x07, 0x00, // mov bx, 7
    0xcd, 0x10, // int 0x10
    0xeb, 0xf2, // jmp next
    0xf4, // stop: hlt
    0xeb, 0xfd, // jmp stop
];
const BIOS_TEXT: &[u8] =
    b"\r\nCairn starts by UEFI. Turn UEFI boot on in this machine's firmware setup.\r\n\0";

/// What the volume is called and when it was made.
pub struct Label<'a> {
    /// Up to 32 of `A-Z`, `0-9` and `_`.
    pub volume: &'a str,
    /// Seconds since 1970, for the dates in the volume descriptor.
    pub made: i64,
}

/// Makes the GPT disk image `disk` a hybrid, in place. Doing it twice changes nothing more.
pub fn make(disk: &Path, label: &Label) -> Result<()> {
    let open = OpenOptions::new().read(true).write(true).open(disk);
    let mut file = open.with_context(|| format!("cannot open {}", disk.display()))?;
    let first = first_partition(&mut file).with_context(|| format!("{}: partition table", disk.display()))?;
    ensure!(first.lowest >= u64::from(AFTER) * 4, "the first partition begins too early for a hybrid");
    ensure!(first.esp.is_multiple_of(4), "the EFI system partition does not begin on a 2048-byte boundary");
    let length = file.metadata()?.len().next_multiple_of(SECTOR as u64);
    file.set_len(length)?;
    let sectors = u32::try_from(length / SECTOR as u64).context("too long for a disc")?;
    let esp = u32::try_from(first.esp / 4).context("the EFI system partition lies too far back")?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&bios_code())?;
    file.seek(SeekFrom::Start(u64::from(PVD) * SECTOR as u64))?;
    file.write_all(&descriptors(label, sectors, esp)?)?;
    file.sync_all()?;
    Ok(())
}

/// Where partitions begin, in sectors of 512 bytes.
struct First {
    lowest: u64,
    esp: u64,
}

/// Reads the GPT: the beginning of the first partition and of the EFI system partition.
fn first_partition(file: &mut File) -> Result<First> {
    let mut header = [0; 512];
    file.seek(SeekFrom::Start(512))?;
    file.read_exact(&mut header)?;
    if &header[..8] != b"EFI PART" {
        bail!("no GPT with 512-byte sectors");
    }
    let entries = u64_at(&header, 72);
    let (count, size) = (u32_at(&header, 80) as usize, u32_at(&header, 84) as usize);
    ensure!(entries == 2 && size >= 128 && count * size <= 30 * 1024, "an unusual GPT");
    let mut table = vec![0; count * size];
    file.seek(SeekFrom::Start(entries * 512))?;
    file.read_exact(&mut table)?;
    let used = || table.chunks_exact(size).filter(|entry| entry[..16] != [0; 16]);
    let lowest = used().map(|entry| u64_at(entry, 32)).min().context("no partitions")?;
    let esp = used().find(|entry| entry[..16] == ESP_TYPE).context("no EFI system partition")?;
    Ok(First { lowest, esp: u64_at(esp, 32) })
}

/// Sectors 16 to 24.
fn descriptors(label: &Label, sectors: u32, esp: u32) -> Result<Vec<u8>> {
    let mut image = vec![0; (AFTER - PVD) as usize * SECTOR];
    let mut put = |sector: u32, bytes: &[u8]| {
        let at = (sector - PVD) as usize * SECTOR;
        image[at..at + bytes.len()].copy_from_slice(bytes);
    };
    let when = Date::of(label.made);
    put(PVD, &primary_volume_descriptor(label, sectors, when)?);
    put(BOOT_RECORD, &boot_record());
    put(TERMINATOR, b"\xffCD001\x01");
    put(CATALOGUE, &catalogue(esp));
    put(PATH_TABLE_LE, &path_table(ROOT_FOLDER.to_le_bytes(), 1u16.to_le_bytes()));
    put(PATH_TABLE_BE, &path_table(ROOT_FOLDER.to_be_bytes(), 1u16.to_be_bytes()));
    let mut folder = Vec::new();
    for (name, sector, length, flags) in [
        (&b"\0"[..], ROOT_FOLDER, SECTOR, 2),
        (&b"\x01"[..], ROOT_FOLDER, SECTOR, 2),
        (&b"README.TXT;1"[..], README, README_TEXT.len(), 0),
    ] {
        folder.extend(folder_record(name, sector, length as u32, flags, when));
    }
    put(ROOT_FOLDER, &folder);
    put(README, README_TEXT);
    put(BIOS_IMAGE, &bios_code());
    Ok(image)
}

/// ECMA-119, 8.4: offsets are the standard's byte positions less one.
fn primary_volume_descriptor(label: &Label, sectors: u32, when: Date) -> Result<[u8; SECTOR]> {
    let allowed = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    ensure!(
        !label.volume.is_empty() && label.volume.len() <= 32 && label.volume.chars().all(allowed),
        "«{}» cannot name a volume: up to 32 of A-Z, 0-9 and _",
        label.volume
    );
    let mut d = [0; SECTOR];
    d[..8].copy_from_slice(b"\x01CD001\x01\0");
    // System and volume name; then the four other names, space-filled.
    d[8..72].fill(b' ');
    d[40..40 + label.volume.len()].copy_from_slice(label.volume.as_bytes());
    d[80..88].copy_from_slice(&both32(sectors));
    d[120..124].copy_from_slice(&both16(1));
    d[124..128].copy_from_slice(&both16(1));
    d[128..132].copy_from_slice(&both16(SECTOR as u16));
    d[132..140].copy_from_slice(&both32(10));
    d[140..144].copy_from_slice(&PATH_TABLE_LE.to_le_bytes());
    d[148..152].copy_from_slice(&PATH_TABLE_BE.to_be_bytes());
    d[156..190].copy_from_slice(&folder_record(b"\0", ROOT_FOLDER, SECTOR as u32, 2, when));
    d[190..813].fill(b' ');
    d[813..830].copy_from_slice(&when.long());
    d[830..847].copy_from_slice(&when.long());
    d[847..864].copy_from_slice(b"0000000000000000\0");
    d[864..881].copy_from_slice(b"0000000000000000\0");
    d[881] = 1;
    Ok(d)
}

/// El Torito, figure 7.
fn boot_record() -> [u8; 75] {
    let mut d = [0; 75];
    d[..7].copy_from_slice(b"\0CD001\x01");
    d[7..30].copy_from_slice(b"EL TORITO SPECIFICATION");
    d[71..75].copy_from_slice(&CATALOGUE.to_le_bytes());
    d
}

/// El Torito, figures 2 to 5: four records of 32 bytes.
fn catalogue(esp: u32) -> [u8; 128] {
    let mut c = [0; 128];
    // Validation: the words of it sum to zero.
    c[0] = 1;
    c[4..9].copy_from_slice(b"Cairn");
    c[30..32].copy_from_slice(&[0x55, 0xaa]);
    let sum = c[..32].chunks_exact(2).fold(0u16, |sum, w| sum.wrapping_add(u16::from_le_bytes([w[0], w[1]])));
    c[28..30].copy_from_slice(&sum.wrapping_neg().to_le_bytes());
    // Default entry: bootable, no emulation, 4 sectors of 512 bytes, for a BIOS.
    c[32] = 0x88;
    c[38..40].copy_from_slice(&4u16.to_le_bytes());
    c[40..44].copy_from_slice(&BIOS_IMAGE.to_le_bytes());
    // The last section: platform 0xEF (UEFI), one entry.
    c[64] = 0x91;
    c[65] = 0xef;
    c[66] = 1;
    // The entry: bootable, no emulation, to the end of the disc.
    c[96] = 0x88;
    c[102..104].copy_from_slice(&1u16.to_le_bytes());
    c[104..108].copy_from_slice(&esp.to_le_bytes());
    c
}

/// ECMA-119, 9.4: one record, the root.
fn path_table(extent: [u8; 4], parent: [u8; 2]) -> [u8; 10] {
    let mut t = [0; 10];
    t[0] = 1;
    t[2..6].copy_from_slice(&extent);
    t[6..8].copy_from_slice(&parent);
    t
}

/// ECMA-119, 9.1.
fn folder_record(name: &[u8], sector: u32, length: u32, flags: u8, when: Date) -> Vec<u8> {
    let mut r = vec![0; (33 + name.len()).next_multiple_of(2)];
    r[0] = r.len() as u8;
    r[2..10].copy_from_slice(&both32(sector));
    r[10..18].copy_from_slice(&both32(length));
    r[18..25].copy_from_slice(&when.short());
    r[25] = flags;
    r[28..32].copy_from_slice(&both16(1));
    r[32] = name.len() as u8;
    r[33..33 + name.len()].copy_from_slice(name);
    r
}

/// The boot code with its text, 440 bytes: what fits before the MBR's disk signature.
fn bios_code() -> [u8; 440] {
    let mut code = [0; 440];
    code[..SAY_AND_HALT.len()].copy_from_slice(SAY_AND_HALT);
    code[SAY_AND_HALT.len()..][..BIOS_TEXT.len()].copy_from_slice(BIOS_TEXT);
    code
}

/// A date and time in UTC.
#[derive(Clone, Copy)]
struct Date {
    year: i64,
    month: u8,
    day: u8,
    hour: u8,
    minute: u8,
    second: u8,
}

impl Date {
    /// From seconds since 1970 (the civil calendar by Howard Hinnant's method).
    fn of(seconds: i64) -> Self {
        let (days, rest) = (seconds.div_euclid(86400), seconds.rem_euclid(86400));
        let z = days + 719_468;
        let (era, doe) = (z.div_euclid(146_097), z.rem_euclid(146_097));
        let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        Self {
            year: yoe + era * 400 + i64::from(month <= 2),
            month: month as u8,
            day: (doy - (153 * mp + 2) / 5 + 1) as u8,
            hour: (rest / 3600) as u8,
            minute: (rest / 60 % 60) as u8,
            second: (rest % 60) as u8,
        }
    }

    /// ECMA-119, 9.1.5: seven numbers.
    fn short(self) -> [u8; 7] {
        [(self.year - 1900) as u8, self.month, self.day, self.hour, self.minute, self.second, 0]
    }

    /// ECMA-119, 8.4.26.1: sixteen digits and the offset from UTC.
    fn long(self) -> [u8; 17] {
        let Self { year, month, day, hour, minute, second } = self;
        let text = format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}00");
        let mut date = [0; 17];
        date[..16].copy_from_slice(&text.as_bytes()[..16]);
        date
    }
}

fn both16(n: u16) -> [u8; 4] {
    let (l, b) = (n.to_le_bytes(), n.to_be_bytes());
    [l[0], l[1], b[0], b[1]]
}

fn both32(n: u32) -> [u8; 8] {
    let (l, b) = (n.to_le_bytes(), n.to_be_bytes());
    [l[0], l[1], l[2], l[3], b[0], b[1], b[2], b[3]]
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests;
