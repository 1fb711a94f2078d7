//! Disk adoption on real loop devices: empty ones are adopted, foreign ones are left to the last byte, and an adoption
//! that was cut short is finished. Needs root, like the program itself.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use cairn_node::Paths;
use cairn_node::disks::{self, DiskError};
use cairn_node::program::run;

struct Loop(PathBuf);

impl Loop {
    fn new(dir: &Path, name: &str, size: u64) -> Loop {
        let file = dir.join(name);
        fs::File::create(&file).unwrap().set_len(size).unwrap();
        let device = run("losetup", &["--find", "--show", "--partscan", file.to_str().unwrap()]);
        Loop(PathBuf::from(device.expect("loop devices (and root) are needed").trim()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = run("losetup", &["--detach", self.0.to_str().unwrap()]);
    }
}

struct Unmount(Paths);

impl Drop for Unmount {
    fn drop(&mut self) {
        for dir in fs::read_dir(self.0.disks()).into_iter().flatten().flatten() {
            let _ = run("umount", &[dir.path().to_str().unwrap()]);
        }
        let _ = run("umount", &[self.0.state.to_str().unwrap()]);
    }
}

fn head(device: &Path) -> Vec<u8> {
    let mut bytes = vec![0; 8 << 20];
    fs::File::open(device).unwrap().read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn empty_disks_are_adopted_and_foreign_ones_never_touched() {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths { state: dir.path().join("state"), run: dir.path().join("run") };
    let loops: Vec<Loop> =
        ["a", "b", "ext4", "noise"].iter().map(|n| Loop::new(dir.path(), n, 5 << 30)).collect();
    let _unmount = Unmount(paths.clone());
    let all: Vec<PathBuf> = loops.iter().map(|l| l.0.clone()).collect();
    run("mkfs.ext4", &["-q", "-F", all[2].to_str().unwrap()]).unwrap();
    // No signature that any program knows, but not empty either.
    let mut noise = fs::OpenOptions::new().write(true).open(&all[3]).unwrap();
    noise.seek(SeekFrom::Start(512 << 10)).unwrap();
    noise.write_all(b"somebody's data").unwrap();
    noise.sync_all().unwrap();
    let before = [head(&all[2]), head(&all[3])];

    assert!(matches!(disks::prepare(&paths, &all[2..]), Err(DiskError::NoDisk)));
    let report = disks::prepare(&paths, &all).unwrap();
    let use_of = |device: &Path| {
        let line = report.disks.iter().find(|d| Path::new(&d.device) == device);
        line.map(|l| l.use_.clone()).unwrap_or_default()
    };
    assert_eq!((use_of(&all[0]).as_str(), use_of(&all[1]).as_str()), ("data", "data"));
    assert!(use_of(&all[2]).contains("ext4") && use_of(&all[3]).contains("without a known signature"));
    assert_eq!(fs::read_dir(paths.disks()).unwrap().count(), 2);
    assert!(before == [head(&all[2]), head(&all[3])], "a foreign disk was written to");

    // A file of ours outlives being mounted again, and nothing is formatted twice.
    let disk = fs::read_dir(paths.disks()).unwrap().next().unwrap().unwrap().path();
    fs::write(disk.join("kept"), "x").unwrap();
    drop(Unmount(paths.clone()));
    assert!(!disk.join("kept").exists());
    disks::prepare(&paths, &all).unwrap();
    assert_eq!(fs::read_to_string(disk.join("kept")).unwrap(), "x");
}

#[test]
fn an_adoption_cut_short_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths { state: dir.path().join("state"), run: dir.path().join("run") };
    let disk = Loop::new(dir.path(), "a", 5 << 30);
    let only = [disk.0.clone()];
    let _unmount = Unmount(paths.clone());
    // As after a power cut between the partition table and the file systems.
    let devices = disks::probe::devices(&only).unwrap();
    for step in disks::plan::plan(&devices).unwrap() {
        disks::act::partition(&step).unwrap();
    }
    let report = disks::prepare(&paths, &only).unwrap();
    assert_eq!(report.disks[0].use_, "data");
    assert!(paths.node().join("cloud").exists());
}
