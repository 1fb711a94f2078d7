//! The emulated nodes of one instance, all on one LAN and all from the same image: started together, each found again by
//! its folder, switched off together.
//!
//! Nothing is told to any of them. What it leaves for clients is in the first one's folder.

use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, bail, ensure};

use crate::cloud::{self, Console};
use crate::emulated_node::EmulatedNode;
use crate::paths::Paths;
use crate::vm::{self, Vm, VmOptions};

/// The most nodes of one instance.
pub const MAX: u8 = 9;

/// The nodes of an instance, in the order of their numbers.
pub struct EmulatedCloud {
    nodes: Vec<EmulatedNode>,
}

impl EmulatedCloud {
    /// The first `count` nodes (at least one), whether they are there or not. See [`EmulatedNode::new`].
    pub fn new(instance: &str, prefix: &str, dir: &Path, count: u8) -> Self {
        let numbered = |number| EmulatedNode::numbered(instance, prefix, dir, number);
        Self { nodes: (1..=count.clamp(1, MAX)).map(numbered).collect() }
    }

    /// The first node, and those of the others that were started once and not cleaned away.
    pub fn there(instance: &str, prefix: &str, dir: &Path) -> Self {
        let mut all = Self::new(instance, prefix, dir, MAX);
        all.nodes.retain(|node| node.number() == 1 || node.dir().exists());
        all
    }

    /// All of them.
    pub fn nodes(&self) -> &[EmulatedNode] {
        &self.nodes
    }

    /// The node of this number.
    pub fn node(&self, number: u8) -> Result<&EmulatedNode> {
        let found = self.nodes.iter().find(|node| node.number() == number);
        found.with_context(|| format!("there is no node {number}"))
    }

    /// The machine of a node that is on.
    pub fn machine(&self, number: u8) -> Result<Vm> {
        self.node(number)?.attach().with_context(|| format!("node {number} is not on"))
    }

    /// Where its access files are left.
    pub fn access_dir(&self) -> PathBuf {
        self.nodes.first().map(|node| node.dir().to_owned()).unwrap_or_default()
    }

    /// Whether every node is on.
    pub fn all_on(&self) -> bool {
        self.nodes.iter().all(|node| node.attach().is_some())
    }

    /// Switches on all that are not on yet, in the same moment, each as `machine` says.
    pub fn start(&self, paths: &Paths, machine: impl Fn(&EmulatedNode) -> VmOptions) -> Result<()> {
        let off: Vec<_> = self.nodes.iter().filter(|node| node.attach().is_none()).collect();
        off.iter().try_for_each(|node| node.make_lan())?;
        let wanted: Vec<VmOptions> = off.into_iter().map(machine).collect();
        all(&wanted, |options| Vm::boot(paths, options).map(drop))
    }

    /// Whether the cloud is reached: each node's API answers, under the same CA, or the node shows that it waits to be
    /// let in. Leaves the access files; the error says what is missing yet.
    pub fn check_api(&self) -> Result<()> {
        let (consoles, here) = (self.consoles()?, self.write_access()?);
        let access = self.nodes.first().context("no nodes")?;
        for there in consoles.iter().filter(|console| !console.waits()) {
            let shown =
                Console::parse(&there.text).with_context(|| format!("{} has no address yet", there.name))?;
            ensure!(shown.ca_sha256 == here.ca_sha256, "{} is of another cloud", there.name);
            access.check_identity(&shown.url).with_context(|| there.name.clone())?;
        }
        Ok(())
    }

    /// Leaves the access files of the first node that is on and is of a cloud; its API must answer.
    pub fn write_access(&self) -> Result<Console> {
        let consoles = self.consoles()?;
        let access = self.nodes.first().context("no nodes")?;
        let here = consoles.iter().find(|console| Console::parse(&console.text).is_some());
        let here = here.context("no node has shown its address on its console yet")?;
        // Only the founder's shows the password; the address to use is that of the node that is looked at last.
        let others = consoles.iter().filter(|console| console.name != here.name);
        let screens: String = others.chain([here]).map(|console| console.text.as_str()).collect();
        access.check_api(&screens).with_context(|| here.name.clone())?;
        Console::parse(&screens).context("no node has shown its address")
    }

