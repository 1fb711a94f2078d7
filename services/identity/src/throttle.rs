//! Slows down guessing: after too many failures for one subject, it is refused for a while.
//!
//! In memory and bounded. A refusal looks like any other, and a locked subject costs no hash.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Failures in a row that lock a subject.
const FAILURES_MAX: u32 = 10;
/// How long the lock holds, and how long failures are remembered.
const LOCKED: Duration = Duration::from_secs(60);
/// How many subjects are kept in mind.
const SUBJECTS_MAX: usize = 10_000;

/// The failures of each subject (a user as seen from one address).
#[derive(Default)]
pub struct Throttle(Mutex<HashMap<String, (u32, Instant)>>);

impl Throttle {
    /// Whether the subject is locked now.
    pub fn is_locked(&self, subject: &str) -> bool {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.get(subject).is_some_and(|(n, last)| *n >= FAILURES_MAX && last.elapsed() < LOCKED)
    }

    /// Notes a failure.
    pub fn failed(&self, subject: &str) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if table.len() >= SUBJECTS_MAX {
            table.retain(|_, (_, last)| last.elapsed() < LOCKED);
            if table.len() >= SUBJECTS_MAX {
                table.clear();
            }
        }
        let (count, last) = table.entry(subject.to_owned()).or_insert((0, Instant::now()));
        *count = if last.elapsed() < LOCKED { *count + 1 } else { 1 };
        *last = Instant::now();
    }

    /// Forgets the failures, after a success.
    pub fn succeeded(&self, subject: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(subject);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_failures_lock_one_subject_and_a_success_forgets_them() {
        let throttle = Throttle::default();
        (0..FAILURES_MAX - 1).for_each(|_| throttle.failed("a"));
        assert!(!throttle.is_locked("a"));
        throttle.succeeded("a");
        (0..FAILURES_MAX).for_each(|_| throttle.failed("a"));
        assert!(throttle.is_locked("a") && !throttle.is_locked("b"));
    }
}
