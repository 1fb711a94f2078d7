//! Bad input of every kind: each must be refused clearly and change nothing.
//!
//! One theme a file. What needs a look inside the node is done on a development node alone, and named as left out
//! elsewhere. No test may leave anything behind, not even when it fails.

mod disks;
mod guest;
mod input;
mod race;
mod space;
mod tokens;
mod volumes;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};
use clap::Args;
use image_builder::{Paths, exec};

use crate::client::Client;
use crate::cloud::Access;
use crate::dev::{self, Node};
use crate::tour::{Guest, Inventory, Scene, step};

/// Options of the refusal tests.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The folder with the cloud's `openrc`.
    #[arg(long)]
    pub cloud: Option<PathBuf>,
}

/// Runs the tests.
pub fn run(paths: &Paths, options: &Options) -> Result<()> {
    let dir = options.cloud.clone().unwrap_or_else(|| paths.cloud());
    let client = Client::new(paths, Access::load(&dir)?)?;
    let bench = Bench::new(paths)?;
    let before = Inventory::before(&client)?;
    input(paths, &client, &bench)?;
    tokens(&client)?;
    let node = development_node(paths, &client);
    match &node {
        Some(node) => disks(&client, &bench, node)?,
        None => eprintln!("  not a development node: its disks are neither looked at nor filled"),
    }
    with_guests(paths, &client, &bench, node.as_ref())?;
    step("nothing has changed", || before.wait_same(&client))
}

fn input(paths: &Paths, client: &Client, bench: &Bench) -> Result<()> {
    step("a wrong CA", || input::wrong_ca(paths, client, bench))?;
    step("a JSON bomb, a huge body", || input::bombs(client, bench))?;
    step("qcow2: corrupt, with a backing file, 10 TiB", || input::images(client, bench))?;
    step("a subnet that overlaps", || input::overlap(client))
}

fn tokens(client: &Client) -> Result<()> {
    step("a token that is not one, and one that was revoked", || tokens::made_up_and_revoked(client))?;
    step("a token that ends with its application credential", || tokens::expired(client))
}

fn disks(client: &Client, bench: &Bench, node: &Node) -> Result<()> {
    step("foreign disks", || disks::untouched(node))?;
    space::uploads(client, bench, node)
}

fn with_guests(paths: &Paths, client: &Client, bench: &Bench, node: Option<&Node>) -> Result<()> {
    let mut scene = Scene::new(paths, client, Guest::Tiny)?;
    let outcome = step("a guest's image", || scene.image())
        .and_then(|()| race::last_vcpu(client))
        .and_then(|()| node.map_or(Ok(()), |node| guest::writes(client, bench, node, &mut scene)));
    let undone = step("everything deleted", || scene.tear_down());
    outcome.and(undone)
}

/// The development node, if it is the cloud that is tested.
fn development_node(paths: &Paths, client: &Client) -> Option<Node> {
    let node = Node::new(paths, dev::INSTANCE);
    let url = format!("https://{}", node.address());
    (client.access().base_url() == url && node.init_pid().is_some()).then_some(node)
}

/// A folder for bad files, and the image's own qemu-img to make them with.
struct Bench {
    root: PathBuf,
    work: PathBuf,
}

impl Bench {
    fn new(paths: &Paths) -> Result<Bench> {
        let work = paths.workspace().join("target/refusals");
        fs::create_dir_all(&work)?;
        Ok(Bench { root: paths.root_tree(), work })
    }

    fn qemu_img(&self, args: &[&str]) -> Result<()> {
        let libraries = self.root.join("usr/lib/x86_64-linux-gnu");
        let loader = self.root.join("usr/lib64/ld-linux-x86-64.so.2");
        let mut command = Command::new(loader);
        command.arg("--library-path").arg(libraries).arg(self.root.join("usr/bin/qemu-img"));
        exec::run(command.args(args).current_dir(&self.work))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }

    fn file(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }
}

/// A refusal must say one of these.
fn says(said: &str, any: &[&str]) -> Result<()> {
    let lower = said.to_lowercase();
    ensure!(any.iter().any(|word| lower.contains(word)), "the refusal does not say why: {said}");
    Ok(())
}
