//! Who changes a block keeps others out for so long: a block and its sum change together. Reads take no lock, unless
//! they found a block that does not match.

use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// Locks of a volume.
const STRIPES: usize = 64;
/// Bytes of a segment that share a lock.
const STRIPE: u64 = 1 << 20;

/// The locks, each with a cache line of its own.
pub struct Stripes(Vec<Stripe>);

#[repr(align(64))]
struct Stripe(Mutex<()>);

impl Default for Stripes {
    fn default() -> Stripes {
        Stripes((0..STRIPES).map(|_| Stripe(Mutex::new(()))).collect())
    }
}

impl Stripes {
    /// Locks the stripe of one place of a segment.
    pub fn lock(&self, segment: usize, offset: u64) -> MutexGuard<'_, ()> {
        // It guards what is on the disk, which a panic leaves as a crash does.
        self.0[index(segment, offset / STRIPE)].0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Like [`Stripes::lock`]; `None` if somebody has it.
    pub fn try_lock(&self, segment: usize, offset: u64) -> Option<MutexGuard<'_, ()>> {
        match self.0[index(segment, offset / STRIPE)].0.try_lock() {
            Ok(lock) => Some(lock),
            Err(TryLockError::Poisoned(e)) => Some(e.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Locks all stripes of a range, in one order for all.
    pub fn lock_range(&self, segment: usize, offset: u64, len: u64) -> Vec<MutexGuard<'_, ()>> {
        let touched = offset / STRIPE..(offset + len).div_ceil(STRIPE);
        if touched.end - touched.start >= STRIPES as u64 {
            return self.lock_all();
        }
        let mut wanted: Vec<usize> = touched.map(|at| index(segment, at)).collect();
        wanted.sort_unstable();
        wanted.dedup();
        wanted.into_iter().map(|at| self.0[at].0.lock().unwrap_or_else(PoisonError::into_inner)).collect()
    }

    /// Locks all of them.
    pub fn lock_all(&self) -> Vec<MutexGuard<'_, ()>> {
        self.0.iter().map(|stripe| stripe.0.lock().unwrap_or_else(PoisonError::into_inner)).collect()
    }
}

/// Segments begin at different locks.
fn index(segment: usize, at: u64) -> usize {
    (segment * 7 + at as usize) % STRIPES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_the_locks_of_its_places() {
        let stripes = Stripes::default();
        let range = stripes.lock_range(3, STRIPE - 1, 2);
        assert_eq!(range.len(), 2);
        assert!(stripes.try_lock(3, 0).is_none() && stripes.try_lock(3, STRIPE).is_none());
        assert!(stripes.try_lock(3, 2 * STRIPE).is_some());
        drop(range);
        assert_eq!(stripes.lock_range(0, 0, 1 << 40).len(), STRIPES);
        drop(stripes.lock(3, 0));
    }
}
