//! Images in and out of the data socket, with a real qemu-img: what is taken, what is refused, what is left.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use axum::body::Body;
use cairn_shards::data::{Client, ImportError};
use cairn_shards::model::{Phase, VolumeSpec};
use cairn_shards::volume::Volume;
use cairn_shards::volumes;
use common::{Node, spec};
use http_body_util::BodyExt;
use sha2::{Digest, Sha512};

const CAP: u64 = 4 << 30;

fn qemu_img(arguments: &[&str]) {
    let output = Command::new(common::program("qemu-img")).args(arguments).output();
    let output = output.expect("these tests need qemu-img");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A qcow2 image of 3 GiB with a little data in its first and its last segment, beside its raw form.
fn image(dir: &Path) -> (PathBuf, PathBuf) {
    let (raw, qcow2) = (dir.join("disk.raw"), dir.join("disk.qcow2"));
    let file = std::fs::File::create(&raw).unwrap();
    file.set_len(5 << 29).unwrap();
    use std::os::unix::fs::FileExt;
    file.write_all_at(&[0xaa; 70_000], 4096).unwrap();
    file.write_all_at(&[0xbb; 512], (5 << 29) - 512).unwrap();
    let (from, to) = (raw.to_str().unwrap(), qcow2.to_str().unwrap());
    qemu_img(&["convert", "-c", "-f", "raw", "-O", "qcow2", from, to]);
    (raw, qcow2)
}

struct Bench {
    node: Node,
    client: Client,
    files: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Bench {
        let node = Node::new().await;
        let socket = node.socket();
        for _ in 0..6000 {
            if socket.exists() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        Bench { client: Client::new(socket), node, files: tempfile::tempdir().unwrap() }
    }

    async fn import(&self, id: &str, format: &str, bytes: Vec<u8>) -> Result<u64, ImportError> {
        self.client.import(id, format, CAP, Body::from(bytes)).await.map(|i| i.virtual_size)
    }

    async fn read(&self, id: &str, range: Option<&str>) -> (u16, Vec<u8>) {
        let response = self.client.read(id, range).await.unwrap();
        let status = response.status().as_u16();
        (status, response.into_body().collect().await.unwrap().to_bytes().into())
    }

    /// Asserts that an attempt left nothing anywhere.
    async fn nothing_left(&self, id: &str) {
        let staging = self.node.disk().join("staging");
        for _ in 0..6000 {
            if std::fs::read_dir(&staging).unwrap().next().is_none() {
                assert!(!self.node.disk().join("volumes").join(id).exists());
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("staging is not empty after {id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_qcow2_image_becomes_a_volume_and_keeps_its_bytes() {
    let bench = Bench::new().await;
    let (raw, qcow2) = image(bench.files.path());
    let bytes = std::fs::read(&qcow2).unwrap();
    let imported = bench.client.import("img", "qcow2", CAP, Body::from(bytes.clone())).await.unwrap();
    assert_eq!((imported.size, imported.virtual_size), (bytes.len() as u64, 5 << 29));
    assert_eq!(imported.sha512, hex::encode(Sha512::digest(&bytes)));
    let segments = bench.node.disk().join("volumes/img");
    let used: u64 = std::fs::read_dir(&segments)
        .unwrap()
        .map(|e| std::os::unix::fs::MetadataExt::blocks(&e.unwrap().metadata().unwrap()) * 512)
        .sum();
    assert!(used < 4 << 20, "a sparse image takes {used} bytes");

    assert_eq!(bench.read("img", None).await, (200, bytes.clone()));
    assert_eq!(bench.read("img", Some("bytes=10-19")).await, (206, bytes[10..20].to_vec()));
    assert!(matches!(bench.client.read("img", Some("bytes=99999999999-")).await, Err(ImportError::Range(_))));
    assert!(matches!(bench.client.read("none", None).await, Err(ImportError::Missing(_))));

    // A clone of it holds what the raw form holds.
    let image = VolumeSpec { read_only: true, ..spec("img", 5 << 29) };
    let clone = VolumeSpec { source: Some("img".into()), ..spec("v1", 5 << 29) };
    bench
        .node
        .change(|tx| volumes::create(tx, image.clone()).and_then(|()| volumes::create(tx, clone.clone())))
        .await;
    bench.node.until("v1", |s| s.phase == Phase::Ready).await;
    use std::os::unix::fs::FileExt;
    for (offset, len) in [(0u64, 80_000usize), ((5 << 29) - 512, 512)] {
        let (mut expected, mut found) = (vec![0; len], vec![0; len]);
        std::fs::File::open(&raw).unwrap().read_exact_at(&mut expected, offset).unwrap();
        let segment = bench.node.disk().join(format!("volumes/v1/seg-{:08}", offset >> 30));
        std::fs::File::open(segment).unwrap().read_at(&mut found, offset % (1 << 30)).unwrap();
        assert!(expected == found, "at {offset}");
    }
    // The tombstone removes the image and its original.
    bench.node.change(|tx| volumes::delete(tx, "img")).await;
    bench.node.until("img", |s| s.phase == Phase::Gone).await;
    bench.nothing_left("img").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_bytes_are_stored_as_they_are() {
    let bench = Bench::new().await;
    let mut bytes = b"QFI\xfb".to_vec();
    bytes.extend((0..200_000u32).map(|i| (i % 253) as u8));
    assert_eq!(bench.import("img", "raw", bytes.clone()).await, Ok(200_192));
    assert_eq!(bench.read("img", None).await, (200, bytes));
    assert!(matches!(bench.import("img", "raw", vec![1]).await, Err(ImportError::Refused(_))), "taken");
    assert_eq!(bench.import("iso", "iso", vec![0; 4096]).await, Ok(4096));
    assert_eq!(bench.read("iso", None).await, (200, vec![0; 4096]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_plain_image_is_refused_and_leaves_nothing() {
    let bench = Bench::new().await;
    let dir = bench.files.path();
    let (_, good) = image(dir);
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let backed = path("backed.qcow2");
    qemu_img(&["create", "-f", "qcow2", "-F", "qcow2", "-b", good.to_str().unwrap(), &backed]);
    let external = path("external.qcow2");
    let option = format!("data_file={}", path("data.raw"));
    qemu_img(&["create", "-f", "qcow2", "-o", &option, &external, "16M"]);
    let huge = path("huge.qcow2");
    qemu_img(&["create", "-f", "qcow2", &huge, "5G"]);
    // The header's crypt_method is LUKS. (Made by hand: qemu-img fails to on a busy machine, where it cannot time itself.)
    let mut encrypted = std::fs::read(&good).unwrap();
    encrypted[32..36].copy_from_slice(&2_u32.to_be_bytes());
    let mut corrupt = std::fs::read(&good).unwrap();
    let l1 = u64::from_be_bytes(corrupt[40..48].try_into().unwrap()) as usize;
    corrupt[l1..l1 + 8].copy_from_slice(&0x8000_00ff_ffff_0000u64.to_be_bytes());
    let truncated = std::fs::read(&good).unwrap()[..90_000].to_vec();
    let read = |p: &str| std::fs::read(p).unwrap();
    for (name, format, bytes, word) in [
        ("backing", "qcow2", read(&backed), "backing file"),
        ("external", "qcow2", read(&external), "another file"),
        ("huge", "qcow2", read(&huge), "limit"),
        ("encrypted", "qcow2", encrypted, "encrypted"),
        ("corrupt", "qcow2", corrupt, ""),
        ("truncated", "qcow2", truncated, ""),
        ("not-qcow2", "qcow2", vec![7; 4096], "not a qcow2"),
        ("empty-qcow2", "qcow2", vec![], "not a qcow2"),
        ("empty-raw", "raw", vec![], "empty"),
        ("vmdk", "vmdk", vec![1; 512], "not supported"),
    ] {
        match bench.import(name, format, bytes).await {
            Err(ImportError::Refused(why)) => assert!(why.contains(word), "{name}: {why}"),
            other => panic!("{name}: {other:?}"),
        }
        bench.nothing_left(name).await;
    }
    let over = bench.client.import("over", "raw", 1 << 20, Body::from(vec![1; (1 << 20) + 1])).await;
    assert!(matches!(over, Err(ImportError::Refused(_))), "{over:?}");
    bench.nothing_left("over").await;
    for bad in ["..%2fescape", "a%2fb", "x%00"] {
        assert!(bench.import(bad, "raw", vec![1]).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_upload_is_read_to_its_end() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    const CHUNKS: usize = 512;
    let bench = Bench::new().await;
    // What is refused before it is read, and what is refused on the way.
    for (format, cap) in [("vmdk", CAP), ("raw", 1 << 20)] {
        let taken = Arc::new(AtomicUsize::new(0));
        let counter = taken.clone();
        let chunks = futures_util::stream::iter((0..CHUNKS).map(move |_| {
            counter.fetch_add(1, SeqCst);
            Ok::<_, std::io::Error>(bytes::Bytes::from(vec![1; 65536]))
        }));
        let refused = bench.client.import("img", format, cap, Body::from_stream(chunks)).await;
        assert!(matches!(refused, Err(ImportError::Refused(_))), "{refused:?}");
        assert_eq!(taken.load(SeqCst), CHUNKS, "the sender of {format} could not send all");
        bench.nothing_left("img").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let bench = Bench::new().await;
    for format in ["raw", "qcow2"] {
        let chunks = futures_util::stream::iter((0..40).map(|i| match i {
            39 => Err(std::io::Error::other("the client went away")),
            _ => Ok(bytes::Bytes::from(vec![i as u8 + 1; 65536])),
        }));
        let broken = bench.client.import("img", format, CAP, Body::from_stream(chunks)).await;
        assert!(broken.is_err());
        bench.nothing_left("img").await;
    }
    // And the id is free again, a moment after the last file is gone.
    let mut again = bench.import("img", "raw", vec![1; 512]).await;
    for _ in 0..6000 {
        if again.is_ok() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        again = bench.import("img", "raw", vec![1; 512]).await;
    }
    assert_eq!(again, Ok(512));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_becomes_an_image() {
    let bench = Bench::new().await;
    bench.node.change(|tx| volumes::create(tx, spec("v1", 3 << 20))).await;
    bench.node.until("v1", |s| s.phase == Phase::Ready).await;
    let volume = Volume::open(&bench.node.disk().join("volumes/v1")).unwrap();
    volume.write_slice(0, &[9; 5000]).unwrap();
    let made = bench.client.import_volume("img", "v1").await.unwrap();
    let mut expected = vec![9; 5000];
    expected.resize(3 << 20, 0);
    assert_eq!((made.size, made.virtual_size), (3 << 20, 3 << 20));
    assert_eq!(made.sha512, hex::encode(Sha512::digest(&expected)));
    assert_eq!(bench.read("img", None).await, (200, expected));
    let missing = bench.client.import_volume("img2", "none").await;
    assert!(matches!(missing, Err(ImportError::Missing(_))), "{missing:?}");
    // A volume that is not an image is not handed out.
    assert!(matches!(bench.client.read("v1", None).await, Err(ImportError::Missing(_))));
}
