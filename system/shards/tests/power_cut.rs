//! A machine that loses its power: of what was not flushed each page is on the disk or not, be it of data, of sums or
//! of marks. What was flushed is there, nothing is taken for corrupt, and copies of the volume are as they were made.
//! `SEED=n` runs one history, `SEEDS=n` so many.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::collections::BTreeMap;
use std::path::Path;

use cairn_shards::format::Manifest;
use cairn_shards::volume::{Volume, write_manifest};

const SIZE: u64 = 96 << 20;
/// Bytes that may be lost or kept by themselves.
const PAGE: u64 = 4096;
/// What is written lies at the beginning of so many areas.
const SPOTS: u64 = 6;
const SPOT: u64 = 16 << 20;
const SPOT_LEN: u64 = 48 << 10;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// The files of a directory as they are, in pages; holes are left out.
fn pages(dir: &Path, name: &str) -> BTreeMap<u64, Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let Ok(file) = std::fs::File::open(dir.join(name)) else { return BTreeMap::new() };
    let of_data = (0..SPOTS).flat_map(|spot| (0..SPOT_LEN / PAGE).map(move |page| spot * SPOT + page * PAGE));
    let places: Vec<u64> = match name {
        "seg-00000000" => of_data.collect(),
        _ => (0..SIZE / 1024 / PAGE + 1).map(|page| page * PAGE).collect(),
    };
    let read = |at: u64| {
        let mut page = vec![0; PAGE as usize];
        let n = file.read_at(&mut page, at).unwrap();
        (n > 0).then_some((at, page))
    };
    places.into_iter().filter_map(read).collect()
}

struct World {
    random: Random,
    dir: std::path::PathBuf,
    volume: Option<Volume>,
    /// What is on the disk for sure.
    stable: BTreeMap<&'static str, BTreeMap<u64, Vec<u8>>>,
    /// What was written where since the last flush, and what is there for sure, by sector.
    flushed: Vec<u8>,
    maybe: BTreeMap<u64, Vec<u8>>,
    next: u8,
    /// The marks as they were after the last step.
    marks: BTreeMap<u64, Vec<u8>>,
    /// Copies of the volume, with what each has held since it was made.
    copies: Vec<(std::path::PathBuf, Vec<u8>)>,
}

const DATA: &str = "seg-00000000";
const SUMS: &str = "sum-00000000";
const MARKS: &str = "marks";
/// Bytes of a block of marks before the bits.
const HEADER: usize = 8;

/// Whether marks have one that was not there before: then the file was synced.
fn sets(before: &BTreeMap<u64, Vec<u8>>, now: &BTreeMap<u64, Vec<u8>>) -> bool {
    let bits = |pages: &BTreeMap<u64, Vec<u8>>| pages.get(&0).map_or(0, |block| block[HEADER]);
    bits(now) & !bits(before) != 0 || (before.is_empty() && !now.is_empty())
}

fn sector_of(at: u64) -> usize {
    (at / SPOT * SPOT_LEN + at % SPOT) as usize / 512
}

impl World {
    fn volume(&self) -> &Volume {
        self.volume.as_ref().unwrap()
    }

    fn place(&mut self) -> (u64, u64) {
        let within = self.random.below(SPOT_LEN / 512 - 20) * 512;
        (self.random.below(SPOTS) * SPOT + within, 512 * (1 + self.random.below(20)))
    }

    fn changed(&mut self, at: u64, len: u64, value: u8) {
        for at in (at..at + len).step_by(512) {
            self.maybe.entry(at).or_insert_with(|| vec![self.flushed[sector_of(at)]]).push(value);
        }
    }

    fn step(&mut self) {
        let mut forgets = false;
        match self.random.below(100) {
            0..60 => {
                let (at, len) = self.place();
                self.next = self.next % 250 + 1;
                let value = self.next;
                self.volume().write_slice(at, &vec![value; len as usize]).unwrap();
                self.changed(at, len, value);
            }
            60..70 => {
                let ((at, len), unmap) = (self.place(), self.random.below(2) == 0);
                self.volume().write_zeroes(at, len, unmap).unwrap();
                self.changed(at, len, 0);
            }
            70..80 => {
                self.volume().flush().unwrap();
                self.keep(DATA);
                for (at, values) in std::mem::take(&mut self.maybe) {
                    self.flushed[sector_of(at)] = *values.last().unwrap();
                }
            }
            80..82 => self.copy(),
            82..90 => {
                let before = pages(&self.dir, MARKS);
                self.volume().clean().unwrap();
                // It syncs the sums before it clears marks.
                if pages(&self.dir, MARKS) != before {
                    self.keep(SUMS);
                }
                forgets = self.random.below(3) == 0;
            }
            90..95 => {
                // The process is killed.
                self.volume = None;
                self.volume = Some(Volume::open(&self.dir).unwrap());
            }
            _ => self.cut(),
        }
        // A mark is on stable media when a change is done; those that were cleared may come back until then.
        let marks = pages(&self.dir, MARKS);
        if forgets || sets(&self.marks, &marks) {
            self.stable.insert(MARKS, marks.clone());
        }
        self.marks = marks;
    }

