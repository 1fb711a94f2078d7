//! Who asks too much: token buckets per client address, in a table that cannot grow without bound.
//!
//! Two buckets a client: one for all requests, and a much smaller one that only answers 401 drain. Holds no secret.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// What one client may do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Requests a second, in the long run.
    pub requests_per_s: f64,
    /// Requests at once, after a quiet time.
    pub requests_burst: f64,
    /// Answers 401 a second, in the long run; beyond, only requests with a valid token are served.
    pub failures_per_s: f64,
    /// Answers 401 at once, after a quiet time.
    pub failures_burst: f64,
    /// How many clients are kept in mind.
    pub clients_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            requests_per_s: 2000.0,
            requests_burst: 4000.0,
            failures_per_s: 0.5,
            failures_burst: 60.0,
            clients_max: 16_384,
        }
    }
}

/// What is left of a client's two allowances, as of `at`.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    requests: f64,
    failures: f64,
    at: Instant,
}

impl Bucket {
    fn full(limits: &Limits, at: Instant) -> Bucket {
        Bucket { requests: limits.requests_burst, failures: limits.failures_burst, at }
    }

    fn refill(&mut self, limits: &Limits, now: Instant) {
        let s = now.saturating_duration_since(self.at).as_secs_f64();
        self.requests = (self.requests + s * limits.requests_per_s).min(limits.requests_burst);
        self.failures = (self.failures + s * limits.failures_per_s).min(limits.failures_burst);
        self.at = now;
    }

    fn is_full(&self, limits: &Limits) -> bool {
        self.requests >= limits.requests_burst && self.failures >= limits.failures_burst
    }
}

/// The table of clients.
pub(super) struct Limiter {
    limits: Limits,
    clients: Mutex<HashMap<IpAddr, Bucket>>,
}

impl Limiter {
    pub(super) fn new(limits: Limits) -> Limiter {
        Limiter { limits, clients: Mutex::new(HashMap::new()) }
    }

    /// Takes one request from the client's allowance; false if none is left.
    pub(super) fn admit(&self, client: IpAddr) -> bool {
        self.with(client, Instant::now(), |bucket| {
            let admitted = bucket.requests >= 1.0;
            bucket.requests -= f64::from(u8::from(admitted));
            admitted
        })
    }

    /// Notes an answer 401.
    pub(super) fn failed(&self, client: IpAddr) {
        self.with(client, Instant::now(), |bucket| bucket.failures = (bucket.failures - 1.0).max(0.0));
    }

    /// Whether the client has had too many answers 401.
    pub(super) fn is_suspect(&self, client: IpAddr) -> bool {
        self.with(client, Instant::now(), |bucket| bucket.failures < 1.0)
    }

    fn with<T>(&self, client: IpAddr, now: Instant, act: impl FnOnce(&mut Bucket) -> T) -> T {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let client = network_of(client);
        if clients.len() >= self.limits.clients_max && !clients.contains_key(&client) {
            make_room(&mut clients, &self.limits, now);
        }
        let bucket = clients.entry(client).or_insert_with(|| Bucket::full(&self.limits, now));
        bucket.refill(&self.limits, now);
        act(bucket)
    }
}

/// Forgets the clients that have their whole allowance again (forgetting them changes nothing), or all if there
/// are none.
fn make_room(clients: &mut HashMap<IpAddr, Bucket>, limits: &Limits, now: Instant) {
    clients.retain(|_, bucket| {
        bucket.refill(limits, now);
        !bucket.is_full(limits)
    });
    if clients.len() >= limits.clients_max {
        clients.clear();
    }
}

/// An IPv6 client can have any address of its /64, so that is what is counted.
fn network_of(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(a) => IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() & !(u128::from(u64::MAX)))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limits() -> Limits {
        Limits {
            requests_per_s: 1.0,
            requests_burst: 3.0,
            failures_per_s: 0.1,
            failures_burst: 2.0,
            clients_max: 4,
        }
    }

    #[test]
    fn a_burst_is_served_and_then_the_rate_holds() {
        let limiter = Limiter::new(Limits { requests_per_s: 0.0, ..limits() });
        let a = "10.0.0.1".parse().unwrap();
        assert_eq!([0; 4].map(|_| limiter.admit(a)), [true, true, true, false]);
        assert!(limiter.admit("10.0.0.2".parse().unwrap()), "another client is not held back");
        let later = Instant::now() + Duration::from_secs(10);
        let limiter = Limiter::new(limits());
        (0..4).for_each(|_| _ = limiter.admit(a));
        assert!(limiter.with(a, later, |b| b.requests >= 3.0), "the allowance comes back");
    }

    #[test]
    fn failures_are_counted_apart() {
        let limiter = Limiter::new(Limits { failures_per_s: 0.0, ..limits() });
        let a = "10.0.0.1".parse().unwrap();
        limiter.failed(a);
        assert!(!limiter.is_suspect(a));
        limiter.failed(a);
        assert!(limiter.is_suspect(a) && limiter.admit(a));
    }

    #[test]
    fn the_table_is_bounded() {
        let limiter = Limiter::new(limits());
        for n in 0..1000u32 {
            limiter.admit(IpAddr::V4(std::net::Ipv4Addr::from_bits(n)));
        }
        assert!(limiter.clients.lock().unwrap().len() <= 4);
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let of = |text: &str| network_of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }
}