    /// Which nodes wait to be let in, each with the words it shows.
    pub fn waiting(&self) -> Result<Vec<(String, String)>> {
        let consoles = self.consoles()?.into_iter();
        Ok(consoles.filter_map(|console| Some((console.name, cloud::words_shown(&console.text)?))).collect())
    }

    /// Fails if a machine has ended, with what it said last.
    pub fn check_on(&self) -> Result<()> {
        for node in &self.nodes {
            if node.attach().is_none() {
                bail!("{} went off; its console ends with:\n{}", node.name(), vm::last_words(node.dir()));
            }
        }
        Ok(())
    }

    /// The ends of all consoles, for an error.
    pub fn last_words(&self) -> String {
        let words = |node: &EmulatedNode| {
            format!("{}'s console ends with:\n{}", node.name(), vm::last_words(node.dir()))
        };
        self.nodes.iter().map(words).collect::<Vec<_>>().join("\n")
    }

    /// Presses every power button, and takes the LAN down.
    pub fn stop(&self) -> Result<()> {
        all(&self.nodes, EmulatedNode::switch_off)?;
        self.nodes.first().map_or(Ok(()), EmulatedNode::lan_down)
    }

    /// Cuts the power of all and removes what they had, and their LAN.
    pub fn clean(&self) -> Result<()> {
        self.nodes.iter().try_for_each(EmulatedNode::forget)?;
        self.nodes.first().map_or(Ok(()), EmulatedNode::remove_lan)
    }

    /// What the nodes that are on have shown since they were switched on.
    fn consoles(&self) -> Result<Vec<Shown>> {
        let on = self.nodes.iter().filter_map(|node| Some((node.name(), node.attach()?)));
        on.map(|(name, vm)| Ok(Shown { name, text: vm.serial_log()? })).collect()
    }
}

/// What a node's console has shown.
struct Shown {
    name: String,
    text: String,
}

impl Shown {
    fn waits(&self) -> bool {
        cloud::words_shown(&self.text).is_some()
    }
}

/// Does the same to all at the same time; the first failure is told when all are done.
fn all<T: Sync>(of: &[T], act: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let acts: Vec<_> = of.iter().map(|one| scope.spawn(|| act(one))).collect();
        let done: Vec<_> = acts.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.into_iter().try_for_each(|one| one.unwrap_or_else(|_| bail!("a thread ended before its time")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn nodes_that_were_started_once_are_found_again() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("node3")).unwrap();
        let numbers = |cloud: EmulatedCloud| cloud.nodes.iter().map(EmulatedNode::number).collect::<Vec<_>>();
        assert_eq!(numbers(EmulatedCloud::there("t", "192.0.2", dir.path())), [1, 3]);
        assert_eq!(numbers(EmulatedCloud::new("t", "192.0.2", dir.path(), 2)), [1, 2]);
        assert_eq!(numbers(EmulatedCloud::new("t", "192.0.2", dir.path(), 0)), [1]);
    }

    #[test]
    fn no_two_nodes_share_a_disk_a_card_or_a_tap() {
        let cloud = EmulatedCloud::new("t", "192.0.2", Path::new("/t"), MAX);
        let options = cloud.nodes.iter().map(|node| node.options("/iso".into()));
        let cards: Vec<_> = options.map(|o| (o.dir, o.nics[0].mac.clone(), o.nics[0].tap.clone())).collect();
        for (n, one) in cards.iter().enumerate() {
            assert!(cards[..n].iter().all(|other| other.0 != one.0 && other.1 != one.1 && other.2 != one.2));
        }
    }

    #[test]
    fn every_failure_is_told() {
        assert!(all(&[1, 2, 3], |n| if *n == 2 { bail!("two") } else { Ok(()) }).is_err());
        assert!(all(&[1, 3], |_| Ok(())).is_ok());
    }
}
