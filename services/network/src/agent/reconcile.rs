//! The pass: look, compare, act, report. It ties the parts together and decides nothing itself.
//!
//! Order matters and is kept here: a tap goes before its rules do, and comes after them.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use async_trait::async_trait;
use cairn_state::{AgentArgs, Fault, Reconciler};

use super::act::{Failures, Kernel};
use super::announce;
use super::desired::{Desired, Here, Uplink, World, desired};
use super::fence::Fence;
use super::mirrors::Mirrors;
use super::nft::{Rules, Table, Trust};
use super::plan::{Observed, additions, redirections, removals};
use super::report::Reports;
use super::security::{GROUP_TABLE, GUARD_TABLE, TUNNEL_TABLE};
use super::servers::Servers;
use super::status::Findings;
use super::sys::TapOptions;
use super::tunnel::End;
use super::{router, sysctl};

const NODE_TABLES: &[Table] = &[("bridge", GUARD_TABLE), ("inet", GROUP_TABLE), ("inet", TUNNEL_TABLE)];
/// How often a pass looks again after it acted: the kernel takes routes away with the address or link they need.
const ROUNDS: u32 = 2;
const ROUTER_TABLES: &[Table] = &[("ip", router::TABLE)];

/// Makes the node's network match the store.
pub struct NetworkReconciler {
    node: String,
    mirrors: Mirrors,
    tap: TapOptions,
    fence: Fence,
    /// This node's side of its tunnels, as it was last seen: a LAN that loses its address for a moment cuts nothing.
    end: Option<End>,
    kernel: Option<Kernel>,
    rules: Rules,
    servers: Servers,
    reports: Reports,
    /// The namespaces that were set up: which one, and whether it forwards.
    prepared: BTreeMap<String, (u64, bool)>,
}

impl NetworkReconciler {
    /// Over these mirrors.
    pub fn new(args: &AgentArgs, mirrors: Mirrors, tap: TapOptions, fence: Fence) -> NetworkReconciler {
        NetworkReconciler {
            node: args.node.clone(),
            tap,
            fence,
            end: None,
            kernel: None,
            rules: Rules::new(Path::new(&args.run_dir)),
            servers: Servers::new(mirrors.metadata.clone()),
            reports: Reports::new(args, mirrors.clone()),
            prepared: BTreeMap::new(),
            mirrors,
        }
    }

    async fn reconcile(&mut self) -> io::Result<Vec<Fault>> {
        let mut kernel = match self.kernel.take() {
            Some(kernel) => kernel,
            None => Kernel::open(self.tap).await?,
        };
        // A socket that failed is opened anew by the next pass: it is put back only after this one went well.
        let faults = self.pass_on(&mut kernel).await?;
        self.kernel = Some(kernel);
        Ok(faults)
    }

    async fn pass_on(&mut self, kernel: &mut Kernel) -> io::Result<Vec<Fault>> {
        let fresh = self.mirrors.synced();
        let world = self.mirrors.world();
        let here = self.here(kernel, fresh).await?;
        let mut want = desired(&world, &here);
        let mut observed = kernel.observe(want.spaces.keys()).await?;

        // What is elsewhere now.
        let moved = if fresh { redirections(&want, &observed) } else { Vec::new() };
        let mut failures = kernel.act(&moved).await;

        // What goes: links before the rules that held them.
        self.servers.retain(&want.spaces);
        let goes = removals(&want, &observed, fresh);
        failures.extend(kernel.act(&goes).await);
        for space in observed.spaces.keys().filter(|s| fresh && !want.spaces.contains_key(*s)) {
            self.rules.forget(Some(space))?;
        }
        let unfiltered = self.filter(&mut want, fresh).await;

        // What comes: namespaces, with their rules, then links.
        let created = self.spaces(kernel, &want, &observed, fresh, &mut failures).await;
        if !(moved.is_empty() && goes.is_empty()) || created {
            observed = kernel.observe(want.spaces.keys()).await?;
        }
        for _ in 0..ROUNDS {
            let comes = additions(&want, &observed);
            if comes.is_empty() {
                break;
            }
            failures.extend(kernel.act(&comes).await);
            observed = kernel.observe(want.spaces.keys()).await?;
        }
        self.welcome(kernel, &world, &want, &observed).await;
        self.serve(&want, &mut failures).await;
        Ok(self.report(&world, &want, &observed, &failures, unfiltered.as_deref()).await)
    }

    /// What decides beside the records.
    async fn here(&mut self, kernel: &Kernel, fresh: bool) -> io::Result<Here> {
        let before = self.end.or_else(|| self.mirrors.end_of(&self.node));
        self.end = kernel.tunnel_end(before.map(|end| end.ip)).await?.or(before);
        let tunnel = self.end.map(|end| end.ip);
        Ok(Here { node: self.node.clone(), tunnel, fenced: self.fence.is_down(fresh) })
    }

