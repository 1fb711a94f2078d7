//! The nodes as one cloud: a client for each, which node a server is on, and waiting until all is whole again.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use image_builder::Paths;
use serde_json::Value;

use crate::client::Client;
use crate::cloud::Access;
use crate::dev::{self, Cluster, Node};

use super::third::Third;

/// How long the cloud may take until it is whole again.
const WHOLE_MAX: Duration = Duration::from_secs(600);

/// The nodes of a cloud, and who they are.
pub struct Cloud {
    cluster: Cluster,
    clients: BTreeMap<u8, Client>,
    names: BTreeMap<String, u8>,
    binary: PathBuf,
    witness: RefCell<Option<Third>>,
}

impl Cloud {
    /// Starts the nodes, and a witness if its program is given, and waits until they are one whole cloud.
    pub fn start(paths: &Paths, count: u8, binary: PathBuf, witness: Option<PathBuf>) -> Result<Cloud> {
        let cluster = Cluster::new(paths, dev::INSTANCE, count);
        cluster.start(&binary)?;
        let access = Access::load(cluster.node(1)?.dir())?;
        let (clients, names) = (BTreeMap::new(), BTreeMap::new());
        let mut cloud = Cloud { cluster, clients, names, binary, witness: RefCell::default() };
        for number in 1..=count {
            let node = cloud.cluster.node(number)?;
            let url = format!("https://{}/identity/v3", node.address());
            cloud.clients.insert(number, Client::new(paths, access.with("OS_AUTH_URL", &url))?);
            cloud.names.insert(name_of(node)?, number);
        }
        if let Some(program) = witness {
            let node = cloud.node(1)?;
            let third = Third::start(&program, node.dir(), node.gateway())?;
            third.give_to(&cloud)?;
            *cloud.witness.borrow_mut() = Some(third);
        }
        cloud.wait_whole()?;
        Ok(cloud)
    }

    /// Does this to the witness.
    pub fn with_witness(&self, act: impl FnOnce(&mut Third) -> Result<()>) -> Result<()> {
        act(self.witness.borrow_mut().as_mut().context("there is no witness")?)
    }

    /// Stops the nodes.
    pub fn stop(&self) -> Result<()> {
        self.cluster.stop()
    }

    /// Starts those that do not run.
    pub fn start_again(&self) -> Result<()> {
        self.cluster.start(&self.binary)
    }

    /// The nodes' numbers.
    pub fn numbers(&self) -> impl Iterator<Item = u8> + '_ {
        self.clients.keys().copied()
    }

    /// A node.
    pub fn node(&self, number: u8) -> Result<&Node> {
        self.cluster.node(number)
    }

    /// A client of this node's API.
    pub fn client(&self, number: u8) -> Result<&Client> {
        self.clients.get(&number).with_context(|| format!("there is no node {number}"))
    }

    /// The number of another node than this.
    pub fn other_than(&self, number: u8) -> Result<u8> {
        self.numbers().find(|n| *n != number).context("there is no other node")
    }

    /// The name by which a node is known in the cloud.
    pub fn name(&self, number: u8) -> Result<&str> {
        let found = self.names.iter().find(|(_, n)| **n == number);
        found.map(|(name, _)| name.as_str()).with_context(|| format!("there is no node {number}"))
    }

    /// The node that a server is on, as this node's API says.
    pub fn node_of(&self, asked: u8, server: &str) -> Result<u8> {
        let host = self.client(asked)?.field(&["server", "show", server], "OS-EXT-SRV-ATTR:host")?;
        self.names.get(&host).copied().with_context(|| format!("{server} is on {host}, which is no node"))
    }

    /// The node that leads the store.
    pub fn leader(&self) -> Result<u8> {
        let status = self.cluster.running()?.status()?;
        let leads = |name: &str| status.lines().any(|l| l.contains(name) && l.contains("leads"));
        let found = self.names.iter().find(|(name, _)| leads(name));
        found.map(|(_, number)| *number).context("nobody leads")
    }

    /// Waits until every node serves and votes, and every volume has all its copies.
    pub fn wait_whole(&self) -> Result<()> {
        let since = Instant::now();
        while let Err(lack) = self.whole() {
            if since.elapsed() > WHOLE_MAX {
                return Err(lack.context(format!("the cloud is not whole after {:?}", since.elapsed())));
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        Ok(())
    }

    fn whole(&self) -> Result<()> {
        let status = self.node(1)?.status()?;
        for name in self.names.keys() {
            let Some(line) = status.lines().find(|l| l.contains(name.as_str()) && l.contains("member"))
            else {
                bail!("{name} is no member");
            };
            ensure!(
                line.contains("leads") || line.matches("yes").count() == 2,
                "{name} does not vote: {line}"
            );
        }
        if self.witness.borrow().is_some() {
            let votes = |l: &&str| l.contains("the witness") && l.matches("yes").count() == 2;
            ensure!(status.lines().any(|l| votes(&l)), "the witness does not vote, or does not answer");
        }
        for number in self.numbers() {
            let services =
                self.client(number)?.json(&["compute", "service", "list", "--service", "nova-compute"])?;
            let up = |s: &&Value| s["State"] == "up";
            let count = services.as_array().map_or(0, |all| all.iter().filter(up).count());
            ensure!(count == self.clients.len(), "of {} compute services {count} are up", self.clients.len());
        }
        let client = self.client(1)?;
        let (code, body) = client.http("GET", "/appliance/v1/status", Some(&client.token()?), None)?;
        ensure!(code == 200, "the status answers {code}");
        let status: Value = serde_json::from_str(&body)?;
        let thin = &status["redundancy"]["thin"];
        ensure!(thin.as_array().is_some_and(Vec::is_empty), "volumes lack copies: {thin}");
        Ok(())
    }
}

fn name_of(node: &Node) -> Result<String> {
    let name = image_builder::exec::output(node.command("cat")?.arg("/run/cairn/name"))?;
    Ok(name.trim().to_owned())
}
