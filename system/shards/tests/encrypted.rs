//! A volume with a key, through the storage agent and a guest's front-end: plaintext for the guest, ciphertext on the disk.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use cairn_shards::crypt::keys;
use cairn_shards::model::{Phase, VolumeSpec};
use cairn_shards::volumes;
use common::front_end::*;
use common::{NODE, Node, spec};

const SIZE: u64 = 8 << 20;
const TEXT: &[u8] = b"what a guest has written ";

/// A sector that is found again.
const MARK: [u8; 512] = {
    let mut sector = [0; 512];
    let mut at = 0;
    while at < 512 {
        sector[at] = TEXT[at % TEXT.len()];
        at += 1;
    }
    sector
};

async fn blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(f).await.unwrap()
}

async fn exported(node: &Node, id: &str) -> PathBuf {
    let epoch = node.change(|tx| volumes::export(tx, id, NODE, "server")).await;
    node.until(id, |s| s.epoch == epoch).await.socket.unwrap().into()
}

/// Whether a text is in any file below a folder.
fn is_in(dir: &Path, text: &[u8]) -> bool {
    std::fs::read_dir(dir).unwrap().flatten().any(|entry| match entry.file_type().unwrap().is_dir() {
        true => is_in(&entry.path(), text),
        false => std::fs::read(entry.path()).unwrap().windows(text.len()).any(|w| w == text),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_reads_what_it_wrote_and_its_disk_does_not_tell() {
    let mut node = Node::new().await;
    node.change(|tx| {
        let key = keys::generate(tx)?;
        volumes::create_under(tx, spec("v1", SIZE), Some(key))
    })
    .await;
    let socket = exported(&node, "v1").await;
    let at = socket.clone();
    blocking(move || {
        let mut guest = Guest::connected(&at);
        assert_eq!(guest.read(8, 512), [0; 512], "nothing was written there");
        assert_eq!(guest.request(OUT, 8, &Data::Out(&MARK)), 0);
        assert_eq!(guest.read(8, 512), MARK);
        assert_eq!(guest.request(FLUSH, 0, &Data::None), 0);
    })
    .await;
    assert!(!is_in(&node.disk(), &MARK[..32]), "plaintext is on the disk");

    let clone = VolumeSpec { source: Some("v1".into()), ..spec("v2", SIZE) };
    node.change(|tx| volumes::create(tx, clone.clone())).await;
    node.until("v2", |s| s.phase == Phase::Ready).await;
    let cloned = exported(&node, "v2").await;
    assert_eq!(
        blocking(move || Guest::connected(&cloned).read(8, 512)).await,
        MARK,
        "it has its source's key"
    );

    // The ledger gathers changes for half a second.
    tokio::time::sleep(Duration::from_millis(800)).await;
    node.stop().await;
    node.start_without_store();
    for _ in 0..2400 {
        let path = socket.clone();
        let read = blocking(move || {
            let mut guest = Guest::new();
            guest.connect(&path).is_ok().then(|| guest.read(8, 512))
        });
        if let Some(read) = read.await {
            assert_eq!(read, MARK, "it is served in plaintext or not at all");
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the volume is not served");
}

#[tokio::test(flavor = "multi_thread")]
async fn content_comes_under_a_key_and_out_of_it() {
    let node = Node::new().await;
    node.change(|tx| volumes::create(tx, spec("v1", SIZE))).await;
    let socket = exported(&node, "v1").await;
    blocking(move || assert_eq!(Guest::connected(&socket).request(OUT, 8, &Data::Out(&MARK)), 0)).await;
    let of = |id: &str, source: &str| VolumeSpec {
        source: Some(source.into()),
        read_only: true,
        ..spec(id, SIZE)
    };
    node.change(|tx| {
        volumes::create(tx, of("frozen", "v1"))?;
        let key = keys::generate(tx)?;
        volumes::create_under(tx, of("secret", "frozen"), Some(key))?;
        volumes::create_under(tx, of("plain", "secret"), None)
    })
    .await;
    node.until("plain", |s| s.phase == Phase::Ready).await;
    assert!(!is_in(&node.disk().join("volumes/secret"), &MARK[..32]));
    for id in ["secret", "plain"] {
        let socket = exported(&node, id).await;
        assert_eq!(blocking(move || Guest::connected(&socket).read(8, 512)).await, MARK, "{id}");
    }
}
