//! The node role: brings the node up, in order, then keeps watching what may change under it (addresses, what the
//! controller says of the cloud), and reports.

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
use crate::screen::{self, Content, Screen};
use crate::told::{self, Standing};
use crate::{cloud, handover, secret};

/// How often addresses and the cloud's files are looked at.
const INTERVAL: Duration = Duration::from_secs(3);
/// How often while the node is of no cloud yet, and a person may be waiting.
const EAGER: Duration = Duration::from_millis(500);
/// How often memory is added up.
const MEMORY_INTERVAL: Duration = Duration::from_secs(60);

/// A node that is brought up.
pub struct Node {
    paths: Paths,
    identity: Identity,
    secret: Option<String>,
    screen: Screen,
    reporter: Option<Reporter>,
    memory_at: Option<Instant>,
    entered: bool,
}

impl Node {
    /// Sees to everything the other roles need before they can start: the identity, the administrator's secret, what
    /// is handed over, the LAN. `screens` are the terminals to show the console on.
    pub async fn bring_up(paths: Paths, screens: Vec<PathBuf>) -> io::Result<Node> {
        // On the appliance systemd-tmpfiles made it, with the groups that the roles share.
        if !paths.run.exists() {
            paths::make_dir(&paths.run, 0o755)?;
        }
        let identity = Identity::load_or_create(&paths)?;
        fs::write("/proc/sys/kernel/hostname", &identity.name)
            .unwrap_or_else(|e| tracing::warn!(error = %e, "the host name could not be set"));
        let before = cloud::entered(&paths)?;
        let secret = secret::ensure(&paths)?;
        handover::hand_over(&paths, &identity)?;
        paths::write_file(&paths.run.join("name"), identity.name.as_bytes(), 0o644)?;
        // Agents start without a controller, in the cloud that they were of.
        if let Some(cloud) = &before {
            paths::write_file(&paths.run.join("cloud"), cloud.as_bytes(), 0o644)?;
        }
        let mut node = Node {
            paths,
            identity,
            secret,
            screen: Screen::new(screens),
            reporter: None,
            memory_at: None,
            entered: before.is_some(),
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
        // There is nobody to report to before there is a cloud.
        while !self.entered {
            tokio::time::sleep(EAGER).await;
            if let Err(e) = self.refresh().await {
                tracing::warn!(error = %e, "the node is not wholly up yet");
            }
        }
        let reporter = Reporter::new(store, self.identity.name.clone(), "node");
        self.reporter = Some(reporter.clone());
        cairn_state::reconcile::run(self, Vec::new(), INTERVAL, reporter).await;
    }

    /// One look: links, cloud, screen, facts.
    async fn refresh(&mut self) -> io::Result<()> {
        let Seen { nics, addresses } = links::look().await.map_err(io::Error::other)?;
        let lan = links::ensure(&self.paths, &nics)?;
        let report = disks::last_report(&self.paths);
        let mut faults = screen::disk_faults(report.as_ref());
        let fingerprint = told::fingerprint(&self.paths);
        // All that the screen shows of the cloud is there before the node is of it.
        let cloud = told::cloud(&self.paths).filter(|_| fingerprint.is_some());
        let entered = cloud
            .as_deref()
            .map(|cloud| cloud::enter(&self.paths, cloud, told::gave_up(&self.paths).as_deref()));
        if let Some(Err(why)) = &entered {
            faults.push(why.clone());
        }
        let standing = told::standing(&self.paths);
        if standing == Some(Standing::Joined) {
            self.secret = None;
            handover::forget_secret(&self.paths)?;
        }
        let content = Content {
            name: self.identity.name.clone(),
            addresses,
            ca_sha256: fingerprint.unwrap_or_default(),
            secret: self.secret.clone().filter(|_| standing == Some(Standing::Founded)),
            joining: told::joining(&self.paths).unwrap_or_default(),
            faults,
        };
        self.report(&content, report, lan, nics);
        self.screen.show(&content);
        // After the screen: the controller waits for this before its API answers.
        match (cloud, entered) {
            (Some(cloud), Some(Ok(()))) => self.announce(&cloud),
            (_, Some(Err(why))) => Err(io::Error::other(why)),
            _ => Ok(()),
        }
    }

    /// Tells the other roles which cloud this is.
    fn announce(&mut self, cloud: &str) -> io::Result<()> {
        let file = self.paths.run.join("cloud");
        if self.entered && fs::read_to_string(&file).is_ok_and(|said| said == cloud) {
            return Ok(());
        }
        paths::write_file(&file, cloud.as_bytes(), 0o644)?;
        handover::hand_over(&self.paths, &self.identity)?;
        self.entered = true;
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
