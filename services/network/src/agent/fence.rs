//! Whether this node must keep out of what others may have taken over by now.
//!
//! A node's place in the cloud is renewed every few seconds. One whose renewals do not come through any more cannot
//! know whether it is the only one that still works or the only one that does not: it steps back by its own clock,
//! well before anybody else steps in. [`judge`] decides and is pure.
//!
//! It must never take a node for safe because nothing is known of it, nor let it come back before the agent has
//! read what was decided in the meantime.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// How long ago the node's place in the cloud was last renewed, by a clock that runs during sleep too; `None` if it
/// never was since the node started.
pub type SinceRenewal = Arc<dyn Fn() -> Option<Duration> + Send + Sync>;

/// How old the last renewal may be.
pub const RENEWED_WITHIN: Duration = Duration::from_secs(15);
/// How long renewals must have come through again before the node steps forward.
const STEADY_FOR: Duration = Duration::from_secs(3);
/// How often it is looked at between passes.
const LOOK: Duration = Duration::from_millis(500);

/// What is known of the node's standing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Standing {
    /// Nothing has been judged yet.
    judged: bool,
    fenced: bool,
    /// Since when renewals have been coming through again.
    steady_since: Option<Instant>,
}

/// The next standing. A node that was not fenced stays so while renewals come; one that was needs them to have come
/// for a while, and the store to have been read.
fn judge(was: Standing, since: Option<Duration>, synced: bool, now: Instant) -> Standing {
    if since.is_none_or(|since| since > RENEWED_WITHIN) {
        return Standing { judged: true, fenced: true, steady_since: None };
    }
    if !was.judged || !was.fenced {
        return Standing { judged: true, fenced: false, steady_since: None };
    }
    let begun = was.steady_since.unwrap_or(now);
    let back = synced && now.duration_since(begun) >= STEADY_FOR;
    Standing { judged: true, fenced: !back, steady_since: Some(begun) }
}

/// Keeps watch over the node's standing. Cheap to clone.
#[derive(Clone)]
pub struct Fence {
    since: Option<SinceRenewal>,
    standing: Arc<Mutex<Standing>>,
}

impl Fence {
    /// By these renewals; without any, the node is on its own and nobody takes anything over.
    pub fn new(since: Option<SinceRenewal>) -> Fence {
        Fence { since, standing: Arc::default() }
    }

    /// Whether the node is fenced now. `synced`: whether the records are the store's own.
    pub fn is_down(&self, synced: bool) -> bool {
        let Some(since) = &self.since else { return false };
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        *standing = judge(*standing, since(), synced, Instant::now());
        standing.fenced
    }

    /// A counter that grows when the standing changes. The task ends with the receiver.
    pub fn changes(&self, synced: impl Fn() -> bool + Send + 'static) -> watch::Receiver<u64> {
        let (changes, receiver) = watch::channel(0);
        let fence = self.clone();
        if fence.since.is_some() {
            tokio::spawn(async move {
                let mut last = None;
                while !changes.is_closed() {
                    let now = Some(fence.is_down(synced()));
                    if std::mem::replace(&mut last, now) != now {
                        changes.send_modify(|n| *n += 1);
                    }
                    tokio::time::sleep(LOOK).await;
                }
            });
        }
        receiver
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Option<Duration> {
        Some(Duration::from_secs(n))
    }

    #[test]
    fn a_restarted_agent_of_a_node_in_good_standing_changes_nothing() {
        assert!(!judge(Standing::default(), seconds(1), false, Instant::now()).fenced);
    }

    #[test]
    fn a_node_of_which_nothing_is_known_keeps_out() {
        assert!(judge(Standing::default(), None, true, Instant::now()).fenced);
    }

    #[test]
    fn it_steps_back_at_once_and_forward_after_a_while() {
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let good = judge(Standing::default(), seconds(15), true, at(0));
        assert!(!good.fenced);
        let fenced = judge(good, seconds(16), true, at(1));
        assert!(fenced.fenced);
        let renewed = judge(fenced, seconds(0), true, at(2));
        assert!(renewed.fenced, "once is not steady");
        assert!(judge(judge(renewed, None, true, at(4)), seconds(0), true, at(6)).fenced, "it begins anew");
        assert!(judge(renewed, seconds(0), false, at(9)).fenced, "what was decided meanwhile is not known");
        assert!(!judge(renewed, seconds(0), true, at(5)).fenced);
    }
}
