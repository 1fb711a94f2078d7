//! The node role: brings the node up, in order, then keeps watching what may change under it (addresses, the age
//! of its certificate), and reports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{fs, io};

use async_trait::async_trait;
use cairn_state::reconcile::{Fault, Reconciler};
use cairn_state::{Reporter, SharedStore};

use crate::disks;
use crate::identity::Identity;
use crate::links::{self, Nic, Seen};
use crate::memory;
use crate::paths::{self, Paths};
use crate::pki::{self, Authority};
use crate::screen::{self, Content, Screen};
use crate::secret;

/// How often addresses and certificates are looked at.
const INTERVAL: Duration = Duration::from_secs(3);
/// How often memory is added up.
const MEMORY_INTERVAL: Duration = Duration::from_secs(60);
/// The user that serves the API, and so reads the server certificate's key.
const CONTROLLER: &str = "cairn-controller";

/// A node that is brought up.
pub struct Node {
    paths: Paths,
    identity: Identity,
    authority: Authority,
    secret: Option<String>,
    screen: Screen,
    reporter: Option<Reporter>,
    memory_at: Option<Instant>,
}

impl Node {
    /// Sees to everything the other roles need before they can start: the identity, the certificates, the
    /// administrator's secret, the LAN. `screens` are the terminals to show the console on.
    pub async fn bring_up(paths: Paths, screens: Vec<PathBuf>) -> io::Result<Node> {
        // On the appliance systemd-tmpfiles made it, with the groups that the roles share.
        if !paths.run.exists() {
            paths::make_dir(&paths.run, 0o755)?;
        }
        let identity = Identity::load_or_create(&paths)?;
        fs::write("/proc/sys/kernel/hostname", &identity.name)
            .unwrap_or_else(|e| tracing::warn!(error = %e, "the host name could not be set"));
        let authority = Authority::load_or_create(&paths, &identity.cloud)?;
        let secret = secret::ensure(&paths)?;
        // The group is inherited by the files within, so that the controller may read the key and nobody else.
        paths::make_dir(&paths.handover(), 0o2750)?;
        disks::act::give_group(&paths.handover(), CONTROLLER)?;
        let hash = secret::stored_hash(&paths)?;
        paths::write_file(&paths.handover().join("admin.phc"), hash.as_bytes(), 0o640)?;
        paths::write_file(&paths.run.join("name"), identity.name.as_bytes(), 0o644)?;
        paths::write_file(&paths.run.join("cloud"), identity.cloud.as_bytes(), 0o644)?;
        let mut node = Node {
            paths,
            identity,
            authority,
            secret,
            screen: Screen::new(screens),
            reporter: None,
            memory_at: None,
        };
        if let Err(e) = node.refresh().await {
            tracing::warn!(error = %e, "the node is not wholly up yet");
        }
        Ok(node)
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.identity.name
    }

    /// Keeps the node as it should be, until the process ends.
    pub async fn run(mut self, store: SharedStore) {
        let reporter = Reporter::new(store, self.identity.name.clone(), "node");
        self.reporter = Some(reporter.clone());
        cairn_state::reconcile::run(self, Vec::new(), INTERVAL, reporter).await;
    }

    /// One look: links, certificate, screen, facts.
    async fn refresh(&mut self) -> io::Result<()> {
        let Seen { nics, addresses } = links::look().await.map_err(io::Error::other)?;
        let lan = links::ensure(&self.paths, &nics)?;
        let mut served: Vec<IpAddr> = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        served.extend(&addresses);
        pki::hand_over(&self.paths, &self.authority, &self.identity, &served)?;
        let report = disks::last_report(&self.paths);
        let content = Content {
            name: self.identity.name.clone(),
            addresses,
            ca_sha256: self.authority.fingerprint.clone(),
            secret: self.secret.clone(),
            faults: screen::disk_faults(report.as_ref()),
        };
        self.report(&content, report, lan, nics);
        self.screen.show(&content);
        Ok(())
    }

    fn report(&mut self, content: &Content, disks: Option<disks::Report>, lan: Option<Nic>, nics: Vec<Nic>) {
        let Some(reporter) = &self.reporter else { return };
        reporter.set_fact("addresses", serde_json::json!(content.addresses));
        reporter.set_fact("disks", serde_json::json!(disks.map(|d| d.disks).unwrap_or_default()));
        reporter.set_fact("lan", serde_json::json!(lan));
        reporter.set_fact("nics", serde_json::json!(nics));
        reporter.set_fact("clock_synchronized", serde_json::json!(clock_synchronized()));
        if self.memory_at.is_none_or(|at| at.elapsed() > MEMORY_INTERVAL) {
            reporter.set_fact("memory_kib", serde_json::json!(memory::measure()));
            self.memory_at = Some(Instant::now());
        }
    }
}

#[async_trait]
impl Reconciler for Node {
    fn name(&self) -> &'static str {
        "bring-up"
    }

    async fn pass(&mut self) -> Vec<Fault> {
        match self.refresh().await {
            Ok(()) => Vec::new(),
            Err(e) => vec![Fault { subject: self.identity.name.clone(), error: e.to_string() }],
        }
    }
}

/// Whether systemd-timesyncd has set the clock from the network since power-on.
fn clock_synchronized() -> bool {
    fs::exists("/run/systemd/timesync/synchronized").unwrap_or(false)
}
