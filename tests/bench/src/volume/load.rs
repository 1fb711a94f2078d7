//! The load, the same on every side: so many requests on their way at a time, from one thread.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::memory::{BLOCK, Memory, SLOT_BYTES};

/// What is asked of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Read,
    Write,
    Flush,
}

/// One request. A flush has neither place nor length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub op: Op,
    pub offset: u64,
    pub len: u64,
}

/// A disk that takes requests. Each has a slot, with a buffer of [`Memory`].
pub trait Disk {
    /// Takes a request on; it may lie until [`Disk::wait`].
    fn submit(&mut self, slot: usize, request: Request) -> Result<()>;
    /// Waits until some are done, and adds their slots.
    fn wait(&mut self, done: &mut Vec<usize>) -> Result<()>;
    /// How often it stood still until it was told again of a request.
    fn stalls(&self) -> u64 {
        0
    }
}

/// What a load does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    pub op: Op,
    /// Bytes of each request.
    pub len: u64,
    /// Requests on their way at a time.
    pub depth: usize,
    /// From anywhere, or one after the other, once through the disk.
    pub random: bool,
    /// A flush after so many; 0 for none.
    pub flush_every: u64,
}

impl Load {
    /// Writes each byte of the disk, and flushes.
    pub const FILL: Load = Load { op: Op::Write, len: SLOT_BYTES, depth: 8, random: false, flush_every: 0 };
}

/// What a load came to. Flushes are waited for and not counted.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub count: u64,
    pub elapsed: Duration,
    pub times: Times,
}

impl Outcome {
    pub fn per_second(&self) -> f64 {
        self.count as f64 / self.elapsed.as_secs_f64()
    }
}

/// How many requests took how long: sixteen steps to each doubling.
#[derive(Clone, Debug)]
pub struct Times {
    counts: Vec<u64>,
}

impl Default for Times {
    fn default() -> Times {
        Times { counts: vec![0; 64 * 16] }
    }
}

impl Times {
    fn add(&mut self, time: Duration) {
        let nanos = (time.as_nanos() as u64).max(16);
        let doubling = nanos.ilog2();
        let step = nanos >> (doubling - 4) & 15;
        self.counts[(doubling as usize) * 16 + step as usize] += 1;
    }

    /// The time that this part of all requests took at most; of a bucket, its beginning.
    pub fn quantile(&self, part: f64) -> Duration {
        let wanted = (self.counts.iter().sum::<u64>() as f64 * part) as u64;
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen > wanted
        });
        let at = found.unwrap_or_default();
        Duration::from_nanos(((16 + at as u64 % 16) << (at / 16)) >> 4)
    }
}

/// What is asked next.
struct Plan {
    load: Load,
    places: u64,
    next: u64,
    unflushed: u64,
    random: u64,
}

impl Plan {
    fn new(load: Load, size: u64, seed: u64) -> Plan {
        let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Plan { load, places: size / load.len, next: 0, unflushed: 0, random }
    }

    /// `None` at the end of the disk.
    fn next(&mut self) -> Option<Request> {
        let load = self.load;
        if load.flush_every > 0 && self.unflushed == load.flush_every {
            self.unflushed = 0;
            return Some(Request { op: Op::Flush, offset: 0, len: 0 });
        }
        let place = match load.random {
            true => self.roll() % self.places,
            false => self.next,
        };
        self.next += 1;
        self.unflushed += 1;
        (place < self.places).then_some(Request { op: load.op, offset: place * load.len, len: load.len })
    }

    /// Marsaglia's xorshift: the same for every side and seed.
    fn roll(&mut self) -> u64 {
        for (left, by) in [(true, 13), (false, 7), (true, 17)] {
            self.random ^= if left { self.random << by } else { self.random >> by };
        }
        self.random >> 11
    }
}

