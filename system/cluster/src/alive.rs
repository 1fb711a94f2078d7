//! Whether a node is in touch with its cloud: a leased record that all see, and a file by which the node's own roles
//! know it even when they reach nobody.
//!
//! The lease is renewed by the group's leader with a majority behind it, so a node that renews is one that others can
//! reach. Times are chosen so that a node which cannot renew has stopped what others may take over well before they
//! do: it stops by itself after [`FENCE_AFTER`], others begin at [`TAKE_OVER_AFTER`], both counted from the last
//! renewal. Only ages on one clock are compared, never the clocks of two nodes.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use cairn_state::Record;
use cairn_wire::remote::PeerId;
use serde::{Deserialize, Serialize};

/// How long the lease lasts.
pub const LEASE: Duration = Duration::from_secs(10);
/// How often it is renewed.
pub const RENEW: Duration = Duration::from_secs(2);
/// After how long without a renewal a node stops what others may take over.
pub const FENCE_AFTER: Duration = Duration::from_secs(15);
/// How long after the last renewal others may take over.
pub const TAKE_OVER_AFTER: Duration = Duration::from_secs(30);
/// What a lease's end leaves of [`TAKE_OVER_AFTER`]: so long must [`Alive`] be seen absent, by the clock of who looks,
/// before the node's work is taken over.
pub const ABSENT_FOR: Duration = Duration::from_secs(20);

/// A node in touch with the cloud: the record is there as long as its lease is. Its writer is the node's controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alive {
    /// The node's name.
    pub node: String,
    /// Its identity.
    pub id: PeerId,
    /// The run of its controller: another after each restart.
    pub run: String,
}

impl Record for Alive {
    const KIND: &'static str = "cluster/alive";

    fn id(&self) -> String {
        self.node.clone()
    }
}

/// The time since power-on, sleep included (`CLOCK_BOOTTIME`), which all processes of a node have in common.
pub fn since_boot() -> io::Result<Duration> {
    let text = fs::read_to_string("/proc/uptime")?;
    let first = text.split_whitespace().next().and_then(seconds);
    first.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/uptime says no time"))
}

/// Leaves word for the node's roles that the lease was renewed; `asked` is when that was asked for, by
/// [`since_boot`], since from then on it may have counted.
pub fn note(file: &Path, asked: Duration) -> io::Result<()> {
    let beside = file.with_extension("new");
    fs::write(&beside, format!("{:.2}\n", asked.as_secs_f64()))?;
    fs::rename(beside, file)
}

/// How long ago the lease was last renewed; `None` if it never was since power-on, or that cannot be known.
pub fn since_renewal(file: &Path) -> Option<Duration> {
    let renewed = seconds(fs::read_to_string(file).ok()?.trim())?;
    since_boot().ok().map(|now| now.saturating_sub(renewed))
}

fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_stopped_before_others_begin() {
        assert!(RENEW * 4 < LEASE && LEASE < FENCE_AFTER && FENCE_AFTER + LEASE < TAKE_OVER_AFTER);
        assert_eq!(LEASE + ABSENT_FOR, TAKE_OVER_AFTER);
    }

    #[test]
    fn the_age_of_the_last_renewal_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("alive");
        assert_eq!(since_renewal(&file), None);
        let now = since_boot().unwrap();
        note(&file, now.saturating_sub(Duration::from_secs(5))).unwrap();
        let age = since_renewal(&file).unwrap();
        assert!(age >= Duration::from_millis(4900) && age < Duration::from_secs(65), "{age:?}");
        for junk in ["", "soon", "-5", "NaN", "1e400"] {
            fs::write(&file, junk).unwrap();
            assert_eq!(since_renewal(&file), None, "{junk}");
        }
    }
}
