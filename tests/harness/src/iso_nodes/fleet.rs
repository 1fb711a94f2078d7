//! The machines: switched on and off, looked at by their consoles, and asked by the API as the administrator would.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use image_builder::Paths;
use image_builder::cloud::{self, Console};
use image_builder::emulated_cloud::{EmulatedCloud, MAX};
use image_builder::interrupt::Interrupt;
use image_builder::vm::{self, VmOptions};
use serde_json::{Value, json};

use super::{Options, facts};
use crate::client::{Reply, Request};
use crate::cloud::Access;

/// The instance's name and the first three bytes of its LAN.
const INSTANCE: &str = "iso";
const PREFIX: &str = "10.216.0";
/// How often is looked whether a point is reached: the error of a time. Each look costs the nodes some work.
const LOOK: Duration = Duration::from_secs(2);

/// Machines on a LAN of their own, all from the same ISO.
pub struct Fleet<'a> {
    paths: &'a Paths,
    options: &'a Options,
    interrupt: &'a Interrupt,
    dir: PathBuf,
    /// Each node's own: clocks may differ. A password costs a node more than all else that it is asked.
    tokens: RefCell<BTreeMap<u8, String>>,
}

impl<'a> Fleet<'a> {
    /// The machines of this checkout, on or off.
    pub fn new(paths: &'a Paths, options: &'a Options, interrupt: &'a Interrupt) -> Fleet<'a> {
        let dir = paths.workspace().join("target/iso-nodes");
        Fleet { paths, options, interrupt, dir, tokens: RefCell::default() }
    }

    /// Their folder.
    pub fn dir(&self) -> &PathBuf {
        &self.dir
    }

    /// Cuts the power of all, and removes what they had.
    pub fn clean(&self) -> Result<()> {
        self.tokens.borrow_mut().clear();
        EmulatedCloud::there(INSTANCE, PREFIX, &self.dir).clean()
    }

    /// How many were switched on since they were last cleaned away.
    pub fn count(&self) -> u8 {
        let all = EmulatedCloud::new(INSTANCE, PREFIX, &self.dir, MAX);
        let there = all.nodes().iter().filter(|node| node.dir().join("vm.json").exists());
        there.map(image_builder::emulated_node::EmulatedNode::number).max().unwrap_or(0)
    }

    fn first(&self, count: u8) -> EmulatedCloud {
        EmulatedCloud::new(INSTANCE, PREFIX, &self.dir, count)
    }

    /// Switches the first `count` on, those that are not, in one moment; `clock` is what theirs says then. Gives when.
    pub fn switch_on(&self, count: u8, clock: Option<&str>) -> Result<Instant> {
        ensure!(!self.interrupt.seen(), "interrupted");
        let clock = clock.map(vm::clock).transpose()?;
        let nodes = self.first(count);
        let on = Instant::now();
        nodes.start(self.paths, |node| VmOptions {
            memory_mib: self.options.memory,
            cpus: self.options.cpus,
            kernel_args: self.options.kernel_args.clone(),
            clock: clock.clone(),
            ..node.options(self.paths.iso())
        })?;
        Ok(on)
    }

    /// Cuts the power of one; gives when.
    pub fn power_off(&self, number: u8) -> Result<Instant> {
        self.first(MAX).machine(number)?.kill()?;
        Ok(Instant::now())
    }

    /// Waits until this holds, and gives how long that took since `from`.
    pub fn wait(&self, what: &str, from: Instant, holds: impl Fn() -> Result<()>) -> Result<Duration> {
        let since = Instant::now();
        loop {
            ensure!(!self.interrupt.seen(), "interrupted");
            let Err(wrong) = holds() else { return Ok(from.elapsed()) };
            if since.elapsed() > Duration::from_secs(self.options.limit) {
                bail!("no {what} within {} s: {wrong:#}", self.options.limit);
            }
            sleep(LOOK);
        }
    }

    /// Whether the API of any of the first `count` answers.
    pub fn answers(&self, count: u8) -> Result<()> {
        let nodes = self.first(count);
        nodes.check_on()?;
        let consoles = nodes.nodes().iter().filter_map(|node| self.console(node.number()).ok());
        let tried = consoles.map(|console| {
            let ca = nodes.access_dir().join("ca.first.pem");
            let fetched = image_builder::exec::output(
                image_builder::exec::command("curl", ["-sSfk", "--max-time", "5"])
                    .arg(format!("{}/ca.pem", console.url)),
            )?;
            cloud::check_ca(&fetched, &console.ca_sha256)?;
            fs::write(&ca, fetched)?;
            Request::new("GET", &format!("{}/identity/v3", console.url), &ca).answered(200).map(drop)
        });
        tried.fold(Err(anyhow::anyhow!("no node shows an address yet")), Result::or)
    }

    /// Whether the first `count` are one healthy cloud, and each of them says so.
    pub fn is_one_cloud(&self, count: u8) -> Result<()> {
        let nodes = self.first(count);
        nodes.check_on()?;
        let mut clouds = Vec::new();
        for node in nodes.nodes() {
            let overview = self.overview(node.number()).with_context(|| node.name())?;
            facts::check_healthy(&overview, count).with_context(|| node.name())?;
            clouds.push(overview["cloud"].clone());
        }
        clouds.dedup();
        ensure!(clouds.len() == 1, "several clouds: {clouds:?}");
        Ok(())
    }

    /// The cloud as a node sees it.
    pub fn overview(&self, number: u8) -> Result<Value> {
        let reply = self.call("GET", number, "", None)?;
        ensure!(reply.status == 200, "the cloud is not shown: {} {}", reply.status, reply.body);
        reply.json()
    }

    /// The number of the node that leads, as one of them knows it.
    pub fn leader(&self, asked: u8) -> Result<u8> {
        let overview = self.overview(asked)?;
        let leader = overview["leader"].as_str().context("nobody leads")?;
        let leads = |n: &u8| self.shows(*n, &format!("node {leader}")).is_ok();
        (1..=self.count()).find(leads).with_context(|| format!("no screen shows the name {leader}"))
    }

    /// Gives an order to a node, which must be carried out.
    pub fn order(&self, number: u8, what: &str, order: &Value) -> Result<()> {
        let reply = self.call("POST", number, &format!("/{what}"), Some(order))?;
        ensure!(reply.status == 204, "{what} is answered with {}: {}", reply.status, reply.body);
        Ok(())
    }

    /// Gives an order to a node; what status it answers.
    pub fn try_order(&self, number: u8, what: &str, order: &Value) -> Result<u16> {
        Ok(self.call("POST", number, &format!("/{what}"), Some(order))?.status)
    }

    /// The words that a node's screen shows.
    pub fn words(&self, number: u8) -> Result<String> {
        cloud::words_shown(&self.screen(number)?).with_context(|| format!("node {number} shows no words"))
    }

    /// Whether a node's screen has shown this since it was switched on.
    pub fn shows(&self, number: u8, text: &str) -> Result<()> {
        ensure!(self.screen(number)?.contains(text), "node {number} does not show «{text}»");
        Ok(())
    }

    fn screen(&self, number: u8) -> Result<String> {
        self.first(MAX).machine(number)?.serial_log()
    }

    fn console(&self, number: u8) -> Result<Console> {
        Console::parse(&self.screen(number)?).with_context(|| format!("node {number} shows no address yet"))
    }

    /// How the cloud is reached, from the consoles if that was not read yet.
    fn access(&self) -> Result<Access> {
        let first = self.first(1);
        Access::load(&first.access_dir()).or_else(|_| {
            self.first(self.count()).write_access()?;
            Access::load(&first.access_dir())
        })
    }

    /// A call of a node's own API.
    fn call(&self, method: &str, number: u8, path: &str, body: Option<&Value>) -> Result<Reply> {
        let (access, url) = (self.access()?, self.console(number)?.url);
        let known = self.tokens.borrow().get(&number).cloned();
        let token = known.map_or_else(|| token(&access, &url), Ok)?;
        let request = Request::new(method, &format!("{url}/appliance/v1/cluster{path}"), &access.ca());
        let request = request.token(&token);
        let reply = body.into_iter().fold(request, Request::json).send()?;
        let mut tokens = self.tokens.borrow_mut();
        if reply.status == 401 {
            tokens.remove(&number)
        } else {
            tokens.insert(number, token)
        };
        Ok(reply)
    }
}

/// A new token of the administrator, from the node at this address.
fn token(access: &Access, url: &str) -> Result<String> {
    let user = json!({
        "name": access.get("OS_USERNAME"),
        "domain": {"name": access.get("OS_USER_DOMAIN_NAME")},
        "password": access.get("OS_PASSWORD"),
    });
    let project = json!({
        "name": access.get("OS_PROJECT_NAME"),
        "domain": {"name": access.get("OS_PROJECT_DOMAIN_NAME")},
    });
    let asked = json!({"auth": {
        "identity": {"methods": ["password"], "password": {"user": user}},
        "scope": {"project": project},
    }});
    let reply = Request::new("POST", &format!("{url}/identity/v3/auth/tokens"), &access.ca())
        .json(&asked)
        .answered(201)?;
    Ok(reply.header("x-subject-token")?.to_owned())
}