/// Puts a load on a disk of this size, for so long or once through.
pub fn run(
    disk: &mut dyn Disk,
    memory: &Memory,
    load: Load,
    size: u64,
    limit: Option<Duration>,
    seed: u64,
) -> Result<Outcome> {
    let mut plan = Plan::new(load, size, seed);
    let begun = Instant::now();
    let mut outcome = Outcome { count: 0, elapsed: Duration::ZERO, times: Times::default() };
    let mut on_way = vec![(begun, Request { op: Op::Flush, offset: 0, len: 0 }); load.depth];
    let mut free: Vec<usize> = (0..load.depth).collect();
    let (mut done, mut now, mut ended) = (Vec::new(), begun, false);
    loop {
        while !ended && let Some(slot) = free.pop() {
            let Some(request) = plan.next() else {
                ended = true;
                free.push(slot);
                break;
            };
            if request.op == Op::Write {
                memory.stamp(slot, request.offset, request.len)?;
            }
            disk.submit(slot, request)?;
            on_way[slot] = (now, request);
        }
        if free.len() == load.depth {
            break;
        }
        disk.wait(&mut done)?;
        now = Instant::now();
        for slot in done.drain(..) {
            let (since, request) = on_way[slot];
            if request.op == Op::Read {
                // A whole look at a large block would measure this process.
                memory.check(slot, request.offset, request.len.min(BLOCK))?;
            }
            if request.op != Op::Flush {
                outcome.count += 1;
                outcome.times.add(now - since);
            }
            free.push(slot);
        }
        ended |= limit.is_some_and(|limit| now - begun >= limit);
    }
    outcome.elapsed = begun.elapsed();
    Ok(outcome)
}

/// Makes everything written so far durable.
pub fn flush(disk: &mut dyn Disk) -> Result<()> {
    disk.submit(0, Request { op: Op::Flush, offset: 0, len: 0 })?;
    disk.wait(&mut Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Does everything at once.
    struct Instantly {
        memory: Memory,
        asked: Vec<Request>,
        slots: Vec<usize>,
    }

    impl Disk for Instantly {
        fn submit(&mut self, slot: usize, request: Request) -> Result<()> {
            if request.op == Op::Read {
                self.memory.stamp(slot, request.offset, request.len)?;
            }
            self.asked.push(request);
            self.slots.push(slot);
            Ok(())
        }

        fn wait(&mut self, done: &mut Vec<usize>) -> Result<()> {
            done.append(&mut self.slots);
            Ok(())
        }
    }

    fn asked(load: Load) -> (Vec<Request>, Outcome) {
        let memory = Memory::new().unwrap();
        let mut disk = Instantly { memory: memory.clone(), asked: Vec::new(), slots: Vec::new() };
        let limit = load.random.then_some(Duration::from_millis(5));
        let outcome = run(&mut disk, &memory, load, 40 << 20, limit, 7).unwrap();
        (disk.asked, outcome)
    }

    #[test]
    fn once_through_the_disk_is_each_byte_once() {
        let (asked, outcome) = asked(Load::FILL);
        let expected: Vec<u64> = (0..40).map(|n| n << 20).collect();
        assert_eq!(asked.iter().map(|r| r.offset).collect::<Vec<_>>(), expected);
        assert_eq!(outcome.count, 40);
    }

    #[test]
    fn a_flush_follows_each_so_many_writes_and_is_not_counted() {
        let load = Load { op: Op::Write, len: 4096, depth: 4, random: true, flush_every: 3 };
        let (asked, outcome) = asked(load);
        for (at, request) in asked.iter().enumerate() {
            assert_eq!(request.op == Op::Flush, at % 4 == 3);
            assert!(request.offset + request.len <= 40 << 20);
        }
        let writes = asked.iter().filter(|r| r.op == Op::Write).count();
        assert_eq!(outcome.count, writes as u64);
    }

    #[test]
    fn times_are_told_to_a_sixteenth() {
        let mut times = Times::default();
        for micros in 1..=1000 {
            times.add(Duration::from_micros(micros));
        }
        for (part, micros) in [(0.5, 500.0), (0.99, 990.0)] {
            let found = times.quantile(part).as_secs_f64() * 1e6;
            assert!(found <= micros * 1.01 && found > micros * 0.93, "{part}: {found}");
        }
        assert_eq!(Times::default().quantile(0.5), Duration::from_nanos(1));
    }
}
