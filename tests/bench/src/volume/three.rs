//! Three replicas, each in a storage process of its own with mutual TLS between them, beside Ceph with three OSDs.
//!
//! Both run all the time, and idle while it is the other's turn. Cairn's CPU is that of the three processes, of which
//! one serves the guest; Ceph's is compared with and without its client, which is in QEMU on a real node.

use std::path::Path;

use anyhow::Result;
use image_builder::paths::ensure_dir;
use image_builder::stage::{Step, say};

use super::ceph::Ceph;
use super::load::{Load, Op};
use super::side::{Server, settle};
use super::{Bench, Figures, Measure, line, middle};

const REPLICAS: usize = 3;

/// Both sides, at work.
struct Both {
    cairn: Server,
    ceph: Ceph,
}

impl Bench<'_> {
    pub(super) fn three_replicas(&self, root: &Path) -> Result<()> {
        ensure_dir(self.files.clone())?;
        let mut both = self.step("three replicas: both sides start", |step| {
            step.note("Cairn");
            let cairn = Server::of_replicas(&self.files, self.size, REPLICAS)?;
            Ok(Both { cairn, ceph: Ceph::start(root, &self.files.join("ceph"), self.size, step)? })
        })?;
        self.step("three replicas: each disk is written in full", |step| {
            self.once(&mut both, Load::FILL, step)
        })?;
        self.measures().try_for_each(|measure| self.measure_three(&mut both, measure))?;
        both.cairn.end()
    }

    fn measure_three(&self, both: &mut Both, measure: &Measure) -> Result<()> {
        let rounds = self.options.rounds;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        self.step(&format!("three replicas: {}", measure.name), |step| {
            if measure.warm && measure.load.op == Op::Read {
                self.once(both, Load { op: Op::Read, ..Load::FILL }, step)?;
            }
            for round in 1..=rounds {
                step.note(&format!("round {round} of {rounds}: Cairn"));
                for place in 0..REPLICAS {
                    settle(&self.files.join(format!("cairn-{place}")), measure.warm)?;
                }
                let seed = round.into();
                ours.push(self.load("Cairn", &mut both.cairn, measure.load, true, seed)?);
                step.note(&format!("round {round} of {rounds}: Ceph"));
                if !measure.warm {
                    both.ceph.forget()?;
                }
                theirs.push(self.load("Ceph", &mut both.ceph.server, measure.load, true, seed)?);
            }
            Ok(())
        })?;
        report(measure, &middle(ours), &middle(theirs));
        Ok(())
    }

    /// Each side once, unmeasured.
    fn once(&self, both: &mut Both, load: Load, step: &Step) -> Result<()> {
        for (name, server) in [("Cairn", &mut both.cairn), ("Ceph", &mut both.ceph.server)] {
            step.note(name);
            self.load(name, server, load, false, 0)?;
        }
        Ok(())
    }
}

fn report(measure: &Measure, ours: &Figures, theirs: &Figures) {
    say(&line("Cairn", ours, measure.load.len));
    say(&line("Ceph", theirs, measure.load.len));
    let [own, _] = ours.cpu_us;
    let [servers, client] = theirs.cpu_us;
    say(&format!(
        "  ratio {:.2}, CPU {:.2} of its servers' and {:.2} with its client's, memory {:.2}",
        ours.per_second / theirs.per_second,
        own / servers,
        own / (servers + client),
        ours.mib as f64 / theirs.mib as f64,
    ));
}
