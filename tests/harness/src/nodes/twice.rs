//! Watches that no guest ever runs on two nodes, by the emulators' processes of this kernel, not by what anybody says.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::cloud::Cloud;

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// When a guest's emulator was seen to go from one node, and to come on another.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The moments at which the number of a node's emulators of this guest changed, from the start of the watch: node,
    /// when, and whether it runs there from then on.
    pub changes: Vec<(u8, Duration, bool)>,
    /// Two nodes that had it at once.
    pub twice: Option<(u8, u8)>,
}

/// A watch under way.
pub struct Watch {
    end: Arc<AtomicBool>,
    watcher: JoinHandle<Seen>,
}

impl Watch {
    /// Watches the guest of this server's id.
    pub fn start(cloud: &Cloud, server_id: &str) -> Result<Watch> {
        let mut nodes = BTreeMap::new();
        for number in cloud.numbers() {
            if let Some(pid) = cloud.node(number)?.init_pid() {
                nodes.insert(fs::read_link(format!("/proc/{pid}/ns/pid"))?.into_os_string(), number);
            }
        }
        let end = Arc::new(AtomicBool::new(false));
        let (ended, domain) = (end.clone(), format!("guest=instance-{server_id}"));
        let watcher = std::thread::spawn(move || {
            let since = Instant::now();
            let (mut seen, mut before) = (Seen::default(), Vec::new());
            while !ended.load(Ordering::Relaxed) {
                let now = running(&domain, |namespace| nodes.get(namespace).copied());
                note(&mut seen, &before, &now, since.elapsed());
                before = now;
                std::thread::sleep(LOOK_EVERY);
            }
            seen
        });
        Ok(Watch { end, watcher })
    }

    /// Ends the watch. Fails if the guest ran on two nodes at once.
    pub fn stop(self) -> Result<Seen> {
        self.end.store(true, Ordering::Relaxed);
        let Ok(seen) = self.watcher.join() else { bail!("the watch has failed") };
        if let Some((a, b)) = seen.twice {
            bail!("the guest ran on the nodes {a} and {b} at once: {:?}", seen.changes);
        }
        Ok(seen)
    }
}

fn note(seen: &mut Seen, before: &[u8], now: &[u8], at: Duration) {
    let gone = before.iter().filter(|n| !now.contains(n)).map(|n| (*n, at, false));
    let come = now.iter().filter(|n| !before.contains(n)).map(|n| (*n, at, true));
    seen.changes.extend(gone.chain(come));
    if let [a, b, ..] = now {
        seen.twice = seen.twice.or(Some((*a, *b)));
    }
}

/// The nodes on which an emulator of this domain runs.
fn running(domain: &str, node_of: impl Fn(&std::ffi::OsStr) -> Option<u8>) -> Vec<u8> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    let emulators = processes.filter(|process| is_emulator(process, domain));
    let mut nodes: Vec<u8> =
        emulators.filter_map(|p| node_of(fs::read_link(p.join("ns/pid")).ok()?.as_os_str())).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

fn is_emulator(process: &Path, domain: &str) -> bool {
    let line = fs::read(process.join("cmdline")).unwrap_or_default();
    let mut arguments = line.split(|byte| *byte == 0);
    let emulator =
        arguments.next().is_some_and(|program| String::from_utf8_lossy(program).contains("qemu-system"));
    emulator && arguments.any(|argument| argument.starts_with(domain.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_runs_on_two_nodes_at_once_is_noticed() {
        let (mut seen, at) = (Seen::default(), Duration::from_secs);
        note(&mut seen, &[], &[1], at(0));
        note(&mut seen, &[1], &[], at(1));
        note(&mut seen, &[], &[2], at(2));
        assert_eq!((seen.twice, seen.changes.len()), (None, 3));
        note(&mut seen, &[2], &[1, 2], at(3));
        assert_eq!(seen.twice, Some((1, 2)));
    }
}
