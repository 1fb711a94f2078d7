//! One replica, beside qemu-storage-daemon's vhost-user-blk export of a file, past the page cache and through it, and
//! beside the file itself by io_uring. Of qemu-storage-daemon the best of its ways is compared with.

use anyhow::Result;
use image_builder::paths::ensure_dir;
use image_builder::stage::say;

use super::load::Load;
use super::side::{Side, settle};
use super::{Bench, Figures, Measure, line, middle};

impl Bench<'_> {
    pub(super) fn one_replica(&self) -> Result<()> {
        ensure_dir(self.files.clone())?;
        self.step("one replica: each disk is written in full", |step| {
            for side in [Side::Cairn, Side::Raw { direct: true }] {
                step.note(&side.name());
                self.on(side, Load::FILL, false, 0)?;
            }
            Ok(())
        })?;
        self.measures().try_for_each(|measure| self.measure_one(measure))
    }

    fn measure_one(&self, measure: &Measure) -> Result<()> {
        let rounds = self.options.rounds;
        let mut all: Vec<Vec<Figures>> = vec![Vec::new(); Side::ALL.len()];
        self.step(&format!("one replica: {}", measure.name), |step| {
            for round in 1..=rounds {
                for (side, found) in Side::ALL.into_iter().zip(&mut all) {
                    step.note(&format!("round {round} of {rounds}: {}", side.name()));
                    settle(&side.files(&self.files), measure.warm)?;
                    found.push(self.on(side, measure.load, true, round.into())?);
                }
            }
            Ok(())
        })?;
        report(measure, &all.into_iter().map(middle).collect::<Vec<_>>());
        Ok(())
    }

    /// Starts a side, puts a load on it, and ends it.
    fn on(&self, side: Side, load: Load, measured: bool, seed: u64) -> Result<Figures> {
        let mut server = side.start(&self.files, self.size)?;
        let figures = self.load(&side.name(), &mut server, load, measured, seed)?;
        server.end()?;
        Ok(figures)
    }
}

fn best(all: &[Figures], which: impl Fn(Side) -> bool) -> f64 {
    let of_those = Side::ALL.into_iter().zip(all).filter(|(side, _)| which(*side));
    of_those.map(|(_, figures)| figures.per_second).fold(0.0, f64::max)
}

fn report(measure: &Measure, all: &[Figures]) {
    for (side, figures) in Side::ALL.into_iter().zip(all) {
        say(&line(&side.name(), figures, measure.load.len));
    }
    let own = best(all, |side| side == Side::Cairn);
    say(&format!(
        "  ratio to the best of QSD {:.2}, to the raw file {:.2} (direct) and {:.2} (cached)",
        own / best(all, |side| matches!(side, Side::Qsd { .. })),
        own / best(all, |side| side == Side::Raw { direct: true }),
        own / best(all, |side| side == Side::Raw { direct: false }),
    ));
}
