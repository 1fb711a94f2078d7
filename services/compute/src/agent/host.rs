//! What this node can host: found out once libvirt answers, reported, and kept up to date.

use std::sync::Arc;
use std::time::Duration;

use cairn_state::{AgentArgs, StoreExt};
use tokio::sync::watch;

use super::domain_xml::Platform;
use super::libvirt::{Libvirt, NodeFacts};
use super::probe;
use crate::model::HostStatus;

/// How often the facts are looked up again; an upgrade of QEMU or a new CPU must show some time.
const REFRESH: Duration = Duration::from_secs(300);
/// How soon again while something fails.
const RETRY: Duration = Duration::from_secs(2);

/// Finds out and reports in the background; the platform is there once it is known.
pub fn follow(args: &AgentArgs, libvirt: Arc<Libvirt>) -> watch::Receiver<Option<Platform>> {
    let (sender, receiver) = watch::channel(None);
    let (store, node) = (args.store.clone(), args.node.clone());
    tokio::spawn(async move {
        let kvm = tokio::task::spawn_blocking(probe::use_kvm).await.unwrap_or(false);
        let mut told = None;
        loop {
            let libvirt = libvirt.clone();
            let found = tokio::task::spawn_blocking(move || libvirt.facts()).await;
            let wait = match found {
                Ok(Ok(facts)) => {
                    sender.send_replace(Some(platform(&facts, kvm)));
                    let status = status(&node, facts, kvm);
                    let ok = told.as_ref() == Some(&status) || store.put_record(&status).await.is_ok();
                    told = ok.then_some(status);
                    if ok { REFRESH } else { RETRY }
                }
                Ok(Err(error)) => {
                    tracing::debug!(%error, "the hypervisor does not answer");
                    RETRY
                }
                Err(_) => RETRY,
            };
            tokio::time::sleep(wait).await;
        }
    });
    receiver
}

fn platform(facts: &NodeFacts, kvm: bool) -> Platform {
    Platform { kvm, machine: facts.machine.clone(), arch: facts.arch.clone() }
}

fn status(node: &str, facts: NodeFacts, kvm: bool) -> HostStatus {
    HostStatus {
        node: node.into(),
        vcpus: facts.vcpus,
        memory_mb: facts.memory_mb,
        hypervisor_version: facts.hypervisor_version,
        accelerator: if kvm { "kvm" } else { "tcg" }.into(),
        cpu_model: probe::cpu_model(),
        arch: facts.arch,
        machine: facts.machine,
        booted_at: probe::booted_at(),
    }
}
