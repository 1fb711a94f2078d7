//! A replica whose disk did not take what it was to keep: whoever has it next knows, though the process be killed at once.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::path::Path;
use std::sync::Arc;

use cairn_shards::format::Manifest;
use cairn_shards::replication::op::{Failure, Op};
use cairn_shards::replication::replica::Replica;
use cairn_shards::volume::{Volume, write_manifest};

const SIZE: u64 = 64 << 20;

/// Opens a replica as a process does that begins; answers whether it says that it has all that it acknowledged.
fn open(dir: &Path) -> (Replica, u64, bool) {
    let replica = Replica::open(Arc::new(Volume::open(dir).unwrap()), "boot").unwrap();
    let (session, opened) = replica.begin(1, SIZE).unwrap();
    (replica, session, opened.intact)
}

#[test]
fn a_sync_that_failed_is_known_to_the_next_process() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("v1");
    std::fs::create_dir(&dir).unwrap();
    write_manifest(&dir, &Manifest::new("v1", SIZE, false)).unwrap();
    let write = Op::Write { offset: 0, data: vec![7; 4096].into() };
    let settle = Op::Settle { keep: vec![] };
    {
        let (replica, session, _) = open(&dir);
        replica.apply(session, 1, &settle).unwrap();
        replica.apply(session, 2, &write).unwrap();
    }
    let (replica, session, intact) = open(&dir);
    assert!(intact, "a process that is killed loses nothing");
    drop((replica, session));
    // A file that takes what is written and cannot be synced.
    let segment = dir.join("seg-00000000");
    std::fs::rename(&segment, parent.path().join("kept")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &segment).unwrap();
    {
        let (replica, session, _) = open(&dir);
        let failed = replica.apply(session, 1, &Op::Flush);
        assert!(matches!(failed, Err(Failure::Broken(_))), "{failed:?}");
    }
    // The disk is well again, and the process another one.
    std::fs::remove_file(&segment).unwrap();
    std::fs::rename(parent.path().join("kept"), &segment).unwrap();
    let (replica, session, intact) = open(&dir);
    assert!(!intact, "what it had not flushed may be lost");
    replica.apply(session, 1, &settle).unwrap();
    replica.apply(session, 2, &write).unwrap();
    drop(replica);
    assert!(open(&dir).2, "it was made like the others since");
}
