//! How much a volume's user may ask of it per second. Pure: the time is given.
//!
//! Leaky buckets, one per limit: each request fills them, time empties them, and a request waits while one is over its
//! brim. A request is never split, so a large one may go over it, and those after it wait the longer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// Requests of any kind.
    TotalIops,
    /// Reads.
    ReadIops,
    /// Writes, discards and the like.
    WriteIops,
    /// Bytes of all requests.
    TotalBytes,
    /// Bytes read.
    ReadBytes,
    /// Bytes written.
    WriteBytes,
}

/// So much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Per second, in the long run; at least 1.
    pub per_s: u64,
    /// Per second, for a while, after less was asked for; 0 if never more than `per_s`.
    #[serde(default)]
    pub burst_per_s: u64,
    /// For how many seconds.
    #[serde(default)]
    pub burst_s: u64,
}

impl Rate {
    /// Never more than this.
    pub fn steady(per_s: u64) -> Rate {
        Rate { per_s, burst_per_s: 0, burst_s: 0 }
    }
}

/// The limits of a volume; what is not named is not limited.
pub type IoLimits = BTreeMap<Measure, Rate>;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To read.
    Read,
    /// To change.
    Write,
}

impl Measure {
    fn cost(self, direction: Direction, bytes: u64) -> Option<u64> {
        use Direction::{Read, Write};
        match (self, direction) {
            (Measure::TotalIops, _) | (Measure::ReadIops, Read) | (Measure::WriteIops, Write) => Some(1),
            (Measure::TotalBytes, _) | (Measure::ReadBytes, Read) | (Measure::WriteBytes, Write) => {
                Some(bytes)
            }
            _ => None,
        }
    }
}

/// How long a bucket takes to empty that is filled by what is let through at once.
const AT_ONCE_S: f64 = 0.1;

/// A bucket: `level` of what came in is still there, and flows out by `per_s`.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    per_s: f64,
    brim: f64,
    level: f64,
}

impl Bucket {
    fn new(per_s: u64, brim: f64) -> Bucket {
        Bucket { per_s: per_s.max(1) as f64, brim, level: 0.0 }
    }

    /// Those that keep a rate: one for the long run and one for bursts.
    fn of(rate: &Rate) -> Vec<Bucket> {
        let at_once = |per_s: u64| per_s as f64 * AT_ONCE_S;
        if rate.burst_per_s <= rate.per_s {
            return vec![Bucket::new(rate.per_s, at_once(rate.per_s))];
        }
        let saved = (rate.burst_per_s - rate.per_s) as f64 * rate.burst_s.max(1) as f64;
        vec![Bucket::new(rate.per_s, saved), Bucket::new(rate.burst_per_s, at_once(rate.burst_per_s))]
    }

    fn leak(&mut self, for_s: f64) {
        self.level = (self.level - self.per_s * for_s).max(0.0);
    }

    /// How many seconds until there is room.
    fn wait_s(&self) -> f64 {
        ((self.level - self.brim) / self.per_s).max(0.0)
    }
}

/// The limits at work.
#[derive(Debug, Default)]
pub struct Throttle {
    limits: IoLimits,
    buckets: Vec<(Measure, Bucket)>,
    at: Option<Instant>,
}

impl Throttle {
    /// These limits hold from now on. What was used of the same ones before still counts.
    pub fn set(&mut self, limits: &IoLimits) {
        if self.limits == *limits {
            return;
        }
        self.limits.clone_from(limits);
        self.buckets = limits
            .iter()
            .flat_map(|(measure, rate)| Bucket::of(rate).into_iter().map(|bucket| (*measure, bucket)))
            .collect();
    }

    /// Whether nothing is limited.
    pub fn is_idle(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Lets a request through and counts it, or says how long it has to wait until it asks again.
    pub fn admit(&mut self, direction: Direction, bytes: u64, now: Instant) -> Result<(), Duration> {
        let passed = self.at.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        self.at = Some(now);
        self.buckets.iter_mut().for_each(|(_, bucket)| bucket.leak(passed));
        let concerned = |(measure, _): &&mut (Measure, Bucket)| measure.cost(direction, bytes).is_some();
        let wait =
            self.buckets.iter_mut().filter(concerned).map(|(_, bucket)| bucket.wait_s()).fold(0.0, f64::max);
        if wait > 0.0 {
            return Err(Duration::from_secs_f64(wait));
        }
        for (measure, bucket) in &mut self.buckets {
            bucket.level += measure.cost(direction, bytes).unwrap_or(0) as f64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Direction::{Read, Write};
    use super::*;

    /// How many requests are let through in so many milliseconds, asked for without a pause.
    fn served(throttle: &mut Throttle, from: Instant, ms: u64, direction: Direction, bytes: u64) -> u64 {
        let (mut count, mut now, end) = (0, from, from + Duration::from_millis(ms));
        while now < end {
            match throttle.admit(direction, bytes, now) {
                Ok(()) => count += 1,
                Err(wait) => now += wait.max(Duration::from_micros(1)),
            }
        }
        count
    }

    fn of(limits: &[(Measure, Rate)]) -> Throttle {
        let mut throttle = Throttle::default();
        throttle.set(&limits.iter().copied().collect());
        throttle
    }

    #[test]
    fn a_rate_is_kept_in_the_long_run() {
        let mut throttle = of(&[(Measure::ReadIops, Rate::steady(500))]);
        let count = served(&mut throttle, Instant::now(), 10_000, Read, 4096);
        assert!((4995..=5055).contains(&count), "{count}");
    }

    #[test]
    fn bytes_count_and_a_request_larger_than_the_brim_still_goes_through() {
        let mut throttle = of(&[(Measure::TotalBytes, Rate::steady(1 << 20))]);
        let count = served(&mut throttle, Instant::now(), 10_000, Write, 1 << 20);
        assert!((10..=11).contains(&count), "{count}");
    }

    #[test]
    fn reads_do_not_wait_for_writes_unless_the_limit_is_of_both() {
        let now = Instant::now();
        let mut throttle = of(&[(Measure::WriteIops, Rate::steady(10))]);
        served(&mut throttle, now, 50, Write, 1);
        assert!(throttle.admit(Write, 1, now + Duration::from_millis(50)).is_err());
        assert!(throttle.admit(Read, 1, now + Duration::from_millis(50)).is_ok());
        let mut both = of(&[(Measure::TotalIops, Rate::steady(10))]);
        served(&mut both, now, 50, Write, 1);
        assert!(both.admit(Read, 1, now + Duration::from_millis(50)).is_err());
    }

    #[test]
    fn what_was_saved_is_spent_in_a_burst_and_no_faster() {
        let rate = Rate { per_s: 100, burst_per_s: 1000, burst_s: 2 };
        let mut throttle = of(&[(Measure::TotalIops, rate)]);
        let start = Instant::now();
        let burst = served(&mut throttle, start, 2000, Read, 1);
        assert!((1990..=2110).contains(&burst), "{burst}");
        let after = served(&mut throttle, start + Duration::from_secs(2), 10_000, Read, 1);
        assert!((900..=1210).contains(&after), "{after}");
    }

    #[test]
    fn without_limits_nothing_waits() {
        let mut throttle = Throttle::default();
        assert!(throttle.is_idle() && throttle.admit(Write, u64::MAX, Instant::now()).is_ok());
    }
}
