//! Tests of the hybrid image, on a small disk made by hand.

use super::*;

/// A disk of 2 MiB with a GPT: an ESP at sector 2048 and another partition behind it.
fn disk(esp_start: u64) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let mut bytes = vec![0u8; 2 << 20];
    bytes[440..512].fill(0xaa);
    bytes[512..520].copy_from_slice(b"EFI PART");
    bytes[512 + 72..512 + 80].copy_from_slice(&2u64.to_le_bytes());
    bytes[512 + 80..512 + 84].copy_from_slice(&128u32.to_le_bytes());
    bytes[512 + 84..512 + 88].copy_from_slice(&128u32.to_le_bytes());
    for (slot, (kind, start)) in [([7u8; 16], 3072u64), (ESP_TYPE, esp_start)].into_iter().enumerate() {
        let at = 1024 + slot * 128;
        bytes[at..at + 16].copy_from_slice(&kind);
        bytes[at + 32..at + 40].copy_from_slice(&start.to_le_bytes());
    }
    bytes[esp_start as usize * 512..].fill(0x77);
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

const LABEL: Label = Label { volume: "CAIRN", made: 1_735_689_600 };

#[test]
fn a_disc_has_its_descriptors_and_the_disk_keeps_its_partitions() {
    let (_folder, path) = disk(2048);
    let before = std::fs::read(&path).unwrap();
    make(&path, &LABEL).unwrap();
    let after = std::fs::read(&path).unwrap();
    assert_eq!(before.len(), after.len());
    assert_eq!(before[440..32768], after[440..32768], "MBR and GPT are untouched");
    assert_eq!(before[AFTER as usize * SECTOR..], after[AFTER as usize * SECTOR..], "as is all behind");

    let pvd = &after[16 * SECTOR..17 * SECTOR];
    assert_eq!(&pvd[..7], b"\x01CD001\x01");
    assert_eq!(&pvd[40..46], b"CAIRN ");
    assert_eq!(u32_at(pvd, 80), 1024, "the volume is 1024 sectors long");
    assert_eq!(&pvd[84..88], 1024u32.to_be_bytes());
    assert_eq!(&pvd[813..829], b"2025010100000000");
    let boot = &after[17 * SECTOR..18 * SECTOR];
    assert_eq!(&boot[..30], b"\0CD001\x01EL TORITO SPECIFICATION");
    assert_eq!(u32_at(boot, 71), 19);
    assert_eq!(after[18 * SECTOR], 0xff);
}

#[test]
fn the_catalogue_points_at_the_esp() {
    let c = catalogue(512);
    let sum = c[..32].chunks_exact(2).fold(0u16, |s, w| s.wrapping_add(u16::from_le_bytes([w[0], w[1]])));
    assert_eq!(sum, 0, "the validation entry's words sum to zero");
    assert_eq!((c[0], c[30], c[31]), (1, 0x55, 0xaa));
    assert_eq!((c[32], u32_at(&c, 40)), (0x88, BIOS_IMAGE));
    assert_eq!((c[64], c[65], c[66]), (0x91, 0xef, 1));
    assert_eq!((c[96], c[102], u32_at(&c, 104)), (0x88, 1, 512));
}

#[test]
fn the_readme_is_in_the_root_folder() {
    let (_folder, path) = disk(2048);
    make(&path, &LABEL).unwrap();
    let bytes = std::fs::read(path).unwrap();
    let folder = &bytes[22 * SECTOR..23 * SECTOR];
    let readme = &folder[68..];
    assert_eq!((folder[0], folder[34]), (34, 34), "itself and its parent");
    assert_eq!(&readme[33..45], b"README.TXT;1");
    let (at, length) = (u32_at(readme, 2) as usize * SECTOR, u32_at(readme, 10) as usize);
    assert_eq!(&bytes[at..at + length], README_TEXT);
}

#[test]
fn making_it_twice_is_making_it_once() {
    let (_folder, path) = disk(2048);
    make(&path, &LABEL).unwrap();
    let once = std::fs::read(&path).unwrap();
    make(&path, &LABEL).unwrap();
    assert!(once == std::fs::read(&path).unwrap());
}

#[test]
fn disks_that_cannot_be_hybrids_are_refused_unchanged() {
    for start in [64, 2049] {
        let (_folder, path) = disk(start);
        let before = std::fs::read(&path).unwrap();
        assert!(make(&path, &LABEL).is_err(), "a partition at {start}");
        assert!(before == std::fs::read(&path).unwrap());
    }
    let (_folder, path) = disk(2048);
    assert!(make(&path, &Label { volume: "no spaces", made: 0 }).is_err());
    std::fs::write(&path, [0; 4096]).unwrap();
    assert!(make(&path, &LABEL).is_err(), "no GPT");
}

#[test]
fn the_boot_code_finds_its_text_and_fits() {
    // `call` pushes the address of `pop si` (byte 6); what is added to it leads behind the code.
    assert_eq!(SAY_AND_HALT.len(), 6 + usize::from(SAY_AND_HALT[9]));
    assert!(SAY_AND_HALT.len() + BIOS_TEXT.len() <= 440);
    // Where each short jump lands: the byte after it plus its signed distance.
    let lands = |at: usize| SAY_AND_HALT[(at + 2).wrapping_add_signed(SAY_AND_HALT[at + 1] as i8 as isize)];
    assert_eq!((SAY_AND_HALT[13], lands(13)), (0x74, 0xf4), "jz to hlt");
    assert_eq!((SAY_AND_HALT[22], lands(22)), (0xeb, 0xac), "jmp to lodsb");
    assert_eq!((SAY_AND_HALT[25], lands(25)), (0xeb, 0xf4), "jmp to hlt");
}

#[test]
fn dates() {
    assert_eq!(&Date::of(0).long()[..16], b"1970010100000000");
    assert_eq!(Date::of(951_782_400).short(), [100, 2, 29, 0, 0, 0, 0]);
    assert_eq!(&Date::of(1_735_689_599).long()[..16], b"2024123123595900");
}
