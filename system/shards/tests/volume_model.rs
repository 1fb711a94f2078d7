//! A volume against a model in memory: any sequence of operations, over segment borders, reads the same.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use cairn_shards::format::Manifest;
use cairn_shards::volume::{Findings, Volume, write_manifest};
use proptest::prelude::*;

const SEGMENT: u64 = 64 << 10;
const SIZE: u64 = 3 * SEGMENT + 4096;

#[derive(Debug, Clone)]
enum Op {
    Read(u64, usize),
    Write(u64, usize, u8),
    Zero(u64, usize, bool),
    Discard(u64, usize),
    Flush,
    Grow(u64),
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let at = 0..SIZE + 8192;
    // Lengths around segment borders matter most.
    let len = prop_oneof![0usize..9000, (SEGMENT as usize - 600)..(SEGMENT as usize * 2 + 600)];
    prop_oneof![
        4 => (at.clone(), len.clone()).prop_map(|(a, l)| Op::Read(a, l)),
        6 => (at.clone(), len.clone(), 1u8..).prop_map(|(a, l, b)| Op::Write(a, l, b)),
        2 => (at.clone(), len.clone(), any::<bool>()).prop_map(|(a, l, u)| Op::Zero(a, l, u)),
        1 => (at, len).prop_map(|(a, l)| Op::Discard(a, l)),
        1 => Just(Op::Flush),
        1 => (SIZE..SIZE + 3 * SEGMENT).prop_map(Op::Grow),
        1 => Just(Op::Reopen),
    ]
}

fn fits(at: u64, len: usize, model: &[u8]) -> bool {
    at + len as u64 <= model.len() as u64
}

fn apply(dir: &std::path::Path, volume: &mut Volume, model: &mut Vec<u8>, op: &Op) {
    match *op {
        Op::Read(at, len) => {
            let mut bytes = vec![0xcc; len];
            let read = volume.read_slice(at, &mut bytes);
            assert_eq!(read.is_ok(), fits(at, len, model));
            if read.is_ok() {
                assert!(bytes == model[at as usize..][..len]);
            }
        }
        Op::Write(at, len, byte) => {
            let written = volume.write_slice(at, &vec![byte; len]);
            assert_eq!(written.is_ok(), fits(at, len, model));
            if written.is_ok() {
                model[at as usize..][..len].fill(byte);
            }
        }
        Op::Zero(at, len, unmap) => {
            let zeroed = volume.write_zeroes(at, len as u64, unmap);
            assert_eq!(zeroed.is_ok(), fits(at, len, model));
            if zeroed.is_ok() {
                model[at as usize..][..len].fill(0);
            }
        }
        Op::Discard(at, len) => {
            let discarded = volume.discard(at, len as u64);
            assert_eq!(discarded.is_ok(), fits(at, len, model));
            if discarded.is_ok() {
                // What a discarded range reads as is the file system's choice: zeroes, or as before.
                volume.read_slice(at, &mut model[at as usize..][..len]).unwrap();
            }
        }
        Op::Flush => volume.flush().and_then(|()| volume.clean()).unwrap(),
        Op::Grow(size) => {
            volume.grow(size).unwrap();
            let size = size.next_multiple_of(512) as usize;
            model.resize(size.max(model.len()), 0);
            assert_eq!(volume.size(), model.len() as u64);
        }
        Op::Reopen => *volume = Volume::open(dir).unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_volume_reads_what_a_model_reads(ops in proptest::collection::vec(op(), 1..60)) {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("v1");
        std::fs::create_dir(&dir).unwrap();
        let manifest = Manifest { segment_size: SEGMENT, ..Manifest::new("v1", SIZE, false) };
        write_manifest(&dir, &manifest).unwrap();
        let mut volume = Volume::open(&dir).unwrap();
        let mut model = vec![0; SIZE as usize];
        for op in &ops {
            apply(&dir, &mut volume, &mut model, op);
        }
        let mut whole = vec![1; model.len()];
        volume.read_slice(0, &mut whole).unwrap();
        prop_assert!(whole == model);
        prop_assert_eq!(volume.findings(), Findings::default());
    }
}

#[test]
fn a_read_only_volume_is_never_written() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("v1");
    std::fs::create_dir(&dir).unwrap();
    write_manifest(&dir, &Manifest::new("v1", 8192, true)).unwrap();
    let volume = Volume::open(&dir).unwrap();
    assert!(volume.write_slice(0, &[1]).is_err());
    assert!(volume.write_zeroes(0, 1, true).is_err());
    assert!(volume.discard(0, 1).is_err());
    volume.flush().unwrap();
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
}

#[test]
fn a_torn_manifest_is_an_error_and_a_leftover_new_one_is_not() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("v1");
    std::fs::create_dir(&dir).unwrap();
    write_manifest(&dir, &Manifest::new("v1", 8192, false)).unwrap();
    // A crash between writing the new manifest and renaming it.
    std::fs::write(dir.join("manifest.json.new"), b"{\"form").unwrap();
    let volume = Volume::open(&dir).unwrap();
    assert_eq!(volume.size(), 8192);
    volume.grow(16384).unwrap();
    assert_eq!(Volume::open(&dir).unwrap().size(), 16384);
    let good = std::fs::read(dir.join("manifest.json")).unwrap();
    for cut in [0, 1, good.len() / 2, good.len() - 1] {
        std::fs::write(dir.join("manifest.json"), &good[..cut]).unwrap();
        assert!(Volume::open(&dir).is_err(), "{cut} bytes");
    }
}
