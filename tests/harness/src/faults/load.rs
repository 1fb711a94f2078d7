//! The load of the fault tests: a guest that writes block after block, each flushed before it is reported, and a
//! ping that never stops.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::tour::{Scene, names};

/// How many blocks the volume holds, in blocks of 4 KiB.
const BLOCKS: u64 = 200_000;

/// What the load saw.
pub struct Report {
    /// Blocks below this number were reported as flushed by the guest.
    pub acknowledged: u64,
    /// The longest time between two answered pings.
    pub ping_gap: Duration,
}

/// A load under way.
pub struct Load {
    writer: Child,
    pinger: Child,
    acknowledged: Arc<AtomicU64>,
    reader: JoinHandle<()>,
    gaps: JoinHandle<Duration>,
}

/// Block n holds its own number, padded with zeroes.
fn write_script(from: u64) -> String {
    format!(
        "n={from}; while [ $n -lt {BLOCKS} ]; do \
         printf %016d $n | dd of=/dev/vdb bs=4096 seek=$n count=1 conv=notrunc,fsync 2>/dev/null || exit 1; \
         n=$((n+1)); echo $n; done"
    )
}

/// Prints `same` if the blocks from `from` up to `to` are as they were written.
pub fn read_script(from: u64, to: u64) -> String {
    format!(
        "n={from}; while [ $n -lt {to} ]; do \
         got=$(dd if=/dev/vdb bs=4096 skip=$n count=1 2>/dev/null | head -c 16); \
         [ \"$got\" = \"$(printf %016d $n)\" ] || {{ echo \"block $n holds $got\"; exit 0; }}; \
         n=$((n+1)); done; echo same"
    )
}

impl Load {
    /// Starts the load on the first server of the scene, at this block.
    pub fn start(scene: &Scene, from: u64) -> Result<Load> {
        let mut writer = scene.login_to(names::SERVER_A)?.spawn(&write_script(from))?;
        let acknowledged = Arc::new(AtomicU64::new(from));
        let out = writer.stdout.take().context("the writer has no output")?;
        let seen = acknowledged.clone();
        let reader = std::thread::spawn(move || {
            for number in BufReader::new(out).lines().map_while(Result::ok).filter_map(|l| l.parse().ok()) {
                seen.store(number, Ordering::Relaxed);
            }
        });
        let mut pinger = Command::new("ping")
            .args(["-n", "-i", "0.2", scene.address(names::SERVER_A)])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start ping")?;
        let out = pinger.stdout.take().context("ping has no output")?;
        let gaps = std::thread::spawn(move || longest_gap(BufReader::new(out)));
        Ok(Load { writer, pinger, acknowledged, reader, gaps })
    }

    /// The number of blocks known to be flushed so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Ends the load; it must have been going on until now.
    pub fn stop(mut self) -> Result<Report> {
        self.end()?;
        let ping_gap = self.gaps.join().unwrap_or(Duration::MAX);
        let _ = self.reader.join();
        Ok(Report { acknowledged: self.acknowledged.load(Ordering::Relaxed), ping_gap })
    }

    /// Ends the load after its guest was cut off: how many blocks it had reported.
    pub fn abandon(mut self) -> Result<u64> {
        self.end()?;
        let _ = self.reader.join();
        Ok(self.acknowledged.load(Ordering::Relaxed))
    }

    fn end(&mut self) -> Result<()> {
        for child in [&mut self.pinger, &mut self.writer] {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }
}

/// The longest time without an answer, from the first answer to the end of the output.
fn longest_gap(lines: impl BufRead) -> Duration {
    let mut last: Option<Instant> = None;
    let mut gap = Duration::ZERO;
    for line in lines.lines().map_while(Result::ok) {
        if line.contains("bytes from") {
            gap = gap.max(last.map_or(Duration::ZERO, |at| at.elapsed()));
            last = Some(Instant::now());
        }
    }
    gap.max(last.map_or(Duration::MAX, |at| at.elapsed()))
}
