//! Many volumes and many more snapshots: how long the last takes beside the first, and what the agent needs with all of
//! them: memory, time to start, and CPU while nothing happens.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cairn_shards::model::VolumeSpec;
use cairn_shards::pool::{NewVolume, Pool};
use cairn_shards::volumes;
use image_builder::stage::say;

use super::agent::{Agent, disks, spec};
use super::{Options, Place};
use crate::figures::{median, ratio};

/// How many are timed, with few and with many.
const TIMED: usize = 20;
/// How many are asked for at a time where they are not timed.
const BATCH: usize = 100;

/// Measures and prints.
pub async fn run(place: &Place, options: &Options) -> Result<()> {
    let mut agent = Agent::new(place)?;
    let begun = Instant::now();
    agent.start()?;
    let started_empty = agent.until_seen(begun).await?;
    let few = timed(&agent, "few").await?;
    look(&agent, "with few", started_empty, options.idle).await?;
    agent.kill()?;

    let begun = Instant::now();
    fill(place, &agent, options).await?;
    let all = options.volumes * (1 + options.snapshots);
    say(&format!("  {all} volumes and snapshots made in {:.0} s", begun.elapsed().as_secs_f64()));
    let begun = Instant::now();
    agent.start()?;
    let started = agent.until_seen(begun).await?;
    look(&agent, "with all, before it has reported them", started, 1).await?;
    settle(&agent, options).await?;
    agent.kill()?;
    let begun = Instant::now();
    agent.start()?;
    let started = agent.until_seen(begun).await?;
    say(&format!("  started with all {:.1} times as long as with none", ratio(started, started_empty)));
    let many = timed(&agent, "many").await?;
    look(&agent, "with all", started, options.idle).await?;
    for (at, what) in ["a volume", "a snapshot"].into_iter().enumerate() {
        let (few, many) = (median(few[at].iter().copied()), median(many[at].iter().copied()));
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        say(&format!(
            "  {what:12} with few {:7.1} ms, with all {:7.1} ms, ratio {:5.1}",
            ms(few),
            ms(many),
            ratio(many, few)
        ));
    }
    Ok(())
}

/// Makes volumes, and a snapshot of each, one after the other.
async fn timed(agent: &Agent, name: &str) -> Result<[Vec<Duration>; 2]> {
    let mut times: [Vec<Duration>; 2] = Default::default();
    for at in 0..TIMED {
        let volume = format!("{name}-{at}");
        times[0].push(agent.create(spec(&volume, 1)).await?);
        let snapshot =
            VolumeSpec { source: Some(volume.clone()), read_only: true, ..spec(&format!("{volume}-s"), 1) };
        times[1].push(agent.create(snapshot).await?);
    }
    Ok(times)
}

/// Makes all of them on the disk while the agent is not there, which is faster, and asks for them.
async fn fill(place: &Place, agent: &Agent, options: &Options) -> Result<()> {
    let mut specs = Vec::new();
    {
        let pool = Pool::new(disks(place), None);
        pool.scan()?;
        ensure!(pool.disks().len() == 1, "the disk is not taken: {:?}", pool.refused());
        for at in 0..options.volumes {
            let id = format!("v{at}");
            pool.create(&NewVolume { id: id.clone(), size: 1 << 30, read_only: false, source: None })?;
            let volume = pool.open(&id)?;
            volume.write_slice((at as u64 % 1000) << 20, &[1; 8192])?;
            volume.flush()?;
            specs.push(spec(&id, 1));
            for number in 0..options.snapshots {
                let (source, read_only) = (Some(id.clone()), true);
                let snapshot = format!("v{at}-s{number}");
                pool.create(&NewVolume {
                    id: snapshot.clone(),
                    size: 1 << 30,
                    read_only,
                    source: source.clone(),
                })?;
                specs.push(VolumeSpec { source, read_only, ..spec(&snapshot, 1) });
            }
        }
    }
    for batch in specs.chunks(BATCH) {
        let make =
            |tx: &mut cairn_state::Tx| batch.iter().try_for_each(|spec| volumes::create(tx, spec.clone()));
        agent.store.transact(make).await?;
    }
    Ok(())
}

/// Waits until the agent has reported all.
async fn settle(agent: &Agent, options: &Options) -> Result<()> {
    let begun = Instant::now();
    let all = options.volumes * (1 + options.snapshots);
    loop {
        let told = agent.store.read(|tx| tx.list::<cairn_shards::model::VolumeStatus>())?.len();
        if told >= all {
            say(&format!("  all reported after {:.1} s", begun.elapsed().as_secs_f64()));
            return Ok(());
        }
        ensure!(begun.elapsed() < Duration::from_secs(600), "{told} of {all} are reported");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What the agent takes while nothing happens.
async fn look(agent: &Agent, when: &str, started: Duration, idle_s: u64) -> Result<()> {
    let before = agent.cpu_us()?;
    tokio::time::sleep(Duration::from_secs(idle_s)).await;
    let percent = (agent.cpu_us()? - before) / (idle_s as f64 * 1e6) * 100.0;
    let mib = agent.memory_mib()?;
    say(&format!(
        "  {when}: started in {:.0} ms, {mib} MiB, {percent:.1}% of a CPU while nothing happens",
        started.as_secs_f64() * 1e3
    ));
    Ok(())
}
