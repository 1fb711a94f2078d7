//! What could not be made here, and when that was known: it is tried again after a while, not as soon as it is known.
//! Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// When what could not be made is tried again, at the soonest.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The last failure of each replica, by what it goes by here.
#[derive(Debug, Default)]
pub struct Failures(HashMap<String, (Instant, String)>);

impl Failures {
    /// Why one could not be made, `now` or a moment ago; `None` if it may be tried.
    pub fn recent(&mut self, name: &str, now: Option<String>, at: Instant) -> Option<String> {
        if let Some(why) = now {
            self.0.insert(name.to_owned(), (at, why));
        }
        let is_recent = |known: &Instant| at.saturating_duration_since(*known) < RETRY_AFTER;
        self.0.get(name).filter(|(known, _)| is_recent(known)).map(|(_, why)| why.clone())
    }

    /// Forgets all but these.
    pub fn retain(&mut self, wanted: impl Fn(&String) -> bool) {
        self.0.retain(|name, _| wanted(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_left_alone_for_a_while_and_tried_anew_after_that() {
        let (mut failures, begun) = (Failures::default(), Instant::now());
        let later = |ms: u64| begun + Duration::from_millis(ms);
        let (full, again) = (Some("disk full".to_owned()), Some("no disk".to_owned()));
        assert_eq!(failures.recent("v", None, begun), None);
        assert_eq!(failures.recent("v", full.clone(), begun), full);
        assert_eq!(failures.recent("v", None, later(4_999)), full, "news of others come meanwhile");
        assert_eq!(failures.recent("w", None, later(4_999)), None);
        assert_eq!(failures.recent("v", None, later(5_000)), None);
        // It waits as long after each.
        assert_eq!(failures.recent("v", again.clone(), later(6_000)), again);
        assert_eq!(failures.recent("v", None, later(10_999)), again);
        assert_eq!(failures.recent("v", None, later(11_000)), None);
    }

    #[test]
    fn what_is_not_wanted_any_more_is_forgotten() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        for name in ["v", "w"] {
            failures.recent(name, Some("disk full".into()), now);
        }
        failures.retain(|name| name == "w");
        assert_eq!((failures.recent("v", None, now), failures.0.len()), (None, 1));
    }
}
