//! Whole volumes under keys, on real files: what is on the disk, what is read, what is made of what.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::layer::Encrypted;
use super::recode::Recode;
use super::xts::{Cipher, KEY_BYTES};
use crate::format;
use crate::media::Media;
use crate::pool::{NewVolume, Pool};
use crate::sys::{Pieces, Sink, Source};

const MARK: &[u8] = b"nobody else may read this";
const SIZE: u64 = 4 << 20;

fn pool() -> (tempfile::TempDir, Pool) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d1");
    fs::create_dir(&path).unwrap();
    fs::write(path.join(format::MARKER), r#"{"format":1,"disk":"d1","cloud":"c1"}"#).unwrap();
    let pool = Pool::new(dir.path(), Some("c1".into()));
    pool.scan().unwrap();
    (dir, pool)
}

fn cipher(of: u8) -> Arc<Cipher> {
    Arc::new(Cipher::new(&[of; KEY_BYTES]))
}

fn new(id: &str, source: Option<&str>, read_only: bool) -> NewVolume {
    NewVolume { id: id.into(), size: SIZE, read_only, source: source.map(Into::into) }
}

fn opened(pool: &Pool, id: &str, of: u8) -> Encrypted {
    Encrypted::new(pool.open(id).unwrap(), cipher(of))
}

/// Whether a text is in any file below a folder.
fn is_in(dir: &Path, text: &[u8]) -> bool {
    fs::read_dir(dir).unwrap().flatten().any(|entry| match entry.file_type().unwrap().is_dir() {
        true => is_in(&entry.path(), text),
        false => fs::read(entry.path()).unwrap().windows(text.len()).any(|w| w == text),
    })
}

fn marked(len: usize) -> Vec<u8> {
    MARK.iter().copied().cycle().take(len).collect()
}

#[test]
fn what_is_written_is_read_and_never_on_the_disk() {
    let (dir, pool) = pool();
    pool.create(&new("a", None, false)).unwrap();
    let a = opened(&pool, "a", 1);
    let text = marked(1 << 20);
    a.write_slice(512, &text).unwrap();
    a.flush().unwrap();
    let mut back = vec![1; text.len()];
    a.read_slice(512, &mut back).unwrap();
    assert!(back == text);
    assert!(!is_in(dir.path(), MARK), "plaintext is on the disk");

    let mut wrong = vec![0; 4096];
    opened(&pool, "a", 2).read_slice(4096, &mut wrong).unwrap();
    assert!(!wrong.windows(MARK.len()).any(|w| w == MARK), "another key reads it");
    pool.open("a").unwrap().read_slice(4096, &mut wrong).unwrap();
    assert!(!wrong.windows(MARK.len()).any(|w| w == MARK), "no key reads it");
}

#[test]
fn what_was_never_written_or_was_discarded_reads_as_zeroes() {
    let (_dir, pool) = pool();
    pool.create(&new("a", None, false)).unwrap();
    let a = opened(&pool, "a", 1);
    a.write_slice(1 << 20, &marked(64 << 10)).unwrap();
    a.write_zeroes((1 << 20) + 4096, 8192, true).unwrap();
    a.write_slice(2 << 20, &[0; 4096]).unwrap();
    let mut back = vec![1; SIZE as usize];
    a.read_slice(0, &mut back).unwrap();
    let mut expected = vec![0; SIZE as usize];
    expected[1 << 20..(1 << 20) + (64 << 10)].copy_from_slice(&marked(64 << 10));
    expected[(1 << 20) + 4096..(1 << 20) + 4096 + 8192].fill(0);
    assert!(back == expected);
}

#[test]
fn ranges_and_pieces_of_any_shape_agree_with_a_plain_copy() {
    let (_dir, pool) = pool();
    pool.create(&new("a", None, false)).unwrap();
    let a = opened(&pool, "a", 1);
    let mut model = vec![0u8; SIZE as usize];
    let mut state = 1u64;
    let mut next = |below: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % below
    };
    for round in 0..200u64 {
        let (at, sectors) = (next(SIZE / 512), 1 + next(1200));
        let len = (sectors * 512).min(SIZE - at * 512);
        let range = (at * 512) as usize..(at * 512 + len) as usize;
        let cut = next(len + 1) as usize;
        match round % 3 {
            0 => {
                let bytes: Vec<u8> = (0..len).map(|n| (n + round) as u8).collect();
                let mut from = Pieces::<Source>::default();
                from.push_bytes(&bytes[..cut]);
                from.push_bytes(&bytes[cut..]);
                if !a.try_write(range.start as u64, len, &mut from) {
                    a.write(range.start as u64, len, &mut from).unwrap();
                }
                model[range].copy_from_slice(&bytes);
            }
            1 if round % 5 == 0 => {
                a.write_zeroes(range.start as u64, len, round % 2 == 0).unwrap();
                model[range].fill(0);
            }
            _ => {
                let mut back = vec![1; len as usize];
                let (head, tail) = back.split_at_mut(cut);
                let mut to = Pieces::<Sink>::default();
                to.push_slice(head);
                to.push_slice(tail);
                if !a.try_read(range.start as u64, len, &mut to) {
                    a.read(range.start as u64, len, &mut to).unwrap();
                }
                drop(to);
                assert!(back == model[range], "round {round}");
            }
        }
    }
    assert!(a.read_slice(1, &mut [0; 512]).is_err(), "half a sector");
    assert!(a.write_slice(0, &[0; 100]).is_err(), "half a sector");
}

#[test]
fn a_clone_is_read_with_its_sources_key() {
    let (_dir, pool) = pool();
    pool.create(&new("a", None, false)).unwrap();
    opened(&pool, "a", 1).write_slice(0, &marked(4096)).unwrap();
    pool.create(&new("b", Some("a"), true)).unwrap();
    let mut back = vec![0; 4096];
    opened(&pool, "b", 1).read_slice(0, &mut back).unwrap();
    assert_eq!(back, marked(4096));
}

#[test]
fn an_image_comes_under_a_key_and_out_of_it_again() {
    let (_dir, pool) = pool();
    pool.create(&new("plain", None, false)).unwrap();
    pool.open("plain").unwrap().write_slice(8192, &marked(300 << 10)).unwrap();
    let into = |to| Recode { from: None, to: Some(cipher(to)) };
    let refused = pool.create_checked(&new("early", Some("plain"), false), Some(&into(1)), || Ok(()));
    assert!(refused.is_err(), "what changes is not copied so");

    pool.create(&new("image", Some("plain"), true)).unwrap();
    pool.create_checked(&new("a", Some("image"), true), Some(&into(1)), || Ok(())).unwrap();
    assert!(!is_in(pool.open("a").unwrap().dir(), MARK));
    let mut back = vec![0; 300 << 10];
    opened(&pool, "a", 1).read_slice(8192, &mut back).unwrap();
    assert!(back == marked(300 << 10));

    let other = Recode { from: Some(cipher(1)), to: Some(cipher(2)) };
    pool.create_checked(&new("b", Some("a"), true), Some(&other), || Ok(())).unwrap();
    let out = Recode { from: Some(cipher(2)), to: None };
    pool.create_checked(&new("c", Some("b"), false), Some(&out), || Ok(())).unwrap();
    let (mut c, mut plain) = (vec![1; SIZE as usize], vec![2; SIZE as usize]);
    pool.open("c").unwrap().read_slice(0, &mut c).unwrap();
    pool.open("plain").unwrap().read_slice(0, &mut plain).unwrap();
    assert!(c == plain);
}
