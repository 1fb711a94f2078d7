//! Medians and ratios. Pure.

use std::time::Duration;

/// The median; of an even number of them, the mean of the middle two. Zero of none.
pub fn median(times: impl IntoIterator<Item = Duration>) -> Duration {
    let mut times: Vec<Duration> = times.into_iter().collect();
    times.sort_unstable();
    let (low, high) = (times.len().saturating_sub(1) / 2, times.len() / 2);
    match (times.get(low), times.get(high)) {
        (Some(&low), Some(&high)) => (low + high) / 2,
        _ => Duration::ZERO,
    }
}

/// How many times as long as the peer.
pub fn ratio(own: Duration, peer: Duration) -> f64 {
    own.as_secs_f64() / peer.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_whatever_the_order() {
        for (seconds, expected) in
            [(&[][..], 0.0), (&[7], 7.0), (&[9, 1], 5.0), (&[100, 1, 3], 3.0), (&[4, 1, 100, 3], 3.5)]
        {
            let found = median(seconds.iter().map(|&s| Duration::from_secs(s)));
            assert_eq!(found, Duration::from_secs_f64(expected), "{seconds:?}");
        }
    }

    #[test]
    fn a_ratio_has_the_peer_below() {
        assert_eq!(ratio(Duration::from_secs(3), Duration::from_secs(2)), 1.5);
    }
}
