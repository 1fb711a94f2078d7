//! Volumes under keys on several nodes: what is on the wire and on any disk is the same ciphertext.

use cairn_shards::crypt::keys;
use cairn_shards::model::{Phase, VolumeSpec};
use cairn_shards::volumes;

use super::cloud::Cloud;
use super::{ALL, SIZE, assert_alike, assert_stamped, connected, export, guest, sector, stamp};

fn is_plain(cloud: &Cloud, id: &str, stamp: u8) -> bool {
    let at = sector(1) as usize * 512;
    cloud.site("b").content(id)[at..at + 4096].iter().all(|b| *b == stamp)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_replicas_have_the_same_ciphertext_and_any_node_serves_it() {
    let cloud = Cloud::started(&ALL).await;
    cloud
        .change(|tx| {
            let key = keys::generate(tx)?;
            volumes::create_under(tx, VolumeSpec::new("v1", "a", SIZE), Some(key))
        })
        .await;
    cloud.until_status("v1", |s| s.phase == Phase::Ready).await;
    let (_, socket) = export(&cloud, "v1", "a").await;
    guest(move || stamp(&mut connected(&socket), 7)).await;
    cloud.until_in_sync("v1", &ALL).await;
    assert_alike(&cloud, "v1", &ALL);
    assert!(!is_plain(&cloud, "v1", 7));
    let (_, socket) = export(&cloud, "v1", "c").await;
    guest(move || assert_stamped(&mut connected(&socket), 7)).await;

    // Each node brings its replica under another key for itself.
    let of = |id: &str, source: &str| VolumeSpec {
        source: Some(source.into()),
        read_only: true,
        ..VolumeSpec::new(id, "a", SIZE)
    };
    cloud
        .change(|tx| {
            volumes::unexport(tx, "v1")?;
            volumes::create(tx, of("frozen", "v1"))
        })
        .await;
    cloud.until_status("frozen", |s| s.phase == Phase::Ready).await;
    cloud
        .change(|tx| {
            let key = keys::generate(tx)?;
            volumes::create_under(tx, of("other", "frozen"), Some(key))?;
            volumes::create_under(tx, of("plain", "frozen"), None)
        })
        .await;
    for id in ["other", "plain"] {
        cloud.until_status(id, |s| s.phase == Phase::Ready).await;
        cloud.until_in_sync(id, &ALL).await;
        let (_, socket) = export(&cloud, id, "b").await;
        guest(move || assert_stamped(&mut connected(&socket), 7)).await;
        assert_alike(&cloud, id, &ALL);
    }
    assert!(is_plain(&cloud, "plain", 7) && !is_plain(&cloud, "other", 7));
}
