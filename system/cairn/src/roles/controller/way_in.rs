//! How a node of no cloud comes to one: it looks around and does what [`founder`] decides, until it may found one or
//! was let in by one.
//!
//! Thin: the decision is elsewhere and pure. Nothing is kept here; whoever is interrupted begins again.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use cairn_cluster::Belonging;
use cairn_cluster::discovery::{Announcement, Phase, Sighting};
use cairn_cluster::founder::{self, Decision, Own};
use cairn_node::told::{self, Joining};
use cairn_wire::remote::{Endpoint, PeerId, Versions};
use tokio::time::Instant;

use super::ask::Asker;
use super::given::Given;
use super::surroundings::{Surroundings, news};

/// How long to wait before the next look when there is nothing to do by oneself.
const LOOK: Duration = Duration::from_secs(1);

/// How long a node without an address waits for one before it looks for others nevertheless.
const LINK_MAX: Duration = Duration::from_secs(60);

/// How a node came to a cloud.
pub enum WayIn {
    /// It may found one.
    Found,
    /// It was let in.
    Joined(Box<Belonging>),
}

/// Looks for a way in until there is one.
pub async fn find(around: &Surroundings, given: &Given, endpoint: &Endpoint) -> Result<WayIn> {
    let own = Own::Alone { since_ms: 0 };
    let mut seeker = Seeker { around, given, own, asked: String::new(), said: None };
    // Said before it is waited for: two that wait on a link without addresses see each other.
    seeker.announce()?;
    on_a_link(around, given.key.id()).await;
    let started = Instant::now();
    let now_ms = || u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let asker = Asker::new(around, given, endpoint);
    let mut sightings = around.sight.seen();
    loop {
        seeker.announce()?;
        let seen = sightings.borrow_and_update().clone();
        let announced: Vec<_> = seen.iter().map(|s| s.announcement.clone()).collect();
        let wait = match founder::decide(given.key.id(), &seeker.own, &announced, now_ms()) {
            Decision::Wait { ms } => Duration::from_millis(ms),
            Decision::Claim => {
                seeker.becomes(Own::Claiming { since_ms: now_ms(), cloud: given.cloud.clone() })
            }
            Decision::Withdraw => seeker.becomes(Own::Alone { since_ms: now_ms() }),
            Decision::Found => return Ok(WayIn::Found),
            Decision::Ask { cloud, nodes } => {
                seeker.becomes(Own::Alone { since_ms: now_ms() });
                seeker.asked.clone_from(&cloud);
                seeker.announce()?;
                if let Some(belonging) = asker.ask(&cloud, &whom(&seen, &nodes)).await {
                    return Ok(WayIn::Joined(Box::new(belonging)));
                }
                LOOK
            }
            Decision::Choose { clouds } => {
                seeker.shows(&format!(
                    "Several clouds are here ({}): a token says which to join.",
                    clouds.join(", ")
                ));
                LOOK
            }
            Decision::GiveWay { .. } | Decision::Stay => LOOK,
        };
        // A wait of nothing would spin; the least that clocks tell apart is enough.
        let wait = wait.max(Duration::from_millis(1));
        drop(tokio::time::timeout(wait, news(&mut sightings)).await);
    }
}

/// Waits until the link carries something (an address came, or somebody is seen), for some time: a node that listens
/// while a switch still holds its port back would take itself for the first.
async fn on_a_link(around: &Surroundings, me: PeerId) {
    let (mut addresses, mut sightings) = (around.addresses.clone(), around.sight.seen());
    let carries = async {
        tokio::select! {
            _ = addresses.wait_for(|addresses| !addresses.is_empty()) => {}
            _ = sightings.wait_for(|seen| seen.iter().any(|s| s.announcement.node != me)) => {}
        }
    };
    // Without any link there is nobody to wait for.
    drop(tokio::time::timeout(LINK_MAX, carries).await);
}

/// Those of the sightings that are of these nodes.
fn whom(seen: &Arc<Vec<Sighting>>, nodes: &[PeerId]) -> Vec<Sighting> {
    seen.iter().filter(|s| nodes.contains(&s.announcement.node)).cloned().collect()
}

struct Seeker<'a> {
    around: &'a Surroundings,
    given: &'a Given,
    own: Own,
    /// The cloud it asks; empty if it only looks for one.
    asked: String,
    said: Option<Announcement>,
}

impl Seeker<'_> {
    /// Is this from now on; looks again at once.
    fn becomes(&mut self, own: Own) -> Duration {
        self.own = own;
        Duration::ZERO
    }

    /// Says what this node is, if that is not what it said last.
    fn announce(&mut self) -> Result<()> {
        let (phase, cloud) = match &self.own {
            Own::Claiming { cloud, .. } => (Phase::Founding, cloud.clone()),
            _ => (Phase::Asking, self.asked.clone()),
        };
        let announcement = Announcement {
            node: self.given.key.id(),
            name: self.given.key.name(),
            cloud,
            phase,
            founded_s: 0,
            members: 0,
            in_use: false,
            versions: Versions::OURS,
        };
        if self.said.as_ref() != Some(&announcement) {
            self.around.sight.announce(&announcement)?;
            self.said = Some(announcement);
        }
        Ok(())
    }

    fn shows(&self, state: &str) {
        let joining = Joining { state: state.to_owned(), ..Joining::default() };
        if let Err(e) = told::tell_joining(&self.around.paths, &joining) {
            tracing::warn!(error = %e, "the screen cannot be told how joining stands");
        }
    }
}
