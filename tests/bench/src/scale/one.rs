//! One volume, large or small: how long a snapshot of it, a clone and a volume of an image take, and the write that comes
//! first after a snapshot, which gives the volume a segment of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use cairn_shards::model::VolumeSpec;
use cairn_shards::pool::{NewVolume, Pool};
use image_builder::stage::say;

use super::agent::{Agent, disks, spec};
use super::{Options, Place};
use crate::figures::{median, ratio};

/// Measures and prints.
pub async fn run(place: &Place, options: &Options) -> Result<()> {
    let begun = Instant::now();
    let sizes = [1, options.gib];
    {
        let pool = Arc::new(Pool::new(disks(place), None));
        pool.scan()?;
        for gib in sizes {
            // As densely written as the large one.
            fill(&pool, gib, options.written_mib * gib / options.gib, options.piece_kib)?;
        }
    }
    say(&format!(
        "  {} MiB written to {} GiB in pieces of {} KiB, in {:.0} s",
        options.written_mib,
        options.gib,
        options.piece_kib,
        begun.elapsed().as_secs_f64()
    ));
    first_writes(place, options.rounds)?;
    let mut agent = Agent::new(place)?;
    for gib in sizes {
        agent.store.transact(|tx| cairn_shards::volumes::create(tx, spec(&format!("v{gib}"), gib))).await?;
    }
    let begun = Instant::now();
    agent.start()?;
    agent.until_seen(begun).await?;
    let mut found: [[Vec<Duration>; 3]; 2] = Default::default();
    for round in 0..options.rounds {
        for (gib, times) in sizes.into_iter().zip(&mut found) {
            let read_only = |id: &str, source: String| VolumeSpec {
                source: Some(source),
                read_only: true,
                ..spec(id, gib)
            };
            let snapshot = format!("s{gib}-{round}");
            times[0].push(agent.create(read_only(&snapshot, format!("v{gib}"))).await?);
            let clone =
                VolumeSpec { source: Some(snapshot.clone()), ..spec(&format!("c{gib}-{round}"), gib) };
            times[1].push(agent.create(clone).await?);
            // An image is a volume that is only read; a root disk is a larger clone of it.
            let root = VolumeSpec { source: Some(snapshot), ..spec(&format!("r{gib}-{round}"), gib + 1) };
            times[2].push(agent.create(root).await?);
        }
    }
    for (at, what) in ["a snapshot", "a volume of a snapshot", "a volume of an image"].iter().enumerate() {
        let [small, large] = [0, 1].map(|which| median(found[which][at].iter().copied()));
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        say(&format!(
            "  {what:24} of 1 GiB {:8.1} ms, of {} GiB {:8.1} ms, ratio {:5.1}",
            ms(small),
            options.gib,
            ms(large),
            ratio(large, small)
        ));
    }
    Ok(())
}

/// Measures and prints how long the first write to a segment takes after a snapshot, and the next: one that was written from
/// its beginning to its end, and one where every second block was, so that its file is in as many pieces as can be.
fn first_writes(place: &Place, rounds: usize) -> Result<()> {
    const GIB: u64 = 1 << 30;
    let pool = Pool::new(disks(place), None);
    pool.scan()?;
    for (id, piece, step) in [("whole", 1 << 20, 1 << 20), ("fragmented", 4096, 8192)] {
        let new = |id: &str, source: Option<&str>| NewVolume {
            id: id.into(),
            size: GIB,
            read_only: source.is_some(),
            source: source.map(Into::into),
        };
        pool.create(&new(id, None))?;
        let volume = pool.open(id)?;
        for at in (0..GIB / step).map(|n| n * step) {
            volume.write_slice(at, &vec![0x5a; piece])?;
        }
        volume.flush()?;
        let (mut first, mut next) = (Vec::new(), Vec::new());
        for round in 0..rounds as u64 {
            pool.create(&new(&format!("{id}-{round}"), Some(id)))?;
            for times in [&mut first, &mut next] {
                let begun = Instant::now();
                volume.write_slice(round << 20, &[1; 4096])?;
                times.push(begun.elapsed());
            }
            volume.flush()?;
        }
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        say(&format!(
            "  the first write after a snapshot of a {id} segment {:.2} ms (at most {:.2}), the next {:.3} ms",
            ms(median(first.iter().copied())),
            ms(first.iter().copied().max().unwrap_or_default()),
            ms(median(next.into_iter()))
        ));
    }
    Ok(())
}

/// Makes a volume and writes so much to it, evenly spread.
fn fill(pool: &Pool, gib: u64, written_mib: u64, piece_kib: u64) -> Result<()> {
    let (id, size) = (format!("v{gib}"), gib << 30);
    pool.create(&NewVolume { id: id.clone(), size, read_only: false, source: None })?;
    let volume = pool.open(&id)?;
    let piece = vec![0x5a; (piece_kib << 10) as usize];
    let count = ((written_mib << 10) / piece_kib).max(1);
    for at in 0..count {
        let offset = (size / count * at) >> 12 << 12;
        volume.write_slice(offset, &piece)?;
    }
    volume.flush()?;
    Ok(())
}
