//! The tour: what a new user does on the first day, by the real command line, then all of it undone; at the end
//! the cloud must be as empty as before.

mod guest;
mod inventory;
mod steps;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use image_builder::Paths;

use crate::client::Client;
use crate::cloud::Access;
pub use guest::Guest;
pub use inventory::Inventory;
pub use steps::{Scene, names};

/// The tour's options.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The folder with the cloud's `openrc`.
    #[arg(long)]
    pub cloud: Option<PathBuf>,
    /// The guests to take the tour with.
    #[arg(long, value_enum, default_values = ["tiny"])]
    pub guest: Vec<Guest>,
    /// Leave everything standing at the end, to look at.
    #[arg(long)]
    pub keep: bool,
}

/// Takes the tour.
pub fn run(paths: &Paths, options: &Options) -> Result<()> {
    let dir = options.cloud.clone().unwrap_or_else(|| paths.cloud());
    let client = Client::new(paths, Access::load(&dir)?)?;
    for guest in &options.guest {
        take(paths, &client, *guest, options.keep)
            .with_context(|| format!("the tour with the {} guest", guest.name()))?;
    }
    Ok(())
}

/// Takes the tour with one kind of guest.
pub fn take(paths: &Paths, client: &Client, guest: Guest, keep: bool) -> Result<()> {
    let before = Inventory::before(client).context("looking at what is there before")?;
    let mut scene = Scene::new(paths, client, guest)?;
    let outcome = walk(&mut scene);
    if keep {
        return outcome;
    }
    let undone = step("everything deleted", || scene.tear_down());
    outcome?;
    undone?;
    step("nothing is left", || before.wait_same(client))
}

fn walk(scene: &mut Scene) -> Result<()> {
    step("image", || scene.image())?;
    step("networks and router", || scene.networks())?;
    step("security group, keypair, flavor", || scene.rules_and_key())?;
    step("server create --wait", || scene.server(names::SERVER_A))?;
    step("floating IP", || scene.floating_ip(names::SERVER_A))?;
    step("ssh through the floating IP", || scene.login(names::SERVER_A))?;
    step("console log", || scene.console(names::SERVER_A))?;
    step("volume: attach, mkfs, write, detach", || scene.volume_write())?;
    step("a second server", || scene.server(names::SERVER_B))?;
    step("its floating IP and ssh", || {
        scene.floating_ip(names::SERVER_B)?;
        scene.login(names::SERVER_B)
    })?;
    step("the volume read back there", || scene.volume_read())
}

/// Does one step and says how long it took.
pub fn step<T>(name: &str, body: impl FnOnce() -> Result<T>) -> Result<T> {
    let since = Instant::now();
    let done = body().with_context(|| name.to_owned());
    let mark = if done.is_ok() { "ok  " } else { "FAIL" };
    eprintln!("  {mark} {name:<44} {:6.1} s", since.elapsed().as_secs_f64());
    done
}
