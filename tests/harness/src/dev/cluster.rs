//! Several development nodes on one LAN: started together, each found again by its folder.

use std::path::Path;

use anyhow::{Context, Error, Result, anyhow};
use image_builder::Paths;

use super::{Node, wait_shown, wait_up};

/// The most nodes of one instance.
const MAX: u8 = 9;

/// The nodes of an instance.
pub struct Cluster {
    nodes: Vec<Node>,
}

impl Cluster {
    /// The first `count` nodes (at least one), whether they are there or not.
    pub fn new(paths: &Paths, instance: &str, count: u8) -> Cluster {
        Cluster { nodes: (1..=count.max(1)).map(|n| Node::numbered(paths, instance, n)).collect() }
    }

    /// The first node, and those of the others that were started once and not cleaned away.
    pub fn there(paths: &Paths, instance: &str) -> Cluster {
        let mut all = Cluster::new(paths, instance, MAX);
        all.nodes.retain(|node| node.number() == 1 || node.dir().exists());
        all
    }

    /// The node of this number, counted from 1.
    pub fn node(&self, number: u8) -> Result<&Node> {
        let found = self.nodes.iter().find(|node| node.number() == number);
        found.with_context(|| format!("there is no node {number}"))
    }

    /// The first one that runs.
    pub fn running(&self) -> Result<&Node> {
        self.nodes.iter().find(|node| node.ended().is_none()).context("no node runs")
    }

    /// Starts all that do not run yet, at once, and waits until each one's API answers; leaves the access files in
    /// the first one's folder.
    pub fn start(&self, binary: &Path) -> Result<()> {
        for node in &self.nodes {
            node.start(binary)?;
        }
        self.nodes.iter().try_for_each(wait_up)?;
        let first = self.node(1)?;
        // Only the founder's shows the secret; the first one's shows the address to use.
        let mut screens = String::new();
        for node in self.nodes.iter().rev() {
            screens += &wait_shown(node)?;
        }
        first.write_access(&screens)
    }

    /// If one that was started has ended: which, and what it said last.
    pub fn ended(&self) -> Option<Error> {
        self.nodes.iter().find_map(|node| {
            let last = node.ended()?;
            let logs = node.dir().join("log");
            Some(anyhow!("the node {} ended: {last}; its logs are in {}", node.number(), logs.display()))
        })
    }

    /// Stops all; their disks stay.
    pub fn stop(&self) -> Result<()> {
        self.nodes.iter().rev().try_for_each(Node::stop)
    }

    /// Removes what the stopped nodes had.
    pub fn clean(&self) -> Result<()> {
        // The first one's folder holds the others'.
        self.nodes.iter().rev().try_for_each(Node::clean)
    }

    /// What to tell the person.
    pub fn greeting(&self) -> String {
        self.nodes.first().map_or_else(String::new, Node::greeting)
    }
}
