//! The load, the same on both sides: so many workers, each with one request on its way at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::future::try_join_all;

/// How long a value is.
pub const VALUE_BYTES: usize = 256;
/// How many keys are written, over and over.
pub const KEYS: u64 = 20_000;

/// Has workers do something for so many seconds; says how often it was done, and in how many microseconds.
pub async fn load<F: Future<Output = Result<()>>>(
    workers: u64,
    seconds: u64,
    what: impl Fn(u64) -> F,
) -> Result<String> {
    let (done, begun) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let until = begun + Duration::from_secs(seconds);
    try_join_all((0..workers).map(|worker| {
        let (done, what) = (done.clone(), &what);
        async move {
            while Instant::now() < until {
                // Far from each other, so that no two write the same key.
                let n = done.fetch_add(1, Ordering::Relaxed) + worker * 7919;
                what(n).await?;
            }
            anyhow::Ok(())
        }
    }))
    .await?;
    Ok(format!("{} {}", done.load(Ordering::Relaxed), begun.elapsed().as_micros()))
}