    /// Tells the LAN of guests that have come to this node: its switches still think them elsewhere. (Tunnels go by
    /// the records.) A port is new here until this node has reported it.
    async fn welcome(&self, kernel: &mut Kernel, world: &World, want: &Desired, observed: &Observed) {
        let on_the_lan =
            |bridge: &str| want.bridges.get(bridge).is_some_and(|b| !matches!(b.uplink, Uplink::None));
        let is_new = |id: &str| self.mirrors.port_status.get(id).is_none_or(|s| s.host != self.node);
        let is_up = |device: &str| observed.links.get(device).is_some_and(|l| l.up);
        for (id, here) in want.ports.iter().filter(|(_, w)| w.tap && on_the_lan(&w.bridge)) {
            let Some(port) = world.port(id).filter(|_| is_new(id) && is_up(&here.device)) else { continue };
            let Ok(mac) = port.mac.parse() else { continue };
            let frames = port.fixed_ips.iter().flat_map(|f| announce::frames(mac, f.ip)).collect();
            if let Err(error) = kernel.send_into(&here.bridge, frames).await {
                tracing::warn!(%error, port = port.id, "a port that has come was not announced");
            }
        }
    }

    /// Applies the node's rules. While they cannot be, no guest's port comes or stays up: why is returned.
    async fn filter(&mut self, want: &mut Desired, fresh: bool) -> Option<String> {
        let watched = want.bridges.values().any(|b| b.filtered);
        let why = if watched && !sysctl::can_filter() {
            Some("the kernel's br_netfilter is not loaded: load that module".to_owned())
        } else {
            let trust = if fresh { Trust::Fresh } else { Trust::Stale };
            let switched = sysctl::filter_only_on_request();
            let applied = self.rules.ensure(None, &want.ruleset, NODE_TABLES, trust).await;
            switched.and(applied).err().map(|e| e.to_string())
        }?;
        let filtered = |bridge: &str| want.bridges.get(bridge).is_some_and(|b| b.filtered);
        let held: Vec<_> =
            want.taps.iter().filter(|(_, t)| filtered(&t.bridge)).map(|(n, _)| n.clone()).collect();
        for tap in held {
            want.taps.entry(tap).and_modify(|t| t.up = false);
        }
        Some(why)
    }

    /// Makes and sets up namespaces, and applies the rules of routers. True if one was made.
    async fn spaces(
        &mut self,
        kernel: &mut Kernel,
        want: &Desired,
        observed: &Observed,
        fresh: bool,
        failures: &mut Failures,
    ) -> bool {
        let mut created = false;
        for (name, space) in &want.spaces {
            let new = !observed.spaces.contains_key(name);
            created |= new;
            let made = if new { kernel.add_space(name).await } else { Ok(()) };
            let done = match made {
                Ok(()) => self.prepare(name, space.forwarding).await,
                failed => failed,
            };
            let done = match (&space.ruleset, done) {
                (Some(text), Ok(())) => {
                    let trust = if fresh { Trust::Fresh } else { Trust::Stale };
                    self.rules.ensure(Some(name), text, ROUTER_TABLES, trust).await.map(drop)
                }
                (_, done) => done,
            };
            if let Err(e) = done {
                failures.insert(name.clone(), e.to_string());
            }
        }
        self.prepared.retain(|name, _| want.spaces.contains_key(name));
        created
    }

    async fn prepare(&mut self, name: &str, forwarding: bool) -> io::Result<()> {
        let now = (super::netns::inode(name)?, forwarding);
        if self.prepared.get(name) != Some(&now) {
            sysctl::space(name, forwarding).await?;
            self.prepared.insert(name.to_owned(), now);
        }
        Ok(())
    }

    async fn serve(&mut self, want: &Desired, failures: &mut Failures) {
        for (name, space) in &want.spaces {
            if let Err(e) = self.servers.ensure(name, space).await {
                failures.entry(name.clone()).or_insert_with(|| e.to_string());
            }
        }
    }

    async fn report(
        &mut self,
        world: &World,
        want: &Desired,
        observed: &Observed,
        failures: &Failures,
        unfiltered: Option<&str>,
    ) -> Vec<Fault> {
        let node = self.node.clone();
        let end = self.end;
        let findings = Findings { node: &node, world, desired: want, observed, failures, end, unfiltered };
        let mut faults = want.faults.clone();
        faults.extend(failures.iter().map(|(subject, error)| Fault::new(subject, error)));
        faults.extend(unfiltered.map(|why| Fault::new("security groups", why)));
        let error = faults.first().map(|f| format!("{}: {}", f.subject, f.error));
        self.reports.facts(&findings, &self.rules);
        let servers = &self.servers;
        faults.extend(self.reports.send(&findings, |space| servers.answers(space), error).await);
        faults
    }
}

#[async_trait]
impl Reconciler for NetworkReconciler {
    fn name(&self) -> &'static str {
        "network"
    }

    async fn pass(&mut self) -> Vec<Fault> {
        self.reconcile().await.unwrap_or_else(|e| vec![Fault::new("the node's network", e)])
    }
}
