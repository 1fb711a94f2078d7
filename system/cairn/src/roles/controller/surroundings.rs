//! What is around a controller: its folders, its address, the links it finds others on, the group's times. Given from
//! outside, so that several controllers can meet in one process.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use cairn_cluster::discovery::{Announcement, Discovery, Sighting};
use cairn_node::{Paths, links};
use cairn_state::raft::Timing;
use cairn_wire::remote::PORT;
use tokio::sync::watch;

/// How often the node's addresses are looked at.
const ADDRESSES_INTERVAL: Duration = Duration::from_secs(3);

/// How a node is seen by others on its links, and sees them.
pub trait Sight: Send + Sync + 'static {
    /// Says this from now on.
    fn announce(&self, announcement: &Announcement) -> Result<()>;
    /// Answers for the cloud's name, or does not any more.
    fn answer_for_cloud(&self, answer: bool) -> Result<()>;
    /// Who is seen.
    fn seen(&self) -> watch::Receiver<Arc<Vec<Sighting>>>;
}

impl Sight for Discovery {
    fn announce(&self, announcement: &Announcement) -> Result<()> {
        Ok(Discovery::announce(self, announcement)?)
    }

    fn answer_for_cloud(&self, answer: bool) -> Result<()> {
        Ok(Discovery::answer_for_cloud(self, answer)?)
    }

    fn seen(&self) -> watch::Receiver<Arc<Vec<Sighting>>> {
        Discovery::seen(self)
    }
}

/// Waits until something else is seen; for ever once nothing can be seen any more.
pub async fn news(seen: &mut watch::Receiver<Arc<Vec<Sighting>>>) {
    if seen.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// What is around a controller.
pub struct Surroundings {
    /// Its folders.
    pub paths: Paths,
    /// Where it listens for other nodes.
    pub listen: SocketAddr,
    /// The node's own addresses, as they change.
    pub addresses: watch::Receiver<Vec<IpAddr>>,
    /// Who else is there.
    pub sight: Arc<dyn Sight>,
    /// The times of the store's group.
    pub timing: Timing,
}

impl Surroundings {
    /// Those of the node that this process runs on.
    pub fn of_this_machine(paths: Paths) -> Result<Surroundings> {
        let discovery =
            Discovery::start(PORT, Arc::new(is_ours)).context("discovery could not be started")?;
        let (told, addresses) = watch::channel(Vec::new());
        tokio::spawn(async move {
            loop {
                match links::look().await {
                    Ok(seen) => {
                        told.send_if_modified(|last| {
                            let news = *last != seen.addresses;
                            *last = seen.addresses;
                            news
                        });
                    }
                    Err(e) => tracing::warn!(error = %e, "the node's addresses cannot be read"),
                }
                tokio::time::sleep(ADDRESSES_INTERVAL).await;
            }
        });
        Ok(Surroundings {
            paths,
            listen: SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), PORT),
            addresses,
            sight: Arc::new(discovery),
            timing: Timing::default(),
        })
    }

    /// Where other nodes can reach this one.
    pub fn reachable_at(&self) -> Vec<SocketAddr> {
        let port = self.listen.port();
        self.addresses.borrow().iter().map(|ip| SocketAddr::new(*ip, port)).collect()
    }
}

/// Whether a link is the machine's own: the LAN's bridge, or one with a device behind it. Guests' are neither.
fn is_ours(link: &str) -> bool {
    link == links::LAN || Path::new("/sys/class/net").join(link).join("device").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_links_are_not_announced_on() {
        assert!(is_ours("lan0"));
        assert!(!is_ours("lo") && !is_ours("tap-0a0b0c") && !is_ours("../../net/lo"));
    }
}
