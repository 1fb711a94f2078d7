//! Writing what the agent reports to the store: only what differs from what the store has, and its heartbeat.

use std::collections::{BTreeMap, BTreeSet};

use cairn_state::{AgentArgs, Fault, Mirror, Record, Reporter, SharedStore, StoreExt};
use jiff::Timestamp;
use serde_json::json;

use super::mirrors::Mirrors;
use super::names;
use super::nft::Rules;
use super::status::Findings;
use super::tunnel::End;
use crate::model::status::HEARTBEAT_S;
use crate::model::{HostStatus, NetworkStatus, Phase, PortPrepared, RouterStatus};

/// Where reports go.
pub struct Reports {
    node: String,
    store: SharedStore,
    reporter: Reporter,
    mirrors: Mirrors,
    started_at: Timestamp,
    last: Option<HostStatus>,
}

impl Reports {
    /// From this agent.
    pub fn new(args: &AgentArgs, mirrors: Mirrors) -> Reports {
        Reports {
            node: args.node.clone(),
            store: args.store.clone(),
            reporter: args.reporter.clone(),
            mirrors,
            started_at: Timestamp::now(),
            last: None,
        }
    }

    /// What an operator can see of the node, so that nothing is left without being noticed.
    pub fn facts(&self, findings: &Findings<'_>, rules: &Rules) {
        let ours = |prefix: &str| -> Vec<&String> {
            let links = findings.observed.links.keys();
            links.filter(|n| n.starts_with(prefix) && names::is_our_link(n)).collect()
        };
        let spaces: Vec<_> = findings.observed.spaces.keys().collect();
        let all = findings.observed.links.keys().filter(|n| names::is_our_link(n)).count();
        let (chains, sets) = rules.count();
        self.reporter.set_fact("bridges", json!(ours("br")));
        self.reporter.set_fact("taps", json!(ours("tap")));
        self.reporter.set_fact("tunnels", json!(ours("vx")));
        self.reporter.set_fact("links", json!(all));
        self.reporter.set_fact("namespaces", json!(spaces));
        self.reporter.set_fact("rules", json!({"chains": chains, "sets": sets}));
        self.reporter.set_fact("physical_networks", json!(findings.physical_networks()));
        self.reporter.set_fact("from_store", json!(self.mirrors.synced()));
    }

    /// Writes all statuses that differ, and the heartbeat if it is due.
    pub async fn send(
        &mut self,
        findings: &Findings<'_>,
        answers: impl Fn(&str) -> bool,
        error: Option<String>,
    ) -> Option<Fault> {
        // Until the store has been read, it is not known what it is told already, nor what is true.
        if !self.mirrors.synced() || !self.mirrors.reports_synced() {
            return None;
        }
        match self.write(findings, answers, error).await {
            Ok(()) => None,
            Err(e) => Some(Fault::new("reports", e)),
        }
    }

    async fn write(
        &mut self,
        findings: &Findings<'_>,
        answers: impl Fn(&str) -> bool,
        error: Option<String>,
    ) -> Result<(), cairn_state::StoreError> {
        let node = &self.node;
        let ports =
            said(self.mirrors.port_status.all().iter().filter(|s| s.host == *node).map(|s| (&s.id, s.phase)));
        let routers = self.mirrors.router_status.all();
        let routers = said(routers.iter().filter(|s| s.host == *node).map(|s| (&s.router, s.phase)));
        put(&self.store, &self.mirrors.port_status, findings.ports(&ports)).await?;
        put(&self.store, &self.mirrors.network_status, findings.networks(answers)).await?;
        put(&self.store, &self.mirrors.router_status, findings.routers(&routers)).await?;
        put(&self.store, &self.mirrors.port_prepared, findings.prepared()).await?;
        // A report that crossed with the removal of what it was about would stay for ever.
        let world = findings.world;
        let ports: BTreeSet<_> = world.ports.iter().map(|p| p.id.as_str()).collect();
        let mine = |host: &str| host == self.node;
        clean(&self.store, &self.mirrors.port_status, |s| mine(&s.host) && !ports.contains(s.id.as_str()))
            .await?;
        let is_left = |s: &NetworkStatus| mine(&s.host) && !world.networks.contains_key(&s.network);
        clean(&self.store, &self.mirrors.network_status, is_left).await?;
        let prepared = &findings.desired.prepared;
        let is_left = |s: &PortPrepared| mine(&s.host) && !prepared.contains_key(&s.id);
        clean(&self.store, &self.mirrors.port_prepared, is_left).await?;
        let is_left = |s: &RouterStatus| mine(&s.host) && !world.routers.contains_key(&s.router);
        clean(&self.store, &self.mirrors.router_status, is_left).await?;
        self.heartbeat(findings.physical_networks(), findings.end, error).await
    }

    async fn heartbeat(
        &mut self,
        physical_networks: Vec<String>,
        end: Option<End>,
        error: Option<String>,
    ) -> Result<(), cairn_state::StoreError> {
        let now = Timestamp::now();
        let status = HostStatus {
            node: self.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            heartbeat_at: now,
            physical_networks,
            tunnel_ip: end.map(|end| end.ip),
            tunnel_mtu: end.map_or(0, |end| end.mtu),
            error,
        };
        let due = self.last.as_ref().is_none_or(|last| {
            let age = now.as_second() - last.heartbeat_at.as_second();
            let same = HostStatus { heartbeat_at: last.heartbeat_at, ..status.clone() } == *last;
            !same || !(0..HEARTBEAT_S * 2 / 3).contains(&age)
        });
        if due {
            self.store.put_record(&status).await?;
            self.last = Some(status);
        }
        Ok(())
    }
}

fn said<'a>(reports: impl Iterator<Item = (&'a String, Phase)>) -> BTreeMap<String, Phase> {
    reports.map(|(id, phase)| (id.clone(), phase)).collect()
}

async fn put<R: Record + PartialEq>(
    store: &SharedStore,
    known: &Mirror<R>,
    reports: Vec<R>,
) -> Result<(), cairn_state::StoreError> {
    for report in reports {
        if known.get(&report.id()).as_deref() != Some(&report) {
            store.put_record(&report).await?;
        }
    }
    Ok(())
}

/// Removes reports that are about nothing any more.
async fn clean<R: Record>(
    store: &SharedStore,
    known: &Mirror<R>,
    is_left: impl Fn(&R) -> bool,
) -> Result<(), cairn_state::StoreError> {
    for report in known.all().into_iter().filter(|r| is_left(r)) {
        store.delete_record::<R>(&report.id()).await?;
    }
    Ok(())
}
