//! A cloud whose disks are full: more was promised than there is, and guests have taken all of it.

use std::time::{Duration, Instant};

use cairn_shards::model::{Phase, VolumeSpec};
use cairn_shards::volumes;

use crate::cloud::Cloud;
use crate::common::front_end::*;
use crate::common::xfs;
use crate::{ALL, assert_alike, connected, export, finish, guest};

/// Each disk; XFS leaves some 240 MiB of it.
const DISK: u64 = 320 << 20;
/// Each of two volumes: together they do not fit.
const SIZE: u64 = 160 << 20;
const BATCH: u64 = SLOTS as u64 * SLOT;

/// Writes a volume from its beginning, in batches, until one is not completed for a while: how many were, and how many
/// requests of the next are held.
fn fill(guest: &mut Guest, stamp: u8) -> (u64, usize) {
    for batch in 0..SIZE / BATCH {
        for slot in 0..SLOTS {
            let sector = (batch * BATCH + u64::from(slot) * SLOT) / 512;
            guest.submit(slot, OUT, sector, &Data::Out(&[stamp + batch as u8; SLOT as usize]));
        }
        guest.kick();
        let (mut done, mut quiet) = (0, Instant::now());
        while done < usize::from(SLOTS) {
            let now = guest.completed().len();
            (done, quiet) = (done + now, if now > 0 { Instant::now() } else { quiet });
            if quiet.elapsed() > Duration::from_secs(5) {
                return (batch, usize::from(SLOTS) - done);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!((0..SLOTS).all(|slot| guest.status(slot) == 0));
        assert_eq!(finish(guest, FLUSH, 0, &Data::None), 0);
    }
    (SIZE / BATCH, 0)
}

fn assert_filled(guest: &mut Guest, stamp: u8, batches: u64) {
    for batch in 0..batches {
        for slot in [0, SLOTS / 2, SLOTS - 1] {
            let sector = (batch * BATCH + u64::from(slot) * SLOT) / 512;
            // A slot of its own: those of held requests are not to be touched.
            guest.submit(SLOTS, IN, sector, &Data::In(4096));
            guest.kick();
            assert_eq!(guest.wait(1)[0].0, 3 * SLOTS);
            assert!(guest.data(SLOTS, 4096).iter().all(|b| *b == stamp + batch as u8), "{batch}, {slot}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_cloud_holds_its_guests_loses_nothing_and_goes_on_once_there_is_room() {
    let Some(mut cloud) = xfs::or_skip(Cloud::mounted(&ALL, DISK).await) else { return };
    let mut guests = Vec::new();
    for (id, home) in [("v1", "a"), ("v2", "b")] {
        cloud.change(|tx| volumes::create(tx, VolumeSpec::new(id, home, SIZE))).await;
        cloud.until_status(id, |s| s.phase == Phase::Ready).await;
        let (_, socket) = export(&cloud, id, home).await;
        let connect = move || {
            let mut g = connected(&socket);
            assert_eq!(finish(&mut g, OUT, 0, &Data::Out(&[9; 4096])), 0);
            g
        };
        guests.push(guest(connect).await);
        cloud.until_in_sync(id, &ALL).await;
    }
    let (mut g2, mut g1) = (guests.pop().unwrap(), guests.pop().unwrap());

    let ((first, held), mut g1) = guest(move || (fill(&mut g1, 1), g1)).await;
    assert_eq!((first, held), (SIZE / BATCH, 0), "one fits");
    let ((second, held), mut g2) = guest(move || (fill(&mut g2, 101), g2)).await;
    assert!(held > 0 && second < SIZE / BATCH, "{second}, {held}");
    cloud.until_status("v2", |s| s.error.as_deref() == Some("disk full")).await;
    // Nobody is to blame, nothing is lost, and what needs no room goes on.
    cloud.until_in_sync("v1", &ALL).await;
    cloud.until_in_sync("v2", &ALL).await;
    (g1, g2) = guest(move || {
        assert_filled(&mut g1, 1, first);
        assert_filled(&mut g2, 101, second);
        assert_eq!(finish(&mut g1, FLUSH, 0, &Data::None), 0);
        assert!(g2.completed().is_empty(), "held, neither failed nor dropped");
        (g1, g2)
    })
    .await;

    // A node that restarts with a full disk is one of them again.
    cloud.stop("c").await;
    cloud.start("c").await;
    cloud.until_in_sync("v2", &ALL).await;
    cloud.until_in_sync("v1", &ALL).await;

    // A copy shares what is there; deleting is possible, and makes the room.
    drop(g1);
    cloud.change(|tx| volumes::unexport(tx, "v1")).await;
    cloud.change(|tx| volumes::delete(tx, "v1")).await;
    cloud.until_status("v1", |s| s.phase == Phase::Gone).await;
    let mut g2 = guest(move || {
        g2.wait(held);
        assert!((0..SLOTS).all(|slot| g2.status(slot) == 0));
        assert_eq!(finish(&mut g2, FLUSH, 0, &Data::None), 0);
        assert_filled(&mut g2, 101, second + 1);
        g2
    })
    .await;
    cloud.until_status("v2", |s| s.error.is_none()).await;
    let done = guest(move || fill(&mut g2, 1).0).await;
    assert_eq!(done, SIZE / BATCH, "now it fits");
    cloud.until_in_sync("v2", &ALL).await;
    cloud.change(|tx| volumes::unexport(tx, "v2")).await;
    cloud.until_status("v2", |s| s.socket.is_none()).await;
    // So that the disks can be unmounted.
    for name in ALL {
        cloud.stop(name).await;
    }
    assert_alike(&cloud, "v2", &ALL);
}
