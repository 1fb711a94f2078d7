//! A quick look at the store's speed: `cargo run --release -p cairn-state --example bench -- /a/directory`.
//!
//! It measures nothing but the store: 1 KiB values, each commit on stable media.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "it prints what it measures, and stops where it cannot"
)]

use std::time::Instant;

use cairn_state::{LocalStore, Op, Revision, Store, Txn};
use futures_util::StreamExt;

fn put(n: usize) -> Txn {
    let (key, value) = (format!("bench/{:06}", n % 20_000), vec![n as u8; 1024].into());
    Txn { compares: vec![], ops: vec![Op::Put { key, value, lease: None }] }
}

async fn writes(store: &LocalStore, writers: usize, each: usize) {
    let start = Instant::now();
    let tasks = (0..writers).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..each {
                store.commit(put(writer * 7919 + n)).await.unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let rate = (writers * each) as f64 / start.elapsed().as_secs_f64();
    println!("{writers:4} writers: {rate:8.0} writes/s");
}

#[tokio::main]
async fn main() {
    let directory = std::env::args().nth(1).unwrap_or_else(|| ".".into());
    let path = std::path::Path::new(&directory).join("bench.redb");
    let store = LocalStore::open(&path).unwrap();
    for (writers, each) in [(1, 2000), (16, 500), (64, 400), (512, 100)] {
        writes(&store, writers, each).await;
    }
    let start = Instant::now();
    for n in 0..100_000 {
        store.get(&format!("bench/{:06}", n % 20_000)).await.unwrap();
    }
    println!("{:8.0} reads/s", 100_000.0 / start.elapsed().as_secs_f64());
    let at = store.snapshot().unwrap().revision();
    let mut watch = store.watch("bench/", Revision(at.0 - 9_000)).await.unwrap();
    let start = Instant::now();
    for _ in 0..9_000 {
        watch.next().await.unwrap().unwrap();
    }
    println!("{:8.0} events/s replayed", 9_000.0 / start.elapsed().as_secs_f64());
    println!("{:8} KiB on disk", std::fs::metadata(&path).unwrap().len() / 1024);
    drop((watch, store));
    let start = Instant::now();
    drop(LocalStore::open(&path).unwrap());
    println!("{:8.1} ms to open", start.elapsed().as_secs_f64() * 1000.0);
    std::fs::remove_file(&path).unwrap();
}
