//! The search for damage: it finds what nobody reads, goes on where it was, and gives old volumes their sums.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod common;

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_shards::format::{Manifest, VOLUME_FORMAT_UNSUMMED};
use cairn_shards::pool::{NewVolume, Pool};
use cairn_shards::replication::replica::Replicas;
use cairn_shards::scrub::{Place, Scrub};
use cairn_shards::volume::{Volume, write_manifest};

fn pool(dir: &std::path::Path) -> Arc<Pool> {
    let pool = Arc::new(Pool::new(dir, None));
    pool.scan().unwrap();
    pool
}

#[test]
fn damage_that_nobody_reads_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let disk = common::make_disk(dir.path(), "d1");
    let new = |id: &str| NewVolume { id: id.into(), size: 32 << 20, read_only: false, source: None };
    let first = pool(dir.path());
    first.create(&new("rotten")).unwrap();
    first.create(&new("begun")).unwrap();
    let of = |id: &str| disk.join("volumes").join(id);
    for id in ["rotten", "begun"] {
        let volume = first.open(id).unwrap();
        volume.write_slice(9 << 20, &[1; 3 << 20]).unwrap();
        for _ in 0..3 {
            volume.flush().unwrap();
            volume.clean().unwrap();
        }
    }
    drop(first);
    for (id, at) in [("rotten", 9 << 20), ("rotten", 11 << 20), ("begun", 9 << 20), ("begun", 11 << 20)] {
        let file = std::fs::File::options().write(true).open(of(id).join("seg-00000000")).unwrap();
        file.write_all_at(&[2], at).unwrap();
        file.sync_all().unwrap();
    }
    // A search that was past the first of them, and knows of it.
    let begun = Place { next: 10, ended_at: 5, corrupt: 1 };
    std::fs::write(of("begun").join("scrub.json"), serde_json::to_vec(&begun).unwrap()).unwrap();
    std::fs::create_dir(of("old")).unwrap();
    let manifest = Manifest { format: VOLUME_FORMAT_UNSUMMED, ..Manifest::new("old", 32 << 20, false) };
    write_manifest(&of("old"), &manifest).unwrap();
    std::fs::write(of("old").join("seg-00000000"), vec![1; 5 << 20]).unwrap();
    // These were last searched long ago; one that is new need not be.
    for id in ["rotten", "old"] {
        let long_ago = Place { next: 0, ended_at: 1, corrupt: 0 };
        std::fs::write(of(id).join("scrub.json"), serde_json::to_vec(&long_ago).unwrap()).unwrap();
    }

    let pool = pool(dir.path());
    let replicas = Arc::new(Replicas::new(pool.clone(), "boot"));
    let scrub = Scrub::new(&pool, &replicas);
    std::thread::scope(|scope| {
        scope.spawn(|| scrub.search("d1"));
        let until = Instant::now() + Duration::from_secs(60);
        while scrub.progress().get("d1").is_none_or(|p| p.corrupt.len() < 2 || p.volume.is_some()) {
            assert!(Instant::now() < until, "{:?}", scrub.progress());
            std::thread::sleep(Duration::from_millis(20));
        }
        drop((pool, replicas));
    });
    let found = scrub.progress()["d1"].clone();
    let expected = [("begun".to_owned(), 2), ("rotten".to_owned(), 2)];
    assert_eq!((found.corrupt, found.error), (expected.into(), None));
    for id in ["rotten", "begun", "old"] {
        let place = Place::of(&of(id));
        assert!(place.next == 0 && place.ended_at > 5, "{id}: {place:?}");
    }
    assert!(Volume::open(&of("old")).unwrap().is_summed());
}