    /// Copies the volume: what it holds is on stable media then, and the copy never changes.
    fn copy(&mut self) {
        if self.copies.len() > 2 {
            let (dir, _) = self.copies.swap_remove(self.random.below(3) as usize);
            std::fs::remove_dir_all(dir).unwrap();
        }
        let number = self.random.below(1 << 40);
        let (id, dir) = (format!("s{number}"), self.dir.parent().unwrap().join(format!("s{number}")));
        std::fs::create_dir(&dir).unwrap();
        let mut manifest = Manifest::new(&id, SIZE, true);
        self.volume().copy_to(&dir, &mut manifest).unwrap();
        write_manifest(&dir, &manifest).unwrap();
        [DATA, SUMS].into_iter().for_each(|name| self.keep(name));
        for (at, values) in std::mem::take(&mut self.maybe) {
            self.flushed[sector_of(at)] = *values.last().unwrap();
        }
        self.copies.push((dir, self.flushed.clone()));
    }

    /// What was lost of one volume is nothing of the others.
    fn check_copies(&self) {
        for (dir, held) in &self.copies {
            let copy = Volume::open(dir).unwrap();
            for spot in 0..SPOTS {
                let mut bytes = vec![0; SPOT_LEN as usize];
                copy.read_slice(spot * SPOT, &mut bytes).unwrap();
                let held = &held[(spot * SPOT_LEN) as usize / 512..];
                let same = bytes.chunks(512).zip(held).all(|(sector, held)| sector.iter().all(|b| b == held));
                assert!(same, "spot {spot} of {}", dir.display());
            }
            assert_eq!(copy.findings().corrupt, 0);
        }
    }

    fn keep(&mut self, name: &'static str) {
        self.stable.insert(name, pages(&self.dir, name));
    }

    fn cut(&mut self) {
        use std::os::unix::fs::{FileExt, MetadataExt};
        self.volume = None;
        for name in [DATA, SUMS, MARKS] {
            let now = pages(&self.dir, name);
            let stable = self.stable[name].clone();
            let Ok(file) = std::fs::File::options().write(true).open(self.dir.join(name)) else { continue };
            for (at, page) in now {
                let lost = name == MARKS || self.random.below(2) == 0;
                let old = stable.get(&at).cloned().unwrap_or_else(|| vec![0; PAGE as usize]);
                let end = file.metadata().unwrap().len().saturating_sub(at).min(PAGE) as usize;
                if lost && old != page {
                    assert_eq!(file.metadata().unwrap().nlink(), 1, "{name} of others too was changed");
                    file.write_all_at(&old[..end], at).unwrap();
                }
            }
        }
        // What is there now is what the disk has.
        [DATA, SUMS].into_iter().for_each(|name| self.keep(name));
        self.volume = Some(Volume::open(&self.dir).unwrap());
        self.check();
        self.check_copies();
    }

    fn check(&mut self) {
        for spot in 0..SPOTS {
            let mut bytes = vec![0; SPOT_LEN as usize];
            self.volume().read_slice(spot * SPOT, &mut bytes).unwrap();
            for (i, sector) in bytes.chunks(512).enumerate() {
                let at = spot * SPOT + i as u64 * 512;
                assert!(sector.iter().all(|b| *b == sector[0]), "a sector of two writes at {at}");
                match self.maybe.remove(&at) {
                    Some(values) => {
                        assert!(values.contains(&sector[0]), "{} at {at}, not {values:?}", sector[0])
                    }
                    None => assert_eq!(sector[0], self.flushed[sector_of(at)], "at {at}"),
                }
                self.flushed[sector_of(at)] = sector[0];
            }
        }
        assert_eq!(self.volume().findings().corrupt, 0);
    }
}

fn history(seed: u64) -> u64 {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("v1");
    std::fs::create_dir(&dir).unwrap();
    write_manifest(&dir, &Manifest::new("v1", SIZE, false)).unwrap();
    let volume = Some(Volume::open(&dir).unwrap());
    let stable = [DATA, SUMS, MARKS].into_iter().map(|name| (name, BTreeMap::new())).collect();
    let flushed = vec![0; (SPOTS * SPOT_LEN / 512) as usize];
    let mut world = World {
        random: Random(seed),
        dir,
        volume,
        stable,
        flushed,
        maybe: BTreeMap::new(),
        next: 0,
        marks: BTreeMap::new(),
        copies: vec![],
    };
    let mut mended = 0;
    for _ in 0..120 {
        world.step();
        mended += world.volume().findings().mended;
    }
    world.cut();
    mended
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn a_power_cut_parts_data_and_sums_and_nothing_is_taken_for_corrupt() {
    let (first, count) = number("SEED").map_or((1, number("SEEDS").unwrap_or(60)), |seed| (seed, 1));
    let mended: u64 = (first..first + count)
        .map(|seed| {
            let run = std::panic::catch_unwind(|| history(seed));
            run.unwrap_or_else(|_| panic!("seed {seed}"))
        })
        .sum();
    assert!(count < 10 || mended > 0, "the cuts part nothing");
}
