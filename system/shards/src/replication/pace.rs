//! How fast the writers of one node rebuild replicas in the background: as fast as its guests leave room for, and never
//! slower than a floor, so that every rebuild ends.
//!
//! Guests are taken to be busy by how long their requests take, summed up: a request that is always under way counts as
//! one, whether the disk or the network is slow. While they are, the rate halves with each look; while they are not, it
//! grows step by step. Copies that a guest waits for are not paced at all.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Regions a second that are always rebuilt, by all writers of the node together.
const FLOOR: f64 = 16.0;
/// The most regions a second.
const CEILING: f64 = 1024.0;
/// By how many regions a second the rate grows with each look at idle guests.
const STEP: f64 = 8.0;
/// How often guests are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Guests with so many requests under way, on average, are busy.
const BUSY: f64 = 0.5;
/// For how long regions that were not rebuilt may be made up for.
const BURST: Duration = Duration::from_millis(200);

/// The pace of a node.
pub struct Pace {
    begun: Instant,
    /// Microseconds that guests' requests took, summed.
    served_us: AtomicU64,
    budget: Mutex<Budget>,
}

impl Default for Pace {
    fn default() -> Pace {
        let budget = Mutex::new(Budget::default());
        Pace { begun: Instant::now(), served_us: AtomicU64::new(0), budget }
    }
}

impl Pace {
    /// A guest's request took so long.
    pub fn served(&self, took: Duration) {
        self.served_us.fetch_add(took.as_micros() as u64, Relaxed);
    }

    /// How many regions may be rebuilt now, of so many that are wanted.
    pub fn take(&self, wanted: u64) -> u64 {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        budget.look(self.begun.elapsed(), self.served_us.load(Relaxed));
        budget.take(wanted)
    }
}

/// What may be spent. Pure.
#[derive(Debug)]
struct Budget {
    /// Regions a second.
    rate: f64,
    regions: f64,
    looked_at: Duration,
    served_us: u64,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { rate: FLOOR, regions: 0.0, looked_at: Duration::ZERO, served_us: 0 }
    }
}

impl Budget {
    /// Time has passed; `served_us` as it is now.
    fn look(&mut self, now: Duration, served_us: u64) {
        let passed = now.saturating_sub(self.looked_at);
        if passed < LOOK {
            return;
        }
        let under_way = served_us.saturating_sub(self.served_us) as f64 / passed.as_micros() as f64;
        self.rate = match under_way >= BUSY {
            true => (self.rate / 2.0).max(FLOOR),
            false => (self.rate + STEP * (1.0 - under_way / BUSY)).min(CEILING),
        };
        let earned = self.regions + self.rate * passed.as_secs_f64();
        self.regions = earned.min(self.rate * BURST.as_secs_f64());
        (self.looked_at, self.served_us) = (now, served_us);
    }

    fn take(&mut self, wanted: u64) -> u64 {
        let taken = wanted.min(self.regions as u64);
        self.regions -= taken as f64;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regions rebuilt in each of so many seconds, with this share of the time spent on guests.
    fn rebuilt(budget: &mut Budget, from_s: u64, seconds: u64, under_way: f64) -> Vec<u64> {
        let second = |budget: &mut Budget, s: u64| {
            let look = |n: u64| {
                let now = Duration::from_millis((from_s + s) * 1000 + n * 100);
                budget.look(now, budget.served_us + (under_way * 100_000.0) as u64);
                budget.take(u64::MAX)
            };
            (1..=10).map(look).sum()
        };
        (0..seconds).map(|s| second(budget, s)).collect()
    }

    #[test]
    fn a_rebuild_speeds_up_while_guests_rest_and_gives_way_when_they_do_not() {
        let mut budget = Budget::default();
        let idle = rebuilt(&mut budget, 0, 20, 0.0);
        assert!(idle.is_sorted() && idle[0] >= 16 && idle[19] > 900, "{idle:?}");
        let busy = rebuilt(&mut budget, 20, 5, 1.0);
        assert!(busy[1] < 40 && busy[2..].iter().all(|n| (14..=17).contains(n)), "{busy:?}");
        let little = rebuilt(&mut budget, 25, 20, 0.1);
        assert!(little[19] > 500, "a guest that writes its log holds nothing up: {little:?}");
    }

    #[test]
    fn what_was_not_rebuilt_is_not_made_up_for_at_once() {
        let mut budget = Budget::default();
        budget.look(Duration::from_secs(3600), 0);
        assert!(budget.take(u64::MAX) <= (FLOOR + STEP) as u64);
        assert_eq!(budget.take(1), 0);
    }
}
