//! What a replica says, after its process was killed, of blocks that do not match their sums.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;

use cairn_shards::pool::{NewVolume, Pool};
use cairn_shards::replication::op::{Failure, Op};
use cairn_shards::replication::replica::Replica;

const SIZE: u64 = 40 << 20;
const AREA: u64 = 16 << 20;

fn write(offset: u64, byte: u8) -> Op {
    Op::Write { offset, data: vec![byte; 3 * 4096].into() }
}

#[test]
fn a_block_that_does_not_match_is_told_and_neither_given_nor_taken_until_somebody_must() {
    let dir = tempfile::tempdir().unwrap();
    let disk = common::make_disk(dir.path(), "d1");
    let pool = || {
        let pool = Pool::new(dir.path(), None);
        pool.scan().unwrap();
        pool
    };
    let made = pool();
    made.create(&NewVolume { id: "v1".into(), size: SIZE, read_only: false, source: None }).unwrap();
    let replica = Replica::open(made.open_to_fill("v1").unwrap(), "boot").unwrap();
    let (session, _) = replica.begin(1, SIZE).unwrap();
    // The first area is clean, the second is marked.
    replica.apply(session, 1, &write(0, 1)).unwrap();
    replica.apply(session, 2, &Op::Settle { keep: vec![] }).unwrap();
    replica.apply(session, 3, &write(AREA + (1 << 20), 2)).unwrap();
    drop((replica, made));
    let at = AREA + (1 << 20) + 4096;
    let file = File::options().write(true).open(disk.join("volumes/v1/seg-00000000")).unwrap();
    for offset in [5000, at + 9] {
        file.write_all_at(b"?", offset).unwrap();
    }

    let again = pool();
    let volume = again.open_to_fill("v1").unwrap();
    let replica = Replica::open(volume.clone(), "boot").unwrap();
    let (session, opened) = replica.begin(2, SIZE).unwrap();
    assert!(opened.intact && opened.areas == [1]);
    assert_eq!(replica.torn(session, 0).unwrap(), [], "no crash has parted what was flushed and is clean");
    let torn = replica.torn(session, 17).unwrap();
    assert_eq!((torn.len(), &torn[0]), (1, &(at..at + 4096)));
    assert_eq!(replica.torn(session, 1 << 40).unwrap(), []);
    let refused = |at| matches!(replica.read_matching(session, at, 4096), Err(Failure::Corrupt(_)));
    assert!(refused(4096) && refused(at));
    assert_eq!(replica.read_matching(session, at + 4096, 100).unwrap(), [2; 100][..]);
    assert_eq!(replica.read_matching(session, 8 << 20, 1 << 20).unwrap(), vec![0; 1 << 20]);
    // The search for damage leaves it to the writer.
    assert_eq!((volume.verify(17).unwrap(), volume.verify(0).unwrap()), (0, 1));
    assert_eq!((replica.torn(session, 17).unwrap().len(), volume.findings().mended), (1, 0));

    // Another has it whole.
    replica.apply(session, 1, &Op::Write { offset: at, data: vec![2; 4096].into() }).unwrap();
    assert_eq!(replica.torn(session, 17).unwrap(), []);
    assert_eq!(replica.read_matching(session, at, 4096).unwrap(), [2; 4096][..]);
    // Nobody has.
    file.write_all_at(b"!", at).unwrap();
    replica.digest(session, 17).unwrap();
    assert_eq!((replica.torn(session, 17).unwrap(), volume.findings().mended), (vec![], 1));
    assert_eq!(replica.read_matching(session, at, 1).unwrap(), b"!"[..]);
}
