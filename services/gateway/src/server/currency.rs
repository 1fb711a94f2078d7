//! Whether this node's replica of the store shows what is current, and what a request gets when it does not: one that
//! only reads is answered from the replica and told that the answer may be old, any other is refused.
//!
//! A request waits for as long as a cloud needs to choose another leader, and no longer. Once that was too short,
//! nobody waits: one request at a time finds out whether the majority is back.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cairn_state::LocalStore;
use http::{HeaderMap, HeaderValue, Method, header};

use crate::error::ApiError;

/// How long a request waits for what is current. A lost leader is replaced well within.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long one request waits for it when those before it have waited in vain.
const PROBE: Duration = Duration::from_secs(1);
/// Where tokens are given out: no change of the store, and nothing can be read without one.
const TOKENS: &str = "/identity/v3/auth/tokens";
/// Says for how many seconds an answer may be old; `unknown` if this process has never seen what is current.
const STALE: &str = "x-cairn-stale";

/// How what a request reads stands to what is current.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    /// All that was acknowledged anywhere before the request came is to be seen.
    Current,
    /// It is as it was so long ago, or at any time before if that is not known.
    Stale(Option<Duration>),
}

/// Knows the replica.
pub(super) struct Currency {
    store: LocalStore,
    known: Mutex<Known>,
    probe: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// When it was last known to be current.
    seen: Option<Instant>,
    /// Whether who waited last did so in vain.
    lost: bool,
}

impl Currency {
    pub(super) fn new(store: LocalStore) -> Currency {
        Currency { store, known: Mutex::default(), probe: tokio::sync::Mutex::default() }
    }

    /// How a request of this method and path may be answered, or that it may not.
    pub(super) async fn admit(&self, method: &Method, path: &str) -> Result<View, ApiError> {
        match self.look().await {
            View::Stale(_) if !only_reads(method, path) || !self.has_state() => {
                tracing::warn!(%method, path, "a request was refused: the cloud's majority cannot be reached");
                Err(ApiError::unavailable(
                    "The cloud has lost its majority, or is choosing a leader, so nothing can be changed and \
                     nothing was. Try again; if this lasts, \"cairn status\" on a node says who is missing.",
                ))
            }
            view => Ok(view),
        }
    }

    async fn look(&self) -> View {
        let lost = self.known().lost;
        let (_turn, patience) = match (lost, self.probe.try_lock()) {
            (false, _) => (None, PATIENCE),
            (true, Ok(turn)) => (Some(turn), PROBE),
            (true, Err(_)) => return self.stale(),
        };
        let asked = Instant::now();
        let current = matches!(tokio::time::timeout(patience, self.store.catch_up()).await, Ok(Ok(())));
        self.learn(current, asked);
        if current { View::Current } else { self.stale() }
    }

    fn learn(&self, current: bool, asked: Instant) {
        let mut known = self.lock();
        match (known.lost, current) {
            (false, false) => tracing::warn!("the cloud's majority cannot be reached: reads are of what was"),
            (true, true) => tracing::info!("the cloud's majority is reached again"),
            _ => {}
        }
        known.lost = !current;
        if current {
            known.seen = known.seen.max(Some(asked));
        }
    }

    fn stale(&self) -> View {
        View::Stale(self.known().seen.map(|seen| seen.elapsed()))
    }

    fn known(&self) -> Known {
        *self.lock()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A replica that has not got the cloud's state yet has nothing to answer with, old or not.
    fn has_state(&self) -> bool {
        self.store.status().is_ok_and(|status| status.applied > 0)
    }
}

fn only_reads(method: &Method, path: &str) -> bool {
    let is_read = *method == Method::GET || *method == Method::HEAD || *method == Method::OPTIONS;
    is_read || (*method == Method::POST && path.trim_end_matches('/') == TOKENS)
}

/// Tells the client that an answer may be old (RFC 7234, section 5.5.1, and for how many seconds).
pub(super) fn mark(headers: &mut HeaderMap, view: View) {
    let View::Stale(age) = view else { return };
    headers.insert(header::WARNING, HeaderValue::from_static("110 - \"Response is Stale\""));
    let age = age.and_then(|age| HeaderValue::from_str(&age.as_secs().to_string()).ok());
    headers.insert(STALE, age.unwrap_or(HeaderValue::from_static("unknown")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_nothing_is_a_read() {
        for (method, path, reads) in [
            (Method::GET, "/compute/v2.1/servers", true),
            (Method::HEAD, "/image", true),
            (Method::POST, "/identity/v3/auth/tokens", true),
            (Method::DELETE, "/identity/v3/auth/tokens", false),
            (Method::POST, "/compute/v2.1/servers", false),
            (Method::PUT, "/volume/v3/x", false),
        ] {
            assert_eq!(only_reads(&method, path), reads, "{method} {path}");
        }
    }

    #[test]
    fn an_old_answer_says_so() {
        let headers = |view| {
            let mut headers = HeaderMap::new();
            mark(&mut headers, view);
            headers.get(STALE).map(|v| v.to_str().unwrap_or_default().to_owned())
        };
        assert_eq!(headers(View::Current), None);
        assert_eq!(headers(View::Stale(None)).as_deref(), Some("unknown"));
        assert_eq!(headers(View::Stale(Some(Duration::from_secs(9)))).as_deref(), Some("9"));
    }
}
