//! A group of Cairn's nodes, each a process of this program, as the bench drives it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// A group. Its processes end with it.
pub struct Cairn {
    pub nodes: Vec<Node>,
}

/// A node, and what is said with it.
pub struct Node {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Node {
    fn start(directory: PathBuf, place: usize) -> Result<Node> {
        std::fs::create_dir_all(&directory)?;
        let mut child = Command::new(std::env::current_exe()?)
            .arg("store-node")
            .arg(directory)
            .arg(place.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdin = child.stdin.take().context("no input")?;
        let lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        Ok(Node { child, stdin, lines })
    }

    /// The next line it says.
    async fn hear(&mut self) -> Result<String> {
        self.lines.next_line().await?.context("a node has ended; its words are above")
    }

    /// Tells it something, and hears the answer.
    pub async fn ask(&mut self, line: &str) -> Result<String> {
        self.stdin.write_all(format!("{line}\n").as_bytes()).await?;
        self.hear().await
    }

    pub fn pid(&self) -> Result<u32> {
        self.child.id().context("it has ended")
    }

    /// As `kill -9` does.
    pub async fn kill(&mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }
}

impl Cairn {
    /// Starts so many with their files in this folder, and makes them one group of voters.
    pub async fn start(directory: &Path, count: usize) -> Result<Cairn> {
        let (mut nodes, mut hellos) = (Vec::new(), Vec::new());
        for place in 0..count {
            let mut node = Node::start(directory.join(format!("cairn-{place}")), place)?;
            hellos.push(node.hear().await?);
            nodes.push(node);
        }
        let mut numbers = Vec::new();
        for node in &mut nodes {
            numbers.push(node.ask(&hellos.join(" ")).await?);
        }
        let mut cairn = Cairn { nodes };
        for (place, (number, hello)) in numbers.iter().zip(&hellos).enumerate().skip(1) {
            let address = hello.split_whitespace().nth(1).context("no address")?;
            cairn.nodes[0].ask(&format!("admit {number} {place} {address}")).await?;
        }
        if count > 1 {
            cairn.nodes[0].ask(&format!("voters {}", numbers.join(" "))).await?;
        }
        Ok(cairn)
    }

    /// Which of them leads.
    pub async fn leader(&mut self) -> Result<usize> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            for (place, node) in self.nodes.iter_mut().enumerate() {
                if node.ask("leads").await? == "true" {
                    return Ok(place);
                }
            }
            ensure!(Instant::now() < deadline, "no leader within a minute");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Kills the one of a group of one, and starts it anew with its file; says how long that took.
    pub async fn restart(&mut self, directory: &Path) -> Result<Duration> {
        for mut node in self.nodes.drain(..) {
            node.kill().await?;
        }
        let begun = Instant::now();
        let mut node = Node::start(directory.join("cairn-0"), 0)?;
        let hello = node.hear().await?;
        node.ask(&hello).await?;
        self.nodes.push(node);
        Ok(begun.elapsed())
    }
}
